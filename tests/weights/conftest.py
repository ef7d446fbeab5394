"""Small random LED checkpoints. Their sizes differ, primes where they can be, so that no two axes can be confused."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from led_ref.config import LEDConfig
from led_ref.weights.keys import LM_HEAD, entries

Tensors = dict[str, np.ndarray]
MakeFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def config() -> LEDConfig:
    return LEDConfig(
        vocab_size=53,
        max_encoder_position_embeddings=41,
        max_decoder_position_embeddings=17,
        d_model=14,
        encoder_layers=2,
        encoder_attention_heads=7,
        encoder_ffn_dim=29,
        decoder_layers=3,
        decoder_attention_heads=2,
        decoder_ffn_dim=31,
        attention_window=(4, 6),
    )


@pytest.fixture(scope="session")
def _random(config: LEDConfig) -> Tensors:
    rng = np.random.default_rng(2)
    # Rounded to float16, so that every dtype on disk holds the very same numbers.
    keys = [entry for entry in entries(config) if entry.key != LM_HEAD]
    return {entry.key: rng.standard_normal(entry.shape).astype(np.float16).astype(np.float32) for entry in keys}


@pytest.fixture
def tensors(_random: Tensors) -> Tensors:
    """What transformers 5 would write: every key of a tied LED, the embedding once. A test may spoil them."""
    return dict(_random)


@pytest.fixture
def make_folder(tmp_path: Path, config: LEDConfig) -> MakeFolder:
    """`make_folder(tensors)` writes config.json and the weights; `shards=3` deals them out to that many files."""

    def make(tensors: Mapping[str, np.ndarray], *, shards: int = 1, name: str = "model") -> Path:
        import json

        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        config.save(folder)
        contiguous = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
        if shards == 1:
            save_file(contiguous, folder / "model.safetensors", {"format": "pt"})
            return folder
        files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        weight_map = {key: files[i % shards] for i, key in enumerate(contiguous)}
        for file in files:
            save_file({key: contiguous[key] for key, shard in weight_map.items() if shard == file}, folder / file)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
        return folder

    return make
