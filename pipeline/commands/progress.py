"""The listeners of a run: progress bars on a terminal, plain lines elsewhere, one JSON event a line for programs.

Their output stays readable for many thousand inputs: only videos in progress have bars, and of many inputs only the
first failures have lines of their own.
"""

import json
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from deltascene.pipeline.batch.events import Events
from deltascene.pipeline.commands.progress_text import InputLines, archive_line, lost_line, ready_line, retried
from deltascene.pipeline.commands.tally import Tally
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import path_text
from deltascene.pipeline.workers.jobs import FrameSummary

BARS = 8  # most bars of videos in progress
EVERY_S = 5.0  # between two lines or events on the whole run


def choose_events(console: Console, inputs: int, *, as_json: bool) -> Events:
    """The listener that fits the output: JSON where it is asked for, bars on a terminal, plain lines elsewhere.

    Args:
        console: where bars are shown.
        inputs: number of inputs of the run.
        as_json: whether programs read the output.
    """
    if as_json:
        return JsonEvents(inputs=inputs)
    return BarEvents(console, inputs) if console.is_terminal else LineEvents(sys.stdout, inputs)


def bars_of(events: Events) -> AbstractContextManager[object]:
    """A context in which the bars of a listener are shown, if it has any."""
    return events.progress if isinstance(events, BarEvents) else nullcontext()


class BarEvents:
    """A bar for each video in progress and one for all inputs; below them speed, time left and compute saved."""

    def __init__(self, console: Console, inputs: int) -> None:
        self._tally, self._lines = Tally(inputs), InputLines(inputs)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self.progress = _Bars(self._tally, *columns, _TimeLeft(), console=console, transient=False)
        self._total = self.progress.add_task("inputs", total=inputs, note="", timed=False, visible=inputs > 1)
        self._bars: dict[str, TaskID] = {}

    def workers_ready(self, workers: int, seconds: float) -> None:
        """Prints how long Ray took to start."""
        self.progress.console.print(ready_line(workers, seconds), markup=False, highlight=False)

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """Adds a bar, and prints the expected size of the archive."""
        self._tally.begin(spec.id, frames - sealed)
        if archive and self._lines.few:
            self._print(archive_line(spec, archive))
        shown = len(self._bars) < BARS
        bar = self.progress.add_task(spec.id[:40], total=frames, completed=sealed, visible=shown, note="", timed=True)
        self._bars[spec.id] = bar

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """Advances the bar."""
        self._tally.add(spec.id, frame)
        self.progress.update(self._bars[spec.id], advance=1, note=self._note())

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """Moves the bar back by the lost frames."""
        self._tally.lose(spec.id, frames)
        self.progress.update(self._bars[spec.id], advance=-frames)
        self._print(lost_line(spec, frames))

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """Shows what is being written beside the bar."""
        self.progress.update(self._bars[spec.id], note=f"{self._note()} · {what} {share:.0%}")

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """Advances the bar of all inputs and removes the video's own; that of a single input stays."""
        self._tally.end(record, reused)
        if self._tally.inputs == 1 and record.id in self._bars:
            self.progress.update(self._bars[record.id], note=f"{self._note()} · {record.status}")
        elif (bar := self._bars.pop(record.id, None)) is not None:
            self.progress.remove_task(bar)
            for shown in list(self._bars.values())[:BARS]:
                self.progress.update(shown, visible=True)
        if record.failed and (line := self._lines.failed(record)):
            self._print(line)
        self.progress.advance(self._total)

    def _note(self) -> str:
        """Text beside the bar of a single input; with several, the line below the bars has it."""
        several = self._tally.inputs > 1
        return "" if several else f"{self._tally.fps:.1f} fps · {self._tally.saved:.1%} compute saved"

    def _print(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)


