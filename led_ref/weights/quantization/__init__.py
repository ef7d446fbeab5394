"""Matrices kept in 8 or 4 bits: how they are rounded, and how they lie in a file."""
