"""What a run reports while it goes on, and how it is asked to end early."""

from dataclasses import dataclass
from typing import Protocol

from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.workers.jobs import FrameSummary


class Events(Protocol):
    """Listener that a run notifies of its progress; `pipeline/commands/progress.py` has one for each kind of output."""

    def workers_ready(self, workers: int, seconds: float) -> None:
        """Workers in other processes have started; `seconds` is how long that took."""

    def video_started(self, spec: SourceSpec, frames: int, sealed: int, archive: int = 0) -> None:
        """An input was opened.

        Args:
            spec: the input.
            frames: number of frames selected.
            sealed: how many of them an earlier run computed and sealed.
            archive: approximate bytes that its archive will take; 0 without one.
        """

    def frame_done(self, spec: SourceSpec, frame: FrameSummary) -> None:
        """A frame was computed and written."""

    def frames_lost(self, spec: SourceSpec, frames: int) -> None:
        """A worker was lost; `frames` counts the finished frames that will be computed again."""

    def finishing(self, spec: SourceSpec, what: str, share: float) -> None:
        """Pictures are being drawn from the results; `share` of them is done, from 0 to 1."""

    def video_ended(self, record: VideoRecord, reused: bool) -> None:
        """An input is done, failed or was stopped; `reused` if nothing had to be computed."""


@dataclass
class Stop:
    """Asks a run to end as soon as the segments that are being computed are sealed.

    Attributes:
        asked: set from outside, for example by a signal handler.
    """

    asked: bool = False
