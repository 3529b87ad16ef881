"""A tiny bundle on another network than the packaged one, and real little clips, made once per session."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tiny_model import TINY_DELTA, write_clip, write_tiny_bundle

from deltascene.pipeline.numerics import kernel

COLOURED_ANYWAY = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")
LONGEST_FOR_RAY = 39  # bytes of a temporary folder: a socket's path has 107 at most, what Ray adds to it takes 68


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory) -> Iterator[Path]:
    """A user's cache of their own for the tests: what is compiled on this machine changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread_unless_asked() -> None:
    """Whatever ran before in this process; beside other processes of the suite two threads mostly wait, busily."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _terminal_of_80_columns() -> Iterator[None]:
    """Tables are as wide as the terminal that the tests are started from; what they leave out there isn't tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        for name in COLOURED_ANYWAY:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def ray_settings() -> Iterator[dict[str, str]]:
    """Environment of every cluster that tests start.

    Its workers let all others go first by default and would miss deadlines; its password would be kept in the user's
    home, which may not be writable; its sockets need a short path.
    """
    settings = {"RAY_worker_niceness": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as left:
        if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOR_RAY:
            short = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)
            settings["RAY_TMPDIR"] = left.enter_context(short)
        for name, value in settings.items():
            patch.setenv(name, value)
        yield settings


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)`: a folder that `make(folder)` fills in one process of the suite and all of them read."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made_once"
    shared.mkdir(exist_ok=True)

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = shared / name, shared / f"{name}.whole"
        with FileLock(shared / f"{name}.lock"):
            if not whole.exists():  # another process may have failed half-way
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def built_kernel(made_once) -> Path:
    """A user's cache with the kernel in it, compiled for real from and into folders with spaces in their names."""
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler")
    with pytest.MonkeyPatch.context() as patch:

        def build(folder: Path) -> None:
            from torch.utils import cpp_extension

            spaced = folder.with_name("libraries of torch")
            spaced.unlink(missing_ok=True)
            spaced.symlink_to(cpp_extension.TORCH_LIB_PATH)
            patch.setattr(cpp_extension, "TORCH_LIB_PATH", str(spaced))
            patch.setenv("XDG_CACHE_HOME", str(folder))
            kernel.build_kernel()

        folder = made_once("compiled kernel", build)
        patch.setenv("XDG_CACHE_HOME", str(folder))
        assert kernel.choose_kernel("auto") == "compiled"
    return folder


@pytest.fixture
def with_kernel(built_kernel, monkeypatch) -> None:
    """As on a machine where the kernel was built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built_kernel))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products on several threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny bundle: four tasks of four kinds, 12 tokens a frame."""
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def tiny_delta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny bundle with delta weights of two tasks: height from block 3 on, flow from block 4 on."""
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny_delta", TINY_DELTA))


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a real MJPG clip: `make_clip(frames, fps, name)`."""

    def make(frames: int = 20, fps: float = 10.0, name: str = "clip", size: tuple[int, int] = (72, 96)) -> Path:
        return write_clip(tmp_path_factory.mktemp("clips") / f"{name}.avi", frames, fps, size)

    return make
