"""From the decoder's states to numbers about words: logits and the training loss."""

from led_backends.contract import Array, Backend, HostArray
from led_ref.model.params import LEDParams

# Labels with this value do not count in the loss (as in PyTorch's cross-entropy).
IGNORED_LABEL = -100


def lm_logits(x_NUD: Array, params: LEDParams, backend: Backend) -> Array:
    """`x @ lm_head.T + final_logits_bias`: (N, U, D) -> (N, U, V). The output table is the embedding table, unless untied."""
    return backend.linear(x_NUD, params.lm_head, params.final_logits_bias[0])


def cross_entropy(logits_BUV: Array, labels_BU: HostArray, backend: Backend) -> Array:
    """`mean(log sum exp(logits) - logits[label])` over the labels that are not -100: a 0-d array; nan if all are.

    Args:
        logits_BUV: (B, U, V).
        labels_BU: (B, U) int64 on the host, ids or -100.
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
    """The decoder's input for teaching: `[start] + labels[:-1]`, with -100 become pad.

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
