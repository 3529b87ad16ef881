"""The file of a tuned preset: what was measured as comments, then its keys."""

from pathlib import Path

from deltascene.cache.places import write_whole
from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE
from deltascene.pipeline.evaluation.tune import Tried, Tuned
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.versions import cpu_name

HEADS = ("every", "refresh", "threshold", "whole %", "moved %", "MACs %", "ms")
_WIDTHS = (7, 9, 11, 9, 9, 8, 8)


def write_preset(tuned: Tuned) -> Path:
    """Writes the chosen candidate as a preset, its folder included; returns the file."""
    out = tuned.request.out
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, preset_text(tuned))
    return out


def preset_text(tuned: Tuned) -> str:
    """The preset as YAML, with the evidence as comments."""
    request, chosen = tuned.request, tuned.chosen
    assert chosen is not None
    wanted = ", ".join(f"{region} loss at most {100 * most:g} %" for region, most in request.budgets.items())
    against = "truth, relative to dense prediction" if tuned.by_truth else "dense prediction"
    names = ", ".join(Path(str(spec.path)).name for spec in find_sources(request.sources))
    lines = [
        f"# Tuned by `deltascene tune` for {wanted}; least {request.objective}; losses against {against}.",
        f"# Clips: {names}; at most {request.frames} frames and {request.phases} phases of each."
        f" Model: {tuned.base.model}. Machine: {cpu_name()}.",
        "#",
        "# every  refresh  threshold  whole %  moved %  MACs %      ms",
    ]
    for tried in tuned.tried:
        row = "".join(f"{cell:>{width}}" for cell, width in zip(cells(tried), _WIDTHS, strict=True))
        lines.append(f"#{row}{'   <- chosen' if tried is chosen else ''}")
    policy, change = chosen.config.policy, chosen.config.change
    lines += [f"extends: {request.preset}", "policy:", f"  every: {policy.every}", f"  refresh: {policy.refresh}"]
    return "\n".join([*lines, "change:", f"  threshold: {change.threshold}"]) + "\n"


def cells(tried: Tried) -> list[str]:
    """A candidate's settings and results as text, in the order of `HEADS`."""
    policy, change = tried.config.policy, tried.config.change
    losses = [f"{100 * tried.loss[region]:+z.1f}" for region in (WHOLE, MOVING)]
    settings = [f"{policy.every}", f"{policy.refresh}", f"{change.threshold:g}"]
    return [*settings, *losses, f"{100 * tried.macs:.1f}", f"{tried.ms:.1f}"]
