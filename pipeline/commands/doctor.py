"""`deltascene doctor`: checks this installation and machine, and prints one table for a bug report."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.doctor.check import Check
from deltascene.pipeline.doctor.examine import examine
from deltascene.pipeline.units import count


def doctor_command(console: Console, *, as_json: bool = False, build_kernels: bool = False) -> ExitCode:
    """Makes all checks; the exit code is `INTERNAL` where there is a problem.

    Args:
        console: where to print.
        as_json: print one JSON list instead of a table.
        build_kernels: compile the kernel for this machine and torch first.

    Raises:
        UsageError: the kernel can't be compiled.
    """
    if build_kernels:
        from deltascene.pipeline.numerics.kernel import build_kernel  # imports torch

        with console.status("compiling the kernel, which takes about 15 seconds"):
            build_kernel()
    checks = examine()
    print_checks(console, checks, as_json=as_json)
    return exit_code(checks)


def exit_code(checks: Sequence[Check]) -> ExitCode:
    """`INTERNAL` where one of the checks found a problem."""
    return ExitCode.INTERNAL if any(check.status == "problem" for check in checks) else ExitCode.OK


def print_checks(console: Console, checks: Sequence[Check], *, as_json: bool = False) -> None:
    """Prints checks as a table, or as one JSON list."""
    if as_json:
        console.out(json.dumps([asdict(check) for check in checks], indent=2), highlight=False)
        return
    table = Table("check", "", "found", box=None, pad_edge=False)
    for check in checks:
        text = f"{check.found}\n-> {check.way_out}" if check.way_out else check.found
        table.add_row(Text(check.name, no_wrap=True), Text(check.status, no_wrap=True), Text(text, overflow="fold"))
    console.print(table)
    counts = {status: sum(check.status == status for check in checks) for status in ("problem", "warning")}
    print_line(console, ", ".join(count(number, status) for status, number in counts.items()))
