"""A finished segment as one file: an uncompressed zip of its files, and a seal.

`seal.json` is the last member: size and SHA-256 of all others, and what the segment was made from. The file appears as
a whole, and only if there is none of its name. So a segment is sealed or it doesn't exist, and the files of two writers
never mix. The same content gives the same bytes, except for the fields of the seal that name its writer and the time.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deltascene.cache.errors import BrokenSeal
from deltascene.cache.places import Place, open_anywhere, put, put_new

FORMAT = 1
SEAL = "seal.json"
_LARGEST_SEAL = 16 << 20  # bytes; a valid seal has about a hundred per file
_BROKEN = (OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile)

Sums = Mapping[str, tuple[int, str]]


def write_sealed(
    folder: Path, path: Place, fields: Callable[[Sums], Mapping[str, Any]], *, replace: bool = False
) -> Mapping[str, Any] | None:
    """Packs and seals the files of a segment.

    Args:
        folder: the files of the segment and nothing else.
        path: path of the sealed file.
        fields: makes the seal, without `format` and `files`, from the size and SHA-256 of the files.
        replace: whether an existing file is replaced.

    Returns:
        The seal; None if the file exists and wasn't replaced.
    """
    packed = folder.with_name(folder.name + ".zip")
    try:
        seal = _pack(folder, packed, fields)
        if not replace:
            return seal if put_new(packed, path) else None
        put(packed, path)
        return seal
    finally:
        packed.unlink(missing_ok=True)


def _pack(folder: Path, packed: Path, fields: Callable[[Sums], Mapping[str, Any]]) -> Mapping[str, Any]:
    sums: dict[str, tuple[int, str]] = {}
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED, strict_timestamps=True) as out:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, data = file.relative_to(folder).as_posix(), file.read_bytes()
            sums[name] = len(data), sha256(data).hexdigest()
            out.writestr(zipfile.ZipInfo(name), data)
        seal = {**fields(sums), "files": sums}
        out.writestr(zipfile.ZipInfo(SEAL), json.dumps({"format": FORMAT, **seal}, indent=1) + "\n")
    return seal


class SealedZip:
    """Reads the sealed file of a segment; a context manager.

    Attributes:
        path: path of the file.
        fields: values of the seal, with `files`: size and SHA-256 by name.
    """

    def __init__(self, path: Place) -> None:
        """Opens the file; its members are checked against the seal when they are read.

        Raises:
            BrokenSeal: the file can't be read.
            FileNotFoundError: there is no such file.
        """
        self.path = path
        self._file = open_anywhere(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
            self.fields = self._seal()
        except _BROKEN as error:
            self._file.close()
            raise BrokenSeal(f"{path}: not a sealed segment: {' '.join(str(error).split())[:160]}") from error
        except RecursionError as error:
            self._file.close()
            raise BrokenSeal(f"{path}: not a sealed segment: its seal is nested too deeply") from error

    @property
    def files(self) -> Sums:
        """Size and SHA-256 of the sealed members, by name."""
        sums: Sums = self.fields["files"]
        return sums

    def read(self, name: str) -> bytes:
        """Reads a member and checks it.

        Raises:
            BrokenSeal: its bytes aren't those that were sealed, or it isn't among the sealed members.
        """
        if name not in self.files:
            raise BrokenSeal(f"{self.path}: expected {name} among the sealed files; it isn't")
        size, sum_ = self.files[name]
        try:
            found = self._zip.getinfo(name)
            if (found.compress_type, found.file_size) != (zipfile.ZIP_STORED, size):
                raise BrokenSeal(f"{self.path}: {name}: expected {size} bytes, as sealed; found {found.file_size}")
            data = self._zip.read(found)
        except KeyError as error:
            raise BrokenSeal(f"{self.path}: {name}: sealed, but missing") from error
        except _BROKEN as error:
            raise BrokenSeal(f"{self.path}: {name}: its bytes aren't those that were sealed ({error})") from error
        if sha256(data).hexdigest() != sum_:
            raise BrokenSeal(f"{self.path}: {name}: its bytes aren't those that were sealed")
        return data

    def check(self, names: Iterable[str] | None = None) -> None:
        """Reads and checks members; all of them by default.

        Raises:
            BrokenSeal: the bytes of a member aren't those that were sealed.
        """
        for name in self.files if names is None else names:
            self.read(name)

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _seal(self) -> dict[str, Any]:
        about = self._zip.getinfo(SEAL)
        if about.compress_type != zipfile.ZIP_STORED or about.file_size > _LARGEST_SEAL:
            raise ValueError(f"expected a seal of at most {_LARGEST_SEAL} bytes; found {about.file_size}")
        data: dict[str, Any] = json.loads(self._zip.read(about))
        try:
            if data.pop("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}")
            files = {str(name): (int(size), str(sum_)) for name, (size, sum_) in data["files"].items()}
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        return {**data, "files": files}
