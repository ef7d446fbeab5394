"""What is trained: a model whose weights are its own arrays, its parameters by checkpoint key, and which of them are frozen.

    model = trainable_copy(model)             arrays that an optimizer may change in place
    parameters = trained_parameters(model)    {"led.encoder.layers.0.fc1.weight": array, ...}: the model's own arrays
    frozen = frozen_keys(["encoder"], parameters)

A tied output projection is the embedding table, one parameter under the table's key. `final_logits_bias` is a buffer and is
not trained, as in transformers.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import numpy as np

from led_backends.compact import CompactWeight
from led_backends.contract import Array, Weight
from led_ref.classes.pretrained import LEDPreTrainedModel
from led_ref.config import LEDConfig
from led_ref.errors import InputError, nearest
from led_ref.weights.keys import (
    FINAL_LOGITS_BIAS,
    LM_HEAD,
    POSITION_TABLES,
    SHARED,
    arrays_by_key,
    assemble,
    entries,
    heads_of,
)
from led_ref.weights.stored_tensor import let_go

# What `frozen_keys` takes beside the beginnings of keys: the beginnings of the keys that each name stands for.
GROUPS = {
    "encoder": ("led.encoder",),
    "decoder": ("led.decoder",),
    "embeddings": (SHARED,),
    "positions": POSITION_TABLES,
}

Model = TypeVar("Model", bound=LEDPreTrainedModel)


def trainable_copy(model: Model) -> Model:
    """The same model with weights of its own, in the same dtype. Loaded weights can be read-only views of their file.

    Raises:
        InputError: if its weights are quantized or stored in half precision, or it computes in float16.
    """
    if model.dtype not in ("float32", "float64"):
        raise InputError(
            f"The model computes in {model.dtype}; train in float32: from_pretrained(..., dtype='float32')."
        )

    def copied(key: str, weight: Weight) -> Array:
        if isinstance(weight, CompactWeight):
            raise InputError(
                f"{key} is quantized or stored in half precision, and cannot be trained. Load the model without quantize "
                "and keep_stored; of a quantized folder, led-ref convert FOLDER OTHER --dtype float32 makes one of floats."
            )
        original = model.backend.to_host(model.backend.rows(weight))
        own = model.backend.to_device(np.array(original))
        let_go(original)
        return own

    return with_weights(model, copied)


def with_weights(model: Model, change: Callable[[str, Weight], Weight], config: LEDConfig | None = None) -> Model:
    """The model with other weights of the same shapes.

    Args:
        model: stays as it is.
        change: gives the new weight for a checkpoint key and the weight as it is. A tied table is asked for once, as
            `led.shared.weight`, and stays one array.
        config: of the new model, of the same sizes; None: the model's.
    """
    arrays = arrays_by_key(model.params, model.config, heads_of(model.architecture))
    changed: dict[int, Weight] = {}  # by the identity of the weight as it is
    fields: dict[str, Weight] = {}
    for entry in entries(model.config, heads_of(model.architecture)):
        weight = arrays[entry.key]
        if id(weight) not in changed:
            changed[id(weight)] = change(entry.key, weight)
        fields[entry.field] = changed[id(weight)]
    config = config or model.config
    params = assemble(fields, config)
    return type(model)(config, params, backend=model.backend, generation_config=model.generation_config)


def trained_parameters(model: LEDPreTrainedModel) -> dict[str, Array]:
    """The trained arrays of a `trainable_copy` by checkpoint key, in the order of keys.py: the model's own, not copies."""
    heads = heads_of(model.architecture)
    left_out = {FINAL_LOGITS_BIAS}
    if heads or model.params.lm_head is model.params.shared:
        left_out.add(LM_HEAD)
    arrays = arrays_by_key(model.params, model.config, heads)
    return {key: model.backend.rows(weight) for key, weight in arrays.items() if key not in left_out}


def frozen_keys(names: Iterable[str], keys: Collection[str]) -> frozenset[str]:
    """The keys that names freeze.

    Args:
        names: "encoder", "decoder", "embeddings" (the token table, and with it a tied output projection), "positions", or
            beginnings of keys, in whole words: "led.encoder.layers.0".
        keys: of all parameters.

    Raises:
        InputError: for a name that freezes nothing, and if nothing is left to train.

    Example:
        >>> sorted(frozen_keys(["positions"], ["led.shared.weight", "led.encoder.embed_positions.weight"]))
        ['led.encoder.embed_positions.weight']
    """
    frozen: set[str] = set()
    for name in names:
        starts = GROUPS.get(name, (name,))
        found = {key for key in keys if any(key == start or key.startswith(start + ".") for start in starts)}
        if not found:
            near = nearest(name, [*GROUPS, *keys])
            raise InputError(
                f"There is no {name!r} to freeze{f'; did you mean {near!r}?' if near else '.'} Choose from "
                f"{', '.join(GROUPS)}, or give the beginning of a checkpoint key, such as 'led.encoder.layers.0'."
            )
        frozen |= found
    if keys and len(frozen) == len(keys):
        raise InputError(f"Freezing {', '.join(names)} leaves nothing to train. Freeze less.")
    return frozenset(frozen)
