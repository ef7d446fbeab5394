"""Levels 2 (with projections) and 3 of the vectors: attention modules, layers, and both stacks, with a model's weights.

Three small models are among the files. Every size is a prime of its own or a product of two, and encoder and decoder
split the same width differently (30 = 3 heads of 10 = 5 heads of 6), so that mixed-up axes cannot pass.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from led_ref.config import LEDConfig
from led_ref.oracle.definition import model as dense
from led_ref.oracle.vectors.format import CONFIG_CHANGES, Array, Case
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, entries
from make.draw import numbers, whole
from make.steps import mask_of

TINY = LEDConfig(
    vocab_size=37,
    d_model=30,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=3,
    decoder_attention_heads=5,
    encoder_ffn_dim=11,
    decoder_ffn_dim=13,
    attention_window=(4, 12),  # the wider a multiple of the other: transformers runs nothing else
    max_encoder_position_embeddings=157,
    max_decoder_position_embeddings=17,
)
MODELS: Mapping[str, LEDConfig] = {
    "tiny": TINY,
    "untied": dataclasses.replace(  # an output projection of its own, one layer each, one window for all
        TINY,
        vocab_size=29,
        d_model=14,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=7,
        attention_window=6,
        max_encoder_position_embeddings=31,
        max_decoder_position_embeddings=11,
        tie_word_embeddings=False,
    ),
    "writer": dataclasses.replace(  # its favourites change with what was written, and it ends a text now and then
        TINY,
        vocab_size=41,
        encoder_layers=1,
        decoder_layers=1,
        attention_window=6,
        max_encoder_position_embeddings=53,
        max_decoder_position_embeddings=29,
    ),
}
FULL_TYPES = ("float64", "float32")  # in half precision, a model that writes may well decide otherwise
# How many steps one after the other (a product, a softmax, a norm, a GELU) each part consists of.
ATTENTION_DEPTH, ENCODER_LAYER_DEPTH, DECODER_LAYER_DEPTH, EMBED_DEPTH = 5, 10, 16, 2


@functools.cache
def weights_of(model: str) -> Mapping[str, Array]:
    """A model's weights by checkpoint key, float32: attention neither flat nor a single peak, and every bias counts."""
    config = MODELS[model]
    loud = 2.0 if model == "writer" else 1.0
    weights = {}
    for entry in entries(config):
        if entry.key == LM_HEAD and config.tie_word_embeddings:
            continue
        name = f"{model}/{entry.key}"
        if "norm" in entry.key and entry.key.endswith("weight"):
            weights[entry.key] = numbers(name, entry.shape, spread=0.2, centre=1.0)
        elif len(entry.shape) == 1 or entry.key == FINAL_LOGITS_BIAS:
            weights[entry.key] = numbers(name, entry.shape, spread=0.3)
        else:
            weights[entry.key] = numbers(name, entry.shape, spread=loud * 1.3 / math.sqrt(entry.shape[1]))
    if model == "writer":
        weights[FINAL_LOGITS_BIAS][0, [2, 5, 7]] = 2.5
    return weights


def case_config(model: str, arguments: Mapping[str, Any]) -> LEDConfig:
    """A model's configuration with the windows and the activation function that a case asks for, if it does."""
    changes = {name: arguments[name] for name in CONFIG_CHANGES if name in arguments}
    return dataclasses.replace(MODELS[model], **changes)


# ---- L2: attention modules -------------------------------------------------------------------------------------------


def attention_modules() -> Iterator[Case]:
    """`encoder_attention`, `decoder_attention`, `cross_attention`: with all projections, the one behind it included."""
    batch = [("11111111111", "10000000000"), ("11111110000", "00100100000")]
    for name, masks, flags in (
        ("mixed-globals", batch, ("padding", "batch", "globals_vary")),
        ("no-global", [("11111111111", None), ("11111110000", None)], ("padding", "batch", "global_none")),
        ("all-global", [("11111111111", 11 * "1")], ("global_all",)),
        ("global-mask-padded", [("11111111111", "1000000----")], ("padding", "global_on_pad")),
    ):
        inputs = _source_masks(masks)
        yield _module_case(f"L2-encoder-attention-{name}", "encoder_attention", inputs, 11, len(masks), flags)
    for name, seen, flags in (("causal", None, ("causal",)), ("padded", "1111100", ("causal", "padding"))):
        inputs = {} if seen is None else {"decoder_attention_mask": mask_of(seen, 7, 1)[None]}
        yield _module_case(f"L2-decoder-attention-{name}", "decoder_attention", inputs, 7, 1, flags)
    for name, rows, flags in (
        ("all", ["1" * 13, "1" * 13], ("batch",)),
        ("padded", ["1" * 13, "1111111000000"], ("batch", "padding")),
        ("nothing-to-read", ["1" * 13, "0" * 13], ("batch", "padding", "all_masked_row")),
    ):
        case = f"L2-cross-attention-{name}"
        inputs = {"attention_mask": np.stack([mask_of(row, 13, 1) for row in rows])}
        inputs["states"] = numbers(f"{case}/states", (2, 13, TINY.d_model), spread=1.0)
        yield _module_case(case, "cross_attention", inputs, 5, 2, flags)


