"""LoRA adapters in peft's files: read, write, and merge into full weights.

LoRA (Hu et al. 2021, arXiv 2106.09685) leaves the weight W of a linear map as it is, and adds a product of two thin
matrices to it, with r the rank:

    W' = W + (alpha / r) B A        W is (out, in), A is (r, in), B is (out, r)

    adapter_config.json             peft_type "LORA", r, lora_alpha, target_modules, modules_to_save, ...
    adapter_model.safetensors       base_model.model.{module}.lora_A.weight     A
                                    base_model.model.{module}.lora_B.weight     B
                                    base_model.model.{key}                      a head that was trained whole

{module} is the checkpoint key of W without `.weight`. The names and the meaning of the keys are those of peft 0.21.2. peft has
variants of LoRA that compute something else with the same two matrices (DoRA, rank-stabilized LoRA, PiSSA, ...): they are
refused by their setting's name.
"""

import json
import math
import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from led_backends.contract import Array
from led_ref.errors import CheckpointError, InputError, MissingFileError, quoted, reason_of
from led_ref.files.json_file import is_whole, read_json_object, write_text
from led_ref.weights.find_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, shorten
from led_ref.weights.keys import HEADS, canonical_key
from led_ref.weights.load import finite_array
from led_ref.weights.safetensors_file import read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import FLOAT_NAMES, StoredTensor, from_numpy

A, B = ".lora_A.weight", ".lora_B.weight"
_PREFIX = "base_model.model."

# Settings of peft that a merge needs not know: names, how training went, and what the keys of the file say anyway.
_HARMLESS = frozenset({
    "peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "r",
    "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform",
    "layers_pattern", "bias", "init_lora_weights", "megatron_core", "qalora_group_size",
})  # fmt: skip
# Ways to draw the first A and B. The others (PiSSA, OLoRA, LoftQ, ...) change W itself.
_DRAWN = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """A LoRA of an LED's linear maps.

    Args:
        rank: r, the number of rows of each A.
        alpha: the change is scaled by alpha / r.
        maps: A (r, in) and B (out, r) of each linear map, by its module: the checkpoint key without `.weight`.
        heads: whole tensors of heads, by checkpoint key.
    """

    rank: int
    alpha: float
    maps: Mapping[str, tuple[StoredTensor, StoredTensor]]
    heads: Mapping[str, StoredTensor] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """What B A is multiplied by: alpha / r."""
        return self.alpha / self.rank


def adapted(weight: Array, a: Array, b: Array, scale: float) -> Array:
    """`W + scale * (B @ A)`: (out, in), a new array.

    Example:
        >>> import numpy as np
        >>> adapted(np.zeros((2, 3)), np.array([[1.0, 2.0, 3.0]]), np.array([[1.0], [10.0]]), 0.5).tolist()
        [[0.5, 1.0, 1.5], [5.0, 10.0, 15.0]]
    """
    change: Array = b @ a
    change *= scale
    change += weight
    return change


def with_adapter(tensors: Mapping[str, StoredTensor], adapter: Adapter, dtype: str) -> dict[str, StoredTensor]:
    """A checkpoint's tensors with an adapter merged into them: full weights, under the names that they had.

    Args:
        tensors: of the checkpoint, by name, in any spelling that load.py takes.
        adapter: its heads take the place of the checkpoint's, or are added.
        dtype: what the sum is computed in: "float32" or "float64".

    Raises:
        CheckpointError: if a map of the adapter is not in the checkpoint, or has another shape.
        InputError: if it is quantized there.
    """
    names = {canonical_key(name): name for name in tensors}
    merged = dict(tensors)
    for module, (a, b) in adapter.maps.items():
        key = f"{module}.weight"
        if key not in names:
            raise CheckpointError(
                f"The adapter changes {key}, which this checkpoint does not have. Load the checkpoint that the adapter was "
                "trained on."
            )
        weight = tensors[names[key]]
        if weight.dtype not in FLOAT_NAMES:
            raise InputError(
                f"{key} is kept as {weight.dtype} in this checkpoint, and an adapter is merged into floats. Load the "
                "checkpoint of floats with adapter and quantize."
            )
        shape = (b.shape[0], a.shape[1])
        if weight.shape != shape:
            raise CheckpointError(
                f"The adapter's {module} maps {shape[1]} numbers to {shape[0]}, but {key} is {weight.shape}. Load the "
                "checkpoint that the adapter was trained on."
            )
        w = finite_array(key, weight, dtype)
        change = finite_array(module + A, a, dtype), finite_array(module + B, b, dtype)
        merged[names[key]] = from_numpy(key, adapted(w, *change, adapter.scale))
    for key, tensor in adapter.heads.items():
        merged[names.get(key, key)] = tensor
    return merged


# ---- files -----------------------------------------------------------------------------------------------------------


