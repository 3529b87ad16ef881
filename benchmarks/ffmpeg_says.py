"""What the programs `ffprobe` and `ffmpeg` say of a video stream; they are run where they are installed."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

NO_TIME = int(np.iinfo(np.int64).min)
_JUMP_S = 10.0


@dataclass(frozen=True)
class Told:
    """What ffprobe finds in a stream by decoding it.

    Attributes:
        codec: its name.
        tick_s: unit of the stream's clock.
        ticks: time of every frame, in the order in which the decoder gives them [F]; `NO_TIME` where it has none.
        error: the last line of what it complained about.
    """

    codec: str
    tick_s: float
    ticks: NDArray[np.int64]
    error: str

    @property
    def timed(self) -> bool:
        """Whether every frame has a time."""
        return bool(len(self.ticks) and not (self.ticks == NO_TIME).any())


def is_installed() -> bool:
    """Whether both programs are there."""
    return all(shutil.which(name) for name in ("ffprobe", "ffmpeg"))


def ask_ffprobe(path: Path, stream: int) -> Told:
    """Has ffprobe decode a stream."""
    entries = "frame=best_effort_timestamp:stream=codec_name,time_base"
    command = ["ffprobe", "-v", "error", "-select_streams", str(stream), "-show_frames", "-show_entries", entries]
    done = subprocess.run([*command, "-of", "json", str(path)], capture_output=True, check=False, text=True)
    said = json.loads(done.stdout or "{}")
    about = (said.get("streams") or [{}])[0]
    above, below = map(int, about.get("time_base", "1/1").split("/"))
    ticks = [frame.get("best_effort_timestamp", NO_TIME) for frame in said.get("frames", ())]
    complaints = done.stderr.strip().splitlines() or [""]
    return Told(about.get("codec_name", "?"), above / max(below, 1), np.array(ticks, dtype=np.int64), complaints[-1])


def continuous(ticks: NDArray[np.int64], tick_s: float) -> NDArray[np.float64]:
    """Times from the first frame in ticks; recordings that were joined follow one another by one frame's time."""
    steps = np.diff(ticks).astype(np.float64)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    steps[(steps < 0) | (steps * tick_s > _JUMP_S)] = usual
    return np.concatenate([[0.0], np.cumsum(steps)])


def ffmpeg_pictures(path: Path, stream: int, filters: Sequence[str] = ()) -> Iterator[NDArray[np.uint8]]:
    """Pictures [H, W, 3] of a stream as ffmpeg makes them RGB, rotated by itself, one for every decoded frame."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-map", f"0:{stream}"]
    command += ["-vf", ",".join(filters)] if filters else []
    command += ["-vsync", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            while (picture := _ppm(process.stdout)) is not None:
                yield picture
        finally:
            process.kill()


def _ppm(pipe: IO[bytes]) -> NDArray[np.uint8] | None:
    if pipe.readline().strip() != b"P6":
        return None
    width, height = map(int, pipe.readline().split())
    pipe.readline()
    data = pipe.read(width * height * 3)
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3) if len(data) == width * height * 3 else None
