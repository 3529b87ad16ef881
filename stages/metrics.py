"""How good predictions are against the truth, by kind of task, in the field's own measures.

An accumulator adds up frames and gives the measures over all of them, never a mean of means. `where` leaves out
everything outside a mask, so that the moving region can be scored on its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deltascene.stages.kinds import Array, angles_deg

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
HUNDREDTHS = tuple(number / 100 for number in range(1, 100))


class Accumulator(Protocol):
    """Measures of one task over many frames.

    Attributes:
        headline: the measure that stands for all in a table and in `multi_task_gain`.
        lower_is_better: whether the headline is an error.
    """

    headline: ClassVar[str]
    lower_is_better: ClassVar[bool]

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame: truth and prediction in natural values [H, W] or [H, W, C], and which pixels count [H, W]."""

    def result(self) -> dict[str, float]:
        """The measures so far, by name; NaN where nothing counted."""


class Segmentation:
    """Mean intersection over union and pixel accuracy.

    Truth pixels that are negative or the largest number of their type (255 for uint8) carry no label and don't count.
    The mean is over the classes that occur in the truth of the whole set. Kept are the diagonal and the margins of the
    confusion matrix, which are all that these measures need.

    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010.
    """

    headline: ClassVar[str] = "miou"
    lower_is_better: ClassVar[bool] = False

    def __init__(self) -> None:
        self._hit, self._true, self._said = (np.zeros(0, np.int64) for _ in range(3))

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame of class ids [H, W]."""
        counted = _within((truth >= 0) & (truth != np.iinfo(truth.dtype).max), where)
        true, said = truth[counted].astype(np.intp), value[counted].astype(np.intp)
        self._true = _added(self._true, np.bincount(true))
        self._said = _added(self._said, np.bincount(said))
        self._hit = _added(self._hit, np.bincount(true[true == said]))

    def result(self) -> dict[str, float]:
        """`miou` and `pixel_accuracy`, both in [0, 1]."""
        size = self._true.size
        hit, said = (_added(np.zeros(size, np.int64), part)[:size] for part in (self._hit, self._said))
        union = self._true + said - hit
        present = self._true > 0
        shares = hit[present] / union[present]
        return {"miou": _ratio(shares.sum(), shares.size), "pixel_accuracy": _ratio(hit.sum(), self._true.sum())}


class Depth:
    """Root mean square error, mean relative error, and share within 25 %, over pixels whose truth is above 0.

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
        true, said = truth[counted].astype(np.float64), value[counted].astype(np.float64)
        off = np.abs(said - true)
        self._pixels += true.size
        self._squares += float((off**2).sum())
        self._relative += float((off / true).sum())
        self._close += int(((said < 1.25 * true) & (true < 1.25 * said)).sum())

    def result(self) -> dict[str, float]:
        """`rmse` in the task's unit, `abs_rel`, and `delta1` in [0, 1]."""
        return {
            "rmse": float(np.sqrt(_ratio(self._squares, self._pixels))),
            "abs_rel": _ratio(self._relative, self._pixels),
            "delta1": _ratio(self._close, self._pixels),
        }


class Angles:
    """Angle between vectors, over pixels whose truth is a vector: finite and not zero.

    The median is read off a histogram with bins of 0.01 degrees. A prediction of zero length counts as 90 degrees.

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


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """Edge pixels of a set of frames; predicted ones at every threshold [thresholds].

    Attributes:
        predicted: predicted edge pixels.
        confirmed: those with a true edge pixel within the tolerance.
        true: true edge pixels, a single number.
        found: those with a predicted edge pixel within the tolerance.
    """

    predicted: Counts
    confirmed: Counts
    true: int
    found: Counts

    def __add__(self, other: "EdgeCounts") -> "EdgeCounts":
        return EdgeCounts(
            self.predicted + other.predicted,
            self.confirmed + other.confirmed,
            self.true + other.true,
            self.found + other.found,
        )


class Edges:
    """Precision, recall and F at the one threshold that suits the whole set best (ODS).

    The prediction is thinned to its ridges (`thin_ridges`), then cut at each threshold. A predicted edge pixel is right
    if a true one lies within the tolerance, and a true one is found if a predicted one does. Unlike in BSDS, several
    pixels may be matched to one: there is no bipartite matching, so doubled lines aren't punished where thinning leaves
    them, and scores come out a little higher. Under a mask only pixels inside it are counted; they may match ones
    outside. NaN is no edge.

    Source: Martin, Fowlkes, Malik, "Learning to Detect Natural Image Boundaries", 2004, for ODS.
    """

    headline: ClassVar[str] = "f_ods"
    lower_is_better: ClassVar[bool] = False

    def __init__(self, thresholds: Sequence[float] = HUNDREDTHS, tolerance_px: float = 2.0, thin: bool = True) -> None:
        """Starts with no frames.

        Args:
            thresholds: where predictions are cut, ascending.
            tolerance_px: largest distance of a match, in pixels.
            thin: whether predictions are thinned first.
        """
        self._thresholds = np.asarray(thresholds, np.float64)
        self._tolerance_px, self._thin = tolerance_px, thin
        nothing = np.zeros(len(thresholds), np.int64)
        self._counts = EdgeCounts(nothing, nothing, 0, nothing)

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame: truth above 0.5 is edge, prediction in [0, 1]; several maps [H, W, C] are pooled."""
        if truth.ndim == 3:
            for channel in range(truth.shape[2]):
                self.update(truth[..., channel], value[..., channel], where)
            return
        value = np.nan_to_num(value)
        value = thin_ridges(value) if self._thin else value
        self._counts += count_edges(truth > 0.5, value, self._thresholds, self._tolerance_px, where)

    def result(self) -> dict[str, float]:
        """`f_ods`, with `precision`, `recall` and `threshold` where it is reached."""
        counts = self._counts
        if counts.true == 0:
            return dict.fromkeys(("f_ods", "precision", "recall", "threshold"), float("nan"))
        precision = counts.confirmed / np.maximum(counts.predicted, 1)
        recall = counts.found / counts.true
        f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f.argmax())
        return {
            "f_ods": float(f[best]),
            "precision": float(precision[best]),
            "recall": float(recall[best]),
            "threshold": float(self._thresholds[best]),
        }


