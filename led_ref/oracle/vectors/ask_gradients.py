"""led_ref's answers to level 8 of the conformance vectors: each gradient by the model's own backward function.

A gradient has the name of its array and `.grad`: of weights the checkpoint key. Weights' gradients are dataclasses like the
weights themselves, and are named by the same table (weights/keys.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import numpy as np

from led_backends.contract import Backend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.model.attention import Seeing, attend_backward
from led_ref.model.decoder import decoder_layer_backward, teacher_forcing
from led_ref.model.dropout import NO_DROPOUT, NOTHING_DROPPED, Dropout, DropoutRates, Site
from led_ref.model.encoder import LayerSeeing, encoder_layer_backward
from led_ref.model.global_attention import GlobalRows, global_attention_backward
from led_ref.model.losses import IGNORED_LABEL, cross_entropy_backward
from led_ref.model.masks import document_masks, encoder_masks, window_blocks
from led_ref.model.ops import (
    add_positions_backward,
    embed_tokens,
    embed_tokens_backward,
    linear_backward,
)
from led_ref.model.params import EncoderLayerParams, LayerNorm, Linear
from led_ref.model.sliding_window import Window, sliding_window_attention_backward
from led_ref.oracle.vectors.format import Array, Case, Tensors
from led_ref.training.clipping import clip_factor, global_norm
from led_ref.training.gradients import GradientOptions, accumulate_gradients
from led_ref.training.optimizers import AdamW, OptimizerState, initial_state
from led_ref.training.targets import fetched
from led_ref.weights.keys import arrays_by_key, entries

BATCH = ("input_ids", "attention_mask", "global_attention_mask", "labels")


class Subject(Protocol):
    """What LedRef (ask_led_ref.py) has for these operations."""

    backend: Backend
    dtype: Any

    def floats(self, case: Case, name: str) -> Array:
        """An input in the dtype of the computation."""
        ...

    def model(self, case: Case) -> LEDForConditionalGeneration:
        """The case's model."""
        ...


# ---- operations ---------------------------------------------------------------------------------------------------------


def linear(subject: Subject, case: Case) -> Tensors:
    """dx, dweight, dbias."""
    params = Linear(subject.floats(case, "weight"), subject.floats(case, "bias"))
    dx, dparams = linear_backward(subject.floats(case, "y.grad"), subject.floats(case, "x"), params, subject.backend)
    dweight: Any = dparams.weight
    return {"x.grad": dx, "weight.grad": dweight, "bias.grad": dparams.bias}


def layer_norm(subject: Subject, case: Case) -> Tensors:
    """dx, dweight, dbias."""
    dy, x, weight = (subject.floats(case, name) for name in ("y.grad", "x", "weight"))
    dx, dweight, dbias = subject.backend.layer_norm_backward(dy, x, weight)
    return {"x.grad": dx, "weight.grad": dweight, "bias.grad": dbias}


def activation(subject: Subject, case: Case) -> Tensors:
    """Dx."""
    name = case.operation.removesuffix("_backward")
    _, slope = subject.backend.activate_with_slope(subject.floats(case, "x"), name)
    return {"x.grad": subject.floats(case, "y.grad") * slope}


def softmax(subject: Subject, case: Case) -> Tensors:
    """Dscores."""
    scores = subject.floats(case, "scores")
    subject.backend.hide(scores, subject.backend.to_device(case.inputs["may_look"] == 1))
    probs = subject.backend.softmax(scores)
    return {"scores.grad": subject.backend.softmax_backward(subject.floats(case, "y.grad"), probs)}


def embed(subject: Subject, case: Case) -> Tensors:
    """dtable, dpositions, dweight, dbias."""
    backend, ids_1T = subject.backend, case.inputs["ids"][None]
    table_VD, positions_PD = subject.floats(case, "table"), subject.floats(case, "positions")
    x_1TD = embed_tokens(ids_1T, table_VD, backend)
    norm = LayerNorm(subject.floats(case, "weight"), subject.floats(case, "bias"))
    dy_1TD = subject.floats(case, "y.grad")[None]
    dx_1TD, dpositions_TD, dnorm = add_positions_backward(dy_1TD, x_1TD, positions_PD, norm, backend)
    dtable_VD = backend.xp.zeros(table_VD.shape, dtype=table_VD.dtype)
    embed_tokens_backward(dx_1TD, ids_1T, case.arguments["pad_token_id"], dtable_VD, backend)
    dpositions_PD = backend.xp.zeros(positions_PD.shape, dtype=positions_PD.dtype)
    dpositions_PD[: len(dpositions_TD)] = dpositions_TD
    grads = {"table": dtable_VD, "positions": dpositions_PD, "weight": dnorm.weight, "bias": dnorm.bias}
    return {f"{name}.grad": grad for name, grad in grads.items()}


# ---- attention ----------------------------------------------------------------------------------------------------------


