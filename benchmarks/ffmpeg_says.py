"""What the programs `ffprobe` and `ffmpeg` say of a video stream; they are run where they are installed."""

import json
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

NO_TIME = int(np.iinfo(np.int64).min)
JUMP_S = 10.0
"""A longer step of a transport stream's clock begins another recording."""


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


def most_frames(path: Path) -> int:
    """Frames of the longest video stream of a file that isn't a cover picture, by ffprobe."""
    entries = "stream=index,nb_read_frames:stream_disposition=attached_pic"
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-count_frames", "-show_entries", entries]
    done = subprocess.run([*command, "-of", "json", str(path)], capture_output=True, check=False, text=True)
    streams = json.loads(done.stdout or "{}").get("streams", ())
    videos = [stream for stream in streams if not stream["disposition"]["attached_pic"]]
    return max((int(stream.get("nb_read_frames", 0)) for stream in videos), default=0)


def continuous(ticks: NDArray[np.int64], jump: float = math.inf) -> NDArray[np.float64]:
    """Times from the first frame in ticks; recordings that were joined follow one another by one frame's time.

    Args:
        ticks: times in order [F].
        jump: ticks from which a step forward is a join; a step back always is.
    """
    steps = np.diff(ticks).astype(np.float64)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    steps[(steps < 0) | (steps > jump)] = usual
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