def _module_case(
    case: str, operation: str, inputs: Mapping[str, Array], length: int, batch: int, flags: tuple[str, ...]
) -> Case:
    x = numbers(f"{case}/x", (batch, length, TINY.d_model), spread=1.0)
    inputs, arguments = {"x": x, **inputs}, {"layer": 1}
    right = {"y": module_by_definition(operation, inputs, 1)}
    answers: tuple[Mapping[str, Array], ...] = (right,)
    more: dict[str, Any] = {}
    if "all_masked_row" in flags:  # transformers' row takes the mean of all values: as if all were seen, and all alike
        even = {"y": right["y"].copy()}
        alike = np.broadcast_to(inputs["states"][1].mean(axis=0, dtype=np.float64), inputs["states"][1].shape)
        even["y"][1] = module_by_definition(
            operation, {"x": x[1:], "states": alike[None], "attention_mask": np.ones((1, 13), np.int64)}, 1
        )[0]
        answers = (right, even)
        comment = "A document of nothing but padding is not seen; transformers takes the mean of its values."
        more = {"result": "acceptable", "comment": comment}
    return Case(
        case, operation, model="tiny", inputs=inputs, arguments=arguments, answers=answers,
        depth=ATTENTION_DEPTH, flags=flags, **more,
    )  # fmt: skip


def module_by_definition(operation: str, inputs: Mapping[str, Array], layer: int) -> Array:
    """One attention module of the tiny model, each document for itself: (B, length, D)."""
    weights, config = weights_of("tiny"), TINY
    rows = []
    for b, x_TD in enumerate(inputs["x"].astype(np.float64)):
        if operation == "encoder_attention":
            kinds_T = kinds_of(inputs, x_TD.shape[0])[b]
            may_look_TT = dense.who_sees_whom(kinds_T, config.radii[layer])
            name = f"led.encoder.layers.{layer}.self_attn"
            heads = config.encoder_attention_heads
            y_TD, _ = dense._encoder_attention(weights, name, x_TD, kinds_T, may_look_TT, heads)
        else:
            y_TD = _decoder_module(operation, f"led.decoder.layers.{layer}", inputs, b, x_TD)
        rows.append(y_TD)
    return np.stack(rows)


def _decoder_module(operation: str, name: str, inputs: Mapping[str, Array], b: int, x_UD: Array) -> Array:
    """`decoder_attention` or `cross_attention` of one document."""
    weights, heads, length = weights_of("tiny"), TINY.decoder_attention_heads, len(x_UD)
    if operation == "decoder_attention":
        may_look_US = np.tril(np.ones((length, length), np.bool_))
        if "decoder_attention_mask" in inputs:
            may_look_US &= inputs["decoder_attention_mask"][b] == 1
        return dense._decoder_attention(weights, f"{name}.self_attn", x_UD, x_UD, may_look_US, heads)[0]
    states_TD = inputs["states"][b].astype(np.float64)
    may_look_US = np.tile(inputs["attention_mask"][b] == 1, (length, 1))
    return dense._decoder_attention(weights, f"{name}.encoder_attn", x_UD, states_TD, may_look_US, heads)[0]


def kinds_of(inputs: Mapping[str, Array], length: int) -> Array:
    """0 masked, 1 local, 2 global, (B, T)."""
    batch = len(next(iter(inputs.values())))
    return dense.token_kinds((batch, length), inputs.get("attention_mask"), inputs.get("global_attention_mask"))


def _source_masks(rows: Sequence[tuple[str, str | None]]) -> dict[str, Array]:
    """Both masks of a batch from digits; no global mask at all where no row has one."""
    masks = {"attention_mask": np.stack([mask_of(seen, len(seen), 1) for seen, _ in rows])}
    if any(marks for _, marks in rows):
        masks["global_attention_mask"] = np.stack([mask_of(marks, len(seen), 0) for seen, marks in rows])
    return masks


# ---- L3: layers ------------------------------------------------------------------------------------------------------


