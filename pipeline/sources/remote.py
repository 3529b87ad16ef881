"""Inputs in an object store: found by URL, and copied to the user cache to be read, as decoders need files.

Each machine of a cluster copies the inputs of its own readers. If the cache is full, the copies that weren't read for
the longest time are removed.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from deltascene.cache.errors import NoSuchStore
from deltascene.cache.places import Place, place
from deltascene.pipeline.sources.errors import SourceNotFound, UnreadableSource
from deltascene.pipeline.sources.passed_over import PassedOver, is_hidden
from deltascene.pipeline.sources.spec import VIDEO_SUFFIXES, SourceSpec

CACHE_BYTES = 50 << 30  # that copies may take on a machine
_MAGIC = re.compile(r"[*?\[]")


def is_remote(argument: str) -> bool:
    """Whether a SOURCE is a URL of a store; `file://` is a path."""
    return "://" in argument and not argument.startswith("file://")


def find_remote(argument: str, aside: PassedOver) -> list[SourceSpec]:
    """Finds videos at a URL: one object, all below a prefix, or those that a glob matches.

    Args:
        argument: the URL.
        aside: takes what is passed over.

    Raises:
        SourceNotFound: there is none, or the store can't be reached.
    """
    try:
        videos = list(_videos(place(argument), argument, aside))
    except (NoSuchStore, OSError, ValueError) as error:
        raise SourceNotFound(f"{argument}: expected videos in a store; {' '.join(str(error).split())}") from error
    if not videos and not aside.results:
        raise SourceNotFound(f"{argument}: expected videos, found none there; {aside.line or 'there is nothing'}")
    return videos


def _videos(root: Place, argument: str, aside: PassedOver) -> Iterator[SourceSpec]:
    assert not isinstance(root, Path)
    if _MAGIC.search(argument):
        fixed = _MAGIC.split(root.path, maxsplit=1)[0].rpartition("/")[0]
        found = root.fs.glob(root.path)
    elif root.fs.isfile(root.path):
        yield SourceSpec(root.name, "video", (root,))
        return
    else:
        fixed, found = root.path.rstrip("/"), root.fs.find(root.path)
    runs = _run_prefixes(root.protocol, fixed, found, aside)
    for path in sorted(found):
        name, each = path.removeprefix(fixed).strip("/"), place(f"{root.protocol}://{path}")
        if any(map(is_hidden, name.split("/"))) or path.startswith(runs) or aside.drops_file(each):
            continue
        if each.suffix.lower() in VIDEO_SUFFIXES:
            yield SourceSpec(name, "video", (each,))
        elif "." in each.name:  # a glob names folders, too
            aside.others[str(each)] = each


def _run_prefixes(protocol: str, fixed: str, paths: Sequence[str], aside: PassedOver) -> tuple[str, ...]:
    """What paths of results of runs begin with; runs are looked for at each `run.yaml` and folder `videos`."""
    folders = {path.removesuffix("/run.yaml") for path in paths if path.endswith("/run.yaml")}
    at = re.compile(re.escape(fixed) + "(?:.*?/)?(?=videos/)")
    folders |= {found[0].rstrip("/") for path in paths if (found := at.match(path))}
    return tuple(f"{folder}/" for folder in sorted(folders) if aside.drops(place(f"{protocol}://{folder}")))


def local_files(spec: SourceSpec) -> tuple[Path, ...]:
    """Files of a source on this machine; those in an object store are copied.

    Raises:
        UnreadableSource: a file can't be copied.
        FileNotFoundError: a file doesn't exist any more.
    """
    return tuple(_copied(path) for path in spec.paths)


def _copied(path: Place) -> Path:
    if isinstance(path, Path):
        return path
    try:
        about = path.fs.info(path.path)
        version = sha256(f"{path}\0{path.fs.checksum(path.path)}".encode()).hexdigest()[:24]
        file = _cache() / version / path.name
        if file.is_file():
            os.utime(file)
            return file
        _make_room(int(about["size"] or 0))
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            path.fs.get_file(path.path, str(part))
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableSource(f"{path}: can't be copied here: {' '.join(str(error).split())}") from error
    return file


def _cache() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltascene" / "inputs"
    root.mkdir(parents=True, exist_ok=True)
    return root


def _make_room(size: int) -> None:
    """Removes the copies that weren't read for the longest time; a process that has one open can still read it."""
    kept = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in _cache().glob("*/*"))
    beyond = sum(each[1] for each in kept) + size - CACHE_BYTES
    for _, freed, file in kept:
        if beyond <= 0:
            return
        with suppress(OSError):
            file.unlink()
            file.parent.rmdir()
        beyond -= freed
