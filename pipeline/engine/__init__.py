"""The walk of a frame through base and tasks, and the loop over a source's segments."""
