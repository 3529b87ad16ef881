"""CPU time of decoding a video to RGB, by the package's reader and by OpenCV: `python benchmarks/decode_cost.py`.

Moving textures with noise are written as H.264 and MPEG-4 in two sizes. Every round decodes each clip once with each
reader, one after the other, in turn; the time is that of all threads of this process, so that other programs beside it
change little. Ours is what the decoder process does for every frame (decode, judge, convert); OpenCV's is `read` and
BGR to RGB. Gate: ours is at most 1.3 times OpenCV's in the median of the rounds. Exit status 1: it isn't.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import av
import cv2
import numpy as np

from deltascene.pipeline.sources.decoding.by_av import av_name, av_pictures
from deltascene.pipeline.sources.decoding.probe import examine
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.pipeline.versions import cpu_name
from deltascene.stages.types import Image

GATE, AIM = 1.3, 1.1
CODECS = {"H.264": ("libx264", {"preset": "medium", "crf": "23"}), "MPEG-4": ("mpeg4", {"qscale": "4"})}
SIZES = ((640, 480), (1920, 1080))
THREADS = (1, 2)


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds a frame of one clip, medians of the rounds.

    Attributes:
        codec: of the clip.
        size: width and height.
        threads: decoding threads.
        ours: of the package's reader.
        opencv: of OpenCV.
        ratio: median of the rounds' ratios.
    """

    codec: str
    size: tuple[int, int]
    threads: int
    ours: float
    opencv: float
    ratio: float


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=150, help="of a clip")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="also write the numbers there, as JSON")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{cpu_name()}; {av_name()}, OpenCV {cv2.__version__}; {options.frames} frames, {options.rounds} rounds\n")
    print("| codec | size | threads | ours, CPU ms a frame | OpenCV | ratio |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        clips = {}
        for codec, size in product(CODECS, SIZES):
            path = clips[codec, size] = Path(folder) / f"{codec}-{size[1]}.mp4"
            write_clip(path, codec, size, options.frames)
        costs = measure(clips, options.frames, options.rounds)
    for cost in costs:
        width, height = cost.size
        verdict = " over the gate" if cost.ratio > GATE else " over the aim" if cost.ratio > AIM else ""
        print(
            f"| {cost.codec} | {width}×{height} | {cost.threads} | {cost.ours:.2f} | {cost.opencv:.2f} "
            f"| {cost.ratio:.2f}{verdict} |"
        )
    if options.out:
        options.out.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n", encoding="utf-8")
    return int(any(cost.ratio > GATE for cost in costs))


def measure(clips: dict[tuple[str, tuple[int, int]], Path], frames: int, rounds: int) -> list[Cost]:
    """Decodes every clip with each reader and number of threads, in turn."""
    seen: dict[tuple[str, tuple[int, int], int], list[tuple[float, float]]] = {}
    infos = {path: examine(path, lambda: None) for path in clips.values()}
    for number in range(rounds + 1):  # the first warms up
        for ((codec, size), path), threads in product(clips.items(), THREADS):
            readers: dict[str, Callable[[], int]] = {
                "ours": lambda path=path, threads=threads: read_ours(path, infos[path], threads),  # type: ignore[misc]
                "opencv": lambda path=path, threads=threads: read_opencv(path, threads),  # type: ignore[misc]
            }
            order = list(readers) if number % 2 else list(reversed(readers))
            ms = {name: cpu_ms(readers[name], frames) for name in order}
            if number:
                seen.setdefault((codec, size, threads), []).append((ms["ours"], ms["opencv"]))
    return [
        Cost(*key, *map(statistics.median, zip(*pairs, strict=True)), statistics.median(a / b for a, b in pairs))
        for key, pairs in seen.items()
    ]


def cpu_ms(read: Callable[[], int], frames: int) -> float:
    """CPU milliseconds a frame of all threads of this process."""
    began = time.process_time()
    assert read() == frames
    return (time.process_time() - began) * 1e3 / frames


def read_ours(path: Path, info: SourceInfo, threads: int) -> int:
    """Decodes all frames as the decoder process does."""
    return sum(image is not None for _, image, _ in av_pictures(path, info, range(info.frames), threads=threads))


def read_opencv(path: Path, threads: int) -> int:
    """Decodes all frames with OpenCV."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    count = 0
    while True:
        read, image = capture.read()
        if not read:
            capture.release()
            return count
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
        count += 1


def write_clip(path: Path, codec: str, size: tuple[int, int], frames: int) -> None:
    """Writes a clip of textures that move before another, with noise as a camera has it."""
    name, settings = CODECS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=30, options=settings)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if codec == "MPEG-4":
            stream.codec_context.qmin = stream.codec_context.qmax = 4
        for image in moving(size, frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())


def moving(size: tuple[int, int], frames: int) -> Iterator[Image]:
    """Pictures of a room-like scene: a panned background, three textured squares on their own ways, noise."""
    width, height = size
    random = np.random.default_rng(0)
    background = texture(random, (height + 64, width + 2 * frames + 64))
    side = height // 4
    squares = [texture(random, (side, side)) for _ in range(3)]
    grains = random.normal(0, 3, (8, height, width, 1)).astype(np.int16)
    for number in range(frames):
        left, top = number, 16 + round(12 * np.sin(number / 15))
        image = background[top : top + height, left : left + width].copy()
        for place, square in enumerate(squares):
            x = round((width - side) * (0.5 + 0.5 * np.sin(number / (17 + 6 * place) + place)))
            y = round((height - side) * (0.5 + 0.5 * np.cos(number / (23 - 4 * place) + place)))
            image[y : y + side, x : x + side] = square
        yield np.clip(image + grains[number % 8], 0, 255).astype(np.uint8)


def texture(random: np.random.Generator, shape: tuple[int, int]) -> Image:
    """Blurred noise of three scales [H, W, 3]."""
    height, width = shape
    layers = []
    for cell, share in ((64, 0.6), (12, 0.3), (3, 0.1)):
        coarse = random.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        layers.append(share * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32))
    return np.clip(sum(layers[1:], layers[0]), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
