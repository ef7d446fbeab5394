"""What a model is trained to make of its documents: words, the place of an answer, or labels. One class for each head.

A target knows its loss and the gradient of the decoder's states (model/losses.py, model/heads.py). The loss of a training
step is the mean over all its documents, so each target gives the sum of its losses and counts what it sums; for an answer
these are two sums, of starts and of ends, and the loss is the mean of the two means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.config import REGRESSION, SINGLE_LABEL
from led_ref.errors import InputError
from led_ref.model.dropout import Dropout
from led_ref.model.heads import label_logits, label_logits_backward, last_marked_state, last_marked_state_backward
from led_ref.model.losses import (
    IGNORED_LABEL,
    binary_cross_entropy_backward,
    cross_entropy_backward,
    for_a_loss,
    lm_loss_backward,
    span_loss_backward,
    squared_error_backward,
)
from led_ref.model.ops import linear, linear_backward
from led_ref.model.params import LEDParams


@dataclass(frozen=True)
class LossSum:
    """The losses of some documents: sums, and over how many labels each goes. Add those of the parts of a step.

    Each sum is float64 without axes on the backend's device, so that a part of a step does not wait for a GPU; `mean` does.
    """

    sums: tuple[Array, ...]
    counts: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The loss: the mean of the sums' means; nan if one of them has no label."""
        means = [total / count if count else np.nan for total, count in zip(self.sums, self.counts, strict=True)]
        return float(sum(means) / len(means))

    def __add__(self, other: "LossSum") -> "LossSum":
        return LossSum(
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
        )


def fetched(losses: Sequence[LossSum], other: Array, backend: Backend) -> tuple[list[LossSum], float]:
    """Losses and another number of the device, on the host. It is the one time that a training step waits for a GPU."""
    on_device = [total for loss in losses for total in loss.sums]
    *sums, number = backend.to_host(backend.xp.stack([*on_device, other]))
    numbers = iter(sums)
    return [replace(loss, sums=tuple(next(numbers) for _ in loss.sums)) for loss in losses], float(number)


@dataclass(frozen=True)
class Scale:
    """How losses are weighed: what each sum is divided by in the whole step, and label smoothing (words only)."""

    divide_by: tuple[float, ...]
    smoothing: float


@dataclass(frozen=True)
class HeadGradients:
    """What a target gives the backward pass: losses, the gradient of the decoder's states, and its head's, by key."""

    sums: tuple[Array, ...]
    dx_BUD: Array
    gradients: Mapping[str, Any]  # arrays


class Target(Protocol):
    """The target of some documents."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many labels each sum of losses has."""
        ...

    @property
    def length(self) -> int:
        """How many positions of the decoder matter: what comes behind them is seen by none. 0: no label counts."""
        ...

    def of(self, documents: slice) -> "Target":
        """The target of some of the documents."""
        ...

    def backward(
        self, x_BUD: Array, params: LEDParams, scale: Scale, dropout: Dropout, backend: Backend
    ) -> HeadGradients:
        """Head and loss, forward and backward, from the decoder's last states."""
        ...


@dataclass(frozen=True)
class Words:
    """The words of each target: LEDForConditionalGeneration."""

    labels_BU: HostArray  # int64, -100 where the loss ignores it

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of words."""
        return (int((self.labels_BU != IGNORED_LABEL).sum()),)

    @property
    def length(self) -> int:
        """Up to the last word of the longest target."""
        return int(np.flatnonzero((self.labels_BU != IGNORED_LABEL).any(0)).max(initial=-1)) + 1

    def of(self, documents: slice) -> "Words":
        """Those of some documents."""
        return Words(self.labels_BU[documents])

    def backward(
        self, x_BUD: Array, params: LEDParams, scale: Scale, dropout: Dropout, backend: Backend
    ) -> HeadGradients:
        """Document by document, so that no sum depends on how many are computed together."""
        dx_BUD = backend.xp.empty(x_BUD.shape, dtype=x_BUD.dtype)
        total, dtable_VD = backend.xp.zeros((), dtype="float64"), None
        for b, x_UD in enumerate(x_BUD):
            loss, dx_BUD[b], dtable = lm_loss_backward(
                x_UD, self.labels_BU[b, : len(x_UD)], params, scale.divide_by[0], scale.smoothing, backend
            )
            total = total + loss
            if dtable_VD is None:
                dtable_VD = dtable
            else:
                dtable_VD += dtable
        return HeadGradients((total,), dx_BUD, {"lm_head.weight": dtable_VD} if dtable_VD is not None else {})


@dataclass(frozen=True)
class Spans:
    """The first and the last position of each answer: LEDForQuestionAnswering.

    Every position of the decoder competes for it, padding too, as in transformers: none is cut off here.
    """

    positions_B2: HostArray  # int64; U or more: cut off, does not count
    length: int  # U

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of starts and of ends that were not cut off."""
        starts, ends = (int(count) for count in (self.positions_B2 < self.length).sum(0))
        return starts, ends

    def of(self, documents: slice) -> "Spans":
        """Those of some documents."""
        return Spans(self.positions_B2[documents], self.length)

    def backward(
        self, x_BUD: Array, params: LEDParams, scale: Scale, dropout: Dropout, backend: Backend
    ) -> HeadGradients:
        """The head's map is one for starts and ends."""
        assert params.qa_outputs is not None
        logits_BU2 = for_a_loss(linear(x_BUD, params.qa_outputs, backend))
        starts = ends = backend.xp.zeros((), dtype="float64")
        for b, positions_2 in enumerate(self.positions_B2):
            start, end, logits_BU2[b] = span_loss_backward(
                logits_BU2[b], positions_2, (scale.divide_by[0], scale.divide_by[1]), backend
            )
            starts, ends = starts + start, ends + end
        dlogits_BU2 = logits_BU2.astype(x_BUD.dtype, copy=False)
        dx_BUD, dhead = linear_backward(dlogits_BU2, x_BUD, params.qa_outputs, backend)
        gradients = {"qa_outputs.weight": dhead.weight, "qa_outputs.bias": dhead.bias}
        return HeadGradients((starts, ends), dx_BUD, gradients)


