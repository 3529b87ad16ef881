"""Dense optical flow, and warping of outputs by it, for frames between two computed ones.

Flow points from a pixel of the frame back to where its content was in the last computed image, so that outputs are
looked up, never scattered. It is stored at a quarter of the resolution in steps of 1/32 pixel. Every run warps with
this rounded flow, so that an archive gives the same outputs without the video.

Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as in OpenCV.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deltascene.stages.boxes import Box, boxes_around, scaled, widened
from deltascene.stages.kinds import Kind, unit_vectors
from deltascene.stages.types import TokenGrid

STEPS_PER_PIXEL = 32
COARSER = 4  # pixels between flow vectors
LEAST_BOX = 64  # pixels: for pictures with a shorter side the search has no pyramid, and sometimes crashes
FINEST_SCALE = 1  # half the resolution; at the preset's quarter a moving camera's frames lose a quarter more
LONGER = 25  # steps of a search that goes on from an earlier flow; the preset does 16
AROUND_BOX = 2  # flow vectors around the patches that moved, in which content may be found
SMOOTHED = (3, 3)  # pixels averaged against noise before two images are compared
CORNERS, CORNER_QUALITY, CORNER_APART = 100, 0.02, 8  # largest number, share of the best quality, distance in pixels
FEWEST_CORNERS = 12
STANDS = 0.75  # pixels that a point may move and still count as standing
AROUND_CORNER = (11, 11)  # window in pixels to find a corner again; 21 gives the same results in twice the time
LEAST_TEXTURE = 12.0  # steps of 255: in a picture with less of it, most of what no flow explains is noise
COMPARED = (9, 9)  # window in pixels that decides whether the flow fits
AROUND_COMPARED = 6  # pixels: half of both windows, rounded up
JOINED = (7, 7)  # flow vectors that aren't zero are in one box if they are closer than half of this

Grey = NDArray[np.uint8]
Flow = NDArray[np.int16]
Points = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Positions at which the pixels of a part of a picture are looked up.

    Attributes:
        box: the part.
        x: column [h, w] float32.
        y: row [h, w] float32.
    """

    box: Box
    x: NDArray[np.float32]
    y: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Positions at which output pixels are looked up: outside of the parts, every pixel where it lies."""

    parts: Sequence[Part]


def flow_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a flow for an image size."""
    return -(-image_size[0] // COARSER), -(-image_size[1] // COARSER)


def no_flow(image_size: tuple[int, int]) -> Flow:
    """The flow of a picture in which nothing moves."""
    return np.zeros((2, *flow_size(image_size)), np.int16)


def to_grey(pixels_CHW: NDArray[np.uint8]) -> Grey:
    """Model input [3, H, W] as a grey picture [H, W]."""
    return np.asarray(cv2.cvtColor(cv2.merge(list(pixels_CHW)), cv2.COLOR_RGB2GRAY), np.uint8)


def flow_threads() -> int:
    """Number of threads of the flow search; its result depends on it, as each thread searches a strip of its own."""
    return cv2.getNumThreads()


def set_flow_threads(count: int) -> None:
    """Sets the number of threads of the flow search for this process."""
    cv2.setNumThreads(count)


def estimate_flow(
    now: Grey, computed: Grey, moved: NDArray[np.bool_], grid: TokenGrid, start: Flow | None = None
) -> Flow:
    """Flow from a frame back to the last computed image, around the patches that moved; zero elsewhere.

    The flow is also zero where the warped image is no closer to the frame than the unwarped one, so that a moving
    object doesn't drag its surroundings along.

    Args:
        now: the frame [H, W].
        computed: the last computed image [H, W].
        moved: patches that changed since they were last computed [h, w].
        grid: token grid of the frame.
        start: flow of an earlier frame back to the same image, from which the search goes on, in boxes around what
            moved; None searches the whole picture afresh.

    Returns:
        Flow (x, y) in steps of 1/32 pixel [2, ceil(H/4), ceil(W/4)].
    """
    flow = no_flow(now.shape)
    if not moved.any():
        return flow
    near = cv2.resize(_grown(moved).astype(np.uint8), flow.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT)
    boxes = boxes_around(near)
    if start is None:
        coarse = cv2.resize(_search(now, computed), flow.shape[:0:-1], interpolation=cv2.INTER_AREA)
    else:
        coarse = _search_boxes(now, computed, boxes, start)
    steps = np.clip(np.rint(coarse * STEPS_PER_PIXEL), -32767, 32767).astype(np.int16)
    flow = np.ascontiguousarray((steps * near[..., None]).transpose(2, 0, 1))
    return flow * _closer(flow, now, computed, boxes)


def flow_residual(flow: Flow, now: Grey, computed: Grey, gain: float, grid: TokenGrid) -> float:
    """What a flow leaves unexplained: the root mean square, over patches, of the mean difference in a patch.

    It is a share of the picture's texture, the mean difference of neighbouring cells down and across, as the same
    difference means more where little is to be seen. Pictures are compared at the flow's own resolution.

    Args:
        flow: flow from the frame back to the last computed image.
        now: the frame [H, W].
        computed: the last computed image [H, W].
        gain: exposure of the frame against that image.
        grid: token grid of the frame.
    """
    size = flow.shape[:0:-1]
    coarse, before = (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) for image in (now, computed)
    )
    where = flow.astype(np.float32) / (STEPS_PER_PIXEL * COARSER)
    x = where[0] + np.arange(size[0], dtype=np.float32)
    y = where[1] + np.arange(size[1], dtype=np.float32)[:, None]
    fetched = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    apart = np.abs(coarse - np.minimum(fetched * gain, 255))
    patches = cv2.resize(apart, (grid.width, grid.height), interpolation=cv2.INTER_AREA)
    return float(np.sqrt(np.square(patches).mean())) / max(_texture(coarse), LEAST_TEXTURE)


