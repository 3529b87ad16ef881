"""How much of the damage in videos is flagged: `python benchmarks/decode_damage.py`, on files with flipped bytes.

Clips of moving textures are damaged behind their headers, in several styles, and read; every frame is compared with
the undamaged one of the same time. Of the frames that differ by more than 8 of 255 in the mean, the share is counted
that is flagged or absent; of those that differ by less than 0.5, in groups of pictures without damaged bytes, the
share that is flagged although nothing is wrong with it. Gates (H.264 and HEVC): at least 80 % and at most 5 %. Exit
status 1: one is missed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import av
import numpy as np
from decode_cost import moving

from deltascene.errors import DeltasceneError
from deltascene.pipeline.sources.reader import read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Image

FOUND, FALSE = 0.80, 0.05
SEEN, SAME = 8.0, 0.5
GOP = 25
STYLES = ("one byte", "a few bytes", "random run", "zeros", "lost packets")


@dataclass(frozen=True)
class Kind:
    """A codec in a container.

    Attributes:
        encoder: PyAV's name of the encoder.
        suffix: of the container.
        settings: of the encoder.
        gated: whether the gates are meant for it.
    """

    encoder: str
    suffix: str
    settings: Mapping[str, str]
    gated: bool = False


_X265 = "log-level=none:keyint=25:min-keyint=25:scenecut=0"
KINDS = {
    "H.264 mp4": Kind("libx264", "mp4", {"preset": "fast"}, gated=True),
    "H.264 ts": Kind("libx264", "ts", {"preset": "fast"}, gated=True),
    "H.264 4 slices": Kind("libx264", "mp4", {"preset": "fast", "x264-params": "slices=4"}, gated=True),
    "H.264 CAVLC": Kind("libx264", "mp4", {"preset": "fast", "profile": "baseline"}, gated=True),
    "HEVC mp4": Kind("libx265", "mp4", {"x265-params": _X265}, gated=True),
    "HEVC ts": Kind("libx265", "ts", {"x265-params": _X265}, gated=True),
    "HEVC no wpp": Kind("libx265", "mp4", {"x265-params": f"{_X265}:wpp=0"}),
    "HEVC 4 slices": Kind("libx265", "mp4", {"x265-params": f"{_X265}:slices=4"}),
    "HEVC hash": Kind("libx265", "mp4", {"x265-params": f"{_X265}:hash=1"}),
    "VP8 webm": Kind("libvpx", "webm", {"b": "800k", "deadline": "realtime", "cpu-used": "8"}),
    "VP9 webm": Kind("libvpx-vp9", "webm", {"b": "800k", "deadline": "realtime", "cpu-used": "8"}),
    "MPEG-4 mp4": Kind("mpeg4", "mp4", {"b": "1500k"}),
    "MPEG-4 avi": Kind("mpeg4", "avi", {"b": "1500k"}),
    "MJPEG avi": Kind("mjpeg", "avi", {"b": "4000k"}),
}


@dataclass
class Count:
    """Frames of all trials of a kind in a style.

    Attributes:
        kind: codec and container.
        style: of damage.
        trials: files.
        refused: files that couldn't be opened any more.
        seen: frames that differ.
        flagged: of these, flagged or absent.
        same: frames that don't differ, in groups of pictures without damage.
        falsely: of these, flagged or absent.
    """

    kind: str
    style: str
    trials: int = 0
    refused: int = 0
    seen: int = 0
    flagged: int = 0
    same: int = 0
    falsely: int = 0

    def line(self) -> str:
        """The row of the table."""
        found = f"{self.flagged / self.seen:.0%}" if self.seen else ""
        false = f"{self.falsely / self.same:.1%}" if self.same else ""
        return (
            f"| {self.kind} | {self.style} | {self.trials} | {self.refused} | {self.seen} | {found} "
            f"| {self.same} | {false} |"
        )


@dataclass(frozen=True)
class Clip:
    """A file without damage.

    Attributes:
        path: the file.
        pictures: its frames [H, W, 3].
        times: of these in seconds.
        groups: number of the group of pictures that each is shown in.
        packets: first byte, size and group of pictures of each packet of video.
    """

    path: Path
    pictures: list[Image]
    times: list[float]
    groups: list[int]
    packets: list[tuple[int, int, int]]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8, help="files a kind and style")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--frames", type=int, default=100, help="of a clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the counts there, as JSON")
    options = parser.parse_args()
    print("| kind | damage | files | refused | frames that differ | flagged | in whole groups | flagged |")
    print("|---|---|---|---|---|---|---|---|")
    counts, missed = [], False
    for kind in options.kinds:
        rows = list(judge(kind, options.frames, options.trials, options.seed))
        rows.append(total(kind, rows))
        counts += rows
        for row in rows:
            print(row.line(), flush=True)
        whole = rows[-1]
        low, high = whole.flagged < FOUND * whole.seen, whole.falsely > FALSE * whole.same
        missed |= KINDS[kind].gated and (low or high)
    if options.out:
        options.out.write_text(json.dumps([asdict(count) for count in counts], indent=1) + "\n", encoding="utf-8")
    return int(missed)


def judge(kind: str, frames: int, trials: int, seed: int) -> Iterator[Count]:
    """Damages and reads a clip of a kind, in every style."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / f"whole.{KINDS[kind].suffix}", KINDS[kind], frames)
        for style in STYLES:
            if style == "lost packets" and KINDS[kind].suffix != "ts":
                continue
            count = Count(kind, style)
            for trial in range(trials):
                data, groups = damaged(clip, style, Random(f"{seed} {kind} {style} {trial}"))
                path = Path(folder) / f"damaged.{KINDS[kind].suffix}"
                path.write_bytes(data)
                add(count, clip, groups, path)
            yield count


