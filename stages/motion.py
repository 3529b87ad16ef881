"""Dense optical flow, and warping of outputs by it, for frames between two computed ones.

Flow points from a pixel of the frame back to where its content was in the last computed image, so that outputs are
looked up, never scattered. It is stored at a quarter of the resolution in steps of 1/32 pixel. Every run warps with
this rounded flow, so that an archive gives the same outputs without the video.

Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as in OpenCV.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deltascene.stages.kinds import Kind, unit_vectors
from deltascene.stages.types import TokenGrid

STEPS_PER_PIXEL = 32
COARSER = 4  # pixels between flow vectors
LEAST_BOX = 64  # pixels: for pictures with a shorter side the search has no pyramid, and sometimes crashes
ITERATIONS = 25  # of a search that goes on from an earlier flow; the preset does 16, in about the same time
FINEST_SCALE = 1  # half the resolution; the preset stops at a quarter
SMOOTHED = (3, 3)  # pixels averaged against noise before two images are compared
CORNERS, CORNER_QUALITY, CORNER_APART = 100, 0.02, 8  # largest number, share of the best quality, distance in pixels
FEWEST_CORNERS = 12
STANDS = 0.75  # pixels that a point may move and still count as standing
AROUND_CORNER = (11, 11)  # window in pixels to find a corner again; 21 gives the same results in twice the time
LEAST_TEXTURE = 1.0  # steps of 255, of a picture in which there is nothing to see
COMPARED = (9, 9)  # window in pixels that decides whether the flow fits
AROUND_COMPARED = 6  # pixels: half of both windows, rounded up
JOINED = (7, 7)  # flow vectors that aren't zero are in one box if they are closer than half of this
MOST_BOXES = 12  # of more than that, one around all is taken, so that finding them takes no time

Grey = NDArray[np.uint8]
Flow = NDArray[np.int16]


Box = tuple[slice, slice]  # rows and columns of a picture


@dataclass(frozen=True, slots=True)
class Lookup:
    """Positions at which output pixels are looked up.

    Attributes:
        x: column [H, W] float32.
        y: row [H, W] float32.
        boxes: parts of the picture outside of which every pixel is looked up where it lies.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    boxes: Sequence[Box] = ((slice(None), slice(None)),)


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

    The whole picture is searched, as in a crop the coarse levels of the pyramid miss large motion. The flow is also
    zero where the warped image is no closer to the frame than the unwarped one, so that a moving object doesn't drag
    its surroundings along.

    Args:
        now: the frame [H, W].
        computed: the last computed image [H, W].
        moved: patches that changed since they were last computed [h, w].
        grid: token grid of the frame.
        start: flow of an earlier frame back to the same image, from which the search goes on, longer; None searches
            afresh.

    Returns:
        Flow (x, y) in steps of 1/32 pixel [2, ceil(H/4), ceil(W/4)].
    """
    flow = no_flow(now.shape)
    if not moved.any():
        return flow
    coarse = cv2.resize(_search(now, computed, start), flow.shape[:0:-1], interpolation=cv2.INTER_AREA)
    near = cv2.resize(_grown(moved).astype(np.uint8), flow.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT)
    steps = np.clip(np.rint(coarse * STEPS_PER_PIXEL), -32767, 32767).astype(np.int16)
    flow = np.ascontiguousarray((steps * near[..., None]).transpose(2, 0, 1))
    return flow * _closer(flow, now, computed)


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


def standing_share(now: Grey, computed: Grey) -> float:
    """Share of a picture's corners that didn't move; 0 where too few of them are found again.

    With a moving camera almost all corners move; with a still camera those of the background don't. Edges can't be used
    instead, as an edge along the direction of motion seems to stand still.

    Args:
        now: the frame [H, W].
        computed: the last computed image [H, W].

    Source: Shi and Tomasi, "Good features to track", CVPR 1994; Lucas and Kanade's search in pyramids, as in OpenCV.
    """
    corners = cv2.goodFeaturesToTrack(computed, CORNERS, CORNER_QUALITY, CORNER_APART)
    if corners is None:
        return 0.0
    search = partial(cv2.calcOpticalFlowPyrLK, winSize=AROUND_CORNER)
    found, is_found, _ = search(computed, now, corners, np.empty_like(corners))
    back, is_back, _ = search(now, computed, found, np.empty_like(corners))
    again = np.logical_and(is_found, is_back)[:, 0] & _near(back, corners)
    return 0.0 if again.sum() < FEWEST_CORNERS else float(_near(found, corners)[again].mean())


def plan_lookup(flow: Flow, image_size: tuple[int, int]) -> Lookup:
    """Lookup of every pixel of an image under a flow; positions outside the picture are moved to its edge.

    The flow isn't interpolated, as an object's outline often lies between two flow vectors.
    """
    height, width = image_size
    x, y = (
        cv2.resize(plane.astype(np.float32) / STEPS_PER_PIXEL, (width, height), interpolation=cv2.INTER_NEAREST)
        for plane in flow
    )
    x += np.arange(width, dtype=np.float32)
    y += np.arange(height, dtype=np.float32)[:, None]
    joined = cv2.dilate(flow.any(0).astype(np.uint8), np.ones(JOINED, np.uint8))
    boxes = [_in_pixels(box, flow.shape[1:], image_size) for box in _boxes(joined)]
    return Lookup(np.clip(x, 0, width - 1, out=x), np.clip(y, 0, height - 1, out=y), boxes)


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


def _near(points: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether points [n, 1, 2] are within `STANDS` of each other [n]."""
    return np.asarray(np.abs(points - others).max(axis=(1, 2)) < STANDS)


