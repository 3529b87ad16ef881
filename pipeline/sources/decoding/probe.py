"""Look at a file: its frames with their times and keyframes, its size and rate. Runs in the decoder process."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from deltascene.pipeline.sources.decoding.by_av import av_name, decode
from deltascene.pipeline.sources.decoding.container import (
    NO_TIME,
    Packets,
    demuxed,
    is_cut_off,
    open_container,
    read_packets,
    refuse_too_large,
)
from deltascene.pipeline.sources.decoding.upright import orientation
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.info import FrameTable, SourceInfo

_TRIAL_FRAMES = 24
_LOOKED_AT = 3
_BACK_SHARE = 0.05
_REPEATED_AFTER = 4
"""Frames after which MPEG-4's decoder may give a frame again."""
_HIGHEST_RATE = 10_000
_LONG_GAP_S = 2.0
_STEADY = 1.5
"""Times the usual distance between two frames from which on others may have been lost between them."""
_MOST_GAPS = 3
_TINY_PACKET = 8
"""Bytes of an MPEG-4 packet that may hold no picture."""
_JOINS_FIELDS = ("mov,mp4", "matroska", "avi", "flv")
"""Containers that hold both fields of an interlaced picture in one packet."""


@dataclass(frozen=True)
class _Trial:
    """What came out of a decoder.

    Attributes:
        packets: numbers of the packets of the frames, in the order in which they came.
        size: width and height of the first upright picture.
        whole: whether the first picture needs no other.
        palette: whether pictures need a palette, which stands in some packets only.
        interlaced: whether a frame holds two fields.
        damaged: whether damage was found.
        ended: whether this is all that comes.
    """

    packets: list[int]
    size: tuple[int, int]
    whole: bool
    palette: bool
    interlaced: bool
    damaged: bool
    ended: bool


def examine(path: Path, alive: Callable[[], None]) -> SourceInfo:
    """Learns all about a video file that can be learnt from its packets and first frames.

    The first frames are decoded to see that they agree with the packets. If they don't, every frame is decoded.

    Args:
        path: the file.
        alive: is called while decoding goes on.

    Raises:
        UnreadableSource: no picture comes out of it.
    """
    with open_container(path) as container:
        stream, packets = read_packets(path, container)
        time_base, rate = float(stream.time_base), stream.guessed_rate or stream.average_rate
        is_avi, codec = container.format.name == "avi", stream.codec_context.codec.name
        joins_fields = container.format.name.startswith(_JOINS_FIELDS)
        index, claimed = stream.index, stream.frames if is_avi else 0
        reorders = bool(stream.codec_context.has_b_frames)
    trial = _try(path, index, _TRIAL_FRAMES, alive)
    in_order = _in_order(packets)
    doubtful = (
        (reorders and not packets.timed)
        or (codec == "h264" and trial.interlaced and not joins_fields)
        or (codec == "mpeg4" and bool(np.any(packets.bytes <= _TINY_PACKET)))
        or bool(np.any(np.diff(packets.recording) & ~packets.keys[1:]))
    )
    frames = None if doubtful else _foretold(in_order, packets, trial)
    if frames is None:
        trial = _try(path, index, len(packets.pts), alive)
        frames = _by_time(packets, trial)
    step_s = float(1 / rate) if rate and 0 < rate < _HIGHEST_RATE else _median_step(packets, frames, time_base)
    pts_s, joins = _times(packets, frames, time_base, step_s)
    table = _table(packets, in_order, frames, pts_s, trial)
    end = int(packets.dts.max()) + max(round(step_s / time_base), 1)
    truncated = packets.broke_off or is_cut_off(path) or 0 < end < claimed
    return SourceInfo(
        *trial.size,
        Fraction(1 / step_s).limit_denominator(100_000),
        float(pts_s[-1]) + step_s,
        av_name(),
        table,
        truncated=truncated,
        interlaced=trial.interlaced or _turns_interlaced(path, index, table),
        notes=(*joins, *_gaps(pts_s)),
        stream=index,
    )


