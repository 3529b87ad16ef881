"""Who kills which process of a run, and when; and which processes of it are left."""

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
