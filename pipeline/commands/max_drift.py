"""`deltascene run --max-drift`, `--max-ms` and `--tighten`: a run's numbers from a pilot, or one step stricter."""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import ceil
from typing import Any

from rich.console import Console

from deltascene.cache.places import Place
from deltascene.pipeline.batch.choose_config import WAY_OUT, Choice
from deltascene.pipeline.commands.terminal import bars
from deltascene.pipeline.engine.engine import Engine
from deltascene.pipeline.errors import OutputError, UsageError
from deltascene.pipeline.evaluation.bounds import MEAN, Goal, bounds_text
from deltascene.pipeline.evaluation.clip_scores import MOVING, WHOLE
from deltascene.pipeline.evaluation.ladder import KEYS, ladder, with_numbers
from deltascene.pipeline.evaluation.pilot import Pilot, check_bounds, choose_step, plan_pilot, run_pilot
from deltascene.pipeline.evaluation.progress import unseen
from deltascene.pipeline.evaluation.tune_preset import drift_cell
from deltascene.pipeline.numerics.settle import settle
from deltascene.pipeline.runs.folder import RunFolder, read_run_yaml
from deltascene.pipeline.sources.spec import SourceSpec

TIGHTEN = "deltascene run SOURCE… -o OUT --tighten --force"

_log = logging.getLogger(__name__)


def recorded_pilot(folder: RunFolder) -> dict[str, Any]:
    """The pilot that a run in a folder was begun with; empty where there was none."""
    pilot = read_run_yaml(folder).get("pilot") if folder.run_yaml.is_file() else None
    return pilot if isinstance(pilot, dict) else {}


def needs_pilot(choice: Choice, folder: RunFolder, goal: Goal, *, force: bool) -> bool:
    """Whether a goal asks for a pilot, as it isn't on record.

    Raises:
        OutputError: the run in the folder was begun with another goal, or without.
        UsageError: the keys that the goal chooses are given, too.
    """
    if not goal:
        return False
    for key in KEYS:
        if key in choice.typed:
            option = str(goal).split()[0]
            raise UsageError(f"{option}: chooses {key}; expected no value for it; found {choice.typed[key]}")
    if force or not folder.run_yaml.is_file():
        return True
    if (before := Goal.recorded(recorded_pilot(folder))) != goal:
        raise OutputError(f"{goal}: {folder.root} has {before if before else 'no such bound'}; {WAY_OUT}")
    return False


def choose_by_pilot(
    choice: Choice,
    goal: Goal,
    specs: Sequence[SourceSpec],
    console: Console,
    *,
    allow_code: bool = False,
    as_json: bool = False,
) -> Choice:
    """The choice with the numbers of the step that a pilot on windows of the inputs chose.

    Raises:
        UsageError: an unknown task, a preset that doesn't reuse by time, or no input that can be read.
    """
    config = settle(choice.config)
    ladder(config, 1.0)  # refuses presets without one before anything is loaded
    model = Engine.from_config(config, allow_code=allow_code).model
    check_bounds(goal.max_drift, model.tasks)
    plan = plan_pilot(config, specs)
    _log.warning("%s: pilot on %s, each in full and by every step", goal, plan)
    with nullcontext(unseen) if as_json else bars(console) as progress:
        pilot = choose_step(goal, plan, run_pilot(model, config, plan, progress))
    _log.warning("%s", outcome(pilot))
    chosen = with_numbers(choice.config, pilot.chosen.step.numbers)
    return replace(choice, config=chosen, chosen=True, pilot=pilot.record())


def tightened(choice: Choice, pilot: Mapping[str, Any], out: Place) -> Choice:
    """The choice of a run with a bound by the next stricter step of its pilot's record.

    Raises:
        OutputError: there is no record, or no stricter step.
    """
    steps = list(pilot.get("steps", ()))
    places = [at for at, step in enumerate(steps) if step.get("scale") == pilot.get("chosen")]
    if not places:
        raise OutputError(f"--tighten: expected a run with --max-drift in {out}; found none")
    if places[0] == 0:
        raise OutputError(f"--tighten: {out} was computed by the strictest step already; --preset exact loses nothing")
    stricter = steps[places[0] - 1]
    _log.warning("--tighten: %s", _typed(stricter["numbers"]))
    record = {**pilot, "chosen": stricter["scale"], "tightened": True}
    return replace(choice, config=with_numbers(choice.config, stricter["numbers"]), chosen=True, pilot=record)


def outcome(pilot: Pilot) -> str:
    """What a pilot chose, and what that reaches."""
    chosen = pilot.chosen
    means = "; ".join(
        f"{name} drift / floor / excess {drift_cell(chosen.excess[region][MEAN])} %"
        for region, name in ((MOVING, "moved"), (WHOLE, "whole"))
    )
    text = f"{_typed(chosen.step.numbers)}: {means}; {100 * chosen.macs:.1f} % of the MACs, {chosen.ms:.1f} ms a frame"
    if pilot.kept:
        return f"pilot chose {text}"
    if pilot.goal.max_ms is None:
        reached = bounds_text({of: chosen.reached(of) for of in pilot.goal.max_drift}, up=True)
    else:
        reached = f"--max-ms {ceil(10 * chosen.ms) / 10:g}"
    which = "strictest" if pilot.goal.max_ms is None else "cheapest"
    return (
        f"{pilot.goal} isn't reachable here; the nearest that is: {reached}."
        f" The run goes on with the {which} step, {text}"
    )


def audited(report_json: Place) -> str:
    """What the audits of a run say of its bound; empty without a bound, or where they say too little."""
    bound = json.loads(report_json.read_text(encoding="utf-8"))["bound"]
    limits = [limit for limit in (bound["limits"] if bound else ()) if limit["audited"] is not None]
    if not limits:
        return ""
    said = [
        f"{limit['of']} {limit['region']} {100 * limit['audited']:.1f} % of at most {100 * limit['at_most']:.1f} %"
        for limit in limits
    ]
    text = f"audited excess drift: {', '.join(said)}".replace(f"{MEAN} ", "")
    if not any(limit["over"] for limit in limits):
        return text
    last = bound["steps"][0]["chosen"]
    way_out = "no step is stricter; --preset exact loses nothing" if last else f"{TIGHTEN} takes the next stricter step"
    return f"{text}: over the bound of --max-drift; {way_out}"


def paced(report_json: Place) -> str:
    """What a run's frames took, beside the bound of its pilot on that; empty without one."""
    bound = json.loads(report_json.read_text(encoding="utf-8"))["bound"] or {}
    most, ms = bound.get("max_ms"), bound.get("ms")
    if most is None or ms is None:
        return ""
    over = "" if ms <= most else ": over it; --force begins with another pilot"
    return f"computed {ms:.1f} ms a frame without audits, of at most {most:g}{over}"


def _typed(numbers: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in numbers.items() if value is not None)