def window(subject: Subject, case: Case) -> Tensors:
    """dq, dk, dv. The case's q is not yet divided by the root of K."""
    backend = subject.backend
    (q_HTK, k_HTK, v_HTK), scale = _scaled(subject, case)
    (mask,) = document_masks(case.inputs["attention_mask"][None], case.inputs["global_attention_mask"][None])
    seen = Window(mask, window_blocks(mask, case.arguments["radius"], backend), NOTHING_DROPPED, 0)
    d_TD = sliding_window_attention_backward(subject.floats(case, "y.grad"), q_HTK, k_HTK, v_HTK, seen, backend)
    dq_HTK, dk_HTK, dv_HTK = (backend.split_heads(d[None], len(q_HTK))[0] for d in d_TD)
    return {"q.grad": dq_HTK * scale, "k.grad": dk_HTK, "v.grad": dv_HTK}


def full(subject: Subject, case: Case) -> Tensors:
    """dq, dk, dv."""
    backend = subject.backend
    (q_HUK, k_HSK, v_HSK), scale = _scaled(subject, case)
    may_look_1US = backend.to_device(case.inputs["may_look"][None] == 1)
    dout_1HUK = backend.split_heads(subject.floats(case, "y.grad")[None], len(q_HUK))
    dq, dk, dv = attend_backward(
        dout_1HUK, q_HUK[None], k_HSK[None], v_HSK[None], Seeing(len(q_HUK), may_look_1US), backend
    )
    return {"q.grad": dq[0] * scale, "k.grad": dk[0], "v.grad": dv[0]}


def _scaled(subject: Subject, case: Case) -> tuple[tuple[Array, Array, Array], Any]:
    """(q / sqrt(K), k, v), and 1 / sqrt(K)."""
    q, k, v = (subject.floats(case, name) for name in "qkv")
    scale = subject.dtype.type(q.shape[-1] ** -0.5)
    return (q * scale, k, v), scale


def global_rows(subject: Subject, case: Case) -> Tensors:
    """dx, and the three maps'."""
    maps = ("query_global", "key_global", "value_global")
    of = {name: Linear(*(subject.floats(case, f"{name}.{part}") for part in ("weight", "bias"))) for name in maps}
    unused = dict.fromkeys((field.name for field in fields(EncoderLayerParams)), None)  # no other map is looked at
    params = EncoderLayerParams(**{**unused, **of})  # type: ignore[arg-type]
    (mask,) = document_masks(case.inputs["attention_mask"][None], case.inputs["global_attention_mask"][None])
    dropped = NOTHING_DROPPED
    if "global_probs.kept" in case.inputs:
        kept_1HTT = subject.backend.to_device(case.inputs["global_probs.kept"][None] == 1)
        dropped = Site(case.arguments["attention_dropout"], given=kept_1HTT)
    rows = GlobalRows(case.arguments["heads"], mask, dropped, 0)
    dout_GD, x_TD = subject.floats(case, "y.grad"), subject.floats(case, "x")
    dx_TD, dmaps = global_attention_backward(dout_GD, x_TD, params, rows, subject.backend)
    found: dict[str, Any] = {"x.grad": dx_TD}
    for name, dmap in zip(maps, dmaps, strict=True):
        found |= {f"{name}.weight.grad": dmap.weight, f"{name}.bias.grad": dmap.bias}
    return found


# ---- loss and layers ----------------------------------------------------------------------------------------------------


def loss(subject: Subject, case: Case) -> Tensors:
    """The loss, and dlogits."""
    logits_BUV, labels_BU = subject.floats(case, "logits"), case.inputs["labels"]
    logits_XV, labels_X = logits_BUV.reshape(-1, logits_BUV.shape[-1]), labels_BU.reshape(-1)
    counted = (labels_X != IGNORED_LABEL).nonzero()[0]
    at = subject.backend.to_device(counted)
    own_XV, count = logits_XV[at], len(counted)
    smoothing = case.arguments["label_smoothing"]
    total = cross_entropy_backward(own_XV, labels_X[counted], count, smoothing, subject.backend)
    dlogits_XV = subject.backend.xp.zeros(logits_XV.shape, dtype=logits_XV.dtype)
    dlogits_XV[at] = own_XV
    return {"loss": total / count, "logits.grad": dlogits_XV.reshape(logits_BUV.shape)}


def encoder_layer(subject: Subject, case: Case) -> Tensors:
    """dx, and the layer's."""
    model, layer = subject.model(case), case.arguments["layer"]
    documents = document_masks(case.inputs["attention_mask"], case.inputs["global_attention_mask"])
    (masks,) = encoder_masks(documents, model.config.radii[layer : layer + 1], subject.backend)
    seeing = LayerSeeing(model.config.encoder_attention_heads, masks, NO_DROPOUT)
    dx_BTD, gradients = encoder_layer_backward(
        subject.floats(case, "y.grad"), subject.floats(case, "x"), model.params.encoder.layers[layer], seeing,
        subject.backend,
    )  # fmt: skip
    return {"x.grad": dx_BTD, **_by_key(model, f"encoder.layers.{layer}", gradients)}


