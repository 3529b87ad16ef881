"""What every step of a run over many inputs needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deltascene.pipeline.batch.events import Events, Stop
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.config import Config
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.lock import Fence
from deltascene.pipeline.workers.pool import WorkerPool


@dataclass(slots=True)
class BatchRun:
    """A run over many inputs.

    Attributes:
        model: description and shapes of the model; only the workers need its weights.
        config: resolved config.
        pool: workers that compute, in this process or elsewhere.
        folder: the output folder.
        key: what all results depend on, without the input, as flat plain values.
        fence: lock of this writer.
        events: listener that is notified of progress.
        stop: set from outside to ask for an early end.
        archive_budget: bytes that archived activations of the whole run may take; None is without limit.
        archived: bytes that they take by now.
        over_budget: whether a segment wasn't archived because the budget was reached.
    """

    model: SceneModel
    config: Config
    pool: WorkerPool
    folder: RunFolder
    key: Mapping[str, Any]
    fence: Fence
    events: Events
    stop: Stop = field(default_factory=Stop)
    archive_budget: int | None = None
    archived: int = 0
    over_budget: bool = False

    @property
    def archive_left(self) -> int | None:
        """Bytes that archives may still take; None is without limit."""
        return None if self.archive_budget is None else max(0, self.archive_budget - self.archived)

    def count_archived(self, size: int, *, left_out: bool) -> None:
        """Adds what a segment takes in its archive, and tells the workers whether to archive further ones.

        Args:
            size: bytes of the segment's archived activations.
            left_out: whether they should have been archived and weren't.
        """
        self.archived += size
        self.pool.archive(self.archive_left != 0)
        self.over_budget |= left_out or (self.archive_budget is not None and self.archived > self.archive_budget)
