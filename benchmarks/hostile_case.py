"""Hostile cases, the folders that they use, and the check for violations."""

import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECONDS = 30.0
PEAK_BYTES = 3 << 30
EXPECTED = (0, 2, 3, 4)
LONGEST_LINE = 700
_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\U0010ffff]")

Commands = list[list[str]]


@dataclass(frozen=True)
class Stock:
    """Undamaged files that cases are made from.

    Attributes:
        clips: short videos of several containers.
        model: folder of a small bundle.
        run: folder of a finished run of `clips[0]`, and of another clip, by that model.
        bystander: a folder that no command may change.
        options: options of `deltascene run` that made the run.
    """

    clips: Sequence[Path]
    model: Path
    run: Path
    bystander: Path
    options: Sequence[str]


@dataclass(frozen=True)
class Place:
    """Files and folders of one case.

    Attributes:
        stock: undamaged files.
        inputs: an empty folder for hostile files.
        out: the folder that the commands may write into; it doesn't exist yet.
        random: generator seeded by the case.
    """

    stock: Stock
    inputs: Path
    out: Path
    random: Random

    def run(self, *sources: object, model: Path | None = None, more: Sequence[str] = ()) -> list[str]:
        """`deltascene run` with the small model."""
        arguments = ["run", *map(str, sources), "-o", str(self.out), "--model", str(model or self.stock.model)]
        return [*arguments, *self.stock.options, *more]


Make = Callable[[Place], Commands]


@dataclass(frozen=True)
class Case:
    """One hostile input, and the commands that are run on it.

    Attributes:
        kind: row of the table.
        name: description of the input.
        seed: of its random numbers.
        make: writes the input and returns the commands.
    """

    kind: str
    name: str
    seed: str
    make: Make


@dataclass(frozen=True)
class Answer:
    """Result of a command.

    Attributes:
        code: its exit code; None if it had to be stopped.
        out: its standard output.
        error: its standard error.
        seconds: its time.
        peak_bytes: peak memory of its process, or of one of its child processes.
    """

    code: int | None
    out: str
    error: str
    seconds: float
    peak_bytes: int = 0


@dataclass
class Verdict:
    """Result of a case.

    Attributes:
        case: the case.
        codes: exit codes of the commands.
        seconds: time of the slowest command.
        peak_bytes: peak memory of a process.
        tracebacks: number of commands with a traceback.
        escapes: paths outside OUT that changed.
        wrong: every violation, one line each.
    """

    case: Case
    codes: list[int | None] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0
    tracebacks: int = 0
    escapes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def judge(self, command: Sequence[str], answer: Answer, limit_s: float) -> None:
        """Adds a command's result, whose time limit is `limit_s`."""
        self.codes.append(answer.code)
        self.seconds = max(self.seconds, answer.seconds)
        self.peak_bytes = max(self.peak_bytes, answer.peak_bytes)
        self.tracebacks += "Traceback" in answer.error or "Traceback" in answer.out
        self.wrong += [f"{' '.join(command[:2])}: {problem}" for problem in problems(answer, limit_s)]


def problems(answer: Answer, limit_s: float = SECONDS) -> list[str]:
    """Violations of a result."""
    found = []
    if "Traceback" in answer.error + answer.out:
        own = re.findall(r"(?:cache|pipeline|stages)/(\w+\.py)\", line (\d+)", answer.error)
        where = " < ".join(":".join(place) for place in reversed(own[-4:]))
        found.append(f"traceback: {answer.error.strip().splitlines()[-1][:300]} at {where}")
    if answer.code is None:
        found.append(f"ended after {answer.seconds:.0f} s, or died")
    elif answer.code not in EXPECTED and not found:
        found.append(f"exit {answer.code}: {answer.error.strip()[-300:]}")
    if answer.seconds > limit_s:
        found.append(f"took {answer.seconds:.0f} s")
    if answer.peak_bytes > PEAK_BYTES:
        found.append(f"took {answer.peak_bytes / 1e9:.1f} GB")
    if answer.code == 2:
        found += _unclear(answer.error or answer.out)
    if match := _CONTROL.search(answer.error + answer.out):
        found.append(f"control character {match[0]!r} in its output")
    return found


def _unclear(error: str) -> list[str]:
    """Violations of a usage error, which is one line, except for the option parser's and those of `models check`."""
    lines = [line for line in error.splitlines() if line.strip() and not line.startswith("note: ")]
    if lines and (lines[0].startswith("Usage: ") or lines[0].endswith(": not supported")):
        return []
    if len(lines) != 1 or not lines[0].startswith("deltascene: "):
        return [f"expected one line on stderr; found {len(lines)}: {error[:300]!r}"]
    return [f"a line of {len(lines[0])} characters"] if len(lines[0]) > LONGEST_LINE else []


def snapshot(root: Path, but: Path) -> dict[str, tuple[int, ...]]:
    """Mode, size and time of everything below a folder, except for one folder; links aren't followed."""
    found: dict[str, tuple[int, ...]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(folder, name) != but]
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            times = () if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns, status.st_ino)
            found[str(path)] = (status.st_mode, *times)
    return found


def changes(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> list[str]:
    """Paths that were added, removed or changed."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def empty(folder: Path) -> None:
    """Makes an empty folder, in place of whatever has its name."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
