"""Greedy search: append the id of the highest score, step by step; and the autoregressive loop that sampling shares with it.

With a model that likes 7 most and, after a 7, the end:

    >>> def step(token_ids, parents):
    ...     return np.eye(11, dtype=np.float32)[np.where(token_ids[:, -1] == 7, 2, 7)]
    >>> settings = GenerationConfig(max_length=6, eos_token_id=2, pad_token_id=1)
    >>> greedy_search(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 7, 2]]

It looks one id ahead; `beam_search.py` looks further. `generate_ids` is the loop itself, which yields the ids of each step:

    >>> [ids.tolist() for ids in generate_ids(step, np.array([[2]]), settings)]
    [[7], [2]]

With do_sample the next id is drawn instead (`sampling.py`); all the rest is the same.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from led_ref.errors import SettingsError
from led_ref.generation.prompt_lookup import LookupStep
from led_ref.generation.sampling import Stream, ids_at, streams
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import (
    NO_HOOKS,
    Hooks,
    Ids,
    Scores,
    SearchResult,
    StepFunction,
    StepOutputs,
    call_step,
    refuse_dead_end,
)

# Yields the ids (N,) of each step, and returns the whole.
IdsOfSteps: TypeAlias = Generator[Ids, None, SearchResult]


def best_ids(scores_NV: Scores) -> Ids:
    """The id of the highest score in each row; of equal ones the lower id."""
    best_N: Ids = scores_NV.argmax(axis=-1)
    return best_N


@dataclass(frozen=True)
class Pick:
    """How each row's next id is chosen: the best one; with streams, of which each row has one, it is drawn."""

    streams: Sequence[Stream] = ()

    def numbers(self) -> list[float]:
        """The random numbers of the next step: one a row, none for the best."""
        return [stream.uniform() for stream in self.streams]

    def __call__(self, scores_NV: Scores, numbers: Sequence[float]) -> Ids:
        """The ids (N,)."""
        return ids_at(scores_NV, numbers) if self.streams else best_ids(scores_NV)

    def is_close(
        self, scores_NV: Scores, numbers: Sequence[float], picked_N: Ids, close: float
    ) -> npt.NDArray[np.bool_]:
        """In which rows (N,) scores that differ by `close`, relative to the best one, could choose another id."""
        highest_N1 = scores_NV.max(axis=-1, keepdims=True)
        margin_N1 = close * np.maximum(1, np.abs(highest_N1))
        if not self.streams:
            return np.asarray((scores_NV >= highest_N1 - margin_N1).sum(axis=-1) > 1)
        # Where no score moves by more than m, no cumulated probability does.
        u_N, m_N = np.array(numbers), margin_N1[:, 0]
        below_N, above_N = ids_at(scores_NV, np.maximum(u_N - m_N, 0)), ids_at(scores_NV, u_N + m_N)
        return np.asarray((below_N != picked_N) | (above_N != picked_N))


def build_pick(settings: GenerationConfig, documents: int) -> Pick:
    """How the next ids are chosen: the best ones, or with do_sample ids that are drawn.

    Raises:
        SettingsError: if there are several seeds, and not one for each document.
    """
    if not settings.do_sample:
        return Pick()
    return Pick(streams(settings, documents, settings.num_return_sequences))


BEST = Pick()


def greedy_search(
    step: StepFunction, prompt_ids: Ids, settings: GenerationConfig, hooks: Hooks = NO_HOOKS
) -> SearchResult:
    """Append `argmax(processors(logits))` until every row has ended or max_length is reached.

    Of equal scores the lower id wins. A row that has ended continues with pad until the last one ends. With do_sample
    num_return_sequences texts of each document are drawn, id by id, from softmax(processors(logits)).
    Source: transformers 5.23, GenerationMixin._sample.

    Args:
        step: the model; see step.py. It is called with B rows, with do_sample with N = B * num_return_sequences.
        prompt_ids: (B, P) int64, each row beginning with the start id.
        settings: resolved settings.
        hooks: the record is of `greedy.step.N`, with do_sample of `sample.step.N`.

    Returns:
        sequences (N, U), and with output_scores the processed logits of each step, with output_logits those before.

    Raises:
        SettingsError: if greedy search is to find more than one sequence a document; or as `build_pick`.
        InputError: if the model's logits contain NaN, or no id is left to draw.
    """
    if settings.num_return_sequences > 1 and not settings.do_sample:
        raise SettingsError(
            f"num_return_sequences is {settings.num_return_sequences}, but greedy search (num_beams 1) finds one text. "
            f"Pass num_beams={settings.num_return_sequences} or more, or leave num_return_sequences out."
        )
    steps = generate_ids(step, prompt_ids, settings, hooks, build_pick(settings, len(prompt_ids)))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: SearchResult = end.value
            return result


def generate_ids(
    step: StepFunction, prompt_ids: Ids, settings: GenerationConfig, hooks: Hooks = NO_HOOKS, pick: Pick = BEST
) -> IdsOfSteps:
    """The autoregressive loop: one id a row and step, chosen by `pick` (from `build_pick`) and never revised.

    The other arguments and the errors are those of `greedy_search`.
    """
    name = "sample" if settings.do_sample else "greedy"
    ends_X, fill = np.array(settings.eos_token_ids, np.int64), settings.fill_token_id
    prompt_ids = np.repeat(prompt_ids, settings.num_return_sequences, axis=0)
    ids_NU, new_ids = prompt_ids, prompt_ids
    parents: Ids | None = None
    running_N = np.ones(len(prompt_ids), dtype=bool)
    outputs = StepOutputs(settings)
    while running_N.any() and ids_NU.shape[1] < settings.max_length:
        logits_NV = call_step(step, new_ids, parents, may_be_invalid=settings.remove_invalid_values)
        scores_NV = hooks.process(ids_NU, logits_NV)
        numbers = pick.numbers()
        picked_N = pick(scores_NV, numbers)
        if isinstance(step, LookupStep):
            logits_again_NV = step.again(running_N & pick.is_close(scores_NV, numbers, picked_N, step.close))
            if logits_again_NV is not None:
                logits_NV, scores_NV = logits_again_NV, hooks.process(ids_NU, logits_again_NV)
                picked_N = pick(scores_NV, numbers)
        outputs.add(logits_NV, scores_NV)
        refuse_dead_end(scores_NV[running_N, picked_N[running_N]], ids_NU[running_N], "running row")
        next_N = np.where(running_N, picked_N, fill)
        ids_NU = np.concatenate([ids_NU, next_N[:, None]], axis=1)
        running_N = running_N & ~(next_N[:, None] == ends_X).any(axis=1)
        running_N &= ~hooks.stops(ids_NU, outputs.scores)
        if hooks.record is not None:
            now = f"{name}.step.{ids_NU.shape[1] - 1 - prompt_ids.shape[1]}"
            hooks.record(f"{now}.scores", scores_NV)
            hooks.record(f"{now}.tokens", next_N)
            hooks.record(f"{now}.is_running", running_N)
        new_ids = next_N[:, None]
        parents = np.arange(len(ids_NU))
        if hooks.progress is not None:
            hooks.progress(ids_NU.shape[1], settings.max_length)
        yield next_N
    if hooks.record is not None:
        hooks.record(f"{name}.sequences", ids_NU)
    return SearchResult(sequences=ids_NU, scores=outputs.scores, logits=outputs.logits)
