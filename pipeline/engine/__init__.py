"""Computation of a frame by base and tasks, and the loop over the segments of a stream."""
