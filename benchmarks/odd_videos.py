"""Is a video read as FFmpeg reads it? `python benchmarks/odd_videos.py FOLDER…`, of any folders with videos.

Every file is read once from its start, then three frames of it alone. The table shows the frames beside those that
`ffprobe` finds in the same stream; the largest difference in time, in ticks of the stream's clock, where recordings
that were joined follow one another; the size of the upright pictures; what isn't a good frame, by cause; the largest
difference of a quarter's mean colour to `ffmpeg`'s RGB picture in any good frame; and whether the single frames were
those of the whole pass. Without these programs it shows what was read. A folder may hold a `truth.json`, which is
compared, too. Exit status 1: some file differs.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from ffmpeg_says import JUMP_S, Told, ask_ffprobe, continuous, ffmpeg_pictures, is_installed, most_frames
from numpy.typing import NDArray

from deltascene.errors import DeltasceneError
from deltascene.pipeline.sources.info import Decoder, SourceInfo
from deltascene.pipeline.sources.reader import read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Image

WORST_TICKS = 0.51
WORST_QUARTER = 4.0
_TRANSPORT = (".ts", ".mts", ".m2ts")
_SKIPPED = (".json", ".md", ".txt", ".py", ".sh")


@dataclass
class Row:
    """What was found in a file.

    Attributes:
        file: its name.
        codec: of the stream that was read, by ffprobe.
        stream: number of the stream.
        frames: as many were read.
        told: as many ffprobe finds, or truth.json names.
        ticks: largest difference in time, in ticks.
        size: of the upright pictures.
        invalid: frames that aren't good, by cause.
        notes: what the reader tells of the times.
        quarter: largest difference of a quarter's mean, of 255.
        seeks: whether frames read alone are those of the whole pass.
        wrong: what differs; empty if nothing does.
    """

    file: str
    codec: str = ""
    stream: int = -1
    frames: int = 0
    told: int | None = None
    ticks: float | None = None
    size: str = ""
    invalid: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    quarter: float | None = None
    seeks: bool | None = None
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The row of the table."""
        told = "" if self.told is None else f" / {self.told}"
        invalid = ", ".join(f"{count} {cause}" for cause, count in self.invalid.items())
        numbers = ["" if value is None else f"{value:.2f}" for value in (self.ticks, self.quarter)]
        seeks = {None: "", True: "yes", False: "no"}[self.seeks]
        cells = [self.file, self.codec, f"{self.frames}{told}", numbers[0], self.size, invalid, "; ".join(self.notes)]
        return f"| {' | '.join([*cells, numbers[1], seeks, '; '.join(self.wrong) or 'ok'])} |"


