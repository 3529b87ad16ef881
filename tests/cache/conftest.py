"""Frames of a tiny network: 12 patches and a prefix token, 8 wide, archived after 3 and 4 blocks."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from deltascene.cache.segment import FrameRecord, SegmentInfo, encoded

MakeRecords = Callable[..., list[FrameRecord]]


@pytest.fixture(scope="session")
def info() -> SegmentInfo:
    return SegmentInfo(
        blocks=(3, 4),
        dtype="float32",
        tokens=13,
        prefix=1,
        width=8,
        grid=(3, 4),
        patch=14,
        frame_size=(72, 96),
        model_size=(42, 56),
        content=(0, 0, 42, 56),
    )


@pytest.fixture(scope="session")
def make_records() -> MakeRecords:
    """`make_records(info, policies, seed)`: one frame per policy, with random contents."""

    def make(info: SegmentInfo, policies: Sequence[str], seed: int = 0) -> list[FrameRecord]:
        rng = np.random.default_rng(seed)
        return [_record(info, rng, number, policy) for number, policy in enumerate(policies)]

    return make


def _record(info: SegmentInfo, rng: np.random.Generator, number: int, policy: str) -> FrameRecord:
    rows = np.arange(info.tokens, dtype=np.int32)
    if policy == "rows":  # the prefix token is always among them
        rows = rows[(rng.random(info.tokens) < rng.random()) | (rows == 0)]
    elif policy != "dense":
        rows = rows[:0]
    shape = (len(rows), info.width)
    flow = rng.integers(-(1 << 15), 1 << 15, info.flow_shape).astype(np.int16)
    return FrameRecord(
        index=7 + 3 * number,
        pts_s=0.28 + number / 10,
        valid=policy != "skipped",
        cause=str(rng.choice(["corrupt", "missing"])) if policy == "skipped" else "",
        policy=policy,
        reason={"dense": "first", "rows": "changed", "skipped": "invalid"}.get(policy, "between"),
        rows=rows,
        activations={
            block: encoded(rng.standard_normal(shape, np.float32) * np.float32(block), info.dtype)
            for block in info.blocks
        },
        change=rng.integers(0, 256, info.patches).astype(np.uint8),
        flow=flow if policy == "warped" else None,
    )
