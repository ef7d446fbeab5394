"""The weights that a training changes: copies of the checkpoint's own, by checkpoint key, and which of them are frozen.

Weights as loaded are read-only views of a file. A training changes its copies in place, so that model and optimizer see the
same arrays, and a step needs no second set of weights.

    whole_weights     the weights themselves are trained, all that are not frozen
    lora.py           two thin matrices for each of some linear maps are
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from led_backends.contract import Array
from led_ref.config import LEDConfig
from led_ref.training.batch import Trainable
from led_ref.training.parameters import frozen_keys, trainable_copy, trained_parameters
from led_ref.weights.keys import (
    FINAL_LOGITS_BIAS,
    LM_HEAD,
    arrays_by_key,
    assemble,
    entries,
    heads_of,
)


@dataclass(frozen=True)
class TrainedWeights:
    """What a training changes: here the weights themselves.

    Args:
        model: computes with the weights as they are after the last step.
        kept: what a training that goes on needs beside the model that it began with: what the checkpoint holds. By name.
        parameters: of `kept`, what the optimizer changes.
        needs: the checkpoint keys of the weights whose gradients `gradients` takes.
    """

    model: Trainable
    kept: Mapping[str, Array]
    parameters: Mapping[str, Array]
    needs: frozenset[str]

    def gradients(self, key: str, gradient: Array) -> dict[str, Array]:
        """The gradients of parameters, by name, that follow from a part of the gradient of the weight `key`."""
        return {key: gradient}

    def renew(self) -> None:
        """Let the model compute with the parameters, after they were changed. They are its own arrays."""

    def facts(self) -> dict[str, Any]:
        """What else a run that goes on must have the same: nothing, since `kept` is all of the model."""
        return {}

    def save_beside(self, folder: Path, start: str | None) -> None:
        """Write what belongs into the folder of the model beside it: nothing."""


def whole_weights(model: Trainable, freeze: Sequence[str]) -> TrainedWeights:
    """All weights are trained that are not frozen; errors as in trainable_copy and frozen_keys."""
    own_model = trainable_copy(model)
    weights = trained_parameters(own_model)
    frozen = frozen_keys(freeze, weights)
    trained = {key: array for key, array in weights.items() if key not in frozen}
    return TrainedWeights(own_model, weights, trained, frozenset(trained))


def with_own_weights(
    model: Trainable, config: LEDConfig, is_changed: Callable[[str], bool] = lambda key: True
) -> tuple[Trainable, dict[str, Array]]:
    """A model whose weights may be changed in place, and those that a training may change.

    Args:
        model: as loaded; it stays as it is.
        config: of the new model, of the same sizes.
        is_changed: which weights are copied, by checkpoint key; the others are shared with `model`.

    Returns:
        The model, and its copied arrays by checkpoint key: a tied table once, as `led.shared.weight`; without
        final_logits_bias, which is never trained.
    """
    heads, xp = heads_of(model.architecture), model.backend.xp
    is_tied = model.params.lm_head is model.params.shared
    arrays = arrays_by_key(model.params, model.config, heads)
    own: dict[str, Any] = {}
    by_field: dict[str, Any] = {}
    for entry in entries(config, heads):
        if entry.key == LM_HEAD and is_tied:
            by_field[entry.field] = by_field["shared"]
            continue
        by_field[entry.field] = model.backend.rows(arrays[entry.key])
        if is_changed(entry.key):
            by_field[entry.field] = own[entry.key] = xp.array(by_field[entry.field], order="C")
    own.pop(FINAL_LOGITS_BIAS, None)
    if heads:
        own.pop(LM_HEAD, None)  # a class with a head does not use it
    copied = type(model)(
        config,
        assemble(by_field, config),
        backend=model.backend,
        generation_config=model.generation_config,
    )
    return copied, own