def layers() -> Iterator[Case]:
    """`encoder_layer`, `decoder_layer`, `encoder`, `encoder_attentions`, `decoder`."""
    masks = _source_masks([("1111111111111", "1000000000000"), ("1111111111000", "0000000010000")])
    case = "L3-encoder-layer"
    inputs = {"x": numbers(f"{case}/x", (2, 13, TINY.d_model), spread=1.0), **masks}
    answer = {"y": _encoder_layer(inputs)}
    flags: tuple[str, ...] = ("batch", "padding", "globals_vary")
    yield Case(case, "encoder_layer", model="tiny", inputs=inputs, arguments={"layer": 1}, answers=(answer,),
               depth=ENCODER_LAYER_DEPTH, flags=flags)  # fmt: skip
    case = "L3-decoder-layer"
    inputs = {
        "x": numbers(f"{case}/x", (2, 7, TINY.d_model), spread=1.0),
        "states": numbers(f"{case}/states", (2, 13, TINY.d_model), spread=1.0),
        "attention_mask": masks["attention_mask"],
    }
    answer = {"y": _decoder_layer(inputs)}
    yield Case(case, "decoder_layer", model="tiny", inputs=inputs, arguments={"layer": 1}, answers=(answer,),
               depth=DECODER_LAYER_DEPTH, flags=("batch", "padding", "causal"))  # fmt: skip
    yield from _encoders()
    yield from _encoder_attentions()
    yield from _decoders()


def _encoder_layer(inputs: Mapping[str, Array]) -> Array:
    weights, name = weights_of("tiny"), "led.encoder.layers.1"
    x_BTD = inputs["x"].astype(np.float64) + module_by_definition("encoder_attention", inputs, 1)
    return _feed_forward(weights, name, dense._layer_norm(weights, f"{name}.self_attn_layer_norm", x_BTD))


def _decoder_layer(inputs: Mapping[str, Array]) -> Array:
    weights, name = weights_of("tiny"), "led.decoder.layers.1"
    x_BUD = inputs["x"].astype(np.float64)
    x_BUD = x_BUD + module_by_definition("decoder_attention", {"x": x_BUD}, 1)
    x_BUD = dense._layer_norm(weights, f"{name}.self_attn_layer_norm", x_BUD)
    x_BUD = x_BUD + module_by_definition("cross_attention", {**inputs, "x": x_BUD}, 1)
    return _feed_forward(weights, name, dense._layer_norm(weights, f"{name}.encoder_attn_layer_norm", x_BUD))


