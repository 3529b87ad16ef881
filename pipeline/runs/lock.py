"""One writer for an output folder: a lock with a heartbeat, and a fencing number that only grows.

    OUT/locks/<number:08d>.json     the highest number is the writer's; it writes the current time there regularly

A lock file is created only if there is none of its number, on a disk and in an object store, so that one of two racing
processes gets it. A run that takes over from a writer without a heartbeat takes the next number. The earlier writer may
only have been suspended. So before it seals a segment or finishes a video, `Fence.require` checks for a higher number;
and a sealed file is never overwritten.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from deltascene.cache.errors import NoSuchStore
from deltascene.cache.places import Place, create_whole, remove, writable, write_whole
from deltascene.pipeline.errors import OutputError, Overtaken
from deltascene.pipeline.runs.links import refuse_links

BEAT_S = 15.0  # seconds between two heartbeats
STALE_S = 120.0  # a writer on another machine without a heartbeat for so long counts as dead

Note = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fence:
    """The lock that a writer holds; a plain value that is handed to every process that writes for it.

    Attributes:
        folder: folder of the locks.
        number: number of the writer; every later writer has a higher one.
        token: name of the writer, written into every seal.
    """

    folder: Place
    number: int
    token: str

    @property
    def path(self) -> Place:
        """Path of the lock file."""
        return self.folder / f"{self.number:08d}.json"

    def require(self) -> None:
        """Stops a writer if another one took over the folder.

        Raises:
            Overtaken: another one did.
        """
        if max(_numbers(self.folder), default=0) > self.number:
            raise Overtaken(
                f"{self.folder.parent}: another run took over, as this one had shown no life for {STALE_S:.0f} s;"
                " what it finished is kept; let that one go on"
            )


@contextmanager
def locked(root: Place) -> Iterator[Fence]:
    """Holds the lock of an output folder, which is created if it doesn't exist.

    Raises:
        OutputError: another run writes there, or the folder can't be written.
    """
    try:
        writable(root)
        root.mkdir(parents=True, exist_ok=True)
        for folder in (root, root / "locks", root / "videos"):
            refuse_links(folder)
        fence = _take(root / "locks")
    except NoSuchStore as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        raise OutputError(f"{root}: can't be written: {error.strerror or error}; choose another -o") from error
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(fence, ended), daemon=True)
    heart.start()
    try:
        yield fence
    finally:
        ended.set()
        heart.join()
        if fence.path.exists():
            write_whole(fence.path, _text(fence.token, released=True))


def writing(root: Place) -> bool:
    """Whether a run is writing to an output folder now, according to its lock."""
    return _alive(_owner(root))


def refuse_busy(root: Place) -> None:
    """Refuses an output folder that another run is writing to; an early check that takes no lock.

    Raises:
        OutputError: another run is writing there.
    """
    owner = _owner(root)
    if _alive(owner):
        raise OutputError(
            f"{root}: process {owner.get('pid')} on {owner.get('host')} is writing there;"
            " wait for it, or choose another -o"
        )


def _take(folder: Place) -> Fence:
    folder.mkdir(parents=True, exist_ok=True)
    earlier = sorted(_numbers(folder))
    refuse_busy(folder.parent)
    number = earlier[-1] + 1 if earlier else 1
    fence = Fence(folder, number, f"{number}-{secrets.token_hex(8)}")
    if not create_whole(fence.path, _text(fence.token).encode()) or max(_numbers(folder)) > number:
        raise OutputError(f"{folder.parent}: another run took it just now; choose another -o")
    for each in earlier:
        remove(folder / f"{each:08d}.json")
    return fence


def _owner(root: Place) -> Note:
    """What the last writer wrote into its lock; empty if there is none."""
    numbers = _numbers(root / "locks")
    return _read(root / "locks" / f"{max(numbers):08d}.json") if numbers else {}


def _numbers(folder: Place) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()]


def _text(token: str, released: bool = False) -> str:
    owner = {"token": token, "pid": os.getpid(), "host": socket.gethostname()}
    return json.dumps({**owner, "beat_s": time.time(), "released": released})


def _beat(fence: Fence, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(OSError):  # a full disk is reported where results are written
            if fence.path.exists():  # a run that takes over removes it
                write_whole(fence.path, _text(fence.token))


def _read(path: Place) -> Note:
    try:
        if not path.is_file():  # a pipe would wait for a writer
            return {}
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _alive(owner: Note) -> bool:
    beat_s = owner.get("beat_s")
    if owner.get("released") or not isinstance(beat_s, (int, float)):
        return False
    if owner.get("host") != socket.gethostname():
        return time.time() - beat_s < STALE_S
    pid = owner.get("pid")
    if type(pid) is not int or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
