"""Who listens to a run: progress bars on a terminal, plain lines elsewhere, one JSON event a line for programs.

All of them stay readable for many thousand inputs: bars are those of videos under way, and of many inputs only
failures are told one by one, up to a number.
"""

import json
import sys
import time
from collections.abc import Iterable
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

from deltascene.pipeline.commands.tally import Tally
from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import path_text
from deltascene.pipeline.units import compact
from deltascene.pipeline.workers.jobs import FrameSummary

FEW = 50  # inputs that are told one by one
FAILURES = 20  # that are told while a run of more goes on
BARS = 8  # of videos under way
EVERY_S = 5.0


class BarEvents:
    """A bar per video under way, and one in total: frames, fps, ETA, compute saved, inputs by how they ended."""

    def __init__(self, console: Console, inputs: int) -> None:
        self._tally, self._lines = Tally(inputs), _FewLines(inputs)
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
        """Says how long Ray took to start."""
        self.progress.console.print(ready_line(workers, seconds), markup=False, highlight=False)

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """Adds a bar; says how large the archive will get."""
        self._tally.begin(spec.id, frames - sealed)
        if archive and self._lines.few:
            self._print(archive_line(spec, archive))
        shown = len(self._bars) < BARS
        bar = self.progress.add_task(spec.id[:40], total=frames, completed=sealed, visible=shown, note="", timed=True)
        self._bars[spec.id] = bar

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """Moves the bar."""
        self._tally.add(spec.id, frame)
        self.progress.update(self._bars[spec.id], advance=1, note=self._note())

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """Moves the bar back."""
        self._tally.lose(spec.id, frames)
        self.progress.update(self._bars[spec.id], advance=-frames)
        self._print(lost_line(spec, frames))

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """Says what is being drawn."""
        self.progress.update(self._bars[spec.id], note=f"{self._note()} · {what} {share:.0%}")

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """Moves the bar of all inputs, and takes the video's own away; the only one's stays."""
        self._tally.end(record, reused)
        if self._tally.inputs == 1 and record.id in self._bars:
            self.progress.update(self._bars[record.id], note=f"{self._note()} · {record.status}")
        elif (bar := self._bars.pop(record.id, None)) is not None:
            self.progress.remove_task(bar)
            for shown in list(self._bars.values())[:BARS]:
                self.progress.update(shown, visible=True)
        if record.status == "failed" and (line := self._lines.failed(record)):
            self._print(line)
        self.progress.advance(self._total)

    def _note(self) -> str:
        """Beside the bar of the only video; of several, the line below the bars says it."""
        several = self._tally.inputs > 1
        return "" if several else f"{self._tally.fps:.1f} fps · {self._tally.saved:.1%} compute saved"

    def _print(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)


