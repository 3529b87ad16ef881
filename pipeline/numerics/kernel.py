"""The compiled kernel: built on request with torch's extension mechanism, kept in the user cache, loaded if it exists.

The name of its file is a hash of everything that it depends on: its source, torch, and the instruction set that torch
uses. So with a new torch or on another machine none is found, and blocks run through plain PyTorch until it is built
again.
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
    """Name of the kernel of this source, torch and instruction set, as in the numerics record."""
    text = "\0".join((_source(), torch.__version__, *_flags()))
    return f"rows-{sha256(text.encode()).hexdigest()[:12]}"


def kernel_file() -> Path:
    """Path of the kernel in the user cache, whether it exists or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "deltascene" / "kernels" / f"{kernel_name()}.so"


def choose_kernel(asked: Literal["auto", "torch", "compiled"]) -> Kernel:
    """Chooses what computes blocks, and loads a compiled kernel into this process.

    Raises:
        UsageError: the compiled kernel was requested and doesn't exist, or can't be loaded.
    """
    path = kernel_file()
    if asked == "torch" or (asked == "auto" and not path.is_file()):
        return "torch"
    if not path.is_file():
        raise UsageError("numerics.kernel: expected a compiled kernel; found none; deltascene doctor --build-kernels")
    if hasattr(torch.ops.deltascene, "run_block"):  # a library can be registered only once in a process
        return "compiled"
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UsageError(
            f"kernel {path}: can't be loaded: {one_line(error)}; deltascene doctor --build-kernels builds it anew"
        ) from error
    return "compiled"


def build_kernel() -> Path:
    """Compiles the kernel, in about 15 seconds; other processes see the complete file or none.

    Raises:
        UsageError: there is no compiler, or it fails, and the text ends with its error; or the user cache can't be
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
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of GPUs, which aren't used here
    flags = ["-O3", "-fopenmp", "-fno-math-errno", "-fno-strict-aliasing", *_flags()]
    defines = [f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"]
    output = StringIO()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, redirect_stdout(output), redirect_stderr(output):
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
    """Lets torch find the ninja of this installation, even if it isn't on PATH, and torch's own libraries.

    Source: torch.utils.cpp_extension._prepare_ldflags puts the libraries' folder into a shell command unquoted.
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
    """Whether a kernel compiled on this machine multiplies bfloat16."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported()


def _flags() -> tuple[str, ...]:
    """Compiler flags for the instruction set that torch uses."""
    flags = _FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())
    return (*flags, "-mavx512bf16") if multiplies_bfloat16() else flags


def _source() -> str:
    return (resources.files("deltascene.stages") / "rows.cpp").read_text(encoding="utf-8")


def _last_error(text: str) -> str:
    """The line of a compiler's output with the error."""
    lines = text.splitlines()
    for sign in (" error: ", "not found", "error"):
        faults = [line for line in lines if sign in line.lower()]
        if faults:
            return one_line(faults[0])
    return one_line(text)