@dataclass(frozen=True)
class Labels:
    """The label, the labels or the values of each document: LEDForSequenceClassification."""

    problem_type: str  # one of config.PROBLEM_TYPES
    labels: HostArray  # int64 (B,) for a single label, else float64 (B, Y)
    is_end_BT: HostArray  # where the documents have </s>: the state at the last one counts

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of labels that count."""
        is_single = self.problem_type == SINGLE_LABEL
        return (int((self.labels != IGNORED_LABEL).sum()) if is_single else self.labels.size,)

    @property
    def length(self) -> int:
        """Up to the last </s>."""
        return int(np.flatnonzero(self.is_end_BT.any(0)).max()) + 1 if self.counts[0] else 0

    def of(self, documents: slice) -> "Labels":
        """Those of some documents."""
        return Labels(self.problem_type, self.labels[documents], self.is_end_BT[documents])

    def backward(
        self, x_BUD: Array, params: LEDParams, scale: Scale, dropout: Dropout, backend: Backend
    ) -> HeadGradients:
        """One state of each document has a gradient."""
        assert params.classification_head is not None
        is_end_BU = self.is_end_BT[:, : x_BUD.shape[1]]
        state_BD = last_marked_state(x_BUD, is_end_BU, backend)
        logits_BY = for_a_loss(label_logits(state_BD, params.classification_head, backend, dropout))
        total, dlogits_BY = self._loss_backward(logits_BY, scale.divide_by[0], backend)
        dlogits_BY = dlogits_BY.astype(state_BD.dtype, copy=False)
        dstate_BD, dhead = label_logits_backward(dlogits_BY, state_BD, params.classification_head, backend, dropout)
        gradients = {
            "classification_head.dense.weight": dhead.dense.weight,
            "classification_head.dense.bias": dhead.dense.bias,
            "classification_head.out_proj.weight": dhead.out_proj.weight,
            "classification_head.out_proj.bias": dhead.out_proj.bias,
        }
        return HeadGradients((total,), last_marked_state_backward(dstate_BD, is_end_BU, backend), gradients)

    def _loss_backward(self, logits_BY: Array, divide_by: float, backend: Backend) -> tuple[Array, Array]:
        if self.problem_type == SINGLE_LABEL:
            counted = (self.labels != IGNORED_LABEL).nonzero()[0]
            at = backend.to_device(counted)
            dlogits_BY = backend.xp.zeros(logits_BY.shape, dtype=logits_BY.dtype)
            own_XY = logits_BY[at]
            total = cross_entropy_backward(own_XY, self.labels[counted], divide_by, 0.0, backend)
            dlogits_BY[at] = own_XY
            return total, dlogits_BY
        labels_BY = backend.to_device(self.labels.astype(logits_BY.dtype))
        backward = squared_error_backward if self.problem_type == REGRESSION else binary_cross_entropy_backward
        return backward(logits_BY, labels_BY, divide_by, backend)


def check_counts(counts: tuple[float, ...]) -> None:
    """Refuse a step in which a sum of losses has no label: its mean would be nan, and so every gradient."""
    if not all(counts):
        raise InputError(
            f"The numbers of labels that count are {', '.join(map(str, counts))}: the loss would be a mean of nothing. Leave "
            f"out a batch whose labels are all {IGNORED_LABEL} or whose answers were all cut off."
        )
