"""The compiled kernel: built on request with torch's extension mechanism, kept per user, loaded where it is there.

Its file is named by all that it depends on: our source, torch, and the instruction set that torch uses here. So a new
torch or another machine finds none, and runs through plain PyTorch until it is built again.
"""

import logging
import os
import shlex
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from hashlib import sha256
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Literal

import torch

from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.text import one_line

Kernel = Literal["torch", "compiled"]

_FLAGS = {  # by torch's name of the instruction set
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
}


def kernel_name() -> str:
    """What the numerics record calls the kernel of this source, torch and instruction set."""
    text = "\0".join((_source(), torch.__version__, *_flags()))
    return f"rows-{sha256(text.encode()).hexdigest()[:12]}"


def kernel_file() -> Path:
    """Where it is kept, whether it is there or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "deltascene" / "kernels" / f"{kernel_name()}.so"


def choose_kernel(asked: Literal["auto", "torch", "compiled"]) -> Kernel:
    """What will compute blocks; a compiled kernel is loaded into this process.

    Raises:
        UsageError: the compiled kernel was asked for and isn't there, or can't be loaded.
    """
    path = kernel_file()
    if asked == "torch" or (asked == "auto" and not path.is_file()):
        return "torch"
    if not path.is_file():
        raise UsageError("numerics.kernel: expected a compiled kernel; found none; deltascene doctor --build-kernels")
    if hasattr(torch.ops.deltascene, "run_block"):  # a library can be registered once in a process
        return "compiled"
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UsageError(
            f"kernel {path}: can't be loaded: {one_line(error)}; deltascene doctor --build-kernels builds it anew"
        ) from error
    return "compiled"


def build_kernel() -> Path:
    """Compiles the kernel; another process sees all of the file or none. Takes about a quarter of a minute.

    Raises:
        UsageError: there is no compiler, or it fails, the text ends with what it said; or the user's cache can't be
            written.
    """
    capability, path = torch.backends.cpu.get_cpu_capability(), kernel_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".try").touch()
        path.with_suffix(".try").unlink()
    except OSError as error:
        raise UsageError(
            f"kernel: can't be kept in {path.parent}: {one_line(error)}; XDG_CACHE_HOME names another folder"
        ) from error
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it tells of GPUs, which nobody asked for
    flags = ["-O3", "-fopenmp", "-fno-math-errno", "-fno-strict-aliasing", *_flags()]
    defines = [f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"]
    said = StringIO()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, redirect_stdout(said), redirect_stderr(said):
        source = Path(folder) / "rows.cpp"
        source.write_text(_source(), encoding="utf-8")
        try:
            from torch.utils.cpp_extension import load

            with _tools_found():
                load(
                    path.stem.replace("-", "_"),
                    [str(source)],
                    extra_cflags=[*flags, *defines],
                    extra_ldflags=["-fopenmp"],
                    build_directory=folder,
                    is_python_module=False,
                )
        except (RuntimeError, OSError, ImportError) as error:
            raise UsageError(f"kernel: can't be compiled: {_last_error(f'{error}')}") from error
        os.replace(Path(folder) / f"{path.stem.replace('-', '_')}.so", path)
    return path


@contextmanager
def _tools_found() -> Iterator[None]:
    """While torch calls the ninja of this installation, also if that isn't on PATH, and finds its own libraries.

    Source: torch.utils.cpp_extension._prepare_ldflags puts their folder into a shell command as it is, spaces and all.
    """
    from torch.utils import cpp_extension

    path, libraries = os.environ.get("PATH", os.defpath), cpp_extension.TORCH_LIB_PATH
    os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + path
    cpp_extension.TORCH_LIB_PATH = shlex.quote(libraries)
    try:
        yield
    finally:
        os.environ["PATH"], cpp_extension.TORCH_LIB_PATH = path, libraries


def multiplies_bfloat16() -> bool:
    """Whether a kernel compiled here has products of bfloat16."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported()


def _flags() -> tuple[str, ...]:
    """Of the compiler, for the instructions that torch uses here."""
    flags = _FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())
    return (*flags, "-mavx512bf16") if multiplies_bfloat16() else flags


def _source() -> str:
    return (resources.files("deltascene.stages") / "rows.cpp").read_text(encoding="utf-8")


def _last_error(text: str) -> str:
    """The line of a compiler's output that names the fault."""
    lines = text.splitlines()
    for sign in (" error: ", "not found", "error"):
        faults = [line for line in lines if sign in line.lower()]
        if faults:
            return one_line(faults[0])
    return one_line(text)