class LineEvents:
    """Plain lines for logs: every input where there are few, failures where there are many, and the total now and
    then."""

    def __init__(self, out: TextIO, inputs: int) -> None:
        self._out, self._tally, self._lines = out, Tally(inputs), _FewLines(inputs)
        self._last = 0.0
        self._drawing: dict[str, str] = {}  # what was last told to be drawn, of each video
        self._frames: dict[str, int] = {}  # of videos under way

    def workers_ready(self, workers: int, seconds: float) -> None:
        """Says how long Ray took to start."""
        self._say(ready_line(workers, seconds))

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """Says which input starts, and how large its archive will get."""
        self._tally.begin(spec.id, frames - sealed)
        self._frames[spec.id] = frames
        if not self._lines.few:
            return
        kept = f", {sealed} of them finished before" if sealed else ""
        self._say(f"{spec.id}: {frames} frames{kept}")
        if archive:
            self._say(archive_line(spec, archive))

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """Says how far it is, now and then."""
        self._tally.add(spec.id, frame)
        self._say_total(spec.id)

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """Says that frames are computed again."""
        self._tally.lose(spec.id, frames)
        self._say(lost_line(spec, frames))

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """Says what is being written, and how far it is now and then."""
        told = self._drawing.get(spec.id) == what
        if (told or not self._lines.few) and time.perf_counter() - self._last < EVERY_S:
            return
        self._drawing[spec.id], self._last = what, time.perf_counter()
        self._say(f"{spec.id}: writing {what}, {share:.0%}")

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """Says how it ended."""
        self._tally.end(record, reused)
        self._frames.pop(record.id, None)
        self._drawing.pop(record.id, None)
        if record.status == "failed":
            line = self._lines.failed(record)
        elif self._lines.few:
            cause = f" ({record.cause})" if record.cause else ""
            before = ", by an earlier run" if reused else f"{retried(record)}"
            line = f"{record.id}: {record.status}{cause}, {record.frames} frames{before}"
        else:
            line = ""
        if line:
            self._say(line)
        self._say_total()

    def _say_total(self, id_: str = "") -> None:
        if time.perf_counter() - self._last < EVERY_S or not self._tally.seconds:
            return
        self._last = time.perf_counter()
        left = self._tally.under_way.get(id_)
        at = "" if left is None else f"{id_}: {self._frames[id_] - left}/{self._frames[id_]} · "
        self._say(f"{at}{self._tally.line}")

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class JsonEvents:
    """One JSON object a line on standard output."""

    def __init__(self, out: TextIO | None = None, inputs: int = 0) -> None:
        self._out, self._tally = out or sys.stdout, Tally(inputs)
        self._drawing: dict[str, tuple[str, float]] = {}  # what of each video was last told to be drawn, and when
        self._said_s = 0.0  # on the tally's clock

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
        self._say_total()

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """`{"event": "frames_lost", …}`."""
        self._tally.lose(spec.id, frames)
        self.say("frames_lost", id=spec.id, frames=frames)

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """`{"event": "finishing", …}`, of each thing at its start and every few seconds."""
        told, said_s = self._drawing.get(spec.id, ("", 0.0))
        if told != what or self._tally.seconds - said_s >= EVERY_S:
            self._drawing[spec.id] = what, self._tally.seconds
            self.say("finishing", id=spec.id, what=what, share=round(share, 4))

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """`{"event": "video_ended", …}`."""
        self._tally.end(record, reused)
        self._drawing.pop(record.id, None)
        about = {"status": record.status, "cause": record.cause, "frames": record.frames, "reused": reused}
        work = {"retries": record.retries, "seconds": round(record.seconds, 3), "computed": record.computed}
        self.say("video_ended", id=record.id, **about, **work)
        self._say_total()

    def say(self, event: str, **values: Any) -> None:
        """Any event."""
        print(json.dumps({"event": event, **values}), file=self._out, flush=True)

    def _say_total(self) -> None:
        """`{"event": "progress", …}`, every few seconds."""
        if self._tally.seconds - self._said_s >= EVERY_S:
            self._said_s = self._tally.seconds
            self.say("progress", **self._tally.facts)


class _Bars(Progress):
    """Bars, and below those of several videos what they come to; it folds where the terminal is narrow."""

    def __init__(self, tally: Tally, *columns: ProgressColumn, **about: Any) -> None:
        self._tally = tally
        super().__init__(*columns, **about)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._tally.inputs > 1:
            yield Text(self._tally.line)


class _TimeLeft(TimeRemainingColumn):
    """Of one video; the total's is in the line below, as inputs aren't all of one length."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["timed"] else Text()


class _FewLines:
    """Which lines on single inputs a run of many still prints."""

    def __init__(self, inputs: int) -> None:
        self.few, self._failures = inputs <= FEW, 0

    def failed(self, record: VideoRecord) -> str:
        """A line on a failed input; empty where there were many already."""
        self._failures += 1
        if self.few or self._failures <= FAILURES:
            return f"{record.id}: failed ({record.cause}), {record.frames} frames{retried(record)}"
        more = "more inputs fail; errors.jsonl has them all"
        return more if self._failures == FAILURES + 1 else ""


def ready_line(workers: int, seconds: float) -> str:
    """That Ray's actors have loaded what they need."""
    return f"Ray: {workers} worker{'s' if workers != 1 else ''} ready after {seconds:.1f} s"


def archive_line(spec: SourceSpec, expected: int) -> str:
    """What a video's archive will about take."""
    return f"{spec.id}: its archive will take about {compact(expected, 'B')} (--no-archive leaves it out)"


def lost_line(spec: SourceSpec, frames: int) -> str:
    """That a worker was lost."""
    return f"{spec.id}: a worker was lost; its segment is computed again, {frames} frames that were done among it"


def retried(record: VideoRecord) -> str:
    """How often workers of a video were lost, where they were."""
    times = "once" if record.retries == 1 else f"{record.retries} times"
    return f", a segment done again {times}" if record.retries else ""
