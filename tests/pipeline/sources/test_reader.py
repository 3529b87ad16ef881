"""Good files: both decoders, numbers, times, seeking, rotation, and what is known before decoding."""

import math
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deltascene.pipeline.sources.decoding.by_others import decord_name
from deltascene.pipeline.sources.errors import SourceNotFound, UnreadableSource
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.identity import identity
from deltascene.pipeline.sources.info import Decoder
from deltascene.pipeline.sources.reader import probe, read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Frame, Image

OPENCV_DOC = Path("/usr/share/doc/opencv-doc/examples/data")
DECODERS: list[Decoder] = ["av", "decord", "opencv"] if decord_name() else ["av", "opencv"]
ODD_VIDEOS = Path(__file__).parents[2] / "data" / "odd_videos"
BITS = 6  # a frame's number is drawn into it as black and white stripes

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg command")
needs_decord = pytest.mark.skipif(not decord_name(), reason="no decord")


def pictures(count: int, size: tuple[int, int]) -> Iterator[Image]:
    ramp = np.linspace(0, 255, size[1]).astype(np.uint8)
    for number in range(count):
        image = np.stack([np.tile(ramp, (size[0], 1))] * 3, axis=2)
        image[: size[0] // 2] //= 2
        image[size[0] // 2 :, :, number % 3] = 255 - ramp
        for bit in range(BITS):
            width = size[1] // BITS
            image[4:28, bit * width : (bit + 1) * width] = 255 * (number >> bit & 1)
        yield image


def number_in(image: Image) -> int:
    width = image.shape[1] // BITS
    middles = [image[10:20, bit * width + width // 4 : (bit + 1) * width - width // 4].mean() for bit in range(BITS)]
    return sum((middle > 127) << bit for bit, middle in enumerate(middles))


def write(path: Path, code: str, count: int, fps: float = 25.0, size: tuple[int, int] = (96, 128)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, size[::-1])
    assert writer.isOpened()
    for image in pictures(count, size):
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def source(path: Path) -> SourceSpec:
    (spec,) = find_sources([str(path)])
    return spec


def key(frame: Frame) -> tuple[int, float, str, bytes]:
    assert frame.image is not None
    return frame.index, frame.pts_s, frame.cause, frame.image.tobytes()


@pytest.fixture(scope="session")
def mpeg4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, a keyframe every 12."""
    return write(tmp_path_factory.mktemp("sources") / "mpeg4.mp4", "mp4v", 40)


@pytest.fixture(scope="session")
def whole(mpeg4: Path) -> dict[Decoder, list[Frame]]:
    return {decoder: list(read_frames(source(mpeg4), decoder=decoder)) for decoder in DECODERS}


def box(data: bytes | bytearray, name: bytes) -> int:
    at = data.find(name)
    assert at > 0
    return at + 4


def rotated(path: Path, degrees: int, target: Path) -> Path:
    """A copy whose display matrix turns pictures clockwise."""
    data = bytearray(path.read_bytes())
    at = box(data, b"tkhd")
    assert data[at] == 0
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    rows = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    data[at + 40 : at + 76] = struct.pack(">9i", *rows)
    target.write_bytes(data)
    return target


def with_steps(path: Path, runs: list[tuple[int, int]], target: Path) -> Path:
    """A copy whose frames last as given: (frames, steps) runs, in units of the constant step that it had."""
    data = bytearray(path.read_bytes())
    at = box(data, b"stts")
    step = struct.unpack(">I", data[at + 12 : at + 16])[0]
    table = struct.pack(">II", 0, len(runs)) + b"".join(
        struct.pack(">II", count, steps * step) for count, steps in runs
    )
    old = struct.unpack(">I", data[at - 8 : at - 4])[0]
    grown = len(table) + 8 - old
    data[at - 8 : at - 8 + old] = struct.pack(">I4s", len(table) + 8, b"stts") + table
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = box(data, name) - 8
        data[place : place + 4] = struct.pack(">I", struct.unpack(">I", data[place : place + 4])[0] + grown)
    total = struct.pack(">I", sum(count * steps for count, steps in runs) * step)  # more than enough for the edit list
    for place in (box(data, b"mdhd") + 16, box(data, b"elst") + 8):
        data[place : place + 4] = total
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(("name", "code"), [("a.avi", "MJPG"), ("a.webm", "VP80"), ("a.mp4", "mp4v")])
def test_both_decoders_give_the_same_frames(tmp_path: Path, name: str, code: str) -> None:
    spec = source(write(tmp_path / name, code, 26))
    read = {decoder: list(read_frames(spec, decoder=decoder)) for decoder in DECODERS}
    truth = list(pictures(26, (96, 128)))
    for frames in read.values():
        assert [frame.index for frame in frames] == list(range(26))
        assert [number_in(frame.image) for frame in frames if frame.image is not None] == list(range(26))
        assert all(frame.valid and frame.cause == "" and frame.source == "a" for frame in frames)
        assert np.allclose(
            [frame.pts_s for frame in frames], np.arange(26) / 25, atol=0.6e-3 if code == "VP80" else 1e-6
        )
        errors = [
            np.abs(f.image.astype(int) - t).mean() for f, t in zip(frames, truth, strict=True) if f.image is not None
        ]
        assert max(errors) < 12
        assert all(f.image is not None and f.image.flags.writeable and f.image.dtype == np.uint8 for f in frames)
    for one, other in zip(read[DECODERS[0]], read["opencv"], strict=True):
        assert one.image is not None
        assert other.image is not None
        difference = np.abs(one.image.astype(int) - other.image)
        assert one.pts_s == other.pts_s
        assert difference.mean() <= 1.5
        assert difference.max() <= 8


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("start", "end", "stride"), [(12, 24, 1), (35, None, 1), (5, 31, 4)])
def test_segment_is_what_reading_from_the_start_gives(
    mpeg4: Path, whole: dict[Decoder, list[Frame]], decoder: Decoder, start: int, end: int | None, stride: int
) -> None:
    part = read_frames(source(mpeg4), start_frame=start, end_frame=end, stride=stride, decoder=decoder)
    wanted = [frame for frame in whole[decoder][start:end] if frame.index % stride == 0]
    assert [key(frame) for frame in part] == [key(frame) for frame in wanted]
    assert part.cause == ""


def test_times_and_stride_choose_frames(mpeg4: Path) -> None:
    info = probe(source(mpeg4))
    frames = list(read_frames(source(mpeg4), start_s=0.2, end_s=0.81, stride=4, info=info))
    assert [frame.index for frame in frames] == [5, 9, 13, 17]
    assert [frame.pts_s for frame in frames] == pytest.approx([0.2, 0.36, 0.52, 0.68])
    assert list(read_frames(source(mpeg4), start_s=60, info=info)) == []


def test_what_is_known_before_decoding(mpeg4: Path) -> None:
    info = probe(source(mpeg4))
    assert (info.width, info.height, info.fps) == (128, 96, 25)
    assert (info.frames, info.truncated) == (40, False)
    assert info.duration_s == pytest.approx(1.6)
    assert info.decoder == f"av {av.__version__}"
    assert info.table.keys.tolist() == [0, 12, 24, 36]
    assert probe(source(mpeg4), decoder="opencv").decoder == f"opencv {cv2.__version__}"


def test_decoder_is_a_function_of_the_file(tmp_path: Path, mpeg4: Path) -> None:
    copy = tmp_path / "other name.mp4"
    shutil.copy(mpeg4, copy)
    assert probe(source(copy)).decoder == probe(source(mpeg4)).decoder


def test_fractional_rate_and_odd_size(tmp_path: Path) -> None:
    path = tmp_path / "odd.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (321, 243))
    for image in pictures(5, (243, 321)):
        writer.write(image)
    writer.release()
    data = bytearray(path.read_bytes())
    at = data.find(b"strh") + 28
    data[at : at + 8] = struct.pack("<II", 1001, 30000)
    path.write_bytes(data)
    reader = read_frames(source(path))
    frames = list(reader)
    assert reader.info.fps == Fraction(30000, 1001)
    assert (reader.info.width, reader.info.height) == (321, 243)
    assert all(frame.image is not None and frame.image.shape == (243, 321, 3) for frame in frames)
    assert frames[-1].pts_s == pytest.approx(4 * 1001 / 30000)


@pytest.mark.parametrize("decoder", DECODERS)
def test_variable_rate_keeps_its_times(tmp_path: Path, mpeg4: Path, decoder: Decoder) -> None:
    path = with_steps(mpeg4, [(10, 1), (20, 3), (10, 2)], tmp_path / "vfr.mp4")
    steps = np.array([1] * 10 + [3] * 20 + [2] * 10) / 25
    times = np.concatenate([[0], np.cumsum(steps)[:-1]])
    reader = read_frames(source(path), start_frame=7, decoder=decoder)
    frames = list(reader)
    assert [frame.pts_s for frame in frames] == pytest.approx(times[7:].tolist(), abs=1e-4)
    assert [number_in(frame.image) for frame in frames if frame.image is not None] == list(range(7, 40))
    assert reader.info.duration_s == pytest.approx(steps.sum(), rel=0.05)


def test_what_an_edit_list_cuts_off_at_the_end_is_not_truncation(tmp_path: Path, mpeg4: Path) -> None:
    data = bytearray(mpeg4.read_bytes())
    at = box(data, b"elst") + 8
    data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] // 2)
    (tmp_path / "trimmed.mp4").write_bytes(data)
    reader = read_frames(source(tmp_path / "trimmed.mp4"))
    assert 20 <= len(list(reader)) < 30
    assert (reader.cause, reader.info.truncated) == ("", False)


@pytest.mark.parametrize(("degrees", "decoder"), [(90, "av"), (180, "av"), (270, "av"), (270, "opencv")])
def test_phone_videos_stand_upright(
    tmp_path: Path, mpeg4: Path, whole: dict[Decoder, list[Frame]], degrees: int, decoder: Decoder
) -> None:
    reader = read_frames(source(rotated(mpeg4, degrees, tmp_path / "turned.mp4")), decoder=decoder, end_frame=2)
    first = next(reader)
    reader.close()
    stored = whole[decoder][0].image
    assert stored is not None
    assert first.image is not None
    assert np.array_equal(first.image, np.rot90(stored, -degrees // 90))
    assert reader.info.width == (128 if degrees == 180 else 96)


def test_one_frame(tmp_path: Path) -> None:
    reader = read_frames(source(write(tmp_path / "one.mp4", "mp4v", 1)))
    assert [(frame.index, frame.pts_s, frame.valid) for frame in reader] == [(0, 0.0, True)]
    assert reader.cause == ""
    assert reader.info.duration_s == pytest.approx(0.04)


def test_an_empty_file_and_a_text_are_unreadable(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.write_bytes(b"")
    text.write_text("This is no video.\n" * 100)
    for path, found in ((empty, "an empty file"), (text, "1800 bytes")):
        with pytest.raises(UnreadableSource, match=rf"{path.name}: expected .* found {found}") as caught:
            read_frames(source(path))
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 3


def test_arguments_are_checked(mpeg4: Path) -> None:
    with pytest.raises(ValueError, match="stride: expected 1 or more, found 0"):
        read_frames(source(mpeg4), stride=0)
    with pytest.raises(ValueError, match="fps: expected a rate above 0"):
        read_frames(source(mpeg4), fps=-1)


@needs_decord
def test_asking_for_decord_where_it_errs_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "open.mp4"), "w") as file:  # in an open group, decord errs after seeking to it
        options = {"x264-params": "open-gop=1:keyint=15:min-keyint=15:bframes=3:b-adapt=0:scenecut=0"}
        stream = file.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        frames = (av.VideoFrame.from_ndarray(image, format="rgb24") for image in pictures(40, (96, 128)))
        file.mux([packet for frame in (*frames, None) for packet in stream.encode(frame)])
    odd = (ODD_VIDEOS / name for name in ("mid.mkv", "cat_overlap.ts", "hflip.mp4", "avchd.mts", "th.ogv"))
    for path in (*odd, tmp_path / "open.mp4"):
        with pytest.raises(UnreadableSource, match=r"decord reads rightly.*leave the decoder at auto"):
            probe(source(path), decoder="decord")


def test_identity_is_of_the_content(tmp_path: Path) -> None:
    data = np.random.default_rng(1).integers(0, 256, 5 << 20, dtype=np.uint8)
    path = tmp_path / "a.mp4"
    data.tofile(path)
    first, all_of_it = identity(source(path)), identity(source(path), full=True)
    path.rename(tmp_path / "b.mp4")
    assert identity(source(tmp_path / "b.mp4")) == first
    data[1 << 20] ^= 1  # between the first MiB and the middle one
    data.tofile(path)
    assert identity(source(path)) == first
    assert identity(source(path), full=True) != all_of_it
    data[-1] ^= 1
    data.tofile(path)
    assert identity(source(path)) != first


def test_a_file_that_goes_away_is_named(tmp_path: Path, mpeg4: Path) -> None:
    shutil.copy(mpeg4, tmp_path / "a.mp4")
    spec = source(tmp_path / "a.mp4")
    spec.path.unlink()
    for call in (probe, read_frames, identity):
        with pytest.raises(SourceNotFound, match=r"a\.mp4: expected a file of source a, found nothing"):
            call(spec)


def test_identity_of_a_sequence(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    first = identity(source(tmp_path))
    (tmp_path / "2.png").rename(tmp_path / "3.png")
    assert identity(source(tmp_path)) != first


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., Path]:
    def run(name: str, *options: str) -> Path:
        made = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=30:duration=3"]
        done = subprocess.run([*made, *options, str(tmp_path / name)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"this ffmpeg can't: {done.stderr.decode().splitlines()[0]}")
        return tmp_path / name

    return run


@needs_ffmpeg
@pytest.mark.parametrize(
    "options",
    [
        ("open.mp4", "-c:v", "libx264", "-g", "30", "-bf", "3", "-x264-params", "open-gop=1"),
        ("refresh.mp4", "-c:v", "libx264", "-g", "30", "-x264-params", "intra-refresh=1"),
        ("b.avi", "-c:v", "mpeg4", "-g", "12", "-bf", "2"),
        ("b.ts", "-c:v", "libx264", "-g", "30", "-bf", "3"),
    ],
    ids=lambda options: options[0],
)
def test_segments_of_awkward_streams(encode: Callable[..., Path], options: tuple[str, ...]) -> None:
    spec = source(encode(options[0], "-pix_fmt", "yuv420p", *options[1:]))
    reader = read_frames(spec)
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(90))
    assert np.allclose([frame.pts_s for frame in frames], np.arange(90) / 30, atol=1e-3)
    part = read_frames(spec, info=reader.info, start_frame=53, end_frame=57)
    assert [key(frame) for frame in part] == [key(frame) for frame in frames[53:57]]


@needs_ffmpeg
@pytest.mark.skipif(
    cv2.getVersionMajor() == 4 and cv2.getVersionMinor() < 13, reason="OpenCV hides such packets' times"
)
def test_what_an_edit_list_cuts_off_is_not_there(encode: Callable[..., Path], tmp_path: Path) -> None:
    path = encode("long.mp4", "-c:v", "libx264", "-g", "30", "-bf", "3", "-pix_fmt", "yuv420p")
    cut = ["ffmpeg", "-v", "error", "-ss", "0.7", "-i", str(path), "-c", "copy", str(tmp_path / "cut.mp4")]
    subprocess.run(cut, check=True)
    reader = read_frames(source(tmp_path / "cut.mp4"))
    frames, before = list(reader), list(read_frames(source(path)))
    assert (len(frames), reader.info.frames, reader.cause) == (69, 69, "")
    assert [key(frame)[3] for frame in frames] == [key(frame)[3] for frame in before[21:]]


@needs_ffmpeg
def test_interlaced_frames_are_pictures(encode: Callable[..., Path]) -> None:
    options = (
        "-c:v",
        "libx264",
        "-flags",
        "+ilme+ildct",
        "-x264-params",
        "interlaced=1",
        "-g",
        "30",
        "-pix_fmt",
        "yuv420p",
    )
    reader = read_frames(source(encode("field.mp4", *options)), end_frame=3)
    frames = list(reader)
    assert all(frame.valid and frame.image is not None and frame.image.mean() > 80 for frame in frames)
    assert math.isclose(reader.info.fps, 30)


@pytest.mark.skipif(not OPENCV_DOC.exists(), reason="no opencv-doc")
def test_a_header_that_lies() -> None:
    reader = read_frames(source(OPENCV_DOC / "tree.avi"))
    frames = list(reader)
    assert (len(frames), reader.cause) == (68, "truncated")
    assert all(frame.valid for frame in frames)
