"""Identity of an input: hashes of its content; and errors for files that can't be opened."""

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from deltascene.cache.places import Place, open_anywhere
from deltascene.pipeline.sources.errors import SourceError, SourceNotFound, UnreadableSource
from deltascene.pipeline.sources.spec import SourceSpec

_MIB = 1 << 20
_SPECIAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Content hashes of an input: SHA-256 in hexadecimal digits.

    Attributes:
        quick: hash of the size and the first, middle and last MiB; fingerprints and archives are keyed by it.
        full: hash of the size and every byte; empty if it wasn't computed. Up to 3 MiB both are the same.
    """

    quick: str
    full: str = ""

    def matches(self, other: "Identity") -> bool:
        """Whether both are of the same content: full hashes are compared where both are known, else quick ones.

        Earlier versions recorded the full hash alone, in place of the quick one.
        """
        if self.full and other.full:
            return self.full == other.full
        return bool({self.quick, self.full} & {other.quick, other.full} - {""})


def identity(spec: SourceSpec, full: bool = False) -> Identity:
    """Computes the content hashes of a source.

    Args:
        spec: the source; for a sequence, the sorted names, sizes and hashes of all images are hashed.
        full: whether every byte is hashed, too.

    Raises:
        SourceNotFound: a file doesn't exist any more.
        UnreadableSource: a file can't be opened.
    """
    try:
        if spec.kind == "video":
            return _file_identity(spec.path, full)
        quick, whole = hashlib.sha256(), hashlib.sha256()
        for path in sorted(spec.paths, key=lambda each: each.name):
            about, image = f"{path.name}\0{path.stat().st_size}\0", _file_identity(path, full)
            quick.update(f"{about}{image.quick}\n".encode())
            whole.update(f"{about}{image.full}\n".encode())
        return Identity(quick.hexdigest(), whole.hexdigest() if full else "")
    except OSError as error:
        raise missing_file(spec, error) from error


def recognise(spec: SourceSpec, recorded: Identity, now: Identity) -> Identity | None:
    """Compares a source with its recorded identity.

    If the quick hashes differ and neither full hash is known, every byte is read: earlier versions recorded the full
    hash in place of the quick one.

    Args:
        spec: the source.
        recorded: its identity as an earlier run wrote it.
        now: its identity as returned by `identity`, with or without the full hash.

    Returns:
        Both hashes as far as they are known; None if the source has another content now.

    Raises:
        SourceError: a file can't be read.
    """
    if not now.full and not recorded.full and now.quick != recorded.quick:
        now = identity(spec, full=True)
    return Identity(now.quick, now.full or recorded.full) if now.matches(recorded) else None


def missing_file(spec: SourceSpec, error: OSError) -> SourceError:
    """The error for a source whose file doesn't exist any more or can't be opened."""
    if isinstance(error, FileNotFoundError):
        return SourceNotFound(f"{error.filename}: expected a file of source {spec.id}, found nothing there any more")
    return UnreadableSource(f"{error.filename}: expected a file that can be read, found: {error.strerror}")


def refuse_special(path: Place) -> None:
    """Refuses a path that isn't a file before it is opened: a pipe would wait for a writer, a device has no end.

    Raises:
        UnreadableSource: the path isn't a file.
    """
    if not isinstance(path, Path):
        return
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        found = next((name for is_one, name in _SPECIAL if is_one(mode)), "something else")
        raise UnreadableSource(f"{path}: expected a file, found {found}")


def _file_identity(path: Place, full: bool) -> Identity:
    refuse_special(path)
    size = path.stat().st_size
    quick, whole = (hashlib.sha256(f"{size}\0".encode()) for _ in range(2))
    small = size <= 3 * _MIB
    with open_anywhere(path) as file:
        if full or small:
            while chunk := file.read(_MIB):
                whole.update(chunk)
        for start in () if small else (0, (size - _MIB) // 2, size - _MIB):
            file.seek(start)
            quick.update(file.read(_MIB))
    return Identity((whole if small else quick).hexdigest(), whole.hexdigest() if full else "")
