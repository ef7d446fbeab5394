"""Conformance vectors: if you port LED to another language, check your port against these numbers."""
