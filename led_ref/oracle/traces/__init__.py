"""Traces: the named intermediates of a run, and the first difference between two runs."""
