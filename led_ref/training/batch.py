"""A training batch: documents and their targets, checked once, and cut to what can have a gradient.

The forward arguments of the model's class make a batch, by their names:

    LEDForConditionalGeneration      input_ids, attention_mask, global_attention_mask, labels
    LEDForQuestionAnswering          ..., start_positions, end_positions
    LEDForSequenceClassification     ..., labels

Padding is not computed: a document is cut behind its last token, a target behind its last label. That changes no number,
since nothing sees what is cut off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.heads import LEDForQuestionAnswering, LEDForSequenceClassification
from led_ref.config import LEDConfig
from led_ref.errors import InputError
from led_ref.model.losses import IGNORED_LABEL, shift_tokens_right
from led_ref.training.targets import Labels, Spans, Target, Words

Trainable = LEDForConditionalGeneration | LEDForQuestionAnswering | LEDForSequenceClassification


@dataclass(frozen=True)
class Batch:
    """Documents with their targets. Made by `checked_batch`."""

    ids_BT: HostArray  # int64
    attention_mask_BT: HostArray  # 1 for a token, 0 for padding
    global_attention_mask_BT: HostArray | None  # 1 for a global token, 0 for a local one, -1 for padding
    decoder_ids_BU: HostArray  # int64: what the decoder reads, the target one position late
    target: Target

    def __len__(self) -> int:
        return len(self.ids_BT)

    def of(self, documents: slice) -> "Batch":
        """Some of the documents, without the padding that all of them have at their end."""
        mask_BT = self.attention_mask_BT[documents]
        length = int((mask_BT == 1).any(0).nonzero()[0].max(initial=0)) + 1
        global_BT = self.global_attention_mask_BT
        target = self.target.of(documents)
        return Batch(
            self.ids_BT[documents, :length],
            mask_BT[:, :length],
            None if global_BT is None else global_BT[documents, :length],
            self.decoder_ids_BU[documents, : target.length],
            target,
        )


def checked_batch(model: Trainable, batch: Mapping[str, Any]) -> Batch:
    """The batch of these arguments of the model's `forward`.

    Raises:
        InputError: for anything that does not fit the model or each other, and for arguments that a batch does not have.
    """
    config = model.config
    given = dict(batch)
    ids_BT = inputs.checked_ids("input_ids", given.pop("input_ids", None), config.vocab_size)
    inputs.check_source_length(ids_BT.shape[1], config)
    mask, global_mask = given.pop("attention_mask", None), given.pop("global_attention_mask", None)
    if mask is None:
        inputs.refuse_unmasked_padding(ids_BT, config.pad_token_id)
        mask = np.ones(ids_BT.shape, np.int64)
    if global_mask is not None:
        global_mask = inputs.checked_mask("global_attention_mask", global_mask, ids_BT.shape, padding=-1)
    decoder_ids_BU, target = _target(model, ids_BT, given)
    if given:
        raise InputError(
            f"A training batch of {type(model).__name__} has no {', '.join(sorted(given))}; leave it out. What it has says "
            "led_ref/training/batch.py."
        )
    inputs.check_target_length(0, decoder_ids_BU.shape[1], config)
    mask_BT = inputs.checked_mask("attention_mask", mask, ids_BT.shape)
    return Batch(ids_BT, mask_BT, global_mask, decoder_ids_BU, target)


def _target(model: Trainable, ids_BT: HostArray, given: dict[str, Any]) -> tuple[HostArray, Target]:
    """What the decoder reads, and what it is to give. Takes what it needs out of the arguments."""
    rows = len(ids_BT)
    if isinstance(model, LEDForConditionalGeneration):
        labels_BU = inputs.checked_ids(
            "labels", _pop(given, "labels"), model.config.vocab_size, also_allowed=IGNORED_LABEL
        )
        if len(labels_BU) != rows:
            raise InputError(
                f"labels has {len(labels_BU)} rows for {rows} documents. Give one target for each document."
            )
        return model.prepare_decoder_input_ids_from_labels(labels_BU), Words(labels_BU)
    decoder_ids_BT = _one_position_late(ids_BT, model.config)
    if isinstance(model, LEDForQuestionAnswering):
        positions = [
            inputs.checked_positions(name, _pop(given, name), rows) for name in ("start_positions", "end_positions")
        ]
        return decoder_ids_BT, Spans(np.stack(positions, axis=1), ids_BT.shape[1])
    assert model.params.classification_head is not None
    labels = len(model.params.classification_head.out_proj.bias)
    kind, checked = inputs.checked_class_labels(_pop(given, "labels"), rows, labels, model.config.problem_type)
    return decoder_ids_BT, Labels(kind, checked, model.end_positions(ids_BT))


def _one_position_late(ids_BT: HostArray, config: LEDConfig) -> HostArray:
    """`[decoder_start_token_id] + ids[:-1]`: with an answer or a label as its target, the decoder reads the document."""
    return shift_tokens_right(ids_BT, config.decoder_start_token_id, IGNORED_LABEL)  # there is no -100 to replace


def _pop(given: dict[str, Any], name: str) -> Any:
    if given.get(name) is None:
        raise InputError(f"The training batch has no {name}: there is nothing to learn. Give {name}.")
    return given.pop(name)
