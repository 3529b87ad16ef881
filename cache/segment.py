"""A segment of archived activations: rows of dense frames and changed rows of the frames between them.

Shape letters: T frames of a segment, N tokens of a frame (prefix tokens first), R rows of them computed in one frame,
D width, H and W pixels of the model's input, h and w the patch grid.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.errors import WrongRecord

Array = NDArray[Any]

# Types of stored activations; numpy has no bfloat16, so its bits are stored.
STORED: Mapping[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}

FLOW_STEP = 4  # flow is kept for every 4th pixel

# Constants of `raw_bytes`: per frame six integers, a time and an offset; per segment JSON, shard indices and seal.
FRAME_BYTES = 6 * 8 + 8 + 8
SEGMENT_BYTES = 16 << 10


@dataclass(frozen=True, slots=True, eq=False)
class FrameRecord:
    """What the base computed for one processed frame.

    Attributes:
        index: its number in the source.
        pts_s: presentation time in seconds.
        valid: False if the picture isn't what the camera saw at that time.
        cause: cause of an invalid frame or of a reset: `corrupt`, `resized` …; empty otherwise.
        policy: dense, rows, warped, held or skipped.
        reason: why the policy was chosen: reset, cut, light, refresh, camera, changed, unchanged, between, invalid …
        rows: tokens computed [R] int32, increasing, prefix tokens included; all of them when dense, none when warped,
            held or skipped.
        activations: residual stream of those rows [R, D] by archive point (number of blocks run before): float32, or
            uint16 that holds the bits of bfloat16.
        change: change strength of every patch [h*w], in steps of 255 that saturate.
        flow: flow of a warped frame, from the last computed image to it [2, ceil(H/4), ceil(W/4)] int16: x and y in
            1/32 pixel of the model's input; None for all others.
    """

    index: int
    pts_s: float
    valid: bool
    cause: str
    policy: str
    reason: str
    rows: NDArray[np.int32]
    activations: Mapping[int, Array]
    change: NDArray[np.uint8]
    flow: NDArray[np.int16] | None = None


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What all frames of a segment share.

    Attributes:
        blocks: archive points, as the number of blocks run before.
        dtype: type of the stored activations: `float32` or `bfloat16`.
        tokens: number of tokens of a frame, prefix included.
        prefix: number of class and register tokens in front.
        width: width of the residual stream.
        grid: number of patches from top to bottom and from left to right.
        patch: side of a patch in pixels.
        frame_size: height and width of the video's frames.
        model_size: height and width of the model's input.
        content: top, left, height and width of the picture inside the model's input.

    Raises:
        WrongRecord: the sizes contradict each other, or the dtype is unknown.
    """

    blocks: tuple[int, ...]
    dtype: str
    tokens: int
    prefix: int
    width: int
    grid: tuple[int, int]
    patch: int
    frame_size: tuple[int, int]
    model_size: tuple[int, int]
    content: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        if self.dtype not in STORED:
            raise WrongRecord(f"dtype: expected one of {', '.join(STORED)}; found {self.dtype!r}")
        if not self.blocks or list(self.blocks) != sorted(set(self.blocks)) or self.blocks[0] < 0:
            raise WrongRecord(f"archive points: expected increasing block numbers; found {self.blocks}")
        if self.tokens != self.prefix + self.patches:
            raise WrongRecord(f"tokens: expected {self.prefix} + {self.grid[0]}*{self.grid[1]}; found {self.tokens}")
        sides = (self.grid[0] * self.patch, self.grid[1] * self.patch)
        if self.model_size != sides:
            raise WrongRecord(f"model size: expected {sides}, the grid's; found {self.model_size}")

    @property
    def patches(self) -> int:
        """Patch tokens of a frame."""
        return self.grid[0] * self.grid[1]

    @property
    def stored(self) -> np.dtype[Any]:
        """numpy type of the stored activations."""
        return STORED[self.dtype]

    @property
    def flow_shape(self) -> tuple[int, int, int]:
        """Shape of a warped frame's flow: [2, ceil(H/4), ceil(W/4)]."""
        height, width = (-(-side // FLOW_STEP) for side in self.model_size)
        return 2, height, width


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRecords:
    """The frames of a sealed segment in memory.

    Attributes:
        start: number of its first frame among the processed frames.
        info: what its frames share.
        records: its frames in order.
    """

    start: int
    info: SegmentInfo
    records: tuple[FrameRecord, ...]


def check_record(record: FrameRecord, info: SegmentInfo) -> None:
    """Refuses a record that doesn't have the form of its segment.

    Raises:
        WrongRecord: names the first wrong field, with the expected and the found value.
    """
    rows, count = record.rows, len(record.rows)
    _expect(record, "rows", rows, (count,), np.dtype(np.int32))
    if count and (rows[0] < 0 or rows[-1] >= info.tokens or (np.diff(rows) <= 0).any()):
        raise WrongRecord(f"frame {record.index}: rows: expected increasing numbers below {info.tokens}; found {rows}")
    if record.policy == "dense" and count != info.tokens:
        raise WrongRecord(f"frame {record.index}: dense: expected all {info.tokens} rows; found {count}")
    if set(record.activations) != set(info.blocks):
        raise WrongRecord(
            f"frame {record.index}: archive points: expected {info.blocks}; found {tuple(record.activations)}"
        )
    for block, values_RD in record.activations.items():
        _expect(record, f"activations after {block} blocks", values_RD, (count, info.width), info.stored)
    _expect(record, "change", record.change, (info.patches,), np.dtype(np.uint8))
    if (record.flow is not None) != (record.policy == "warped"):
        raise WrongRecord(f"frame {record.index}: flow: expected on warped frames only; it is {record.policy}")
    if record.flow is not None:
        _expect(record, "flow", record.flow, info.flow_shape, np.dtype(np.int16))


def raw_bytes(info: SegmentInfo, rows: Iterable[int], warped: int) -> int:
    """Bytes of an archived segment before compression, by formula.

    Per frame: archive points x rows x width x bytes of a value, 4 for each row's number, 1 for each patch's change
    strength, `FRAME_BYTES`; per warped frame its flow; per segment `SEGMENT_BYTES`.

    Args:
        info: what the frames share.
        rows: number of computed rows of every frame.
        warped: number of warped frames.
    """
    counts = list(rows)
    row_bytes = len(info.blocks) * info.width * info.stored.itemsize + 4
    frames = sum(counts) * row_bytes + len(counts) * (info.patches + FRAME_BYTES)
    return frames + warped * int(np.prod(info.flow_shape)) * 2 + SEGMENT_BYTES


def estimate_bytes(
    info: SegmentInfo, frames: int, *, dense: float, rows: float, warped: float, segment_frames: int = 256
) -> int:
    """Bytes that a video's archive will need before compression, for planning.

    Args:
        info: what its frames share.
        frames: number of frames.
        dense: share of dense frames, 0 to 1.
        rows: mean share of a frame's tokens that the frames neither dense nor warped compute, 0 to 1.
        warped: share of warped frames, 0 to 1.
        segment_frames: number of frames of a segment.
    """
    assert dense + warped <= 1 + 1e-9, (dense, warped)
    computed = round(frames * info.tokens * (dense + max(0.0, 1 - dense - warped) * rows))
    counts = [computed, *[0] * (frames - 1)] if frames else []
    segments = -(-frames // segment_frames)
    return raw_bytes(info, counts, round(frames * warped)) + (segments - 1) * SEGMENT_BYTES


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 to the bits of bfloat16, rounded to the nearest, ties to even; NaN stays NaN with its sign."""
    assert values.dtype == np.float32, values.dtype
    bits = np.ascontiguousarray(values).view(np.uint32).reshape(values.shape)
    rounded = (bits >> 16) & 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    halves = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        halves[nan] = (bits[nan] >> 16) | 0x40  # quiet, whatever the low half was
    return halves


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The bits of bfloat16 to float32, exactly."""
    assert halves.dtype == np.uint16, halves.dtype
    return (halves.astype(np.uint32) << 16).view(np.float32)


def decoded(values: Array, dtype: str) -> NDArray[np.float32]:
    """Stored activations as float32, the input of every sub-task.

    Args:
        values: as stored, any shape.
        dtype: `SegmentInfo.dtype`.
    """
    assert values.dtype == STORED[dtype], (values.dtype, dtype)
    return from_bfloat16(values) if dtype == "bfloat16" else values


def encoded(values: NDArray[np.float32], dtype: str) -> Array:
    """float32 activations as they are stored; the inverse of `decoded` where nothing is rounded."""
    return to_bfloat16(values) if dtype == "bfloat16" else values.astype(STORED[dtype], copy=False)


def _expect(record: FrameRecord, what: str, found: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if found.shape != shape or found.dtype != dtype:
        raise WrongRecord(
            f"frame {record.index}: {what}: expected {dtype} {list(shape)}; found {found.dtype} {list(found.shape)}"
        )
