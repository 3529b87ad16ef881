"""Videos as PyAV writes them, of any codec, group of pictures, rate, start and container: what was written is read.

Every picture shows its own number, so that a frame tells which one it is.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltascene.pipeline.sources.decoding.by_av import av_pictures
from deltascene.pipeline.sources.decoding.container import demuxed, open_container, starts_afresh
from deltascene.pipeline.sources.decoding.probe import examine
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.info import SourceInfo
from deltascene.stages.types import Image

BITS, CELL = 7, 16
CONTAINERS = {
    "libx264": ("mp4", "mkv", "mov", "ts", "flv"),
    "libx265": ("mp4", "mkv", "ts"),
    "libvpx": ("webm", "mkv"),
    "libvpx-vp9": ("webm", "mkv", "mp4"),
    "mpeg4": ("mp4", "mkv", "avi", "ts"),
    "mpeg2video": ("ts", "mpg", "mkv"),
    "mjpeg": ("avi", "mov", "mkv"),
    "ffv1": ("mkv", "avi"),
    "libsvtav1": ("webm", "mp4"),
}
QUIET = {
    "libx265": {"x265-params": "log-level=none"},
    "libsvtav1": {"preset": "8", "crf": "10", "svtav1-params": "lp=1"},
}
KEYED = {"mjpeg", "ffv1"}
REORDERS = {"libx264", "libx265", "mpeg4", "mpeg2video"}


@dataclass(frozen=True)
class Made:
    """How a video is made.

    Attributes:
        codec: name of FFmpeg's encoder.
        container: suffix of the file.
        frames: number of pictures.
        group: longest distance between keyframes.
        b_frames: most B-frames in a row.
        rate: frames per second.
        start: number of frames by which its clock starts late.
        cut: number of packets that are left out at the start.
    """

    codec: str
    container: str
    frames: int
    group: int
    b_frames: int
    rate: Fraction
    start: int
    cut: int


@st.composite
def made(draw: st.DrawFn) -> Made:
    codec = draw(st.sampled_from([name for name in CONTAINERS if name in av.codecs_available]))
    frames = draw(st.integers(6, 60))  # FFmpeg takes a shorter transport stream for something else
    container = draw(st.sampled_from(CONTAINERS[codec]))
    return Made(
        codec,
        container,
        frames,
        1 if codec in KEYED else draw(st.sampled_from([1, 5, 12, 30])),
        draw(st.integers(0, 3)) if codec in REORDERS else 0,
        draw(st.sampled_from([Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(50)])),
        *((0, 0) if container == "avi" else (draw(st.integers(0, 40)), draw(st.integers(0, frames - 4)))),
    )


def numbered(number: int) -> Image:
    image = np.full((96, 160, 3), 96, dtype=np.uint8)
    image[60:90, :, number % 3] = np.linspace(0, 255, 160, dtype=np.uint8)
    for bit in range(BITS):
        image[8 : 8 + 2 * CELL, 8 + bit * 20 : 8 + bit * 20 + CELL] = 235 * (number >> bit & 1)
    return image


def number_in(image: Image) -> int:
    return sum((image[16:32, 12 + bit * 20 : 20 + bit * 20].mean() > 127) << bit for bit in range(BITS))


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """SVT-AV1, run by root, leaves its caller with real-time priority: it and its children would starve all others."""
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@usual_scheduling()
def write(path: Path, how: Made) -> list[tuple[bool, int]]:
    """Writes a video; returns of every packet that the encoder made whether it is a keyframe, and its picture."""
    packets = []
    with av.open(str(path), "w") as file:
        stream = file.add_stream(how.codec, rate=how.rate, options=QUIET.get(how.codec, {}))
        stream.width, stream.height = 160, 96
        stream.pix_fmt = "yuvj420p" if how.codec == "mjpeg" else "yuv420p"
        stream.gop_size = how.group
        if how.codec != "libsvtav1":
            stream.bit_rate = 2_000_000
        if how.codec in REORDERS:
            stream.codec_context.max_b_frames = how.b_frames
        stream.time_base = 1 / how.rate
        for number in range(how.frames):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number + how.start, 1 / how.rate
            packets += stream.encode(frame)
        packets += stream.encode(None)
        clock = packets[0].time_base
        about = [(packet.is_keyframe, round(packet.pts * clock * how.rate) - how.start) for packet in packets]
        for packet in packets[how.cut :]:
            file.mux(packet)
    return about


def read(path: Path, info: SourceInfo, wanted: range) -> list[tuple[int, Image | None, str]]:
    return list(av_pictures(path, info, wanted))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made())
def test_what_was_written_is_read(tmp_path: Path, how: Made) -> None:
    path = tmp_path / f"clip.{how.container}"
    about = write(path, how)
    left = about[how.cut :]
    first_key = next((at for at, (key, _) in enumerate(left) if key), None)
    if first_key is None:  # nothing can be told of it
        with suppress(UnreadableSource):
            examine(path, lambda: None)
        return
    info = examine(path, lambda: None)
    frames = read(path, info, range(info.frames))
    assert [index for index, _, _ in frames] == list(range(info.frames))
    shown = [(index, number_in(image)) for index, image, cause in frames if image is not None and not cause]
    places = np.array([info.table.pts_s[index] * float(how.rate) for index, _ in shown])
    numbers = np.array([number for _, number in shown])
    assert np.abs(places - places[0] - numbers + numbers[0]).max() < 0.1  # as far apart as their times
    whole = {number for at, (_, number) in enumerate(left) if at >= first_key and number >= left[first_key][1]}
    assert whole <= {number for _, number in shown}
    assert len(frames) <= len(left)
    assert np.all(np.diff(info.table.pts_s) > 0)
    for start in {0, info.frames // 2, info.frames - 1}:
        part = read(path, info, range(start, info.frames))
        for one, other in zip(part, frames[start:], strict=True):
            assert one[::2] == other[::2]
            assert np.array_equal(one[1], other[1]) if one[1] is not None else other[1] is None


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_raw_stream_is_timed_by_its_rate(tmp_path: Path, codec: str) -> None:
    path = tmp_path / ("clip.h264" if codec == "libx264" else "clip.hevc")
    write(path, Made(codec, path.suffix, 20, 8, 2, Fraction(25), 0, 0))
    info = examine(path, lambda: None)
    frames = read(path, info, range(info.frames))
    assert [number_in(image) for _, image, cause in frames if image is not None and not cause] == list(range(20))
    assert info.table.pts_s.tolist() == pytest.approx(np.arange(20) / 25)
    assert not info.truncated
    part = read(path, info, range(13, 15))
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(part, frames[13:15], strict=True))


@pytest.mark.parametrize("lost", [1, 2])
def test_what_stands_in_for_lost_packets_does_not_depend_on_where_reading_began(tmp_path: Path, lost: int) -> None:
    """H.264 without every seventh packet; FFmpeg reports nothing, and takes a picture that was decoded before."""
    path, noise = tmp_path / "clip.mkv", np.random.default_rng(1).integers(0, 256, (24, 80, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (640, 192), interpolation=cv2.INTER_CUBIC)
    options = {"x264-params": "keyint=12:min-keyint=12:bframes=3:scenecut=0"}
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        packets = []
        for number in range(60):
            image = texture[:96, 3 * number : 3 * number + 160].copy()
            left = 5 * number % 140
            image[40:60, left : left + 20] = (255, 0, 4 * number)
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        for at, packet in enumerate([*packets, *stream.encode(None)]):
            if at <= 5 or at % 7 != lost:
                file.mux(packet)
    info = examine(path, lambda: None)
    for one in read(path, info, range(info.frames)):
        (alone,) = read(path, info, range(one[0], one[0] + 1))
        assert one[::2] == alone[::2]
        assert np.array_equal(one[1], alone[1]) if one[1] is not None else alone[1] is None


@pytest.mark.parametrize("container", ["mp4", "ts"])
@pytest.mark.parametrize(("codec", "begins"), [("libx264", [0, 10, 20]), ("libx265", [0])])  # x265's groups are open
def test_packets_with_which_a_decoder_begins_afresh(
    tmp_path: Path, codec: str, begins: list[int], container: str
) -> None:
    path = tmp_path / f"clip.{container}"
    write(path, Made(codec, container, 30, 10, 2, Fraction(25), 0, 0))
    with open_container(path) as file:
        packets = list(demuxed(file, file.streams.video[0]))
        assert [at for at, packet in enumerate(packets) if starts_afresh(packet)] == begins


def remux(path: Path, kept: Callable[[int, bool], bool], container: str) -> Path:
    """A copy of some packets, by their number and whether they are keyframes."""
    target = path.with_name(f"part.{container}")
    with av.open(str(path)) as file, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(file.streams.video[0])
        for number, packet in enumerate(demuxed(file, file.streams.video[0])):
            if kept(number, packet.is_keyframe):
                packet.stream = stream
                out.mux(packet)
    return target


def assert_parts_are_one_pass(path: Path, info: SourceInfo) -> None:
    for threads in (1, 2, 4):
        pictures = list(av_pictures(path, info, range(info.frames), threads=threads))
        for index in range(0, info.frames, 3):
            for one, other in zip(read(path, info, range(index, index + 2)), pictures[index : index + 2], strict=False):
                assert one[::2] == other[::2], (threads, index)
                assert np.array_equal(one[1], other[1]) if one[1] is not None else other[1] is None


@pytest.mark.parametrize("container", ["mkv", "mp4", "ts", "flv"])
def test_after_a_lost_keyframe_pictures_keep_their_times(tmp_path: Path, container: str) -> None:
    """FFmpeg gives the picture after the hole before some that come before it."""
    path = tmp_path / "clip.mkv"
    about = write(path, Made("libx264", "mkv", 60, 20, 2, Fraction(25), 0, 0))
    assert about[20][0]
    part = remux(path, lambda number, _: number != 20, container)
    info = examine(part, lambda: None)
    for index, image, cause in read(part, info, range(info.frames)):
        if image is not None and not cause and not 20 <= info.table.pts_s[index] * 25 < 41:
            assert number_in(image) == round(info.table.pts_s[index] * 25)
    assert_parts_are_one_pass(part, info)


def test_avi_has_the_times_of_decoding(tmp_path: Path) -> None:
    """Of H.264 with B-frames, which others than we put into AVI; the last frame is as long as all."""
    avi = tmp_path / "clip.avi"
    write(avi, Made("libx264", "avi", 60, 20, 2, Fraction(25), 0, 0))
    info = examine(avi, lambda: None)
    assert info.table.pts_s.tolist() == pytest.approx(np.arange(60) / 25)
    assert [number_in(image) for _, image, _ in read(avi, info, range(60)) if image is not None] == list(range(60))
    assert not info.truncated


def test_leading_pictures_of_a_recording_that_starts_mid_group_are_not_taken_for_good(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    write(path, Made("mpeg4", "avi", 60, 12, 2, Fraction(25), 0, 0))
    part = remux(path, lambda number, _: number >= 5, "avi")
    info = examine(part, lambda: None)
    assert len(set(info.table.packets.tolist())) == info.frames
    good = [
        number_in(image) for _, image, cause in read(part, info, range(info.frames)) if not cause and image is not None
    ]
    assert good == list(range(12, 60))


def test_a_palette_that_stands_in_the_first_packet_is_there_after_a_seek(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "pal8"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(format="rgb8")
            grey = frame.reformat(format="gray").to_ndarray()
            palette = np.stack([np.full(256, 255), np.arange(256), 255 - np.arange(256), np.arange(256) // 2], axis=1)
            for packet in stream.encode(av.VideoFrame.from_ndarray((grey, palette.astype(np.uint8)), format="pal8")):
                file.mux(packet)
    info = examine(path, lambda: None)
    assert info.frames == 20
    assert_parts_are_one_pass(path, info)


@pytest.mark.parametrize("matrix", [8, 10])
def test_matrices_that_cannot_be_converted_are_taken_as_the_ffmpeg_program_took_them(
    tmp_path: Path, matrix: int
) -> None:
    """YCgCo, and BT.2020 with constant luminance: near enough to see what is in the picture."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.colorspace = matrix
        for number in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        file.mux(stream.encode(None))
    info = examine(path, lambda: None)
    frames = read(path, info, range(info.frames))
    assert [(number_in(image), cause) for _, image, cause in frames if image is not None] == [(n, "") for n in range(5)]


