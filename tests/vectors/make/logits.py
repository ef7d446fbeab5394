"""Level 4 of the vectors: logits, loss, decoding in parts with a cache, and what a model must refuse.

`forward`: input_ids (or inputs_embeds) and both masks, decoder_input_ids (or labels, from which they follow) -> logits
(B, U, V), and with labels the loss. `decode_in_parts` is the same with the target handed over piece by piece.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from led_ref.config import ACTIVATIONS
from led_ref.oracle.definition import model as dense
from led_ref.oracle.vectors.format import Array, Case
from make.draw import numbers, whole
from make.layers import (
    DECODER_LAYER_DEPTH,
    EMBED_DEPTH,
    ENCODER_LAYER_DEPTH,
    MODELS,
    TINY,
    case_config,
    encode,
    source_ids,
    weights_of,
)
from make.steps import mask_of

NOTHING: Mapping[str, Any] = {}


def cases() -> Iterator[Case]:
    """The cases of level 4."""
    yield from _losses()
    yield from _forwards()
    yield from _activations()
    yield from _in_parts()
    yield from _refused()


def _losses() -> Iterator[Case]:
    """`loss`: logits (B, U, V) and labels (B, U) -> the mean of `log sum exp(logits) - logits[label]` where label >= 0."""
    for name, labels, spread, flags in (
        ("all", [[3, 0, 6], [5, 5, 1]], 1.0, ()),
        ("ignored", [[3, -100, 6], [-100, 5, -100]], 1.0, ("ignored_labels",)),
        ("large", [[3, -100, 6], [0, 5, 2]], 64.0, ("ignored_labels", "large_values")),
    ):
        case = f"L4-loss-{name}"
        logits = numbers(f"{case}/logits", (2, 3, 7), spread=spread, step=spread / 64)
        inputs: dict[str, Array] = {"logits": logits, "labels": np.array(labels)}
        answer = {"loss": np.asarray(dense.loss(logits.astype(np.float64), labels))}
        yield Case(case, "loss", inputs=inputs, answers=(answer,), depth=2, flags=flags)


_SOURCES: Mapping[str, list[tuple[str, str]]] = {
    "one": [("1111111111111", "1000000000000")],
    "two": [("1111111111111", "1000000000000"), ("1111111110000", "0010000000000")],
    "plain": [("1111111111111", "0000000000000")],
}


def _source(case: str, model: str, kind: str) -> dict[str, Array]:
    rows = _SOURCES[kind]
    mask = np.stack([mask_of(seen, 13, 1) for seen, _ in rows])
    marks = np.stack([mask_of(marks, 13, 0) for _, marks in rows])
    ids = source_ids(case, mask, MODELS[model])
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks}


def forward_depth(model: str) -> int:
    """Steps from ids to logits."""
    config = MODELS[model]
    layers = ENCODER_LAYER_DEPTH * config.encoder_layers + DECODER_LAYER_DEPTH * config.decoder_layers
    return 2 * EMBED_DEPTH + layers + 1


def _forwards() -> Iterator[Case]:
    padded = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    for name, model, kind, target, flags in (
        ("batch", "tiny", "two", {"decoder_input_ids": (2, 7)}, ("batch", "padding", "globals_vary")),
        ("target-padded", "tiny", "two", {"decoder_input_ids": (2, 5)}, ("batch", "padding")),
        ("labels", "tiny", "two", {"labels": (2, 7)}, ("batch", "padding", "ignored_labels")),
        ("untied", "untied", "one", {"decoder_input_ids": (1, 11)}, ("untied_output", "full_length")),
        ("no-global", "untied", "plain", {"decoder_input_ids": (1, 3)}, ("global_none", "untied_output")),
        ("embeds", "tiny", "one", {"decoder_inputs_embeds": (1, 5, TINY.d_model)}, ("inputs_embeds",)),
    ):
        case = f"L4-forward-{name}"
        inputs = _source(case, model, kind)
        for key, shape in target.items():
            if key == "decoder_inputs_embeds":
                inputs[key] = numbers(f"{case}/{key}", shape, spread=0.5)
                inputs["inputs_embeds"] = numbers(f"{case}/inputs_embeds", (1, 13, TINY.d_model), spread=0.5)
                del inputs["input_ids"]
            else:
                inputs[key] = whole(f"{case}/{key}", shape, 4, MODELS[model].vocab_size)
        if "labels" in inputs:
            inputs["labels"][1, 4:] = -100
        if name == "target-padded":
            inputs["decoder_attention_mask"] = padded
        answers = (forward(model, inputs),)
        yield Case(
            case, "forward", model=model, inputs=inputs, answers=answers, depth=forward_depth(model), flags=flags
        )


def _activations() -> Iterator[Case]:
    """`forward` of a model whose config.json names another activation function: the argument `activation_function`."""
    for name in ACTIVATIONS[1:]:
        case, arguments = f"L4-forward-{name.replace('_', '-')}", {"activation_function": name}
        inputs = _source(case, "tiny", "one")
        inputs["decoder_input_ids"] = whole(f"{case}/decoder_input_ids", (1, 5), 4, TINY.vocab_size)
        answer = forward("tiny", inputs, arguments=arguments)
        yield Case(case, "forward", model="tiny", inputs=inputs, arguments=arguments, answers=(answer,),
                   depth=forward_depth("tiny"), flags=("other_activation",))  # fmt: skip


def forward(
    model: str, inputs: Mapping[str, Array], states: Array | None = None, arguments: Mapping[str, Any] = NOTHING
) -> dict[str, Array]:
    """The definition's logits, and with labels its loss."""
    config = case_config(model, arguments)
    if states is None:
        states = encode(model, inputs, arguments).hidden_states[-1]
    ids = inputs.get("decoder_input_ids")
    if ids is None and "labels" in inputs:
        ids = dense.decoder_ids_from_labels(inputs["labels"], config)
    decoded = dense.decode(
        weights_of(model), config, ids, states, inputs.get("attention_mask"), inputs.get("decoder_attention_mask"),
        inputs_embeds_BUD=inputs.get("decoder_inputs_embeds"),
    )  # fmt: skip
    answer = {"logits": decoded.logits}
    if "labels" in inputs:
        answer["loss"] = np.asarray(dense.loss(decoded.logits, inputs["labels"]))
    return answer


