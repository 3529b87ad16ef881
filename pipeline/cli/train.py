"""`deltascene train`: the training steps; each command continues a training that was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltascene.pipeline.cli.options import DataArgument, JsonEventsOption, SplitOption

if TYPE_CHECKING:
    from deltascene.pipeline.training.steps import Step

train_app = typer.Typer(help="Train a bundle for your own tasks (see docs/training.md).", no_args_is_help=True)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Bundle to start from: a packaged name, a folder or a URL.")
]
NewOption = Annotated[Path, typer.Option("--out", "-o", help="New folder for the trained bundle.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the trained bundle; it may be MODEL's own.")]
TaskOption = Annotated[str, typer.Option(help="Name of the task that is trained.")]
RecipeOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file whose keys replace those of the step's recipe.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One key of the recipe, such as --set learning_rate=1e-4. May be repeated."),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, or a device of torch such as cuda (untested).")]
ActivationsOption = Annotated[
    Path | None,
    typer.Option(help="Folder for the frozen base's activations, which are computed once for all tasks and splits."),
]


@train_app.command()
def base(
    data: DataArgument,
    model: ModelArgument,
    out: NewOption,
    config: RecipeOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json: JsonEventsOption = False,
) -> None:
    """Fine-tune the backbone and the head of the base task. The sub-tasks are trained after it."""
    _run("base", data, model, out, config, set_, json, device=device)


@train_app.command()
def subtask(
    data: DataArgument,
    model: ModelArgument,
    out: OutOption,
    task: TaskOption,
    split: SplitOption = None,
    activations: ActivationsOption = None,
    config: RecipeOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json: JsonEventsOption = False,
) -> None:
    """Train the delta weights and the head of a sub-task on the frozen base."""
    options = {"task": task, "split": split, "activations": activations, "device": device}
    _run("subtask", data, model, out, config, set_, json, **options)


@train_app.command()
def frozen(
    data: DataArgument,
    model: ModelArgument,
    out: OutOption,
    task: TaskOption,
    activations: ActivationsOption = None,
    config: RecipeOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json: JsonEventsOption = False,
) -> None:
    """Train only a head on the frozen base: the cheapest sub-task, and a reference for the others."""
    _run("frozen", data, model, out, config, set_, json, task=task, activations=activations, device=device)


@train_app.command()
def stl(
    data: DataArgument,
    model: ModelArgument,
    out: NewOption,
    task: TaskOption,
    config: RecipeOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json: JsonEventsOption = False,
) -> None:
    """Fine-tune a network for a single task, as a reference for the bundle."""
    _run("stl", data, model, out, config, set_, json, task=task, device=device)


def _run(
    step: "Step",
    data: Path,
    model: str,
    out: Path,
    config: Path | None,
    set_: list[str] | None,
    json: bool,
    **options: Any,
) -> None:
    from deltascene.pipeline.commands.train import train_command
    from deltascene.pipeline.training.recipe import load_recipe
    from deltascene.pipeline.training.steps import TrainRequest

    request = TrainRequest(step, data, model, out, load_recipe(step, config, set_ or ()), **options)
    raise typer.Exit(train_command(request, as_json=json))
