"""A video file by PyAV: what FFmpeg decodes of it, numbered, timed, judged and upright.

A packet is given its number as its time, which travels through the decoder with its frame. So every picture is known by
the packet that held it, whatever the container says of its time.
"""

from collections.abc import Container, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.codec.context import ThreadType
from av.video.frame import PictureType

from deltascene.pipeline.sources.decoding.container import demuxed, open_container, starts_afresh
from deltascene.pipeline.sources.decoding.damage import Damage
from deltascene.pipeline.sources.decoding.upright import Converter, deinterlaced
from deltascene.pipeline.sources.info import FrameTable, Picture, SourceInfo

Decoded = tuple[int, Any]
"""Number of a packet and the `av.VideoFrame` that came out of it, or None where decoding it failed."""


def av_name() -> str:
    """Name and version of this decoder."""
    return f"av {av.__version__}"


def av_pictures(
    path: Path, info: SourceInfo, wanted: range, *, threads: int = 1, convert: bool = True
) -> Iterator[Picture]:
    """Decodes frames `wanted` of a file in order, each exactly once.

    Frames are `corrupt` from damage that FFmpeg reports on, up to the next keyframe, as they build on each other; so is
    one that never comes.

    Args:
        path: the file.
        info: what is known of it.
        wanted: numbers of the frames to give.
        threads: threads that decode whole frames; results don't depend on them.
        convert: give pictures; without, only causes are found out.
    """
    given = 0
    if threads > 1 and info.table.steady and info.table.seekable and not info.interlaced:
        for picture in _pictures(path, info, wanted, threads, convert):
            yield picture
            given += 1
    yield from _pictures(path, info, wanted[given:], 1, convert)


def _pictures(path: Path, info: SourceInfo, wanted: range, threads: int, convert: bool) -> Iterator[Picture]:
    """As `av_pictures`; several threads end before the first damage, as they don't tell in which packet it is."""
    if not wanted:
        return
    table, due = info.table, wanted.start
    converter = Converter((info.width, info.height))
    first = max(wanted.start - info.interlaced, 0)  # fields are taken from the frame before, too
    frames = _judged(_decoded_from(path, info, first, threads), table, threads)
    if convert and (info.interlaced or not table.seekable):  # what is read from its start may turn so anywhere
        frames = deinterlaced(frames)
    for number, frame, damaged in frames:
        if number < due:
            continue
        absent = [each for each in range(due, min(number, wanted.stop)) if each in wanted]
        if absent and threads > 1:
            return
        yield from ((each, None, "corrupt") for each in absent)
        if number in wanted:
            image = converter(frame) if convert else None
            lost = damaged or bool(table.orphans[number]) or (convert and image is None)
            yield number, image, "corrupt" if lost else ""
        due = number + 1
        if due >= wanted.stop:
            return
    if threads == 1:
        yield from ((each, None, "corrupt") for each in range(due, wanted.stop) if each in wanted)


def decode(
    stream: Any, packets: Iterator[Any], first: int, threads: int = 1, skipped: Container[int] = ()
) -> Iterator[Decoded]:
    """Decodes packets of a stream.

    Args:
        stream: the stream, after opening its file or seeking in it.
        packets: its packets from a keyframe or the start of the file on.
        first: number of the first of them.
        threads: threads that decode whole frames. Threads that share a frame would hide damage.
        skipped: numbers of packets that the decoder doesn't get.
    """
    context = stream.codec_context
    context.thread_type, context.thread_count = ThreadType.FRAME, threads
    sent: list[int] = []
    alone = True
    for number, packet in enumerate(packets, first):
        if packet.size == 0 or number in skipped:
            continue
        if not alone and packet.is_keyframe and starts_afresh(packet):
            # What stands in for lost frames would come from before, if there was something before.
            yield from _outcomes(context, None, sent)
            context.flush_buffers()
            sent, alone = [], True
        alone = alone and packet.is_keyframe
        packet.pts, packet.dts = number, None
        sent = [*sent[-threads + 1 :], number] if threads > 1 else [number]
        yield from _outcomes(context, packet, sent)
    yield from _outcomes(context, None, sent)


def _outcomes(context: Any, packet: Any, sent: list[int]) -> Iterator[Decoded]:
    """What comes out of a decoder for a packet; for None, all that it holds back of the packets sent to it last."""
    while sent:
        try:
            for frame in context.decode(packet):
                if frame.pts is not None:  # else FFmpeg made it up
                    yield frame.pts, frame
            return
        except EOFError:
            return
        except av.FFmpegError:
            yield sent[0], None
        if packet is not None:
            return
        del sent[0]


def _judged(decoded: Iterator[Decoded], table: FrameTable, threads: int) -> Iterator[tuple[int, Any, bool]]:
    """Numbers of decoded frames, and whether they are damaged, in order of presentation.

    Frames wait until those are known that were decoded before them and are shown after them. Several threads end at the
    first damage.
    """
    damage = Damage(table)
    held: list[tuple[int, int, Any]] = []
    for packet, frame in decoded:
        if frame is None or frame.is_corrupt:
            if threads > 1:
                return
            damage.found(packet)
        number = damage.number_of(packet)
        if frame is None or number is None:
            continue
        damage.came(number, whole=frame.pict_type == PictureType.I)
        held.append((number, packet, frame))
        held.sort(key=lambda each: each[0])
        if len(held) > table.delay:
            at, origin, oldest = held.pop(0)
            yield at, oldest, damage.reaches(at, origin)
    yield from ((at, frame, damage.reaches(at, packet)) for at, packet, frame in held)


def _decoded_from(path: Path, info: SourceInfo, index: int, threads: int) -> Iterator[Decoded]:
    """Decodes a file from the keyframe before a frame on, or from its start where that isn't possible."""
    table, group = info.table, info.table.group_of(index)
    for tried in (group, group - 1, group - 8) if table.seekable and group > 0 else ():
        with open_container(path) as container:
            decoded = _from_key(container, container.streams[info.stream], table, group, max(tried, 0), threads)
            first = next(decoded, None)
            if first is not None:
                yield first
                yield from decoded
                return
    with open_container(path) as container:
        stream = container.streams[info.stream]
        yield from decode(stream, demuxed(container, stream), 0, threads)


def _from_key(
    container: Any, stream: Any, table: FrameTable, group: int, sought: int, threads: int
) -> Iterator[Decoded]:
    """Decodes from a keyframe on; nothing if it isn't found, or isn't whole in itself (periodic intra refresh).

    Args:
        container: an open file.
        stream: its video stream.
        table: its frames.
        group: place of the keyframe in the table.
        sought: place of the keyframe whose time is sought; containers may land behind it.
        threads: threads that decode.
    """
    pts, size, key = int(table.key_pts[group]), int(table.key_bytes[group]), int(table.packets[table.keys[group]])
    try:
        container.seek(int(table.key_pts[sought]), stream=stream, backward=True)
        packets = demuxed(container, stream)
        for packet in packets:
            if packet.is_keyframe and packet.pts is not None and packet.pts >= pts:
                break
        else:
            return
    except av.FFmpegError:
        return
    if (packet.pts, packet.size) != (pts, size):
        return
    # What is shown before the keyframe lacks its references; a decoder could even learn something wrong from it.
    before = table.packets[: table.keys[group]]
    decoded = decode(stream, chain([packet], packets), key, threads, set(before[before > key].tolist()))
    leading: list[Decoded] = []
    for number, frame in decoded:
        leading.append((number, frame))
        if number == key:
            if frame is None or frame.is_corrupt or frame.pict_type != PictureType.I:
                return
            yield from leading
            yield from decoded
            return
