"""Errors of frames against truth, as sums that can be added up and resampled.

A record holds one array per column with frames first, so that sums over any frames, and so of any resampled clip, are
cheap. Errors are stored as two rows (sum of errors, pixels counted), those of edges as four (predicted, confirmed,
found, true edge pixels) for every threshold.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.stages.edge_scores import count_edges, thin_ridges
from deltascene.stages.kinds import Array, Kind, angles_deg

Columns = Mapping[str, NDArray[Any]]
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

WHOLE, MOVING = "whole", "moving"
REGIONS = (WHOLE, MOVING)
EDGES_EVERY = 5  # frames; thinning is slow, and 5 is coprime to the k of policies that repeat every k-th frame
TOLERANCE_PX = 2.0
THRESHOLDS = np.arange(1, 20) / 20
BLOCK = 15  # adjacent frames drawn together, as they are correlated


def score_frame(
    kinds: Mapping[str, Kind], truth: Mapping[str, Array], predicted: Mapping[str, Array], moving: Mask, frame: int
) -> dict[str, Numbers]:
    """Sums of errors of one frame by task and region.

    Args:
        kinds: by task.
        truth: natural values of the tasks that are scored.
        predicted: predictions, natural values.
        moving: where the scene changed in the last frames.
        frame: number of the frame.
    """
    everywhere, columns = np.ones_like(moving), {}
    for task, true in truth.items():
        per_region = SUMS[kinds[task].name](true, predicted[task], (everywhere, moving), frame)
        columns.update({f"{task}/{region}": sums for region, sums in zip(REGIONS, per_region, strict=True)})
    return columns


def count_pixels(which: Mask, among: Mask | None = None) -> Numbers:
    """Number of pixels that are true, and of all that are counted [2, 1]; `among` restricts which are counted."""
    counted = np.ones_like(which) if among is None else among
    return np.array([[(which & counted).sum()], [counted.sum()]], np.float64)


def _classes(true: Array, predicted: Array, regions: Sequence[Mask], frame: int) -> list[Numbers]:
    labelled = (true >= 0) & (true != np.iinfo(true.dtype).max)
    return [_pair(true != predicted, labelled & region) for region in regions]


def _scalar(true: Array, predicted: Array, regions: Sequence[Mask], frame: int) -> list[Numbers]:
    known = np.isfinite(true) & (true > 0)
    return [_pair(np.abs(predicted - true) / np.where(known, true, 1), known & region) for region in regions]


def _vector(true: Array, predicted: Array, regions: Sequence[Mask], frame: int) -> list[Numbers]:
    known = (true != 0).any(-1)
    angle_deg = np.zeros(known.shape)
    angle_deg[known] = angles_deg(true[known], predicted[known])
    return [_pair(angle_deg, known & region) for region in regions]


def _heatmaps(true: Array, predicted: Array, regions: Sequence[Mask], frame: int) -> list[Numbers]:
    sums = [np.zeros((4, len(THRESHOLDS))) for _ in regions]
    if frame % EDGES_EVERY:
        return sums
    height, width = regions[0].shape
    true, predicted = true.reshape(height, width, -1), predicted.reshape(height, width, -1)
    for channel in range(true.shape[2]):
        thinned = thin_ridges(predicted[..., channel])
        for total, region in zip(sums, regions, strict=True):
            counts = count_edges(true[..., channel] > 0.5, thinned, THRESHOLDS, TOLERANCE_PX, region)
            total += np.stack(np.broadcast_arrays(counts.predicted, counts.confirmed, counts.found, counts.true))
    return sums


SUMS: Mapping[str, Callable[[Array, Array, Sequence[Mask], int], list[Numbers]]] = {
    "classes": _classes,
    "scalar": _scalar,
    "vector": _vector,
    "heatmaps": _heatmaps,
}


def _pair(error: Array, counted: Mask) -> Numbers:
    return np.array([[float(error[counted].sum())], [float(counted.sum())]])


def error_of(sums: Numbers) -> Numbers:
    """Error [...] from sums [..., rows, thresholds]: their ratio, or 1 - F at the best threshold.

    NaN where nothing was counted.
    """
    if sums.shape[-2] == 2:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(sums[..., 0, 0] / sums[..., 1, 0])
    predicted, confirmed, found, true = np.moveaxis(sums, -2, 0)
    precision, recall = confirmed / np.maximum(predicted, 1), found / np.maximum(true, 1)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max(-1)
    return np.where(true[..., 0] > 0, 1 - best, np.nan)


def loss_percent(sums: Columns, dense: Columns, region: str) -> Numbers:
    """Loss against truth: mean over tasks of error / error of dense prediction - 1, in percent.

    Args:
        sums: column sums [..., rows, thresholds], resampled clips first.
        dense: the same of dense prediction.
        region: `WHOLE` or `MOVING`.

    Returns:
        The loss [...]; NaN where no task has an error to compare with, as in the moving region of a still video.
    """
    names = [name for name in sums if name.endswith(f"/{region}")]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.stack([error_of(sums[name]) / error_of(dense[name]) for name in names])
    ratios[~np.isfinite(ratios)] = np.nan
    return 100 * (mean_of_known(ratios) - 1)


def mean_of_known(values: Numbers) -> Numbers:
    """Mean of the known values over the first axis; NaN where there are none."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(0) / known.sum(0))


def add_up(record: Columns) -> dict[str, Numbers]:
    """Sums of a record's numbers over all frames."""
    return {name: values.sum(0) for name, values in record.items() if values.dtype == np.float64}


def bootstrap(
    records: Sequence[Sequence[Columns]],
    statistic: Callable[..., Numbers],
    *,
    draws: int = 1000,
    block: int = BLOCK,
    seed: int = 0,
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """95 % bootstrap intervals of a statistic: blocks of frames are drawn, and clips for the mean of several clips.

    Args:
        records: for each clip the records that are arguments of the statistic, of the same frames.
        statistic: function from the column sums [draws, ...] of each record to values [draws].
        draws: number of draws.
        block: frames drawn together.
        seed: of the draws.

    Returns:
        The interval of each clip, and that of their mean.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for clip in records:
        frames = len(next(iter(clip[0].values())))
        starts = np.arange(0, frames, block)
        times = rng.multinomial(len(starts), np.full(len(starts), 1 / len(starts)), size=draws).astype(np.float64)
        drawn.append(statistic(*(_drawn_sums(record, starts, times) for record in clip)))
    values = np.stack(drawn)
    chosen = rng.integers(len(values), size=values.shape)
    return [interval95(row) for row in values], interval95(mean_of_known(np.take_along_axis(values, chosen, 0)))


def _drawn_sums(record: Columns, starts: NDArray[np.intp], times: Numbers) -> dict[str, Numbers]:
    numbers = {name: values for name, values in record.items() if values.dtype == np.float64}
    blocks = {name: np.add.reduceat(values, starts, axis=0) for name, values in numbers.items()}
    return {name: np.tensordot(times, values, axes=1) for name, values in blocks.items()}


def interval95(values: Iterable[float]) -> tuple[float, float]:
    """The central 95 % interval of drawn values; NaN where none of them is known."""
    drawn = np.asarray(values)
    if np.isnan(drawn).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)
