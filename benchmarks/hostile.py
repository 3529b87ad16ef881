"""Hostile inputs: `python benchmarks/hostile.py --cases 200 --seed 0`.

Runs the real commands on damaged and manipulated videos, bundles, results and names, generated from one seed. A
violation is a traceback, an exit code other than 0, 2, 3 and 4, a command of more than 30 s (or ten times an undamaged
run, if that is longer) or 3 GB, a usage error of more than one line, or a change outside of OUT. Commands run in a
worker process, so that torch is imported once; one case in 25 also runs as a separate command.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import hostile_bundles
import hostile_names
import hostile_runs
import hostile_videos
import psutil
from hostile_case import SECONDS, Answer, Case, Place, Stock, Verdict, changes, empty, snapshot
from hostile_worker import UNTIDIED

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_model import TINY_DELTA, write_tiny_bundle

SHARES = (
    (hostile_videos.cases, 0.38),
    (hostile_bundles.cases, 0.24),
    (hostile_runs.cases, 0.28),
    (hostile_names.cases, 0.1),
)
_PATIENCE_S = 300.0  # time limit of commands that aren't part of a case
OPTIONS = ["--preset", "balanced", "--tasks", "parts,height", "--set", "segment.frames=4", "--set", "save.video=false"]
OPTIONS += ["--set", "numerics.threads=1", "--dtype", "float32", "--set", "numerics.kernel=torch"]


def main() -> None:
    """Prints the table; exits with 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="regular expression: kind and name of the cases that run")
    options = parser.parse_args()
    chosen = [
        case for case in choose(options.cases, options.seed) if re.search(options.only, f"{case.kind} {case.name}")
    ]
    with tempfile.TemporaryDirectory() as folder, Arena(Path(folder)) as arena:
        verdicts = []
        for number, case in enumerate(chosen):
            verdicts.append(arena.meet(case, alone=number % 25 == 7))
            for problem in verdicts[-1].wrong:
                print(f"{case.kind} {case.name} ({case.seed}): {problem}", flush=True)
    print(f"{table(verdicts)} of at most {arena.limit_s:.0f} s")
    sys.exit(any(verdict.wrong for verdict in verdicts))


