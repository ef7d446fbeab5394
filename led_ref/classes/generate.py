"""generate: validate the call, run the encoder, search with the model as the step function, name the results.

Here model and search meet. generation/ knows no model and model/ knows no search; all that passes between them is

    logits_NV = step(token_ids_NU, parents_N)

A step embeds the new ids, runs the decoder after the positions of its KV cache, and computes the logits of the last one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from led_backends.contract import Array, HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.led import STATES, LEDModel, Progress, late_global_mask, of_layers, wanted_outputs
from led_ref.classes.lookup import lookup_step, refuse_beside_lookup
from led_ref.classes.outputs import (
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
    LEDEncoderBaseModelOutput,
)
from led_ref.classes.pretrained import check_free_memory, device_errors
from led_ref.classes.step_graph import StepGraph
from led_ref.errors import ArgumentTypeError, InputError, SettingsError
from led_ref.generation.prompt_lookup import LookupStep
from led_ref.generation.search import make_prompt, search, stream
from led_ref.generation.settings.other_names import ConfigOfCall
from led_ref.generation.settings.resolve import GivenSettings, look_up
from led_ref.generation.settings.settings import OUTPUT_SETTINGS, GenerationConfig
from led_ref.generation.step import OwnRules, SearchResult
from led_ref.model.decoder import decode, decoder_masks, lm_logits
from led_ref.model.hooks import recording_decoder
from led_ref.model.intermediates import Recorder, keep
from led_ref.model.kv_cache import FIRST_CAPACITY, CachePlan, DecoderCache
from led_ref.model.ops import embed_tokens
from led_ref.tokenizer.tokenizer import LEDTokenizer

# What the decoder keeps of a document: each layer's keys and values, or the encoder's states alone.
CROSS_ATTENTION = ("cached", "folded")


@dataclass
class DecodingStep:
    """A step function for generation/. It holds the one thing that changes from step to step: the KV cache.

    Args:
        led: the model.
        cache: of the documents, before the first target position (LEDModel.source_memory).
        attention_mask_BT: the documents' padding mask; None: all are tokens.
        recorder: receives the intermediates of each call, as step.0, step.1, ...
        use_cache: False: compute all positions of the prefix anew in each step. The ids are the same; only the documents'
            keys and values are kept.
        kept: the ends of the names of the intermediates that `self.calls` keeps of each call.
        graph: computes the steps after the first call, if nothing of them is recorded or kept.
    """

    led: LEDModel
    cache: DecoderCache
    attention_mask_BT: HostArray | None
    recorder: Recorder | None = None
    use_cache: bool = True
    kept: tuple[str, ...] = ()
    graph: StepGraph | None = None
    calls: list[dict[str, Array]] = field(default_factory=list, init=False)
    prefix_NU: HostArray | None = field(
        default=None, init=False
    )  # the ids of the prefix, where no cache holds its keys

    def __call__(self, token_ids_NU: HostArray, parents_N: HostArray | None) -> HostArray:
        """Logits (N, V) of the next id; row n continues row parents_N[n] of the call before."""
        led, params = self.led, self.led.params
        if parents_N is not None:
            self.cache = self.cache.reorder(parents_N)
        if self.graph is not None and self.cache.length:
            logits_NV, self.cache = self.graph(token_ids_NU, self.cache)
            return logits_NV
        if not self.use_cache:
            if self.prefix_NU is not None:
                token_ids_NU = np.concatenate([self.prefix_NU[parents_N], token_ids_NU], axis=1)
            self.prefix_NU = token_ids_NU
        masks = decoder_masks(token_ids_NU.shape[1], self.cache, None, self.attention_mask_BT, led.backend)
        embeds_NUD = embed_tokens(token_ids_NU, params.shared, led.backend)
        recorder, backend = self._recorder_of_call(), led.backend
        if recorder is not None:
            recorder("led.decoder.input_ids", token_ids_NU)
            recorder("led.decoder.embed_tokens.output", embeds_NUD)
            heads, inner = led.config.decoder_attention_heads, recorder.at("led.decoder")
            backend = recording_decoder(led.backend, params.decoder, heads, inner, (self.cache, masks))
        last_NUD, after = decode(embeds_NUD, self.cache, params.decoder, led.config, masks, backend)
        if self.use_cache:
            self.cache = after
        logits_N1V = lm_logits(last_NUD[:, -1:], params, led.backend)
        if recorder is not None:
            recorder("logits", logits_N1V)
        return led.backend.to_host(logits_N1V[:, 0])

    def _recorder_of_call(self) -> Recorder | None:
        """The recorder of this call: the caller's at step.N, and what keeps the intermediates that are wanted afterwards."""
        if self.recorder is None and not self.kept:
            return None
        self.calls.append({})
        return keep(self.kept, self.calls[-1], self.recorder and self.recorder.at(f"step.{len(self.calls) - 1}"))


