"""Memory of reading a long video with a slow consumer: `python benchmarks/source_memory.py --minutes 10`.

Makes a 1280×720 clip (MPEG-4, a keyframe every 12 frames), reads it with each decoder and prints how far the resident
memory of this process and of its decoder process rose above the start. Expected with PyAV, which is what `auto` means:
at most 300 MiB in total, independent of the length. decord and OpenCV are measured for comparison.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil

from deltascene.pipeline.sources.errors import SourceError
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.info import Decoder
from deltascene.pipeline.sources.reader import read_frames

MIB = 1 << 20
LIMIT_MIB = 300


@dataclass(frozen=True)
class Memory:
    """One reading.

    Attributes:
        decoder: name and version.
        frames: frames read.
        seconds: time taken, the consumer's included.
        own_mib: rise of this process above its start, at most.
        child_mib: resident memory of the decoder process, at most (it starts from nothing).
        half_mib: both together, at most, in the first half of the clip.
    """

    decoder: str
    frames: int
    seconds: float
    own_mib: float
    child_mib: float
    half_mib: float


def write_clip(path: Path, size: tuple[int, int], frames: int, fps: float) -> None:
    """Writes a clip of moving noise, so that packets aren't small."""
    noise = np.random.default_rng(0).integers(0, 256, (size[0] // 4, size[1] // 4 + 64, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size[::-1])
    for number in range(frames):
        left = number % 64
        part = noise[:, left : left + size[1] // 4]
        writer.write(cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR))
    writer.release()


def measure(path: Path, decoder: Decoder, slow_s: float) -> Memory:
    """Reads a clip with a pause at every frame, and measures memory."""
    own = psutil.Process()
    start_mib = own.memory_info().rss / MIB
    tops: list[tuple[float, float]] = []
    began = time.perf_counter()
    with read_frames(find_sources([str(path)])[0], decoder=decoder) as reader:
        for frame in reader:
            time.sleep(slow_s)
            if frame.index % 10 == 0:
                tops.append((own.memory_info().rss / MIB - start_mib, sum(resident_mib(own))))
        name, count = reader.info.decoder, frame.index + 1
    own_mib, child_mib = (max(column) for column in zip(*tops, strict=True))
    half = max(one + other for one, other in tops[: len(tops) // 2])
    return Memory(name, count, time.perf_counter() - began, own_mib, child_mib, half)


def resident_mib(process: psutil.Process) -> Iterator[float]:
    """Resident memory of each process below one."""
    for child in process.children(recursive=True):
        try:
            yield child.memory_info().rss / MIB
        except psutil.NoSuchProcess:
            continue


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the clip")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--size", default="720,1280", help="H,W")
    parser.add_argument("--slow-ms", type=float, default=5.0, help="how long the consumer takes for a frame")
    options = parser.parse_args()
    height, width = map(int, options.size.split(","))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        write_clip(path, (height, width), round(options.minutes * 60 * options.fps), options.fps)
        print(f"{width}×{height}, {options.minutes:g} min, {path.stat().st_size / MIB:.0f} MiB; MiB above the start")
        print("| decoder | frames | seconds | this process | decoder process | together, first half | together |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        decoders: tuple[Decoder, ...] = ("auto", "decord", "opencv")
        for decoder in decoders:
            try:
                seen = measure(path, decoder, options.slow_ms / 1e3)
            except SourceError as error:
                print(f"| {decoder} | {error} |")
                continue
            together = seen.own_mib + seen.child_mib
            verdict = "" if together <= LIMIT_MIB or decoder != "auto" else f" over {LIMIT_MIB}"
            print(
                f"| {decoder}: {seen.decoder} | {seen.frames} | {seen.seconds:.1f} | {seen.own_mib:.0f} "
                f"| {seen.child_mib:.0f} | {seen.half_mib:.0f} | {together:.0f}{verdict} |"
            )


if __name__ == "__main__":
    main()
