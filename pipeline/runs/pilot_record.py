"""Words of a pilot's record: what `run.yaml` has under `pilot` for a run with a bound on drift."""

MEAN = "mean of tasks"  # no task has such a name
PARTS = {"moved": 1.0, "whole": 0.2}  # of a bound that excess drift may reach, by region