METRICS: Mapping[str, type[Accumulator]] = {
    "classes": Segmentation,
    "scalar": Depth,
    "vector": Angles,
    "heatmaps": Edges,
}


def thin_ridges(probability: Array, sigma_px: float = 0.7) -> NDArray[np.float32]:
    """An edge map with everything but its ridges set to 0.

    The map is smoothed by a Gaussian; a pixel stays, with its unsmoothed value, if the smoothed map is nowhere higher
    one pixel to either side across the line. The direction across is where the map's gradients around the pixel point
    (structure tensor).

    Args:
        probability: edge map [H, W].
        sigma_px: of the smoothing, in pixels.
    """
    image = probability.astype(np.float64)
    smooth = ndimage.gaussian_filter(image, sigma_px, mode="nearest")
    d_y, d_x = np.gradient(smooth)
    yy, xx, xy = (ndimage.gaussian_filter(product, 1.0) for product in (d_y * d_y, d_x * d_x, d_x * d_y))
    across = 0.5 * np.arctan2(2 * xy, xx - yy)
    step_y, step_x = np.sin(across), np.cos(across)
    y, x = np.indices(image.shape)
    sides = (
        ndimage.map_coordinates(smooth, [y + sign * step_y, x + sign * step_x], order=1, mode="nearest")
        for sign in (-1, 1)
    )
    tie = 1e-9  # a line of even width has two middles, equal but for rounding
    ridge = np.logical_and.reduce([smooth >= side - tie for side in sides])
    return np.where(ridge, image, 0).astype(np.float32)


def count_edges(
    truth: Mask, value: Array, thresholds: Array, tolerance_px: float, where: Mask | None = None
) -> EdgeCounts:
    """Edge pixels predicted, confirmed and found in one map, at every threshold at once.

    A true pixel is found at threshold t when the largest prediction within the tolerance is at least t, which is the
    distance to the nearest predicted pixel without one distance transform per threshold.

    Args:
        truth: true edge pixels [H, W].
        value: edge probabilities [H, W].
        thresholds: ascending.
        tolerance_px: largest distance of a match.
        where: which pixels count; matches may lie outside.
    """
    counted = _within(np.ones(truth.shape, np.bool_), where)
    near = ndimage.distance_transform_edt(~truth) <= tolerance_px if truth.any() else np.zeros_like(truth)
    best_near = ndimage.maximum_filter(value, footprint=_disk(tolerance_px), mode="constant", cval=-1.0)

    def at_least(values: Array) -> Counts:
        passed = np.bincount(np.searchsorted(thresholds, values, side="right"), minlength=len(thresholds) + 1)
        return passed[::-1].cumsum()[::-1][1:]

    return EdgeCounts(
        predicted=at_least(value[counted]),
        confirmed=at_least(value[counted & near]),
        true=int((truth & counted).sum()),
        found=at_least(best_near[truth & counted]),
    )


def moved_region(
    truth_classes: Array, truth_depth: Array, t: int, window: int = 8, depth_tolerance: float = 0.05
) -> Mask:
    """Where the scene changed lately: class or depth differs from any of the frames just before.

    Args:
        truth_classes: class ids of a clip [T, H, W].
        truth_depth: depth of a clip [T, H, W], 0 where unknown.
        t: the frame asked about.
        window: how many frames back.
        depth_tolerance: relative difference that still counts as the same depth.

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
    """Delta m: mean relative gain over single-task networks, in percent; negative is a loss.

    Args:
        scores: headline measure by task.
        single_task: the same measure of the network trained for that task alone.
        lower_is_better: by task.

    Source: Maninis, Radosavovic, Kokkinos, "Attentive Single-Tasking of Multiple Tasks", 2019, equation 4.
    """
    gains = [
        (-1 if lower_is_better[task] else 1) * (scores[task] - alone) / alone for task, alone in single_task.items()
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


def _disk(radius_px: float) -> Mask:
    reach = int(radius_px)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x * x + y * y <= radius_px * radius_px)
