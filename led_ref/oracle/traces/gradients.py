"""A trace of the way back: the gradient of every intermediate and of every weight of one training batch.

What runs is the backward pass of training (training/gradients.py), all documents of the batch together and nothing dropped out;
hooks hand on what it computes (model/backward_hooks.py). The order is that of step_names.py: from the loss to the embeddings.
"""

import copy
import inspect
from typing import Any

import numpy as np

from led_backends import to_host
from led_backends.contract import Array, HostArray
from led_ref.errors import InputError
from led_ref.model.backward_hooks import recording_backward
from led_ref.model.intermediates import Recorder
from led_ref.oracle.traces.step_names import describe
from led_ref.training.batch import Trainable, checked_batch
from led_ref.training.gradients import GradientOptions, accumulate_gradients
from led_ref.weights.keys import LM_HEAD, arrays_by_key, heads_of

LOGITS_GRADIENT = "logits.grad"


def check_has_loss(model: Any) -> None:
    """Refuse what has no loss, before it runs.

    Raises:
        InputError: for anything but a model of one of the three classes with a head.
    """
    if not isinstance(model, Trainable):
        raise InputError(
            f"{getattr(model, '__qualname__', type(model).__name__)} has no loss, and so no gradients. Trace a model with "
            "labels: led_ref.trace(led.model, input_ids, labels=labels, gradients=True)."
        )


def record_gradients(model: Any, arguments: Any, options: Any, recorder: Recorder) -> None:
    """Record the gradients of a call of a model with labels, each with the name of its array and `.grad`.

    Args:
        model: of one of the three classes with a head.
        arguments: of its forward.
        options: of its forward, by name.
        recorder: of full names.

    Raises:
        InputError: for a call that cannot be trained on (training/batch.py).
    """
    call = inspect.signature(model.forward).bind(*arguments, **options)
    given = {name: value for name, value in call.arguments.items() if value is not None}
    whole = checked_batch(model, given)
    batch = whole.of(slice(0, len(whole)))  # as it is computed: without the padding that all documents have
    names = {
        id(array): key.removesuffix(".weight")
        for key, array in arrays_by_key(model.params, model.config, heads_of(model.architecture)).items()
        if key.endswith(".weight") and key != LM_HEAD
    }
    names[id(model.params.lm_head)] = LM_HEAD.removesuffix(".weight")
    lengths = {"T": whole.ids_BT.shape[1], "U": whole.decoder_ids_BU.shape[1], "S": whole.decoder_ids_BU.shape[1]}

    def record(name: str, gradient: Array) -> None:
        recorder(name, _with_padding(name, to_host(gradient), lengths))

    backend = recording_backward(
        model.backend, names, (batch.attention_mask_BT, batch.global_attention_mask_BT), model.config.radii,
        batch.decoder_ids_BU.shape[1], Recorder(record, recorder.wants),
    )  # fmt: skip
    recorded = copy.copy(model)
    recorded.backend = backend
    everything = GradientOptions(documents_at_once=len(whole))
    accumulate_gradients(recorded, given, lambda key, array: recorder(f"{key}.grad", array), everything)
    _record_logits(backend.logits(), given, model, recorder)  # type: ignore[attr-defined]


def _with_padding(name: str, gradient: HostArray, lengths: dict[str, int]) -> HostArray:
    """Zeros for the padding that was not computed: nothing comes back from there."""
    letters = describe(name).letters.split()
    if len(letters) != gradient.ndim:
        return gradient
    missing = [(0, lengths.get(letter, size) - size) for letter, size in zip(letters, gradient.shape, strict=True)]
    return np.pad(gradient, missing)


def _record_logits(rows_XV: Array | None, given: dict[str, Any], model: Any, recorder: Recorder) -> None:
    """Logits have a gradient where their label counts, and zeros elsewhere."""
    if rows_XV is None:
        return
    labels_BU = np.asarray(given["labels"])
    logits_BUV = np.zeros((*labels_BU.shape, rows_XV.shape[-1]), rows_XV.dtype)
    logits_BUV[labels_BU != -100] = to_host(rows_XV)
    recorder(LOGITS_GRADIENT, logits_BUV)
