"""What a search for inputs passes over: results of runs, files of other kinds, images beside videos or sequences."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from deltascene.cache.places import Place
from deltascene.pipeline.units import count

_SHOWN = 3  # names of each kind
_UNNAMED = frozenset(["$recycle.bin", "@eadir", "__macosx", "desktop.ini", "thumbs.db"])


@dataclass(slots=True)
class PassedOver:
    """Files and folders that a search met and that aren't inputs.

    Attributes:
        out: folder of the run's results; nothing below it is an input.
        results: folders and files of results.
        others: files that are neither videos nor images.
        images: images beside videos.
        single: images beside numbered ones.
    """

    out: Place | None = None
    results: dict[str, Place] = field(default_factory=dict)
    others: dict[str, Place] = field(default_factory=dict)
    images: dict[str, Place] = field(default_factory=dict)
    single: dict[str, Place] = field(default_factory=dict)

    def drops(self, folder: Place) -> bool:
        """Whether a folder has results of this run or another one; then it is counted."""
        if self.drops_file(folder):
            return True
        if found := (folder / "run.yaml").is_file() and (folder / "videos.parquet").is_file():
            self.results[str(folder)] = folder
        return found

    def drops_file(self, path: Place) -> bool:
        """Whether a file or folder is OUT or below it; then OUT is counted."""
        if found := self.out is not None and _is_below(path, self.out):
            self.results[str(self.out)] = self.out
        return found

    @property
    def line(self) -> str:
        """All of it in one line; empty if there is nothing."""
        parts = []
        if self.results:
            parts.append(f"results of runs ({_few(self.results.values())})")
        if self.others:
            parts.append(f"{count(len(self.others), 'file')} of other kinds ({_few(self.others.values())})")
        if self.images:
            first = next(iter(self.images.values()))
            way = f"'{first.parent}/*{first.suffix}' names them as a sequence"
            parts.append(f"{count(len(self.images), 'image')} beside videos ({way})")
        if self.single:
            parts.append(f"{count(len(self.single), 'image')} beside numbered ones ({_few(self.single.values())})")
        return f"passed over: {'; '.join(parts)}" if parts else ""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or one of those that systems leave behind; it isn't worth a word."""
    return name.startswith(".") or name.lower() in _UNNAMED


def _is_below(path: Place, folder: Place) -> bool:
    if isinstance(path, Path) and isinstance(folder, Path):
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    inner, outer = (f"{each}/".replace("s3a://", "s3://", 1) for each in (path, folder))
    return inner.startswith(outer)


def _few(places: Collection[Place]) -> str:
    names = [each.name for each in places]
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
