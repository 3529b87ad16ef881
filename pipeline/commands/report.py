"""`deltascene report OUT`: writes the report of a run again."""

from pathlib import Path

from deltascene.errors import ExitCode
from deltascene.pipeline.report.build import write_report
from deltascene.pipeline.runs.reader import open_run


def write_command(out: str, html: Path | None, per_core_hour: float | None = None) -> ExitCode:
    """Writes report.html and report.json, and prints their paths.

    Args:
        out: folder of the run.
        html: file for the page; None writes OUT/report.html.
        per_core_hour: price of an hour of one core, in any currency; None leaves money out.

    Raises:
        OutputError: the folder isn't a run's, or its files are damaged.
    """
    json_path, html_path = write_report(open_run(out), html, per_core_hour)
    print(f"{html_path}\n{json_path}")
    return ExitCode.OK