def _remapped(value: NDArray[Any], where: Lookup, how: int) -> NDArray[Any]:
    """An array looked up by OpenCV, which takes at most four channels, and four in a third of the time of three."""
    moved = value.copy()
    planes, onto = (array.reshape(*value.shape[:2], -1) for array in (value, moved))
    for first in range(0, planes.shape[2], 4):
        group = np.ascontiguousarray(planes[..., first : first + 4])
        three = group.shape[2] == 3 and group.dtype == np.float32
        source = cv2.cvtColor(group, cv2.COLOR_RGB2RGBA) if three else group
        for rows, columns in where.boxes:
            x, y = where.x[rows, columns], where.y[rows, columns]
            found = cv2.remap(source, x, y, how, borderMode=cv2.BORDER_REPLICATE)
            found = cv2.cvtColor(found, cv2.COLOR_RGBA2RGB) if three else found
            onto[rows, columns, first : first + 4] = found.reshape(*x.shape, -1)
    return moved


def _unit_vectors(value: NDArray[Any]) -> NDArray[Any]:
    """As `unit_vectors`, in the same type; the usual form takes a third of the time."""
    if value.dtype != np.float32 or value.shape[2:] != (3,):
        return unit_vectors(value).astype(value.dtype)
    length = np.sqrt(cv2.transform(value * value, np.ones((1, 3), np.float32)))
    length[length == 0] = 1
    return np.asarray(value / cv2.merge([length] * 3))


def _boxes(marked: NDArray[np.uint8]) -> list[Box]:
    """Boxes around the connected parts of a mask [h, w]; of those that one box holds in no more space, that one."""
    _, _, found, _ = cv2.connectedComponentsWithStats(marked)
    corners = [(top, left, top + height, left + width) for left, top, width, height, _ in found[1:].tolist()]
    if len(corners) > MOST_BOXES:
        corners = [_around(corners)]
    kept: list[tuple[int, int, int, int]] = []
    for corner in corners:
        box = corner
        while inside := [other for other in kept if _area(_around([box, other])) <= _area(box) + _area(other)]:
            kept.remove(inside[0])
            box = _around([box, inside[0]])
        kept.append(box)
    return [(slice(top, bottom), slice(left, right)) for top, left, bottom, right in kept]


def _around(corners: Sequence[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    tops, lefts, bottoms, rights = zip(*corners, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def _area(corners: tuple[int, int, int, int]) -> int:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])


def _in_pixels(box: Box, flow_size: tuple[int, ...], image_size: tuple[int, int], margin: int = 1) -> Box:
    """Pixels whose flow vectors are in a box, and some around."""
    rows, columns = (
        slice(max(0, part.start * pixels // vectors - margin), min(pixels, -(-part.stop * pixels // vectors) + margin))
        for part, vectors, pixels in zip(box, flow_size, image_size, strict=True)
    )
    return rows, columns


def _search(now: Grey, computed: Grey, start: Flow | None = None) -> NDArray[np.float32]:
    """Flow of a picture [H, W, 2] in pixels; a picture smaller than the search needs is padded with its edge."""
    height, width = now.shape
    below, right = max(0, LEAST_BOX - height), max(0, LEAST_BOX - width)
    guess: NDArray[Any] = np.zeros((height, width, 2), np.float32)
    if start is not None:
        guess = cv2.resize(start.transpose(1, 2, 0).astype(np.float32) / STEPS_PER_PIXEL, (width, height))
    guess = cv2.copyMakeBorder(guess, 0, below, 0, right, cv2.BORDER_REPLICATE)
    pair = [cv2.copyMakeBorder(box, 0, below, 0, right, cv2.BORDER_REPLICATE) for box in (now, computed)]
    search = cv2.DISOpticalFlow.create(
        cv2.DISOPTICAL_FLOW_PRESET_FAST
    )  # made anew, as it keeps settings of the last size
    search.setFinestScale(FINEST_SCALE)
    search.setVariationalRefinementIterations(0)  # it blurs outlines, and takes longer than the finer scale
    if start is not None:
        search.setGradientDescentIterations(ITERATIONS)
    found = search.calc(pair[0], pair[1], guess)
    return np.asarray(found[:height, :width], np.float32)


def _grown(moved: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Patches that moved and their neighbours, from which content may have come."""
    return np.asarray(cv2.dilate(moved.astype(np.uint8), np.ones((3, 3), np.uint8)), bool)


def _closer(flow: Flow, now: Grey, computed: Grey) -> NDArray[np.int16]:
    """1 where a flow brings the computed image closer to the frame, else 0 [ceil(H/4), ceil(W/4)]."""
    where = plan_lookup(flow, now.shape)
    smooth, still = (cv2.blur(image, SMOOTHED) for image in (now, computed))
    closer = np.zeros(now.shape, np.uint8)
    for inner in where.boxes:
        rows, columns = (slice(max(0, part.start - AROUND_COMPARED), part.stop + AROUND_COMPARED) for part in inner)
        x, y, here = where.x[rows, columns], where.y[rows, columns], still[rows, columns]
        fetched = cv2.remap(still, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        apart = (cv2.absdiff(smooth[rows, columns], image) for image in (fetched, here))
        off, off_still = (cv2.boxFilter(image, cv2.CV_32F, COMPARED, normalize=False) for image in apart)
        within = tuple(
            slice(one.start - outer.start, one.stop - outer.start)
            for one, outer in zip(inner, (rows, columns), strict=True)
        )
        closer[inner] = (off < off_still)[within]
    return np.asarray(cv2.resize(closer, flow.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT), np.int16)
