"""Heads: from the decoder's states to what a class is for. losses.py has what each is trained with.

words           lm_logits, in decoder.py                            of every state    LEDForConditionalGeneration
an answer       (start, end) = qa_outputs(x)                        of every state    LEDForQuestionAnswering
a label         out_proj(tanh(dense(x)))                            of one state      LEDForSequenceClassification
"""

from led_backends.contract import Array, Backend, HostArray
from led_ref.model.dropout import NO_DROPOUT, Dropout
from led_ref.model.ops import linear, linear_backward
from led_ref.model.params import ClassificationHeadParams, Linear


def span_logits(x_BTD: Array, params: Linear, backend: Backend) -> tuple[Array, Array]:
    """How well an answer starts and ends at each position: two maps D -> 1, kept as one. (B, T, D) -> twice (B, T)."""
    logits_BT2 = backend.linear(x_BTD, params.weight, params.bias)
    return logits_BT2[..., 0], logits_BT2[..., 1]


def last_marked_state(x_BTD: Array, marked_BT: HostArray, backend: Backend) -> Array:
    """The state at the last marked position of each row: (B, T, D) -> (B, D). The marks are on the host, one a row at least."""
    last_B = backend.to_device(last_marked(marked_BT))
    picked_BD: Array = x_BTD[backend.xp.arange(len(marked_BT)), last_B]
    return picked_BD


def last_marked_state_backward(dpicked_BD: Array, marked_BT: HostArray, backend: Backend) -> Array:
    """(B, D) -> (B, T, D): each gradient goes to the state that was picked; the others get none."""
    batch, length = marked_BT.shape
    dx_BTD: Array = backend.xp.zeros((batch, length, dpicked_BD.shape[-1]), dtype=dpicked_BD.dtype)
    dx_BTD[backend.xp.arange(batch), backend.to_device(last_marked(marked_BT))] = dpicked_BD
    return dx_BTD


def last_marked(marked_BT: HostArray) -> HostArray:
    """The last marked position of each row, (B,)."""
    last_B: HostArray = marked_BT.shape[1] - 1 - marked_BT[:, ::-1].argmax(axis=1)  # argmax: the first True
    return last_B


def label_logits(
    x_BD: Array, params: ClassificationHeadParams, backend: Backend, dropout: Dropout = NO_DROPOUT
) -> Array:
    """`out_proj(tanh(dense(x)))`: (B, D) -> (B, Y). In training, what the two maps read is dropped out."""
    return linear(_classified(x_BD, params, backend, dropout)[1], params.out_proj, backend)


def label_logits_backward(
    dlogits_BY: Array, x_BD: Array, params: ClassificationHeadParams, backend: Backend, dropout: Dropout = NO_DROPOUT
) -> tuple[Array, ClassificationHeadParams]:
    """(B, Y) -> (B, D), and the gradients of the two maps: `dtanh = 1 - tanh**2`."""
    read_BD, inner_BD, tanh_BD = _classified(x_BD, params, backend, dropout)
    dinner_BD, dout_proj = linear_backward(dlogits_BY, inner_BD, params.out_proj, backend)
    dtanh_BD = _drop(dinner_BD, "out_proj", backend, dropout)
    dread_BD, ddense = linear_backward(dtanh_BD * (1 - tanh_BD * tanh_BD), read_BD, params.dense, backend)
    return _drop(dread_BD, "dense", backend, dropout), ClassificationHeadParams(ddense, dout_proj)


def _classified(
    x_BD: Array, params: ClassificationHeadParams, backend: Backend, dropout: Dropout
) -> tuple[Array, Array, Array]:
    """What dense reads, what out_proj reads, and the tanh that became that: (B, D) each."""
    read_BD = _drop(x_BD, "dense", backend, dropout)
    tanh_BD = backend.xp.tanh(linear(read_BD, params.dense, backend))
    return read_BD, _drop(tanh_BD, "out_proj", backend, dropout), tanh_BD


def _drop(x_BD: Array, module: str, backend: Backend, dropout: Dropout) -> Array:
    return dropout.classifier(f"classification_head.{module}").drop(x_BD[:, None], backend)[:, 0]
