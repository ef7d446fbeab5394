"""LEDForQuestionAnswering and LEDForSequenceClassification: an LED that marks an answer or gives labels.

In both, the decoder reads the document, one position late: its state at position t depends on the tokens before t and, through
cross-attention, on the encoder's states of all tokens.

    position         0     1      2      3     4
    encoder reads    <s>   Wer    ist    da    </s>        input_ids
    decoder reads    </s>  <s>    Wer    ist   da          decoder_start_token_id, then input_ids but for the last
    the answer's     start_logits and end_logits of every position: qa_outputs
    the label's                                ^ one state: where input_ids has its last </s>: classification_head

The decoder's ids derive from the document's: so these two heads are defined (transformers' LEDModel without
decoder_input_ids; BART's heads before it). Nowhere else does led_ref derive decoder ids. So a document may
be no longer than the decoder's position table: 1,024 tokens for the sizes that Ai2 published, whatever the encoder reads.
"""

from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.led import LEDWithHead
from led_ref.classes.outputs import (
    LEDSeq2SeqModelOutput,
    LEDSeq2SeqQuestionAnsweringModelOutput,
    LEDSeq2SeqSequenceClassifierOutput,
)
from led_ref.config import REGRESSION, SINGLE_LABEL
from led_ref.errors import CheckpointError, InputError
from led_ref.model.heads import label_logits, last_marked_state, span_logits
from led_ref.model.intermediates import Recorder
from led_ref.model.losses import (
    IGNORED_LABEL,
    binary_cross_entropy,
    cross_entropy,
    shift_tokens_right,
    span_loss,
    squared_error,
)


class LEDThatReadsTwice(LEDWithHead):
    """The base class of both: the decoder reads the document, too."""

    @property
    def longest_document(self) -> int:
        """The most tokens of a document: the smaller of the encoder's and the decoder's position tables."""
        return min(self.config.max_encoder_position_embeddings, self.config.max_decoder_position_embeddings)

    def _run(
        self, input_ids: Any, decoder_input_ids: Any, encoder_outputs: Any, decoder_inputs_embeds: Any, **given: Any
    ) -> LEDSeq2SeqModelOutput:
        """LEDModel's output; the decoder's ids are the document's, one place to the right, unless they are given."""
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self._one_place_late(input_ids)
        return self.led(
            input_ids if encoder_outputs is None else None,  # beside encoder_outputs they were for the decoder alone
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=encoder_outputs,
            decoder_inputs_embeds=decoder_inputs_embeds,
            **given,
        )

    def _one_place_late(self, input_ids: Any) -> HostArray:
        """`[decoder_start_token_id] + input_ids[:-1]`."""
        if input_ids is None:
            raise InputError(
                "There are no input_ids to make decoder_input_ids of. Give input_ids too, or decoder_input_ids."
            )
        ids_BT = inputs.checked_ids("input_ids", input_ids, self.config.vocab_size)
        if ids_BT.shape[1] > self.config.max_decoder_position_embeddings:
            raise InputError(
                f"The document has {ids_BT.shape[1]} tokens, but {type(self).__name__} reads it with the decoder too, which "
                f"has {self.config.max_decoder_position_embeddings} positions (max_decoder_position_embeddings). Shorten it, "
                "or fine-tune a model with a longer table of decoder positions."
            )
        start = self.config.decoder_start_token_id
        return shift_tokens_right(ids_BT, start, IGNORED_LABEL)  # among ids there is no -100 to replace


class LEDForQuestionAnswering(LEDThatReadsTwice):
    """LED that marks the answer in its document: for each position the scores of the answer's start and of its end.

    Checkpoint keys: the LED's, and `qa_outputs.weight` (2, D) with `qa_outputs.bias`. led_ref.answer works on texts.
    """

    architecture = "LEDForQuestionAnswering"

    @inputs.check_types
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        global_attention_mask: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        *,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        recorder: Recorder | None = None,
    ) -> LEDSeq2SeqQuestionAnsweringModelOutput:
        """Run encoder, decoder and head once; what is not named here is as in LEDModel.forward.

        Args:
            input_ids: (B, T) ids, most often `<s> question </s></s> context </s>`. Beside encoder_outputs they serve to make
                the decoder's ids only.
            decoder_input_ids: (B, U); None: input_ids one place to the right, decoder_start_token_id in front.
            decoder_attention_mask: as there; None: all are tokens, padding too, as in transformers.
            global_attention_mask: as there; for questions, 1 for `<s>` and the question's tokens.
            start_positions: (B,) or (B, 1), the position of each answer's first token; U or more: it does not count.
            end_positions: the position of each answer's last token; both or neither. With both the loss is returned, and
                no cache.
            inputs_embeds: as there; with decoder_input_ids or decoder_inputs_embeds.

        Raises:
            InputError: for anything that does not fit the model or each other.
        """
        if (start_positions is None) != (end_positions is None):
            given, missing = ("start", "end") if end_positions is None else ("end", "start")
            raise InputError(
                f"There are {given}_positions without {missing}_positions: no loss has one alone. Give both."
            )
        out = self._run(
            input_ids,
            decoder_input_ids,
            encoder_outputs,
            decoder_inputs_embeds,
            attention_mask=attention_mask,
            decoder_attention_mask=decoder_attention_mask,
            global_attention_mask=global_attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=False if start_positions is not None and end_positions is not None else use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            recorder=recorder,
        )
        if self.params.qa_outputs is None:
            raise _headless(self)
        start_BU, end_BU = span_logits(out.last_hidden_state, self.params.qa_outputs, self.backend)
        loss = None
        if start_positions is not None and end_positions is not None:
            starts_B = inputs.checked_positions("start_positions", start_positions, len(start_BU))
            ends_B = inputs.checked_positions("end_positions", end_positions, len(start_BU))
            loss = span_loss(start_BU, end_BU, starts_B, ends_B, self.backend)
        return LEDSeq2SeqQuestionAnsweringModelOutput(
            loss=loss, start_logits=start_BU, end_logits=end_BU, **out.shared()
        )

    __call__ = forward


