"""A source: its id, its kind and its files."""

from dataclasses import dataclass
from typing import Literal

from deltascene.cache.places import Place

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
IMAGE_SUFFIXES = frozenset(
    [".avif", ".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A video file, or the images of a sequence in order.

    Attributes:
        id: name of the source in a run: letters, digits, `.`, `_` and `-` only, unique in its run.
        kind: `video` or `sequence`.
        paths: the one file of a video, or every image of a sequence.
    """

    id: str
    kind: Literal["video", "sequence"]
    paths: tuple[Place, ...]

    @property
    def path(self) -> Place:
        """The video file, or the folder of the sequence's first image."""
        return self.paths[0] if self.kind == "video" else self.paths[0].parent


@dataclass(frozen=True, slots=True)
class Found:
    """A source that has no id yet.

    Attributes:
        name: name that the id is made of.
        kind: `video` or `sequence`.
        paths: the one file of a video, or every image of a sequence.
    """

    name: str
    kind: Literal["video", "sequence"]
    paths: tuple[Place, ...]

    @property
    def place(self) -> str:
        """Absolute path of the video, or of the folder of the sequence; distinguishes sources of the same name."""
        return str(self.paths[0] if self.kind == "video" else self.paths[0].parent)
