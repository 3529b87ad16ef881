"""`deltascene run` and `deltascene backfill`: commands that compute predictions."""

import time
from pathlib import Path
from typing import Annotated

import typer

from deltascene.pipeline.cli.options import (
    AllowCodeOption,
    ConfigOption,
    IgnoreOption,
    JsonEventsOption,
    ModelOption,
    OutArgument,
    PresetOption,
    SetOption,
    SizeOption,
    TasksOption,
)
from deltascene.pipeline.cli.values import (
    parse_bytes,
    parse_goal,
    parse_save,
    parse_size,
    parse_time,
    read_zones,
    split_names,
)
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.quick_imports import quick_imports

SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE…", help="Videos, folders, globs, list files (.txt) or image sequences."),
]
OutOption = Annotated[
    str | None,
    typer.Option("--out", "-o", help="Folder for the results, or an s3:// URL. Default: runs/<date-time>."),
]
StartOption = Annotated[
    str | None, typer.Option(help="Leave out the frames before this time: seconds, MM:SS or HH:MM:SS.")
]
EndOption = Annotated[str | None, typer.Option(help="Leave out the frames from this time on.")]
StrideOption = Annotated[int | None, typer.Option(help="Process every n-th frame only.")]
FpsOption = Annotated[float | None, typer.Option(help="Frames per second of image sequences.")]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        help="Decoder of videos: auto is av (PyAV). decord and opencv refuse files that they would read wrongly."
    ),
]
SaveOption = Annotated[
    str | None,
    typer.Option(
        help="Extra outputs, separated by commas: video, png, npz. `arrays` writes none of them. Default: video."
    ),
]
SaveSizeOption = Annotated[
    str | None, typer.Option(help="Size of the stored predictions: model (the model's input) or frame (the video's).")
]
TruthOption = Annotated[
    Path | None,
    typer.Option(
        help="Known truth as .npz, or a folder with <id>.truth.npz for each input; the run is scored with it."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what an earlier run left in OUT.")]
OnlyFailedOption = Annotated[
    bool,
    typer.Option(
        "--only-failed",
        help="Run only the inputs that failed in OUT or are unfinished there; SOURCE can restrict them further.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the inputs, frames, time and size of the run, and write nothing.")
]
VerifyOption = Annotated[
    str | None, typer.Option(help="How inputs are identified: quick hashes parts of a file, full all of it.")
]
DeviceOption = Annotated[str | None, typer.Option(help="auto or cpu. Other devices aren't supported yet.")]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="Number type of the blocks' products: auto, float32 or bfloat16. auto measures which is faster."),
]
ExecutorOption = Annotated[
    str | None, typer.Option(help="auto, local, or ray. With ray, reader, engine and writer are actors.")
]
PlacementOption = Annotated[
    str | None,
    typer.Option(help="With ray: fused, or split. split gives every sub-task with delta weights an actor of its own."),
]
WorkersOption = Annotated[int | None, typer.Option(help="With ray: number of segments that are computed at once.")]
AddressOption = Annotated[
    str | None, typer.Option(help="With ray: address of the cluster to join. Default: a new cluster on this machine.")
]
NoArchiveOption = Annotated[bool, typer.Option("--no-archive", help="Don't store the base's activations.")]
AuditOption = Annotated[
    int | None, typer.Option(help="Also compute every n-th frame in full, and report the drift of the others.")
]
MaxDriftOption = Annotated[
    str | None,
    typer.Option(
        help="Largest drift from full compute where something moves, beyond what full compute itself changes from frame"
        " to frame: 5%, the mean of all tasks, or seg=3%,depth=8%; over the whole frame a fifth of it. A pilot on at"
        " most 2 % of the frames chooses the cheapest numbers that keep to it."
    ),
]
MaxMsOption = Annotated[
    float | None,
    typer.Option(
        help="Largest mean time of computing a frame, in milliseconds, without audits, decoding and writing. The pilot"
        " chooses the numbers that compute the most in it."
    ),
]
TargetFpsOption = Annotated[
    float | None, typer.Option(help="The same as --max-ms, in computed frames per second of one engine.")
]
TightenOption = Annotated[
    bool,
    typer.Option("--tighten", help="Compute a run that had a pilot again by its next stricter step; needs --force."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        help="Size at which the archive ends, such as 20GB. It is checked before each segment; predictions continue."
    ),
]


