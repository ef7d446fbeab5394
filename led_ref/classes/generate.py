"""generate, step by step: validate the call, run the encoder, search, name the results.

Here the model and the search meet: decoding_step.py is the step function that generation/ searches with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from led_backends.contract import HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.decoding_step import DecodingStep
from led_ref.classes.encoder import STATES, Progress, of_layers, wanted_outputs
from led_ref.classes.led import LEDModel
from led_ref.classes.outputs import (
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
    LEDEncoderBaseModelOutput,
)
from led_ref.costs.memory import check_free_memory, device_errors
from led_ref.costs.operations import Workload
from led_ref.errors import InputError, SettingsError
from led_ref.generation.search import make_prompt, search, stream
from led_ref.generation.settings.resolve import GivenSettings, look_up
from led_ref.generation.settings.settings import OUTPUT_SETTINGS, GenerationConfig
from led_ref.generation.step import OwnRules, SearchResult
from led_ref.model.intermediates import Recorder
from led_ref.model.kv_cache import FIRST_CAPACITY, CachePlan
from led_ref.tokenizer.pieces import token_bytes
from led_ref.tokenizer.tokenizer import LEDTokenizer

# What the decoder keeps of a document: each layer's keys and values, or the encoder's states alone.
CROSS_ATTENTION = ("cached", "folded")


@dataclass(frozen=True)
class Task:
    """A validated call whose documents are encoded: all that a search needs before the first id."""

    step: DecodingStep
    prompt_BP: HostArray
    settings: GenerationConfig
    source_BT: HostArray | None
    own: OwnRules
    encoder_outputs: LEDEncoderBaseModelOutput
    progress: Callable[[int, int], None] | None
    recorder: Recorder | None


def prepare(
    led: LEDModel,
    generation_config: Mapping[str, Any] | None,
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
    recorder: Recorder | None = None,
    **settings: Any,
) -> Task:
    """Validate everything, then encode the documents. Arguments and errors as in LEDForConditionalGeneration.generate."""
    config = led.config
    if cross_attention not in CROSS_ATTENTION:
        raise SettingsError(
            f"cross_attention is {cross_attention!r}; choose {' or '.join(map(repr, CROSS_ATTENTION))}."
        )
    source_BT = None if input_ids is None else inputs.checked_ids("input_ids", input_ids, config.vocab_size)
    if encoder_outputs is not None:
        encoder_outputs = inputs.checked_encoder_outputs(encoder_outputs, config)
    documents, length = _source_shape(source_BT, encoder_outputs, global_attention_mask)

    prompt = None
    if decoder_input_ids is not None:
        prompt = inputs.checked_ids("decoder_input_ids", decoder_input_ids, config.vocab_size)
    given = look_up(settings, generation_config, config.to_dict())
    prompt_BP = make_prompt(prompt, documents=documents, start_token_id=given.decoder_start_id())
    # Settings are resolved before the documents are encoded: a wrong one should not cost a minute first.
    resolved = resolve(given, led, prompt_BP.shape[1])
    _refuse_unused_outputs(settings, resolved)
    folded, new_tokens = cross_attention == "folded", resolved.max_length - prompt_BP.shape[1]
    cache = resolved.cache_implementation if resolved.use_cache else "none"
    beams = resolved.rows_per_document
    load = Workload(length, documents, beams, new_tokens, dtype=led.dtype, folded=folded, cache=cache)
    check_free_memory(led.backend, config, load, is_read=encoder_outputs is not None)
    shown = {"output_attentions": resolved.output_attentions, "output_hidden_states": resolved.output_hidden_states}
    if encoder_outputs is None:
        source = (input_ids, attention_mask, global_attention_mask)
        encoder_outputs = led.encoder(*source, recorder=recorder, progress=progress, **shown)
    mask_BT = None
    if attention_mask is not None:
        mask_BT = inputs.checked_mask("attention_mask", attention_mask, (documents, length))
    # The last id of a hypothesis is never read. Without a cache each step allocates what it needs.
    capacity = {"static": beams * (resolved.max_length - 1), "dynamic": FIRST_CAPACITY, "none": 0}[cache]
    with device_errors(led.backend):
        plan = CachePlan(documents * beams, folded, capacity)
        memory = led.source_memory(encoder_outputs, plan, recorder and recorder.at("led.decoder"))
    kept = wanted_outputs(**shown)
    step = DecodingStep(led, memory, mask_BT, recorder, use_cache=resolved.use_cache, kept=kept)
    of_token = None if tokenizer is None else partial(token_bytes, tokenizer)
    own = OwnRules(tuple(logits_processor), prefix_allowed_tokens_fn, tuple(stopping_criteria), of_token)
    of_new_ids = None if progress is None else _of_new_ids(progress, prompt_BP.shape[1])
    return Task(step, prompt_BP, resolved, source_BT, own, encoder_outputs, of_new_ids, recorder)


def run(task: Task) -> GenerateOutput | HostArray:
    """Search, and return the ids or, with return_dict_in_generate, an output."""
    with device_errors(task.step.led.backend):
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
            with device_errors(task.step.led.backend):
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
    settings, calls = task.settings, task.step.calls
    rest: dict[str, Any] = {"past_key_values": task.step.cache if settings.use_cache else None}
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
        raise InputError(
            "global_attention_mask acts in the encoder; with encoder_outputs it would be ignored. Leave it out."
        )
    batch, length = (int(size) for size in encoder_outputs.last_hidden_state.shape[:2])
    if source_BT is not None and source_BT.shape != (batch, length):
        raise InputError(
            f"input_ids has shape {source_BT.shape}, but encoder_outputs was made from ({batch}, {length}). "
            "Together they must be of the same documents; the ids serve the rules on the document's n-grams."
        )
    return batch, length


def _of_new_ids(progress: Progress, prompt_length: int) -> Callable[[int, int], None]:
    """Adapter: the search counts the prompt too, the user's callback only new tokens."""
    return lambda done, total: progress("write", done - prompt_length, total - prompt_length)
