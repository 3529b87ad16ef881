"""How a training shows itself: a bar with loss and time left, scores as they come, a plot of the curve at the end."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deltascene.errors import ExitCode
from deltascene.pipeline.training.curves import plot_log
from deltascene.pipeline.training.steps import TrainRequest, train_step, work_folder


def train_command(order: TrainRequest, *, as_json: bool = False) -> int:
    """Runs a step; returns the exit status."""
    console = Console(stderr=as_json)
    try:
        with Training(console, as_json=as_json) as shown:
            bundle = train_step(order, shown.say)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on after the last checkpoint", markup=False)
        return ExitCode.STOPPED
    plot = plot_log(work_folder(order) / "log.jsonl")
    console.print(
        f"{bundle.folder}: {order.step} {order.task or bundle.entry.base} trained", markup=False, soft_wrap=True
    )
    console.print(f"{plot}" if plot else "no plot: it needs matplotlib, pip install 'deltascene[train]'", markup=False)
    return ExitCode.OK


class Training:
    """A bar for the steps; every score on a line of its own."""

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

    def __enter__(self) -> "Training":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, event: Mapping[str, Any]) -> None:
        """Shows a line of the log."""
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
            said = ", ".join(f"{name} {value:.4g}" for name, value in event["val"].items())
            self._progress.console.print(f"val at step {event['step']}: {said}", markup=False, highlight=False)
