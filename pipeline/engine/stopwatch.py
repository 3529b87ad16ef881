"""Measured seconds by task and stage."""

import time
from collections.abc import Sequence


class Stopwatch:
    """Seconds by (task, stage): `lap` books the time since the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self._last = time.perf_counter()

    def start(self) -> None:
        """Begins a lap; the time since the last one isn't booked."""
        self._last = time.perf_counter()

    def lap(self, stage: str, task: str = "") -> None:
        """Books the time since the last lap on a task; time without a task is shared by all tasks."""
        lap_together([self], [1], stage, task)

    def of(self, task: str, *, shared: bool = False) -> dict[str, float]:
        """Seconds of a task by stage; with `shared`, including the time that all tasks share."""
        spent: dict[str, float] = {}
        for (owner, stage), seconds in self.seconds.items():
            if owner == task or (shared and owner == ""):
                spent[stage] = spent.get(stage, 0.0) + seconds
        return spent


def lap_together(clocks: Sequence[Stopwatch], rows: Sequence[int], stage: str, task: str = "") -> None:
    """Divides the time since the first clock's last lap among the clocks, in proportion to their rows."""
    now, total = time.perf_counter(), sum(rows)
    spent = now - clocks[0]._last
    for clock, count in zip(clocks, rows, strict=True):
        clock.seconds[task, stage] = clock.seconds.get((task, stage), 0.0) + spent * count / total
        clock._last = now
