"""The mean of a quantity over many frames of which a few were measured, with its 95 % interval.

The measured ones were drawn with known, unequal probabilities, one out of every so many frames in time order; of others
the quantity is known to be 0. Only sums are kept, so that memory doesn't grow with the number of frames.
"""

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

FEWEST = 5  # measured frames that an interval takes

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval; no interval where too few frames were measured."""

    mean: float
    low: float | None = None
    high: float | None = None


class SampledMean:
    """Sums over frames, and three means: of a value, of a second one that only some have, and of their difference.

    The means are ratios of sums weighted with 1 / probability (Hajek). Their variance is that of the linearised ratio,
    from the differences between neighbours in time: one draw out of every stretch of time leaves no more. The interval
    of a mean is symmetric on a logarithmic scale, as the values are above 0 and skewed.

    Source: Särndal, Swensson, Wretman, "Model Assisted Survey Sampling", 1992, sections 5.6 and 3.4; Wolter,
    "Introduction to Variance Estimation", 2007, section 8.2 (successive differences).
    """

    def __init__(self) -> None:
        self.measured, self.measured_second = 0, 0
        self.open, self.zero = 0, 0  # frames that could be measured, and frames known to be 0
        self._sums = np.zeros(4)
        self._products = np.zeros((4, 4))
        self._last: Array | None = None

    def add(self, values: Array, second: Array, probabilities: Array, *, open_: int, zero: int) -> None:
        """Adds frames in time order.

        Args:
            values: of the measured frames [n], none below 0.
            second: the other value of the same frames [n]; NaN where it wasn't measured.
            probabilities: with which these frames were drawn [n].
            open_: number of frames that could have been measured, these included.
            zero: number of frames known to be 0.
        """
        self.open, self.zero = self.open + open_, self.zero + zero
        if not len(values):
            return
        has, weights = np.isfinite(second), 1 / probabilities
        terms_n4 = np.stack([weights * values, weights, weights * np.where(has, second, 0), weights * has], 1)
        before = terms_n4[:1] if self._last is None else self._last[None]
        steps_n4 = np.diff(terms_n4, axis=0, prepend=before)
        self.measured, self.measured_second = self.measured + len(values), self.measured_second + int(has.sum())
        self._sums = self._sums + terms_n4.sum(0)
        self._products = self._products + steps_n4.T @ steps_n4
        self._last = terms_n4[-1]

    def first(self) -> Estimate | None:
        """Mean of the values over all frames; None where nothing was measured."""
        if not self.measured:
            return None
        return self._estimate(self._mean(0), self._slope(0), self.measured)

    def second(self) -> Estimate | None:
        """Mean of the second values, 0 where the first is known to be; None where none was measured."""
        if not self.measured_second:
            return None
        return self._estimate(self._mean(2), self._slope(2), self.measured_second)

    def difference(self) -> Estimate | None:
        """Mean of the first value less that of the second, and its interval, neither below 0."""
        if not self.measured_second:
            return None
        mean = self._mean(0) - self._mean(2)
        few = self.measured_second < FEWEST
        reach = 0.0 if few else quantile(self._freedom(self.measured)) * self._error(self._slope(0) - self._slope(2))
        part = self._part
        low, high = (None, None) if few else (part * max(0.0, mean - reach), part * max(0.0, mean + reach))
        return Estimate(part * max(0.0, mean), low, high)

    @property
    def _part(self) -> float:
        """Share of the frames that aren't known to be 0."""
        return self.open / (self.open + self.zero)

    def _mean(self, at: int) -> float:
        return float(self._sums[at] / self._sums[at + 1])

    def _slope(self, at: int) -> Array:
        """Derivative of a mean by the four sums."""
        slope = np.zeros(4)
        slope[at], slope[at + 1] = 1 / self._sums[at + 1], -self._sums[at] / self._sums[at + 1] ** 2
        return slope

    def _error(self, slope: Array) -> float:
        """Standard error of what has this derivative."""
        n = self.measured
        variance = n / (2 * (n - 1)) * float(slope @ self._products @ slope) * max(0.0, 1 - n / self.open)
        return sqrt(max(0.0, variance))

    @staticmethod
    def _freedom(measured: int) -> float:
        return (measured - 1) * 2 / 3  # of a variance from successive differences

    def _estimate(self, mean: float, slope: Array, measured: int) -> Estimate:
        if measured < FEWEST:
            return Estimate(self._part * mean)
        reach = quantile(self._freedom(measured)) * self._error(slope) / mean if mean > 0 else 0.0
        stretch = exp(min(reach, 50.0))
        return Estimate(self._part * mean, self._part * mean / stretch, self._part * mean * stretch)


def quantile(freedom: float) -> float:
    """97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit  # takes longer to import than all that needs no interval

    return float(stdtrit(freedom, 0.975))
