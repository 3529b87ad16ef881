"""Results of the engine for a frame: predictions with their age, and their cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.segment import FrameRecord
from deltascene.stages.cost import Macs
from deltascene.stages.kinds import Kind
from deltascene.stages.types import Frame, Image


@dataclass(frozen=True, slots=True)
class Prediction:
    """One task's prediction for one frame.

    Attributes:
        kind: kind of the task.
        array: natural values [H, W] or [H, W, components] at the model's input size.
        age: frames since each pixel was computed [H, W]; 255 means 255 or more.
    """

    kind: Kind
    array: NDArray[Any]
    age: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TaskCost:
    """Cost of one task on one frame.

    Attributes:
        rows: tokens of the frame.
        rows_computed: tokens that ran through the task's own blocks; 0 where it has none.
        executed: MACs that ran, an audit's included.
        dense: MACs of the same task with all rows computed.
        seconds: measured time by stage.
        single_task: MACs of a network of this task alone, with every row and the same head; 0 where nothing is
            predicted, None where the bundle's evidence lists no such network.
        drift: distance of its prediction from a dense one in its kind's unit; None unless the frame was audited.
        drift_moved: the same in the patches that moved lately; None also where none did.
        floor: distance of dense prediction from that of the frame before, in the other patches; None unless measured.
        audit: MACs of the audit, which are part of `executed`.
    """

    rows: int
    rows_computed: int
    executed: Macs
    dense: Macs
    seconds: Mapping[str, float]
    single_task: int | None = 0
    drift: float | None = None
    drift_moved: float | None = None
    floor: float | None = None
    audit: Macs = field(default_factory=Macs)


@dataclass(frozen=True, slots=True)
class FrameCost:
    """Cost of a frame.

    Attributes:
        tasks: cost of every task by name; the base's includes what all tasks share.
        oldest_s: seconds since the oldest patch was computed; None for an invalid frame.
        audit_p: probability with which the frame was drawn for an audit; None where it couldn't be.
        patches_moved: number of patches that moved lately; None where no change map is made.
    """

    tasks: Mapping[str, TaskCost]
    oldest_s: float | None = None
    audit_p: float | None = None
    patches_moved: int | None = None

    @property
    def macs_executed(self) -> int:
        """MACs that ran."""
        return sum(cost.executed.total for cost in self.tasks.values())

    @property
    def macs_dense(self) -> int:
        """MACs of the same tasks with all rows computed."""
        return sum(cost.dense.total for cost in self.tasks.values())

    @property
    def seconds(self) -> float:
        """Measured time of all stages inside the engine."""
        return sum(sum(cost.seconds.values()) for cost in self.tasks.values())


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Result of one frame: `result["depth"].array`, `result.cost`, `result.plot()`.

    Attributes:
        frame: the frame itself.
        record: the decision, the rows computed, and the base's activations at the splits.
        predictions: predictions by task; empty for an invalid frame.
        cost: cost of every task, and always of the base, as its blocks serve every task.
        age: frames since each pixel was computed [H, W], the same for every task; None for an invalid frame.
    """

    frame: Frame
    record: FrameRecord
    predictions: Mapping[str, Prediction]
    cost: FrameCost
    age: NDArray[np.uint8] | None = None

    @property
    def policy(self) -> str:
        """How its outputs were made: dense, rows, warped, held or skipped."""
        return self.record.policy

    @property
    def reason(self) -> str:
        """Reason for that policy."""
        return self.record.reason

    @property
    def index(self) -> int:
        """Number of the frame in its source."""
        return self.frame.index

    @property
    def pts_s(self) -> float:
        """Presentation time in seconds."""
        return self.frame.pts_s

    @property
    def valid(self) -> bool:
        """Whether the picture is what the camera saw; an invalid frame has no predictions."""
        return self.frame.valid

    @property
    def cause(self) -> str:
        """Why the frame isn't valid, or why the stream was reset; empty otherwise."""
        return self.frame.cause

    def __getitem__(self, task: str) -> Prediction:
        """One task's prediction.

        Raises:
            KeyError: the task wasn't predicted; the text gives the reason.
        """
        if task not in self.predictions:
            why = (
                f"frame {self.index} is invalid ({self.cause})"
                if not self.valid
                else "predicted: " + ", ".join(self.predictions)
            )
            raise KeyError(f"{task!r} was not predicted; {why}")
        return self.predictions[task]

    def plot(self) -> Image:
        """A picture of the frame and its predictions, RGB [H, W, 3]."""
        from deltascene.pipeline.drawing.overlay import compose

        image = self.frame.image if self.frame.image is not None else np.zeros((240, 320, 3), np.uint8)
        values = {name: prediction.array for name, prediction in self.predictions.items()}
        kinds = {name: prediction.kind for name, prediction in self.predictions.items()}
        return compose(image, values, kinds, caption=f"#{self.index}  {self.pts_s:.2f} s  {self.policy}")
