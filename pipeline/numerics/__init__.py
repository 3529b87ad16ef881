"""Numerics of a run, which are settled once: data type, threads, compiled kernel."""
