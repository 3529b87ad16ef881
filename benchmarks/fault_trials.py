"""One trial of the fault benchmark: a run during which one of its processes is killed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fault_killer import Killer, Trial, Watch, actors, below, left_behind

from deltascene import Engine
from deltascene.errors import DeltasceneError
from deltascene.pipeline.batch.batch_run import BatchRun
from deltascene.pipeline.batch.choose_config import Choice
from deltascene.pipeline.batch.flow import run_batch
from deltascene.pipeline.batch.keys import result_key
from deltascene.pipeline.batch.resume import claim_folder
from deltascene.pipeline.commands.progress import JsonEvents
from deltascene.pipeline.config import load_config
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.lock import locked
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.workers.open_pool import open_pool
from deltascene.pipeline.workers.pool import WorkerPool


@dataclass
class Outcome:
    """Result of a trial.

    Attributes:
        code: exit code of the last command.
        kills: number of processes that were killed.
        under_way: kills after the first frame was done and before the last one.
        retries: number of segments that were computed again.
        runs: number of commands until one succeeded.
        seconds: time of all commands.
        left: number of processes left behind.
        wrong: differences from the undisturbed run by kind: lost, duplicated, torn, unequal.
    """

    code: int = 0
    kills: int = 0
    under_way: int = 0
    retries: int = 0
    runs: int = 1
    seconds: float = 0.0
    left: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)


def actor_trial(trial: Trial, arguments: "Arguments", opened: "OpenPool", out: Path) -> Outcome:
    """A run by workers of this process; one of their actors is killed."""
    watch, outcome, began = Watch(), Outcome(), time.monotonic()
    killer = Killer(trial, watch, os.getpid(), arguments.frames, start_s=0.5)
    try:
        outcome.code = opened.run(arguments.sources, out, watch)
    except DeltasceneError as error:
        outcome.code, outcome.wrong = error.exit_code, {"lost": [str(error)]}
    finally:
        watch.ended.set()
        killer.join()
    outcome.kills, outcome.under_way, outcome.retries = killer.kills, killer.under_way, watch.lost
    outcome.seconds = time.monotonic() - began
    outcome.left = left_behind(killer.orphans)
    opened.mend()
    return outcome


def driver_trial(trial: Trial, arguments: "Arguments", out: Path, address: str, start_s: float) -> Outcome:
    """A command whose driver is killed; the command is repeated until it succeeds."""
    outcome, began, processes = Outcome(runs=0), time.monotonic(), set[int]()
    command = arguments.command(out, trial.placement, address if trial.joins else None)
    while outcome.runs < 4:
        outcome.runs += 1
        with _started(command) as (driver, watch):
            first = outcome.runs == 1
            killer = Killer(trial, watch, driver.pid, arguments.frames, start_s) if first else None
            while driver.poll() is None:
                processes |= below(driver.pid)
                time.sleep(0.02 if killer else 0.5)
            watch.ended.set()
        if killer is not None:
            killer.join()
            outcome.kills, outcome.under_way = killer.kills, killer.under_way
            processes |= killer.orphans
        outcome.retries += watch.lost
        outcome.code = driver.returncode
        if outcome.code == 0:
            break
    outcome.seconds = time.monotonic() - began
    outcome.left = left_behind(processes | set(actors(os.getpid())))
    return outcome


@contextmanager
def _started(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], Watch]]:
    watch = Watch()
    own = ("RAY_TMPDIR", "RAY_AUTH")  # the other variables belong to this process's cluster
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_" or name.startswith(own)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None
        thread = threading.Thread(target=lambda: [watch.write(line) for line in driver.stdout or ()], daemon=True)
        thread.start()
        yield driver, watch
        driver.wait()
        thread.join()


@dataclass(frozen=True)
class Arguments:
    """Arguments of every run of the benchmark.

    Attributes:
        model: folder of the tiny bundle.
        sources: folder of the clips.
        frames: number of frames of all clips.
    """

    model: Path
    sources: Path
    frames: int

    settings = ("numerics.threads=1", "numerics.dtype=float32", "segment.frames=24")

    def engine(self, placement: str, workers: int) -> Engine:
        """Engine of a run in this process; placement `local` is without Ray."""
        values = {"model": str(self.model), "run.executor": "local" if placement == "local" else "ray"}
        more = {} if placement == "local" else {"run.placement": placement, "run.workers": workers}
        return Engine.from_config(load_config("balanced", overrides=self.settings, values=values | more))

    def command(self, out: Path, placement: str, address: str | None) -> list[str]:
        """Command of a run in a process of its own, with one worker."""
        command = [sys.executable, "-m", "deltascene", "run", str(self.sources), "-o", str(out), "--json"]
        command += ["--model", str(self.model), "--preset", "balanced", "--executor", "ray"]
        command += ["--placement", placement, "--workers", "1"]
        command += [word for setting in self.settings for word in ("--set", setting)]
        return command + (["--address", address] if address else [])


class OpenPool:
    """An engine and its pool, which is used for one run after another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.pool: WorkerPool = open_pool(engine.model, engine.config)

    def run(self, sources: Path, out: Path, watch: Watch) -> int:
        """A run as the command does it; returns the exit code."""
        folder, config = RunFolder(out), self._engine.config
        with locked(folder.root) as fence:
            key = result_key(config, self._engine.model)
            claim_folder(folder, Choice(config, "balanced"), key, force=False)
            batch = BatchRun(self._engine.model, config, self.pool, folder, key, fence, JsonEvents(watch))
            records = run_batch(batch, find_sources([str(sources)]))
        return 0 if all(record.status == "done" for record in records) else 3

    def mend(self) -> None:
        """Replaces killed actors that no run missed, so that the next trial starts with whole workers."""
        for worker in getattr(self.pool, "_workers", ()):
            worker.restore()