def _try(path: Path, index: int, enough: int, alive: Callable[[], None]) -> _Trial:
    """Decodes the first frames of a stream.

    Raises:
        UnreadableSource: there is none, or it is too large.
    """
    numbers: list[int] = []
    first: Any = None
    interlaced = damaged = False
    with open_container(path) as container:
        stream = container.streams[index]
        decoded = decode(stream, demuxed(container, stream), 0)
        for number, frame in decoded:
            alive()
            damaged = damaged or frame is None or frame.is_corrupt
            if frame is None:
                continue
            first = first or frame
            interlaced = interlaced or frame.interlaced_frame
            if number not in numbers[-_REPEATED_AFTER:]:
                numbers.append(number)
            if len(numbers) == enough:
                break
        ended = next(decoded, None) is None
        if first is None:
            raise UnreadableSource(
                f"{path}: expected a video that can be decoded, found packets ({stream.codec_context.codec.name}) and"
                " no picture; if its beginning was cut off, cut it anew at a keyframe"
            )
    refuse_too_large(path, first)
    size = (first.height, first.width) if orientation(first)[0] else (first.width, first.height)
    whole, palette = first.pict_type == PictureType.I, first.format.name == "pal8"
    return _Trial(numbers, size, whole, palette, interlaced, damaged, ended)


def _turns_interlaced(path: Path, index: int, table: FrameTable) -> bool:
    """Whether a keyframe further on in a file holds two fields; a few are looked at, if the file can be sought in."""
    if not table.seekable or len(table.keys) < 2:
        return False
    with open_container(path) as container:
        stream = container.streams[index]
        stream.codec_context.thread_count = 1  # several would decode more frames than one
        for group in np.unique(np.linspace(1, len(table.keys) - 1, _LOOKED_AT).astype(int)):
            with suppress(av.FFmpegError):
                container.seek(int(table.key_pts[group]), stream=stream)
                if any(frame.interlaced_frame for frame in islice(container.decode(stream), 1)):
                    return True
    return False


def _in_order(packets: Packets) -> NDArray[np.int64]:
    """Numbers of the packets that are shown, in the order of presentation; in that of the file without times."""
    shown = np.flatnonzero(~packets.hidden)
    pts, recording = packets.pts[shown], packets.recording[shown]
    timeless = np.isin(recording, recording[pts == NO_TIME])
    return shown[np.lexsort((np.where(timeless, 0, pts), recording))]


def _by_time(packets: Packets, trial: _Trial) -> NDArray[np.int64]:
    """The packets of all frames that came, in the order of their times; as they came where there are none.

    Times that go back again and again are those of decoding (some ASF and MXF files, packed MPEG-4 in Matroska).
    """
    came = np.array(trial.packets, dtype=np.int64)
    back = int(np.sum(np.diff(packets.pts[came]) < 0))
    if not packets.timed or back > max(_BACK_SHARE * len(came), 1 + int(packets.recording[-1])):
        return came
    return came[np.lexsort((packets.pts[came], packets.recording[came]))]


def _foretold(in_order: NDArray[np.int64], packets: Packets, trial: _Trial) -> NDArray[np.int64] | None:
    """The packets of all frames in the order of presentation, if the first frames came as the packets foretell."""
    rank = dict(zip(in_order.tolist(), range(len(in_order)), strict=True))
    came = np.array([rank.get(packet, -1) for packet in trial.packets])
    last = len(in_order) - 1 if trial.ended else int(came[-1])
    missed = last + 1 - int(came[0]) - len(came)
    if int(came.min()) < 0 or bool(np.any(np.diff(came) <= 0)) or (missed and not trial.damaged):
        return None
    # Before the first frame that comes, others lean on what was cut off; or they are lost to damage.
    first_key = int(np.argmax(packets.keys))
    before = [at for at in in_order[: came[0]] if trial.damaged and at >= first_key]
    return np.concatenate([np.array(before, dtype=np.int64), in_order[came[0] :]])


