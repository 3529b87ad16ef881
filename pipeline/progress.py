"""Who listens to a run: progress bars on a terminal, plain lines elsewhere, one JSON event a line for programs."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deltascene.pipeline.jobs import FrameSummary
from deltascene.pipeline.run_folder import VideoRecord
from deltascene.pipeline.sources import SourceSpec
from deltascene.pipeline.units import compact


class Tally:
    """What was computed so far: frames, MACs and time."""

    def __init__(self) -> None:
        self.frames = self.executed = self.dense = 0
        self.began = time.perf_counter()

    def lose(self, frames: int) -> None:
        """Takes back frames that will be computed again; their MACs were spent."""
        self.frames -= frames

    def add(self, frame: FrameSummary) -> None:
        """Adds a frame."""
        self.frames += 1
        self.executed += frame.macs_executed
        self.dense += frame.macs_dense

    @property
    def fps(self) -> float:
        """Frames a second since the start."""
        return self.frames / max(time.perf_counter() - self.began, 1e-9)

    @property
    def saved(self) -> float:
        """Compute saved: 1 - executed / dense."""
        return 1 - self.executed / self.dense if self.dense else 0.0


class BarEvents:
    """One bar per input and one in total, with fps, ETA and compute saved."""

    def __init__(self, console: Console, inputs: int) -> None:
        self._tally, self._inputs = Tally(), inputs
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=False)
        self._total = self.progress.add_task("inputs", total=inputs, note="", visible=inputs > 1)
        self._bars: dict[str, TaskID] = {}

    def workers_ready(self, workers: int, seconds: float) -> None:
        """Says how long Ray took to start."""
        self.progress.console.print(ready_line(workers, seconds), markup=False, highlight=False)

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """Adds a bar; says how large the archive will get."""
        if archive:
            self.progress.console.print(archive_line(spec, archive), markup=False, highlight=False)
        self._bars[spec.id] = self.progress.add_task(spec.id[:40], total=frames, completed=sealed, note="")

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """Moves the bar."""
        self._tally.add(frame)
        self.progress.update(self._bars[spec.id], advance=1, note=self._note())

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """Moves the bar back."""
        self._tally.lose(frames)
        self.progress.update(self._bars[spec.id], advance=-frames)
        self.progress.console.print(lost_line(spec, frames), markup=False, highlight=False)

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """Says what is being drawn."""
        self.progress.update(self._bars[spec.id], note=f"{self._note()} · {what} {share:.0%}")

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """Moves the bar of all inputs."""
        if record.id in self._bars:
            self.progress.update(self._bars[record.id], note=f"{self._note()} · {record.status}")
        self.progress.advance(self._total)

    def _note(self) -> str:
        return f"{self._tally.fps:.1f} fps · {self._tally.saved:.1%} compute saved"


class LineEvents:
    """Plain lines, at most one every few seconds, for logs."""

    every_s = 5.0

    def __init__(self, out: TextIO) -> None:
        self._out, self._tally, self._last, self._what = out, Tally(), 0.0, ""
        self._frames: dict[str, int] = {}  # by video
        self._done: dict[str, int] = {}

    def workers_ready(self, workers: int, seconds: float) -> None:
        """Says how long Ray took to start."""
        self._say(ready_line(workers, seconds))

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """Says which input starts, and how large its archive will get."""
        self._frames[spec.id], self._done[spec.id], self._what = frames, sealed, ""
        kept = f", {sealed} of them finished before" if sealed else ""
        self._say(f"{spec.id}: {frames} frames{kept}")
        if archive:
            self._say(archive_line(spec, archive))

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """Says how far it is, now and then."""
        self._tally.add(frame)
        self._done[spec.id] += 1
        if time.perf_counter() - self._last < self.every_s:
            return
        self._last = time.perf_counter()
        done, frames = self._done[spec.id], self._frames[spec.id]
        left_s = (sum(self._frames.values()) - sum(self._done.values())) / max(self._tally.fps, 1e-9)
        self._say(
            f"{spec.id}: {done}/{frames} · {self._tally.fps:.1f} fps · {left_s:.0f} s left"
            f" · {self._tally.saved:.1%} compute saved"
        )

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """Says that frames are computed again."""
        self._tally.lose(frames)
        self._done[spec.id] -= frames
        self._say(lost_line(spec, frames))

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """Says what is being written, and how far it is now and then."""
        if what == self._what and time.perf_counter() - self._last < self.every_s:
            return
        self._what, self._last = what, time.perf_counter()
        self._say(f"{spec.id}: writing {what}, {share:.0%}")

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """Says how it ended."""
        cause = f" ({record.cause})" if record.cause else ""
        before = ", by an earlier run" if reused else ""
        self._say(f"{record.id}: {record.status}{cause}, {record.frames} frames{before}")

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class JsonEvents:
    """One JSON object a line on standard output."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out, self._what = out or sys.stdout, ("", "")

    def workers_ready(self, workers: int, seconds: float) -> None:
        """`{"event": "workers_ready", …}`."""
        self.say("workers_ready", workers=workers, seconds=round(seconds, 3))

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """`{"event": "video_started", …}`."""
        about = {"frames": frames, "sealed": sealed, "archive_bytes_expected": archive}
        self.say("video_started", id=spec.id, source=str(spec.path), **about)

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """`{"event": "frame", …}`."""
        self.say(
            "frame",
            id=spec.id,
            index=frame.index,
            pts_s=frame.pts_s,
            valid=frame.valid,
            cause=frame.cause,
            policy=frame.policy,
            macs_executed=frame.macs_executed,
            macs_dense=frame.macs_dense,
            seconds=round(frame.seconds, 6),
        )

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """`{"event": "frames_lost", …}`."""
        self.say("frames_lost", id=spec.id, frames=frames)

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """`{"event": "finishing", …}`, once per thing."""
        if self._what != (spec.id, what):
            self._what = (spec.id, what)
            self.say("finishing", id=spec.id, what=what)

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """`{"event": "video_ended", …}`."""
        self.say(
            "video_ended", id=record.id, status=record.status, cause=record.cause, frames=record.frames, reused=reused
        )

    def say(self, event: str, **values: Any) -> None:
        """Any event."""
        print(json.dumps({"event": event, **values}), file=self._out, flush=True)


def ready_line(workers: int, seconds: float) -> str:
    """That Ray's actors have loaded what they need."""
    return f"Ray: {workers} worker{'s' if workers != 1 else ''} ready after {seconds:.1f} s"


def archive_line(spec: SourceSpec, expected: int) -> str:
    """What a video's archive will about take."""
    return f"{spec.id}: its archive will take about {compact(expected, 'B')} (--no-archive leaves it out)"


def lost_line(spec: SourceSpec, frames: int) -> str:
    """That a worker was lost."""
    return f"{spec.id}: a worker was lost; its segment is computed again, {frames} frames that were done among it"


def failed_table(records: Sequence[VideoRecord]) -> str:
    """Failed inputs, one a line: id, then why."""
    return "\n".join(f"  {record.id}: {record.cause}" for record in records if record.status == "failed")
