"""LEDForConditionalGeneration: LED with its language-model head, which generates text.

model = LEDForConditionalGeneration.from_pretrained("allenai/led-large-16384-arxiv")
ids = model.generate(input_ids, attention_mask=mask, global_attention_mask=global_mask, num_beams=4)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from led_backends.contract import HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.generate import prepare, resolve, run, settings_of, stream_ids
from led_ref.classes.led import LEDWithHead, Progress
from led_ref.classes.outputs import GenerateOutput, LEDSeq2SeqLMOutput
from led_ref.classes.padded_prompts import generate_by_prompt_length
from led_ref.errors import InputError
from led_ref.generation.settings.resolve import look_up
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.settings.typed import SettingsByName
from led_ref.generation.step import compute_transition_scores
from led_ref.model.decoder import lm_logits
from led_ref.model.intermediates import Recorder
from led_ref.model.kv_cache import DecoderCache
from led_ref.model.losses import IGNORED_LABEL, cross_entropy, shift_tokens_right
from led_ref.tokenizer.tokenizer import LEDTokenizer


class LEDForConditionalGeneration(LEDWithHead):
    """LED with its language-model head: the class that generates text."""

    architecture = "LEDForConditionalGeneration"

    @inputs.check_types
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        global_attention_mask: Any = None,
        past_key_values: DecoderCache | None = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        labels: Any = None,
        *,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        recorder: Recorder | None = None,
    ) -> LEDSeq2SeqLMOutput:
        """Run encoder, decoder and head once; the arguments are LEDModel.forward's, and one more.

        Args:
            input_ids: as in LEDModel.forward, like all arguments that are not described here.
            decoder_input_ids: as there; with labels it may be left out: `[start] + labels[:-1]` is used then.
            labels: (N, U) ids of the target, -100 where the loss ignores it; the loss is returned then.
            use_cache: as there; None with labels is False: a known target is not continued.

        Raises:
            InputError: for anything that does not fit the model or each other.
        """
        labels_NU = None
        if labels is not None:
            use_cache = bool(use_cache)
            labels_NU = inputs.checked_ids("labels", labels, self.config.vocab_size, also_allowed=IGNORED_LABEL)
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels_NU)
        out = self.led(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            global_attention_mask,
            past_key_values,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            recorder=recorder,
        )
        logits_NUV = lm_logits(out.last_hidden_state, self.params, self.backend)
        loss = None
        if labels_NU is not None:
            inputs.check_labels_shape(labels_NU, logits_NUV.shape[:2])
            loss = cross_entropy(logits_NUV, labels_NU, self.backend)
        if recorder is not None:
            recorder("logits", logits_NUV)
            if loss is not None:
                recorder("loss", loss)
        return LEDSeq2SeqLMOutput(loss=loss, logits=logits_NUV, **out.shared())

    __call__ = forward

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> HostArray:
        """`[decoder_start_token_id] + labels[:-1]`, with -100 replaced by pad: the decoder's input for teacher forcing."""
        labels_NU = inputs.checked_ids("labels", labels, self.config.vocab_size, also_allowed=IGNORED_LABEL)
        pad = self.config.pad_token_id
        if pad is None:
            raise InputError(
                "config.json names no pad_token_id, so labels of -100 have no input id; pass decoder_input_ids."
            )
        return shift_tokens_right(labels_NU, self.config.decoder_start_token_id, pad)

    @inputs.check_types
    def generate(
        self,
        input_ids: Any = None,
        *,
        attention_mask: Any = None,
        global_attention_mask: Any = None,
        encoder_outputs: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        generation_config: GenerationConfig | Mapping[str, Any] | None = None,
        logits_processor: Sequence[Callable[[HostArray, HostArray], Any]] | None = (),
        stopping_criteria: Sequence[Callable[[HostArray, Any], Any]] | None = (),
        prefix_allowed_tokens_fn: Callable[[int, HostArray], Iterable[int]] | None = None,
        tokenizer: LEDTokenizer | None = None,
        cross_attention: str = "cached",
        progress: Progress | None = None,
        recorder: Recorder | None = None,
        **settings: Unpack[SettingsByName],
    ) -> HostArray | GenerateOutput:
        """Generate a target for each document: greedy search; with do_sample sampling; with num_beams above 1 beam search.

        Args:
            input_ids: (B, T) ids of the documents. With encoder_outputs they are optional, and serve only
                encoder_no_repeat_ngram_size and encoder_repetition_penalty.
            attention_mask: (B, T), 1 for tokens, 0 for padding; None: all are tokens.
            global_attention_mask: (B, T), 1 for global tokens. LED was trained with one on the first token of a document
                to summarize; None: none. (The text-level calls of api.py set it.)
            encoder_outputs: the output of `model.encoder(...)`, instead of encoding the documents again.
            decoder_input_ids: (B, P) a prompt to continue; None: decoder_start_token_id.
            decoder_attention_mask: (B, P) 1 for the prompt's ids, 0 for padding, which may stand left or right. Each row is
                continued as it would be alone: prompts of one length are searched together.
            generation_config: settings in place of the model's own generation_config.json; those given by name still count
                before them.
            logits_processor: your own rules, functions (ids (N, U), scores (N, V)) -> scores (N, V) over NumPy arrays; they
                come after all rules of the settings and before the filters of sampling.
            stopping_criteria: functions (ids (N, U), scores) -> which rows stop here: (N,) or one bool. `scores` is a tuple
                of those so far with output_scores, else None.
            prefix_allowed_tokens_fn: (which document, ids so far (U,)) -> the ids that may come next.
            tokenizer: for stop_strings and bad_words.
            cross_attention: "cached" keeps each layer's keys and values of the document; "folded" keeps the encoder's states
                alone, 1 / (2 * decoder_layers) of that memory, and takes longer for each id (model/folding.py). Same numbers.
            progress: called after each encoder layer and each new id.
            recorder: receives the named intermediates (model/intermediates.py): the encoder's, then under `step.N` those of
                each call of the decoder, and under `greedy`, `sample` or `beam` those of the search.
            settings: num_beams, max_new_tokens, ...: generation/settings/settings.py lists and explains them. What is not given
                comes from generation_config.json, else from config.json.

        Returns:
            (B * num_return_sequences, U) int64 ids, prompt first, filled up with pad; or, with
            return_dict_in_generate=True, a GenerateEncoderDecoderOutput, with beams a GenerateBeamEncoderDecoderOutput.

        Raises:
            SettingsError: for a setting that does not exist, contradicts another or would have no effect.
            InputError: for documents or prompts that do not fit the model.
        """
        own_config = self.generation_config if generation_config is None else settings_of(generation_config)
        if decoder_attention_mask is not None:
            rules = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
            return generate_by_prompt_length(
                self.led,
                own_config,
                input_ids,
                decoder_attention_mask=decoder_attention_mask,
                attention_mask=attention_mask,
                global_attention_mask=global_attention_mask,
                encoder_outputs=encoder_outputs,
                decoder_input_ids=decoder_input_ids,
                prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
                tokenizer=tokenizer,
                cross_attention=cross_attention,
                progress=progress,
                recorder=recorder,
                **rules,
                **settings,
            )
        return run(
            prepare(
                self.led,
                own_config,
                input_ids,
                attention_mask=attention_mask,
                global_attention_mask=global_attention_mask,
                encoder_outputs=encoder_outputs,
                decoder_input_ids=decoder_input_ids,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
                tokenizer=tokenizer,
                cross_attention=cross_attention,
                progress=progress,
                recorder=recorder,
                **settings,
            )
        )

    def stream(
        self,
        input_ids: Any = None,
        *,
        generation_config: GenerationConfig | Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Iterator[HostArray]:
        """As `generate`, but yield the ids (N,) of each step as they are generated; the prompt's are not among them.

        The documents are encoded, and everything is validated, before this returns; an id is generated each time one is asked
        for. A row that has ended yields pad until the last one ends. The caller may stop asking at any time.

        Args:
            input_ids: (B, T) ids of the documents.
            generation_config: as in `generate`.
            arguments: as in `generate`, its settings too; without `recorder` and `decoder_attention_mask`.

        Raises:
            SettingsError: with num_beams above 1: beams decide at their end. Else as `generate`.
            InputError: as `generate`.
        """
        own_config = self.generation_config if generation_config is None else settings_of(generation_config)
        for name in ("recorder", "decoder_attention_mask"):
            if arguments.pop(name, None) is not None:
                raise InputError(f"stream takes no {name}: ids are yielded as they come. Call generate.")
        return stream_ids(prepare(self.led, own_config, input_ids, **arguments))

    @inputs.check_types
    def compute_transition_scores(
        self, sequences: Any, scores: Any, beam_indices: Any = None, normalize_logits: bool = False
    ) -> HostArray:
        """The score of each generated id, from the result of a `generate` with output_scores.

        With beams the values of a hypothesis add up to its score: `sum / (new ids) ** length_penalty` is sequences_scores.

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
        indices = None if beam_indices is None else inputs.checked_beam_indices(beam_indices)
        ids = inputs.checked_ids("sequences", sequences, self.config.vocab_size)
        return compute_transition_scores(ids, inputs.checked_scores(scores), indices, normalize=normalize_logits)

    def effective_settings(self, **settings: Unpack[SettingsByName]) -> GenerationConfig:
        """The settings that `generate` would work with, given these: complete, and validated.

        Raises:
            SettingsError: as `generate`.
        """
        return resolve(look_up(settings, self.generation_config, self.config.to_dict()), self.led, prompt_length=1)

    @staticmethod
    def check_settings(**settings: Unpack[SettingsByName]) -> None:
        """Refuse settings that are wrong for every model.

        Raises:
            SettingsError: for a name that does not exist, and a value that cannot be.
        """
        look_up(settings)