def test_fields_that_begin_later_are_found(tmp_path: Path) -> None:
    """A channel that goes from progressive to interlaced: every picture is one again, and the same in parts."""
    joined = tmp_path / "joined.ts"
    for part, flags in (("clip", ""), ("fields", "+ildct+ilme")):
        path = tmp_path / f"{part}.ts"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg2video", rate=25, options={"flags": flags} if flags else {})
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 10
            stream.bit_rate = 2_000_000
            for number in range(30):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
            file.mux(stream.encode(None))
        assert examine(path, lambda: None).interlaced == bool(flags)
        with joined.open("ab") as file:
            file.write(path.read_bytes())
    info = examine(joined, lambda: None)
    assert info.frames == 60
    fields = {number: image for number, image, _ in read(joined, info, range(60)) if number in (29, 45)}
    raw = {
        number: frame.to_ndarray(format="rgb24") for number, frame in enumerate(av.open(str(joined)).decode(video=0))
    }
    assert np.array_equal(fields[29], raw[29])
    assert not np.array_equal(fields[45], raw[45])
    assert_parts_are_one_pass(joined, info)


def edited(path: Path, edits: list[tuple[int, int]]) -> Path:
    """A copy of an MP4 file whose edit list shows these parts, as lengths and starts in units of both clocks."""
    data = path.read_bytes()
    at = data.index(b"elst") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    entries = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in edits)
    made = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    out = bytearray(data[:at] + made + data[at + size :])
    for name in (b"edts", b"trak", b"moov"):
        box = out.index(name) - 4
        out[box : box + 4] = struct.pack(">I", int.from_bytes(out[box : box + 4], "big") + len(made) - size)
    target = path.with_name("edited.mp4")
    target.write_bytes(out)
    return target


