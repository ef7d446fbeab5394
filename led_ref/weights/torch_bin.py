"""Reading pytorch_model.bin without PyTorch."""

from pathlib import Path

from led_ref.weights.stored import StoredTensor


def read_torch_bin(path: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a pytorch_model.bin, by memory map."""
    raise NotImplementedError
