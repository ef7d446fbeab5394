"""Random starts, and a start with more positions.

    python docs/recipes/start.py new WORK/start --vocabulary WORK/vocabulary --width 192 --encoder-layers 3 --decoder-layers 2
    python docs/recipes/start.py tile WORK/short WORK/start_long --positions 8192

`new` draws the weights: matrices normally distributed with deviation 0.02, biases 0, norms 1, the row of <pad> 0.
`tile` repeats the positions, as the paper does with BART's (section 7): neighbours keep their distance. A model for answers or
labels reads the document with its decoder, too, which then needs as many positions (--targets).
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from led_ref import LEDConfig, LEDTokenizer
from led_ref.tools.random_weights import random_weights
from led_ref.weights.safetensors_file import read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import StoredTensor

POSITIONS = "led.encoder.embed_positions.weight"
TARGETS = "led.decoder.embed_positions.weight"
TABLE = "led.shared.weight"
HEAD_WIDTH = 32
# How the trained models write, unless they are told otherwise: generation_config.json.
SEARCH = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "max_length": 256,
    "num_beams": 4,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "length_penalty": 1.0,
}


def new(
    out: Path,
    vocabulary: Path,
    *,
    width: int,
    encoder_layers: int,
    decoder_layers: int,
    positions: int,
    targets: int,
    window: int,
    seed: int,
) -> None:
    """Write a model of random weights with the vocabulary's files."""
    out.mkdir(exist_ok=True)
    size = len(json.loads((vocabulary / "vocab.json").read_text(encoding="utf-8")))
    config = LEDConfig(
        vocab_size=size,
        d_model=width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=width // HEAD_WIDTH,
        decoder_attention_heads=width // HEAD_WIDTH,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        attention_window=[window] * encoder_layers,
        max_encoder_position_embeddings=positions,
        max_decoder_position_embeddings=targets,
    )
    weights = random_weights(config, seed=seed)
    for key, values in weights.items():
        if key.endswith(".bias") or key.endswith("_bias"):
            values[...] = 0
        elif "norm" in key:
            values[...] = 1
    weights[TABLE][config.pad_token_id] = 0
    LEDTokenizer.from_pretrained(vocabulary).save_pretrained(out)
    (out / "generation_config.json").write_text(json.dumps(SEARCH, indent=2) + "\n", encoding="utf-8")
    _write(out, config, weights)


def tile(source: Path, out: Path, *, positions: int, targets: int | None) -> None:
    """Write a model with other numbers of positions: those that are there repeated, or the first of them."""
    out.mkdir(exist_ok=True)
    config = LEDConfig.from_pretrained(source)
    stored = read_safetensors(source / "model.safetensors")  # in float16, if it is one of docs/recipes/trained
    weights = {key: tensor.to_numpy() for key, tensor in stored.items()}
    targets = targets or config.max_decoder_position_embeddings
    for key, rows in ((POSITIONS, positions), (TARGETS, targets)):
        weights[key] = np.resize(weights[key], (rows, config.d_model))  # np.resize repeats
    sizes = {"max_encoder_position_embeddings": positions, "max_decoder_position_embeddings": targets}
    LEDTokenizer.from_pretrained(source).save_pretrained(out)
    if (source / "generation_config.json").exists():
        shutil.copy(source / "generation_config.json", out)
    _write(out, replace(config, **sizes), weights)


def _write(out: Path, config: LEDConfig, weights: dict[str, np.ndarray]) -> None:
    """Write config.json and model.safetensors; config.json comes last, and says that the folder is whole."""
    tensors = {key: StoredTensor("F32", np.ascontiguousarray(values)) for key, values in weights.items()}
    write_safetensors(out / "model.safetensors", tensors, {"format": "pt"})
    config.save(out)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("new")
    made.add_argument("out", type=Path)
    made.add_argument("--vocabulary", type=Path, required=True)
    for name, default in (
        ("width", 192),
        ("encoder-layers", 3),
        ("decoder-layers", 2),
        ("positions", 1024),
        ("targets", 256),
        ("window", 128),
        ("seed", 1),
    ):
        made.add_argument(f"--{name}", type=int, default=default)
    tiled = commands.add_parser("tile")
    tiled.add_argument("source", type=Path)
    tiled.add_argument("out", type=Path)
    tiled.add_argument("--positions", type=int, required=True)
    tiled.add_argument("--targets", type=int, help="of the decoder (default: as many as there are)")
    options = vars(parser.parse_args())
    {"new": new, "tile": tile}[options.pop("command")](**options)


if __name__ == "__main__":
    main()
