"""Processes of runs killed at random: `python benchmarks/faults.py --trials 100 --seed 0`.

Every trial is one run of three short clips by workers of Ray actors, during which a reader, an engine, a sub-task, a
writer, an encoder or the driver is killed with SIGKILL at a random time, in some trials two of them. The command of a
killed driver is repeated until it succeeds. The result must equal that of an undisturbed local run byte for byte: no
frame lost or computed twice, no broken seal, no partial file, and no process left behind.

A line per trial is added to --log; trials that are in it aren't repeated.
"""

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fault_killer import Trial, Watch, actors, left_behind
from fault_trials import Arguments, OpenPool, Outcome, actor_trial, driver_trial

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from equal_runs import compare_runs
from tiny_model import TINY_DELTA, write_clip, write_tiny_bundle

VICTIMS = ["reader", "engine", "sub-task", "writer", "encoder", "driver"]
WRONG = ["lost", "duplicated", "torn", "unequal"]


def main() -> None:
    """Runs the trials and prints the table; exits with 1 where a trial went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=VICTIMS, help="only trials with this victim")
    parser.add_argument("--workers", type=int, default=2, help="workers whose actors are killed; a driver's has one")
    parser.add_argument("--log", type=Path, default=Path("runs/faults.jsonl"))
    options = parser.parse_args()
    trials = [trial for trial in plan(options.trials, options.seed) if options.only in (None, trial.victim)]
    options.log.parent.mkdir(parents=True, exist_ok=True)
    before = {(row["seed"], row["number"]) for row in read(options.log)}
    with tempfile.TemporaryDirectory() as folder:
        arguments = prepare(Path(folder))
        todo = [trial for trial in trials if (trial.seed, trial.number) not in before]
        for trial, outcome in work(todo, arguments, Path(folder), options.workers):
            with options.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**asdict(trial), **asdict(outcome)}) + "\n")
            print(line(trial, outcome), file=sys.stderr, flush=True)
    wanted = {(trial.seed, trial.number) for trial in trials}
    rows = [row for row in read(options.log) if (row["seed"], row["number"]) in wanted]
    print(table(rows))
    sys.exit(any(bad(row) for row in rows))


def plan(trials: int, seed: int) -> list[Trial]:
    """Trials with alternating victims; sub-tasks have actors of their own only in placement split."""
    rng, planned = random.Random(seed), []
    for number in range(trials):
        victim = VICTIMS[number % len(VICTIMS)]
        split = victim == "sub-task" or number // len(VICTIMS) % 2 == 1
        planned.append(Trial(number, victim, "split" if split else "fused", rng.randrange(1 << 30)))
    return planned


def prepare(folder: Path) -> Arguments:
    """Makes the tiny model, a clip of five segments, two short clips, and the undisturbed run."""
    clips = folder / "clips"
    clips.mkdir()
    lengths = {"long": 120, "short": 30, "shorter": 11}
    for name, frames in lengths.items():
        write_clip(clips / f"{name}.avi", frames)
    arguments = Arguments(write_tiny_bundle(folder / "models" / "tiny", TINY_DELTA), clips, sum(lengths.values()))
    opened = OpenPool(arguments.engine("local", 1))
    assert opened.run(clips, folder / "wanted", Watch()) == 0
    return arguments


def work(trials: Sequence[Trial], arguments: Arguments, folder: Path, workers: int) -> Iterator[tuple[Trial, Outcome]]:
    """All trials on one cluster, but for the drivers that start their own; workers stay from trial to trial."""
    if not trials:
        return
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # else it reports every span of a lost worker
    import ray

    from deltascene.pipeline.workers.worker_ray import RayWorker

    RayWorker.span_frames = 4  # six spans a segment
    context: Any = ray.init(
        "local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
    )
    out = folder / "out"
    for placement in ("fused", "split"):
        here = [trial for trial in trials if trial.placement == placement and trial.victim != "driver"]
        if not here:
            continue
        opened = OpenPool(arguments.engine(placement, workers))
        with closing(opened.pool):
            for trial in here:
                yield trial, judged(actor_trial(trial, arguments, opened, out), folder / "wanted", out)
            processes = actors(os.getpid())
        if left := left_behind(processes):
            sys.exit(f"{left} processes of closed workers are still there")
    for trial in trials:
        if trial.victim == "driver":
            start_s = 15.0 if trial.joins else 20.0
            outcome = driver_trial(trial, arguments, out, context.address_info["gcs_address"], start_s)
            yield trial, judged(outcome, folder / "wanted", out)
    ray.shutdown()


def judged(outcome: Outcome, wanted: Path, out: Path) -> Outcome:
    """Compares the result of a successful run with the undisturbed one, and removes its folder."""
    if outcome.code == 0:
        found = asdict(compare_runs(wanted, out))
        outcome.wrong = {name: lines for name, lines in found.items() if lines}
    shutil.rmtree(out, ignore_errors=True)
    return outcome


def read(log: Path) -> list[dict[str, Any]]:
    """Rows of the trials in a log."""
    return [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []


def bad(row: dict[str, Any]) -> bool:
    """Whether a trial went wrong."""
    return bool(row["code"] or row["left"] or row["wrong"])


def line(trial: Trial, outcome: Outcome) -> str:
    """The line that is printed when a trial ends."""
    found = " ".join(f"{name}={len(lines)} ({lines[0]})" for name, lines in outcome.wrong.items())
    state = f"exit {outcome.code} left={outcome.left} {found}" if bad(asdict(outcome)) else "equal"
    kills = f"kills={outcome.kills} under_way={outcome.under_way} retries={outcome.retries} runs={outcome.runs}"
    return f"{trial.number:4d} {trial.victim:8s} {trial.placement} {kills} {outcome.seconds:.1f} s: {state}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Sums by victim."""
    names = ["trials", "kills", "while frames were computed", "segments done again", "commands"]
    lines = [f"| victim | {' | '.join([*names, *WRONG, 'failed', 'processes left'])} |", "|---" * 12 + "|"]
    by_victim: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_victim[row["victim"]].append(row)
    for victim, of in [*by_victim.items(), ("all", list(rows))]:
        sums: list[int] = [
            len(of),
            *(sum(row[name] for row in of) for name in ("kills", "under_way", "retries", "runs")),
        ]
        sums += [sum(len(row["wrong"].get(name, ())) for row in of) for name in WRONG]
        sums += [sum(row["code"] != 0 for row in of), sum(row["left"] for row in of)]
        lines.append(f"| {victim} | {' | '.join(str(number) for number in sums)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