def decoder_layer(subject: Subject, case: Case) -> Tensors:
    """dx, dstates, and the layer's."""
    model, layer, x_BUD = subject.model(case), case.arguments["layer"], subject.floats(case, "x")
    heads, mask_BT = model.config.decoder_attention_heads, case.inputs["attention_mask"]
    given = teacher_forcing(subject.floats(case, "states"), mask_BT, x_BUD.shape[1], heads, subject.backend)
    dx_BUD, dstates_BTD, gradients = decoder_layer_backward(
        subject.floats(case, "y.grad"), x_BUD, model.params.decoder.layers[layer], given, NO_DROPOUT, subject.backend
    )
    return {"x.grad": dx_BUD, "states.grad": dstates_BTD, **_by_key(model, f"decoder.layers.{layer}", gradients)}


def _by_key(model: LEDForConditionalGeneration, path: str, gradients: Any) -> dict[str, Array]:
    """The arrays of a dataclass of gradients by checkpoint key and `.grad`."""
    keys = {entry.field: entry.key for entry in entries(model.config)}
    found: dict[str, Array] = {}
    for field in fields(gradients):
        value, at = getattr(gradients, field.name), f"{path}.{field.name}"
        if is_dataclass(value):
            found |= _by_key(model, at, value)
        elif at in keys:
            found[f"{keys[at]}.grad"] = value
    return found


# ---- the whole ----------------------------------------------------------------------------------------------------------


def gradients(subject: Subject, case: Case) -> Tensors:
    """The loss, and the gradient of every weight."""
    mean, summed = _gradients(subject, case)
    return {"loss": np.asarray(mean), **{f"{key}.grad": array for key, array in summed.items()}}


def _gradients(subject: Subject, case: Case) -> tuple[float, dict[str, Array]]:
    rates = {name: case.arguments[name] for name in DropoutRates.__dataclass_fields__ if name in case.arguments}
    given = {
        name.removesuffix(".kept"): subject.backend.to_device(kept == 1)
        for name, kept in case.inputs.items()
        if name.endswith(".kept")
    }
    batch = {name: case.inputs[name] for name in BATCH}
    dropout = Dropout(DropoutRates(**rates), documents=range(len(batch["input_ids"])), given=given)
    options = GradientOptions(dropout, case.arguments.get("label_smoothing", 0.0))
    summed: dict[str, Array] = {}

    def add(key: str, gradient: Array) -> None:
        summed[key] = summed[key] + gradient if key in summed else gradient

    loss = accumulate_gradients(subject.model(case), batch, add, options)
    (on_host,), _ = fetched([loss], loss.sums[0], subject.backend)
    return on_host.mean, summed


def adamw(subject: Subject, case: Case) -> Tensors:
    """Weights and moments after a step."""
    names = [name.removesuffix(".grad") for name in case.inputs if name.endswith(".grad")]
    weights, grads, moments, squares = (
        {name: subject.floats(case, name + part) for name in names} for part in ("", ".grad", ".exp_avg", ".exp_avg_sq")
    )
    state = OptimizerState(
        dict.fromkeys(names, case.arguments["step"] - 1),
        {f"{name}.exp_avg": moment for name, moment in moments.items()}
        | {f"{name}.exp_avg_sq": square for name, square in squares.items()},
    )
    state = _adamw(case).update(weights, grads, state, case.arguments["learning_rate"], subject.backend)
    return {**weights, **state.moments}


def training_step(subject: Subject, case: Case) -> Tensors:
    """The loss, the norm of the gradients, and all weights after the first step."""
    mean, summed = _gradients(subject, case)
    norm = global_norm(summed, subject.backend)
    model, optimizer = subject.model(case), _adamw(case)
    before: Mapping[str, Any] = arrays_by_key(model.params, model.config)
    weights = {key: before[key].copy() for key in summed}
    state = initial_state(optimizer, weights, subject.backend)
    scale = clip_factor(norm, case.arguments["max_grad_norm"])
    optimizer.update(weights, summed, state, case.arguments["learning_rate"], subject.backend, scale=scale)
    return {"loss": np.asarray(mean), "grad_norm": np.asarray(norm), **weights}


def _adamw(case: Case) -> AdamW:
    given = case.arguments
    return AdamW(given["adam_beta1"], given["adam_beta2"], given["adam_epsilon"], given["weight_decay"])


GRADIENT_OPERATIONS: Mapping[str, Callable[[Any, Case], Tensors]] = {
    **{f"{of.__name__}_backward": of for of in (
        linear, layer_norm, softmax, embed, window, full, global_rows, loss, encoder_layer, decoder_layer,
    )},
    **dict.fromkeys(("gelu_backward", "relu_backward", "silu_backward", "gelu_new_backward"), activation),
    **{of.__name__: of for of in (gradients, adamw, training_step)},
}  # fmt: skip
