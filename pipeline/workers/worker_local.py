"""A worker in this process: reader, engine and writer are called one after the other."""

from collections.abc import Iterator

from deltascene.pipeline.bundles.scene_model import SceneModel, handing_over
from deltascene.pipeline.config import Config
from deltascene.pipeline.workers.engine_part import EnginePart
from deltascene.pipeline.workers.finish import Finished, FinishJob, FinishProgress, finish_video
from deltascene.pipeline.workers.jobs import Segment, SpanDone, VideoJob, plan_spans
from deltascene.pipeline.workers.reader_part import ReaderPart
from deltascene.pipeline.workers.writer_part import WriterPart


class LocalWorker:
    """All parts in this process, one frame at a time, so that progress shows."""

    span_frames = 1

    def __init__(self, model: SceneModel, config: Config) -> None:
        """Takes a loaded model."""
        self._reader, self._writer = ReaderPart(), WriterPart()
        self._engine = EnginePart(handing_over(model, config), config)

    def run(self, job: VideoJob, segment: Segment) -> Iterator[SpanDone]:
        """Computes, writes and seals a segment."""
        for span in plan_spans(segment, self.span_frames):
            read = self._reader.read(job, span)
            yield self._writer.write(job, self._engine.run(job, read), [], read)

    def finish(self, finish_job: FinishJob) -> Iterator[FinishProgress | Finished]:
        """Finishes a video."""
        return finish_video(finish_job)

    def restore(self) -> None:
        """Gives up what was begun; only decoding and encoding processes can be lost, and `run` starts new ones."""
        self.abandon()

    def abandon(self) -> None:
        """Closes the writer and the reader."""
        self._writer.close()
        self._reader.close()

    def close(self) -> None:
        """Closes the writer and the reader."""
        self.abandon()
