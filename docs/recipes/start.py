"""Random starts, a start with more positions, and the mean of two models.

    python docs/recipes/start.py new WORK/start --vocabulary WORK/vocabulary --width 192 --encoder-layers 3 --decoder-layers 2
    python docs/recipes/start.py tile WORK/short WORK/start_long --positions 8192
    python docs/recipes/start.py mean WORK/before WORK/after WORK/mean

`new` draws the weights so that copying is learned early (`first_weights` says how): a summary repeats names of its document,
and with weights as transformers draws them, 37 million tokens taught it for short names alone.
`tile` repeats the positions, as the paper does with BART's (section 7): neighbours keep their distance. A model for answers or
labels reads the document with its decoder, too, which then needs as many positions (--targets).
`mean` is of the weights before and after a training on other examples: it keeps most of what both can (arXiv 2109.01903).
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from led_ref import LEDConfig, LEDTokenizer
from led_ref.tools.random_weights import random_weights
from led_ref.weights.find_files import read_tensors
from led_ref.weights.safetensors_file import write_safetensors
from led_ref.weights.stored_tensor import StoredTensor

POSITIONS = "led.encoder.embed_positions.weight"
TARGETS = "led.decoder.embed_positions.weight"
TABLE = "led.shared.weight"
HEAD_WIDTH = 32
# Of the copying circuit that a new model begins with: first_weights.
SPEEDS = np.geomspace(2, 0.005, HEAD_WIDTH // 2)  # of the sines, in radians a token: 3 to 1,257 tokens a turn
DEVIATION_OF_TOKENS = 0.05
SHARPNESS_OF_POSITIONS = 2.0
SHARPNESS_OF_TOKENS = 1.2
SHARE_OF_OTHERS = 0.2  # of what is added to the residual, where it is not set by hand
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
    weights = first_weights(config, seed)
    LEDTokenizer.from_pretrained(vocabulary).save_pretrained(out)
    (out / "generation_config.json").write_text(json.dumps(SEARCH, indent=2) + "\n", encoding="utf-8")
    _write(out, config, weights)


def first_weights(config: LEDConfig, seed: int) -> dict[str, np.ndarray]:
    """Weights to begin with: biases 0, norms 1, matrices normally distributed, and a copying circuit that is set by hand.

    Copying is what induction heads do (arXiv 2209.11895): find where the last words stand in the document, and write the word
    that follows there. It needs three layers to fit together, which random weights find late; here they fit from the start.

    - Positions and tokens begin in dimensions of their own. Positions are sines and cosines (section 3.5 of arXiv 1706.03762),
      the same ones in encoder and decoder.
    - Heads of the first encoder layer look at the token before and the token after, those of the first decoder layer at the
      last token but one and the one before it (`looking_by`). One orthogonal matrix and its transpose are value and output,
      so a token gets half of each neighbour added: the earlier one by the first heads, the other by the others.
    - Cross-attention has query = key: it looks where the document has the same token after the same token. Of what it finds it
      takes along the half to which the token after was added: the next word, and less of the others.
    - What the other layers add is small at first, and does not blur this.

    All of it is trained on like any other weight.
    """
    weights = random_weights(config, seed=seed)
    width = config.d_model
    for key, values in weights.items():
        if key in (POSITIONS, TARGETS):
            values[...] = sinusoids(*values.shape)
        elif key == TABLE:
            values *= DEVIATION_OF_TOKENS / values.std()
            values[:, :HEAD_WIDTH] = 0
            values[config.pad_token_id] = 0
        elif key.endswith("bias"):
            values[...] = 0
        elif "norm" in key:
            values[...] = 1
        elif key.endswith(".weight"):
            is_added = key.endswith(("output.weight", "out_proj.weight", "fc2.weight"))  # to the residual
            values *= (SHARE_OF_OTHERS if is_added else 1) * width**-0.5 / values.std()

    random = np.random.default_rng(seed)
    look, take = (np.linalg.qr(random.normal(size=(width, width)))[0] for _ in range(2))
    look[:, :HEAD_WIDTH] = take[:, :HEAD_WIDTH] = 0  # of tokens alone
    heads = config.encoder_attention_heads
    first = heads // 2
    of_next = take.T.copy()
    of_next[:, : first * HEAD_WIDTH] = 0

    def attention(prefix: str, query: np.ndarray, key: np.ndarray, value: np.ndarray, output: np.ndarray) -> None:
        inner, names = prefix, ("q_proj", "k_proj", "v_proj", "out_proj")
        if "encoder.layers" in prefix:
            inner, names = prefix + "longformer_self_attn.", ("query", "key", "value", "output")
        for where, name, values in zip((inner, inner, inner, prefix), names, (query, key, value, output), strict=True):
            weights[f"{where}{name}.weight"][...] = values

    beside, above = ([-1] * first + [other] * (heads - first) for other in (1, -2))
    attention("led.encoder.layers.0.self_attn.", *looking_by(beside, width), take, take.T)
    attention("led.decoder.layers.0.self_attn.", *looking_by(above, width), take, take.T)
    for layer in range(config.decoder_layers):
        sharp = SHARPNESS_OF_TOKENS * look
        attention(f"led.decoder.layers.{layer}.encoder_attn.", sharp, sharp, take, of_next)
    return weights


def sinusoids(rows: int, width: int) -> np.ndarray:
    """(rows, width): sines, then cosines, of so many positions, and zeros where tokens begin; as large as a token.

    Example:
        >>> values = sinusoids(8, 64)
        >>> float(values[0, 16].round(4)), bool(values[:, 32:].any())  # cos(0) times DEVIATION_OF_TOKENS times the root of 2
        (0.0707, False)
    """
    angles = np.arange(rows)[:, None] * SPEEDS
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return DEVIATION_OF_TOKENS * np.sqrt(2) * np.pad(waves, ((0, 0), (0, width - HEAD_WIDTH)))


def looking_by(distances: list[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (width, width) of query and key, whose heads look at the token so many positions further.

    A key is the sines and cosines of its position; a query those of its position plus the distance. Adding to an angle is a
    rotation: sin(a + d) = sin(a) cos(d) + cos(a) sin(d), cos(a + d) = cos(a) cos(d) - sin(a) sin(d).
    """
    query, key = np.zeros((2, len(distances), HEAD_WIDTH, width))
    for head, distance in enumerate(distances):
        cosine, sine = np.diag(np.cos(SPEEDS * distance)), np.diag(np.sin(SPEEDS * distance))
        query[head, :, :HEAD_WIDTH] = np.block([[cosine, sine], [-sine, cosine]])
        key[head, :, :HEAD_WIDTH] = np.eye(HEAD_WIDTH)
    return SHARPNESS_OF_POSITIONS * query.reshape(width, width), SHARPNESS_OF_POSITIONS * key.reshape(width, width)