def write_adapter(folder: Path, adapter: Adapter, *, base: str | None, task_type: str | None) -> None:
    """Write an adapter's two files into a folder, which is made if needed.

    Args:
        folder: its parent must exist.
        adapter: what to write; numbers keep their dtype.
        base: the name of the model that it was trained on.
        task_type: peft's name of the task, such as "SEQ_2_SEQ_LM"; None: peft takes its plain model.

    Raises:
        CheckpointError: if the files cannot be written, or read back unchanged.
    """
    tensors: dict[str, StoredTensor] = {}
    for module, (a, b) in adapter.maps.items():
        tensors |= {f"{_PREFIX}{module}{A}": a, f"{_PREFIX}{module}{B}": b}
    tensors |= {_PREFIX + key: tensor for key, tensor in adapter.heads.items()}
    values = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": sorted({key.split(".")[0] for key in adapter.heads}) or None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "target_modules": list(adapter.maps),
        "task_type": task_type,
    }
    try:
        folder.mkdir(exist_ok=True)
        write_safetensors(folder / ADAPTER_WEIGHTS, tensors, {"format": "pt"})
        write_text(folder / ADAPTER_CONFIG, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise CheckpointError(f"{folder} could not be written ({reason_of(error)}). Check the disk's space.") from error


def read_adapter(folder: str | Path, *, mmap: bool = True) -> Adapter:
    """The adapter of a folder that led-ref train or peft wrote.

    Raises:
        MissingFileError: if a file of it does not exist.
        CheckpointError: if it is no LoRA, a variant that led_ref does not have, or its tensors do not fit together.
    """
    folder = Path(folder)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not os.path.isfile(folder / name):
            raise MissingFileError(
                f"There is no {name} in {quoted(str(folder))}. An adapter is a folder with {ADAPTER_CONFIG} and "
                f"{ADAPTER_WEIGHTS}."
            )
    rank, alpha = _rank_and_alpha(folder / ADAPTER_CONFIG)
    maps: dict[str, dict[str, StoredTensor]] = {}
    heads: dict[str, StoredTensor] = {}
    unknown = []
    for name, tensor in read_safetensors(folder / ADAPTER_WEIGHTS, mmap=mmap).items():
        rest = name.removeprefix(_PREFIX)
        suffix = next((suffix for suffix in (A, B) if rest.endswith(suffix)), None)
        if suffix is not None and name != rest:
            key = canonical_key(rest.removesuffix(suffix) + ".weight")
            maps.setdefault(key.removesuffix(".weight"), {})[suffix] = tensor
        elif rest.split(".")[0] in HEADS and name != rest:
            heads[rest] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(
            f"{folder / ADAPTER_WEIGHTS} holds {len(unknown)} tensors that are neither A or B of a linear map nor a head: "
            f"{shorten(unknown)}. Merge this adapter with peft, and load the full weights."
        )
    return Adapter(rank, alpha, {module: _pair(module, maps[module], rank) for module in maps}, heads)


def _rank_and_alpha(path: Path) -> tuple[int, float]:
    """The r and lora_alpha of adapter_config.json, of which nothing else may change the arithmetic."""
    values = read_json_object(path, error_class=CheckpointError)
    if values.get("peft_type") != "LORA":
        raise CheckpointError(f"{path} has peft_type {values.get('peft_type')!r:.40}; led_ref reads 'LORA' alone.")
    others = [name for name, value in values.items() if value and name not in _HARMLESS]
    others += ["bias"] if values.get("bias", "none") != "none" else []
    drawn = values.get("init_lora_weights", True)
    others += ["init_lora_weights"] if drawn not in _DRAWN else []
    if others:
        shown = ", ".join(f"{name} {values[name]!r:.60}" for name in others)
        raise CheckpointError(
            f"{path} has {shown}: not LoRA as led_ref has it. Merge this adapter with peft, and load the full weights."
        )
    rank, alpha = values.get("r", 8), values.get("lora_alpha", 8)
    if not is_whole(rank) or rank < 1 or not _is_number(alpha):
        raise CheckpointError(
            f"{path} has r {rank!r:.40} and lora_alpha {alpha!r:.40}; both must be numbers, r at least 1."
        )
    return rank, float(alpha)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pair(module: str, found: Mapping[str, StoredTensor], rank: int) -> tuple[StoredTensor, StoredTensor]:
    """A and B of a map, both there and of this rank."""
    if len(found) < 2:
        raise CheckpointError(f"The adapter has {module + next(iter(found))} alone. Fetch the adapter again.")
    a, b = found[A], found[B]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise CheckpointError(
            f"The adapter's {module} has A {a.shape} and B {b.shape}; by r in {ADAPTER_CONFIG} they are ({rank}, in) and "
            f"(out, {rank}). Fetch the adapter again."
        )
    return a, b
