"""Writes a clip as an mp4 with its truth beside it."""

import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.training.rooms.catalogue import Model
from deltascene.pipeline.training.rooms.clip_config import ClipConfig
from deltascene.pipeline.training.rooms.clips import clip_frames, make_shots
from deltascene.pipeline.training.rooms.scene import Furniture
from deltascene.pipeline.training.rooms.truth import Truth, changed_share
from deltascene.stages.metrics import moving_window

X264 = ("-c:v", "libx264", "-preset", "slow", "-pix_fmt", "yuv420p", "-threads", "1")
EXACT = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", "-movflags", "+faststart")


@dataclass(frozen=True)
class Mp4Config:
    """How a clip is compressed.

    Attributes:
        fps: frames per second.
        height: rows.
        width: columns.
        crf: constant rate factor of H.264; lower keeps more of the noise.
        grain: keep noise where the encoder would rather smooth it away.
    """

    fps: float
    height: int
    width: int
    crf: int = 16
    grain: bool = True


def write_mp4(path: Path, frames: Iterable[NDArray[np.uint8]], config: Mp4Config) -> None:
    """Writes RGB frames [H, W, 3] as H.264 with ffmpeg, or as MPEG-4 part 2 with OpenCV where there is no ffmpeg.

    Raises:
        RuntimeError: the encoder failed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.which("ffmpeg") is None:
        _write_opencv(path, frames, config)
        return
    size = f"{config.width}x{config.height}"
    tune = ("-tune", "grain") if config.grain else ()
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(config.fps), "-i", "-")
    command = ("ffmpeg", "-y", "-loglevel", "error", *source, *X264, *tune, "-crf", str(config.crf), *EXACT, str(path))
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for frame in frames:
            process.stdin.write(np.ascontiguousarray(frame).tobytes())
        process.stdin.close()
        status = process.wait()
    if status != 0:
        raise RuntimeError(f"ffmpeg ended with status {status} while writing {path}")


def _write_opencv(path: Path, frames: Iterable[NDArray[np.uint8]], config: Mp4Config) -> None:
    import cv2

    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, config.fps, (config.width, config.height))
    if not writer.isOpened():
        raise RuntimeError(f"OpenCV can't write {path}")
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def write_clip(path: Path, config: ClipConfig, furniture: Furniture, crf: int) -> float:
    """Renders a clip into an mp4 and its truth into `<stem>.truth.npz` beside it.

    Returns:
        Mean share of pixels whose truth changed within the last 8 frames.
    """
    shots = make_shots(config, furniture)
    truths: list[Truth] = []

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for frame in clip_frames(config, shots, images=True):
            truths.append(frame.truth)
            assert frame.image_HW3 is not None
            yield frame.image_HW3

    fps = config.fps / config.step
    write_mp4(path, pictures(), Mp4Config(fps, config.height, config.width, crf, grain=not config.like_life))
    models = tuple(model for _, _, shot in shots for model in shot.models)
    return write_truth(truth_path(path), truths, fps, config.seed, models)


def truth_path(video: Path) -> Path:
    """Path of a clip's truth."""
    return video.with_name(f"{video.stem}.truth.npz")


def write_truth(path: Path, truths: list[Truth], fps: float, seed: int, models: tuple[Model, ...]) -> float:
    """Writes the truth of all frames with time as the last axis, so that still pixels compress well.

    Arrays: seg [H, W, T] uint8, depth [H, W, T] float16, normals [H, W, 3, T] int8, edges [H, W, T] uint8, fps,
    moved_share (mean over frames, see `changed_share`), seed and models (library, model, author and licence).

    Returns:
        The moved share.
    """
    shares = changed_share(truths, moving_window(fps))
    moved = float(shares.mean()) if len(shares) else 0.0
    credits = sorted({"|".join((m.label.catalog, m.label.name, m.label.creator, m.label.licence)) for m in models})
    arrays: dict[str, NDArray[Any]] = {
        "seg": np.stack([truth.seg_HW for truth in truths], axis=-1),
        "depth": np.stack([truth.depth_HW for truth in truths], axis=-1),
        "normals": np.stack([truth.normals_HW3 for truth in truths], axis=-1),
        "edges": np.stack([truth.edges_HW for truth in truths], axis=-1),
        "fps": np.array(fps, dtype=np.float64),
        "moved_share": np.array(moved, dtype=np.float64),
        "seed": np.array(seed, dtype=np.int64),
        "models": np.array(credits),
    }
    _write_npz(path, arrays)
    return moved


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes an npz for `numpy.load`, compressed by LZMA: a third smaller than with numpy's own deflate.

    It is renamed when it is complete, as its existence marks the clip as done.
    """
    partial = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            # A fixed date makes the file reproducible.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    partial.replace(path)
