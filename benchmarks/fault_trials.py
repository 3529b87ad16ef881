"""One trial of the fault bench: a run, and somebody who kills one of its processes at a moment of it."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deltascene import Engine
from deltascene.errors import DeltasceneError
from deltascene.pipeline.batch.batch_run import BatchRun
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

ACTORS = {"reader": "ReaderActor", "engine": "EngineActor", "sub-task": "TaskActor", "writer": "WriterActor"}
ENCODER = "deltascene.pipeline.drawing.webm_main"
AGENTS = ("DashboardAgent", "RuntimeEnvAgent", "dashboard/agent.py", "runtime_env/agent/main.py")
GONE_S = 30.0  # processes of a run that has ended may take to go


@dataclass(frozen=True)
class Trial:
    """What is done in it.

    Attributes:
        number: of the trial.
        victim: kind of actor, `encoder` (of a writer's overlay), or `driver`.
        placement: fused or split.
        seed: decides the moment.
    """

    number: int
    victim: str
    placement: str
    seed: int

    @property
    def joins(self) -> bool:
        """Whether a driver joins a running cluster, or starts its own."""
        return self.victim != "driver" or self.number // 6 % 2 == 1


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        code: exit code of the run, or of the last one.
        kills: processes that were there to be killed.
        under_way: kills after the first frame was done and before the last one.
        retries: segments computed again.
        runs: commands until one ended with 0.
        seconds: of all of them.
        left: processes left behind.
        wrong: lost, duplicated, torn, unequal, by name.
    """

    code: int = 0
    kills: int = 0
    under_way: int = 0
    retries: int = 0
    runs: int = 1
    seconds: float = 0.0
    left: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)


class Watch(io.TextIOBase):
    """Reads a run's events as it prints them."""

    def __init__(self) -> None:
        self.frames = self.lost = 0
        self.ended = threading.Event()
        self._rest = ""

    def write(self, text: str) -> int:
        """Takes what is printed, whole lines or parts of them."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            event = json.loads(line)["event"] if line.startswith("{") else ""
            self.lost += event == "frames_lost"
            self.frames += event == "frame"
        return len(text)


class Killer(threading.Thread):
    """Waits for the moment and kills: some time after the start, or shortly after some frame was done."""

    def __init__(self, trial: Trial, watch: Watch, root: int, frames: int, start_s: float) -> None:
        """Starts at once.

        Args:
            trial: names the victim.
            watch: of the run.
            root: process below which the victims are, or the driver itself.
            frames: that the run has.
            start_s: about the time until the first one is done.
        """
        super().__init__(daemon=True)
        self.kills = self.under_way = 0
        self.orphans: set[int] = set()
        self._trial, self._watch, self._root, self._frames = trial, watch, root, frames
        self._rng = random.Random(trial.seed)
        early = self._rng.random() < 0.2
        self._frame, self._wait_s = self._rng.randint(1, frames), self._rng.uniform(0, 0.1)
        if early:
            self._frame, self._wait_s = 0, self._rng.uniform(0, start_s)
        self._twice, self._again_s = self._rng.random() < 0.25, self._rng.uniform(0, 1)
        self.start()

    def run(self) -> None:
        """Kills once, or another actor right after."""
        while self._watch.frames < self._frame:
            if self._watch.ended.wait(0.002):
                return
        if self._watch.ended.wait(self._wait_s):
            return
        self._kill(self._trial.victim)
        if self._twice and self._trial.victim != "driver" and not self._watch.ended.wait(self._again_s):
            self._kill(self._rng.choice(["reader", "engine", "writer"]))

    def _kill(self, kind: str) -> None:
        while not self._watch.ended.is_set():
            found = self._victims(kind)
            if found:
                pid = self._rng.choice(found)
                self.orphans |= below(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1
                    self.under_way += 0 < self._watch.frames < self._frames
                return
            time.sleep(0.01)  # it isn't there yet

    def _victims(self, kind: str) -> list[int]:
        if kind == "driver":
            return [self._root]
        return encoders(self._root) if kind == "encoder" else sorted(actors(self._root, ACTORS[kind]))


def encoders(root: int) -> list[int]:
    """Encoders below a process."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if ENCODER in process.cmdline():
                found.append(process.pid)
    return found


def actors(root: int, name: str = "") -> list[int]:
    """Actors of ours below a process; Ray writes what a process is into its title."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(root).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                title = " ".join(process.cmdline())
                if title.startswith(tuple(f"ray::{each}" for each in ([name] if name else ACTORS.values()))):
                    found.append(process.pid)
    return found


def left_behind(pids: Iterable[int]) -> int:
    """How many of these processes don't go."""
    deadline, stay = time.monotonic() + GONE_S, set(pids)
    while (stay := {pid for pid in stay if _alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(stay)


def below(root: int) -> set[int]:
    """Processes that a process started, and those that they did; Ray's agents, which compute nothing, take a minute."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(root).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if not any(agent in " ".join(process.cmdline()) for agent in AGENTS):
                    found.add(process.pid)
    return found


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def actor_trial(trial: Trial, arguments: "Arguments", opened: "OpenPool", out: Path) -> Outcome:
    """A run by workers of this process, one of whose actors is killed."""
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
    """A command that is killed, and the same command until it ends with 0."""
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
    own = ("RAY_TMPDIR", "RAY_AUTH")  # all else speaks of this process's cluster
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
    """What every run of the bench is given.

    Attributes:
        model: folder of the tiny bundle.
        sources: folder of the clips.
        frames: that they have.
    """

    model: Path
    sources: Path
    frames: int

    settings = ("numerics.threads=1", "numerics.dtype=float32", "segment.frames=24")

    def engine(self, placement: str, workers: int) -> Engine:
        """Model and config of a run in this process; `local` is without Ray."""
        values = {"model": str(self.model), "run.executor": "local" if placement == "local" else "ray"}
        more = {} if placement == "local" else {"run.placement": placement, "run.workers": workers}
        return Engine.from_config(load_config("balanced", overrides=self.settings, values=values | more))

    def command(self, out: Path, placement: str, address: str | None) -> list[str]:
        """The same for a process of its own, with one worker."""
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
        """What the command does with them; the exit code."""
        folder, config = RunFolder(out), self._engine.config
        with locked(folder.root) as fence:
            key = result_key(config, self._engine.model)
            claim_folder(folder, config, key, force=False)
            batch = BatchRun(self._engine.model, config, self.pool, folder, key, fence, JsonEvents(watch))
            records = run_batch(batch, find_sources([str(sources)]))
        return 0 if all(record.status == "done" for record in records) else 3

    def mend(self) -> None:
        """Replaces killed actors that no run missed, so that the next trial starts with whole workers."""
        for worker in getattr(self.pool, "_workers", ()):
            worker.restore()
