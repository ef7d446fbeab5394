"""Conformance vectors: known answers for any program that reads JSON and safetensors."""
