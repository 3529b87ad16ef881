"""`deltascene what-if`, `eval` and `tune`: commands that compare models and presets."""

from pathlib import Path
from typing import Annotated

import typer

from deltascene.pipeline.cli.options import ConfigOption, IgnoreOption, ModelOption, SetOption, TasksOption
from deltascene.pipeline.cli.values import parse_budgets, parse_models, read_zones, split_names
from deltascene.pipeline.errors import UsageError

FramesOption = Annotated[int, typer.Option(help="Largest number of frames that are read of each clip.")]
PhasesOption = Annotated[
    int,
    typer.Option(min=1, help="Passes through each clip that begin 5 frames apart; scores are sums over all of them."),
]


def what_if(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="Videos, folders, globs, list files (.txt) or image sequences."),
    ],
    presets: Annotated[str, typer.Option(help="Presets to compare, separated by commas.")] = "balanced,fast",
    model: ModelOption = None,
    tasks: TasksOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    ignore: IgnoreOption = None,
) -> None:
    """Count the tokens and MACs that presets would compute on videos, without running a model."""
    from deltascene.pipeline.commands.terminal import open_console
    from deltascene.pipeline.commands.what_if import what_if_command
    from deltascene.pipeline.config import load_config

    values = {"model": model, "tasks": split_names(tasks), "change.ignore": read_zones(ignore)}
    configs = {name: load_config(name, config, set_ or (), values) for name in split_names(presets) or ()}
    raise typer.Exit(what_if_command(configs, sources, open_console()))


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA]", help="Folder with images/, TASK/ and split.csv. Without it, only clips are compared."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Bundle, or NAME=BUNDLE. May be repeated to compare several. Default: rooms."),
    ] = None,
    stl: Annotated[
        list[str] | None, typer.Option(help="Bundle of a network for a single task. Repeat it for each task.")
    ] = None,
    frozen: Annotated[str | None, typer.Option(help="Bundle whose heads were trained on the frozen base.")] = None,
    part: Annotated[str, typer.Option(help="Part of DATA that is scored, as split.csv names it.")] = "test",
    clips: Annotated[
        Path | None,
        typer.Option(
            help="Folder of videos with <stem>.truth.npz; the preset is compared with dense prediction on them."
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset that is scored on the clips.")] = "balanced",
    frames: FramesOption = 10_000,
    phases: PhasesOption = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for eval.json and tradeoff.svg.")] = None,
) -> None:
    """Score models on labelled images, and a preset on clips with known truth, with 95 % intervals."""
    from deltascene.pipeline.commands.eval import eval_command
    from deltascene.pipeline.commands.terminal import open_console
    from deltascene.pipeline.evaluation.compare import EvalRequest

    models = parse_models(model or ["rooms"])
    request = EvalRequest(data, part, models, stl or (), frozen, clips, preset, frames, out, phases)
    raise typer.Exit(eval_command(request, open_console()))


def tune(
    sources: Annotated[
        list[str], typer.Argument(metavar="CLIP…", help="Videos; their truth may lie beside them as <stem>.truth.npz.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New YAML file for the preset.")],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Largest loss in the moving region or the whole frame, such as 'moved.loss<=0.05';"
            " without truth, largest drift from dense prediction in excess of its floor. May be repeated."
            " Default: 'moved.loss<=0.05' and 'whole.loss<=0.01'."
        ),
    ] = None,
    objective: Annotated[str, typer.Option(help="What is minimised: time or macs.")] = "time",
    model: Annotated[str, typer.Option(help="Model bundle: a packaged name, a folder or a URL.")] = "rooms",
    preset: Annotated[str, typer.Option(help="Preset whose times and price of a dense frame are scaled.")] = "balanced",
    frames: Annotated[int, typer.Option(min=2, help="Largest number of frames that are read of each clip.")] = 150,
    phases: PhasesOption = 2,
) -> None:
    """Find the cheapest preset for your own clips within a budget of loss against truth, or of excess drift.

    Where no preset keeps to the budget, the nearest one is written, and the exit code is 3.
    """
    from deltascene.pipeline.commands.terminal import open_console
    from deltascene.pipeline.commands.tune import tune_command
    from deltascene.pipeline.evaluation.tune import TuneRequest

    if objective not in ("time", "macs"):
        raise UsageError(f"--objective: expected time or macs; found {objective!r}")
    budgets = parse_budgets(budget or ["moved.loss<=0.05", "whole.loss<=0.01"])
    request = TuneRequest(sources, out, model, budgets, objective, preset, frames, phases)  # type: ignore[arg-type]
    raise typer.Exit(tune_command(request, open_console()))
