"""What models return: frozen dataclasses with transformers' names and fields.

Arrays are the backend's own; `.to_numpy()` gives the same object with everything on the host. B documents, N = B * W rows of
the decoder, W the beams of a document, or with sampling its num_return_sequences.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, overload

import led_backends
from led_backends.contract import Array, HostArray
from led_ref.model.brief_repr import BriefRepr
from led_ref.model.kv_cache import DecoderCache

Output = TypeVar("Output", bound="ModelOutput")

# For each layer, an array; and that for each step of a generation.
OfLayers = tuple[Array, ...]
OfSteps = tuple[OfLayers, ...]

# What a field of an output holds.
Value = Array | OfLayers | OfSteps | DecoderCache


@dataclass(frozen=True, repr=False)
class ModelOutput(BriefRepr):
    """The base class of all outputs.

    As in transformers an output is also a mapping and a tuple of what is not None: `out["logits"]`, `out.keys()`, `out[0]`,
    `out[:2]`, `out.to_tuple()`, `logits, cache = out.to_tuple()`.
    """

    def keys(self) -> tuple[str, ...]:
        """The names of the fields that are not None, the loss first."""
        names = sorted((f.name for f in fields(self)), key=_place)
        return tuple(name for name in names if getattr(self, name) is not None)

    def values(self) -> tuple[Value, ...]:
        """The fields that are not None."""
        return tuple(getattr(self, name) for name in self.keys())

    def items(self) -> tuple[tuple[str, Value], ...]:
        """Names and fields that are not None."""
        return tuple((name, getattr(self, name)) for name in self.keys())

    def to_tuple(self) -> tuple[Value, ...]:
        """As `values`."""
        return self.values()

    def get(self, name: str, default: Value | None = None) -> Value | None:
        """The field of that name, or default if it is None or does not exist."""
        return self[name] if name in self.keys() else default

    @overload
    def __getitem__(self, key: int | str) -> Value: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Value, ...]: ...
    def __getitem__(self, key: int | slice | str) -> Value | tuple[Value, ...]:
        """A field by its name, or by its place among those that are not None.

        Raises:
            KeyError: for a name that is none, or whose field is None; the message says which there are.
        """
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self.keys():
            raise KeyError(f"{type(self).__name__} has no {key!r} here; it has {', '.join(self.keys())}.")
        value: Value = getattr(self, key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __len__(self) -> int:
        return len(self.keys())

    def to_numpy(self: Output) -> Output:
        """The same output with every array as a NumPy array. The cache stays on its device: it is for the next call."""
        return replace(self, **{f.name: _to_numpy(getattr(self, f.name)) for f in fields(self)})


def _place(name: str) -> int:
    """As transformers orders them: the loss, what the head gives, the cache, and what was kept on the way."""
    first = ("loss", "sequences", "last_hidden_state", "logits", "start_logits", "end_logits")
    return first.index(name) if name in first else len(first)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_to_numpy(entry) for entry in value)
    return led_backends.to_host(value) if hasattr(value, "dtype") else value


@dataclass(frozen=True, repr=False)
class LEDEncoderBaseModelOutput(ModelOutput):
    """The output of the encoder.

    Args:
        last_hidden_state: (B, T, D).
        hidden_states: with output_hidden_states, the embeddings' and each layer's output, (B, T, D) each.
        attentions: with output_attentions, each layer's local attention map, (B, H, T, G + 2R + 1).
        global_attentions: with output_attentions, and a global token, each layer's global attention map, (B, H, T, G).
    """

    last_hidden_state: Array
    hidden_states: OfLayers | None = None
    attentions: OfLayers | None = None
    global_attentions: OfLayers | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Seq2SeqOutput(ModelOutput):
    """The fields that the outputs of all models with a decoder share.

    Args:
        past_key_values: the KV cache for the next call; None if use_cache is False.
        decoder_hidden_states: with output_hidden_states, the embeddings' and each layer's output, (N, U, D) each.
        decoder_attentions: with output_attentions, each layer's causal self-attention map, (N, H, U, U so far).
        cross_attentions: with output_attentions, each layer's attention map to the encoder's states, (N, H, U, T).
        encoder_last_hidden_state: (B, T, D).
        encoder_hidden_states: as LEDEncoderBaseModelOutput.hidden_states.
        encoder_attentions: as LEDEncoderBaseModelOutput.attentions.
        encoder_global_attentions: as LEDEncoderBaseModelOutput.global_attentions.
    """

    past_key_values: DecoderCache | None = None
    decoder_hidden_states: OfLayers | None = None
    decoder_attentions: OfLayers | None = None
    cross_attentions: OfLayers | None = None
    encoder_last_hidden_state: Array | None = None
    encoder_hidden_states: OfLayers | None = None
    encoder_attentions: OfLayers | None = None
    encoder_global_attentions: OfLayers | None = None

    def shared(self) -> dict[str, Any]:
        """These fields by name, for the output of a head."""
        return {f.name: getattr(self, f.name) for f in fields(Seq2SeqOutput)}


@dataclass(frozen=True, repr=False)
class LEDSeq2SeqModelOutput(Seq2SeqOutput):
    """The output of LEDModel; the other fields are Seq2SeqOutput's.

    Args:
        last_hidden_state: the decoder's, (N, U, D).
    """

    last_hidden_state: Array


@dataclass(frozen=True, repr=False)
class LEDSeq2SeqLMOutput(Seq2SeqOutput):
    """The output of LEDForConditionalGeneration; the other fields are Seq2SeqOutput's.

    Args:
        loss: mean cross-entropy over the labels that are not -100; a 0-d array; None without labels.
        logits: (N, U, V).
    """

    loss: Array | None
    logits: Array


@dataclass(frozen=True, repr=False)
class LEDSeq2SeqQuestionAnsweringModelOutput(Seq2SeqOutput):
    """The output of LEDForQuestionAnswering; where the decoder's ids derive from the document's, U is T.

    The other fields are Seq2SeqOutput's.

    Args:
        loss: mean of the cross-entropies of start and end; a 0-d array; None without both positions.
        start_logits: (B, U), the score of each position as the answer's first token.
        end_logits: (B, U), the score of each position as the answer's last token.
    """

    loss: Array | None
    start_logits: Array
    end_logits: Array


@dataclass(frozen=True, repr=False)
class LEDSeq2SeqSequenceClassifierOutput(Seq2SeqOutput):
    """The output of LEDForSequenceClassification; the other fields are Seq2SeqOutput's.

    Args:
        loss: by problem_type; a 0-d array; None without labels.
        logits: (B, Y), before any softmax; for a regression the values themselves.
    """

    loss: Array | None
    logits: Array


# ---- generate(return_dict_in_generate=True): ids, scores and logits are NumPy arrays, because the search runs on the host ----


@dataclass(frozen=True, kw_only=True, repr=False)
class GenerateOutput(ModelOutput):
    """The fields of the model that the outputs of all searches share.

    Args:
        encoder_attentions: as LEDEncoderBaseModelOutput.attentions.
        encoder_hidden_states: as LEDEncoderBaseModelOutput.hidden_states.
        decoder_attentions: with output_attentions, for each step and layer (N, H, U, U so far); U is 1 but for the first
            step, which reads the prompt. Row n is the beam that was number n in that step (see beam_indices).
        cross_attentions: with output_attentions, for each step and layer (N, H, U, T).
        decoder_hidden_states: with output_hidden_states, for each step the embeddings' and each layer's output, (N, U, D).
        past_key_values: the cache after the last step, for all ids but the last. None if use_cache is False, and with prompt
            lookup, where each text has a cache of its own.
    """

    encoder_attentions: OfLayers | None = None
    encoder_hidden_states: OfLayers | None = None
    decoder_attentions: OfSteps | None = None
    cross_attentions: OfSteps | None = None
    decoder_hidden_states: OfSteps | None = None
    past_key_values: DecoderCache | None = None


@dataclass(frozen=True, repr=False)
class GenerateEncoderDecoderOutput(GenerateOutput):
    """The output of greedy search and sampling: fields of led_ref.SearchResult, and those of GenerateOutput."""

    sequences: HostArray
    scores: tuple[HostArray, ...] | None = None
    logits: tuple[HostArray, ...] | None = None


@dataclass(frozen=True, repr=False)
class GenerateBeamEncoderDecoderOutput(GenerateOutput):
    """The output of beam search and beam sampling: the fields of led_ref.SearchResult, and those of GenerateOutput."""

    sequences: HostArray
    sequences_scores: HostArray | None = None
    scores: tuple[HostArray, ...] | None = None
    logits: tuple[HostArray, ...] | None = None
    beam_indices: HostArray | None = None
