"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

OutArgument = Annotated[str, typer.Argument(metavar="OUT", help="Folder of a run, or its s3:// URL.")]
ModelOption = Annotated[
    str | None, typer.Option(help="Model bundle: the name of a packaged one, a folder, or an fsspec URL.")
]
TasksOption = Annotated[
    str | None, typer.Option(help="Tasks to predict, separated by commas. Default: all tasks of the model.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(help="Packaged preset: exact, balanced or fast. Default: balanced; a begun run goes on with its own."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file whose keys replace those of the preset.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One config key, such as --set segment.frames=64. May be repeated.")
]
SizeOption = Annotated[
    str | None, typer.Option(help="Size of the model's input: its short side in pixels, or height and width as H,W.")
]
IgnoreOption = Annotated[
    Path | None,
    typer.Option(
        metavar="ZONES.yaml",
        help="Zones whose changes are ignored: `zones:`, a list of `polygon: [[x, y], …]` with an optional `source`.",
    ),
]
JsonEventsOption = Annotated[bool, typer.Option("--json", help="Print one JSON event a line on standard output.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
AllowCodeOption = Annotated[
    bool, typer.Option("--allow-code", help="Allow a bundle to import its own head class, which runs its code.")
]
DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Folder with images/, TASK/ and split.csv.")]
SplitOption = Annotated[
    int | None, typer.Option(help="Number of blocks that are shared with the base. Default: the bundle's.")
]
