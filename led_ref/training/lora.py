"""LoRA: train two thin matrices for each of some linear maps, and leave the weights as they are.

    W' = W + s B A              s = alpha / rank; W is (out, in), A (rank, in), B (out, rank)

The model computes with W', which is written into its own arrays after each step; it knows nothing of A and B. So backward
gives the gradient of W', and the chain rule the rest:

    dA = s B.T dW'              dB = s dW' A.T

At first A is drawn from the uniform distribution on (-1/sqrt(in), 1/sqrt(in)), B is 0, and W' is W. A head is trained whole, as
peft trains what its `modules_to_save` names: a new one is drawn at random, and no thin matrices would make it useful.

The optimizer, the checkpoint of the run and the adapter's file (weights/adapter.py) hold A, B and the head alone.

Source: Hu et al. 2021 (LoRA, arXiv 2106.09685), sections 4.1 and 4.2. Names, defaults and the first A are peft's.
"""

import hashlib
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.contract import Array, Backend, HostArray, Weight
from led_ref.classes.pretrained import device_errors
from led_ref.config import LEDConfig
from led_ref.errors import SettingsError, nearest
from led_ref.training.batch import Trainable
from led_ref.training.parameters import trained_parameters, with_weights
from led_ref.training.settings import TrainingArguments
from led_ref.training.trained import TrainedWeights
from led_ref.weights.adapter import A, Adapter, B, adapted, write_adapter
from led_ref.weights.keys import (
    FINAL_LOGITS_BIAS,
    HEADS,
    POSITION_TABLES,
    TIED,
    Entry,
    arrays_by_key,
    entries,
    heads_of,
)
from led_ref.weights.stored_tensor import StoredTensor, from_numpy

DEFAULT_ALPHA = 8.0
DEFAULT_TARGETS = ("query", "value", "q_proj", "v_proj")
FOLDER = "adapter"  # in the folder of the model


@dataclass(frozen=True)
class LoRAWeights(TrainedWeights):
    """A and B of some linear maps, and the head, are trained.

    Args:
        rank: the rows of each A.
        alpha: s is alpha / rank.
        frozen: W of each of the maps, by module (checkpoint key without `.weight`); never changed.
        merged: W' of each, the arrays that the model computes with.
        start_sha256: of all weights that the training began with.
    """

    rank: int
    alpha: float
    frozen: Mapping[str, Array]
    merged: Mapping[str, Array]
    start_sha256: str

    def gradients(self, key: str, gradient: Array) -> dict[str, Array]:
        """From dW', (out, in), dA and dB; of a head its own."""
        module = key.removesuffix(".weight")
        if module not in self.frozen:
            return {key: gradient}
        scale = self.alpha / self.rank
        a, b = self.parameters[module + A], self.parameters[module + B]
        return {module + A: (b.T @ gradient) * scale, module + B: (gradient @ a.T) * scale}

    def renew(self) -> None:
        """Write W' into the model."""
        with device_errors(self.model.backend):
            for module, weight in self.frozen.items():
                a, b = self.parameters[module + A], self.parameters[module + B]
                self.merged[module][...] = adapted(weight, a, b, self.alpha / self.rank)

    def facts(self) -> dict[str, Any]:
        """The weights that it began with: the checkpoint does not hold them."""
        return {"sha256 of the weights": self.start_sha256}

    def adapter(self) -> Adapter:
        """A, B and the head as they are now."""

        def stored(name: str) -> StoredTensor:
            return from_numpy(name, self.model.backend.to_host(self.parameters[name]))

        maps = {module: (stored(module + A), stored(module + B)) for module in self.frozen}
        return Adapter(self.rank, self.alpha, maps, {name: stored(name) for name in self.parameters if _is_head(name)})

    def save_beside(self, folder: Path, start: str | None) -> None:
        """Write the adapter into a folder of its own: transformers would merge it a second time if it lay beside."""
        is_text = self.model.architecture == "LEDForConditionalGeneration"
        write_adapter(folder / FOLDER, self.adapter(), base=start, task_type="SEQ_2_SEQ_LM" if is_text else None)