def choose(count: int, seed: int) -> list[Case]:
    """`count` cases of all kinds; a larger count adds cases to these."""
    return [case for cases, share in SHARES for case in islice(cases(seed), round(share * count))]


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown table with a row for every kind of case."""
    head = "| kind | cases | commands | exit codes | worst s | most GB | escapes | tracebacks | violations |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    kinds = list(dict.fromkeys(verdict.case.kind for verdict in verdicts))
    for kind in [*kinds, "all"]:
        of = [verdict for verdict in verdicts if kind in (verdict.case.kind, "all")]
        codes = [code for verdict in of for code in verdict.codes]
        seen = ", ".join(f"{code}: {codes.count(code)}" for code in sorted(set(codes), key=str))
        worst, most = max(verdict.seconds for verdict in of), max(verdict.peak_bytes for verdict in of) / 1e9
        sums = [sum(map(len, (v.escapes for v in of))), sum(v.tracebacks for v in of), sum(len(v.wrong) for v in of)]
        counts = " | ".join(map(str, sums))
        lines.append(f"| {kind} | {len(of)} | {len(codes)} | {seen} | {worst:.1f} | {most:.2f} | {counts} |")
    slow = max(verdicts, key=lambda verdict: verdict.seconds)
    return "\n".join([*lines, "", f"Slowest: {slow.case.kind} {slow.case.name} ({slow.case.seed})"])


class Arena:
    """A folder with all files that a command could damage by mistake, and the worker that runs commands.

    Attributes:
        limit_s: time limit of a command.
    """

    def __init__(self, root: Path) -> None:
        """Makes clips, a model and a finished run in an empty folder."""
        self._root, self._case, self._start_s = root, root / "case", 0.0
        for name in ("home", "tmp", "cwd", "clips"):
            (root / name).mkdir()
        self._environment = os.environ | {
            "HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "XDG_CACHE_HOME": str(root / "home" / "cache"),
            "COLUMNS": "200", "OMP_NUM_THREADS": "1", "NO_COLOR": "1",
        }  # fmt: skip
        self._worker = Worker(root / "cwd", self._environment)
        clips = sorted(hostile_videos.write_clips(root / "clips"), key=lambda path: path.suffix)
        self._stock = Stock(
            clips, write_tiny_bundle(root / "model", TINY_DELTA), root / "run", root / "bystander", OPTIONS
        )
        place = Place(self._stock, root, root / "run", Random(0))
        made = self._worker.run([UNTIDIED, *place.run(*clips[:2], more=["--set", "save.video=true"])], _PATIENCE_S)
        assert made.code == 0, made
        self.limit_s = max(SECONDS, 10 * made.seconds)

    def __enter__(self) -> "Arena":
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def meet(self, case: Case, alone: bool = False) -> Verdict:
        """Makes a case and runs its commands.

        Args:
            case: the case.
            alone: whether to run them also as separate commands.
        """
        verdict = Verdict(case)
        for way in (self._worker.run, self._alone) if alone else (self._worker.run,):
            empty(self._case)
            (self._case / "in").mkdir()
            write_bystander(self._stock.bystander)
            place = Place(self._stock, self._case / "in", self._case / "out", Random(case.seed))
            commands = case.make(place)
            before = snapshot(self._root, place.out)
            for command in commands:
                verdict.judge(command, way(command, self.limit_s), self.limit_s)
                after = snapshot(self._root, place.out)
                escapes = changes(before, after)
                if escapes:
                    verdict.wrong.append(f"{' '.join(command[:2])}: changed {', '.join(escapes[:3])}")
                verdict.escapes += escapes
                before = after
        return verdict

    def _alone(self, command: Sequence[str], limit_s: float) -> Answer:
        """Runs a command in a process of its own; the time is without that of Python's imports."""
        if any("\0" in word for word in command):
            return self._worker.run(command, limit_s)
        if not self._start_s:
            self._start_s = self._by_itself(["models", "check", "rooms"], _PATIENCE_S).seconds  # imports as a run does
        answer = self._by_itself(command, limit_s + self._start_s)
        return replace(answer, seconds=answer.seconds - self._start_s)

    def _by_itself(self, command: Sequence[str], limit_s: float) -> Answer:
        began, where = time.perf_counter(), self._root / "cwd"
        program = [sys.executable, "-m", "deltascene", *command]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            with subprocess.Popen(program, stdout=out, stderr=error, cwd=where, env=self._environment) as process:
                try:
                    code = process.wait(limit_s)
                except subprocess.TimeoutExpired:
                    end(process.pid)
                    code = None
            out.seek(0)
            error.seek(0)
            peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            return Answer(code, out.read(), error.read(), time.perf_counter() - began, peak)


class Worker:
    """A process that runs commands; it is replaced when it dies or exceeds the time limit."""

    def __init__(self, cwd: Path, environment: Mapping[str, str]) -> None:
        self._cwd, self._environment = cwd, environment
        self._process: subprocess.Popen[str] | None = None
        self._replies = -1

    def run(self, command: Sequence[str], limit_s: float) -> Answer:
        """Runs one command, which is stopped at the time limit."""
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        began = time.perf_counter()
        process.stdin.write(json.dumps(list(command)) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([self._replies], [], [], limit_s)
        line = _line(self._replies) if ready else ""
        seconds = time.perf_counter() - began
        if not line:
            self.close()
            return Answer(None, "", f"worker: {'no answer' if not ready else process.returncode}", seconds)
        answer = Answer(**json.loads(line))
        if answer.peak_bytes > 1 << 30:
            self.close()  # the peak of its children is never reset
        return answer

    def close(self) -> None:
        """Ends the process and its descendants."""
        if self._process is not None:
            end(self._process.pid)
            self._process.communicate()  # closes its stdin, too
            os.close(self._replies)
            self._process = None

    def _start(self) -> None:
        self._replies, there = os.pipe()
        program = [sys.executable, str(Path(__file__).with_name("hostile_worker.py")), str(there)]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, text=True, pass_fds=[there], cwd=self._cwd, env=self._environment
        )
        os.close(there)
        self.run(["models", "check", "rooms"], _PATIENCE_S)  # imports torch outside of any case's time


def _line(descriptor: int) -> str:
    text = b""
    while not text.endswith(b"\n") and (more := os.read(descriptor, 1 << 20)):
        text += more
    return text.decode()


def end(pid: int) -> None:
    """Kills a process and its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def write_bystander(folder: Path) -> None:
    """Makes a folder that resembles a part of a run's, but belongs to no command."""
    empty(folder)
    (folder / "note.txt").write_text("not yours\n")
    (folder / "00000000").mkdir()
    (folder / "00000000" / "seal.json").write_text("{}")


if __name__ == "__main__":
    main()