@pytest.mark.parametrize("parts", [((0, 10), (30, 10)), ((30, 10), (0, 10)), ((10, 10), (10, 10))])
def test_the_parts_that_an_edit_list_shows_are_one_recording(
    tmp_path: Path, parts: tuple[tuple[int, int], ...]
) -> None:
    path = tmp_path / "clip.mp4"
    write(path, Made("libx264", "mp4", 60, 10, 0, Fraction(25), 0, 0))
    with av.open(str(path)) as file:
        tick = round(1 / (25 * file.streams.video[0].time_base))
    shown = edited(path, [(count * 40, first * tick) for first, count in parts])
    info = examine(shown, lambda: None)
    wanted = [number for first, count in parts for number in range(first, first + count)]
    assert [number_in(image) for _, image, cause in read(shown, info, range(info.frames)) if not cause] == wanted
    assert info.table.pts_s.tolist() == pytest.approx(np.arange(20) / 25)
    assert info.notes == ()
    assert_parts_are_one_pass(shown, info)


def test_fields_that_begin_later_in_one_recording_are_found(tmp_path: Path) -> None:
    """The same in one stream of packets, which can be sought in."""
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as file:
        out = None
        for part, flags in enumerate(({}, {"flags": "+ildct+ilme"})):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.gop_size = 160, 96, "yuv420p", 10
            encoder.bit_rate, encoder.time_base, encoder.framerate, encoder.options = (
                2_000_000,
                Fraction(1, 25),
                25,
                flags,
            )
            packets = [
                packet
                for n in range(40)
                for packet in encoder.encode(
                    av.VideoFrame.from_ndarray(numbered(n), format="rgb24").reformat(format="yuv420p")
                )
            ]
            out = out or file.add_stream("mpeg2video", rate=25)
            if not part:
                out.width, out.height, out.pix_fmt = 160, 96, "yuv420p"
            for number, packet in enumerate([*packets, *encoder.encode(None)]):
                packet.pts = packet.dts = 40 * part + number
                packet.stream, packet.time_base = out, Fraction(1, 25)
                file.mux(packet)
    info = examine(path, lambda: None)
    assert (info.frames, info.table.seekable, info.interlaced) == (80, True, True)
    assert_parts_are_one_pass(path, info)


def test_a_container_that_has_times_of_decoding_for_those_of_presentation(tmp_path: Path) -> None:
    """ASF: pictures come in the order of the decoder, and share the times in their order."""
    path = tmp_path / "clip.asf"
    write(path, Made("libx264", "asf", 50, 15, 3, Fraction(25), 0, 0))
    info = examine(path, lambda: None)
    frames = read(path, info, range(info.frames))
    assert [number_in(image) for _, image, cause in frames if image is not None and not cause] == list(range(50))
    assert_parts_are_one_pass(path, info)
