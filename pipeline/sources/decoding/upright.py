"""From a decoded frame to the picture that people see: fields made one, colours RGB, upright, in the video's size."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from deltascene.stages.types import Image

_Judged = tuple[int, Any, bool]
_SIMPLER_MATRIX = {8: 2, 10: 9, 11: 2, 12: 2, 13: 2, 14: 2}
"""Matrices that swscale can't convert from, with those as which the ffmpeg program took them: YCgCo and others as
unspecified, BT.2020 with constant luminance as without. Source: ITU-T H.273, table 4."""


class Converter:
    """Makes upright RGB pictures of one size out of decoded frames, by each frame's own matrix, range and orientation.

    Frames of another size are scaled to it, as the ffmpeg program does. Ten bits and HDR are brought to eight bits by
    swscale, without tone mapping.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Prepares it.

        Args:
            size: width and height of the upright pictures.
        """
        self._size = size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Image | None:
        """The picture [H, W, 3] of an `av.VideoFrame`; None if swscale can't convert it."""
        transposed, flip_x, flip_y = orientation(frame)
        width, height = reversed(self._size) if transposed else self._size
        rgb = self._rgb(frame, width, height)
        if rgb is None and (known := _SIMPLER_MATRIX.get(frame.colorspace)) is not None:
            frame.colorspace = known
            rgb = self._rgb(frame, width, height)
        if rgb is None:
            return None
        plane = rgb.planes[0]
        rows: Image = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        image = rows[:height, : 3 * width].reshape(height, width, 3)
        if transposed:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]

    def _rgb(self, frame: Any, width: int, height: int) -> Any:
        how = Interpolation.BICUBIC
        try:
            return self._reformatter.reformat(frame, width, height, "rgb24", interpolation=how, threads=1)
        except (av.FFmpegError, ValueError):
            return None


def orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Whether a frame is to be transposed, then flipped left to right, then upside down, to the nearest quarter turn.

    Source: ISO/IEC 14496-12, 8.3.2 (a point (x, y) is shown at (ax + cy, bx + dy)).
    """
    try:
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # beside it there is something that PyAV doesn't know, and then it tells nothing
        matrix = None
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def deinterlaced(frames: Iterator[_Judged]) -> Iterator[_Judged]:
    """Makes one picture of the two fields of every interlaced frame, by FFmpeg's filter `bwdif`.

    It looks at the frame before and the frame after, so that frames come one later from the first interlaced one on.
    """
    graph: Graph | None = None
    shape: tuple[int, int, str] | None = None
    before: Any = None
    waiting: deque[tuple[int, bool] | None] = deque()
    for number, frame, damaged in frames:
        found = (frame.width, frame.height, frame.format.name)
        if graph is not None and found != shape:
            graph.push(None)
            yield from _filtered(graph, waiting)
            graph = None
        before, shape = before if found == shape else None, found
        if graph is None and frame.interlaced_frame:
            graph = _bwdif(frame)
            if before is not None:
                waiting.append(None)
                graph.push(before)
        if graph is None:
            yield number, frame, damaged
            before = frame
            continue
        waiting.append((number, damaged))
        frame.pts = number
        graph.push(frame)
        yield from _filtered(graph, waiting)
    if graph is not None:
        graph.push(None)
        yield from _filtered(graph, waiting)


def _bwdif(frame: Any) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    bwdif, sink = graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _filtered(graph: Graph, waiting: deque[tuple[int, bool] | None]) -> Iterator[_Judged]:
    """Frames that come out of a filter, with what waits for them; nothing waits for one that was given already."""
    while waiting:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return
        waited = waiting.popleft()
        if waited is not None:
            yield waited[0], frame, waited[1]
