"""How much a warped frame loses, by what its flow leaves unexplained: measured on clips, fitted as rising curves.

Dense predictions are warped over some frames, from several first frames on, and scored beside dense prediction of the
same frames. The curves become `evidence.policy` of a bundle, or the numbers of a tuned preset.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.evaluation.clip_scores import MOVING, REGIONS, WHOLE, Columns, error_of
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.evaluation.walk import EXACT, ByEngine, walk

Points = list[tuple[float, float]]
Observed = Mapping[str, NDArray[np.float64]]

LONGEST = 12  # frames from one dense frame to the next, at 15 frames a second
STEP = 2  # frames from one start to the next
GROUPS = 12  # of warped frames with a like residual, whose mean losses are fitted
RESIDUALS = {WHOLE: "residual", MOVING: "residual_moved"}


def warping_only(config: Config) -> Config:
    """A config of which every segment is short, and all but its first frame are warped, whatever the loss."""
    policy = {"every": None, "refresh": None, "camera_every": None, "max_age_s": 1e6, "camera_s": 1e6, "refresh_s": 1e6}
    never = {"residual": 1e6, "residual_moved": 1e6}
    segment = config.segment.model_copy(update={"frames": LONGEST})
    return config.model_copy(update={"policy": config.policy.model_copy(update=policy | never), "segment": segment})


def observe(clip: Clip, model: SceneModel, exact: Config, warping: Config, frames: int) -> dict[str, Observed]:
    """Warped frames of a clip: per region `residual`, `loss`, `pixels`, an entry for each frame.

    The loss of a frame is the mean over tasks of its error less that of dense prediction of the same frame, as a share
    of dense prediction's mean error in the clip, in percent. Tasks of heatmaps are left out, as their measure isn't a
    mean over pixels.

    Args:
        clip: a clip with truth.
        model: with all tasks that are to count.
        exact: config of dense prediction.
        warping: as `warping_only` makes it.
        frames: largest number of frames that are read.
    """
    kinds = model.bundle.kinds
    starts = {f"from {start}": start for start in range(0, LONGEST, STEP)}
    walkers = {EXACT: ByEngine(model, exact), **{name: ByEngine(model, warping) for name in starts}}
    walked = walk(clip, kinds, walkers, frames=frames, starts=starts)
    tasks = [task for task in clip.truth if kinds[task].name != "heatmaps"]
    found: dict[str, Observed] = {}
    for region in REGIONS:
        parts = [_observed(walked[name], walked[EXACT], start, tasks, region) for name, start in starts.items()]
        found[region] = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
    return found


def fit(clips: Sequence[Observed]) -> Points:
    """A rising curve (residual, loss in percent) through the warped frames of some clips, each with the same weight.

    Frames are grouped by residual; the mean losses of the groups are made to rise (isotonic regression), and those that
    don't rise are left out.
    """
    residual = np.concatenate([clip["residual"] for clip in clips])
    loss = np.concatenate([clip["loss"] for clip in clips])
    weight = np.concatenate([clip["pixels"] / clip["pixels"].sum() for clip in clips])
    order = np.argsort(residual, kind="stable")
    edges = np.searchsorted(np.cumsum(weight[order]), np.linspace(0, weight.sum(), GROUPS + 1)[1:-1])
    groups = [group for group in np.split(order, edges) if weight[group].sum() > 0]
    x, y, w = (
        np.array([np.average(values[group], weights=weight[group]) for group in groups])
        for values in (residual, loss, weight)
    )
    y = isotonic_regression(y, weights=w).x
    points: Points = []
    for at, lost in zip(x.tolist(), np.maximum(y, 0).tolist(), strict=True):
        if not points or (at > points[-1][0] and lost > points[-1][1]):
            points.append((round(at, 4), round(lost, 3)))
    return points


def _observed(
    warped: Columns, dense: Columns, start: int, tasks: Sequence[str], region: str
) -> dict[str, NDArray[np.float64]]:
    chosen = warped["policy"] == "warped"
    columns = [f"{task}/{region}" for task in tasks]
    extra = np.zeros(chosen.sum())
    for column in columns:
        ours, theirs = warped[column][chosen], dense[column][start:][chosen]
        counted = np.maximum(theirs[:, 1, 0], 1)
        extra += (ours[:, 0, 0] - theirs[:, 0, 0]) / counted / error_of(dense[column].sum(0))
    return {
        "residual": warped[RESIDUALS[region]][chosen],
        "loss": 100 * extra / len(columns),
        "pixels": dense[columns[0]][start:][chosen][:, 1, 0],
    }
