"""Seconds by task and stage."""

import time


class Stopwatch:
    """Seconds by (task, stage): `lap` books the time since the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str, task: str = "") -> None:
        """Books the time since the last lap; no task means shared by all, booked on the base."""
        now = time.perf_counter()
        self.seconds[task, stage] = self.seconds.get((task, stage), 0.0) + now - self._last
        self._last = now

    def of(self, task: str, *, shared: bool = False) -> dict[str, float]:
        """Seconds of a task by stage, with what is shared by all where it carries that."""
        spent: dict[str, float] = {}
        for (owner, stage), seconds in self.seconds.items():
            if owner == task or (shared and owner == ""):
                spent[stage] = spent.get(stage, 0.0) + seconds
        return spent
