"""The output folder of a run: how it is written and how it is read, without torch."""
