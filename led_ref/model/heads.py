"""Heads: from the decoder's states to what a class is for. losses.py has what each is trained with.

words           lm_logits, in decoder.py                            of every state    LEDForConditionalGeneration
an answer       (start, end) = qa_outputs(x)                        of every state    LEDForQuestionAnswering
a label         out_proj(tanh(dense(x)))                            of one state      LEDForSequenceClassification
"""

from led_backends.contract import Array, Backend, HostArray
from led_ref.model.params import ClassificationHeadParams, Linear


def span_logits(x_BTD: Array, params: Linear, backend: Backend) -> tuple[Array, Array]:
    """How well an answer starts and ends at each position: two maps D -> 1, kept as one. (B, T, D) -> twice (B, T)."""
    logits_BT2 = backend.linear(x_BTD, params.weight, params.bias)
    return logits_BT2[..., 0], logits_BT2[..., 1]


def last_marked_state(x_BTD: Array, marked_BT: HostArray, backend: Backend) -> Array:
    """The state at the last marked position of each row: (B, T, D) -> (B, D). The marks are on the host, one a row at least."""
    batch, length = marked_BT.shape
    last_B = length - 1 - marked_BT[:, ::-1].argmax(axis=1)  # argmax: the first True
    picked_BD: Array = x_BTD[backend.xp.arange(batch), backend.to_device(last_B)]
    return picked_BD


def label_logits(x_BD: Array, params: ClassificationHeadParams, backend: Backend) -> Array:
    """`out_proj(tanh(dense(x)))`: (B, D) -> (B, Y)."""
    inner_BD = backend.xp.tanh(backend.linear(x_BD, params.dense.weight, params.dense.bias))
    return backend.linear(inner_BD, params.out_proj.weight, params.out_proj.bias)