class LEDForSequenceClassification(LEDThatReadsTwice):
    """LED that gives a whole document labels: scores of Y labels from the decoder's state at its last `</s>`.

    Checkpoint keys: the LED's, and `classification_head.dense.*` (D, D) and `classification_head.out_proj.*` (Y, D); Y and the
    labels' names are `config.num_labels` and `config.id2label`. transformers has the class up to 4.57. led_ref.classify works
    on texts.
    """

    architecture = "LEDForSequenceClassification"

    @inputs.check_types
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        global_attention_mask: Any = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        labels: Any = None,
        *,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        recorder: Recorder | None = None,
    ) -> LEDSeq2SeqSequenceClassifierOutput:
        """Run encoder, decoder and head once; what is not named here is as in LEDModel.forward.

        Args:
            input_ids: (B, T) ids, with equally many `</s>` (eos_token_id) in every row and at least one. Needed always, as
                they say where the state is that counts; beside encoder_outputs they serve for that alone.
            decoder_input_ids: (B, T); None: input_ids one place to the right, decoder_start_token_id in front.
            decoder_attention_mask: as there; None: all are tokens, padding too, as in transformers.
            global_attention_mask: as there; for classification, 1 for `<s>`.
            inputs_embeds: refused, as in transformers: they do not say where `</s>` is.
            decoder_inputs_embeds: (B, T, D).
            labels: the loss is returned then, and no cache. By config.problem_type
                "single_label_classification": (B,) numbers of labels, -100 where it does not count: cross-entropy;
                "multi_label_classification": (B, Y) of 0 and 1: the mean binary cross-entropy;
                "regression": (B, Y), for one label also (B,): the mean squared error.
                None: a regression if Y is 1; else a single label for whole numbers, several for floats.

        Raises:
            InputError: for anything that does not fit the model or each other.
        """
        if inputs_embeds is not None or input_ids is None:
            raise InputError(
                "LEDForSequenceClassification classifies by the state at the document's last </s>, and where that is only "
                "input_ids say. Give input_ids, and no inputs_embeds."
            )
        is_end_BT = self.end_positions(input_ids)
        out = self._run(
            input_ids,
            decoder_input_ids,
            encoder_outputs,
            decoder_inputs_embeds,
            attention_mask=attention_mask,
            decoder_attention_mask=decoder_attention_mask,
            global_attention_mask=global_attention_mask,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            recorder=recorder,
        )
        if out.last_hidden_state.shape[:2] != is_end_BT.shape:
            raise InputError(
                f"The decoder was given ids of shape {tuple(out.last_hidden_state.shape[:2])}, but input_ids have shape "
                f"{is_end_BT.shape}, and say which of its states counts. Give decoder_input_ids of the same shape, or none."
            )
        if self.params.classification_head is None:
            raise _headless(self)
        state_BD = last_marked_state(out.last_hidden_state, is_end_BT, self.backend)
        logits_BY = label_logits(state_BD, self.params.classification_head, self.backend)
        loss = None if labels is None else self._loss(logits_BY, labels)
        return LEDSeq2SeqSequenceClassifierOutput(loss=loss, logits=logits_BY, **out.shared())

    __call__ = forward

    def end_positions(self, input_ids: Any) -> HostArray:
        """Where input_ids have `</s>`, (B, T) bool: equally many in every row.

        Raises:
            InputError: if they are not, or a row has none.
        """
        ids_BT = inputs.checked_ids("input_ids", input_ids, self.config.vocab_size)
        is_end_BT = np.isin(ids_BT, self.config.eos_token_ids)
        counts_B = is_end_BT.sum(axis=1)
        if counts_B.min() < 1 or counts_B.min() != counts_B.max():
            raise InputError(
                f"The rows of input_ids have {', '.join(map(str, counts_B))} end tokens (eos_token_id "
                f"{self.config.eos_token_id}); all must have equally many, and at least one. The tokenizer ends a text with "
                "one; classify texts and pairs of texts in separate calls."
            )
        return is_end_BT

    def _loss(self, logits_BY: Any, labels: Any) -> Any:
        """The loss that config.problem_type names, or that the labels call for."""
        batch, count = logits_BY.shape
        kind, checked = inputs.checked_class_labels(labels, batch, count, self.config.problem_type)
        if kind == SINGLE_LABEL:
            return cross_entropy(logits_BY, checked, self.backend)
        labels_BY = self.backend.to_device(checked.astype(self.dtype))
        return (squared_error if kind == REGRESSION else binary_cross_entropy)(logits_BY, labels_BY, self.backend)


def _headless(model: LEDWithHead) -> CheckpointError:
    return CheckpointError(
        f"This {model.architecture} was made of parameters without its head. Load it by from_pretrained or from_state_dict."
    )
