"""Throughput by number of workers: `python benchmarks/scale.py`.

Runs `deltascene run` on the same clips, as whole commands in rotating order: on one core, including the decoder; in one
process with one thread (its decoder then has another core) and with all; by Ray with some workers of one thread each,
and on clusters of simulated machines of one processor each; then on one long file, whose segments are computed by all
workers. Start-up, until the first video starts, is reported separately, as a long run pays it once. The last row is the
machine's limit: one local run of one thread per core at the same time, each on its share of the clips. `--overlay` also
draws overlays; with `--tiny`, the tests' model, that is most of the work.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_model import TINY_DELTA, write_tiny_bundle

DEMO = Path(__file__).resolve().parent.parent / "configs" / "demo" / "room.mp4"


@dataclass(frozen=True)
class Way:
    """A way to run: its name, options of `deltascene run`, and where it runs."""

    name: str
    options: Sequence[str]
    workers: int = 0
    machines: int = 0
    pinned: bool = False


@dataclass(frozen=True)
class Took:
    """Time of a command in seconds.

    Attributes:
        whole: time of the process.
        start: time until the first video started.
        frames: number of frames that were computed.
    """

    whole: float
    start: float
    frames: int

    @property
    def fps(self) -> float:
        """Frames per second, without start-up."""
        return self.frames / (self.whole - self.start)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the long file")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--nodes", type=int, nargs="*", default=[2, 3, 4], help="simulated machines of a cluster")
    parser.add_argument("--runs", type=int, default=3, help="rounds of the clips")
    parser.add_argument("--long-runs", type=int, default=1, help="rounds of the long file; 0 leaves it out")
    parser.add_argument("--brief", action="store_true", help="one core, all threads, and the most workers only")
    parser.add_argument("--overlay", action="store_true", help="draw overlays, too")
    parser.add_argument("--tiny", action="store_true", help="the model of the tests instead of the packaged one")
    options = parser.parse_args()
    cores, alone = len(os.sched_getaffinity(0)), ["--executor", "local", "--set", "numerics.threads=1"]
    ways = [
        Way("local, one core", alone, pinned=True),
        Way("local, one thread", alone),
        Way(f"local, {cores} threads", ["--executor", "local", "--set", f"numerics.threads={cores}"]),
    ]
    for count in options.workers:
        ray = ["--executor", "ray", "--workers", f"{count}", "--set", "numerics.threads=1"]
        ways.append(Way(f"Ray, {count} workers", ray, workers=count))
    for count in options.nodes:
        ways.append(
            Way(f"Ray, {count} simulated machines", ["--executor", "ray", "--workers", f"{count}"], machines=count)
        )
    if options.brief:
        ways = [ways[0], ways[2], max(ways, key=lambda way: way.workers)]
    with tempfile.TemporaryDirectory() as folder:
        what = [] if options.overlay else ["--set", "save.video=false"]
        what += ["--model", str(write_tiny_bundle(Path(folder) / "tiny", TINY_DELTA))] if options.tiny else []
        ways = [replace(way, options=[*way.options, *what]) for way in ways]
        clips = Path(folder) / "clips"
        clips.mkdir()
        for number in range(options.clips):
            shutil.copy(DEMO, clips / f"clip{number}.mp4")
        table(f"{options.clips} clips", clips, ways, options.runs, Path(folder))
        side_by_side(clips, [*alone, *what], cores, Path(folder))
        if options.long_runs:
            long = long_file(Path(folder), options.minutes)
            most = max(ways, key=lambda way: way.workers)
            table(f"one file of {options.minutes:g} min", long, [ways[0], most], options.long_runs, Path(folder))


def table(name: str, source: Path, ways: Sequence[Way], runs: int, folder: Path) -> None:
    """Prints medians of interleaved rounds."""
    took: dict[str, list[Took]] = {way.name: [] for way in ways}
    for number in range(runs):
        for place in range(len(ways)):
            way = ways[(place + number) % len(ways)]
            took[way.name].append(run(source, way, folder / "out"))
    print(f"\n| {name} | s | start-up s | frames/s | times one core |\n|---|---|---|---|---|")
    fps = {way.name: statistics.median(each.fps for each in took[way.name]) for way in ways}
    for way in ways:
        whole, start = (
            statistics.median(getattr(each, what) for each in took[way.name]) for what in ("whole", "start")
        )
        ratio = fps[way.name] / fps[ways[0].name]
        print(f"| {way.name} | {whole:.1f} | {start:.1f} | {fps[way.name]:.1f} | {ratio:.2f} |", flush=True)


def side_by_side(clips: Path, options: Sequence[str], cores: int, folder: Path) -> None:
    """Prints frames per second of simultaneous local runs of one thread each."""
    shares = [folder / f"share{number}" for number in range(cores)]
    for number, clip in enumerate(sorted(clips.iterdir())):
        shares[number % cores].mkdir(exist_ok=True)
        shutil.copy(clip, shares[number % cores])
    way = Way("", options)
    with ThreadPoolExecutor(cores) as pool:
        took = list(pool.map(lambda share: run(share, way, folder / f"out-{share.name}"), shares))
    print(f"| {cores} local runs of one thread at once | | | {sum(each.fps for each in took):.1f} | |", flush=True)


@contextmanager
def cluster(machines: int) -> Iterator[list[str]]:
    """Starts a cluster of simulated machines; gives the options that join it, none without machines."""
    if not machines:
        yield []
        return
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(machines - 1):
            nodes.add_node(num_cpus=1)
        yield ["--address", nodes.address]
    finally:
        nodes.shutdown()


def run(source: Path, way: Way, out: Path) -> Took:
    """Runs one command, on a cluster of its own if it needs one."""
    with cluster(way.machines) as joined:
        return timed(source, [*way.options, *joined], out, {0} if way.pinned else os.sched_getaffinity(0))


def timed(source: Path, options: Sequence[str], out: Path, cores: set[int]) -> Took:
    """Runs one command and measures its time."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "deltascene", "run", str(source), "-o", str(out), "--preset", "balanced", "--json"]
    command += options
    began, first, frames = time.perf_counter(), 0.0, 0
    command = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            event = json.loads(line)["event"]
            frames += event == "frame"
            if event == "video_started":
                first = first or time.perf_counter() - began
    if program.returncode:
        sys.exit(f"{' '.join(command)}: exit {program.returncode}")
    return Took(time.perf_counter() - began, first, frames)


def long_file(folder: Path, minutes: float) -> Path:
    """Writes a long clip that repeats the demo clip forwards and backwards."""
    import cv2

    path, frames = folder / "long.mp4", round(minutes * 60 * 15)
    pictures, reader = [], cv2.VideoCapture(str(DEMO))
    while (read := reader.read())[0]:
        pictures.append(read[1])
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 15, (width, height))
    there_and_back = [*pictures, *pictures[-2:0:-1]]
    for number in range(frames):
        writer.write(there_and_back[number % len(there_and_back)])
    writer.release()
    return path


if __name__ == "__main__":
    main()
