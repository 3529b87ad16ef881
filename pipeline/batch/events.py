"""What a run reports while it goes on, and how it is asked to end early."""

from dataclasses import dataclass
from typing import Protocol

from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.workers.jobs import FrameSummary


class Events(Protocol):
    """What a run tells while it goes on; the screen, plain lines and `--json` are three listeners."""

    def workers_ready(self, workers: int, seconds: float) -> None:
        """Workers elsewhere have started, which took so long."""

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """An input is opened: frames selected, how many are sealed already, bytes that its archive will about take."""

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """A frame was computed and written."""

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """A worker was lost; so many frames that were done will be computed again."""

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """What is drawn from the results is being written; share of it done, 0 to 1."""

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """An input is done, failed or was stopped; `reused`: nothing had to be computed."""


@dataclass
class Stop:
    """Set from outside to end a run after the segments that are being computed."""

    asked: bool = False
