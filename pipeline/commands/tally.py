"""What a run has done and what is left, as numbers for bars, lines and events."""

import time
from typing import Any

from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.units import count, duration, share
from deltascene.pipeline.workers.jobs import FrameSummary


class Tally:
    """Counts of inputs by how they ended, frames, MACs and time.

    Attributes:
        inputs: number of inputs of the run.
        under_way: number of frames that are still to be computed, by video in progress.
        ended: number of inputs by status.
        frames: number of frames computed in this run, without those that will be computed again.
        retries: how often a segment was computed again because a worker was lost.
    """

    def __init__(self, inputs: int) -> None:
        """Starts no clock: that starts with the first event, as loading a model isn't progress."""
        self.inputs, self.under_way = inputs, dict[str, int]()
        self.ended = {"done": 0, "failed": 0, "unreadable": 0, "partial": 0}
        self.frames = self.executed = self.dense = self.retries = 0
        self._began_s: float | None = None
        self._planned = self._met = 0  # frames to compute of inputs that have begun, and their number

    def begin(self, id_: str, frames: int) -> None:
        """Counts a video that begins, with its number of frames to compute."""
        self._start()
        self.under_way[id_] = frames
        self._planned += frames
        self._met += 1

    def add(self, id_: str, frame: FrameSummary) -> None:
        """Counts a computed frame."""
        self.frames += 1
        self.under_way[id_] -= 1
        self.executed += frame.macs_executed
        self.dense += frame.macs_dense

    def lose(self, id_: str, frames: int) -> None:
        """Takes back frames that will be computed again; their MACs stay counted, as they were spent."""
        self.frames -= frames
        self.under_way[id_] += frames
        self.retries += 1

    def end(self, record: VideoRecord, reused: bool) -> None:
        """Counts an input that ended; `reused`: nothing had to be computed."""
        self._start()
        self.ended[record.status] += 1
        begun = self.under_way.pop(record.id, None)
        self._met += begun is None and not reused  # it failed before it had frames

    @property
    def seconds(self) -> float:
        """Seconds since the first event."""
        return 0.0 if self._began_s is None else time.perf_counter() - self._began_s

    @property
    def fps(self) -> float:
        """Frames computed per second since the first event."""
        return self.frames / max(self.seconds, 1e-9)

    @property
    def saved(self) -> float:
        """Compute saved: 1 - executed / dense."""
        return 1 - self.executed / self.dense if self.dense else 0.0

    @property
    def waiting(self) -> int:
        """Number of inputs that haven't begun."""
        return max(0, self.inputs - sum(self.ended.values()) - len(self.under_way))

    @property
    def left_frames(self) -> float:
        """About how many frames are left, as if inputs that wait were as long as those that have begun."""
        return sum(self.under_way.values()) + self.waiting * self._planned / max(1, self._met)

    @property
    def left_s(self) -> float | None:
        """About how many seconds are left; None before the first frame."""
        return self.left_frames / self.fps if self.frames else None

    @property
    def line(self) -> str:
        """All of it on one line."""
        counts = {**self.ended, "under way": len(self.under_way), "waiting": self.waiting}
        words = [f"{count(number)} {name}" for name, number in counts.items() if number or name == "done"]
        left_s = self.left_s
        words += [
            count(self.frames, "frame"),
            f"{self.fps:.1f} fps",
            *([] if left_s is None else [f"{'about ' if self.waiting else ''}{duration(left_s)} left"]),
            f"{share(self.saved)} compute saved",
        ]
        return " · ".join(words)

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        left_s = self.left_s
        return {
            "inputs": self.inputs,
            **self.ended,
            "under_way": len(self.under_way),
            "waiting": self.waiting,
            "frames": self.frames,
            "retries": self.retries,
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 3),
            "left_s": None if left_s is None else round(left_s, 3),
            "saved": self.saved,
        }

    def _start(self) -> None:
        if self._began_s is None:
            self._began_s = time.perf_counter()