@dataclass(frozen=True)
class Read:
    """One pass over a file.

    Attributes:
        info: what is known of it.
        frames: number, sum and cause of every frame.
        means: mean colours of the quarters of every frame [2, 2, 3]; None where it has no picture.
    """

    info: SourceInfo
    frames: list[tuple[int, str, str]]
    means: list[NDArray[np.float64] | None]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="its files are read")
    parser.add_argument("--decoder", choices=("auto", "av", "decord", "opencv"), default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the frames that are read alone")
    parser.add_argument("--out", type=Path, help="also write the rows there, as JSON")
    options = parser.parse_args()
    print("| file | codec | frames | ticks | size | invalid | notes | quarter | seek = linear | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for folder in options.folders:
        truths = folder / "truth.json"
        known = json.loads(truths.read_text(encoding="utf-8")) if truths.is_file() else {}
        for path in sorted(each for each in folder.iterdir() if each.is_file() and each.suffix not in _SKIPPED):
            rows.append(judge(path, options.decoder, Random(f"{options.seed} {path.name}"), known.get(path.name)))
            print(rows[-1].line(), flush=True)
    differ = sum(bool(row.wrong) for row in rows)
    print(f"\n{len(rows)} files, {differ} differ" + ("" if is_installed() else "; ffprobe and ffmpeg aren't installed"))
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(differ > 0)


def judge(path: Path, decoder: Decoder, random: Random, truth: Mapping[str, Any] | None) -> Row:
    """Reads a file and compares it with what is known of it."""
    row = Row(path.name)
    spec = SourceSpec(path.stem, "video", (path,))
    try:
        read = _read(spec, decoder, {})
    except DeltasceneError as error:
        told = row.told = most_frames(path) if is_installed() else 0
        row.wrong = [f"refused: {str(error).replace(str(path), path.name)}"] if told or truth else []
        row.notes = [] if row.wrong else [str(error).replace(str(path), path.name)]
        return row
    info = read.info
    row.stream, row.frames, row.size = info.stream, info.frames, f"{info.width}×{info.height}"
    row.invalid = dict(Counter(cause for _, _, cause in read.frames if cause))
    row.notes = [*info.notes, *(["truncated"] if info.truncated else [])]
    alone = [read.frames[index] for index in random.sample(range(info.frames), min(3, info.frames))]
    row.seeks = all(_read(spec, decoder, {"info": info, "start_frame": at[0]}, 1).frames == [at] for at in alone)
    row.wrong += [] if row.seeks else ["a frame read alone is another"]
    row.wrong += [] if [index for index, _, _ in read.frames] == list(range(info.frames)) else ["frames out of order"]
    if is_installed():
        _compare_ffmpeg(row, path, read)
    if truth is not None:
        _compare_truth(row, read, truth)
    return row


def _read(spec: SourceSpec, decoder: Decoder, how: Mapping[str, Any], most: int | None = None) -> Read:
    end = how["start_frame"] + most if most else None
    with read_frames(spec, decoder=decoder, end_frame=end, **how) as reader:
        info, frames, means = reader.info, [], []
        for frame in reader:
            image = frame.image
            digest = "" if image is None else sha256(np.ascontiguousarray(image)).hexdigest()
            frames.append((frame.index, digest, frame.cause))
            means.append(None if image is None else quarter_means(image))
    return Read(info, frames, means)


def _compare_ffmpeg(row: Row, path: Path, read: Read) -> None:
    told, info = ask_ffprobe(path, read.info.stream), read.info
    row.codec, row.told = told.codec, len(told.ticks)
    if row.told != row.frames:
        row.wrong.append("frames")
        return
    if told.timed:
        jump = JUMP_S / told.tick_s if path.suffix in _TRANSPORT else math.inf
        _compare_times(row, continuous(told.ticks, jump) * told.tick_s, info, told)
    filters = ["bwdif=mode=send_frame:deint=interlaced"] if info.interlaced else []
    pictures = ffmpeg_pictures(path, info.stream, filters)
    for (_, _, cause), own, picture in zip(read.frames, read.means, pictures, strict=False):
        if picture.shape != (info.height, info.width, 3) and "size" not in row.wrong:
            row.wrong.append("size")
        if own is not None and not cause:
            row.quarter = max(row.quarter or 0.0, float(np.abs(own - quarter_means(picture)).max()))
    if (row.quarter or 0.0) > WORST_QUARTER:
        row.wrong.append("pictures")


def _compare_times(row: Row, seconds: NDArray[np.float64], info: SourceInfo, told: Told) -> None:
    row.ticks = float(np.abs(info.table.pts_s - seconds).max() / told.tick_s)
    joins = sum("another recording" in note for note in info.notes)
    if row.ticks > WORST_TICKS + joins:
        row.wrong.append("times")


def _compare_truth(row: Row, read: Read, truth: Mapping[str, Any]) -> None:
    info = read.info
    wrong = [key for key in ("stream", "frames", "width", "height") if getattr(info, key) != truth.get(key)]
    if "frames" not in wrong:
        ticks = np.round(np.array(truth["seconds_from_first"]) * 1e6).astype(np.int64)
        wrong += ["times"] * bool(np.abs(info.table.pts_s - continuous(ticks) * 1e-6).max() > 1 / 2000)
    for index, means in truth["quarter_means"].items():
        own = read.means[int(index)] if int(index) < len(read.means) else None
        if own is None or np.abs(own - means).max() > WORST_QUARTER:
            wrong.append(f"picture {index}")
    row.wrong += [f"truth.json: {', '.join(wrong)}"] if wrong else []
    row.told = row.told if row.told is not None else truth["frames"]


def quarter_means(image: Image) -> NDArray[np.float64]:
    """Mean colours of the four quarters of a picture [2, 2, 3]."""
    height, width = max(image.shape[0] // 2, 1), max(image.shape[1] // 2, 1)
    rows = (image[:height], image[-height:])
    return np.array([[part.mean((0, 1)) for part in (row[:, :width], row[:, -width:])] for row in rows])


if __name__ == "__main__":
    sys.exit(main())
