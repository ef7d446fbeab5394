"""The oracle: LED by definition, traces of a run and their differences, and conformance vectors for other programs."""
