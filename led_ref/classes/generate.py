"""Where the model and the search meet: the step function that generation/ is handed, made from model/.

generation/ knows no model and model/ knows no search; all that passes between them is

    logits_NV = step(token_ids_NU, parents_N)

One step embeds the new ids, runs the decoder after what the cache remembers, and turns the last position into logits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from led_backends.contract import Array, HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.encoder import STATES, asked_for, those
from led_ref.classes.generate_outputs import GenerateBeamEncoderDecoderOutput, GenerateEncoderDecoderOutput
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.costs.device_memory import check_free_memory, device_errors
from led_ref.costs.operations import Workload
from led_ref.errors import InputError, SettingsError
from led_ref.generation.search import make_prompt, search, stream
from led_ref.generation.settings.resolve import GivenSettings, look_up
from led_ref.generation.settings.settings import OUTPUT_SETTINGS, GenerationConfig
from led_ref.generation.step import OwnRules, SearchResult
from led_ref.model.decoder import decode, decoder_masks
from led_ref.model.heads import lm_logits
from led_ref.model.intermediates import SILENT, Tap, keep
from led_ref.model.kv_cache import FIRST_ROOM, DecoderCache
from led_ref.model.ops import embed_tokens

if TYPE_CHECKING:
    from led_ref.classes.encoder import Progress
    from led_ref.classes.led import LEDForConditionalGeneration


# What the decoder keeps of a document: each layer's keys and values, or the encoder's states alone.
CROSS_ATTENTION = ("cached", "folded")


class StepFunction:
    """The model as generation/ sees it. It holds the one thing that changes from step to step: the cache.

    Args:
        model: what writes.
        cache: the memory of the documents, nothing written yet (LEDModel.source_memory).
        attention_mask_BT: which source tokens may be seen; None: all.
        use_cache: False: forget what was computed of the texts after every step, and compute all of their positions in
            each. The ids are the same; only the documents' keys and values stay.
        tap: listens to each call, as step.0, step.1, ...
        kept: the ends of the names of what is kept of each call, in `self.calls`.
    """

    def __init__(
        self,
        model: "LEDForConditionalGeneration",
        cache: DecoderCache,
        attention_mask_BT: HostArray | None,
        tap: Tap = SILENT,
        *,
        use_cache: bool = True,
        kept: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self.cache = cache
        self.attention_mask_BT = attention_mask_BT
        self.tap = tap
        self.use_cache = use_cache
        self.written_NU: HostArray | None = None  # what the rows say so far, where no cache knows it
        self.kept = kept
        self.calls: list[dict[str, Array]] = []

    def __call__(self, token_ids_NU: HostArray, parents_N: HostArray | None) -> HostArray:
        """Logits (N, V) of what follows; row n goes on from row parents_N[n] of the call before."""
        model, backend = self.model, self.model.backend
        if parents_N is not None:
            self.cache = self.cache.reorder(parents_N)
        if not self.use_cache:
            if self.written_NU is not None:
                token_ids_NU = np.concatenate([self.written_NU[parents_N], token_ids_NU], axis=1)
            self.written_NU = token_ids_NU
        new = token_ids_NU.shape[1]
        masks = decoder_masks(new, self.cache, None, self.attention_mask_BT, backend)
        tap = self.tap.at(f"step.{len(self.calls)}")
        self.calls.append({})
        inner = keep(self.kept, self.calls[-1], tap).at("led.decoder")
        inner("input_ids", token_ids_NU)
        embeds_NUD = embed_tokens(token_ids_NU, model.params.shared, backend)
        inner("embed_tokens.output", embeds_NUD)
        last_NUD, after = decode(embeds_NUD, self.cache, model.params.decoder, model.config, masks, backend, inner)
        if self.use_cache:
            self.cache = after
        logits_N1V = lm_logits(last_NUD[:, -1:], model.params, backend)
        tap("logits", logits_N1V)
        return backend.to_host(logits_N1V[:, 0])


@dataclass(frozen=True)
class Task:
    """All that is known before the first id is written: what a search needs, checked, and the documents read."""

    step: StepFunction
    prompt_BP: HostArray
    settings: GenerationConfig
    source_BT: HostArray | None
    own: OwnRules
    encoder_outputs: LEDEncoderBaseModelOutput
    progress: Callable[[int, int], None] | None
    tap: Tap


def prepare(
    model: "LEDForConditionalGeneration",
    input_ids: Any,
    attention_mask: Any,
    global_attention_mask: Any,
    encoder_outputs: Any,
    decoder_input_ids: Any,
    progress: "Progress | None",
    settings: dict[str, Any],
    tap: Tap,
    cross_attention: str,
    own: OwnRules,
) -> Task:
    """Check everything, then read the documents. The arguments are those of LEDForConditionalGeneration.generate."""
    config = model.config
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
    given = look_up(settings, model.generation_config, config.to_dict())
    prompt_BP = make_prompt(prompt, documents=documents, start_token_id=given.decoder_start_id())
    # Settings are resolved before the documents are read: a mistyped one should not cost a minute first.
    resolved = _resolve(given, model, prompt_BP.shape[1])
    _refuse_outputs_for_nobody(settings, resolved)
    folded, new_tokens = cross_attention == "folded", resolved.max_length - prompt_BP.shape[1]
    kind = resolved.cache_implementation if resolved.use_cache else "none"
    side_by_side = resolved.rows_per_document
    load = Workload(length, documents, side_by_side, new_tokens, dtype=model.dtype, folded=folded, cache=kind)
    check_free_memory(model.backend, config, load, is_read=encoder_outputs is not None)
    shown = {"output_attentions": resolved.output_attentions, "output_hidden_states": resolved.output_hidden_states}
    if encoder_outputs is None:
        source = (input_ids, attention_mask, global_attention_mask)
        encoder_outputs = model.encoder(*source, tap=tap, progress=progress, **shown)
    mask_BT = None
    if attention_mask is not None:
        mask_BT = inputs.checked_mask("attention_mask", attention_mask, (documents, length))
    rows = documents * side_by_side
    with device_errors(model.backend):
        # The last id of a text is never read. Without a cache each step takes what it needs.
        room = {"static": side_by_side * (resolved.max_length - 1), "dynamic": FIRST_ROOM, "none": 0}[kind]
        cache = model.led.source_memory(encoder_outputs, rows, tap.at("led.decoder"), folded=folded, room=room)
    step = StepFunction(model, cache, mask_BT, tap, use_cache=resolved.use_cache, kept=asked_for(**shown))
    told = None if progress is None else _of_new_ids(progress, prompt_BP.shape[1])
    return Task(step, prompt_BP, resolved, source_BT, own, encoder_outputs, told, tap)


def write(task: Task) -> "GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput | HostArray":
    """Search for what to write."""
    with device_errors(task.step.model.backend):
        found = search(
            task.step,
            task.prompt_BP,
            task.settings,
            source_ids=task.source_BT,
            own=task.own,
            progress=task.progress,
            record=None if task.tap is SILENT else task.tap,
        )
    return _output(task, found) if task.settings.return_dict_in_generate else found.sequences


def stream_ids(task: Task) -> Iterator[HostArray]:
    """The ids of each step as they are written: all that can be wrong with the call is said before the first is asked for."""
    own = task.own
    writing = stream(
        task.step, task.prompt_BP, task.settings, source_ids=task.source_BT, own=own, progress=task.progress
    )

    def one_by_one() -> Iterator[HostArray]:
        while True:
            # Not around the whole loop: whoever asks for ids does as he likes between them, and may never ask again.
            with device_errors(task.step.model.backend):
                ids_N = next(writing, None)
            if ids_N is None:
                return
            yield ids_N

    return one_by_one()


def _output(task: Task, found: SearchResult) -> GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput:
    """What the search found, and what was kept of the model's calls, under transformers' names."""
    settings, calls = task.settings, task.step.calls
    rest: dict[str, Any] = {"past_key_values": task.step.cache if settings.use_cache else None}
    if settings.output_attentions:
        rest["encoder_attentions"] = task.encoder_outputs.attentions
        rest["decoder_attentions"] = tuple(those(call, "self_attn.probs") for call in calls)
        rest["cross_attentions"] = tuple(those(call, "encoder_attn.probs") for call in calls)
    if settings.output_hidden_states:
        rest["encoder_hidden_states"] = task.encoder_outputs.hidden_states
        rest["decoder_hidden_states"] = tuple(those(call, STATES) for call in calls)
    of_search = {f.name: getattr(found, f.name) for f in fields(found)}
    if settings.num_beams > 1:
        return GenerateBeamEncoderDecoderOutput(**of_search, **rest)
    return GenerateEncoderDecoderOutput(found.sequences, found.scores, found.logits, **rest)


def _refuse_outputs_for_nobody(settings: dict[str, Any], resolved: GenerationConfig) -> None:
    for name in OUTPUT_SETTINGS:
        if settings.get(name) and not resolved.return_dict_in_generate:
            raise SettingsError(
                f"{name} is True (from the call), but return_dict_in_generate is False, so the ids alone are returned. "
                f"Pass return_dict_in_generate=True, or leave {name} out."
            )


def effective_settings(model: "LEDForConditionalGeneration", settings: dict[str, Any]) -> GenerationConfig:
    """The settings that a call with these would work with: the call's, the files' and the defaults, checked."""
    return _resolve(look_up(settings, model.generation_config, model.config.to_dict()), model, prompt_length=1)


def _resolve(given: GivenSettings, model: "LEDForConditionalGeneration", prompt_length: int) -> GenerationConfig:
    config = model.config
    return given.resolve(
        prompt_length=prompt_length,
        max_positions=config.max_decoder_position_embeddings,
        vocab_size=config.vocab_size,
    )


def _source_shape(
    source_BT: HostArray | None, encoder_outputs: LEDEncoderBaseModelOutput | None, global_attention_mask: Any
) -> tuple[int, int]:
    """How many documents there are, and their length, once it is clear that ids and encoder outputs speak of the same ones."""
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


def _of_new_ids(progress: "Progress", prompt_length: int) -> Callable[[int, int], None]:
    """What a search calls: it counts all ids of a target, and a person the ones that are written."""
    return lambda done, total: progress("write", done - prompt_length, total - prompt_length)
