"""Random weights of a configuration: they cost as much time and memory as trained ones."""

from pathlib import Path

import numpy as np

from led_backends.contract import HostArray
from led_ref.config import LEDConfig
from led_ref.weights.keys import LM_HEAD, entries
from led_ref.weights.safetensors_file import write_safetensors
from led_ref.weights.stored_tensor import StoredTensor


def random_weights(config: LEDConfig, *, seed: int = 0) -> dict[str, HostArray]:
    """Normally distributed weights by checkpoint key, float32: deviation 0.02 around 0, norms' weights around 1."""
    rng, weights = np.random.default_rng(seed), {}
    for entry in entries(config):
        if entry.key != LM_HEAD:
            values = rng.standard_normal(entry.shape, dtype=np.float32) * np.float32(0.02)
            weights[entry.key] = values + 1 if "norm" in entry.key and entry.key.endswith(".weight") else values
    return weights


def write_random_checkpoint(folder: Path, config: LEDConfig, *, seed: int = 0) -> None:
    """Write a checkpoint with `random_weights`, as safetensors."""
    tensors = {key: StoredTensor("F32", values) for key, values in random_weights(config, seed=seed).items()}
    config.save(folder)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
