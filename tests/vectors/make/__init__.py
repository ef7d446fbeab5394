"""Writes the conformance vectors: draws cases, asks the definition, rounds (`led-ref vectors write`)."""
