"""The file of a tuned preset: what was measured as comments, then its keys."""

from math import isnan
from pathlib import Path

from deltascene.cache.places import write_whole
from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE
from deltascene.pipeline.evaluation.excess import Excess
from deltascene.pipeline.evaluation.tune import Tried, Tuned
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.versions import cpu_name

_SHOWN = {WHOLE: "whole", MOVING: "moved"}


def write_preset(tuned: Tuned) -> Path:
    """Writes the chosen step as a preset, its folder included; returns the file."""
    out = tuned.request.out
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, preset_text(tuned))
    return out


def preset_text(tuned: Tuned) -> str:
    """The preset as YAML, with the evidence as comments."""
    request, chosen = tuned.request, tuned.chosen
    names = ", ".join(Path(str(spec.path)).name for spec in find_sources(request.sources))
    heads = tuple(head.replace("/\n", "/").replace("\n", " ") for head in heads_of(tuned))
    widths = [len(head) + 2 for head in heads]
    lines = [
        f"# Tuned by `deltascene tune` for {wanted(tuned)}; least {request.objective}; {measured(tuned)}.",
        f"# Clips: {names}; at most {request.frames} frames and {request.phases} phases of each."
        f" Model: {tuned.base.model}. Machine: {cpu_name()}.",
        *([] if tuned.kept else [f"# NOT KEPT: {reached(tuned)}"]),
        "#",
        "#" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)),
    ]
    for tried in tuned.tried:
        row = "".join(f"{cell:>{width}}" for cell, width in zip(cells(tried), widths, strict=True))
        lines.append(f"#{row}{'   <- chosen' if tried is chosen else ''}")
    lines += [f"extends: {request.preset}"]
    return "\n".join([*lines, *(f"{key}: {value:g}" for key, value in chosen.step.numbers.items() if value)]) + "\n"


def wanted(tuned: Tuned) -> str:
    """The budget in words."""
    what = "loss" if tuned.by_truth else "excess drift"
    return ", ".join(f"{_SHOWN[region]} {what} at most {100 * most:g} %" for region, most in _budgets(tuned))


def measured(tuned: Tuned) -> str:
    """What the numbers mean."""
    if tuned.by_truth:
        return "losses against truth, relative to dense prediction"
    return "drift from dense prediction / floor of dense prediction itself / excess, means over tasks"


def reached(tuned: Tuned) -> str:
    """What the chosen step reaches of a budget that no step keeps to."""
    found = ", ".join(f"{_SHOWN[region]} {100 * tuned.chosen.loss[region]:+.1f} %" for region, _ in _budgets(tuned))
    return f"no step keeps to {wanted(tuned)}; the nearest, the strictest, reaches {found}"


def heads_of(tuned: Tuned) -> tuple[str, ...]:
    """Names of what `cells` gives; a line break is where a narrow table may break them."""
    numbers = "%" if tuned.by_truth else "\ndrift/floor/\nexcess %"
    return ("step", "max_age_s", f"whole {numbers}", f"moved {numbers}", "MACs %", "ms")


def cells(tried: Tried) -> list[str]:
    """A step's settings and results as text."""
    settings = [f"{tried.step.scale:g}", f"{tried.step.config.policy.max_age_s:g}"]
    if tried.drift is None:
        losses = [f"{100 * tried.loss[region]:+z.1f}" for region in _SHOWN]
    else:
        losses = [drift_cell(tried.drift[region]) for region in _SHOWN]
    return [*settings, *losses, f"{100 * tried.macs:.1f}", f"{tried.ms:.1f}"]


def drift_cell(found: Excess) -> str:
    """Drift, floor and excess side by side in percent."""
    values = (found.drift, found.floor, found.excess)
    return "/".join("-" if isnan(value) else f"{100 * value:.1f}" for value in values)


def _budgets(tuned: Tuned) -> list[tuple[str, float]]:
    return list(tuned.request.budgets.items())
