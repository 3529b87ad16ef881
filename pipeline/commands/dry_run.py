"""`deltascene run --dry-run`: prints the frames, time and size that a run would take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from deltascene.errors import DeltasceneError, ExitCode
from deltascene.pipeline.batch.archive_plan import expected_bytes, segment_info
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.sources.reader import open_source, probe
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.units import compact


@dataclass(frozen=True, slots=True)
class InputEstimate:
    """What one input would take.

    Attributes:
        id: of the input.
        problem: why it can't be read; empty where it can.
        frames: number of frames that would be predicted.
        size: height and width of a frame.
        decoder: name of the decoder.
        seconds: computing time, from one measured frame.
        predictions_bytes: size of the predictions before compression.
        archive_bytes: size of the archived activations before compression.
    """

    id: str
    problem: str = ""
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    decoder: str = ""
    seconds: float = 0.0
    predictions_bytes: int = 0
    archive_bytes: int = 0


def dry_run_command(engine: Engine, specs: Sequence[SourceSpec], console: Console) -> ExitCode:
    """Prints an estimate of every input as it is made, and their sum."""
    estimates = []
    for each in estimate(engine, specs):
        height, width = each.size
        found = each.problem or f"{each.frames} frames of {width}x{height}, {each.decoder}"
        print_line(console, f"{each.id}: {found}")
        estimates.append(each)
    archived = sum(each.archive_bytes for each in estimates)
    if archived:
        print_line(console, f"archive: about {compact(archived, 'B')} before compression (--no-archive leaves it out)")
    frames, minutes = sum(each.frames for each in estimates), sum(each.seconds for each in estimates) / 60
    gigabytes = sum(each.predictions_bytes for each in estimates) / 1e9
    print_line(
        console,
        f"{len(specs)} inputs, {frames} frames: about {minutes:.1f} min on this machine (one measured frame each),"
        f" at most {gigabytes:.2f} GB of predictions before compression",
    )
    return ExitCode.OK


def estimate(engine: Engine, specs: Sequence[SourceSpec]) -> Iterator[InputEstimate]:
    """What every input would take; of one that can't be read, why."""
    for spec in specs:
        try:
            yield _estimate(engine, spec)
        except DeltasceneError as error:
            yield InputEstimate(spec.id, problem=str(error))


def _estimate(engine: Engine, spec: SourceSpec) -> InputEstimate:
    config, how = engine.config, engine.config.source
    info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
    with open_source(how, spec, info=info) as reader:
        frames = len(reader.wanted)
    plan = engine.plan((info.height, info.width))
    height, width = plan.frame_size if config.save.size == "frame" else plan.model_size
    archive_bytes = 0
    if config.archive.enabled and engine.model.bundle.entry.archive.blocks:
        segment = segment_info(engine.model, config, plan, engine.model.backbone.grid(plan.model_size))
        archive_bytes = expected_bytes(config, segment, frames)
    return InputEstimate(
        spec.id,
        frames=frames,
        size=(info.height, info.width),
        decoder=info.decoder,
        seconds=frames * _frame_seconds(engine, (info.height, info.width)),
        predictions_bytes=frames * height * width * _bytes_per_pixel(engine),
        archive_bytes=archive_bytes,
    )


def _frame_seconds(engine: Engine, frame_size: tuple[int, int]) -> float:
    stream = engine.open_stream("dry-run")
    stream(np.zeros((*frame_size, 3), np.uint8))  # warms up
    return stream(np.full((*frame_size, 3), 255, np.uint8)).cost.seconds


def _bytes_per_pixel(engine: Engine) -> int:
    kinds = (engine.model.bundle.kinds[task] for task in engine.model.tasks)
    return sum(np.dtype(kind.stored.dtype).itemsize * kind.components for kind in kinds)
