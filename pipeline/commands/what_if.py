"""`deltascene what-if`: prints how many tokens and MACs presets would compute on videos."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from deltascene.errors import ExitCode
from deltascene.pipeline.commands.terminal import print_line
from deltascene.pipeline.config import Config
from deltascene.pipeline.evaluation.what_if import VideoForecast, forecast
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.units import compact, share

_POLICIES = ("dense", "rows", "warped", "held")


def what_if_command(configs: Mapping[str, Config], sources: Sequence[str], console: Console) -> ExitCode:
    """Prints a row for each video and preset.

    Args:
        configs: resolved configs by the name of their preset.
        sources: SOURCE… as typed.
        console: where to print.

    Raises:
        DeltasceneError: a source or a model can't be used.
    """
    console.print(_table(list(forecast(configs, find_sources(sources)))))
    print_line(console, "Exact rows and MACs of a run; its time and accuracy are not forecast.")
    return ExitCode.OK


def _table(forecasts: Sequence[VideoForecast]) -> Table:
    table = Table("video", "preset", *_POLICIES, "tokens computed", "MACs a frame", "saved")
    for each in forecasts:
        counts = [str(each.policies.get(policy, 0)) for policy in _POLICIES]
        tokens, macs = each.rows / max(1, each.tokens), each.macs_executed / max(1, each.frames)
        saved = share(1 - each.macs_executed / max(1, each.macs_dense))
        table.add_row(each.video, each.preset, *counts, share(tokens), compact(macs, "MAC"), saved)
    return table