class LineEvents:
    """Plain lines for logs: a line for every input of few, for failures of many, and for the whole run every 5 s."""

    def __init__(self, out: TextIO, inputs: int) -> None:
        self._out, self._tally, self._lines = out, Tally(inputs), InputLines(inputs)
        self._last = 0.0
        self._writing: dict[str, str] = {}  # what is being written of each video
        self._frames: dict[str, int] = {}  # of videos in progress

    def workers_ready(self, workers: int, seconds: float) -> None:
        """Prints how long Ray took to start."""
        self._print(ready_line(workers, seconds))

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """Prints the input that starts, and the expected size of its archive."""
        self._tally.begin(spec.id, frames - sealed)
        self._frames[spec.id] = frames
        if not self._lines.few:
            return
        kept = f", {sealed} of them finished before" if sealed else ""
        self._print(f"{spec.id}: {frames} frames{kept}")
        if archive:
            self._print(archive_line(spec, archive))

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """Prints the progress, every 5 s."""
        self._tally.add(spec.id, frame)
        self._print_total(spec.id)

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """Prints that frames will be computed again."""
        self._tally.lose(spec.id, frames)
        self._print(lost_line(spec, frames))

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """Prints what is being written, and its progress every 5 s."""
        known = self._writing.get(spec.id) == what
        if (known or not self._lines.few) and time.perf_counter() - self._last < EVERY_S:
            return
        self._writing[spec.id], self._last = what, time.perf_counter()
        self._print(f"{spec.id}: writing {what}, {share:.0%}")

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """Prints how the input ended."""
        self._tally.end(record, reused)
        self._frames.pop(record.id, None)
        self._writing.pop(record.id, None)
        if record.failed:
            line = self._lines.failed(record)
        elif self._lines.few:
            cause = f" ({record.cause})" if record.cause else ""
            before = ", by an earlier run" if reused else f"{retried(record)}"
            line = f"{record.id}: {record.status}{cause}, {record.frames} frames{before}"
        else:
            line = ""
        if line:
            self._print(line)
        self._print_total()

    def _print_total(self, id_: str = "") -> None:
        if time.perf_counter() - self._last < EVERY_S or not self._tally.seconds:
            return
        self._last = time.perf_counter()
        left = self._tally.under_way.get(id_)
        at = "" if left is None else f"{id_}: {self._frames[id_] - left}/{self._frames[id_]} · "
        self._print(f"{at}{self._tally.line}")

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class JsonEvents:
    """One JSON object a line on standard output."""

    def __init__(self, out: TextIO | None = None, inputs: int = 0) -> None:
        self._out, self._tally = out or sys.stdout, Tally(inputs)
        self._writing: dict[str, tuple[str, float]] = {}  # what is being written of each video; time of its last event
        self._last_s = 0.0  # on the tally's clock

    def workers_ready(self, workers: int, seconds: float) -> None:
        """`{"event": "workers_ready", …}`."""
        self.say("workers_ready", workers=workers, seconds=round(seconds, 3))

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """`{"event": "video_started", …}`."""
        self._tally.begin(spec.id, frames - sealed)
        about = {"frames": frames, "sealed": sealed, "archive_bytes_expected": archive}
        self.say("video_started", id=spec.id, source=path_text(spec.path), **about)

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """`{"event": "frame", …}`."""
        self._tally.add(spec.id, frame)
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
        self._print_total()

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """`{"event": "frames_lost", …}`."""
        self._tally.lose(spec.id, frames)
        self.say("frames_lost", id=spec.id, frames=frames)

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """`{"event": "finishing", …}`, at the start of each output and every 5 s."""
        known, last_s = self._writing.get(spec.id, ("", 0.0))
        if known != what or self._tally.seconds - last_s >= EVERY_S:
            self._writing[spec.id] = what, self._tally.seconds
            self.say("finishing", id=spec.id, what=what, share=round(share, 4))

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """`{"event": "video_ended", …}`."""
        self._tally.end(record, reused)
        self._writing.pop(record.id, None)
        about = {"status": record.status, "cause": record.cause, "frames": record.frames, "reused": reused}
        work = {"retries": record.retries, "seconds": round(record.seconds, 3), "computed": record.computed}
        self.say("video_ended", id=record.id, **about, **work)
        self._print_total()

    def say(self, event: str, **values: Any) -> None:
        """Prints any event."""
        print(json.dumps({"event": event, **values}), file=self._out, flush=True)

    def _print_total(self) -> None:
        """`{"event": "progress", …}`, every 5 s."""
        if self._tally.seconds - self._last_s >= EVERY_S:
            self._last_s = self._tally.seconds
            self.say("progress", **self._tally.facts)


class _Bars(Progress):
    """Bars, and below those of several inputs a line on the whole run, which folds on a narrow terminal."""

    def __init__(self, tally: Tally, *columns: ProgressColumn, **about: Any) -> None:
        self._tally = tally
        super().__init__(*columns, **about)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._tally.inputs > 1:
            yield Text(self._tally.line)


class _TimeLeft(TimeRemainingColumn):
    """Time left of one video; that of the run is in the line below, as inputs differ in length."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["timed"] else Text()