def _times(
    packets: Packets, frames: NDArray[np.int64], time_base: float, step_s: float
) -> tuple[NDArray[np.float64], list[str]]:
    """Times of frames in seconds from the first [F], ascending, and a sentence for each place where the clock broke."""
    ticks = packets.pts[frames]
    if np.any(ticks == NO_TIME):
        return np.arange(len(frames), dtype=np.float64) * step_s, []
    parts: list[NDArray[np.float64]] = []
    notes: list[str] = []
    start_s, last_tick = 0.0, 0
    for number in np.unique(packets.recording[frames]):
        own = np.sort(ticks[packets.recording[frames] == number])
        if parts:
            jump_s = (own[0] - last_tick) * time_base - step_s
            notes.append(f"another recording begins at {start_s:.2f} s: its clock jumps by {jump_s:+.2f} s")
        parts.append(start_s + (own - own[0]) * time_base)
        last_tick, start_s = int(own[-1]), float(parts[-1][-1]) + step_s
    pts_s: NDArray[np.float64] = np.concatenate(parts)
    for at in np.flatnonzero(np.diff(pts_s) <= 0) + 1:
        pts_s[at] = max(pts_s[at], np.nextafter(pts_s[at - 1], np.inf))
    return pts_s, notes


def _gaps(pts_s: NDArray[np.float64]) -> list[str]:
    steps = np.diff(pts_s)
    long = np.flatnonzero(steps > max(_LONG_GAP_S, 5 * float(np.median([*steps, 0]))))
    notes = [f"no frames for {steps[at]:.2f} s from {pts_s[at]:.2f} s on" for at in long[:_MOST_GAPS]]
    return notes if len(long) <= _MOST_GAPS else [*notes, f"{len(long) - _MOST_GAPS} more gaps"]


def _median_step(packets: Packets, frames: NDArray[np.int64], time_base: float) -> float:
    steps = np.diff(np.sort(packets.pts[frames])) * time_base
    steps = steps[steps > 0]
    return max(float(np.median(steps)), 1 / _HIGHEST_RATE) if len(steps) else 1 / 30


def _table(
    packets: Packets,
    in_order: NDArray[np.int64],
    frames: NDArray[np.int64],
    pts_s: NDArray[np.float64],
    trial: _Trial,
) -> FrameTable:
    ordered = np.array_equal(frames, in_order[np.isin(in_order, frames)])
    numbers = {packet: number for number, packet in enumerate(frames.tolist())}
    as_come = [numbers[packet] for packet in trial.packets if packet in numbers] if trial.ended else []
    delay = max(_delay(np.argsort(frames)), _delay(np.array(as_come, dtype=np.int64)))
    # Decoding can start at a keyframe if nothing that is shown after it was decoded before it.
    followed_by = np.minimum.accumulate(frames[::-1])[::-1]
    keys = np.flatnonzero(packets.keys[frames] & (frames == followed_by))
    steps = np.diff(pts_s)
    unique = len(np.unique(packets.pts[frames[keys]])) == len(keys)
    return FrameTable(
        pts_s,
        frames,
        _orphans(packets, frames, trial),
        keys,
        packets.pts[frames[keys]],
        packets.bytes[frames[keys]],
        seekable=ordered and unique and not np.any(packets.recording) and not trial.palette,
        delay=delay,
        steady=trial.whole and (steps.size == 0 or float(steps.max()) < _STEADY * float(np.median(steps))),
    )


def _delay(numbers: NDArray[np.int64]) -> int:
    """Most frames that come before a frame and are shown after it, of frames numbered by their order of presentation.

    Args:
        numbers: of the frames in the order in which they come [F].
    """
    position = np.argsort(numbers)
    return int(np.max(np.maximum.accumulate(position) - np.arange(len(position)), initial=0))


def _orphans(packets: Packets, frames: NDArray[np.int64], trial: _Trial) -> NDArray[np.bool_]:
    """Which frames come before a keyframe in a recording that starts without one, or are cut off at the end."""
    orphans: NDArray[np.bool_] = (frames == len(packets.pts) - 1) & packets.torn
    for number in range(int(packets.recording[-1]) + 1):
        inside = packets.recording == number
        keys = np.flatnonzero(packets.keys & inside)
        first_key = keys[0] if len(keys) else len(packets.pts)
        if number == 0 and (trial.whole or not len(keys)):
            continue
        lost = (frames < first_key) | (np.arange(len(frames)) < np.argmax(frames == first_key))
        orphans |= inside[frames] & lost
    return orphans