def _texture(cells: NDArray[np.float32]) -> float:
    return sum(float(np.abs(np.diff(cells, axis=axis)).mean()) for axis in (0, 1))


def find_corners(image: Grey) -> Points:
    """Corners of a picture, the best first.

    Source: Shi and Tomasi, "Good features to track", CVPR 1994, as in OpenCV.
    """
    corners = cv2.goodFeaturesToTrack(image, CORNERS, CORNER_QUALITY, CORNER_APART)
    return np.empty((0, 1, 2), np.float32) if corners is None else np.asarray(corners, np.float32)


def standing_share(now: Grey, before: Grey, corners: Points, untold: float = 0.0, enough: float = math.inf) -> float:
    """Share of a picture's corners that didn't move.

    With a moving camera almost all corners move; with a still camera those of the background don't. Edges can't be used
    instead, as an edge along the direction of motion seems to stand still.

    Args:
        now: the frame [H, W].
        before: an earlier one [H, W].
        corners: its corners, see `find_corners`.
        untold: what is returned where too few corners are found again.
        enough: where the share is at least this, any number from this to the share may be returned: the best half of
            the corners usually shows it.

    Source: Lucas and Kanade's search in pyramids, as in OpenCV.
    """
    if not len(corners):
        return untold
    best, standing, moved = (len(corners) + 1) // 2, 0, []
    for part in (corners[:best], corners[best:]):
        found, is_found = _followed(part, before, now)
        stands = _near(found, part)
        standing += _found_again(part[is_found & stands], found[is_found & stands], before, now)
        if standing >= FEWEST_CORNERS and standing / len(corners) >= enough:
            return standing / len(corners)
        moved.append((part[is_found & ~stands], found[is_found & ~stands]))
    if standing == untold == 0:
        return 0.0
    points, found = (np.concatenate(parts) for parts in zip(*moved, strict=True))
    again = standing + _found_again(points, found, before, now)
    return untold if again < FEWEST_CORNERS else standing / again