def _in_parts() -> Iterator[Case]:
    """The target in parts, the logits of all parts behind one another.

    Arguments: `parts`, the lengths; `rows_per_document`, how many target rows each document has (they are adjacent);
    `parents`, one list for each part: row n of this part goes on from row parents[n] as it stood after the part before;
    null where rows go on from themselves. decoder_input_ids hold the ids of each part as they are handed over.
    """
    for name, parts, rows, parents, flags in (
        ("one-by-one", [1, 1, 1, 1, 1], 1, [None] * 5, ("cache", "batch", "padding")),
        ("prompt", [4, 1, 2], 1, [None] * 3, ("cache", "batch", "padding")),
        ("beams", [2, 1, 1], 3, [None] * 3, ("cache", "batch", "padding", "beams")),
        ("reordered", [1, 1, 1, 1], 3, [None, [0, 0, 1, 5, 4, 3], [2, 1, 0, 3, 3, 3], None],
         ("cache", "batch", "padding", "beams", "reorder")),
    ):  # fmt: skip
        case = f"L4-parts-{name}"
        inputs = _source(case, "tiny", "two")
        ids = whole(f"{case}/decoder_input_ids", (2 * rows, sum(parts)), 4, TINY.vocab_size)
        arguments: dict[str, Any] = {"parts": parts, "rows_per_document": rows, "parents": parents}
        inputs["decoder_input_ids"] = ids
        answer = {"logits": _parts_by_definition(inputs, arguments)}
        yield Case(case, "decode_in_parts", model="tiny", inputs=inputs, arguments=arguments, answers=(answer,),
                   depth=forward_depth("tiny"), flags=flags)  # fmt: skip


