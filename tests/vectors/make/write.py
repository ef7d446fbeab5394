"""Write the vectors, the same bytes on every machine.

float64 results differ between machines in their last digits: BLAS adds up in another order, exp and erf come from another
library. So answers are rounded to multiples of 2^-30 (about 1e-9), and an answer may not lie near the middle between two
of them: closer than GUARD, 40 times the largest difference that was seen between two BLAS kernels, and the case is
refused and has to be drawn again (make/draw.py). What is left rounds to the same number everywhere.

    >>> rounded("a case", np.array([0.1, 1.0])).tolist()
    [0.09999999962747097, 1.0]

Tolerances are derived, not fitted. A type of unit roundoff u (half the distance from 1 to the next number) loses up to u
in every operation. A case is `depth` steps deep (a product of matrices, a softmax, a norm, a GELU), and its largest answer
has the size `scale`, rounded up to a power of two and at least 1. A step adds up some fifty terms; their errors are of
random sign and so grow with the root of that, about 8 u:

    allowed = 8 u depth scale      float64 u = 2^-53, float32 2^-24, float16 2^-11, bfloat16 2^-8
    allowed = 2^-29 at least       the rounding of the answers, and as much again
    none stated above scale / 4    (bfloat16, several layers deep): it would let nearly everything pass

The scores of texts are sums in float32 in whatever type the model computes (SEMANTICS.md), and judged as float32.
"""

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.oracle.vectors.format import (
    DTYPES,
    FORMAT,
    LEVELS,
    Array,
    Case,
    Tensors,
    file_name,
    tensor_name,
)
from make import gradients as vectors_gradients
from make import layers as vectors_layers
from make import logits as vectors_logits
from make import search as vectors_search
from make import steps as vectors_steps
from make import text as vectors_text
from make import whole as vectors_whole

STEP = 2.0**-30
GUARD = 2e-13
_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_ERRORS_PER_STEP = 8
_ALWAYS_FLOAT32 = "sequences_scores"

FLAGS: Mapping[str, str] = {
    "all_masked_row": "a query that may look at nothing",
    "batch": "several documents; each must get what it gets alone",
    "beams": "several rows for one document",
    "cache": "the target comes in parts",
    "causal": "no query sees what comes after it",
    "contraction": "'s, 't, 're, 've, 'm, 'll, 'd",
    "control": "control characters, some of which Python takes for white space and Unicode does not",
    "dropped": "dropout: what is kept is given",
    "empty": "nothing there",
    "enumerable": "so small that all texts can be listed",
    "eps_counts": "the variance is not large beside 1e-5",
    "filler_columns": "a document has fewer global tokens than another of its batch",
    "forced": "an id is forced",
    "full_length": "as long as the position table",
    "global_all": "all, or nearly all, tokens are global",
    "global_in_window": "a global token lies within a local token's window, and counts once",
    "global_none": "no global token",
    "global_on_pad": "a global mark, or -1, on a masked token",
    "globals_vary": "the documents of a batch have different global tokens",
    "id_out_of_range": "an id that the vocabulary does not have",
    "ignored_labels": "labels of -100",
    "inputs_embeds": "embeddings in place of ids",
    "invalid_utf8": "bytes that are no UTF-8 become �",
    "large_values": "exp would overflow if the largest were not taken out first, or the sizes differ widely",
    "long": "far longer than the window",
    "long_word": "a word of many bytes",
    "n_lt_window": "shorter than the window",
    "n_not_multiple": "the length is no multiple of the window",
    "ngrams": "a rule about repeated ids",
    "other_activation": "the feed-forwards have another activation function than gelu",
    "pad_without_mask": "pad ids, and no mask that says so",
    "padding": "some tokens are masked",
    "pair": "two texts",
    "per_layer_windows": "each layer has its own window",
    "prompt": "more than the start id is there at first",
    "reorder": "rows go on from other rows",
    "repeated_ids": "an id occurs several times",
    "smoothing": "label smoothing",
    "special_in_text": "special tokens that stand in the text",
    "split_character": "pieces that hold a part of a character",
    "tie": "two scores are equal",
    "too_long": "longer than the position table",
    "too_short": "no room for what must be there",
    "truncation": "texts are cut",
    "unicode": "characters beyond ASCII",
    "untied_output": "the output projection is not the embedding table",
    "white_space": "white space of every kind",
    "wrong_mask": "a mask that holds something else than 0 and 1 (the global one: -1, 0 and 1)",
    "wrong_setting": "a setting that cannot be",
    "wrong_shape": "inputs that do not belong together",
}  # fmt: skip


