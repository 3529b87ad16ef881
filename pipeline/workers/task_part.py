"""Computes one sub-task apart from its base."""

from collections.abc import Sequence

import torch

from deltascene.cache.segment import FrameRecord
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.cost import task_cost
from deltascene.pipeline.engine.replay import in_segments
from deltascene.pipeline.engine.results import TaskCost
from deltascene.pipeline.engine.stopwatch import Stopwatch
from deltascene.pipeline.engine.task_step import TaskInput, TaskState, receive, step_task
from deltascene.pipeline.numerics.plain_torch import plain_torch
from deltascene.pipeline.workers.jobs import Span, SpanTask, VideoJob
from deltascene.pipeline.workers.outputs import FrameOutput, StoredForm, TaskOutput
from deltascene.stages.age import PatchAges
from deltascene.stages.cost import Macs
from deltascene.stages.types import TokenGrid


class TaskPart:
    """Computes one sub-task from the base's records: beside the engine, in another process, or from the archive."""

    def __init__(self, model: SceneModel, config: Config) -> None:
        """Takes a model of just this task; its base need not have the blocks below the split."""
        (self.task,) = model.tasks
        self._model, self._config = model, config
        self.reset()

    @property
    def segment_frames(self) -> int:
        """Length of a segment in frames."""
        return self._config.segment.frames

    def reset(self) -> None:
        """Forgets all state, at the start of a segment."""
        self._state = TaskState()
        self._ages: PatchAges | None = None

    def run(self, job: VideoJob, span: Span, records: Sequence[FrameRecord]) -> SpanTask:
        """Computes a span."""
        frames = in_segments(records, self, start=span.start)
        return SpanTask(self.task, [self.step(record, job.grid, job.form).tasks[self.task] for record in frames])

    def step(self, record: FrameRecord, grid: TokenGrid, form: StoredForm) -> FrameOutput:
        """Computes one frame."""
        if not record.valid:
            return FrameOutput(record, {self.task: TaskOutput(TaskCost(0, 0, Macs(), Macs(), {}))})
        with plain_torch(self._config.numerics.threads), torch.inference_mode():
            return self._step(record, grid, form)

    def _step(self, record: FrameRecord, grid: TokenGrid, form: StoredForm) -> FrameOutput:
        clock = Stopwatch()
        base_output = receive(record, grid, self._ages)
        self._ages = base_output.ages
        clock.lap("warp" if base_output.where is not None else "head", self.task)
        keep = self._config.policy.reuse
        task_input = TaskInput(self._state, base_output, {}, clock)
        [(self._state, prediction)] = step_task(self._model, self.task, [task_input], keep=keep)
        output = form.task(prediction, task_cost(self._model, self.task, base_output.rows, grid, clock.of(self.task)))
        return FrameOutput(
            record, {self.task: output}, form.age(base_output.age), base_output.ages.oldest_s(record.pts_s)
        )
