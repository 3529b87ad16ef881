"""A video file as FFmpeg's demuxers see it: which stream is the video, and its packets in the order of the file."""

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.format import Flags
from av.stream import Disposition
from numpy.typing import NDArray

from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.info import LARGEST_PICTURE

_NO_VIDEO = frozenset(  # demuxers that open other files or devices, show text as pictures, or read single images
    (
        *("alsa", "concat", "dash", "fbdev", "hds", "hls", "image2", "image2pipe", "kmsgrab", "lavfi", "oss"),
        *("rtp", "rtsp", "sap", "sdp", "smoothstreaming", "video4linux2,v4l2", "webm_dash_manifest", "x11grab"),
        *("adf", "bin", "idf", "tty", "txd", "xbin"),
    )
)
_NO_PICTURE_STREAM = Disposition.attached_pic | Disposition.timed_thumbnails
_MOST_REORDERED = 16
"""Frames that may be shown before one that is decoded before them, in any codec."""
_REFRESHING_UNITS = {"h264": "5", "hevc": "19-20"}
_FEW = 5
"""Frames beyond which a stream isn't taken for a cover picture."""
NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class Packets:
    """Packets of a video stream, in the order of the file.

    Attributes:
        pts: presentation times in the stream's clock [P], int64; where the container has none, the decoding times.
        timed: whether all of them are presentation times.
        dts: decoding times in the same clock [P], int64; `NO_TIME` where there is none.
        bytes: sizes [P], int64.
        keys: whether decoding can start at a packet [P], bool.
        hidden: whether a packet holds no frame that is meant to be shown [P], bool.
        recording: number of the recording that a packet belongs to, in a file of joined ones [P], int64.
        torn: whether the last packet is shorter than it says.
        broke_off: whether that is so, or reading ended with an error.
    """

    pts: NDArray[np.int64]
    timed: bool
    dts: NDArray[np.int64]
    bytes: NDArray[np.int64]
    keys: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    recording: NDArray[np.int64]
    torn: bool
    broke_off: bool


def open_container(path: Path) -> Any:
    """Opens a video file.

    Raises:
        UnreadableSource: FFmpeg finds no video container in it.
    """
    formats = ",".join(
        sorted(name for name in av.formats_available - _NO_VIDEO if not name.endswith("_pipe") or name == "jpeg_pipe")
    )
    try:
        return av.open(str(path), options={"protocol_whitelist": "file", "format_whitelist": formats})
    except (av.FFmpegError, ValueError) as error:
        found = (
            "an MP4 file that is cut off before its index; copy it again"
            if _kind(path) == "mp4" and is_cut_off(path)
            else f"{path.stat().st_size} bytes of something else ({_reason(error)})"
        )
        raise UnreadableSource(f"{path}: expected a video that FFmpeg can open, found {found}") from error


def demuxed(container: Any, *streams: Any) -> Iterator[Any]:
    """Packets of streams, without the empty one that ends each; stops where the file can't be read on."""
    with suppress(av.FFmpegError):
        yield from _packets(container, streams)


def read_packets(path: Path, container: Any) -> tuple[Any, Packets]:
    """Finds the video stream of a file and reads its packets without decoding them.

    Of several it is the one with the largest picture; cover pictures, thumbnails and streams of a few frames beside
    longer ones don't count.

    Raises:
        UnreadableSource: it has no video stream with a frame, or one that can't be decoded here.
    """
    streams = [each for each in container.streams.video if not each.disposition & _NO_PICTURE_STREAM]
    if not streams:
        found = "a cover picture and no video" if container.streams.video else "no video stream"
        raise UnreadableSource(f"{path}: expected a video, found {found}")
    rows: dict[int, list[tuple[int, int, int, bool, bool]]] = {stream.index: [] for stream in streams}
    torn: dict[int, bool] = {}
    timed = dict.fromkeys(rows, True)
    broke_off = False
    # AVI has times of decoding only, of which FFmpeg makes those of other pictures.
    has_pts = container.format.name != "avi"
    try:
        for packet in _packets(container, streams):
            dts = NO_TIME if packet.dts is None else packet.dts
            timed[packet.stream_index] &= has_pts and packet.pts is not None
            pts = packet.pts if has_pts and packet.pts is not None else dts
            hidden = packet.is_discard or packet.size == 0 or _is_hidden(packet)
            rows[packet.stream_index].append((pts, dts, packet.size, packet.is_keyframe, hidden))
            torn[packet.stream_index] = bool(packet.is_corrupt)
    except av.EOFError:
        pass
    except av.FFmpegError:
        broke_off = True
    stream = max(streams, key=lambda each: (min(len(rows[each.index]), _FEW), _pixels(each), -each.index))
    found_rows = rows[stream.index]
    if not found_rows:
        raise UnreadableSource(f"{path}: expected video frames, found a container without any; is the copy complete?")
    if stream.codec_context is None:
        raise UnreadableSource(
            f"{path}: expected a codec that FFmpeg can decode, found one that it doesn't know;"
            " convert it with the program that made it"
        )
    refuse_too_large(path, stream.codec_context)
    pts, dts, sizes = np.array([row[:3] for row in found_rows], dtype=np.int64).T
    keys, hidden = np.array([row[3:] for row in found_rows], dtype=np.bool_).T
    if np.all(hidden):
        raise UnreadableSource(
            f"{path}: expected video frames, found an edit list that shows none of them;"
            f" ffmpeg -ignore_editlist 1 -i {path.name} -c copy whole{path.suffix} makes a file of all"
        )
    recording, cut = _recordings(container, stream, dts, keys), torn[stream.index]
    if container.format.name.startswith("mov,mp4"):
        recording = _without_edits(recording, pts, ~hidden)
    # Where frames are reordered, times of presentation don't ascend; in ASF those of decoding stand for them.
    reorders = bool(stream.codec_context.has_b_frames)
    presented = timed[stream.index] and not (reorders and bool(np.all(np.diff(pts) > 0)))
    return stream, Packets(pts, presented, dts, sizes, keys, hidden, recording, cut, broke_off or cut)