def _parts_by_definition(inputs: Mapping[str, Array], arguments: Mapping[str, Any]) -> Array:
    """Without a cache: what each row has read so far is decoded again, all of it."""
    rows, new_ids = arguments["rows_per_document"], inputs["decoder_input_ids"]
    states = np.repeat(encode("tiny", inputs, {}).hidden_states[-1], rows, axis=0)
    mask = np.repeat(inputs["attention_mask"], rows, axis=0)
    so_far, logits, start = np.zeros((len(new_ids), 0), np.int64), [], 0
    for part, parents in zip(arguments["parts"], arguments["parents"], strict=True):
        if parents is not None:
            so_far = so_far[parents]
        so_far = np.concatenate([so_far, new_ids[:, start : start + part]], axis=1)
        start += part
        whole_row = forward("tiny", {"attention_mask": mask, "decoder_input_ids": so_far}, states)
        logits.append(whole_row["logits"][:, -part:])
    return np.concatenate(logits, axis=1)


def _refused() -> Iterator[Case]:
    """What cannot be: each would otherwise read another number's place, or compute something that nobody asked for."""
    good = {**_source("L4-refused", "tiny", "one"), "decoder_input_ids": np.array([[2, 9, 8]])}
    ids, mask, marks = good["input_ids"], good["attention_mask"], good["global_attention_mask"]
    long_ids, long_target = np.full((1, 158), 5), np.full((1, 18), 5)
    long = {"input_ids": long_ids, "attention_mask": np.ones_like(long_ids), "global_attention_mask": None}
    wrong: Sequence[tuple[str, Mapping[str, Array | None], tuple[str, ...]]] = (
        ("id-too-large", {"input_ids": _put(ids, 37)}, ("id_out_of_range",)),
        ("id-negative", {"input_ids": _put(ids, -1)}, ("id_out_of_range",)),
        ("target-id-too-large", {"decoder_input_ids": np.array([[2, 37, 8]])}, ("id_out_of_range",)),
        ("label-out-of-range", {"decoder_input_ids": None, "labels": np.array([[5, -1, 8]])}, ("id_out_of_range",)),
        ("source-too-long", long, ("too_long",)),
        ("target-too-long", {"decoder_input_ids": long_target}, ("too_long",)),
        ("mask-of-another-length", {"attention_mask": mask[:, 1:]}, ("wrong_shape",)),
        ("global-mask-of-another-length", {"global_attention_mask": marks[:, 1:]}, ("wrong_shape",)),
        ("mask-of-2", {"attention_mask": _put(mask, 2)}, ("wrong_mask",)),
        ("global-mask-of-2", {"global_attention_mask": _put(marks, 2)}, ("wrong_mask",)),
        ("batches-differ", {"decoder_input_ids": np.array([[2, 9], [2, 8], [2, 7]]), **_source("L4-refused", "tiny", "two")},
         ("wrong_shape",)),
        ("nothing-to-write", {"decoder_input_ids": np.zeros((1, 0), np.int64)}, ("empty",)),
    )  # fmt: skip
    for name, changed, flags in wrong:
        inputs = {key: value for key, value in {**good, **changed}.items() if value is not None}
        yield Case(f"L4-refused-{name}", "forward", result="invalid", model="tiny", inputs=inputs, flags=flags)
    parts = {**good, "decoder_input_ids": long_target}
    arguments = {"parts": [16, 1, 1], "rows_per_document": 1, "parents": [None, None, None]}
    yield Case("L4-refused-cache-too-long", "decode_in_parts", result="invalid", model="tiny", inputs=parts,
               arguments=arguments, flags=("too_long", "cache"))  # fmt: skip
    unmasked = {"input_ids": _put(ids, 1), "decoder_input_ids": good["decoder_input_ids"]}
    yield Case(
        "L4-forward-pad-without-mask", "forward", result="acceptable", model="tiny", inputs=unmasked,
        answers=(forward("tiny", unmasked),), may_refuse=True, depth=forward_depth("tiny"), flags=("pad_without_mask",),
        comment="Pad ids without a mask are refused here; transformers reads them as text.",
    )  # fmt: skip


def _put(array: Array, value: int) -> Array:
    """A copy with another value in its middle."""
    changed = array.copy()
    changed[0, array.shape[1] // 2] = value
    return changed
