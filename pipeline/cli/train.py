"""`deltascene train …`: the training steps, each a command that goes on where it was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from deltascene.pipeline.training.steps import Step

train_app = typer.Typer(help="Train a bundle for your own tasks (docs/training.md).", no_args_is_help=True)

DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Folder with images/, TASK/ and split.csv.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Bundle to start from: packaged, folder or URL.")]
NewOption = Annotated[Path, typer.Option("--out", "-o", help="New folder for the bundle that comes out.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle that comes out; it may be MODEL's.")]
TaskOption = Annotated[str, typer.Option(help="Which task.")]
RecipeOption = Annotated[Path | None, typer.Option("--config", help="YAML on top of configs/training/STEP.yaml.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One key of the recipe: --set learning_rate=1e-4.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, or a device of torch such as cuda (untested).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One event a line on standard output.")]
ActivationsOption = Annotated[
    Path | None,
    typer.Option(help="Folder for the frozen base's activations: computed once, used by every task and split."),
]


@train_app.command()
def base(
    data: DataArgument,
    model: ModelArgument,
    out: NewOption,
    config: RecipeOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Fine-tune the backbone and the base task's head; the sub-tasks come after it."""
    _run("base", data, model, out, config, set_, json, device=device)


@train_app.command()
def subtask(
    data: DataArgument,
    model: ModelArgument,
    out: OutOption,
    task: TaskOption,
    split: Annotated[int | None, typer.Option(help="Blocks shared with the base; default: the bundle's.")] = None,
    activations: ActivationsOption = None,
    config: RecipeOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Train a sub-task's delta weights and head on the frozen base."""
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
    json: JsonOption = False,
) -> None:
    """Train a head alone on the frozen base: the cheapest sub-task, and a reference for the others."""
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
    json: JsonOption = False,
) -> None:
    """Fine-tune a network for one task alone: the reference that the bundle is compared with."""
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

    order = TrainRequest(step, data, model, out, load_recipe(step, config, set_ or ()), **options)
    raise typer.Exit(train_command(order, as_json=json))
