"""Bad files: frames that are corrupt, repeated or missing are never given as good ones; nothing hangs or lingers."""

import gc
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest

from deltascene.pipeline.errors import WorkerLost
from deltascene.pipeline.sources.decoding.by_av import decode
from deltascene.pipeline.sources.decoding.by_others import decord_name
from deltascene.pipeline.sources.decoding.container import demuxed, open_container, read_packets
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.identity import identity
from deltascene.pipeline.sources.info import Decoder
from deltascene.pipeline.sources.reader import probe, read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Frame, Image

DECODERS: list[Decoder] = ["av", "decord", "opencv"] if decord_name() else ["av", "opencv"]
FRAMES = 40
SIZE = (96, 128)


def pictures(count: int = FRAMES, still: bool = False) -> Iterator[Image]:
    noise = np.random.default_rng(5).integers(0, 256, (SIZE[0] // 4, SIZE[1] // 4 + FRAMES, 3), dtype=np.uint8)
    for number in range(count):
        left = 0 if still else number
        yield cv2.resize(noise[:, left : left + SIZE[1] // 4], SIZE[::-1], interpolation=cv2.INTER_LINEAR)


def write(path: Path, code: str, still: bool = False) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 25.0, SIZE[::-1])
    for image in pictures(still=still):
        writer.write(image)
    writer.release()
    return path


def source(path: Path) -> SourceSpec:
    (spec,) = find_sources([str(path)])
    return spec


def boxes(data: bytes) -> dict[bytes, tuple[int, int]]:
    """Outermost boxes of an MP4 file: name → start, end."""
    found, at = {}, 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        found[name] = (at, at + size)
        at += size
    return found


def moov_first(data: bytes) -> bytes:
    """An MP4 file with its index in front, as a file for streaming has it."""
    start, end = boxes(data)[b"moov"]
    moov = bytearray(data[start:end])
    at = moov.find(b"stco") + 8
    (count,) = struct.unpack(">I", moov[at : at + 4])
    offsets = struct.unpack(f">{count}I", moov[at + 4 : at + 4 + 4 * count])
    moov[at + 4 : at + 4 + 4 * count] = struct.pack(f">{count}I", *(offset + len(moov) for offset in offsets))
    first = boxes(data)[b"ftyp"][1]
    return data[:first] + bytes(moov) + data[first:start] + data[end:]


@pytest.fixture(scope="session")
def mpeg4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, a keyframe every 12, index in front."""
    path = write(tmp_path_factory.mktemp("damage") / "mpeg4.mp4", "mp4v")
    path.write_bytes(moov_first(path.read_bytes()))
    return path


@pytest.fixture(scope="session")
def good(mpeg4: Path) -> list[Frame]:
    frames = list(read_frames(source(mpeg4)))
    assert len(frames) == FRAMES
    return frames


def differs(frame: Frame, other: Frame) -> bool:
    return frame.image is None or other.image is None or not np.array_equal(frame.image, other.image)


@pytest.mark.parametrize("decoder", DECODERS)
def test_corrupt_bytes_in_the_middle(tmp_path: Path, mpeg4: Path, good: list[Frame], decoder: Decoder) -> None:
    data = bytearray(mpeg4.read_bytes())
    start, end = boxes(bytes(data))[b"mdat"]
    middle = (start + end) // 2
    data[middle : middle + 3000] = np.random.default_rng(2).integers(0, 256, 3000, dtype=np.uint8).tobytes()
    path = tmp_path / "corrupt.mp4"
    path.write_bytes(data)
    reader = read_frames(source(path), decoder=decoder)
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.pts_s for frame in frames] == [frame.pts_s for frame in good]
    wrong = {frame.index for frame in frames if differs(frame, good[frame.index])}
    marked = {frame.index for frame in frames if not frame.valid}
    assert wrong
    assert wrong <= marked
    if decoder == "av":  # the others give nothing, or lose count
        assert len(marked) <= 24  # two groups at most, and the rest is good
    assert {frame.cause for frame in frames if not frame.valid} <= {"corrupt", "missing"}
    assert reader.cause == ""


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_destroyed_picture_costs_itself(tmp_path: Path, decoder: Decoder) -> None:
    path = write(tmp_path / "a.avi", "MJPG")
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(18):
        at = data.find(b"\xff\xd8\xff", at + 1)
    data[at : at + 400] = bytes(400)
    path.write_bytes(data)
    frames = list(read_frames(source(path), decoder=decoder))
    marked = [(frame.index, frame.cause) for frame in frames if not frame.valid]
    assert len(frames) == FRAMES
    assert (17, "corrupt") in marked
    if decoder == "av":
        assert marked == [(17, "corrupt")]


def test_truncated_file_gives_the_frames_there_are(tmp_path: Path, mpeg4: Path, good: list[Frame]) -> None:
    data = mpeg4.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    reader = read_frames(source(path))
    frames = list(reader)
    assert reader.cause == "truncated"
    assert reader.info.truncated
    assert 10 < len(frames) < 30
    assert not any(frame.valid and differs(frame, good[frame.index]) for frame in frames)
    part = read_frames(source(path), end_frame=5)
    assert [frame.index for frame in part] == list(range(5))
    assert part.cause == ""


def test_lost_index_at_the_end_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "mp4v")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableSource, match=r"a\.mp4: expected .* found an MP4 file that is cut off"):
        probe(source(path))


def test_sequence(tmp_path: Path) -> None:
    for number, image in enumerate(pictures(12), start=1):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), image)
    third, fifth = tmp_path / "3.jpg", tmp_path / "5.jpg"
    third.write_bytes(third.read_bytes()[:700])
    fifth.write_bytes(b"no image")
    spec = source(tmp_path)
    (tmp_path / "7.jpg").unlink()
    reader = read_frames(spec, fps=8)
    frames = list(reader)
    causes = {frame.index: frame.cause for frame in frames if not frame.valid}
    assert causes == {2: "corrupt", 4: "corrupt", 6: "missing"}
    assert [frame.pts_s for frame in frames] == [number / 8 for number in range(12)]
    assert all((frame.image is None) == (not frame.valid) for frame in frames)
    whole = [frame for frame in frames if frame.image is not None]
    close = [np.abs(frame.image[..., ::-1].astype(int) - truth).mean() < 9 for frame, truth in zip_valid(whole)]
    assert all(close)
    assert (reader.info.width, reader.info.height, reader.info.duration_s, reader.cause) == (128, 96, 1.5, "")


def zip_valid(frames: list[Frame]) -> Iterator[tuple[Frame, Image]]:
    truth = list(pictures(12))
    return ((frame, truth[frame.index]) for frame in frames)


def test_images_that_none_can_read(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no image")
    with pytest.raises(UnreadableSource, match=r"1\.jpg: expected images that OpenCV can read"):
        probe(source(tmp_path))


def children() -> set[psutil.Process]:
    """Living children; other tests may have left some that are about to end."""
    return {child for child in psutil.Process().children() if child.is_running() and child.status() != "zombie"}


def test_reader_that_is_dropped_or_closed_leaves_no_process(mpeg4: Path) -> None:
    before = children()
    with read_frames(source(mpeg4)) as reader:
        next(reader)
        assert len(children() - before) == 1
    assert not children() - before
    assert list(reader) == []
    dropped = read_frames(source(mpeg4))
    next(dropped)
    assert len(children() - before) == 1
    del dropped
    gc.collect()
    assert not children() - before


@pytest.mark.parametrize(
    ("number", "raised", "says"),
    [
        (signal.SIGSEGV, UnreadableSource, r"the decoder died after frame \d+ \(exit -11\)"),
        (signal.SIGALRM, UnreadableSource, r"the decoder hung and was ended after frame \d+"),  # it sets it on itself
        (signal.SIGKILL, WorkerLost, r"its decoder was killed after frame \d+"),
    ],
)
def test_decoder_that_ends_by_a_signal(mpeg4: Path, number: int, raised: type[Exception], says: str) -> None:
    before = children()
    reader = read_frames(source(mpeg4))
    next(reader)
    (child,) = children() - before
    child.send_signal(number)
    with pytest.raises(raised, match=says):
        list(reader)


def test_decoder_ends_with_its_pipeline(mpeg4: Path) -> None:
    program = (
        "import sys; from deltascene.pipeline.sources.reader import read_frames; import psutil, os;"
        "from deltascene.pipeline.sources.find import find_sources;"
        "reader = read_frames(find_sources(sys.argv[1:])[0]); next(reader);"
        "print(psutil.Process().children()[0].pid, flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(mpeg4)], capture_output=True, check=False)
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "decoder", [each if each == "av" else pytest.param(each, marks=pytest.mark.nightly) for each in DECODERS]
)
def test_memory_does_not_grow_with_the_clip(tmp_path: Path, decoder: Decoder) -> None:
    size, count = (360, 640), 1_200
    path = tmp_path / "long.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, size[::-1])
    image = np.zeros((*size, 3), dtype=np.uint8)
    for number in range(count):
        image[:, number % 600 : number % 600 + 40] = number % 256
        writer.write(image)
    writer.release()
    own, before = psutil.Process(), children()
    start, tops = own.memory_info().rss, []
    with read_frames(source(path), decoder=decoder) as reader:
        for frame in reader:
            if frame.index % 25 == 20:
                time.sleep(0.02)  # slow enough for a decoder to run ahead
                tops.append(own.memory_info().rss - start + sum(each.memory_info().rss for each in children() - before))
    assert len(tops) == count // 25
    decoded = count * image.nbytes
    assert max(tops) < 400e6 < decoded / 2
    if decoder != "decord":  # decord's pools fill when its threads happen to run ahead: bounded, but not at once
        assert max(tops[10:]) < max(tops[:10]) + 20e6
    if decoder == "av":  # without collecting PyAV's cycles 117 MB, with it 62 MB
        assert max(tops) < 90e6


def test_what_is_no_file_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # nobody writes: opening it would wait for ever
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    for name, found in (("pipe", "a pipe"), ("zero", "a device"), ("folder", "a folder")):
        spec = SourceSpec(name, "video", (tmp_path / f"{name}.mp4",))
        for look in (probe, identity):
            with pytest.raises(UnreadableSource, match=rf"{name}\.mp4: expected a file, found {found}"):
                look(spec)


def test_pipes_among_images_are_missing_frames(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    cv2.imwrite(str(paths[0]), np.zeros((*SIZE, 3), np.uint8))
    os.mkfifo(paths[1])
    paths[2].symlink_to("/dev/zero")
    frames = list(read_frames(SourceSpec("s", "sequence", tuple(paths))))
    assert [frame.cause for frame in frames] == ["", "missing", "missing"]


def test_pictures_that_would_take_gigabytes_are_refused(tmp_path: Path) -> None:
    rows = zlib.compress(bytes(2501 * 20000), 9)
    head = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(UnreadableSource, match=r"bomb\.png"):
        probe(source(tmp_path / "bomb.png"))
    (tmp_path / "wide.y4m").write_bytes(b"YUV4MPEG2 W16000 H16000 F10:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(9999))
    with pytest.raises(UnreadableSource, match=r"wide\.y4m"):
        probe(source(tmp_path / "wide.y4m"))


def test_decoder_that_hangs_is_ended_by_its_alarm() -> None:
    name = "deltascene.pipeline.sources.decoding.__main__"
    program = f"from {name} import _end_after; import time; _end_after(0.1); time.sleep(20)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGALRM


def test_what_comes_before_a_place_that_cannot_be_read_is_kept(mpeg4: Path) -> None:
    class BreaksOff:
        """An open file whose disk fails after five packets."""

        def __init__(self, container: Any) -> None:
            self.streams, self.format, self._container = container.streams, container.format, container

        def demux(self, *streams: Any) -> Iterator[Any]:
            yield from islice(self._container.demux(*streams), 5)
            raise av.error.OSError(5, "Input/output error")

    with open_container(mpeg4) as container:
        stream = container.streams.video[0]
        numbers = [number for number, _ in decode(stream, demuxed(BreaksOff(container), stream), 0)]
    assert numbers == list(range(5))
    with open_container(mpeg4) as container:
        _, packets = read_packets(mpeg4, BreaksOff(container))
        assert (len(packets.pts), packets.broke_off) == (5, True)
