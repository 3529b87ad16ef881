"""Exact truth of a view in the conventions of every data set and bundle.

seg: class ids. depth: metres along the optical axis, 0 is invalid. normals: int8 = round(127 n) in camera axes (x
right, y down, z into the scene), turned toward the camera, 0 0 0 is invalid. edges: 255 on the nearer side of a depth
step, of a class boundary or of a crease of smoothed normals over 30 degrees, else 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

STEP_SHARE = 0.04
CREASE_DEG = 30.0


@dataclass(frozen=True)
class Truth:
    """Truth of one frame.

    Attributes:
        seg_HW: class ids, uint8.
        depth_HW: metres along the optical axis, float16, 0 is invalid.
        normals_HW3: int8 = round(127 n), 0 0 0 is invalid.
        edges_HW: 0 or 255, uint8.
    """

    seg_HW: NDArray[np.uint8]
    depth_HW: NDArray[np.float16]
    normals_HW3: NDArray[np.int8]
    edges_HW: NDArray[np.uint8]


def encode_depth(z_HW: NDArray[np.float32]) -> NDArray[np.float16]:
    """Depth as stored; whatever is not finite or not in front of the camera becomes 0."""
    valid = np.isfinite(z_HW) & (z_HW > 0)
    return np.where(valid, z_HW, 0).astype(np.float16)


def encode_normals(normals_HW3: NDArray[np.float32]) -> NDArray[np.int8]:
    """Unit normals as stored; zero vectors stay zero."""
    return np.round(normals_HW3 * 127).astype(np.int8)


def edge_map(
    z_HW: NDArray[np.float32], normals_HW3: NDArray[np.float32], seg_HW: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Edges of a view, 1 pixel wide on the nearer side; of two equally near pixels the left or upper one.

    Args:
        z_HW: depth in metres, infinite where there is none.
        normals_HW3: unit normals, zero where there is none.
        seg_HW: class ids.

    Returns:
        255 on edges, else 0 [H, W].
    """
    inverse_HW = 1.0 / np.asarray(z_HW, dtype=np.float64)
    edges_HW = np.zeros(z_HW.shape, dtype=bool)
    for turn in (False, True):
        near, normals, seg, out = inverse_HW, normals_HW3, seg_HW, edges_HW
        if turn:
            near, normals, seg, out = near.T, normals.transpose(1, 0, 2), seg.T, out.T
        pair = depth_steps(near) | creases(normals) | (seg[:, 1:] != seg[:, :-1])
        first_is_nearer = near[:, :-1] >= near[:, 1:]
        out[:, :-1] |= pair & first_is_nearer
        out[:, 1:] |= pair & ~first_is_nearer
    return np.where(edges_HW, 255, 0).astype(np.uint8)


def depth_steps(inverse_HW: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pairs of neighbours along x between which depth jumps [H, W-1].

    Inverse depth of a plane is linear in the picture, so a jump is a difference of more than STEP_SHARE of the nearer
    pixel's inverse depth that differs by as much from both adjacent differences.
    """
    step = np.diff(inverse_HW, axis=1)
    padded = np.pad(step, ((0, 0), (1, 1)), mode="edge") if step.shape[1] > 1 else np.zeros((len(step), 3))
    before, after = np.abs(step - padded[:, :-2]), np.abs(step - padded[:, 2:])
    if step.shape[1] > 1:
        before[:, 0], after[:, -1] = after[:, 0], before[:, -1]
    least = STEP_SHARE * np.maximum(inverse_HW[:, 1:], inverse_HW[:, :-1])
    return np.asarray((np.abs(step) > least) & (np.minimum(before, after) > least))


def creases(normals_HW3: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pairs of neighbours along x at which smoothed normals turn by more than CREASE_DEG [H, W-1].

    Normals are averaged over three pixels across and over two on each side of the pair; a pair counts where the angle
    is the largest of it and its two neighbours along x. Pairs without a normal don't count.
    """
    tall = ndimage.uniform_filter1d(normals_HW3.astype(np.float64), 3, axis=0, mode="nearest")
    wide = np.pad(tall, ((0, 0), (1, 1), (0, 0)), mode="edge")
    left, right = wide[:, :-3] + wide[:, 1:-2], wide[:, 2:-1] + wide[:, 3:]
    length = np.linalg.norm(left, axis=2) * np.linalg.norm(right, axis=2)
    cosine = (left * right).sum(axis=2) / np.maximum(length, 1e-9)
    has_HW = np.abs(normals_HW3).sum(axis=2) > 0
    both = has_HW[:, 1:] & has_HW[:, :-1]
    angle = np.where(both, np.degrees(np.arccos(np.clip(cosine, -1, 1))), 0.0)
    ring = np.pad(angle, ((0, 0), (1, 1)))
    # The tolerance keeps rounding from choosing both of two equal neighbours.
    return np.asarray((angle > CREASE_DEG) & (angle > ring[:, :-2] + 1e-9) & (angle >= ring[:, 2:] - 1e-9))


def assemble(z_HW: NDArray[np.float32], normals_HW3: NDArray[np.float32], seg_HW: NDArray[np.uint8]) -> Truth:
    """Truth of a view from its exact depth, camera-axis normals and classes."""
    return Truth(
        seg_HW=seg_HW.astype(np.uint8),
        depth_HW=encode_depth(z_HW),
        normals_HW3=encode_normals(normals_HW3),
        edges_HW=edge_map(z_HW, normals_HW3, seg_HW),
    )


def changed_share(truths: list[Truth], window: int = 8, depth_share: float = 0.02) -> NDArray[np.float64]:
    """Share of pixels whose class or depth differs from any of the frames before, for each frame from `window` on.

    Args:
        truths: consecutive frames of one static camera.
        window: how many frames back.
        depth_share: relative difference of depth that counts.
    """
    shares = []
    for index in range(window, len(truths)):
        now, moved = truths[index], np.zeros(truths[index].seg_HW.shape, dtype=bool)
        depth = now.depth_HW.astype(np.float32)
        for earlier in truths[index - window : index]:
            moved |= earlier.seg_HW != now.seg_HW
            moved |= np.abs(earlier.depth_HW.astype(np.float32) - depth) > depth_share * depth
        shares.append(float(moved.mean()))
    return np.array(shares)
