"""An hour of video: `python benchmarks/hour.py`.

Runs a video of 54,000 frames (15 per second) by workers of Ray actors. Prints the resident memory of every process
while frames are computed and while results are joined, the number of files, and, with --kill, how much is computed
again after the driver was killed by SIGKILL in the middle. The default is the tests' tiny model, as lengths, files and
processes don't depend on the model; the packaged one, `--model rooms`, takes hours.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_model import TINY_DELTA, write_tiny_bundle

FPS, SIZE = 15, (240, 320)
EVERY_S = 2.0


@dataclass
class Memory:
    """Resident bytes by kind of process: after a tenth of the frames, with the last frames, and the maximum."""

    early: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    late: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    most: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--model", help="a bundle; the tiny one of the tests without it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", choices=["local", "ray"], default="ray")
    parser.add_argument("--kill", type=float, default=0.5, help="share of the frames after which the driver is killed")
    parser.add_argument("--no-overlay", action="store_true", help="don't draw the overlay video")
    options = parser.parse_args()
    frames = round(options.minutes * 60 * FPS)
    with tempfile.TemporaryDirectory() as folder:
        film, out = Path(folder) / "film.mp4", Path(folder) / "out"
        write_film(film, frames)
        model = options.model or str(write_tiny_bundle(Path(folder) / "tiny", TINY_DELTA))
        command = [sys.executable, "-m", "deltascene", "run", str(film), "-o", str(out), "--json", "--model", model]
        command += ["--preset", "balanced", "--executor", options.executor, "--set", "numerics.threads=1"]
        command += ["--workers", str(options.workers)] if options.executor == "ray" else []
        command += ["--set", "save.video=false"] if options.no_overlay else []
        memory = Memory()
        killed = run(command, frames, memory, round(options.kill * frames)) if options.kill else 0
        again = run(command, frames, memory, None)
        objects = [path for path in out.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in objects)
        print("\n| processes | MB after a tenth | MB with the last frames | most MB, to the end |\n|---|---|---|---|")
        for kind in sorted(memory.most):
            row = [memory.early[kind], memory.late[kind], memory.most[kind]]
            print(f"| {kind} | " + " | ".join(f"{each / 1e6:.0f}" for each in row) + " |")
        print(f"\n{frames} frames; {len(objects)} objects, {size / 1e6:.0f} MB")
        if killed:
            segments = f"{options.workers if options.executor == 'ray' else 1} open segments"
            twice = f"{killed + again - frames} of them a second time ({segments} may be lost)"
            print(f"{killed} frames were done when the driver was killed; {again} were computed after that, {twice}")


def run(command: list[str], frames: int, memory: Memory, kill_after: int | None) -> int:
    """Runs one command; returns the number of frames that it computed."""
    done, last, drawing = 0, 0.0, False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            event = json.loads(line)
            done += event["event"] == "frame"
            drawing |= event["event"] == "finishing"
            if time.monotonic() - last > EVERY_S and (done or drawing):
                last = time.monotonic()
                look(program.pid, memory, early=done < frames / 10, computing=event["event"] == "frame")
            if kill_after and done >= kill_after:
                program.send_signal(signal.SIGKILL)
                break
        program.stdout.read()
    if kill_after is None and program.returncode:
        sys.exit(f"{' '.join(command)}: exit {program.returncode}")
    return done


def look(pid: int, memory: Memory, *, early: bool, computing: bool) -> None:
    """Records the memory of every process of a run."""
    seen: dict[str, int] = defaultdict(int)
    for kind, size in processes(pid):
        seen[kind] = max(seen[kind], size)
    for kind, size in seen.items():
        memory.most[kind] = max(memory.most[kind], size)
        if computing:
            (memory.early if early else memory.late)[kind] = size


def processes(pid: int) -> Iterator[tuple[str, int]]:
    """Kind and resident bytes of a process and its descendants; Ray's own servers are one kind."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            title, size = " ".join(process.cmdline()).strip(), process.memory_info().rss
        except psutil.Error:
            continue
        if process.pid == pid:
            yield "driver", size
        elif "sources.decoding" in title:
            yield "decoder", size
        elif "webm_main" in title:
            yield "encoder", size
        elif title.startswith("ray::") and "Actor" in title:
            yield title.removeprefix("ray::").split(".")[0].split("(")[0].strip().removesuffix("Actor").lower(), size
        else:
            yield "Ray's own", size


def write_film(path: Path, frames: int) -> None:
    """Writes a video of a square that moves over a still background."""
    ground = np.random.default_rng(0).integers(40, 200, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    ground = cv2.resize(ground, (SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (SIZE[1], SIZE[0]))
    for number in range(frames):
        picture, left, top = ground.copy(), number * 3 % (SIZE[1] - 48), number % (SIZE[0] - 48)
        picture[top : top + 48, left : left + 48] = (30, 60, 220)
        writer.write(picture)
    writer.release()


if __name__ == "__main__":
    main()
