"""What the model returns: frozen dataclasses with transformers' names and fields.

Arrays are the backend's own; `.to_numpy()` gives the same object with everything on the host.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from led_backends.contract import Array
from led_ref.model.kv_cache import DecoderCache

Output = TypeVar("Output", bound="ModelOutput")


@dataclass(frozen=True)
class ModelOutput:
    """What all outputs share."""

    def to_numpy(self: Output) -> Output:
        """The same output with every array as a NumPy array. The cache stays where it is: it is for the next call."""
        return replace(self, **{f.name: _to_numpy(getattr(self, f.name)) for f in fields(self)})


def _to_numpy(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_to_numpy(entry) for entry in value)
    if isinstance(value, np.ndarray) or not hasattr(value, "dtype"):
        return value
    return value.get()  # cupy.ndarray


@dataclass(frozen=True)
class LEDEncoderBaseModelOutput(ModelOutput):
    """What the encoder gives.

    Args:
        last_hidden_state: (B, T, D).
        hidden_states: the embeddings and each layer's output, (B, T, D) each; None unless asked for.
        attentions: local probabilities of each layer, (B, H, T, G + 2R + 1); None unless asked for.
        global_attentions: global probabilities of each layer, (B, H, T, G); None unless asked for and a token is global.
    """

    last_hidden_state: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    global_attentions: tuple[Array, ...] | None = None


@dataclass(frozen=True)
class LEDSeq2SeqModelOutput(ModelOutput):
    """What LEDModel gives.

    Args:
        last_hidden_state: the decoder's, (B, U, D).
        past_key_values: the cache, to hand to the next call; None if use_cache is False.
        decoder_hidden_states: embeddings and each layer's output, (B, U, D) each.
        decoder_attentions: causal self-attention of each layer, (B, H, U, U so far).
        cross_attentions: attention to the encoder's states, (B, H, U, T).
        encoder_last_hidden_state: (B, T, D).
        encoder_hidden_states: as LEDEncoderBaseModelOutput.hidden_states.
        encoder_attentions: as LEDEncoderBaseModelOutput.attentions.
        encoder_global_attentions: as LEDEncoderBaseModelOutput.global_attentions.
    """

    last_hidden_state: Array
    past_key_values: DecoderCache | None = None
    decoder_hidden_states: tuple[Array, ...] | None = None
    decoder_attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: tuple[Array, ...] | None = None
    encoder_attentions: tuple[Array, ...] | None = None
    encoder_global_attentions: tuple[Array, ...] | None = None


@dataclass(frozen=True)
class LEDSeq2SeqLMOutput(ModelOutput):
    """What LEDForConditionalGeneration gives: as LEDSeq2SeqModelOutput, with the loss and the logits in front.

    Args:
        loss: mean cross-entropy over the labels that are not -100; a 0-d array; None without labels.
        logits: (B, U, V).
        past_key_values: the cache, to hand to the next call; None if use_cache is False.
        decoder_hidden_states: embeddings and each layer's output, (B, U, D) each.
        decoder_attentions: causal self-attention of each layer, (B, H, U, U so far).
        cross_attentions: attention to the encoder's states, (B, H, U, T).
        encoder_last_hidden_state: (B, T, D).
        encoder_hidden_states: as LEDEncoderBaseModelOutput.hidden_states.
        encoder_attentions: as LEDEncoderBaseModelOutput.attentions.
        encoder_global_attentions: as LEDEncoderBaseModelOutput.global_attentions.
    """

    loss: Array | None
    logits: Array
    past_key_values: DecoderCache | None = None
    decoder_hidden_states: tuple[Array, ...] | None = None
    decoder_attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: tuple[Array, ...] | None = None
    encoder_attentions: tuple[Array, ...] | None = None
    encoder_global_attentions: tuple[Array, ...] | None = None


@dataclass(frozen=True)
class LEDSeq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """What LEDForQuestionAnswering gives. Where the decoder's ids were derived from the document's, U is T.

    Args:
        loss: mean of the cross-entropies of start and end; a 0-d array; None without both positions.
        start_logits: (B, U), how well an answer starts at each position.
        end_logits: (B, U), how well one ends there; the end is the answer's last token.
        past_key_values: the cache, to hand to the next call; None if use_cache is False.
        decoder_hidden_states: embeddings and each layer's output, (B, U, D) each.
        decoder_attentions: causal self-attention of each layer, (B, H, U, U).
        cross_attentions: attention to the encoder's states, (B, H, U, T).
        encoder_last_hidden_state: (B, T, D).
        encoder_hidden_states: as LEDEncoderBaseModelOutput.hidden_states.
        encoder_attentions: as LEDEncoderBaseModelOutput.attentions.
        encoder_global_attentions: as LEDEncoderBaseModelOutput.global_attentions.
    """

    loss: Array | None
    start_logits: Array
    end_logits: Array
    past_key_values: DecoderCache | None = None
    decoder_hidden_states: tuple[Array, ...] | None = None
    decoder_attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: tuple[Array, ...] | None = None
    encoder_attentions: tuple[Array, ...] | None = None
    encoder_global_attentions: tuple[Array, ...] | None = None


@dataclass(frozen=True)
class LEDSeq2SeqSequenceClassifierOutput(ModelOutput):
    """What LEDForSequenceClassification gives.

    Args:
        loss: by problem_type; a 0-d array; None without labels.
        logits: (B, Y), before any softmax; for a regression the values themselves.
        past_key_values: the cache, to hand to the next call; None if use_cache is False.
        decoder_hidden_states: embeddings and each layer's output, (B, U, D) each.
        decoder_attentions: causal self-attention of each layer, (B, H, U, U).
        cross_attentions: attention to the encoder's states, (B, H, U, T).
        encoder_last_hidden_state: (B, T, D).
        encoder_hidden_states: as LEDEncoderBaseModelOutput.hidden_states.
        encoder_attentions: as LEDEncoderBaseModelOutput.attentions.
        encoder_global_attentions: as LEDEncoderBaseModelOutput.global_attentions.
    """

    loss: Array | None
    logits: Array
    past_key_values: DecoderCache | None = None
    decoder_hidden_states: tuple[Array, ...] | None = None
    decoder_attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: tuple[Array, ...] | None = None
    encoder_attentions: tuple[Array, ...] | None = None
    encoder_global_attentions: tuple[Array, ...] | None = None
