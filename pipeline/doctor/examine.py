"""`deltascene doctor`: what this installation and machine can do, as one table for a bug report."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deltascene.errors import ExitCode
from deltascene.pipeline.doctor.check import Check, Examination, guarded
from deltascene.pipeline.doctor.machine import (
    check_arithmetic,
    check_cores,
    check_disk,
    check_gpu,
    check_instruction_sets,
    check_kernel,
    check_memory,
    check_processor,
    check_threads,
)
from deltascene.pipeline.doctor.media import check_decoders, check_webm
from deltascene.pipeline.doctor.packages import check_torchvision, check_versions

if TYPE_CHECKING:
    from rich.console import Console


def examine(model: str | None = None) -> list[Check]:
    """Checks everything that a run needs.

    Args:
        model: the model that is run for one frame: packaged name, folder or URL; None is the first packaged one.
    """
    examinations: Iterable[tuple[str, Examination]] = (
        ("versions", check_versions),
        ("torchvision", check_torchvision),
        ("processor", check_processor),
        ("cores", check_cores),
        ("instruction sets", check_instruction_sets),
        ("memory", check_memory),
        ("torch threads", check_threads),
        ("kernel", check_kernel),
        ("arithmetic", check_arithmetic),
        ("GPU", check_gpu),
        ("decoders", check_decoders),
        ("overlay", check_webm),
        ("model", partial(_check_model, model)),
        ("disk", check_disk),
    )
    return [check for name, examination in examinations for check in guarded(name, examination)]


def build_kernels(console: "Console") -> Path:
    """Compiles the kernel for this machine and torch, with a spinner; what `deltascene doctor --build-kernels` does.

    Raises:
        UsageError: it can't be compiled.
    """
    from deltascene.pipeline.numerics.kernel import build_kernel  # imports torch

    with console.status("compiling the kernel, about a quarter of a minute"):
        return build_kernel()


def print_checks(console: "Console", checks: Sequence[Check], *, as_json: bool = False) -> int:
    """Prints checks as a table, or as one JSON list.

    Returns:
        The command's exit code: 1 where there is a problem, else 0.
    """
    if as_json:
        console.out(json.dumps([asdict(check) for check in checks], indent=2), highlight=False)
    else:
        _print_table(console, checks)
    return ExitCode.INTERNAL if any(check.status == "problem" for check in checks) else ExitCode.OK


def _check_model(model: str | None) -> list[Check]:
    from deltascene.pipeline.doctor.model import check_model_runs  # imports torch and timm

    return check_model_runs(model)


def _print_table(console: "Console", checks: Sequence[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "found", box=None, pad_edge=False)
    for check in checks:
        text = f"{check.found}\n-> {check.way_out}" if check.way_out else check.found
        table.add_row(Text(check.name, no_wrap=True), Text(check.status, no_wrap=True), Text(text, overflow="fold"))
    console.print(table)
    counts = {status: sum(check.status == status for check in checks) for status in ("problem", "warning")}
    console.print(", ".join(f"{count} {status}{'' if count == 1 else 's'}" for status, count in counts.items()))