def write_suite(folder: Path, bundled: Path) -> dict[str, int]:
    """Write all vectors into a folder, which is made if needed; the index last.

    Args:
        folder: where index.json and the safetensors files go.
        bundled: the folder of the bundled model.

    Returns:
        How many cases each level has.

    Raises:
        ValueError: if an answer lies too near the middle between two roundings, or a decision of a search is close.
    """
    by_level: dict[str, list[Case]] = {level: [] for level in LEVELS}
    for case in finished(all_cases(bundled)):
        by_level[case.level].append(case)
    contents: dict[str, bytes] = {name: (bundled / name).read_bytes() for name in vectors_text.VOCABULARY_FILES}
    for level, cases in by_level.items():
        contents[file_name(level, "inputs")] = safetensors_bytes(
            {tensor_name(case.id, name): array for case in cases for name, array in case.inputs.items()}
        )
        contents[file_name(level, "outputs")] = safetensors_bytes(
            {
                tensor_name(case.id, name, answer=n): array
                for case in cases
                for n, answer in enumerate(case.answers, 1)
                for name, array in answer.items()
            }
        )
    contents["models.safetensors"] = safetensors_bytes(
        {f"{model}/{key}": w for model in vectors_layers.MODELS for key, w in vectors_layers.weights_of(model).items()}
    )
    contents[vectors_gradients.LEARNER_FILE] = safetensors_bytes(
        {f"learner/{key}": w for key, w in vectors_gradients.learner_weights().items()}
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    head = index_head(
        {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}, bundled
    )
    entries = [index_entry(case) for cases in by_level.values() for case in cases]
    (folder / "index.json").write_text(index_text(head, entries), encoding="ascii", newline="\n")
    return {level: len(cases) for level, cases in by_level.items()}


def all_cases(bundled: Path) -> Iterator[Case]:
    """Every case, as the definition answers it, not yet rounded."""
    yield from vectors_text.cases(bundled)
    yield from vectors_steps.operations()
    yield from vectors_steps.attention()
    yield from vectors_layers.attention_modules()
    yield from vectors_layers.layers()
    yield from vectors_logits.cases()
    yield from vectors_search.cases()
    yield from vectors_whole.bundled(bundled)
    yield from vectors_whole.real()
    yield from vectors_gradients.cases()


_SAFETENSORS_NAMES = {"float64": "F64", "float32": "F32", "int64": "I64", "uint8": "U8"}


def safetensors_bytes(tensors: Tensors) -> bytes:
    """The bytes of a safetensors file; wide dtypes come first, so that each tensor is aligned."""
    header: dict[str, Any] = {}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    start, raw = 0, []
    for name, array in ordered:
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        stop = start + len(data)
        dtype = _SAFETENSORS_NAMES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
        raw.append(data)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(raw)


# ---- rounding and tolerances ----------------------------------------------------------------------------------------


def finished(cases: Iterable[Case]) -> Iterator[Case]:
    """The cases with rounded answers and with tolerances; no id twice, no flag that is not explained."""
    seen: set[str] = set()
    for case in cases:
        if case.id in seen or not set(case.flags) <= set(FLAGS):
            raise ValueError(f"{case.id} is there twice, or one of its flags {case.flags} is not explained in FLAGS.")
        seen.add(case.id)
        answers = tuple({name: rounded(case.id, array) for name, array in answer.items()} for answer in case.answers)
        dtypes = case.types if case.level == "L8" else DTYPES
        tolerance = case.tolerance or {
            name: allowed(max(float(np.abs(answer[name]).max(initial=0)) for answer in answers), case.depth, dtypes)
            for name in (answers[0] if answers else ())
            if answers[0][name].dtype == np.float64
        }
        if _ALWAYS_FLOAT32 in tolerance:
            tolerance = {**tolerance, _ALWAYS_FLOAT32: dict.fromkeys(DTYPES, tolerance[_ALWAYS_FLOAT32]["float32"])}
        yield dataclasses.replace(case, answers=answers, tolerance=tolerance)


def rounded(case: str, array: Array) -> Array:
    """Floats to multiples of STEP; whole numbers as they are.

    Raises:
        ValueError: if a number lies within GUARD (times its size, above 1) of the middle between two multiples.
    """
    if array.dtype.kind != "f":
        return array.astype(np.int64) if array.dtype != np.uint8 else array
    steps = array.astype(np.float64) / STEP
    nearest = np.rint(steps)
    from_middle = (0.5 - np.abs(steps - nearest)) * STEP
    if array.size and (from_middle < GUARD * np.maximum(1, np.abs(array))).any():
        raise ValueError(
            f"{case}: an answer lies within {from_middle.min():.1e} of the middle between two multiples of {STEP:.1e}, so "
            "that another machine may round it the other way. Draw it again (DRAWN_AGAIN in make/draw.py)."
        )
    on_grid: Array = nearest * STEP + 0.0  # no -0.0
    return on_grid


def allowed(largest: float, depth: int, dtypes: Iterable[str] = DTYPES) -> dict[str, float]:
    """The tolerance for each of some types, by the rule at the top of this file.

    Example:
        >>> {dtype: f"{value:.1e}" for dtype, value in allowed(3.0, depth=5).items()}
        {'float64': '1.9e-09', 'float32': '9.5e-06', 'float16': '7.8e-02', 'bfloat16': '6.2e-01'}
    """
    scale = 2.0 ** max(0, math.ceil(math.log2(largest))) if largest > 1 else 1.0
    found = {}
    for dtype in dtypes:
        value = max(2 * STEP, _ERRORS_PER_STEP * _ROUNDOFF[dtype] * depth * scale)
        if value <= scale / 4:
            found[dtype] = value
    return found


# ---- files ----------------------------------------------------------------------------------------------------------


def index_head(files: Mapping[str, str], bundled: Path) -> dict[str, Any]:
    """All of the index but the cases."""
    models: dict[str, Any] = {
        name: {"config": config.to_dict(), "weights": "models.safetensors"}
        for name, config in vectors_layers.MODELS.items()
    }
    models["learner"] = {"config": vectors_gradients.LEARNER.to_dict(), "weights": vectors_gradients.LEARNER_FILE}
    models["tokenizer"] = {"vocab": "vocab.json", "merges": "merges.txt"}
    models["bundled"] = {
        "folder": "led_ref/bundled of the led_ref package",
        "sha256": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for pattern in vectors_whole.BUNDLED_FILES
            for file in sorted(bundled.glob(pattern))
        },
    }
    models["led-base-16384"] = {
        "hub": vectors_whole.LED_BASE,
        "file": "pytorch_model.bin",
        "bytes": 647_693_783,
        "sha256": None,  # where these files are made the Hub cannot be reached, and nobody has stated it
    }
    return {
        "format": FORMAT,
        "levels": dict(LEVELS),
        "results": {
            "valid": "the answer must be given, within the tolerance",
            "invalid": "the inputs must be refused",
            "acceptable": "LED leaves it open, or transformers gives what it does not mean: any of the answers is right",
        },
        "tolerance": {
            "rule": "allowed = errors_per_step * roundoff * depth * scale, at least twice the rounding of the answers",
            "reason": (
                "A step (product of matrices, softmax, LayerNorm, GELU) sums some fifty terms whose errors are of random "
                "sign: about 8 roundoffs. scale: the largest answer, rounded up to a power of two, at least 1. Not stated "
                "above scale / 4. Scores of texts are float32 sums in every type."
            ),
            "errors_per_step": _ERRORS_PER_STEP,
            "roundoff": _ROUNDOFF,
            "rounding_of_answers": STEP,
        },
        "flags": dict(FLAGS),
        "models": models,
        "files": dict(files),
    }  # fmt: skip


def index_entry(case: Case) -> dict[str, Any]:
    """A case's entry; what is not said (no model, no comment) is left out."""
    names = case.answers[0] if case.answers else {}
    entry: dict[str, Any] = {
        "id": case.id,
        "operation": case.operation,
        "result": case.result,
        "flags": list(case.flags),
        "model": case.model,
        "arguments": dict(case.arguments),
        "inputs": list(case.inputs),
        "outputs": {name: case.tolerance.get(name) for name in names},
        "answers": len(case.answers),
        "depth": case.depth if case.tolerance else None,
        "may_refuse": case.may_refuse or None,
        "needs": case.needs,
        "types": list(case.types) or None,
        "comment": case.comment or None,
    }
    always = ("id", "operation", "result", "flags", "arguments", "inputs", "outputs", "answers")
    return {key: value for key, value in entry.items() if key in always or value is not None}


def index_text(head: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> str:
    """The index as JSON in ASCII: what is general indented, and a line for each case."""
    general = json.dumps(head, indent=1)
    cases = ",\n".join("  " + json.dumps(entry) for entry in entries)
    return f'{general[:-2]},\n "cases": [\n{cases}\n ]\n}}\n'
