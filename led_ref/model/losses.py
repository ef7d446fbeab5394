"""Losses: what the heads are trained with (teacher forcing: the decoder reads the right target, one position late).

words           cross-entropy of the logits and the labels
an answer       the mean of two cross-entropies over positions, of its start and of its end
labels          cross-entropy; binary cross-entropy for several labels at once; squared error for a regression

To train, each also has its gradient, and the loss comes as a sum and the number of its terms: the mean of a whole training
step is known only when all its documents are. `ds` is d loss / d s for the logits s, with the loss divided by that number:

    cross-entropy            log sum exp(s) - s[label]       ds = softmax(s) - onehot(label)
    binary cross-entropy     log(1 + exp(s)) - y s           ds = sigmoid(s) - y
    squared error            (s - y)**2                      ds = 2 (s - y)
"""

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.model.params import LEDParams

# Labels with this value do not count in the loss (as in PyTorch's cross-entropy).
IGNORED_LABEL = -100

# Target positions whose V logits are allocated at the same time.
LOGIT_ROWS = 512
# Rows of logits that one thread takes from logits to gradients while they are in its cache.
SOFTMAX_ROWS = 8


def for_a_loss(logits: Array) -> Array:
    """The same numbers, float16 as float32: a sum over a vocabulary needs more digits, a loss that is scaled more range."""
    return logits.astype("float32") if logits.dtype.name == "float16" else logits


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
    logits_XV = for_a_loss(logits_XV[counted])
    labels = backend.to_device(labels_X)[counted]
    highest_X1 = logits_XV.max(-1, keepdims=True)
    log_total_X = xp.log(xp.exp(logits_XV - highest_X1).sum(-1)) + highest_X1[:, 0]
    loss_X = log_total_X - logits_XV[xp.arange(len(labels)), labels]
    loss: Array = xp.asarray(loss_X.sum() / logits_XV.dtype.type(len(labels)))
    return loss


