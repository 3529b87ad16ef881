"""The lines that bars and plain progress share."""

from deltascene.pipeline.runs.videos_table import VideoRecord
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.units import compact, count

FEW = 50  # inputs at most where each has lines of its own
FAILURES = 20  # failed inputs that have a line of their own where there are more than FEW


class InputLines:
    """Which lines on single inputs a run prints.

    Attributes:
        few: whether there are so few inputs that each has lines of its own.
    """

    def __init__(self, inputs: int) -> None:
        self.few, self._failures = inputs <= FEW, 0

    def failed(self, record: VideoRecord) -> str:
        """The line on a failed input; empty where many have failed already."""
        self._failures += 1
        if self.few or self._failures <= FAILURES:
            return f"{record.id}: {record.status} ({record.cause}), {record.frames} frames{retried(record)}"
        more = "more inputs have failed; errors.jsonl lists them all"
        return more if self._failures == FAILURES + 1 else ""


def ready_line(workers: int, seconds: float) -> str:
    """Says that Ray's workers have started."""
    return f"Ray: {count(workers, 'worker')} ready after {seconds:.1f} s"


def archive_line(spec: SourceSpec, expected: int) -> str:
    """Says how many bytes a video's archive will take."""
    return f"{spec.id}: its archive will take about {compact(expected, 'B')} (--no-archive leaves it out)"


def lost_line(spec: SourceSpec, frames: int) -> str:
    """Says that a worker was lost, and how many finished frames are computed again."""
    return f"{spec.id}: a worker was lost; its segment is computed again, {count(frames, 'finished frame')} included"


def retried(record: VideoRecord) -> str:
    """Says how often segments of a video were computed again; empty where none was."""
    times = "once" if record.retries == 1 else f"{record.retries} times"
    return f", a segment computed again {times}" if record.retries else ""
