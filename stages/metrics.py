"""Metrics of predictions against the truth, by kind of task.

An accumulator adds up frames and computes the metrics over all of them, never a mean of means. `where` leaves out
everything outside a mask, so that the moving region can be scored alone. Its sums can be read, added to those of other
accumulators and made into an accumulator again: so frames can be resampled for a confidence interval without scoring
them again.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.edge_scores import Edges, Mask
from deltascene.stages.kinds import Array, angles_deg

Counts = NDArray[np.int64]
Sums = NDArray[np.float64]


class Accumulator(Protocol):
    """Metrics of one task over many frames.

    Attributes:
        headline: the metric shown in tables and used in `multi_task_gain`.
        lower_is_better: whether the headline is an error.
    """

    headline: ClassVar[str]
    lower_is_better: ClassVar[bool]

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame: truth and prediction in natural values [H, W] or [H, W, C]; only `where` [H, W] counts."""

    def result(self) -> dict[str, float]:
        """The metrics so far by name; NaN where no pixel counted."""

    def sums(self) -> Sums:
        """All counts and sums so far [rows, n]; for classes n is the largest id seen + 1, else fixed."""

    @classmethod
    def of(cls, sums: Sums) -> Self:
        """An accumulator with these sums, of one accumulator or added up over several."""


class Segmentation:
    """Mean intersection over union and pixel accuracy.

    Truth pixels that are negative or the largest number of their type (255 for uint8) have no label and don't count.
    The mean is over the classes that occur in the truth of the whole set. Only the diagonal and the margins of the
    confusion matrix are kept, as the metrics need no more.

    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010.
    """

    headline: ClassVar[str] = "miou"
    lower_is_better: ClassVar[bool] = False

    def __init__(self) -> None:
        self._hit, self._true, self._predicted = (np.zeros(0, np.int64) for _ in range(3))

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame of class ids [H, W]."""
        counted = _within((truth >= 0) & (truth != np.iinfo(truth.dtype).max), where)
        true, predicted = truth[counted].astype(np.intp), value[counted].astype(np.intp)
        self._true = _added(self._true, np.bincount(true))
        self._predicted = _added(self._predicted, np.bincount(predicted))
        self._hit = _added(self._hit, np.bincount(true[true == predicted]))

    def result(self) -> dict[str, float]:
        """`miou` and `pixel_accuracy`, both in [0, 1]."""
        size = self._true.size
        hit, predicted = (_added(np.zeros(size, np.int64), part)[:size] for part in (self._hit, self._predicted))
        union = self._true + predicted - hit
        present = self._true > 0
        shares = hit[present] / union[present]
        return {"miou": _ratio(shares.sum(), shares.size), "pixel_accuracy": _ratio(hit.sum(), self._true.sum())}

    def sums(self) -> Sums:
        """Diagonal, truth and prediction of the confusion matrix [3, classes]."""
        out = np.zeros((3, max(self._true.size, self._predicted.size)))
        for row, counted in zip(out, (self._hit, self._true, self._predicted), strict=True):
            row[: counted.size] = counted
        return out

    @classmethod
    def of(cls, sums: Sums) -> Self:
        """An accumulator with these sums."""
        new = cls()
        new._hit, new._true, new._predicted = np.rint(sums).astype(np.int64)
        return new


class Depth:
    """Root mean square error, mean relative error, and share of pixels within 25 %, where the truth is above 0.

    Source: Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image", 2014.
    """

    headline: ClassVar[str] = "rmse"
    lower_is_better: ClassVar[bool] = True

    def __init__(self) -> None:
        self._pixels, self._close = 0, 0
        self._squares, self._relative = 0.0, 0.0

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame of numbers [H, W]."""
        counted = _within(np.isfinite(truth) & (truth > 0), where)
        true, predicted = truth[counted].astype(np.float64), value[counted].astype(np.float64)
        off = np.abs(predicted - true)
        self._pixels += true.size
        self._squares += float((off**2).sum())
        self._relative += float((off / true).sum())
        self._close += int(((predicted < 1.25 * true) & (true < 1.25 * predicted)).sum())

    def result(self) -> dict[str, float]:
        """`rmse` in the task's unit, `abs_rel`, and `delta1` in [0, 1]."""
        return {
            "rmse": float(np.sqrt(_ratio(self._squares, self._pixels))),
            "abs_rel": _ratio(self._relative, self._pixels),
            "delta1": _ratio(self._close, self._pixels),
        }

    def sums(self) -> Sums:
        """Pixels, close ones, sum of squares and of relative errors [4, 1]."""
        return np.array([[self._pixels], [self._close], [self._squares], [self._relative]], np.float64)

    @classmethod
    def of(cls, sums: Sums) -> Self:
        """An accumulator with these sums."""
        new = cls()
        new._pixels, new._close = round(sums[0, 0]), round(sums[1, 0])
        new._squares, new._relative = float(sums[2, 0]), float(sums[3, 0])
        return new


