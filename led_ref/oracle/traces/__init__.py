"""Traces: every named intermediate of a run, and the first place where two runs part."""