@dataclass(frozen=True)
class Task:
    """A validated call whose documents are encoded: all that a search needs before the first id."""

    led: LEDModel
    step: DecodingStep | LookupStep
    prompt_BP: HostArray
    settings: GenerationConfig
    source_BT: HostArray | None
    own: OwnRules
    encoder_outputs: LEDEncoderBaseModelOutput
    progress: Callable[[int, int], None] | None
    recorder: Recorder | None


@inputs.check_types
def prepare(
    led: LEDModel,
    generation_config: Mapping[str, Any] | None,
    input_ids: Any = None,
    *,
    attention_mask: Any = None,
    global_attention_mask: Any = None,
    encoder_outputs: Any = None,
    decoder_input_ids: Any = None,
    logits_processor: Sequence[Callable[[HostArray, HostArray], Any]] | None = (),
    stopping_criteria: Sequence[Callable[[HostArray, Any], Any]] | None = (),
    prefix_allowed_tokens_fn: Callable[[int, HostArray], Iterable[int]] | None = None,
    tokenizer: LEDTokenizer | None = None,
    cross_attention: str = "cached",
    progress: Progress | None = None,
    recorder: Recorder | None = None,
    **settings: Any,
) -> Task:
    """Validate everything, then encode the documents. Arguments and errors as in LEDForConditionalGeneration.generate."""
    config = led.config
    if cross_attention not in CROSS_ATTENTION:
        raise SettingsError(
            f"cross_attention is {cross_attention!r}; choose {' or '.join(map(repr, CROSS_ATTENTION))}."
        )
    text_bytes = None if tokenizer is None else tokenizer.text_bytes
    own = OwnRules(logits_processor, prefix_allowed_tokens_fn, stopping_criteria, text_bytes)  # type: ignore[arg-type]
    source_BT = None if input_ids is None else inputs.checked_ids("input_ids", input_ids, config.vocab_size)
    if encoder_outputs is not None:
        encoder_outputs = inputs.checked_encoder_outputs(encoder_outputs, config)
    documents, length = _source_shape(source_BT, encoder_outputs, global_attention_mask)

    prompt = None
    if decoder_input_ids is not None:
        prompt = inputs.checked_ids("decoder_input_ids", decoder_input_ids, config.vocab_size)
        inputs.refuse_unmasked_prompt_padding(prompt, config.pad_token_id, config.decoder_start_token_id)
    given = look_up(settings, generation_config, config.to_dict())
    prompt_BP = make_prompt(prompt, documents=documents, start_token_id=given.decoder_start_id())
    # Settings are resolved before the documents are encoded: a wrong one should not cost a minute first.
    resolved = _with_ids_of_words(resolve(given, led, prompt_BP.shape[1]), tokenizer)
    _refuse_unused_outputs(settings, resolved)
    if resolved.looks_up:
        refuse_beside_lookup(resolved, source_BT, recorder)
    folded, new_tokens = cross_attention == "folded", resolved.max_length - prompt_BP.shape[1]
    cache = resolved.cache_implementation if resolved.use_cache else "none"
    beams = resolved.rows_per_document
    sizes = {"tokens": length, "batch": documents, "beams": beams, "new_tokens": new_tokens, "cache": cache}
    check_free_memory(led.backend, config, is_read=encoder_outputs is not None, dtype=led.dtype, folded=folded, **sizes)
    shown = {"output_attentions": resolved.output_attentions, "output_hidden_states": resolved.output_hidden_states}
    if encoder_outputs is None:
        source = (input_ids, attention_mask, global_attention_mask)
        encoder_outputs = led.encoder(*source, recorder=recorder, progress=progress, **shown)
    shape = (documents, length)
    mask_BT = None if attention_mask is None else inputs.checked_mask("attention_mask", attention_mask, shape)
    step = _step_function(led, encoder_outputs, resolved, (mask_BT, source_BT), recorder, folded=folded)
    of_new_ids = None if progress is None else _of_new_ids(progress, prompt_BP.shape[1])
    return Task(led, step, prompt_BP, resolved, source_BT, own, encoder_outputs, of_new_ids, recorder)