def starts_afresh(packet: Any) -> bool:
    """Whether a packet of H.264 or HEVC has a decoder forget all that came before (instantaneous decoding refresh).

    Source: ITU-T H.264, table 7-1 and H.265, table 7-1 (unit types).
    """
    types = _REFRESHING_UNITS.get(packet.stream.codec_context.codec.name)
    if types is None:
        return False
    try:
        units = BitStreamFilterContext(f"filter_units=pass_types={types}", packet.stream)
        return bool(units.filter(av.Packet(bytes(packet))))
    except av.FFmpegError:  # damage
        return False


def refuse_too_large(path: Path, picture: Any) -> None:
    """Refuses pictures that take gigabytes.

    Args:
        path: the file.
        picture: what has a width and a height.

    Raises:
        UnreadableSource: it is larger than `LARGEST_PICTURE`.
    """
    if picture.width * picture.height > LARGEST_PICTURE:
        raise UnreadableSource(
            f"{path}: expected pictures of at most {LARGEST_PICTURE} pixels, found {picture.width}x{picture.height};"
            " scale it down"
        )


def is_cut_off(path: Path) -> bool:
    """Whether an MP4 or Matroska file ends before its last outermost element does, which FFmpeg doesn't tell."""
    kind, end, at = _kind(path), path.stat().st_size, 0
    if not kind:
        return False
    size_of = _mp4_bytes if kind == "mp4" else _ebml_bytes
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            size = size_of(file.read(16), end - at)
            if size < 2:
                return kind == "mp4"
            at += size
    return at > end


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mp4"
    return "matroska" if head[:4] == b"\x1a\x45\xdf\xa3" else ""


def _mp4_bytes(head: bytes, left: int) -> int:
    """Source: ISO/IEC 14496-12, 4.2 (size 1: a 64-bit size follows; size 0: up to the end of the file)."""
    size = int(struct.unpack(">I", head[:4])[0])
    if size == 1 and len(head) == 16:
        size = int(struct.unpack(">Q", head[8:])[0])
    return size if size >= 8 else (left if size == 0 else 0)


def _ebml_bytes(head: bytes, left: int) -> int:
    """Source: RFC 8794, 4 and 6 (the leading zeros of a number tell its length; all ones: size unknown)."""
    id_bytes = 9 - head[0].bit_length()
    if not 1 <= id_bytes <= 4:
        return 0
    size_bytes = 9 - head[id_bytes].bit_length()
    if size_bytes > 8:
        return 0
    size = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
    return left if size == (1 << 7 * size_bytes) - 1 else id_bytes + size_bytes + size


def _packets(container: Any, streams: Sequence[Any]) -> Iterator[Any]:
    for packet in container.demux(*streams):
        if packet.pts is not None or packet.dts is not None or packet.size:
            yield packet


def _recordings(container: Any, stream: Any, dts: NDArray[np.int64], keys: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the recordings that packets belong to [P].

    Another one begins where the clock goes back, or in a transport stream ahead by more than ten seconds to a keyframe;
    ahead to another frame is a gap in one recording. Matroska has no decoding times, and what FFmpeg makes of it goes
    back and forth.
    """
    known = np.flatnonzero(dts != NO_TIME)
    steps = np.diff(dts[known])
    back = _MOST_REORDERED * np.median(np.abs([*steps, 0])) if container.format.name.startswith("matroska") else 0
    far = 10 / float(stream.time_base) if container.format.flags & Flags.ts_discont.value else math.inf
    begins = np.zeros(len(dts), dtype=np.int64)
    begins[known[1:]] = (steps < -back) | ((steps > far) & keys[known[1:]])
    return np.cumsum(begins)


def _without_edits(recording: NDArray[np.int64], pts: NDArray[np.int64], shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of recordings [P], where parts that an edit list shows one after the other are one."""
    joined, end = np.zeros_like(recording), NO_TIME
    for number in np.unique(recording[shown]):
        own = pts[shown & (recording == number)]
        joined[recording >= number] += int(number > 0 and own.min() < end)
        end = own.max()
    return joined


def _pixels(stream: Any) -> int:
    context = stream.codec_context
    return 0 if context is None else context.width * context.height


def _is_hidden(packet: Any) -> bool:
    """Whether a packet of VP8 or VP9 only holds a reference for others, or one of Theora a header.

    Source: RFC 6386, 9.1; VP9 bitstream specification, 6.2 and annex B (the last frame of a superframe is shown);
    Theora specification, 6.1.
    """
    context = packet.stream.codec_context
    name = "" if context is None else context.codec.name
    if name in ("vp8", "libvpx"):
        return not memoryview(packet)[0] & 16
    if name == "theora":
        return bool(memoryview(packet)[0] & 128)
    if name in ("vp9", "libvpx-vp9"):
        data = memoryview(packet)
        if data[-1] & 0xE0 == 0xC0:
            return False
        bits, at = data[0], 5 if data[0] & 0x30 == 0x30 else 4  # a fourth profile has a bit more
        return not (bits >> (7 - at) & 1 or bits >> (5 - at) & 1)
    return False


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
