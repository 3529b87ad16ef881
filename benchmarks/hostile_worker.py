"""Runs commands of `deltascene` one after the other in one process, so that torch is imported once.

Reads one command per line from stdin (a JSON list); writes one result per line to the descriptor in the first argument.
The output of a command goes to memory files, an exception is printed as by Python, and the exit code is Python's.
"""

import json
import os
import resource
import sys
import time
import traceback
from contextlib import nullcontext
from unittest.mock import patch

UNTIDIED = "untidied"  # before a run: it doesn't remove segments of finished videos, as if killed before that

_MOST_ADDRESSES = 24 << 30
_LONGEST = 200_000


def main() -> None:
    """Runs commands until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))  # so that a bomb is a MemoryError
    replies = os.fdopen(int(sys.argv[1]), "w")
    commands = os.fdopen(os.dup(0), "r")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for line in commands:
        replies.write(json.dumps(answer(json.loads(line))) + "\n")
        replies.flush()


def answer(arguments: list[str]) -> dict[str, object]:
    """Runs one command."""
    from deltascene.pipeline.batch import flow
    from deltascene.pipeline.cli import app

    before = [os.dup(1), os.dup(2)]
    files = [os.memfd_create("out"), os.memfd_create("error")]
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
    _forget_peak()
    untidied = arguments[0] == UNTIDIED
    sys.argv = ["deltascene", *arguments[untidied:]]
    began, code = time.perf_counter(), 0
    try:
        with patch.object(flow, "_tidy", _leave) if untidied else nullcontext():
            app.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    seconds = time.perf_counter() - began
    sys.stdout.flush()
    sys.stderr.flush()
    texts = [_take(file) for file in files]
    for number, file in enumerate(before, start=1):
        os.dup2(file, number)
        os.close(file)
    return {"code": code, "out": texts[0], "error": texts[1], "seconds": seconds, "peak_bytes": _peak_bytes()}


def _leave(*_: object) -> None:
    """Replaces the function that removes the segments of a finished video."""


def _take(file: int) -> str:
    text = os.pread(file, _LONGEST, 0).decode("utf-8", "backslashreplace")
    os.close(file)
    return text


def _forget_peak() -> None:
    """Source: proc(5), /proc/pid/clear_refs: 5 resets the peak of the resident set."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak_bytes() -> int:
    with open("/proc/self/status") as file:
        own = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    return 1024 * max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


if __name__ == "__main__":
    main()
