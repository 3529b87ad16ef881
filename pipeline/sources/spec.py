"""A source: its id, its kind and its files."""

from dataclasses import dataclass
from typing import Literal

from deltascene.cache.places import Place

ANIMATED_SUFFIXES = frozenset([".apng", ".gif"])
VIDEO_SUFFIXES = ANIMATED_SUFFIXES | frozenset(  # what FFmpeg decodes
    f".{name}"
    for name in (
        *("264", "265", "266", "3g2", "3gp", "amv", "asf", "avc", "avi", "dav", "divx", "dv", "dvr-ms", "f4v", "flv"),
        *("gxf", "h261", "h263", "h264", "h265", "h266", "hevc", "insv", "ismv", "ivf", "m1v", "m2t", "m2ts", "m2v"),
        *("m4v", "mj2", "mjpeg", "mjpg", "mk3d", "mkv", "mod", "mov", "mp4", "mpe", "mpeg", "mpg", "mpv", "mts", "mxf"),
        *("nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb", "tod", "trp", "ts", "vc1", "vob", "vvc", "webm", "wmv"),
        *("wtv", "y4m"),
    )
)
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "heic", "heif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm"),
        *("tif", "tiff", "webp"),
    )
)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A video file, or the images of a sequence in order.

    Attributes:
        id: name of the source in a run and of its folder there, unique in its run; `ids.py` makes it of the path of the
            video, or of the sequence's folder, below the folder that was named.
        kind: `video` or `sequence`; an animated picture is a video.
        paths: the one file of a video, or every image of a sequence.
    """

    id: str
    kind: Literal["video", "sequence"]
    paths: tuple[Place, ...]

    @property
    def path(self) -> Place:
        """The video file, or the folder of the sequence's first image."""
        return self.paths[0] if self.kind == "video" else self.paths[0].parent
