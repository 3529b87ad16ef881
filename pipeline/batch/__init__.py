"""The batch flow over many inputs: begin, resume, finish; and backfill."""
