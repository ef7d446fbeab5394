"""Gradients by definition: how much the loss of the float64 definition changes when a weight is moved a little.

Nothing is derived here, so nothing can be derived wrongly. The derivative along a direction d of some tensors is

    (8 (L(w + h d) - L(w - h d)) - (L(w + 2 h d) - L(w - 2 h d))) / 12 h

the central difference of five points, exact up to h^4. For a tensor's gradient g the same number is `sum(g d)`; a direction
that is 1 at one place and 0 elsewhere gives that one number of g. Each derivative takes four whole forward passes: this is
to judge a backward pass, not to train with.

    >>> cubes = lambda weights: float((weights["w"] ** 3).sum())
    >>> round(derivative(cubes, {"w": np.array([2.0, 1.0])}, {"w": np.array([1.0, 0.0])}), 9)
    12.0
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from led_ref.config import LEDConfig
from led_ref.oracle.definition.model import Floats, Weights, decode, decoder_ids_from_labels, encode, loss

# Moves of a number of size 1. h^4 and the rounding of a loss, 1e-16 / h, are then both below 1e-12.
STEP = 1e-3


def derivative(
    loss_of: Callable[[Weights], float], weights: Weights, direction: Mapping[str, Floats], step: float = STEP
) -> float:
    """How fast `loss_of` rises when the weights move along a direction.

    Args:
        loss_of: the loss of some weights.
        weights: {checkpoint key: array}.
        direction: {checkpoint key: array} for the tensors that move.
        step: h.
    """

    def at(h: float) -> float:
        moved = {key: np.asarray(weights[key], np.float64) + h * d for key, d in direction.items()}
        return loss_of({**weights, **moved})

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


def training_loss(
    weights: Weights,
    config: LEDConfig,
    input_ids_BT: npt.ArrayLike,
    labels_BU: npt.ArrayLike,
    attention_mask: npt.ArrayLike | None = None,
    global_attention_mask: npt.ArrayLike | None = None,
    *,
    label_smoothing: float = 0.0,
) -> float:
    """The loss that LEDForConditionalGeneration is trained with, teacher forcing and no dropout.

    Args:
        weights: {checkpoint key: array}.
        config: the sizes.
        input_ids_BT: (B, T).
        labels_BU: (B, U), -100 where the loss ignores it.
        attention_mask: as in `encode`.
        global_attention_mask: as in `encode`.
        label_smoothing: e: `(1 - e) nll + e (log sum exp(logits) - mean(logits))`, the mean over labels that are not -100.
    """
    states = encode(weights, config, input_ids_BT, attention_mask, global_attention_mask).hidden_states[-1]
    decoder_ids = decoder_ids_from_labels(labels_BU, config)
    logits_BUV = decode(weights, config, decoder_ids, states, attention_mask).logits
    nll = loss(logits_BUV, labels_BU)
    if not label_smoothing:
        return nll
    counted_XV = logits_BUV[np.asarray(labels_BU) != -100]
    peak_X = counted_XV.max(axis=1)
    log_total_X = peak_X + np.log(np.exp(counted_XV - peak_X[:, None]).sum(axis=1))
    uniform = math.fsum(log_total_X - counted_XV.mean(axis=1)) / len(counted_XV)
    return (1 - label_smoothing) * nll + label_smoothing * uniform
