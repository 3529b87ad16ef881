"""Arithmetic settled once for a run: data type, threads, compiled kernel."""
