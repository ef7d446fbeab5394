"""Quantized matrices in a checkpoint: bitsandbytes' layout, as transformers writes it, checked before it is believed.

Only the linear maps' matrices are quantized; embeddings, positions, norms and biases stay floats. In place of a tensor
`M.weight` (out, in) a file then holds

    int8    M.weight                  I8  (out, in)           codes, -127 to 127
            M.SCB                     F32 (out,)              absmax of each row
            M.weight_format           U8  ()                  0: row after row; may be absent
    nf4     M.weight                  U8  (ceil(n / 2), 1)    two codes a byte, n = out * in
            M.weight.absmax           F32 (blocks,)           of each block of 64; doubly quantized: U8
            M.weight.quant_map        F32 (16,)               the code book
            M.weight.quant_state.bitsandbytes__nf4  U8        JSON: shape, block size, ...
     doubly M.weight.nested_absmax    F32 (blocks / 256,)     of each 256 absmaxes
            M.weight.nested_quant_map F32 (256,)              their code book

and config.json has a `quantization_config` that says which. A file that disagrees with its config.json, with the shapes, or
with the code book is refused, by name. All sizes follow from config.json, so that nothing in a file decides how much memory is
taken; the JSON is at most 1,000 bytes and of just the keys above.

What is not here: the arithmetic (rounding.py, led_backends/compact.py), and FP4, other block sizes and skipped modules.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from led_backends.compact import (
    BLOCK,
    CODE_BOOK,
    LARGEST_CODE,
    SCALES_BLOCK,
    CompactWeight,
    DoubleScales,
    HalfWeight,
    Int8Weight,
    NF4Weight,
    dynamic_map,
    pairs,
)
from led_backends.contract import HostArray
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, quoted
from led_ref.files.json_file import parse_json
from led_ref.weights.keys import Entry, canonical_key, entries
from led_ref.weights.stored_tensor import HALF_NAMES, NUMPY_DTYPES, StoredTensor

CONFIG_KEY = "quantization_config"
_STATE = "quant_state.bitsandbytes__nf4"
_INT8_PARTS = ("SCB", "weight_format")
_NF4_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", _STATE)
_STATE_BYTES = 1000


@dataclass(frozen=True)
class QuantizedTensor(StoredTensor):
    """A quantized matrix of a checkpoint: its dtype is its kind ("int8", "nf4" or "nf4-double"), `data` are its codes.

    Args:
        weight: the matrix, on the host.
    """

    weight: CompactWeight

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), as the model sees it."""
        return self.weight.shape

    def to_numpy(self, dtype: str = "float32") -> HostArray:
        """All numbers, dense."""
        return replace(self.weight, dtype=np.dtype(dtype))[:]


def quantizable(config: LEDConfig) -> dict[str, Entry]:
    """The entries that are quantized, by key: the matrices of all linear maps.

    Example:
        >>> config = LEDConfig(encoder_layers=0, decoder_layers=1)
        >>> len(quantizable(config)), [key for key in quantizable(config) if "fc1" in key]
        (10, ['led.decoder.layers.0.fc1.weight'])
    """
    return {entry.key: entry for entry in entries(config) if is_matrix(entry)}


def is_matrix(entry: Entry) -> bool:
    """Whether it is a linear map's matrix in the encoder or decoder; heads stay floats."""
    in_layers = entry.field.startswith(("encoder.", "decoder."))
    return in_layers and entry.field.endswith(".weight") and len(entry.shape) == 2


def tensor_of(weight: CompactWeight) -> StoredTensor:
    """A compact weight, on the host, as a tensor of a checkpoint."""
    if isinstance(weight, HalfWeight):
        stored = next(name for name, kind in HALF_NAMES.items() if kind == weight.kind)
        return StoredTensor(stored, weight.bits.view(NUMPY_DTYPES[stored]))
    if isinstance(weight, Int8Weight):
        return QuantizedTensor("int8", weight.codes, weight)
    assert isinstance(weight, NF4Weight)
    return QuantizedTensor("nf4-double" if isinstance(weight.absmax, DoubleScales) else "nf4", weight.packed, weight)


# ---- config.json --------------------------------------------------------------------------------------------------------


def kind_of(config: LEDConfig) -> str | None:
    """What config.json says of the matrices: "int8", "nf4", "nf4-double", or None: they are floats.

    Raises:
        CheckpointError: for a quantization that is not one of these.
    """
    values = config.extra.get(CONFIG_KEY)
    if values is None:
        return None
    remedy = "led_ref reads what bitsandbytes writes for load_in_8bit, and for load_in_4bit with quant_type nf4."
    if not isinstance(values, Mapping) or values.get("quant_method") != "bitsandbytes":
        method = values.get("quant_method") if isinstance(values, Mapping) else values
        raise CheckpointError(f"{CONFIG_KEY} in config.json has the quant_method {str(method)[:80]!r}. {remedy}")
    eight, four = values.get("load_in_8bit", False), values.get("load_in_4bit", False)
    if (eight, four) == (True, False):
        return "int8"
    book, storage = values.get("bnb_4bit_quant_type"), values.get("bnb_4bit_quant_storage", "uint8")
    if (eight, four, book, storage) != (False, True, "nf4", "uint8"):
        raise CheckpointError(
            f"{CONFIG_KEY} in config.json has load_in_8bit {quoted(eight, 40)}, load_in_4bit {quoted(four, 40)}, "
            f"quant_type {quoted(book, 40)} and quant_storage {quoted(storage, 40)}. {remedy}"
        )
    return "nf4-double" if values.get("bnb_4bit_use_double_quant") is True else "nf4"


