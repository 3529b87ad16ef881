"""The command line. Anything heavy is imported inside the command that needs it, so that `--help` answers at once."""

import io
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from deltascene import __version__
from deltascene.errors import DeltasceneError, ExitCode
from deltascene.pipeline.cli.train import train_app
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.openmp import brief_spins
from deltascene.pipeline.quick_imports import quick_imports

if TYPE_CHECKING:
    from rich.console import Console

    from deltascene.cache.places import Place

app = typer.Typer(
    name="deltascene",
    help="Dense video understanding that computes what changed, once, for every task.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
config_app = typer.Typer(help="Show the resolved config.", no_args_is_help=True)
models_app = typer.Typer(help="List, check and make model bundles.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
cache_app = typer.Typer(help="Look after the archived activations of a run.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.add_typer(train_app, name="train")

_LONGEST_ERROR = 600

ModelOption = Annotated[str | None, typer.Option(help="Packaged model, bundle folder, or fsspec URL.")]
PresetOption = Annotated[str, typer.Option(help="Packaged preset: exact, balanced or fast.")]
OutArgument = Annotated[str, typer.Argument(metavar="OUT", help="Folder of a run, or its s3:// URL.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One config key: --set segment.frames=64.")]
TasksOption = Annotated[str | None, typer.Option(help="Comma-separated tasks; default: all of the model's.")]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Dense video understanding that computes what changed, once, for every task."""
    if show:
        print(f"deltascene {__version__}")
        raise typer.Exit


@app.command()
def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE…", help="Videos, folders, globs, list files (.txt), image sequences."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder of the results, or s3:// URL; default runs/<date-time>.")
    ] = None,
    model: ModelOption = None,
    tasks: TasksOption = None,
    preset: PresetOption = "exact",
    config: ConfigOption = None,
    set_: SetOption = None,
    size: Annotated[str | None, typer.Option(help="Model input: short side in pixels, or H,W.")] = None,
    start: Annotated[str | None, typer.Option(help="Leave out what is before: seconds, MM:SS or HH:MM:SS.")] = None,
    end: Annotated[str | None, typer.Option(help="Leave out what is from here on.")] = None,
    stride: Annotated[int | None, typer.Option(help="Process every n-th frame.")] = None,
    fps: Annotated[float | None, typer.Option(help="Rate of image sequences.")] = None,
    save: Annotated[
        str | None, typer.Option(help="Beside the arrays: video,png,npz; `arrays` alone writes no pictures.")
    ] = None,
    save_size: Annotated[str | None, typer.Option(help="Size of what is stored: model or frame.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Known truth (npz), or a folder with <id>.truth.npz; scores the run.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run left in OUT.")] = False,
    only_failed: Annotated[
        bool,
        typer.Option("--only-failed", help="Do only what failed in OUT or was left half done; SOURCE may choose."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done: files, frames, time, size.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One event a line on standard output.")] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Let a bundle import its own head class.")] = False,
    verify: Annotated[str | None, typer.Option(help="How much of an input is hashed: quick or full.")] = None,
    device: Annotated[str | None, typer.Option(help="auto or cpu; other devices aren't supported yet.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="What blocks multiply: auto, float32 or bfloat16; auto measures which is faster.")
    ] = None,
    executor: Annotated[
        str | None, typer.Option(help="auto, local, or ray: reader, engine and writer in actors.")
    ] = None,
    placement: Annotated[
        str | None, typer.Option(help="With ray: fused, or split: every sub-task with a delta in its own actor.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="With ray: videos or segments computed at once.")] = None,
    address: Annotated[str | None, typer.Option(help="With ray: a cluster to join; without, one starts here.")] = None,
    no_archive: Annotated[bool, typer.Option("--no-archive", help="Don't keep the base's activations.")] = False,
    audit_every: Annotated[
        int | None, typer.Option(help="Also compute every n-th frame in full, and report the drift of the others.")
    ] = None,
    archive_budget: Annotated[
        str | None,
        typer.Option(help="Where the run's archive ends, e.g. 20GB, looked at before each segment; predictions go on."),
    ] = None,
) -> None:
    """Run the model over videos; the same command goes on where an earlier one stopped."""
    values = {
        "model": model,
        "tasks": split_names(tasks),
        "input.size": parse_size(size),
        "source.start_s": parse_time(start),
        "source.end_s": parse_time(end),
        "source.stride": stride,
        "source.fps": fps,
        "save.size": save_size,
        "run.verify": verify,
        "run.device": device,
        "numerics.dtype": dtype,
        "run.executor": executor,
        "run.placement": placement,
        "run.workers": workers,
        "run.address": address,
        "run.audit_every": audit_every,
        "archive.enabled": False if no_archive else None,
        "archive.budget_gb": None if archive_budget is None else parse_bytes(archive_budget) / 1e9,
        **_parse_save(save),
    }
    from deltascene.pipeline.config import load_config

    if not sources and not only_failed:
        raise UsageError("run: expected at least one SOURCE; found none; deltascene run --help says what can be one")
    if only_failed and (out is None or force):
        found = "--force, which would redo the others" if force else "none"
        raise UsageError(f"--only-failed: expected -o with the folder of an earlier run; found {found}")
    resolved = load_config(preset, config, set_ or (), values)
    with quick_imports():
        from deltascene.pipeline.commands.run import RunOptions, run_command

    folder = _at(out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}")
    options = RunOptions(sources or (), folder, force, dry_run, json, truth, allow_code, only_failed)
    raise typer.Exit(run_command(resolved, options, _console()))


@app.command()
def jobs(
    out: OutArgument,
    json: Annotated[bool, typer.Option("--json", help="As JSON, every input.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every input, however many there are.")] = False,
) -> None:
    """Show the inputs of a run, finished, stopped or under way: status, frames, retries, speed, time left, cause."""
    from deltascene.pipeline.commands.jobs import jobs_command

    raise typer.Exit(jobs_command(_at(out), _console(), as_json=json, everything=everything))


class _WritesByDefault(TyperGroup):
    """`report OUT` is short for `report write OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["write", *args])


report_app = typer.Typer(
    cls=_WritesByDefault,
    help="Write the report of a run (`report OUT`), or compare two (`report diff OUT_A OUT_B`).",
    subcommand_metavar="OUT | diff OUT_A OUT_B",
)
app.add_typer(report_app, name="report")


@report_app.command("write")
def report_write(
    out: OutArgument,
    html: Annotated[Path | None, typer.Option(help="Where to write the page; default OUT/report.html.")] = None,
) -> None:
    """Write the report of a run again: report.html and report.json. What `report OUT` does."""
    from deltascene.pipeline.report.build import write_report
    from deltascene.pipeline.runs.reader import open_run

    json_path, html_path = write_report(open_run(out), html)
    print(f"{html_path}\n{json_path}")


@report_app.command("diff")
def report_diff(
    a: Annotated[str, typer.Argument(metavar="OUT_A", help="Folder of the run to compare with.")],
    b: Annotated[str, typer.Argument(metavar="OUT_B", help="Folder of the run that is compared.")],
    html: Annotated[Path | None, typer.Option(help="Also write a page with pictures there.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON on standard output.")] = False,
) -> None:
    """Compare two runs over the same videos: config, MACs, time, policies, how far B's predictions are from A's."""
    from deltascene.pipeline.commands.report_diff import diff_command

    diff_command(_at(a), _at(b), html, _console(), as_json=json)


@app.command()
def backfill(
    out: OutArgument,
    task: Annotated[str, typer.Option(help="Sub-task to add; it starts from the archived activations.")],
    model: Annotated[str | None, typer.Option(help="Bundle that has it; default: the run's own.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One event a line on standard output.")] = False,
    other_numerics: Annotated[
        bool, typer.Option("--other-numerics", help="Accept a machine that computes otherwise than the run's did.")
    ] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Let a bundle import its own head class.")] = False,
) -> None:
    """Add a task to a finished run from its archived activations: no video, no base below the split."""
    with quick_imports():
        from deltascene.pipeline.commands.run import backfill_command

    code = backfill_command(
        _at(out), task, model, _console(), as_json=json, other_numerics=other_numerics, allow_code=allow_code
    )
    raise typer.Exit(code)


@app.command("what-if")
def what_if(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE…", help="As of run.")],
    presets: Annotated[str, typer.Option(help="Comma-separated presets to compare.")] = "balanced,fast",
    model: ModelOption = None,
    tasks: TasksOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Say how many tokens and MACs presets would compute on videos, without running a model."""
    from deltascene.pipeline.config import load_config
    from deltascene.pipeline.evaluation.what_if import print_what_if
    from deltascene.pipeline.sources.find import find_sources

    values = {"model": model, "tasks": split_names(tasks)}
    configs = {name: load_config(name, config, set_ or (), values) for name in split_names(presets) or ()}
    raise typer.Exit(print_what_if(configs, find_sources(sources), _console()))


@app.command("eval")
def evaluate(
    data: Annotated[
        Path | None, typer.Argument(metavar="[DATA]", help="Folder with images/, TASK/ and split.csv.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Bundle, or NAME=BUNDLE; several are compared. Default: rooms.")
    ] = None,
    stl: Annotated[list[str] | None, typer.Option(help="Bundle of a single-task network; once for each task.")] = None,
    frozen: Annotated[str | None, typer.Option(help="Bundle whose heads sit on the frozen base.")] = None,
    part: Annotated[str, typer.Option(help="Part of DATA.")] = "test",
    clips: Annotated[
        Path | None, typer.Option(help="Folder of videos with <stem>.truth.npz: the preset against dense prediction.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset that is judged on the clips.")] = "balanced",
    frames: Annotated[int, typer.Option(help="At most so many of each clip.")] = 10_000,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for eval.json and tradeoff.svg.")] = None,
) -> None:
    """Score models on labelled images side by side, and a preset on clips with truth; intervals are given."""
    from deltascene.pipeline.commands.eval import EvalRequest, eval_command

    models = _named(model or ["rooms"])
    asked = EvalRequest(data, part, models, stl or (), frozen, clips, preset, frames, out)
    raise typer.Exit(eval_command(asked, _console()))


@app.command()
def tune(
    sources: Annotated[list[str], typer.Argument(metavar="CLIP…", help="Videos; truth may lie beside them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New YAML file for the preset.")],
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Largest loss, e.g. 'moved.loss<=0.05'; again for 'whole.loss'. Default: 0.05 and 0.01."),
    ] = None,
    objective: Annotated[str, typer.Option(help="What is to be least: time or macs.")] = "time",
    model: Annotated[str, typer.Option(help="Packaged bundle, folder or URL.")] = "rooms",
    preset: Annotated[str, typer.Option(help="Preset whose frequency, refresh and threshold are varied.")] = "balanced",
    frames: Annotated[int, typer.Option(min=2, help="At most so many of each clip.")] = 150,
) -> None:
    """Find the cheapest preset for your own clips, against truth beside them or against dense prediction."""
    from deltascene.pipeline.errors import UsageError
    from deltascene.pipeline.evaluation.tune import TuneRequest, parse_budgets, tune_command

    if objective not in ("time", "macs"):
        raise UsageError(f"--objective: expected time or macs; found {objective!r}")
    budgets = parse_budgets(budget or ["moved.loss<=0.05", "whole.loss<=0.01"])
    asked = TuneRequest(sources, out, model, budgets, objective, preset, frames)  # type: ignore[arg-type]
    raise typer.Exit(tune_command(asked, _console()))


@app.command()
def compress(
    model: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="Base, tasks and heads: a packaged name, a folder or a URL.")
    ],
    task: Annotated[
        list[str],
        typer.Option(help="NAME=CHECKPOINT: fine-tuned backbone (.safetensors, timm's naming), or a bundle's folder."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the bundle that comes out.")],
    base: Annotated[Path | None, typer.Option(help="Base checkpoint (.safetensors) in place of BUNDLE's.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of every weight's delta; default 16.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Or the smallest ranks that keep this share of each change's energy: 0.95.")
    ] = None,
    split: Annotated[int | None, typer.Option(help="Blocks shared with the base; default: the bundle's.")] = None,
    clip: Annotated[Path | None, typer.Option(help="Video to compare answers on, with the full networks'.")] = None,
    frames: Annotated[int, typer.Option(help="At most so many of it.")] = 32,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Let a bundle import its own head class.")] = False,
) -> None:
    """Make sub-tasks out of separately fine-tuned networks: low-rank deltas from the base, without training."""
    from deltascene.pipeline.bundles.compress import CompressRequest
    from deltascene.pipeline.commands.compress import compress_command

    order = CompressRequest(model, task, out, base, rank, energy, split, allow_code)
    raise typer.Exit(compress_command(order, clip, frames, _console()))


@cache_app.command("ls")
def cache_ls(out: OutArgument) -> None:
    """List the archived activations of a run."""
    from deltascene.pipeline.runs.archives import list_archives

    raise typer.Exit(list_archives(_at(out), _console()))


@cache_app.command("verify")
def cache_verify(out: OutArgument) -> None:
    """Read every archived byte and check it against its seal."""
    from deltascene.pipeline.runs.archives import verify_archives

    raise typer.Exit(verify_archives(_at(out), _console()))


@cache_app.command("gc")
def cache_gc(
    out: OutArgument,
    budget: Annotated[str | None, typer.Option(help="What may stay, e.g. 20GB; the oldest segments go first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove leftovers, broken segments, and the oldest ones above a budget."""
    from deltascene.pipeline.runs.archives import collect_garbage

    raise typer.Exit(
        collect_garbage(_at(out), None if budget is None else parse_bytes(budget), _console(), dry_run=dry_run)
    )


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    build_kernels: Annotated[
        bool, typer.Option("--build-kernels", help="Compile the kernel for this machine first; needs a C++ compiler.")
    ] = False,
) -> None:
    """Check this installation and machine; a table for a bug report."""
    from deltascene.pipeline.doctor import examine as clinic

    if build_kernels:
        clinic.build_kernels(_console())
    raise typer.Exit(clinic.print_checks(_console(), clinic.examine(), as_json=json))


@config_app.command("show")
def config_show(
    preset: PresetOption = "exact",
    config: ConfigOption = None,
    set_: SetOption = None,
    model: ModelOption = None,
    tasks: TasksOption = None,
) -> None:
    """Print the config that a run with these options would have."""
    from deltascene.pipeline.config import load_config, render_config

    values = {"model": model, "tasks": split_names(tasks)}
    print(render_config(load_config(preset, config, set_ or (), values)), end="")


@models_app.command("ls")
def models_ls() -> None:
    """List the packaged models."""
    from deltascene.pipeline.bundles.models import list_models, print_models

    print_models(_console(), list_models())


@models_app.command("check")
def models_check(model: Annotated[str, typer.Argument(help="timm:NAME, a packaged name, a folder, or a URL.")]) -> None:
    """Say whether a backbone or bundle is supported, or why not."""
    from deltascene.pipeline.bundles.models_check import check_model, print_check

    raise typer.Exit(print_check(_console(), check_model(model)))


@models_app.command("new")
def models_new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write the bundle into.")],
    backbone: Annotated[str, typer.Option(help="timm:NAME.")],
    task: Annotated[
        list[str], typer.Option(help="NAME:KIND[:CHANNELS], e.g. hands:heatmaps:21; the first is the base.")
    ],
    weights: Annotated[Path | None, typer.Option(help="Backbone weights in timm's naming, safetensors.")] = None,
    base: Annotated[str | None, typer.Option(help="Base task, if not the first.")] = None,
    size: Annotated[str | None, typer.Option(help="Model input: short side in pixels, or H,W.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Untrained backbone weights, to try things out.")] = False,
) -> None:
    """Write a bundle for your own tasks on a timm backbone; its heads are untrained."""
    from deltascene.pipeline.bundles.models_new import new_model

    bundle = new_model(folder, backbone, task, weights=weights, base=base, size=parse_size(size), random=random)
    print(f"{bundle.folder}: {', '.join(bundle.entry.tasks)} on {bundle.entry.backbone.timm}; its heads are untrained")


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Comma-separated names."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _named(texts: list[str]) -> dict[str, str]:
    """`NAME=BUNDLE`, or a bundle under its folder's name.

    Raises:
        UsageError: two have one name.
    """
    models: dict[str, str] = {}
    for text in texts:
        name, equals, model = text.partition("=")
        if not equals or "/" in name:  # a folder may have = in its name
            name, model = Path(text).name or text, text
        if name in models:
            raise UsageError(f"--model: expected a name for each, NAME=BUNDLE; found {name!r} twice")
        models[name] = model
    return models


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """`518`, or `H,W`.

    Raises:
        UsageError: neither.
    """
    if text is None:
        return None
    numbers = [int(part) for part in re.split(r"[,x]", text) if part.strip().isdigit()]
    if re.fullmatch(r"\s*\d+\s*([,x]\s*\d+\s*)?", text) is None or min(numbers) < 1:
        raise UsageError(f"--size: expected a short side in pixels or H,W; found {text!r}")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def parse_time(text: str | None) -> float | None:
    """Seconds, MM:SS or HH:MM:SS, as seconds.

    Raises:
        UsageError: none of these.
    """
    if text is None:
        return None
    if re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text) is None:
        raise UsageError(f"time: expected seconds, MM:SS or HH:MM:SS; found {text!r}")
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def parse_bytes(text: str) -> int:
    """`20GB`, `512 MB` or a number of bytes.

    Raises:
        UsageError: neither.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text.lower())
    if match is None:
        raise UsageError(f"size: expected bytes such as 20GB; found {text!r}")
    scale: int = 1000 ** " kmgt".index(match[2] or " ")
    return round(float(match[1]) * scale)


def _parse_save(text: str | None) -> dict[str, Any]:
    names = split_names(text)
    if names is None:
        return {}
    known = ("arrays", "video", "png", "npz")
    for name in names:
        if name not in known:
            raise UsageError(f"--save: expected some of {', '.join(known)}; found {name!r}")
    return {f"save.{name}": name in names for name in known if name != "arrays"}


def _at(folder: str) -> "Place":
    from deltascene.cache.places import place

    return place(folder)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def main() -> NoReturn:
    """The command `deltascene`: one clear line and an exit code for everything that can go wrong."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names needn't be UTF-8
    try:
        with brief_spins():
            app(standalone_mode=True)
    except DeltasceneError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; finished segments are kept, the same command goes on", ExitCode.STOPPED)
    except OSError as error:
        from errno import EDQUOT, ENOSPC

        full = error.errno in (ENOSPC, EDQUOT)
        named = error.filename is not None  # a path that was asked for, or lies in what was
        code = ExitCode.DISK_FULL if full else ExitCode.USAGE if named else ExitCode.INTERNAL
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", code)
    raise SystemExit(ExitCode.OK)


def _fail(text: str, code: ExitCode) -> NoReturn:
    from deltascene.pipeline.text import one_line, printable

    print(f"deltascene: {one_line(printable(text), _LONGEST_ERROR)}", file=sys.stderr)
    raise SystemExit(code)
