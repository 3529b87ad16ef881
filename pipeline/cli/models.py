"""`deltascene models` and `deltascene compress`: commands on model bundles."""

from pathlib import Path
from typing import Annotated

import typer

from deltascene.pipeline.cli.options import AllowCodeOption, SizeOption, SplitOption
from deltascene.pipeline.cli.values import parse_size

models_app = typer.Typer(help="List, check and make model bundles.", no_args_is_help=True)


@models_app.command("ls")
def models_ls() -> None:
    """List the packaged models."""
    from deltascene.pipeline.commands.models import list_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(list_command(open_console()))


@models_app.command("check")
def models_check(
    model: Annotated[str, typer.Argument(help="timm:NAME, the name of a packaged model, a folder, or an fsspec URL.")],
) -> None:
    """Say whether a backbone or a bundle is supported, and if not, why."""
    from deltascene.pipeline.commands.models import check_command
    from deltascene.pipeline.commands.terminal import open_console

    raise typer.Exit(check_command(model, open_console()))


@models_app.command("new")
def models_new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the bundle.")],
    backbone: Annotated[str, typer.Option(help="Backbone, as timm:NAME.")],
    task: Annotated[
        list[str],
        typer.Option(help="NAME:KIND[:CHANNELS], such as hands:heatmaps:21. May be repeated; the first is the base."),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of the backbone (.safetensors, with timm's names). Default: timm's own."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Name of the base task, if it isn't the first.")] = None,
    size: SizeOption = None,
    random: Annotated[
        bool, typer.Option("--random", help="Use untrained weights for the backbone, to try things out.")
    ] = False,
) -> None:
    """Write a bundle for your own tasks on a timm backbone. Its heads are untrained."""
    from deltascene.pipeline.commands.models import new_command
    from deltascene.pipeline.commands.terminal import open_console

    side = parse_size(size)
    code = new_command(folder, backbone, task, open_console(), weights=weights, base=base, size=side, random=random)
    raise typer.Exit(code)


def compress(
    model: Annotated[
        str,
        typer.Argument(metavar="BUNDLE", help="Bundle with base, tasks and heads: a packaged name, a folder or a URL."),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            help="NAME=CHECKPOINT, with a fine-tuned backbone (.safetensors, with timm's names) or a bundle's folder."
            " May be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the compressed bundle.")],
    base: Annotated[
        Path | None, typer.Option(help="Checkpoint of the base (.safetensors) to use instead of BUNDLE's.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the delta of every weight. Default: 16.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(
            help="Instead of --rank: the smallest rank of every delta that keeps this share of its squared singular"
            " values, such as 0.95."
        ),
    ] = None,
    split: SplitOption = None,
    clip: Annotated[
        Path | None, typer.Option(help="Video on which predictions are compared with those of the full networks.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Largest number of frames that are read of the video.")] = 32,
    allow_code: AllowCodeOption = False,
) -> None:
    """Make sub-tasks from separately fine-tuned networks: low-rank deltas from the base, without training."""
    from deltascene.pipeline.bundles.compress import CompressRequest
    from deltascene.pipeline.commands.compress import compress_command
    from deltascene.pipeline.commands.terminal import open_console

    request = CompressRequest(model, task, out, base, rank, energy, split, allow_code)
    raise typer.Exit(compress_command(request, clip, frames, open_console()))