def _step_function(
    led: LEDModel,
    encoder_outputs: LEDEncoderBaseModelOutput,
    settings: GenerationConfig,
    of_source: tuple[HostArray | None, HostArray | None],
    recorder: Recorder | None,
    *,
    folded: bool,
) -> DecodingStep | LookupStep:
    """The step function, with the documents in its cache; of_source: their padding mask and their ids, (B, T) each."""
    mask_BT, source_BT = of_source
    rows = 1 if settings.looks_up else settings.rows_per_document  # of a document, that are read together
    # The last id of a hypothesis is never read. Without a cache each step allocates what it needs.
    capacity = FIRST_CAPACITY if settings.cache_implementation == "dynamic" else rows * (settings.max_length - 1)
    plan = CachePlan(len(encoder_outputs.last_hidden_state) * rows, folded, capacity if settings.use_cache else 0)
    with device_errors(led.backend):
        memory = led.source_memory(encoder_outputs, plan, recorder and recorder.at("led.decoder"))
    if settings.looks_up:
        assert source_BT is not None
        return lookup_step(led, memory, mask_BT, source_BT, settings)
    kept = wanted_outputs(
        output_attentions=settings.output_attentions, output_hidden_states=settings.output_hidden_states
    )
    is_captured = led.backend.graphs and settings.use_cache and not kept and recorder is None
    graph = StepGraph(led, mask_BT) if is_captured else None
    return DecodingStep(led, memory, mask_BT, recorder, settings.use_cache, kept, graph)


def _with_ids_of_words(settings: GenerationConfig, tokenizer: LEDTokenizer | None) -> GenerationConfig:
    """The settings with bad_words as bad_words_ids; without a tokenizer as they are, and the search refuses them."""
    if tokenizer is None or not settings.bad_words:
        return settings
    runs = (run for word in settings.bad_words for run in _ids_of_word(tokenizer, word))
    return replace(settings, bad_words=(), bad_words_ids=(*settings.bad_words_ids, *runs))


def _ids_of_word(tokenizer: LEDTokenizer, word: str) -> tuple[tuple[int, ...], ...]:
    """The ids of a word as it is, and after a blank: at the beginning of a text or line a word has none."""
    forms = dict.fromkeys((word, f" {word.strip()}" if word.strip() else word, word.strip() or word))
    return tuple(tuple(tokenizer(form, add_special_tokens=False)["input_ids"]) for form in forms)


def run(task: Task) -> GenerateOutput | HostArray:
    """Search, and return the ids or, with return_dict_in_generate, an output."""
    with device_errors(task.led.backend):
        found = search(
            task.step,
            task.prompt_BP,
            task.settings,
            source_ids=task.source_BT,
            own=task.own,
            progress=task.progress,
            record=task.recorder,
        )
    return _output(task, found) if task.settings.return_dict_in_generate else found.sequences


def stream_ids(task: Task) -> Iterator[HostArray]:
    """The ids of each step, one step for each that is asked for. Errors of the call are raised before the first."""
    steps = stream(
        task.step, task.prompt_BP, task.settings, source_ids=task.source_BT, own=task.own, progress=task.progress
    )

    def step_by_step() -> Iterator[HostArray]:
        while True:
            # Not around the whole loop: between two ids the caller may compute on the device, or never ask again.
            with device_errors(task.led.backend):
                ids_N = next(steps, None)
            if ids_N is None:
                return
            yield ids_N

    return step_by_step()


