"""A frame's results as they are written: predictions in their stored form, their cost, and the base's record."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltascene.cache.segment import FrameRecord
from deltascene.pipeline.engine.results import FrameResult, Prediction, TaskCost
from deltascene.pipeline.runs import ledger
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.kinds import Array


@dataclass(frozen=True, slots=True, eq=False)
class TaskOutput:
    """One task's output for a frame.

    Attributes:
        cost: rows, MACs and seconds.
        stored: prediction in its stored form, [H, W] or [H, W, components]; None where nothing was predicted.
        write_s: seconds that the conversion to this form took.
    """

    cost: TaskCost
    stored: Array | None = None
    write_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class FrameOutput:
    """Everything that is written of a frame.

    Attributes:
        record: of the base.
        tasks: outputs by task, in the order of the run.
        age: frames since each pixel was computed [H, W]; None for an invalid frame.
        oldest_s: age of the oldest patch in seconds.
        decode_s: seconds that decoding the frame took.
        audit_p: probability with which it was drawn for an audit; None where it couldn't be.
        patches_moved: patches that moved lately; None where no change map is made.
    """

    record: FrameRecord
    tasks: Mapping[str, TaskOutput]
    age: Array | None = None
    oldest_s: float | None = None
    decode_s: float = 0.0
    audit_p: float | None = None
    patches_moved: int | None = None

    @property
    def macs_executed(self) -> int:
        """MACs that ran."""
        return sum(output.cost.executed.total for output in self.tasks.values())

    @property
    def macs_dense(self) -> int:
        """MACs of the same bundle with every row of every frame."""
        return sum(output.cost.dense.total for output in self.tasks.values())


@dataclass(frozen=True, slots=True)
class StoredForm:
    """How predictions are stored.

    Attributes:
        plan: how frames become model input; its sizes are those that predictions may have.
        frame_size: whether they are stored at the frame's own size instead of the model's.
    """

    plan: InputPlan
    frame_size: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is stored."""
        return self.plan.frame_size if self.frame_size else self.plan.model_size

    def age(self, age: Array) -> Array:
        """Age of a frame's pixels as it is stored."""
        if not self.frame_size:
            return age
        from deltascene.stages.resample import resize_map

        return resize_map(age, self.plan, "nearest")

    def task(self, prediction: Prediction | None, cost: TaskCost) -> TaskOutput:
        """One task's output; without a prediction, its cost alone."""
        if prediction is None:
            return TaskOutput(cost)
        began, kind, value = time.perf_counter(), prediction.kind, prediction.array
        if self.frame_size:
            from deltascene.stages.resample import to_frame_size

            value = to_frame_size(value, kind, self.plan)
        return TaskOutput(cost, kind.stored.encode(value), time.perf_counter() - began)


def output_of(result: FrameResult, form: StoredForm, decode_s: float) -> FrameOutput:
    """The engine's result as it is written."""
    tasks = {task: form.task(result.predictions.get(task), cost) for task, cost in result.cost.tasks.items()}
    age = None if result.age is None else form.age(result.age)
    cost = result.cost
    return FrameOutput(result.record, tasks, age, cost.oldest_s, decode_s, cost.audit_p, cost.patches_moved)


def ledger_rows(
    output: FrameOutput, source: str, base: str, shared: Mapping[str, float], bytes_written: int = 0
) -> list[dict[str, Any]]:
    """A frame's ledger rows.

    Args:
        output: the frame.
        source: id of its video.
        base: name of the base task; its row has what all tasks share.
        shared: seconds by stage outside the engine.
        bytes_written: bytes of activations that were archived.
    """
    record, rows = output.record, []
    for task, part in output.tasks.items():
        seconds = dict(part.cost.seconds)
        if part.write_s:
            seconds["write"] = seconds.get("write", 0.0) + part.write_s
        if task == base:
            for stage, spent in shared.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        rows.append(
            {
                "source": source,
                "index": record.index,
                "pts_s": record.pts_s,
                "valid": record.valid,
                "cause": record.cause,
                "task": task,
                "predicted": part.stored is not None,
                "policy": record.policy,
                "reason": record.reason,
                "rows": part.cost.rows,
                "rows_computed": part.cost.rows_computed,
                "oldest_s": output.oldest_s,
                "macs_executed": part.cost.executed.total,
                "macs_dense": part.cost.dense.total,
                "macs_single_task": part.cost.single_task,
                "seconds": sum(seconds.values()),
                **{f"seconds_{stage}": seconds.get(stage, 0.0) for stage in ledger.STAGES},
                "drift": part.cost.drift,
                "bytes_read": 0,
                "bytes_written": bytes_written if task == base else 0,
                "audit_p": output.audit_p if part.stored is not None else None,
                "drift_moved": part.cost.drift_moved,
                "floor": part.cost.floor,
                "macs_audit": part.cost.audit.total,
                "patches_moved": output.patches_moved,
            }
        )
    return rows