def run(
    sources: SourcesArgument = None,
    out: OutOption = None,
    model: ModelOption = None,
    tasks: TasksOption = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    size: SizeOption = None,
    ignore: IgnoreOption = None,
    start: StartOption = None,
    end: EndOption = None,
    stride: StrideOption = None,
    fps: FpsOption = None,
    decoder: DecoderOption = None,
    save: SaveOption = None,
    save_size: SaveSizeOption = None,
    truth: TruthOption = None,
    force: ForceOption = False,
    only_failed: OnlyFailedOption = False,
    dry_run: DryRunOption = False,
    json: JsonEventsOption = False,
    allow_code: AllowCodeOption = False,
    verify: VerifyOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    executor: ExecutorOption = None,
    placement: PlacementOption = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    no_archive: NoArchiveOption = False,
    audit_every: AuditOption = None,
    archive_budget: BudgetOption = None,
    max_drift: MaxDriftOption = None,
    max_ms: MaxMsOption = None,
    target_fps: TargetFpsOption = None,
    tighten: TightenOption = False,
) -> None:
    """Run a model over videos. The same command continues a run that was stopped, and so does a shorter one.

    Options that are left out are then as the run in OUT was begun with.
    """
    budget_bytes = parse_bytes(archive_budget)
    values = {
        ("model", f"--model {model}"): model,
        ("tasks", f"--tasks {tasks}"): split_names(tasks),
        ("input.size", f"--size {size}"): parse_size(size),
        ("change.ignore", f"--ignore {ignore}"): read_zones(ignore),
        ("source.start_s", f"--start {start}"): parse_time(start),
        ("source.end_s", f"--end {end}"): parse_time(end),
        ("source.stride", f"--stride {stride}"): stride,
        ("source.fps", f"--fps {fps}"): fps,
        ("source.decoder", f"--decoder {decoder}"): decoder,
        ("save.size", f"--save-size {save_size}"): save_size,
        ("numerics.dtype", f"--dtype {dtype}"): dtype,
    }
    of_the_run = {
        "run.verify": verify,
        "run.device": device,
        "run.executor": executor,
        "run.placement": placement,
        "run.workers": workers,
        "run.address": address,
        "run.audit_every": audit_every,
        "archive.enabled": False if no_archive else None,
        "archive.budget_gb": None if budget_bytes is None else budget_bytes / 1e9,
        **parse_save(save),
    }
    _check_inputs(sources, out, force=force, only_failed=only_failed)
    goal = parse_goal(max_drift, max_ms, target_fps)
    if tighten and (out is None or not force or goal):
        found = f"{goal}; the run there has its own" if goal else "no --force" if out else "no -o"
        raise UsageError(f"--tighten: expected -o with a run and --force, as it is replaced; found {found}")
    with quick_imports():
        from deltascene.cache.places import place
        from deltascene.pipeline.batch.choose_config import Given, choose_config
        from deltascene.pipeline.runs.folder import RunFolder

    folder = place(out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}")
    given = [Given(key, value, typed) for (key, typed), value in values.items()]
    given += [Given(key, value, key) for key, value in of_the_run.items()]
    choice = choose_config(None if force and not tighten else RunFolder(folder), preset, config, set_ or (), given)
    with quick_imports():
        from deltascene.pipeline.commands.run import RunOptions, run_command
        from deltascene.pipeline.commands.terminal import open_console

    options = RunOptions(sources or (), folder, force, dry_run, json, truth, allow_code, only_failed, goal, tighten)
    raise typer.Exit(run_command(choice, options, open_console()))


def _check_inputs(sources: list[str] | None, out: str | None, *, force: bool, only_failed: bool) -> None:
    if not sources and not only_failed:
        raise UsageError("run: expected at least one SOURCE; found none; deltascene run --help lists what can be one")
    if only_failed and (out is None or force):
        found = "--force, which would run the other inputs, too" if force else "none"
        raise UsageError(f"--only-failed: expected -o with the folder of an earlier run; found {found}")


def backfill(
    out: OutArgument,
    task: Annotated[str, typer.Option(help="Sub-task to add. It is computed from the archived activations.")],
    model: Annotated[str | None, typer.Option(help="Bundle that has the task. Default: the run's own.")] = None,
    json: JsonEventsOption = False,
    other_numerics: Annotated[
        bool,
        typer.Option("--other-numerics", help="Accept a machine whose results differ in rounding from the run's."),
    ] = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Add a task to a finished run from its archived activations, without its videos and without the base."""
    with quick_imports():
        from deltascene.cache.places import place
        from deltascene.pipeline.commands.backfill import BackfillRequest, backfill_command
        from deltascene.pipeline.commands.terminal import open_console

    request = BackfillRequest(place(out), task, model, other_numerics, allow_code)
    raise typer.Exit(backfill_command(request, open_console(), as_json=json))
