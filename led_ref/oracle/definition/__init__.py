"""LED by definition: float64, n x n, loops written out. It shares no code with what it judges."""