def resolve(given: GivenSettings, led: LEDModel, prompt_length: int) -> GenerationConfig:
    """The settings in effect for this model: complete, and validated together."""
    return given.resolve(
        prompt_length=prompt_length,
        max_positions=led.config.max_decoder_position_embeddings,
        vocab_size=led.config.vocab_size,
    )


def _output(task: Task, found: SearchResult) -> GenerateOutput:
    """The result of the search, and the intermediates kept of the model's calls, under transformers' names."""
    settings = task.settings
    rest: dict[str, Any] = {"past_key_values": None}
    calls: list[dict[str, Array]] = []
    if isinstance(task.step, DecodingStep):
        calls = task.step.calls
        rest["past_key_values"] = task.step.cache if settings.use_cache else None
    if settings.output_attentions:
        rest["encoder_attentions"] = task.encoder_outputs.attentions
        rest["decoder_attentions"] = tuple(of_layers(call, "self_attn.probs") for call in calls)
        rest["cross_attentions"] = tuple(of_layers(call, "encoder_attn.probs") for call in calls)
    if settings.output_hidden_states:
        rest["encoder_hidden_states"] = task.encoder_outputs.hidden_states
        rest["decoder_hidden_states"] = tuple(of_layers(call, STATES) for call in calls)
    if settings.num_beams > 1:
        of_search = {f.name: getattr(found, f.name) for f in fields(found)}
        return GenerateBeamEncoderDecoderOutput(**of_search, **rest)
    return GenerateEncoderDecoderOutput(found.sequences, found.scores, found.logits, **rest)


def _refuse_unused_outputs(settings: dict[str, Any], resolved: GenerationConfig) -> None:
    for name in OUTPUT_SETTINGS:
        if settings.get(name) and not resolved.return_dict_in_generate:
            raise SettingsError(
                f"{name} is True (from the call), but return_dict_in_generate is False, so the ids alone are returned. "
                f"Pass return_dict_in_generate=True, or leave {name} out."
            )


def _source_shape(
    source_BT: HostArray | None, encoder_outputs: LEDEncoderBaseModelOutput | None, global_attention_mask: Any
) -> tuple[int, int]:
    """(B, T), once ids and encoder outputs are known to be of the same documents."""
    if encoder_outputs is None:
        if source_BT is None:
            raise InputError("There is no document: pass input_ids, or encoder_outputs (what model.encoder returned).")
        return len(source_BT), source_BT.shape[1]
    if global_attention_mask is not None:
        raise late_global_mask("encoder_outputs")
    batch, length = (int(size) for size in encoder_outputs.last_hidden_state.shape[:2])
    if source_BT is not None and source_BT.shape != (batch, length):
        raise InputError(
            f"input_ids has shape {source_BT.shape}, but encoder_outputs was made from ({batch}, {length}). "
            "Together they must be of the same documents; the ids serve the rules on the document's n-grams."
        )
    return batch, length


def settings_of(generation_config: Any) -> Mapping[str, Any]:
    """The settings of a GenerationConfig or a dict, in place of what generation_config.json says.

    Raises:
        SettingsError: for anything else, such as transformers' own class.
    """
    if isinstance(generation_config, GenerationConfig):
        return ConfigOfCall((k, v) for k, v in generation_config.to_dict().items() if v is not None)
    if isinstance(generation_config, Mapping):
        return ConfigOfCall(generation_config)
    remedy = " Pass generation_config.to_dict()." if hasattr(generation_config, "to_dict") else ""
    raise ArgumentTypeError(
        f"generation_config is a {type(generation_config).__name__}; it must be a dict or led_ref's GenerationSettings.{remedy}"
    )


def _of_new_ids(progress: Progress, prompt_length: int) -> Callable[[int, int], None]:
    """Adapter: the search counts the prompt too, the user's callback only new tokens."""
    return lambda done, total: progress("write", done - prompt_length, total - prompt_length)
