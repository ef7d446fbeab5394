"""From settings to texts: make the prompt, build the logits processors and stopping criteria, run the search.

    >>> def step(token_ids, parents):  # after any prefix, 5 comes next
    ...     return np.eye(11, dtype=np.float32)[np.full(len(token_ids), 5)]
    >>> settings = GenerationConfig(max_length=4, eos_token_id=2, pad_token_id=1)
    >>> search(step, make_prompt(None, documents=1, start_token_id=2), settings).sequences.tolist()
    [[2, 5, 5, 5]]

The searches themselves are in greedy_search.py, beam_search.py and group_beam_search.py; step.py says what a step function
is. A stopping criterion ends a text at a stop string, after a time, or by the caller's own rule (its end id and max_length
end a text without one). A stop string need not end where an id ends. With ids for "st", "op" and "opera":

    >>> pieces = {7: b"st", 8: b"op", 9: b"opera"}
    >>> stops = {"stop_strings": [b"stop"], "text_bytes": lambda ids: b"".join(pieces[i] for i in ids)}
    >>> holds_a_stop_string(np.array([[7, 8], [7, 9], [8, 7]]), None, **stops).tolist()
    [True, True, False]
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError, SettingsError
from led_ref.generation.beam_search import beam_search
from led_ref.generation.greedy_search import IdsOfSteps, build_pick, generate_ids, greedy_search
from led_ref.generation.group_beam_search import group_beam_search
from led_ref.generation.processors import build_processors
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import (
    NO_OWN_RULES,
    Hooks,
    Ids,
    OwnRules,
    Recorder,
    Scores,
    SearchProgress,
    SearchResult,
    StepFunction,
    StoppingCriterion,
)

__all__ = ["beam_search", "greedy_search", "group_beam_search", "make_prompt", "search", "stream"]


def search(
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationConfig,
    *,
    source_ids: Ids | None = None,
    own: OwnRules = NO_OWN_RULES,
    progress: SearchProgress | None = None,
    record: Recorder | None = None,
) -> SearchResult:
    """Beam search if num_beams is more than 1, diverse beam search if num_beam_groups is; else greedy search or sampling.

    Args:
        step: the model; see step.py. It gets B * settings.rows_per_document rows.
        prompt_ids: (B, P) int64, from `make_prompt`.
        settings: from `GivenSettings.resolve`.
        source_ids: (B, T) int64, the ids that the encoder read; only the two encoder settings need them.
        own: the caller's own rules.
        progress: called once a step with (length so far, max_length).
        record: called with each decision of the search, by name: `greedy.step.N.tokens`, `beam.step.N.running.beams`.

    Raises:
        SettingsError: if the settings need source ids or a tokenizer that the call does not give, or greedy search is to
            find several texts.
        InputError: if the model's logits contain NaN.
    """
    processors = build_processors(settings, prompt_length=prompt_ids.shape[1], source_ids=source_ids, own=own)
    hooks = Hooks(processors, build_stopping(settings, own), progress, record)
    if settings.num_beam_groups > 1:
        if hooks.stopping:
            raise SettingsError(
                f"num_beam_groups is {settings.num_beam_groups}: groups of beams know no stop_strings, max_time or "
                "stopping_criteria. Leave these out, or pass num_beam_groups=1."
            )
        return group_beam_search(step, prompt_ids, settings, hooks)
    return (beam_search if settings.num_beams > 1 else greedy_search)(step, prompt_ids, settings, hooks)


def stream(
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationConfig,
    *,
    source_ids: Ids | None = None,
    own: OwnRules = NO_OWN_RULES,
    progress: SearchProgress | None = None,
) -> IdsOfSteps:
    """As `search`, but yields the ids (N,) of each step as soon as they are chosen. Arguments as in `search`.

    Raises:
        SettingsError: if there are beams, whose best hypothesis is only known at the end; else as `search`.
    """
    if settings.num_beams > 1:
        raise SettingsError(
            f"num_beams is {settings.num_beams}, and beams decide only at their end on a text, so no id can be "
            "streamed earlier. Pass num_beams=1 (greedy search, or sampling with do_sample=True), or do not stream."
        )
    processors = build_processors(settings, prompt_length=prompt_ids.shape[1], source_ids=source_ids, own=own)
    hooks = Hooks(processors, build_stopping(settings, own), progress)
    return generate_ids(step, prompt_ids, settings, hooks, build_pick(settings, len(prompt_ids)))


def make_prompt(decoder_input_ids: npt.NDArray[np.integer] | None, *, documents: int, start_token_id: int) -> Ids:
    """The ids (B, P) with which every target begins: the start id, then the caller's prompt, if any.

    As in transformers, the start id is put in front of a prompt whose rows do not begin with it. Where some rows do and
    some do not, transformers leaves all as they are; then a row's text depends on the other rows, so this is refused.

    Args:
        decoder_input_ids: (B, P) or None for the start id alone.
        documents: B.
        start_token_id: decoder_start_token_id.

    Raises:
        InputError: if the prompt is not one row of ids for each document, or only some rows begin with the start id.

    Example:
        >>> make_prompt(np.array([[8, 9]]), documents=1, start_token_id=2).tolist()
        [[2, 8, 9]]
    """
    start_B1 = np.full((documents, 1), start_token_id, dtype=np.int64)
    if decoder_input_ids is None:
        return start_B1
    if decoder_input_ids.ndim != 2 or len(decoder_input_ids) != documents or not decoder_input_ids.shape[1]:
        raise InputError(
            f"decoder_input_ids has the shape {decoder_input_ids.shape}; give one row of at least one id for each "
            f"of the {documents} documents, that is, ({documents}, P)."
        )
    begins_B = decoder_input_ids[:, 0] == start_token_id
    if begins_B.any() and not begins_B.all():
        row = int(np.argmin(begins_B))
        raise InputError(
            f"Row {row} of decoder_input_ids begins with {decoder_input_ids[row, 0]}, "
            f"other rows begin with the start id {start_token_id}. Begin all rows with {start_token_id}, or none."
        )
    prompt_BP = decoder_input_ids.astype(np.int64)
    return prompt_BP if begins_B.all() else np.concatenate([start_B1, prompt_BP], axis=1)


# ---- stopping criteria -----------------------------------------------------------------------------------------------


def build_stopping(settings: GenerationConfig, own: OwnRules) -> tuple[StoppingCriterion, ...]:
    """The criteria that the settings ask for, then the caller's own. The clock of max_time starts here.

    Raises:
        SettingsError: if stop_strings is set, but own.text_bytes is None.
    """
    chosen: list[StoppingCriterion] = []
    if settings.max_time is not None:
        chosen.append(partial(is_late, ends_at=time.monotonic() + settings.max_time))
    if settings.stop_strings:
        if own.text_bytes is None:
            raise SettingsError(
                f"stop_strings is {settings.stop_strings!r}, but there is no tokenizer to give the bytes of ids. "
                "Pass tokenizer=..., or end texts with eos_token_id."
            )
        encoded = [text.encode() for text in settings.stop_strings]
        chosen.append(partial(holds_a_stop_string, stop_strings=encoded, text_bytes=own.text_bytes))
    return (*chosen, *own.stopping_criteria)


def is_late(ids_NU: Ids, scores: Sequence[Scores] | None, *, ends_at: float) -> npt.NDArray[np.bool_]:
    """All rows, once the time is over. The id of that step is kept.

    Source: transformers' MaxTimeCriteria, whose time also begins after the encoder.
    """
    return np.full(len(ids_NU), time.monotonic() > ends_at)


def holds_a_stop_string(
    ids_NU: Ids,
    scores: Sequence[Scores] | None,
    *,
    stop_strings: Sequence[bytes],
    text_bytes: Callable[[Sequence[int]], bytes],
) -> npt.NDArray[np.bool_]:
    """The rows in which the last id completed a stop string. The rest of that id is kept.

    Bytes are compared, not letters: several ids may share one letter. Source: transformers' StopStringCriteria. What an id
    is can depend on the next: so the text before the last id is taken with it and without, and where they differ is new.
    """
    longest = max(map(len, stop_strings))
    stops_N = np.zeros(len(ids_NU), dtype=bool)
    for n, (*earlier, last) in enumerate(ids_NU.tolist()):
        begin, missing = len(earlier), 2 * (longest + 4)  # an id that may be a letter has one byte, and two as a letter
        while begin and missing > 0:
            begin -= 1
            missing -= len(text_bytes([earlier[begin]]))
        before, text = text_bytes(earlier[begin:]), text_bytes([*earlier[begin:], last])
        same = next((k for k, (a, b) in enumerate(zip(before, text, strict=False)) if a != b), len(before))
        # From this start on, a match reaches into what is new.
        starts = ((stop, max(0, same - len(stop) + 1)) for stop in stop_strings)
        stops_N[n] = any(text.find(stop, start) >= 0 for stop, start in starts)
    return stops_N
