"""Scores of edge maps: precision, recall and F of thinned maps, with a tolerance in pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deltascene.stages.kinds import Array

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
HUNDREDTHS = tuple(number / 100 for number in range(1, 100))


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """Counts of edge pixels over a set of frames; arrays have one number for each threshold [thresholds].

    Attributes:
        predicted: predicted edge pixels.
        confirmed: predicted edge pixels with a true one within the tolerance.
        true: true edge pixels, a single number.
        found: true edge pixels with a predicted one within the tolerance.
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
    """Precision, recall and F at the threshold that is best for the whole set (ODS).

    The prediction is thinned to its ridges (`thin_ridges`), then cut at each threshold. A predicted edge pixel is right
    if a true one lies within the tolerance, and a true one is found if a predicted one does. Unlike in BSDS, several
    pixels may be matched to one: there is no bipartite matching, so lines that are still double after thinning aren't
    penalised, and scores are slightly higher. With a mask, only pixels inside it are counted; they may be matched to
    pixels outside. NaN is no edge.

    Source: Martin, Fowlkes, Malik, "Learning to Detect Natural Image Boundaries", 2004, for ODS.
    """

    headline: ClassVar[str] = "f_ods"
    lower_is_better: ClassVar[bool] = False

    def __init__(self, thresholds: Sequence[float] = HUNDREDTHS, tolerance_px: float = 2.0, thin: bool = True) -> None:
        """Starts with no frames.

        Args:
            thresholds: thresholds of the predictions, ascending.
            tolerance_px: largest distance of a match, in pixels.
            thin: whether predictions are thinned first.
        """
        self._thresholds = np.asarray(thresholds, np.float64)
        self._tolerance_px, self._thin = tolerance_px, thin
        nothing = np.zeros(len(thresholds), np.int64)
        self._counts = EdgeCounts(nothing, nothing, 0, nothing)

    def update(self, truth: Array, value: Array, where: Mask | None = None) -> None:
        """Adds a frame: truth above 0.5 is an edge, predictions are in [0, 1]; several maps [H, W, C] are pooled."""
        if truth.ndim == 3:
            for channel in range(truth.shape[2]):
                self.update(truth[..., channel], value[..., channel], where)
            return
        value = np.nan_to_num(value)
        value = thin_ridges(value) if self._thin else value
        self._counts += count_edges(truth > 0.5, value, self._thresholds, self._tolerance_px, where)

    def result(self) -> dict[str, float]:
        """`f_ods`, and `precision`, `recall` and `threshold` at which it is reached."""
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

    def sums(self) -> NDArray[np.float64]:
        """Predicted, confirmed, true and found edge pixels at every threshold [4, thresholds]."""
        counts = self._counts
        rows = np.broadcast_arrays(counts.predicted, counts.confirmed, counts.true, counts.found)
        return np.stack(rows).astype(np.float64)

    @classmethod
    def of(cls, sums: NDArray[np.float64]) -> Self:
        """An accumulator with the default thresholds and these counts."""
        new = cls()
        predicted, confirmed, true, found = np.rint(sums).astype(np.int64)
        new._counts = EdgeCounts(predicted, confirmed, int(true[0]), found)
        return new


def thin_ridges(probability: Array, sigma_px: float = 0.7) -> NDArray[np.float32]:
    """An edge map in which all but the ridges is set to 0.

    The map is smoothed by a Gaussian; a pixel keeps its unsmoothed value if the smoothed map is no higher one pixel to
    either side across the line. The direction across the line is that of the gradients around the pixel (structure
    tensor).

    Args:
        probability: edge map [H, W].
        sigma_px: standard deviation of the smoothing in pixels.
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
    tie = 1e-9  # a line of even width has two middle pixels, equal up to rounding
    ridge = np.logical_and.reduce([smooth >= side - tie for side in sides])
    return np.where(ridge, image, 0).astype(np.float32)


def count_edges(
    truth: Mask, value: Array, thresholds: Array, tolerance_px: float, where: Mask | None = None
) -> EdgeCounts:
    """Counts edge pixels predicted, confirmed and found in one map, at all thresholds at once.

    A true pixel is found at threshold t when the largest prediction within the tolerance is at least t; so no distance
    transform is needed for each threshold.

    Args:
        truth: true edge pixels [H, W].
        value: edge probabilities [H, W].
        thresholds: ascending.
        tolerance_px: largest distance of a match.
        where: pixels that are counted; matches may lie outside.
    """
    counted = np.ones(truth.shape, np.bool_) if where is None else where
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


def _disk(radius_px: float) -> Mask:
    reach = int(radius_px)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x * x + y * y <= radius_px * radius_px)