class Angles:
    """Angle between vectors, over pixels whose true vector is finite and not zero.

    The median is that of a histogram with bins of 0.01 degrees. A prediction of zero length counts as 90 degrees.

    Source: Fouhey, Gupta, Hebert, "Data-Driven 3D Primitives for Single Image Understanding", 2013.
    """

    headline: ClassVar[str] = "mean_deg"
    lower_is_better: ClassVar[bool] = True
    limits_deg: ClassVar[tuple[float, ...]] = (11.25, 22.5, 30.0)
    _bins_per_degree: ClassVar[int] = 100

    def __init__(self) -> None:
        self._sum_deg = 0.0
        self._within = np.zeros(len(self.limits_deg), np.int64)
        self._histogram = np.zeros(180 * self._bins_per_degree, np.int64)

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame of vectors [H, W, C] of any length."""
        counted = _within(np.isfinite(truth).all(-1) & (truth != 0).any(-1), where)
        angle_deg = angles_deg(truth[counted], value[counted])
        self._sum_deg += float(angle_deg.sum())
        self._within += [int((angle_deg < limit).sum()) for limit in self.limits_deg]
        self._histogram += np.histogram(angle_deg, self._histogram.size, (0, 180))[0]

    def result(self) -> dict[str, float]:
        """`mean_deg`, `median_deg`, and the shares `within_11.25`, `within_22.5`, `within_30`."""
        pixels = int(self._histogram.sum())
        middle = int(np.searchsorted(np.cumsum(self._histogram), pixels / 2))
        return {
            "mean_deg": _ratio(self._sum_deg, pixels),
            "median_deg": (middle + 0.5) / self._bins_per_degree if pixels else float("nan"),
            **{
                f"within_{limit:g}": _ratio(int(count), pixels)
                for limit, count in zip(self.limits_deg, self._within, strict=True)
            },
        }

    def sums(self) -> Sums:
        """Sum of angles, pixels within each limit, and the histogram, in one row [1, n]."""
        return np.concatenate([[self._sum_deg], self._within, self._histogram]).astype(np.float64)[None]

    @classmethod
    def of(cls, sums: Sums) -> Self:
        """An accumulator with these sums."""
        new, limits = cls(), len(cls.limits_deg)
        new._sum_deg = float(sums[0, 0])
        counted = np.rint(sums[0, 1:]).astype(np.int64)
        new._within, new._histogram = counted[:limits], counted[limits:]
        return new


METRICS: Mapping[str, type[Accumulator]] = {
    "classes": Segmentation,
    "scalar": Depth,
    "vector": Angles,
    "heatmaps": Edges,
}


def moving_window(fps: float) -> int:
    """Number of frames in which a pixel must have changed to count as moving: those of 8/15 s."""
    return max(1, round(8 / 15 * fps))


def moved_region(
    truth_classes: Array, truth_depth: Array, t: int, window: int = 8, depth_tolerance: float = 0.05
) -> Mask:
    """Mask of the pixels that changed lately: class or depth differs from any of the preceding frames.

    Args:
        truth_classes: class ids of a clip [T, H, W].
        truth_depth: depth of a clip [T, H, W], 0 where unknown.
        t: index of the frame.
        window: number of preceding frames.
        depth_tolerance: largest relative difference that counts as the same depth.

    Returns:
        Mask [H, W]; empty for the first frame.
    """
    earlier = slice(max(0, t - window), t)
    other_class = truth_classes[earlier] != truth_classes[t]
    apart = np.abs(truth_depth[earlier] - truth_depth[t])
    other_depth = apart > depth_tolerance * np.maximum(truth_depth[earlier], truth_depth[t])
    moved: Mask = (other_class | other_depth).any(0)
    return moved


def multi_task_gain(
    scores: Mapping[str, float], single_task: Mapping[str, float], lower_is_better: Mapping[str, bool]
) -> float:
    """Delta m: mean relative gain over single-task networks, in percent; negative is a loss, NaN is unknown.

    Args:
        scores: headline metric by task.
        single_task: the same metric of the network trained for that task alone; where it is 0, the gain is NaN.
        lower_is_better: whether the headline is an error, by task.

    Source: Maninis, Radosavovic, Kokkinos, "Attentive Single-Tasking of Multiple Tasks", 2019, equation 4.
    """
    gains = [
        (-1 if lower_is_better[task] else 1) * _ratio(scores[task] - alone, alone)
        for task, alone in single_task.items()
    ]
    return 100 * sum(gains) / len(gains)


def _within(counted: Mask, where: Mask | None) -> Mask:
    return counted if where is None else counted & where


def _added(total: Counts, more: NDArray[Any]) -> Counts:
    out = np.zeros(max(total.size, more.size), np.int64)
    out[: total.size] += total
    out[: more.size] += more
    return out


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
