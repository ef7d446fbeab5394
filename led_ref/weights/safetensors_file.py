"""Reading and writing .safetensors files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from led_ref.weights.stored import StoredTensor


def read_header(path: str | Path) -> dict[str, Any]:
    """The checked header of the file: name -> entry; touches no data."""
    raise NotImplementedError


def read_safetensors(path: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a file, by memory map."""
    raise NotImplementedError


def write_safetensors(
    path: str | Path, tensors: Mapping[str, tuple[str, tuple[int, ...], Any]], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a file, whole or not at all."""
    raise NotImplementedError
