"""What a model that writes can do besides `forward`: generate, stream, and say what each written id was worth.

The methods name and explain the arguments; the work is done in writing.py, where model and search meet.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes.encoder import Progress
from led_ref.generation.settings.resolve import look_up
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import OwnRules
from led_ref.generation.transition_scores import compute_transition_scores
from led_ref.model.intermediates import SILENT, Tap
from led_ref.tokenizer.pieces import token_bytes
from led_ref.tokenizer.tokenizer import LEDTokenizer

if TYPE_CHECKING:
    from led_ref.classes.led import LEDForConditionalGeneration


class GenerationMixin:
    """The methods of LEDForConditionalGeneration that write. Named as in transformers."""

    def generate(
        self,
        input_ids: Any = None,
        *,
        attention_mask: Any = None,
        global_attention_mask: Any = None,
        encoder_outputs: Any = None,
        decoder_input_ids: Any = None,
        logits_processor: Sequence[Callable[[HostArray, HostArray], Any]] = (),
        stopping_criteria: Sequence[Callable[[HostArray, Any], Any]] = (),
        prefix_allowed_tokens_fn: Callable[[int, HostArray], Iterable[int]] | None = None,
        tokenizer: LEDTokenizer | None = None,
        cross_attention: str = "cached",
        progress: Progress | None = None,
        tap: Tap = SILENT,
        **settings: Any,
    ) -> Any:
        """Write a target for each document: by greedy search; with do_sample drawn; with num_beams above 1 by beam search.

        Args:
            input_ids: (B, T) ids of the documents. With encoder_outputs they are optional, and serve only
                encoder_no_repeat_ngram_size and encoder_repetition_penalty.
            attention_mask: (B, T), 1 for tokens, 0 for padding; None: all are tokens.
            global_attention_mask: (B, T), 1 for global tokens. LED was trained with one on the first token of a document
                to summarize; None: none. (The text-level calls of api.py set it.)
            encoder_outputs: what `model.encoder(...)` returned, instead of reading the documents again.
            decoder_input_ids: (B, P) a prompt to go on from; None: decoder_start_token_id.
            logits_processor: your own rules, functions (ids (N, U), scores (N, V)) -> scores (N, V) over NumPy arrays; they
                come after all rules of the settings and before the filters of sampling.
            stopping_criteria: functions (ids (N, U), scores) -> which rows stop here: (N,) or one bool. `scores` is a tuple
                of those so far with output_scores, else None.
            prefix_allowed_tokens_fn: (which document, ids so far (U,)) -> the ids that may come next.
            tokenizer: says what an id is in text, which stop_strings need.
            cross_attention: "cached" keeps each layer's keys and values of the document; "folded" keeps the encoder's states
                alone, 1 / (2 * decoder_layers) of that memory, and takes longer for each id (model/folding.py). Same numbers.
            progress: told after each encoder layer and each id written.
            tap: listens to the named intermediates (model/tap.py): the encoder's, then under `step.N` those of each call
                of the decoder, and under `greedy`, `sample` or `beam` what the search makes of them.
            settings: num_beams, max_new_tokens, ...: generation/settings/settings.py lists and explains them. What is not given
                comes from generation_config.json, else from config.json.

        Returns:
            (B * num_return_sequences, U) int64 ids, prompt first, filled up with pad; or, with
            return_dict_in_generate=True, a GenerateEncoderDecoderOutput, with beams a GenerateBeamEncoderDecoderOutput.

        Raises:
            SettingsError: for a setting that does not exist, contradicts another or would have no effect.
            InputError: for documents or prompts that do not fit the model.
        """
        from led_ref.classes.generate import prepare, write

        own = _own_rules(logits_processor, stopping_criteria, prefix_allowed_tokens_fn, tokenizer)
        source = (input_ids, attention_mask, global_attention_mask, encoder_outputs)
        task = prepare(_whole(self), *source, decoder_input_ids, progress, settings, tap, cross_attention, own)
        return write(task)

    def stream(
        self,
        input_ids: Any = None,
        *,
        attention_mask: Any = None,
        global_attention_mask: Any = None,
        encoder_outputs: Any = None,
        decoder_input_ids: Any = None,
        logits_processor: Sequence[Callable[[HostArray, HostArray], Any]] = (),
        stopping_criteria: Sequence[Callable[[HostArray, Any], Any]] = (),
        prefix_allowed_tokens_fn: Callable[[int, HostArray], Iterable[int]] | None = None,
        tokenizer: LEDTokenizer | None = None,
        cross_attention: str = "cached",
        progress: Progress | None = None,
        **settings: Any,
    ) -> Iterator[HostArray]:
        """As `generate`, and gives out each step's ids (N,) as soon as they are written, the prompt's not among them.

        The documents are read, and everything is checked, before it returns; an id is written each time one is asked for. A
        row that has ended gives pad until the last one ends. Who has enough stops asking.

        Args:
            input_ids: see `generate`, as for all the others.
            attention_mask: see there.
            global_attention_mask: see there.
            encoder_outputs: see there.
            decoder_input_ids: see there.
            logits_processor: see there.
            stopping_criteria: see there.
            prefix_allowed_tokens_fn: see there.
            tokenizer: see there.
            cross_attention: see there.
            progress: see there.
            settings: see there.

        Raises:
            SettingsError: with num_beams above 1: beams decide at their end. Else as `generate`.
            InputError: as `generate`.
        """
        from led_ref.classes.generate import prepare, stream_ids

        own = _own_rules(logits_processor, stopping_criteria, prefix_allowed_tokens_fn, tokenizer)
        source = (input_ids, attention_mask, global_attention_mask, encoder_outputs)
        task = prepare(_whole(self), *source, decoder_input_ids, progress, settings, SILENT, cross_attention, own)
        return stream_ids(task)

    def compute_transition_scores(
        self, sequences: Any, scores: Any, beam_indices: Any = None, normalize_logits: bool = False
    ) -> HostArray:
        """What each written id was worth, from the result of a `generate` with output_scores.

        With beams the values of a text add up to its score: `sum / (ids written) ** length_penalty` is sequences_scores.

        Args:
            sequences: `result.sequences`.
            scores: `result.scores`.
            beam_indices: `result.beam_indices`, with beams.
            normalize_logits: make the scores log-probabilities first; without beams they are raw.

        Returns:
            (B * R, U) float32, a value for each id after the prompt; 0 behind a text's end (with beams).

        Raises:
            InputError: if these are not of one search.
        """
        indices = None if beam_indices is None else np.asarray(beam_indices)
        return compute_transition_scores(np.asarray(sequences), tuple(scores), indices, normalize=normalize_logits)

    def effective_settings(self, **settings: Any) -> GenerationConfig:
        """The settings that `generate` would work with, given these: complete, and checked.

        Raises:
            SettingsError: as `generate`.
        """
        from led_ref.classes.generate import effective_settings

        return effective_settings(_whole(self), settings)

    @staticmethod
    def check_settings(**settings: Any) -> None:
        """Refuse settings that no model could follow; it takes none to know that.

        Raises:
            SettingsError: for a name that does not exist, and a value that cannot be.
        """
        look_up(settings)


def _whole(model: GenerationMixin) -> "LEDForConditionalGeneration":
    """The model whose part these methods are."""
    return cast("LEDForConditionalGeneration", model)


def _own_rules(
    logits_processor: Sequence[Callable[[HostArray, HostArray], Any]],
    stopping_criteria: Sequence[Callable[[HostArray, Any], Any]],
    prefix_allowed_tokens_fn: Callable[[int, HostArray], Iterable[int]] | None,
    tokenizer: LEDTokenizer | None,
) -> OwnRules:
    return OwnRules(
        logits_processor=tuple(logits_processor),
        stopping_criteria=tuple(stopping_criteria),
        prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
        token_bytes=None if tokenizer is None else lambda token_id: token_bytes(tokenizer, token_id),
    )
