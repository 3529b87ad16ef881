"""`deltascene train`: a training step with a bar for loss and time left, its scores, and a plot of them at the end."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.training.curves import plot_log
from deltascene.pipeline.training.steps import TrainRequest, train_step, work_folder


def train_command(request: TrainRequest, *, as_json: bool = False) -> ExitCode:
    """Runs a training step; the exit code is `STOPPED` after Ctrl-C.

    Args:
        request: what to train.
        as_json: print one event a line on standard output, and everything else on standard error.

    Raises:
        DeltasceneError: the data, the model or the recipe can't be used.
    """
    console = Console(stderr=as_json)
    try:
        with TrainingProgress(console, as_json=as_json) as progress:
            bundle = train_step(request, progress.show)
    except KeyboardInterrupt:
        print_line(console, "stopped; run the same command again to continue from the last checkpoint")
        return ExitCode.STOPPED
    plot = plot_log(work_folder(request) / "log.jsonl")
    print_line(console, f"{bundle.folder}: {request.step} {request.task or bundle.entry.base} trained")
    print_line(console, f"{plot}" if plot else "no plot: it needs matplotlib, pip install 'deltascene[train]'")
    return ExitCode.OK


class TrainingProgress:
    """A bar for the steps, and a line for every score; with `as_json`, one JSON event a line."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._as_json = as_json
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, *times, console=console, disable=as_json)
        self._bar = self._progress.add_task("training", total=None, note="")

    def __enter__(self) -> "TrainingProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Mapping[str, Any]) -> None:
        """Shows an event of the training's log."""
        if self._as_json:
            print(json.dumps(event), flush=True)
        elif "activations" in event:
            self._progress.update(
                self._bar, completed=event["activations"], total=event["of"], description="activations", note=""
            )
        elif "loss" in event:
            note = f"loss {event['loss']:.4f}" + (f" · {event['open']:.0%} of gates open" if "open" in event else "")
            self._progress.update(
                self._bar, completed=event["step"], total=event["of"], description="training", note=note
            )
        elif "val" in event:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in event["val"].items())
            print_line(self._progress.console, f"val at step {event['step']}: {scores}")
