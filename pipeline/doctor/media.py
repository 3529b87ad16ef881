"""Checks that write and read a small video."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from deltascene.errors import DeltasceneError
from deltascene.pipeline.doctor.check import Check
from deltascene.pipeline.doctor.packages import has_decord_wheel
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.info import Decoder
from deltascene.pipeline.sources.reader import read_frames
from deltascene.stages.types import Image

_FRAMES = 12
_SIZE = (48, 64)
_WORST_MEAN = 5.0  # of 255: largest error of lossy compression on flat colours; swapped channels give far more


def check_decoders() -> list[Check]:
    """Whether each decoder reads a clip that OpenCV wrote: all frames, in order, in the right colours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        if not _write_clip(path):
            found = "OpenCV can't write MPEG-4, so decoding wasn't checked"
            return [Check("decoding", "warning", found, "pip install --force-reinstall opencv-python")]
        return [_check_decoder("av", path), _check_decoder("decord", path)]


def check_webm() -> list[Check]:
    """Whether an overlay can be written and read."""
    from deltascene.pipeline.drawing.webm import WebmWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "overlay.webm"
        try:
            with closing(WebmWriter(path, _SIZE, 10.0)) as writer:
                for number, picture in enumerate(_pictures()):
                    writer.write(picture, 100 * number)
                writer.finish()
            _, difference = _read(path, "auto")
        except (DeltasceneError, OSError) as error:
            return [Check("overlay", "problem", str(error), "--set save.video=false runs without overlays")]
    return [Check("overlay", "ok", f"WebM written and read, mean error {difference:.1f} of 255")]


def _check_decoder(decoder: Decoder, path: Path) -> Check:
    name = f"{decoder} decoding"
    try:
        by, difference = _read(path, decoder)
    except DeltasceneError as error:
        if decoder == "av":
            return Check(name, "problem", str(error), "pip install --force-reinstall av")
        if not has_decord_wheel():
            return Check(name, "ok", "absent, as decord has no wheel for this machine; PyAV reads every file")
        return Check(name, "warning", str(error), "pip install decord, if it is to be used; PyAV reads every file")
    if difference > _WORST_MEAN:
        return Check(name, "problem", f"{by}: wrong pictures, mean error {difference:.0f} of 255", "report this table")
    return Check(name, "ok", f"{by}: {_FRAMES} frames of MPEG-4, mean error {difference:.1f} of 255")


def _read(path: Path, decoder: Decoder) -> tuple[str, float]:
    """The decoder that read a clip, and the mean error of its pictures, 0 to 255; 255 if frames are missing."""
    with read_frames(find_sources([str(path)])[0], decoder=decoder) as frames:
        found = [frame.image for frame in frames]
    if len(found) != _FRAMES:
        return frames.info.decoder, 255.0
    pairs = zip(found, _pictures(), strict=True)
    errors = [255.0 if one is None else float(np.abs(one.astype(np.int16) - other).mean()) for one, other in pairs]
    return frames.info.decoder, max(errors)


def _write_clip(path: Path) -> bool:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, _SIZE[::-1])
    for picture in _pictures():
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    opened = bool(writer.isOpened())
    writer.release()
    return opened


def _pictures() -> Iterator[Image]:
    """Pictures of red and blue halves, brighter in every frame, so that a lost, doubled or wrong frame is seen."""
    for number in range(_FRAMES):
        picture = np.zeros((*_SIZE, 3), np.uint8)
        picture[:, : _SIZE[1] // 2] = (90 + 12 * number, 30, 20)
        picture[:, _SIZE[1] // 2 :] = (20, 30, 90 + 12 * number)
        yield picture