def tile(source: Path, out: Path, *, positions: int, targets: int | None) -> None:
    """Write a model with other numbers of positions: those that are there repeated, or the first of them."""
    out.mkdir(exist_ok=True)
    config = LEDConfig.from_pretrained(source)
    stored = read_tensors(source)  # in float16 and of two files, if it is the model that is shipped
    weights = {key: tensor.to_numpy() for key, tensor in stored.items()}
    targets = targets or config.max_decoder_position_embeddings
    for key, rows in ((POSITIONS, positions), (TARGETS, targets)):
        weights[key] = np.resize(weights[key], (rows, config.d_model))  # np.resize repeats
    sizes = {"max_encoder_position_embeddings": positions, "max_decoder_position_embeddings": targets}
    LEDTokenizer.from_pretrained(source).save_pretrained(out)
    if (source / "generation_config.json").exists():
        shutil.copy(source / "generation_config.json", out)
    _write(out, replace(config, **sizes), weights)


def mean(before: Path, after: Path, out: Path) -> None:
    """Write the model whose weights are the mean of those of two models of one size."""
    out.mkdir(exist_ok=True)
    stored = read_tensors(before), read_tensors(after)
    weights = {key: (stored[0][key].to_numpy() + tensor.to_numpy()) / 2 for key, tensor in stored[1].items()}
    LEDTokenizer.from_pretrained(after).save_pretrained(out)
    if (after / "generation_config.json").exists():
        shutil.copy(after / "generation_config.json", out)
    _write(out, LEDConfig.from_pretrained(after), weights)


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
    averaged = commands.add_parser("mean")
    for name in ("before", "after", "out"):
        averaged.add_argument(name, type=Path)
    options = vars(parser.parse_args())
    {"new": new, "tile": tile, "mean": mean}[options.pop("command")](**options)


if __name__ == "__main__":
    main()