def quantization_config(tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """The `quantization_config` of config.json for these tensors, in transformers' words; nothing if none is quantized."""
    kinds = {tensor.dtype for tensor in tensors.values() if isinstance(tensor, QuantizedTensor)}
    if not kinds:
        return {}
    (kind,) = kinds
    is_int8 = kind == "int8"
    common = {"quant_method": "bitsandbytes", "load_in_8bit": is_int8, "load_in_4bit": not is_int8}
    settings = {"llm_int8_threshold": 0.0} if is_int8 else {
        "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": kind == "nf4-double",
        "bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8",
    }  # fmt: skip
    return {CONFIG_KEY: {**common, **settings}}


# ---- reading ------------------------------------------------------------------------------------------------------------


def join(tensors: Mapping[str, StoredTensor], config: LEDConfig) -> dict[str, StoredTensor]:
    """The tensors of a file, with the parts of each quantized matrix as one QuantizedTensor in their place.

    What is one already, as in a model that was loaded, is left as it is.

    Raises:
        CheckpointError: if config.json and the file disagree about which matrices are quantized and how, or a part is
            missing, of another shape or kind, or holds what it cannot.
    """
    kind = kind_of(config)
    if kind is None:
        found = next((name for name in tensors if name.endswith((".SCB", f".{_STATE}"))), None)
        if found is not None:
            raise CheckpointError(
                f"{found} belongs to a quantized matrix, but config.json has no {CONFIG_KEY}. Take the config.json that was "
                "saved with these weights."
            )
        return dict(tensors)
    entry_of = quantizable(config)
    unjoined = {name for name, tensor in tensors.items() if not isinstance(tensor, QuantizedTensor)}
    prefix_of = {
        name: name.removesuffix("weight") if kind == "int8" else f"{name}."
        for name in unjoined
        if canonical_key(name) in entry_of
    }
    parts_of_all = _INT8_PARTS if kind == "int8" else _NF4_PARTS
    taken = {prefix + part for prefix in prefix_of.values() for part in parts_of_all}
    joined: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        if name in prefix_of:
            shape, prefix = entry_of[canonical_key(name)].shape, prefix_of[name]
            parts = {part: tensors[prefix + part] for part in parts_of_all if prefix + part in tensors}
            try:
                joined[name] = tensor_of(_READERS[kind]({**parts, "weight": tensor}, (shape[0], shape[1])))
            except CheckpointError as error:
                raise CheckpointError(
                    f"{name}, which config.json says is {kind}: {error} Fetch or convert it again."
                ) from error
        elif name not in taken:
            joined[name] = tensor
    return joined


def _part(parts: Mapping[str, StoredTensor], name: str, dtype: str, shape: tuple[int, ...]) -> HostArray:
    """A part that the file must hold, of this dtype and shape."""
    if name not in parts:
        raise CheckpointError(f"its part {name} is missing.")
    tensor = parts[name]
    if (tensor.dtype, tensor.shape) != (dtype, shape):
        raise CheckpointError(f"{name} is {tensor.dtype} {tensor.shape}, and has to be {dtype} {shape}.")
    return np.require(tensor.data, tensor.data.dtype.newbyteorder("="), ["C", "A"])


def _absmax(parts: Mapping[str, StoredTensor], name: str, shape: tuple[int, ...]) -> HostArray:
    """Scales: finite, and none below zero."""
    absmax = _part(parts, name, "F32", shape)
    if not (np.isfinite(absmax) & (absmax >= 0)).all():
        raise CheckpointError(f"{name} holds a number that is negative or not finite.")
    return absmax


def _read_int8(parts: Mapping[str, StoredTensor], shape: tuple[int, int]) -> Int8Weight:
    if "weight_format" in parts and _part(parts, "weight_format", "U8", ()) != 0:
        raise CheckpointError("weight_format is not 0 (row after row).")
    numbers = _part(parts, "weight", "I8", shape)
    if numbers.min(initial=0) < -LARGEST_CODE:
        raise CheckpointError(f"weight holds {numbers.min()}; codes are from -{LARGEST_CODE} to {LARGEST_CODE}.")
    return Int8Weight(shape, np.dtype("float32"), numbers, _absmax(parts, "SCB", shape[:1]))


def _read_nf4(parts: Mapping[str, StoredTensor], shape: tuple[int, int], *, double: bool = False) -> NF4Weight:
    numbers = math.prod(shape)
    blocks = math.ceil(numbers / BLOCK)
    packed = _part(parts, "weight", "U8", (math.ceil(numbers / 2), 1)).reshape(-1)
    if len(packed) < blocks * BLOCK // 2:  # the model's sizes are no multiple of a block: the last one is filled up
        packed = np.concatenate([packed, np.zeros(blocks * BLOCK // 2 - len(packed), np.uint8)])
    if not np.array_equal(_part(parts, "quant_map", "F32", (16,)), np.array(CODE_BOOK, np.float32)):
        raise CheckpointError("quant_map is not NF4's code book.")
    offset = _checked_state(parts, shape, double=double)
    if not double:
        return NF4Weight(shape, np.dtype("float32"), packed, _absmax(parts, "absmax", (blocks,)), pairs())
    book = _part(parts, "nested_quant_map", "F32", (256,))
    # Where bitsandbytes computes this book, an edge may round to the next float32: half a unit of the largest, 1.
    if not np.allclose(book, dynamic_map(), rtol=0, atol=2.0**-23):
        raise CheckpointError("nested_quant_map is not the code book of the dynamic 8-bit type.")
    codes = _part(parts, "absmax", "U8", (blocks,))
    scales = DoubleScales(codes, _absmax(parts, "nested_absmax", (math.ceil(blocks / SCALES_BLOCK),)), book, offset)
    return NF4Weight(shape, np.dtype("float32"), packed, scales, pairs())


def _checked_state(parts: Mapping[str, StoredTensor], shape: tuple[int, int], *, double: bool) -> float:
    """The nested offset (0 if absent) of the JSON that says how a matrix was quantized."""
    if _STATE not in parts:
        raise CheckpointError(f"its part {_STATE} is missing.")
    tensor = parts[_STATE]
    if tensor.dtype != "U8" or len(tensor.shape) != 1 or tensor.data.size > _STATE_BYTES:
        raise CheckpointError(f"{_STATE} is {tensor.dtype} {tensor.shape}, not at most {_STATE_BYTES} bytes.")
    try:
        values = parse_json(tensor.data.tobytes().decode("utf-8"), finite=False)
    except ValueError as error:
        raise CheckpointError(f"{_STATE} is not JSON.") from error
    wanted: dict[str, Any] = {"quant_type": "nf4", "blocksize": BLOCK, "shape": list(shape)}
    if double:
        wanted |= {"nested_blocksize": SCALES_BLOCK, "nested_dtype": "float32"}
    offset = values.pop("nested_offset", None) if isinstance(values, dict) else None
    dtype = values.pop("dtype", None) if isinstance(values, dict) else None
    if values != wanted or dtype not in ("float32", "float16", "bfloat16"):
        raise CheckpointError(f"{_STATE} says {str(values)[:300]}, dtype {str(dtype)[:20]!r}, and has to say {wanted}.")
    if not double:
        return 0.0
    if not isinstance(offset, float) or not 0 <= offset <= float(np.finfo(np.float32).max):
        raise CheckpointError(f"{_STATE} has the nested_offset {str(offset)[:40]}, not the mean of absmaxes.")
    return offset


_READERS: Mapping[str, Callable[..., CompactWeight]] = {
    "int8": _read_int8,
    "nf4": _read_nf4,
    "nf4-double": partial(_read_nf4, double=True),
}


# ---- writing ------------------------------------------------------------------------------------------------------------


def split(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors as a file holds them: each QuantizedTensor as its parts. What `join` reads."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, QuantizedTensor):
            found[name] = tensor
        elif isinstance(tensor.weight, Int8Weight):
            module = name.removesuffix("weight")
            found[name] = StoredTensor("I8", tensor.weight.codes)
            found[f"{module}SCB"] = StoredTensor("F32", tensor.weight.absmax)
            found[f"{module}weight_format"] = StoredTensor("U8", np.zeros((), np.uint8))
        else:
            assert isinstance(tensor.weight, NF4Weight)
            found |= _nf4_parts(name, tensor.weight)
    return found


def _nf4_parts(name: str, weight: NF4Weight) -> dict[str, StoredTensor]:
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "float32", "shape": list(weight.shape)}
    parts = {"quant_map": StoredTensor("F32", np.array(CODE_BOOK, np.float32))}
    if isinstance(weight.absmax, DoubleScales):
        scales = weight.absmax
        state |= {"nested_blocksize": SCALES_BLOCK, "nested_dtype": "float32", "nested_offset": scales.offset}
        parts["absmax"] = StoredTensor("U8", scales.codes)
        parts["nested_absmax"] = StoredTensor("F32", scales.absmax)
        parts["nested_quant_map"] = StoredTensor("F32", scales.book)
    else:
        parts["absmax"] = StoredTensor("F32", weight.absmax)
    parts[_STATE] = StoredTensor("U8", np.frombuffer(json.dumps(state).encode(), np.uint8))
    packed = weight.packed[: math.ceil(weight.size / 2)].reshape(-1, 1)
    return {name: StoredTensor("U8", packed), **{f"{name}.{part}": tensor for part, tensor in parts.items()}}
