"""What `generate(return_dict_in_generate=True)` returns: frozen dataclasses with transformers' names and fields.

Ids, scores and logits are NumPy arrays, because the search works on the host; attentions and states are the backend's own,
and `.to_numpy()` brings them over. B documents, N = B * W rows of the decoder, W the beams of a document, or with sampling
its num_return_sequences; R the texts returned of a document.
"""

from dataclasses import dataclass

from led_backends.contract import Array, HostArray
from led_ref.classes.outputs import ModelOutput
from led_ref.model.kv_cache import DecoderCache

# For each step: for each layer, an array.
OfSteps = tuple[tuple[Array, ...], ...]


@dataclass(frozen=True)
class GenerateEncoderDecoderOutput(ModelOutput):
    """What greedy search and sampling return.

    Args:
        sequences: (B * R, P + U) ids, prompt first, filled up with pad.
        scores: with output_scores, (N, V) float32 for each step: what the processors made of the logits.
        logits: with output_logits, (N, V) float32 for each step: the model's own.
        encoder_attentions: with output_attentions, as LEDEncoderBaseModelOutput.attentions.
        encoder_hidden_states: with output_hidden_states, as LEDEncoderBaseModelOutput.hidden_states.
        decoder_attentions: with output_attentions, for each step and layer (N, H, U, U so far); U is 1 but for the first
            step, which reads the prompt.
        cross_attentions: with output_attentions, for each step and layer (N, H, U, T).
        decoder_hidden_states: with output_hidden_states, for each step the embeddings' and each layer's output, (N, U, D).
        past_key_values: the cache after the last step; it covers all ids but the last. None if use_cache is False.
    """

    sequences: HostArray
    scores: tuple[HostArray, ...] | None = None
    logits: tuple[HostArray, ...] | None = None
    encoder_attentions: tuple[Array, ...] | None = None
    encoder_hidden_states: tuple[Array, ...] | None = None
    decoder_attentions: OfSteps | None = None
    cross_attentions: OfSteps | None = None
    decoder_hidden_states: OfSteps | None = None
    past_key_values: DecoderCache | None = None


@dataclass(frozen=True)
class GenerateBeamEncoderDecoderOutput(ModelOutput):
    """What beam search and beam sampling return.

    Args:
        sequences: (B * R, P + U) ids, the best text of a document first, filled up with pad.
        sequences_scores: (B * R,) float32, sum of log-probabilities / length ** length_penalty; there with output_scores
            only, here always.
        scores: with output_scores, (N, V) float32 for each step: what the processors made of the log-probabilities.
        logits: with output_logits, (N, V) float32 for each step: the model's own.
        beam_indices: (B * R, U) int32: the row that wrote each id after the prompt; -1 after the row's end.
        encoder_attentions: as in GenerateEncoderDecoderOutput, like all that follow.
        encoder_hidden_states: see there.
        decoder_attentions: see there. Row n is the beam that was number n in that step: beam_indices leads from text to row.
        cross_attentions: see there.
        decoder_hidden_states: see there.
        past_key_values: the cache of the beams that were running last.
    """

    sequences: HostArray
    sequences_scores: HostArray | None = None
    scores: tuple[HostArray, ...] | None = None
    logits: tuple[HostArray, ...] | None = None
    beam_indices: HostArray | None = None
    encoder_attentions: tuple[Array, ...] | None = None
    encoder_hidden_states: tuple[Array, ...] | None = None
    decoder_attentions: OfSteps | None = None
    cross_attentions: OfSteps | None = None
    decoder_hidden_states: OfSteps | None = None
    past_key_values: DecoderCache | None = None