def cross_entropy_backward(
    logits_XV: Array, labels_X: HostArray, divide_by: float, smoothing: float, backend: Backend
) -> Array:
    """The sum of the losses, float64, on the device; the logits are overwritten by the gradient of that sum over `divide_by`.

        loss = (1 - e) (log sum exp(s) - s[label]) + e (log sum exp(s) - mean(s))       e: label smoothing
        ds   = softmax(s) - (1 - e) onehot(label) - e / V

    Args:
        logits_XV: (X, V).
        labels_X: (X,) on the host, none of them -100.
        divide_by: the number of labels of the whole step.
        smoothing: e, in 0 <= e < 1: what share of the loss is the mean over all words (0: the label alone).
        backend: where to compute.
    """
    xp, (rows, vocabulary) = backend.xp, logits_XV.shape
    as_number = logits_XV.dtype.type
    labels = backend.to_device(labels_X)
    loss_X = xp.empty(rows, dtype=logits_XV.dtype)

    def compute(groups: slice) -> None:
        part = slice(groups.start * SOFTMAX_ROWS, groups.stop * SOFTMAX_ROWS)
        s_XV, label_X = logits_XV[part], labels[part]
        row_X = xp.arange(len(s_XV))
        highest_X1 = s_XV.max(-1, keepdims=True)
        s_XV -= highest_X1  # the highest is 0 now: exp stays in range
        target_X = as_number(1 - smoothing) * s_XV[row_X, label_X]
        if smoothing:
            target_X += as_number(smoothing / vocabulary) * s_XV.sum(-1)
        xp.exp(s_XV, out=s_XV)
        total_X1 = s_XV.sum(-1, keepdims=True)
        loss_X[part] = xp.log(total_X1[:, 0]) - target_X
        s_XV *= as_number(1 / divide_by) / total_X1
        if smoothing:
            s_XV -= as_number(smoothing / vocabulary / divide_by)
        s_XV[row_X, label_X] -= as_number((1 - smoothing) / divide_by)

    backend.for_each_tile(compute, -(-rows // SOFTMAX_ROWS))
    total: Array = loss_X.sum(dtype="float64")
    return total


def lm_loss_backward(
    x_UD: Array, labels_U: HostArray, params: LEDParams, divide_by: float, smoothing: float, backend: Backend
) -> tuple[Array, Array, Array]:
    """Output projection and cross-entropy of one target, forward and backward, some positions at a time.

    The V logits of all positions never exist at the same time: those of a block are made, become their own gradients in
    place (cross_entropy_backward), and go back through the projection.

    Args:
        x_UD: the decoder's states.
        labels_U: on the host, ids or -100.
        params: the output table, and final_logits_bias, which is a buffer: it is not trained.
        divide_by: the number of labels of the whole step that are not -100.
        smoothing: label smoothing, e.
        backend: where to compute.

    Returns:
        The losses added up, on the device; the gradient of x, (U, D), zeros where the label is -100; that of the table, (V, D).
    """
    xp = backend.xp
    dx_UD = xp.zeros(x_UD.shape, dtype=x_UD.dtype)
    vocabulary = params.lm_head.shape[0]
    dtable_VD = xp.zeros((vocabulary, x_UD.shape[-1]), dtype=x_UD.dtype)
    dbias_V = xp.zeros(vocabulary, dtype=x_UD.dtype)  # of the buffer: nobody reads it
    counted = (labels_U != IGNORED_LABEL).nonzero()[0]
    total: Array = xp.zeros((), dtype="float64")
    for start in range(0, len(counted), LOGIT_ROWS):
        rows = counted[start : start + LOGIT_ROWS]
        at = backend.to_device(rows)
        x_XD = x_UD[at]
        logits_XV = for_a_loss(backend.linear(x_XD, params.lm_head, params.final_logits_bias[0]))
        total = total + cross_entropy_backward(logits_XV, labels_U[rows], divide_by, smoothing, backend)
        dlogits_XV = logits_XV.astype(x_UD.dtype, copy=False)
        dx_UD[at], _, _ = backend.linear_backward(dlogits_XV, x_XD, params.lm_head, into=(dtable_VD, dbias_V))
    return total, dx_UD, dtable_VD


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


def span_loss_backward(
    logits_U2: Array, positions_2: HostArray, divide_by: tuple[float, float], backend: Backend
) -> tuple[Array, Array, Array]:
    """The losses of one answer's start and end (0: cut off), and the gradient of the logits.

    Args:
        logits_U2: (U, 2), the scores of every position as the start and as the end.
        positions_2: the right start and end, on the host; U or more: it does not count.
        divide_by: how many starts, and how many ends, of the whole step count. The loss is the mean of their two means.
        backend: where to compute.
    """
    logits_2U = backend.xp.ascontiguousarray(logits_U2.swapaxes(0, 1))
    losses: list[Array] = [backend.xp.zeros((), dtype="float64")] * 2
    for i, position in enumerate(positions_2):
        if position < len(logits_U2):
            label = positions_2[i : i + 1]
            losses[i] = cross_entropy_backward(logits_2U[i : i + 1], label, 2 * divide_by[i], 0.0, backend)
        else:
            logits_2U[i] = 0
    dlogits_U2: Array = backend.xp.ascontiguousarray(logits_2U.swapaxes(0, 1))
    return losses[0], losses[1], dlogits_U2


def squared_error(logits_BY: Array, labels_BY: Array, backend: Backend) -> Array:
    """`mean((logits - labels)**2)`: a 0-d array. The loss of a regression."""
    logits_BY = for_a_loss(logits_BY)
    difference_BY = logits_BY - labels_BY
    loss: Array = backend.xp.asarray((difference_BY * difference_BY).sum() / logits_BY.dtype.type(logits_BY.size))
    return loss


def squared_error_backward(
    logits_BY: Array, labels_BY: Array, divide_by: float, backend: Backend
) -> tuple[Array, Array]:
    """The sum of the squares, and `2 (logits - labels) / divide_by`."""
    difference_BY = logits_BY - labels_BY
    total = (difference_BY * difference_BY).sum(dtype="float64")
    return total, difference_BY * logits_BY.dtype.type(2 / divide_by)


def binary_cross_entropy(logits_BY: Array, labels_BY: Array, backend: Backend) -> Array:
    """`mean(log(1 + exp(x)) - y x)`: each label by itself is there (y = 1) or not (y = 0). A 0-d array.

    log(1 + exp(x)) is the log-sum-exp of the two logits 0 and x. The higher one is taken out of it, as in `cross_entropy`:
    exp(1000) would overflow.
    """
    xp, logits_BY = backend.xp, for_a_loss(logits_BY)
    both_2BY = xp.stack([xp.zeros(logits_BY.shape, dtype=logits_BY.dtype), logits_BY])
    highest_BY = both_2BY.max(0)
    log_total_BY = xp.log(xp.exp(both_2BY - highest_BY).sum(0)) + highest_BY
    loss_BY = log_total_BY - labels_BY * logits_BY
    loss: Array = xp.asarray(loss_BY.sum() / logits_BY.dtype.type(logits_BY.size))
    return loss


def binary_cross_entropy_backward(
    logits_BY: Array, labels_BY: Array, divide_by: float, backend: Backend
) -> tuple[Array, Array]:
    """The sum of the losses, and `(sigmoid(x) - y) / divide_by`. sigmoid(x) = (1 + tanh(x / 2)) / 2 does not overflow."""
    as_number = logits_BY.dtype.type
    total = binary_cross_entropy(logits_BY, labels_BY, backend).astype("float64") * logits_BY.size
    sigmoid_BY = (backend.xp.tanh(logits_BY * as_number(0.5)) + as_number(1)) * as_number(0.5)
    return total, (sigmoid_BY - labels_BY) * as_number(1 / divide_by)
