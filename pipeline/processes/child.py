"""Starts and ends child processes that exchange messages over stdin and stdout."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

_PIPE_BYTES = 1 << 20
_OTHERS = ("OPENCV_", "AV_LOG", "FFREPORT", "DECORD_")  # prefixes of settings for other programs that read media


def forget_media_settings() -> None:
    """Drops the user's settings of media libraries from this process, before one is loaded that would end it."""
    for name in [name for name in os.environ if name.startswith(_OTHERS)]:
        del os.environ[name]


def start_child(
    module: str, pictures: Literal["in", "out"], variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts `python -m module` with unbuffered pipes.

    Args:
        module: dotted name.
        pictures: whether pictures go into the child or come out of it; that pipe gets a larger buffer.
        variables: added to its environment, besides this process's own; but settings of media libraries, which the
            user made for other programs, are left out, as the same file would be read in another way.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=inherited | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **(variables or {})},
        start_new_session=True,  # Ctrl-C reaches only the pipeline, which finishes its frame
    )
    if sys.platform == "linux":
        import fcntl

        pipe = process.stdin if pictures == "in" else process.stdout
        assert pipe is not None
        with suppress(OSError):  # the system limits large pipes per user; a small one is slower
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Kills a child, if it still runs, and closes its pipes."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