def _feed_forward(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    return dense._layer_norm(weights, f"{name}.final_layer_norm", x + dense._feed_forward(weights, name, x, "gelu"))


_ENCODERS: Mapping[str, tuple[str, list[tuple[str, str | None]], Any, tuple[str, ...]]] = {
    "mixed": ("tiny", [(23 * "1", "1" + 22 * "0"), (17 * "1" + 6 * "0", "0001" + 13 * "0" + "1" + 5 * "0")], None,
              ("batch", "padding", "globals_vary", "global_on_pad", "per_layer_windows", "n_not_multiple")),
    "no-global": ("tiny", [(20 * "1", None)], None, ("global_none", "per_layer_windows")),
    "short": ("tiny", [("11111", "10000")], 32, ("n_lt_window",)),
    "one-token": ("tiny", [("1", None)], None, ("n_lt_window", "global_none", "per_layer_windows")),
    "all-global": ("tiny", [(11 * "1", 11 * "1")], None, ("global_all", "per_layer_windows", "n_not_multiple")),
    "window-2": ("tiny", [(11 * "1", "1" + 10 * "0")], [2, 2], ("n_not_multiple",)),
    "odd-windows": ("tiny", [(19 * "1", "1" + 18 * "0")], [10, 6], ("per_layer_windows", "n_not_multiple")),
    "padding-left": ("untied", [(5 * "0" + 8 * "1", 5 * "0" + "1" + 7 * "0")], None, ("padding", "n_not_multiple")),
    "long": ("untied", [(31 * "1", "1" + 30 * "0")], None, ("full_length", "n_not_multiple")),
}  # fmt: skip


def _encoders() -> Iterator[Case]:
    for name, (model, rows, window, flags) in _ENCODERS.items():
        case = f"L3-encoder-{name}"
        yield encoder_case(
            case, model, _source_masks(rows), {} if window is None else {"attention_window": window}, flags
        )
    case = "L3-encoder-embeds"
    embeds = {"inputs_embeds": numbers(f"{case}/embeds", (1, 9, TINY.d_model), spread=1.0)}
    masks = _source_masks([("111111111", "100000000")])
    flags = ("inputs_embeds", "per_layer_windows", "n_not_multiple")
    yield encoder_case(case, "tiny", embeds | masks, {}, flags)
    case = "L3-encoder-many-blocks"
    masks = _source_masks([(149 * "1", "1" + 148 * "0")])
    yield encoder_case(case, "tiny", masks, {"attention_window": [8, 8]}, ("long", "n_not_multiple"))


def encoder_case(
    case: str, model: str, inputs: Mapping[str, Array], arguments: Mapping[str, Any], flags: tuple[str, ...]
) -> Case:
    """The states after the embedding and after each layer, of ids that are drawn unless embeddings are given."""
    config = case_config(model, arguments)
    if "inputs_embeds" not in inputs:
        inputs = {"input_ids": source_ids(case, inputs["attention_mask"], config), **inputs}
    states = encode(model, inputs, arguments).hidden_states
    shown = range(len(states)) if "long" not in flags else [len(states) - 1]
    answer = {f"hidden_states_{i}": states[i] for i in shown}
    depth = EMBED_DEPTH + ENCODER_LAYER_DEPTH * config.encoder_layers
    return Case(
        case, "encoder", model=model, inputs=inputs, arguments=arguments, answers=(answer,), depth=depth, flags=flags
    )


def source_ids(case: str, mask_BT: Array, config: LEDConfig) -> Array:
    """Ids that are no special ones where the mask is 1, pad elsewhere."""
    return np.where(mask_BT == 1, whole(f"{case}/input_ids", mask_BT.shape, 4, config.vocab_size), 1)


def encode(model: str, inputs: Mapping[str, Array], arguments: Mapping[str, Any]) -> dense.Encoded:
    """The definition's encoder on a case's inputs."""
    return dense.encode(
        weights_of(model),
        case_config(model, arguments),
        inputs.get("input_ids"),
        inputs.get("attention_mask"),
        inputs.get("global_attention_mask"),
        inputs_embeds_BTD=inputs.get("inputs_embeds"),
    )


def _encoder_attentions() -> Iterator[Case]:
    """Probabilities in transformers' layout; where a document has fewer globals than another, transformers fills up."""
    for name, rows, flags in (
        ("alike", [("11111111111", "10000100000")], ("n_not_multiple",)),
        (
            "filler",
            [("11111111111", "10000100000"), ("11111110000", "00010000000")],
            ("filler_columns", "batch", "padding"),
        ),
    ):
        case = f"L3-encoder-attentions-{name}"
        masks, config = _source_masks(rows), TINY
        inputs = {"input_ids": source_ids(case, masks["attention_mask"], config), **masks}
        found = encode("tiny", inputs, {})
        local = {f"attentions_{i}": table for i, table in enumerate(found.attentions)}
        right = local | {f"global_attentions_{i}": table for i, table in enumerate(found.global_attentions)}
        answers: tuple[Mapping[str, Array], ...] = (right,)
        more: dict[str, Any] = {}
        if "filler_columns" in flags:
            filled = {key: table.copy() for key, table in right.items()}
            padded = -(-11 // max(config.windows)) * max(config.windows)
            for i in range(config.encoder_layers):
                filled[f"global_attentions_{i}"][1, :, :, 1] = 1 / padded
            comment = (
                "Columns of globals that a document does not have: zero; in transformers one over the padded length."
            )
            answers, more = (right, filled), {"result": "acceptable", "comment": comment}
        depth = EMBED_DEPTH + ENCODER_LAYER_DEPTH * config.encoder_layers
        yield Case(
            case, "encoder_attentions", model="tiny", inputs=inputs, answers=answers, depth=depth, flags=flags, **more
        )


def _decoders() -> Iterator[Case]:
    for name, model, shape, length, seen, target_seen, flags in (
        ("plain", "tiny", (2, 7), 11, None, None, ("batch", "causal")),
        (
            "padded",
            "tiny",
            (2, 5),
            11,
            ["11111111111", "11111110000"],
            ["11111", "11100"],
            ("batch", "causal", "padding"),
        ),
        ("one-token", "untied", (1, 1), 13, None, None, ("causal",)),
        ("full-length", "untied", (1, 11), 3, None, None, ("causal", "full_length")),
    ):
        case, config = f"L3-decoder-{name}", MODELS[model]
        batch, target = shape
        inputs: dict[str, Array] = {
            "decoder_input_ids": whole(f"{case}/decoder_input_ids", shape, 4, config.vocab_size),
            "states": numbers(f"{case}/states", (batch, length, config.d_model), spread=1.0),
        }
        if seen is not None and target_seen is not None:
            inputs["attention_mask"] = np.stack([mask_of(row, length, 1) for row in seen])
            inputs["decoder_attention_mask"] = np.stack([mask_of(row, target, 1) for row in target_seen])
        found = dense.decode(
            weights_of(model), config, inputs["decoder_input_ids"], inputs["states"],
            inputs.get("attention_mask"), inputs.get("decoder_attention_mask"),
        )  # fmt: skip
        answer = {f"hidden_states_{i}": state for i, state in enumerate(found.hidden_states)}
        depth = EMBED_DEPTH + DECODER_LAYER_DEPTH * config.decoder_layers
        yield Case(case, "decoder", model=model, inputs=inputs, answers=(answer,), depth=depth, flags=flags)