def plan_lookup(flow: Flow, image_size: tuple[int, int]) -> Lookup:
    """Lookup of every pixel of an image under a flow; positions outside the picture are moved to its edge.

    The flow isn't interpolated, as an object's outline often lies between two flow vectors.
    """
    moving = np.asarray(np.any(flow, axis=0), np.uint8)
    joined = cv2.dilate(moving, np.ones(JOINED, np.uint8))
    vectors = flow.shape[1:]
    boxes = (widened(scaled(box, vectors, image_size), 1, image_size) for box in boxes_around(joined))
    return Lookup([_positions(flow, image_size, box) for box in boxes])


def warp(value: NDArray[Any], kind: Kind, where: Lookup) -> NDArray[Any]:
    """Outputs of the last computed frame, warped to the current one.

    Args:
        value: natural values [H, W] or [H, W, components].
        kind: the task's kind: classes are looked up at the nearest pixel, numbers bilinearly, unit vectors normalised.
        where: positions to look up.
    """
    moved = _remapped(value, where, cv2.INTER_NEAREST if kind.resample == "nearest" else cv2.INTER_LINEAR)
    return _unit_vectors(moved) if kind.activation == "unit" else moved


def warp_age(age: NDArray[np.uint8], where: Lookup) -> NDArray[np.uint8]:
    """Ages of the outputs [H, W], warped with them."""
    return np.asarray(_remapped(age, where, cv2.INTER_NEAREST), np.uint8)


def _followed(points: Points, before: Grey, after: Grey) -> tuple[Points, NDArray[np.bool_]]:
    """Where points [n, 1, 2] of one picture are in another, and whether they were found [n]; each is for itself."""
    if len(points) == 0:
        return points, np.zeros(0, bool)
    found, is_found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, np.empty_like(points), winSize=AROUND_CORNER)
    return np.asarray(found), np.asarray(is_found[:, 0], bool)


def _found_again(corners: Points, found: Points, computed: Grey, now: Grey) -> int:
    """Number of corners that are where they were if they are followed back from where they were found."""
    back, is_back = _followed(found, now, computed)
    return int(np.count_nonzero(is_back & _near(back, corners)))