def total(kind: str, rows: Sequence[Count]) -> Count:
    """The sum of several counts."""
    numbers = ("trials", "refused", "seen", "flagged", "same", "falsely")
    return Count(kind, "all", **{name: sum(getattr(row, name) for row in rows) for name in numbers})


def write_clip(path: Path, kind: Kind, frames: int) -> Clip:
    """Writes a clip with a keyframe every second, and reads it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.encoder, rate=GOP, options=dict(kind.settings))
        stream.width, stream.height, stream.gop_size = 320, 240, GOP
        stream.pix_fmt = "yuvj420p" if kind.encoder == "mjpeg" else "yuv420p"
        if "b" in kind.settings:
            stream.bit_rate = 1000 * int(kind.settings["b"].removesuffix("k"))
        for image in moving((320, 240), frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    pictures, times = [], []
    reader = read_frames(SourceSpec("whole", "video", (path,)))
    for frame in reader:
        assert frame.image is not None
        assert not frame.cause
        pictures.append(frame.image)
        times.append(frame.pts_s)
    groups = [reader.info.table.group_of(index) for index in range(len(times))]
    return Clip(path, pictures, times, groups, list(_packets(path)))


def _packets(path: Path) -> Iterator[tuple[int, int, int]]:
    group = -1
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                group += packet.is_keyframe
                yield int(packet.pos), packet.size, group


def damaged(clip: Clip, style: str, random: Random) -> tuple[bytes, set[int]]:
    """Bytes of a file with damage in two places, and the groups of pictures that it lies in."""
    data = bytearray(clip.path.read_bytes())
    groups = set()
    lost: list[int] = []
    for _ in range(2):
        pos, size, group = random.choice(clip.packets)
        groups.add(group)
        if style == "lost packets":
            lost += [(pos // 188 + number) * 188 for number in range(random.choice((1, 2, 4)))]
            continue
        own = min(size, len(data) - pos)
        start = pos + random.randrange(min(own - 1, 16), own)
        length = {"one byte": 1, "a few bytes": 1, "random run": 64, "zeros": 64}[style]
        ends = min(start + length, pos + own)
        for at in (start,) if style == "one byte" else _spread(style, start, pos + own, random) or range(start, ends):
            data[at] = 0 if style == "zeros" else data[at] ^ random.randrange(1, 256)
    for at in sorted(set(lost), reverse=True):
        del data[at : at + 188]
    return bytes(data), groups


def _spread(style: str, start: int, end: int, random: Random) -> list[int]:
    return [random.randrange(start, end) for _ in range(5)] if style == "a few bytes" else []


def add(count: Count, clip: Clip, groups: set[int], path: Path) -> None:
    """Reads a damaged file and counts its frames."""
    count.trials += 1
    found: dict[int, tuple[str, Image | None]] = {}
    try:
        with read_frames(SourceSpec("damaged", "video", (path,))) as reader:
            for frame in reader:
                found[round(frame.pts_s * GOP)] = (frame.cause, frame.image)
    except DeltasceneError:
        count.refused += 1
        return
    for seconds, group, whole in zip(clip.times, clip.groups, clip.pictures, strict=True):
        cause, image = found.get(round(seconds * GOP), ("absent", None))
        unlike = SEEN + 1 if image is None else float(np.abs(image.astype(np.int16) - whole).mean())
        touched = bool(groups & {group, group + 1})  # what is decoded after a keyframe may be shown before it
        if unlike > SEEN and not (image is None and not touched):
            count.seen += 1
            count.flagged += bool(cause)
        elif not touched and (unlike < SAME or image is None):
            count.same += 1
            count.falsely += bool(cause)


if __name__ == "__main__":
    sys.exit(main())
