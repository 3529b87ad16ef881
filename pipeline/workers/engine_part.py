"""Computes the base and the tasks of one model: the part of a worker that holds the engine."""

from dataclasses import replace

import numpy as np

from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.engine.audit import in_batch
from deltascene.pipeline.engine.engine import Stream
from deltascene.pipeline.engine.replay import in_segments
from deltascene.pipeline.workers.jobs import SpanFrames, SpanOutputs, VideoJob
from deltascene.pipeline.workers.outputs import FrameOutput, output_of
from deltascene.stages.types import Frame


class EnginePart:
    """Computes the base and every task of its model on one stream."""

    def __init__(self, model: SceneModel, config: Config) -> None:
        """Opens a stream on a loaded model.

        Args:
            model: its tasks are computed here; its base hands over the tokens that the archive and other parts need.
            config: resolved config.
        """
        self._hand_over = {*model.hand_over}
        self._stream = Stream(model, in_batch(config), "video")

    def run(self, job: VideoJob, read: SpanFrames) -> SpanOutputs:
        """Computes a span; all frames of a video have the input of its own size, whatever size they come in."""
        assert {*job.points} <= self._hand_over, "what is archived is handed over"
        self._stream.begun = job.plan.frame_size
        frames = in_segments(read.frames, self._stream, start=read.span.start)
        return SpanOutputs(read.span, [self._step(job, frame, decode_s) for frame, decode_s in frames])

    def _step(self, job: VideoJob, frame: Frame, decode_s: float) -> FrameOutput:
        result = self._stream(frame)
        assert not result.valid or self._stream.grid == job.grid, "a video has one grid"
        output = output_of(result, job.form, decode_s)
        if output.record.valid:
            return output
        return replace(output, record=replace(output.record, change=np.zeros(job.grid.patches, np.uint8)))