def _near(points: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether points [n, 1, 2] are within `STANDS` of each other [n]."""
    return np.asarray(np.abs(points - others).max(axis=(1, 2)) < STANDS)


def _remapped(value: NDArray[Any], where: Lookup, how: int) -> NDArray[Any]:
    """An array looked up by OpenCV, whose remap takes at most four channels; four take a third of the time of three."""
    moved = value.copy()
    planes, onto = (array.reshape(*value.shape[:2], -1) for array in (value, moved))
    for first in range(0, planes.shape[2], 4):
        group = np.ascontiguousarray(planes[..., first : first + 4])
        three = group.shape[2] == 3 and group.dtype == np.float32
        source = cv2.cvtColor(group, cv2.COLOR_RGB2RGBA) if three else group
        for part in where.parts:
            found = cv2.remap(source, part.x, part.y, how, borderMode=cv2.BORDER_REPLICATE)
            found = cv2.cvtColor(found, cv2.COLOR_RGBA2RGB) if three else found
            onto[(*part.box, slice(first, first + 4))] = found.reshape(*part.x.shape, -1)
    return moved


def _unit_vectors(value: NDArray[Any]) -> NDArray[Any]:
    """As `unit_vectors`, in the same type; float32 vectors of three numbers take a quarter of its time."""
    if value.dtype != np.float32 or value.shape[2:] != (3,):
        return unit_vectors(value).astype(value.dtype)
    squares: NDArray[Any] = value * value
    length = np.sqrt(cv2.transform(squares, np.ones((1, 3), np.float32)))
    length[length == 0] = 1
    cv2.merge([length] * 3, squares)  # in place, as fresh memory takes longer
    np.divide(value, squares, out=squares)
    return squares


def _search_boxes(now: Grey, computed: Grey, boxes: Sequence[Box], start: Flow) -> NDArray[np.float32]:
    """Flow [h, w, 2] in pixels at a quarter of the resolution, searched in boxes of it; zero elsewhere."""
    size, began = start.shape[1:], (start.transpose(1, 2, 0) / STEPS_PER_PIXEL).astype(np.float32)
    coarse = np.zeros_like(began)
    for box in boxes:
        wide = widened(box, AROUND_BOX, size)
        pixels, (height, width) = scaled(wide, size, now.shape), (part.stop - part.start for part in wide)
        found = _search(now[pixels], computed[pixels], began[wide])
        coarse[wide] = cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA)
    return coarse


def _search(now: Grey, computed: Grey, start: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Flow of a picture [H, W, 2] in pixels; a picture smaller than the search needs is padded with its edge."""
    height, width = now.shape
    below, right = max(0, LEAST_BOX - height), max(0, LEAST_BOX - width)
    began: NDArray[Any] = np.zeros((height, width, 2), np.float32)
    if start is not None and start.any():
        began = np.asarray(cv2.resize(start, (width, height)), np.float32)
    images = [cv2.copyMakeBorder(each, 0, below, 0, right, cv2.BORDER_REPLICATE) for each in (now, computed, began)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # anew: it keeps settings of the last size
    search.setFinestScale(FINEST_SCALE)
    if start is not None:
        search.setGradientDescentIterations(LONGER)
    search.setVariationalRefinementIterations(0)  # it blurs outlines, and takes longer than the finer scale
    return np.asarray(search.calc(*images)[:height, :width], np.float32)


def _grown(moved: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Patches that moved and their neighbours, from which content may have come."""
    return np.asarray(cv2.dilate(moved.astype(np.uint8), np.ones((3, 3), np.uint8)), bool)


def _closer(flow: Flow, now: Grey, computed: Grey, boxes: Sequence[Box]) -> NDArray[np.int16]:
    """1 where a flow that is zero outside of boxes brings the computed image closer to the frame, else 0.

    The size is the flow's: [ceil(H/4), ceil(W/4)].
    """
    smooth, still = (cv2.blur(image, SMOOTHED) for image in (now, computed))
    closer = np.zeros(now.shape, np.uint8)
    for box in boxes:
        inner = scaled(box, flow.shape[1:], now.shape)
        part = _positions(flow, now.shape, widened(inner, AROUND_COMPARED, now.shape))
        fetched = cv2.remap(still, part.x, part.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        apart = (cv2.absdiff(smooth[part.box], image) for image in (fetched, still[part.box]))
        off, off_still = (cv2.boxFilter(image, cv2.CV_32F, COMPARED, normalize=False) for image in apart)
        rows, columns = (
            slice(one.start - outer.start, one.stop - outer.start) for one, outer in zip(inner, part.box, strict=True)
        )
        closer[inner] = (off < off_still)[rows, columns]
    return np.asarray(cv2.resize(closer, flow.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT), np.int16)


def _positions(flow: Flow, image_size: tuple[int, int], box: Box) -> Part:
    """Where the pixels of a box are looked up under a flow."""
    vectors = [
        np.minimum((np.arange(part.start, part.stop) * (1 / (side / count))).astype(np.intp), count - 1)
        for part, side, count in zip(box, image_size, flow.shape[1:], strict=True)
    ]  # as OpenCV's resize to the nearest rounds
    x, y = ((plane.astype(np.float32) / STEPS_PER_PIXEL).take(vectors[1], 1)[vectors[0]] for plane in flow)
    x += np.arange(box[1].start, box[1].stop, dtype=np.float32)
    y += np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None]
    return Part(box, np.clip(x, 0, image_size[1] - 1, out=x), np.clip(y, 0, image_size[0] - 1, out=y))
