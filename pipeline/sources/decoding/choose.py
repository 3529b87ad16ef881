"""The decoder of a file: PyAV, or another that was asked for by name, if it reads this file rightly."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from deltascene.pipeline.sources.decoding.by_av import av_pictures
from deltascene.pipeline.sources.decoding.by_decord import decord_name, decord_pictures, decord_sample
from deltascene.pipeline.sources.decoding.by_image import animation_pictures, examine_animation
from deltascene.pipeline.sources.decoding.by_opencv import opencv_name, opencv_pictures, opencv_sample
from deltascene.pipeline.sources.decoding.probe import examine
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.frame_table import Picture
from deltascene.pipeline.sources.info import Decoder, SourceInfo
from deltascene.stages.types import Image

_WORST_MEAN = 1.5
_WORST_PIXEL = 8
_SAMPLE = 12


def examine_with(path: Path, decoder: Decoder, alive: Callable[[], None]) -> SourceInfo:
    """Learns all about a video file before it is decoded.

    Args:
        path: the file.
        decoder: by which it is to be decoded.
        alive: is called while decoding goes on.

    Raises:
        UnreadableSource: no picture comes out of it, or the decoder asked for reads it otherwise than PyAV.
    """
    if _is_webp(path):
        return examine_animation(path)
    info = examine(path, alive)
    if decoder in ("auto", "av"):
        return info
    sample, name = (decord_sample, decord_name) if decoder == "decord" else (opencv_sample, opencv_name)
    indices = sorted({0, min(_SAMPLE, info.frames - 1)})
    pictures: list[Image] | str = "it is interlaced" if info.interlaced else sample(path, info, indices)
    if not isinstance(pictures, str):
        own = [image for index in indices for _, image, _ in av_pictures(path, info, range(index, index + 1))]
        if not all(map(_agree, pictures, own)):
            pictures = "its colours or frames differ from FFmpeg's"
    if isinstance(pictures, str):
        raise UnreadableSource(
            f"{path}: expected a file that {decoder} reads rightly, found that {pictures}; leave the decoder at auto"
        )
    return replace(info, decoder=name())


def pictures_of(path: Path, info: SourceInfo, wanted: range, threads: int) -> Iterator[Picture]:
    """Pictures `wanted` of a file in order, by the decoder that its `SourceInfo` names."""
    if _is_webp(path):
        return animation_pictures(path, wanted)
    if info.decoder.startswith("decord"):
        return decord_pictures(path, info, wanted)
    if info.decoder.startswith("opencv"):
        return opencv_pictures(path, info, wanted)
    return av_pictures(path, info, wanted, threads=threads)


def _is_webp(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def _agree(one: Image, other: Image | None) -> bool:
    if other is None or one.shape != other.shape:
        return False
    difference = np.abs(one.astype(np.int16) - other)
    return float(difference.mean()) <= _WORST_MEAN and int(difference.max()) <= _WORST_PIXEL
