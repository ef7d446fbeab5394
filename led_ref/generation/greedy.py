"""Greedy search: write the best id, again and again.

With a model that likes 7 most and, once a 7 is there, the end:

    >>> def step(token_ids, parents):
    ...     return np.eye(11, dtype=np.float32)[np.where(token_ids[:, -1] == 7, 2, 7)]
    >>> settings = GenerationSettings(max_length=6, eos_token_id=2, pad_token_id=1)
    >>> greedy_search(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 7, 2]]

It looks one id ahead; `beam.py` looks further. It draws nothing at random.
"""

from collections.abc import Sequence

import numpy as np

from led_ref.errors import SettingsError
from led_ref.generation.settings import GenerationSettings
from led_ref.generation.step import (
    Ids,
    Processor,
    Progress,
    SearchResult,
    StepFunction,
    Tell,
    apply_processors,
    call_step,
)


def greedy_search(
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    *,
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
        progress: called once a step with (ids written, max_length).
        tell: called with what each step decides, under `greedy.step.N`.

    Returns:
        sequences (B, U), and with output_scores the processed logits of each step.

    Raises:
        SettingsError: if more than one sequence a document is asked for: greedy search finds one.
        InputError: if the model's logits contain NaN.
    """
    if settings.num_return_sequences > 1:
        raise SettingsError(
            f"num_return_sequences is {settings.num_return_sequences}, but greedy search (num_beams 1) finds one text. "
            f"Pass num_beams={settings.num_return_sequences} or more, or leave num_return_sequences out."
        )
    ids_BU, new_ids = prompt_ids, prompt_ids
    parents: Ids | None = None
    running_B = np.ones(len(prompt_ids), dtype=bool)
    all_scores = []
    while running_B.any() and ids_BU.shape[1] < settings.max_length:
        scores_BV = apply_processors(processors, ids_BU, call_step(step, new_ids, parents))
        if settings.output_scores:
            all_scores.append(scores_BV.astype(np.float32))
        next_B = scores_BV.argmax(axis=-1)
        if settings.eos_token_ids:
            next_B = np.where(running_B, next_B, settings.fill_token_id)
            running_B = running_B & ~np.isin(next_B, settings.eos_token_ids)
        if tell is not None:
            now = f"greedy.step.{ids_BU.shape[1] - prompt_ids.shape[1]}"
            tell(f"{now}.scores", scores_BV)
            tell(f"{now}.tokens", next_B)
            tell(f"{now}.is_running", running_B)
        new_ids = next_B[:, None]
        ids_BU = np.concatenate([ids_BU, new_ids], axis=1)
        parents = np.arange(len(ids_BU))
        if progress is not None:
            progress(ids_BU.shape[1], settings.max_length)
    if tell is not None:
        tell("greedy.sequences", ids_BU)
    return SearchResult(sequences=ids_BU, scores=tuple(all_scores) if settings.output_scores else None)
