"""Greedy search: write the best id, again and again.

With a model that likes 7 most and, once a 7 is there, the end:

    >>> def step(token_ids, parents):
    ...     return np.eye(11, dtype=np.float32)[np.where(token_ids[:, -1] == 7, 2, 7)]
    >>> settings = GenerationSettings(max_length=6, eos_token_id=2, pad_token_id=1)
    >>> greedy_search(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 7, 2]]

It looks one id ahead; `beam.py` looks further. It draws nothing at random; `sampling.py` does, and shares the loop here,
`write_id_by_id`, which gives each id out as soon as it is written:

    >>> [ids.tolist() for ids in write_id_by_id("greedy", best_ids, step, np.array([[2]]), settings)]
    [[7], [2]]
"""

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

import numpy as np

from led_ref.errors import SettingsError
from led_ref.generation.settings.settings import GenerationSettings
from led_ref.generation.step import (
    Ids,
    Processor,
    Progress,
    Scores,
    SearchResult,
    StepFunction,
    StoppingCriterion,
    Tell,
    apply_processors,
    call_step,
    hits_a_criterion,
)

# Yields the ids (N,) of each step, and returns the whole.
IdById: TypeAlias = Generator[Ids, None, SearchResult]


def greedy_search(
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    *,
    stopping: Sequence[StoppingCriterion] = (),
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> SearchResult:
    """Append `argmax(processors(logits))` until every row has ended or max_length is reached.

    Of equal scores the lower id wins. A row that has ended goes on with pad until the last one ends.

    Args:
        step: the model; see step.py.
        prompt_ids: (B, P) int64, each row beginning with the start id.
        settings: resolved settings.
        processors: from `build_processors`; they see raw logits.
        stopping: from `build_stopping`; they see the ids, the new one included.
        progress: called once a step with (ids written, max_length).
        tell: called with what each step decides, under `greedy.step.N`.

    Returns:
        sequences (B, U), and with output_scores the processed logits of each step, with output_logits those before.

    Raises:
        SettingsError: if more than one sequence a document is asked for: greedy search finds one.
        InputError: if the model's logits contain NaN.
    """
    if settings.num_return_sequences > 1:
        raise SettingsError(
            f"num_return_sequences is {settings.num_return_sequences}, but greedy search (num_beams 1) finds one text. "
            f"Pass num_beams={settings.num_return_sequences} or more, or leave num_return_sequences out."
        )
    writing = write_id_by_id(
        "greedy", best_ids, step, prompt_ids, settings, processors, stopping=stopping, progress=progress, tell=tell
    )
    return run_to_end(writing)


def write_id_by_id(
    kind: str,
    pick: Callable[[Scores], Ids],
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    *,
    stopping: Sequence[StoppingCriterion] = (),
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> IdById:
    """One id a row and step, chosen by `pick` (N, V) -> (N,) and never taken back: greedy search and sampling.

    The arguments are those of `greedy_search`; `kind` is the name under which `tell` hears of it.
    """
    ids_NU, new_ids = prompt_ids, prompt_ids
    parents: Ids | None = None
    running_N = np.ones(len(prompt_ids), dtype=bool)
    all_scores: list[Scores] = []
    all_logits: list[Scores] = []
    while running_N.any() and ids_NU.shape[1] < settings.max_length:
        logits_NV = call_step(step, new_ids, parents, may_be_invalid=settings.remove_invalid_values)
        scores_NV = apply_processors(processors, ids_NU, logits_NV)
        if settings.output_logits:
            all_logits.append(logits_NV.copy())  # the model may write its next ones into the same array
        if settings.output_scores:
            all_scores.append(scores_NV.astype(np.float32))
        next_N = np.where(running_N, pick(scores_NV), settings.fill_token_id)
        ids_NU = np.concatenate([ids_NU, next_N[:, None]], axis=1)
        running_N = running_N & ~np.isin(next_N, settings.eos_token_ids)
        running_N &= ~hits_a_criterion(stopping, ids_NU, tuple(all_scores) if settings.output_scores else None)
        if tell is not None:
            now = f"{kind}.step.{ids_NU.shape[1] - 1 - prompt_ids.shape[1]}"
            tell(f"{now}.scores", scores_NV)
            tell(f"{now}.tokens", next_N)
            tell(f"{now}.is_running", running_N)
        new_ids = next_N[:, None]
        parents = np.arange(len(ids_NU))
        if progress is not None:
            progress(ids_NU.shape[1], settings.max_length)
        yield next_N
    if tell is not None:
        tell(f"{kind}.sequences", ids_NU)
    return SearchResult(
        sequences=ids_NU,
        scores=tuple(all_scores) if settings.output_scores else None,
        logits=tuple(all_logits) if settings.output_logits else None,
    )


def best_ids(scores_NV: Scores) -> Ids:
    """The id of the highest score in each row; of equal ones the lower id."""
    best_N: Ids = scores_NV.argmax(axis=-1)
    return best_N


def run_to_end(writing: IdById) -> SearchResult:
    """What a generator of ids returns when all are written."""
    while True:
        try:
            next(writing)
        except StopIteration as end:
            result: SearchResult = end.value
            return result
