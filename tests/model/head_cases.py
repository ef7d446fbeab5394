"""Random LEDs with a head, each with one call: for test_heads.py, and for the two programs that ask transformers.

NumPy alone, so that they can be drawn where transformers 4.57 is, and again where no torch is. What transformers cannot
run is not drawn: windows below 4, or that do not divide the padded length.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from small_led import draw_weights

from led_ref.config import LEDConfig

Arrays = dict[str, np.ndarray]
CASES = 50


@dataclasses.dataclass(frozen=True)
class HeadCase:
    """One LED with a head and one call of it, all of it following from the seed."""

    seed: int
    config: LEDConfig
    weights: Arrays
    call: Arrays  # forward's arguments


def draw_classification(seed: int) -> HeadCase:
    """Every problem_type and none, 1 to 5 labels, 1 to 3 ends of text a row."""
    rng = np.random.default_rng([seed, 457])
    labels = int(rng.integers(1, 6))
    problem = [None, "single_label_classification", "multi_label_classification", "regression"][seed % 4]
    extra: dict[str, Any] = {"id2label": {str(i): f"label {i}" for i in range(labels)}, "problem_type": problem}
    config, batch, length = _draw_sizes(rng, extra)
    call = _draw_documents(rng, config, batch, length)
    ends = int(rng.integers(1, 4))
    for row in call["input_ids"]:
        row[row == config.eos_token_id] = 3
        row[rng.choice(length, size=min(ends, length), replace=False)] = config.eos_token_id
    _draw_decoder(rng, config, call, length)
    if rng.random() < 0.9:
        call["labels"] = _draw_labels(rng, problem, batch, labels)
    shapes = {"dense.weight": (config.d_model, config.d_model), "dense.bias": (config.d_model,)}
    shapes |= {"out_proj.weight": (labels, config.d_model), "out_proj.bias": (labels,)}
    return HeadCase(seed, config, _draw_all(rng, config, seed, "classification_head", shapes), call)


def draw_question(seed: int) -> HeadCase:
    """Positions inside and behind the end; the decoder's ids derived, given, or of another length."""
    rng = np.random.default_rng([seed, 523])
    config, batch, length = _draw_sizes(rng, {})
    call = _draw_documents(rng, config, batch, length)
    if rng.random() < 0.15:
        call["inputs_embeds"] = rng.normal(size=(batch, length, config.d_model))
    target = _draw_decoder(rng, config, call, length, any_length=True)
    if "inputs_embeds" in call:
        call.setdefault("decoder_input_ids", call["input_ids"][:, :target])
        del call["input_ids"]
    if rng.random() < 0.9:
        for name in ("start_positions", "end_positions"):
            call[name] = rng.integers(0, target + 3, (batch, 1) if rng.random() < 0.3 else batch)
            call[name].flat[0] = target - 1  # one term counts, at least
    shapes = {"weight": (2, config.d_model), "bias": (2,)}
    return HeadCase(seed, config, _draw_all(rng, config, seed, "qa_outputs", shapes), call)


def _draw_sizes(rng: np.random.Generator, extra: dict[str, Any]) -> tuple[LEDConfig, int, int]:
    """A configuration, B and T."""
    batch, length = int(rng.integers(1, 4)), int(rng.integers(3, 40))
    heads = [int(h) for h in rng.choice([1, 2, 3, 5], size=2)]
    widest = int(rng.choice([4, 6, 8, 10, 12, 14, 18]))
    padded = math.ceil(length / widest) * widest
    layers = int(rng.integers(1, 3))
    fitting = [w for w in range(4, widest + 1, 2) if padded % w == 0]
    config = LEDConfig(
        vocab_size=int(rng.choice([29, 37, 53])),
        d_model=math.lcm(*heads) * int(rng.choice([2, 3, 4])),
        encoder_layers=layers,
        decoder_layers=int(rng.integers(1, 3)),
        encoder_attention_heads=heads[0],
        decoder_attention_heads=heads[1],
        encoder_ffn_dim=int(rng.choice([5, 11, 31])),
        decoder_ffn_dim=int(rng.choice([7, 13, 29])),
        attention_window=tuple(int(w) for w in rng.permutation([widest, *rng.choice(fitting, size=layers - 1)])),
        max_encoder_position_embeddings=padded + int(rng.integers(0, 3)),
        max_decoder_position_embeddings=length + int(rng.integers(0, 3)),
        extra=extra,
    )
    return config, batch, length


def _draw_documents(rng: np.random.Generator, config: LEDConfig, batch: int, length: int) -> Arrays:
    """Ids, padded on the right, on the left or not at all; global marks on some."""
    call = {"input_ids": rng.integers(3, config.vocab_size, (batch, length))}
    kind = rng.choice(["none", "right", "left"])
    if kind != "none":
        real = np.arange(length) < rng.integers(1, length + 1, (batch, 1))
        call["attention_mask"] = (real if kind == "right" else real[:, ::-1]).astype(np.int64)
        call["input_ids"][call["attention_mask"] == 0] = config.pad_token_id
    if rng.random() < 0.7:
        call["global_attention_mask"] = (rng.random((batch, length)) < 0.2).astype(np.int64)
    return call


def _draw_decoder(
    rng: np.random.Generator, config: LEDConfig, call: Arrays, length: int, *, any_length: bool = False
) -> int:
    """Sometimes the decoder's own ids and mask; U. The first place is never masked: every query sees something."""
    target = length
    if rng.random() < 0.3:
        target = int(rng.integers(1, length + 1)) if any_length else length
        call["decoder_input_ids"] = rng.integers(3, config.vocab_size, (len(call["input_ids"]), target))
    if target > 1 and rng.random() < 0.3:
        call["decoder_attention_mask"] = (rng.random((len(call["input_ids"]), target)) < 0.8).astype(np.int64)
        call["decoder_attention_mask"][:, 0] = 1
    return target


def _draw_labels(rng: np.random.Generator, problem: str | None, batch: int, labels: int) -> np.ndarray:
    if problem == "regression" or (problem is None and labels == 1):
        return rng.normal(size=batch if labels == 1 and rng.random() < 0.5 else (batch, labels))
    if problem == "multi_label_classification" or (problem is None and rng.random() < 0.5):
        return (rng.random((batch, labels)) < 0.5).astype(np.float64)
    return rng.integers(0, labels, batch)


def _draw_all(rng: np.random.Generator, config: LEDConfig, seed: int, head: str, shapes: dict[str, Any]) -> Arrays:
    """The LED's weights and those of the head."""
    weights = {key: value for key, value in draw_weights(config, seed).items() if key != "final_logits_bias"}
    drawn = {f"{head}.{key}": rng.normal(size=shape) / math.sqrt(shape[-1]) for key, shape in shapes.items()}
    return weights | drawn