def lora_weights(model: Trainable, config: LEDConfig, args: TrainingArguments) -> LoRAWeights:
    """A model with the A and B of its first step.

    Args:
        model: as loaded; it stays as it is, and shares with the new one all weights that do not change.
        config: of the new model, of the same sizes.
        args: lora_rank, lora_alpha, lora_targets and seed.

    Raises:
        SettingsError: for a target that names no linear map.
    """
    assert args.lora_rank is not None
    heads = heads_of(model.architecture)
    maps = {entry.key.removesuffix(".weight"): entry for entry in entries(config, heads) if _is_linear_map(entry)}
    modules = targeted(maps, args.lora_targets or DEFAULT_TARGETS)
    keys = {f"{module}.weight" for module in modules}
    arrays, backend = arrays_by_key(model.params, model.config, heads), model.backend

    def copied(key: str, weight: Weight) -> Array:
        array = backend.rows(weight)
        return backend.xp.array(array, order="C") if key in keys or _is_head(key) else array

    own_model = with_weights(model, copied, config)
    own = {key: array for key, array in trained_parameters(own_model).items() if key in keys or _is_head(key)}
    parameters: dict[str, Array] = {}
    for module in modules:
        first_a, first_b = _first(module, maps[module].shape, args.lora_rank, args.seed)
        parameters[module + A] = backend.to_device(first_a.astype(model.dtype))
        parameters[module + B] = backend.to_device(first_b.astype(model.dtype))
    parameters |= {key: array for key, array in own.items() if key not in keys}
    return LoRAWeights(
        own_model,
        parameters,
        parameters,
        frozenset(own),
        args.lora_rank,
        DEFAULT_ALPHA if args.lora_alpha is None else args.lora_alpha,
        {module: backend.rows(arrays[f"{module}.weight"]) for module in modules},
        {module: own[f"{module}.weight"] for module in modules},
        _sha256(arrays, backend),
    )


def check_lora(args: TrainingArguments) -> None:
    """Refuse settings of LoRA without LoRA, and freezing with it.

    Raises:
        SettingsError: naming the setting.
    """
    if args.lora_rank is None:
        for name in ("lora_alpha", "lora_targets"):
            if getattr(args, name):
                raise SettingsError(f"{name} has no effect without lora_rank (--lora-rank). Give both.")
    elif args.freeze:
        raise SettingsError(
            f"freeze is {', '.join(args.freeze)}, but with lora_rank all weights are frozen. Name the maps to train with "
            "lora_targets (--lora-targets), such as led.decoder.*.q_proj."
        )


def targeted(modules: Collection[str], targets: Sequence[str]) -> list[str]:
    """The linear maps that a list of targets names.

    Args:
        modules: of all linear maps: checkpoint keys without `.weight`.
        targets: modules, their last words, or modules with *.

    Raises:
        SettingsError: for a target that names none.

    Example:
        >>> targeted(["led.decoder.layers.0.fc1", "led.decoder.layers.0.fc2"], ["fc2"])
        ['led.decoder.layers.0.fc2']
    """
    chosen: set[str] = set()
    for target in targets:
        found = {module for module in modules if fnmatchcase(module, target) or module.endswith(f".{target}")}
        if not found:
            words = sorted({module.rpartition(".")[2] for module in modules})
            near = nearest(target, [*words, *modules])
            meant = f"Did you mean {near}?" if near else f"There are {', '.join(words)}."
            raise SettingsError(f"lora_targets names {target!r}, but no linear map is called so. {meant}")
        chosen |= found
    return [module for module in modules if module in chosen]


def _is_head(name: str) -> bool:
    return name.split(".")[0] in HEADS


def _is_linear_map(entry: Entry) -> bool:
    """Whether a tensor is the matrix of a linear map inside a layer: no table, and no head's."""
    others = (*TIED, *POSITION_TABLES, FINAL_LOGITS_BIAS)
    return len(entry.shape) == 2 and entry.key not in others and not _is_head(entry.key)


def _first(module: str, shape: tuple[int, ...], rank: int, seed: int) -> tuple[HostArray, HostArray]:
    """The first A and B of a map; A depends on the seed and on the module's name alone."""
    outputs, inputs = shape
    bound = 1 / math.sqrt(inputs)
    rng = np.random.default_rng((seed, zlib.crc32(module.encode())))
    return rng.uniform(-bound, bound, (rank, inputs)), np.zeros((outputs, rank))


def _sha256(arrays: Mapping[str, Any], backend: Backend) -> str:
    digest = hashlib.sha256()
    for key, array in arrays.items():
        host = np.ascontiguousarray(backend.to_host(backend.rows(array)))
        digest.update(f" {key} {host.dtype.name} {host.shape} ".encode())
        digest.update(host.data)
    return digest.hexdigest()
