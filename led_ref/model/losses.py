"""Losses: what the heads are trained with (teacher forcing: the decoder reads the right target, one position late).

words           cross-entropy of the logits and the labels
an answer       the mean of two cross-entropies over positions, of its start and of its end
labels          cross-entropy; binary cross-entropy for several labels at once; squared error for a regression
"""

import numpy as np

from led_backends.contract import Array, Backend, HostArray

# Labels with this value do not count in the loss (as in PyTorch's cross-entropy).
IGNORED_LABEL = -100


def cross_entropy(logits_BUV: Array, labels_BU: HostArray, backend: Backend) -> Array:
    """`mean(log sum exp(logits) - logits[label])` over the labels that are not -100: a 0-d array; nan if all are.

    Args:
        logits_BUV: (B, U, V); or with one axis less, (B, V).
        labels_BU: (B, U) int64 on the host, ids or -100; or (B,).
        backend: where to compute.
    """
    xp = backend.xp
    logits_XV = logits_BUV.reshape(-1, logits_BUV.shape[-1])
    labels_X = labels_BU.reshape(-1)
    counted = backend.to_device((labels_X != IGNORED_LABEL).nonzero()[0])
    logits_XV = logits_XV[counted]
    labels = backend.to_device(labels_X)[counted]
    highest_X1 = logits_XV.max(-1, keepdims=True)
    log_total_X = xp.log(xp.exp(logits_XV - highest_X1).sum(-1)) + highest_X1[:, 0]
    loss_X = log_total_X - logits_XV[xp.arange(len(labels)), labels]
    loss: Array = xp.asarray(loss_X.sum() / logits_XV.dtype.type(len(labels)))
    return loss


def shift_tokens_right(labels_BU: HostArray, decoder_start_token_id: int, pad_token_id: int) -> HostArray:
    """The decoder's input for teacher forcing: `[start] + labels[:-1]`, with -100 replaced by pad.

    Example:
        >>> import numpy as np
        >>> shift_tokens_right(np.array([[8, 9, 2, -100, -100]]), 2, 1)
        array([[2, 8, 9, 2, 1]])
    """
    shifted = labels_BU.copy()
    shifted[:, 1:] = labels_BU[:, :-1]
    shifted[:, 0] = decoder_start_token_id
    shifted[shifted == IGNORED_LABEL] = pad_token_id
    return shifted


def span_loss(
    start_logits_BT: Array,
    end_logits_BT: Array,
    start_positions_B: HostArray,
    end_positions_B: HostArray,
    backend: Backend,
) -> Array:
    """The mean of two cross-entropies over positions, of the start and of the end: a 0-d array.

    A position of T or more lies in a part of the document that was cut off. Its term does not count.
    """
    terms = []
    for logits_BT, positions_B in ((start_logits_BT, start_positions_B), (end_logits_BT, end_positions_B)):
        inside_B = np.where(positions_B < logits_BT.shape[1], positions_B, IGNORED_LABEL)
        terms.append(cross_entropy(logits_BT, inside_B, backend))
    loss: Array = backend.xp.asarray(backend.xp.stack(terms).sum() / terms[0].dtype.type(2))
    return loss


def squared_error(logits_BY: Array, labels_BY: Array, backend: Backend) -> Array:
    """`mean((logits - labels)**2)`: a 0-d array. The loss of a regression."""
    difference_BY = logits_BY - labels_BY
    loss: Array = backend.xp.asarray((difference_BY * difference_BY).sum() / logits_BY.dtype.type(logits_BY.size))
    return loss


def binary_cross_entropy(logits_BY: Array, labels_BY: Array, backend: Backend) -> Array:
    """`mean(log(1 + exp(x)) - y x)`: each label by itself is there (y = 1) or not (y = 0). A 0-d array.

    log(1 + exp(x)) is the log-sum-exp of the two logits 0 and x. The higher one is taken out of it, as in `cross_entropy`:
    exp(1000) would overflow.
    """
    xp = backend.xp
    both_2BY = xp.stack([xp.zeros(logits_BY.shape, dtype=logits_BY.dtype), logits_BY])
    highest_BY = both_2BY.max(0)
    log_total_BY = xp.log(xp.exp(both_2BY - highest_BY).sum(0)) + highest_BY
    loss_BY = log_total_BY - labels_BY * logits_BY
    loss: Array = xp.asarray(loss_BY.sum() / logits_BY.dtype.type(logits_BY.size))
    return loss
