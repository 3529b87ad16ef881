"""Kills processes of a run at random times, and finds the processes of a run."""

import io
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil

ACTORS = {"reader": "ReaderActor", "engine": "EngineActor", "sub-task": "TaskActor", "writer": "WriterActor"}
ENCODER = "deltascene.pipeline.drawing.webm_main"
AGENTS = ("DashboardAgent", "RuntimeEnvAgent", "dashboard/agent.py", "runtime_env/agent/main.py")
GONE_S = 30.0  # time for the processes of an ended run to exit


@dataclass(frozen=True)
class Trial:
    """Parameters of a trial.

    Attributes:
        number: of the trial.
        victim: kind of actor, `encoder` (of a writer's overlay), or `driver`.
        placement: fused or split.
        seed: determines the time of the kill.
    """

    number: int
    victim: str
    placement: str
    seed: int

    @property
    def joins(self) -> bool:
        """Whether the driver joins a running cluster; else it starts its own."""
        return self.victim != "driver" or self.number // 6 % 2 == 1


class Watch(io.TextIOBase):
    """A text stream that counts the events that a run prints."""

    def __init__(self) -> None:
        self.frames = self.lost = 0
        self.ended = threading.Event()
        self._rest = ""

    def write(self, text: str) -> int:
        """Takes printed text, which may end within a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            event = json.loads(line)["event"] if line.startswith("{") else ""
            self.lost += event == "frames_lost"
            self.frames += event == "frame"
        return len(text)


class Killer(threading.Thread):
    """Thread that kills a process some time after the start, or shortly after a certain frame was done."""

    def __init__(self, trial: Trial, watch: Watch, root: int, frames: int, start_s: float) -> None:
        """Starts the thread.

        Args:
            trial: the trial, which has the victim.
            watch: events of the run.
            root: id of the ancestor of the victims, or of the driver itself.
            frames: number of frames of the run.
            start_s: approximate time until the first frame is done.
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
        """Kills one process, and in a quarter of the trials another actor after it."""
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
            time.sleep(0.01)  # it hasn't started yet

    def _victims(self, kind: str) -> list[int]:
        if kind == "driver":
            return [self._root]
        return encoders(self._root) if kind == "encoder" else sorted(actors(self._root, ACTORS[kind]))


def encoders(root: int) -> list[int]:
    """Ids of the encoder processes below a process."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if ENCODER in process.cmdline():
                found.append(process.pid)
    return found


def actors(root: int, name: str = "") -> list[int]:
    """Ids of this package's actors below a process, by the process titles that Ray sets."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(root).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                title = " ".join(process.cmdline())
                if title.startswith(tuple(f"ray::{each}" for each in ([name] if name else ACTORS.values()))):
                    found.append(process.pid)
    return found


def left_behind(pids: Iterable[int]) -> int:
    """Number of these processes that don't exit in time."""
    deadline, stay = time.monotonic() + GONE_S, set(pids)
    while (stay := {pid for pid in stay if _alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(stay)


def below(root: int) -> set[int]:
    """Ids of all descendants of a process, without Ray's agents, which take a minute to exit."""
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
