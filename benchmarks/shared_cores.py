"""Threads where cores are shared: `python benchmarks/shared_cores.py`.

Measures frames per second of the demo clip by the command, by Ray's workers, and by the Python API, with torch imported
after or before deltascene; on the machine as it is, and together with two busy processes; with the default number of
threads, with one, and with as many as cores. Scripts of the API are loaded once; commands are whole ones, without their
start-up. All are run in rotating order; prints medians of rounds.

The kernel is used if it is in the user's cache: `XDG_CACHE_HOME` names another cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "configs" / "demo" / "room.mp4"
FACE = """
import sys, time
import cv2
if sys.argv[1] == "torch first":
    import torch
from deltascene import Engine
engine = Engine.load("rooms", "exact", overrides=sys.argv[3:])
reader = cv2.VideoCapture(sys.argv[2])
images = [cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB) for _ in range(10)]
stream = engine.open_stream("s")
stream(images[-1])
print(engine.config.numerics.kernel, engine.config.numerics.dtype, flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    for number in range(int(line)):
        stream(images[number % len(images)])
    print(int(line) / (time.perf_counter() - began), flush=True)
"""
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass"  # ends with its parent
PLACES = ("command", "workers", "face", "face, torch first")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=20, help="of a measurement of the Python API")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the clip, for a command")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2], help="number of busy processes")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=PLACES)
    parser.add_argument(
        "--environments", nargs="*", default=[], metavar="NAME=VALUE", help="also by default with each of these set"
    )
    options = parser.parse_args()
    ways = {"default": ([], {}), "1 thread": (["numerics.threads=1"], {})}
    cores = len(os.sched_getaffinity(0))
    ways[f"{cores} threads"] = ([f"numerics.threads={cores}"], {})
    for text in options.environments:
        name, _, value = text.partition("=")
        ways[text] = ([], {name: value})
    print(f"| place | neighbours | {' | '.join(ways)} | default / better of 1 and {cores} |")
    print("|---|---|" + "---|" * (len(ways) + 1), flush=True)
    for place in options.places:
        with ExitStack() as stack:
            measures = {
                name: stack.enter_context(
                    face(place, sets, variables, options.frames)
                    if place.startswith("face")
                    else command(place, sets, variables, options.seconds)
                )
                for name, (sets, variables) in ways.items()
            }
            for busy in options.busy:
                with neighbours(busy):
                    row(place, busy, measures, options.rounds)


def row(place: str, busy: int, measures: Mapping[str, Callable[[], float]], rounds: int) -> None:
    """Prints a row: medians of interleaved rounds."""
    fps: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(rounds):
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]
            fps[name].append(measures[name]())
    medians = {name: statistics.median(values) for name, values in fps.items()}
    ratio = medians[names[0]] / max(medians[names[1]], medians[names[2]])
    cells = " | ".join(f"{median:.2f}" for median in medians.values())
    print(f"| {place} | {f'{busy} busy' if busy else 'none'} | {cells} | {ratio:.2f} |", flush=True)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Busy processes within this context."""
    children = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


@contextmanager
def face(place: str, sets: Sequence[str], variables: Mapping[str, str], frames: int) -> Iterator[Callable[[], float]]:
    """A loaded script; gives a function that computes some frames and returns frames per second."""
    order = place.partition(", ")[2] or "torch last"
    child = subprocess.Popen(
        [sys.executable, "-c", FACE, order, str(DEMO), *sets],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    ready = child.stdout.readline()
    if not ready:
        sys.exit(f"{place}: exit {child.wait()}")

    def measure() -> float:
        assert child.stdin is not None
        assert child.stdout is not None
        print(frames, file=child.stdin, flush=True)
        return float(child.stdout.readline())

    try:
        yield measure
    finally:
        child.stdin.close()
        child.wait()


@contextmanager
def command(
    place: str, sets: Sequence[str], variables: Mapping[str, str], seconds: float
) -> Iterator[Callable[[], float]]:
    """The command, with a segment for every worker; gives a function that runs it and returns frames per second."""
    executor = "ray" if place == "workers" else "local"
    options = ["--executor", executor, "--end", f"{seconds:g}", "--save", "arrays", "--no-archive", "--json"]
    for each in [*sets, "segment.frames=16"]:
        options += ["--set", each]

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            whole = [sys.executable, "-m", "deltascene", "run", str(DEMO), "-o", folder, "--force", *options]
            with subprocess.Popen(
                whole, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **variables}
            ) as program:
                assert program.stdout is not None
                events = ((json.loads(line)["event"], time.perf_counter()) for line in program.stdout)
                times = [at_s for event, at_s in events if event in ("video_started", "frame")]
        if program.returncode:
            sys.exit(f"{' '.join(whole)}: exit {program.returncode}")
        return (len(times) - 1) / (times[-1] - times[0])

    yield measure


if __name__ == "__main__":
    main()
