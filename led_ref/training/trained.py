"""The weights that a training changes: copies of the checkpoint's own, by checkpoint key, and which of them are frozen.

Weights as loaded are read-only views of a file. A training changes its copies in place, so that model and optimizer see the
same arrays, and a step needs no second set of weights.

    whole_weights     the weights themselves are trained, all that are not frozen
    lora.py           two thin matrices for each of some linear maps are
    in_float16        either of them, with a model that computes in float16
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from led_backends.contract import Array, Weight
from led_ref.generation.settings.settings import SETTINGS as GENERATION_SETTINGS
from led_ref.training.batch import Trainable
from led_ref.training.parameters import frozen_keys, trainable_copy, trained_parameters, with_weights


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

    @property
    def saved_model(self) -> Trainable:
        """What is written as the trained model."""
        return self.model

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


@dataclass(frozen=True)
class Float16Weights(TrainedWeights):
    """The model computes in float16, and what is trained stays in float32: the master copy.

    A float16 number has 11 binary digits, and most steps change a weight by less than the last of them: added to it, they
    would all be lost. So they are added to the master copy, and the model has it rounded.

    Args:
        master: the weights in float32, with a model that computes with them; nobody runs it, it is what is saved.
        pairs: of each weight that changes, the array of the master copy and the one of the model.
    """

    master: TrainedWeights
    pairs: Sequence[tuple[Array, Array]]

    def gradients(self, key: str, gradient: Array) -> dict[str, Array]:
        """Those of the master copy, in float32: they are added up with its digits."""
        return self.master.gradients(key, gradient.astype("float32"))

    def renew(self) -> None:
        """Round what the optimizer changed into the model."""
        self.master.renew()
        for wide, half in self.pairs:
            half[...] = wide

    @property
    def saved_model(self) -> Trainable:
        """In float32: nothing that was learned is rounded away."""
        return self.master.saved_model

    def facts(self) -> dict[str, Any]:
        """Those of the master copy."""
        return self.master.facts()

    def save_beside(self, folder: Path, start: str | None) -> None:
        """As the master copy does."""
        self.master.save_beside(folder, start)


def in_float16(master: TrainedWeights) -> Float16Weights:
    """Weights in float32 with a model that computes in float16; for a backend that does (Backend.compute_dtypes)."""
    backend = master.model.backend
    pairs: list[tuple[Array, Array]] = []

    def halved(key: str, weight: Weight) -> Array:
        wide = backend.rows(weight)
        half: Array = wide.astype("float16")
        if key in master.needs:
            pairs.append((wide, half))
        return half

    model = with_weights(master.model, halved)
    return Float16Weights(model, master.kept, master.parameters, master.needs, master, pairs)


def as_trained(
    model: Trainable, problem_type: str | None = None, generation: Mapping[str, Any] | None = None
) -> Trainable:
    """The same weights with what config.json and generation_config.json of the trained model say.

    Args:
        model: as loaded.
        problem_type: the kind of labels that are learned, so that the saved model gives the right scores; None: words.
        generation: more generation settings.
    """
    config, settings = model.config, model.generation_config
    if problem_type is not None and config.problem_type is None:
        config = replace(config, extra={**config.extra, "problem_type": problem_type})
    if generation:
        if settings is None:  # then config.json's own count, which a generation_config.json would hide
            settings = {name: value for name, value in model.config.to_dict().items() if name in GENERATION_SETTINGS}
        settings = {**settings, **generation}
    return type(model)(config, model.params, backend=model.backend, generation_config=settings)
