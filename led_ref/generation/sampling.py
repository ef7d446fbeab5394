"""Sampling: write an id that is drawn by its probability, again and again.

Draws are made on the host, from float64 probabilities, with random numbers that are written down, so to speak: each text
has a stream of its own, made of the seed and of the text's number among those of its document, and of nothing else. So
the same seed gives a document the same text on every machine, alone or in any batch, and the first of three texts is the
one that would have been drawn alone. (Two equal documents in a batch get equal texts. For different texts of one document
there is num_return_sequences; for different ones of equal documents, a seed for each.)

    >>> def step(token_ids, parents):  # 3 and 4 are equally likely
    ...     return np.where(np.isin(np.arange(6), (3, 4)), 0.0, -np.inf) + np.zeros((len(token_ids), 1))
    >>> settings = GenerationSettings(do_sample=True, seed=1, max_length=8, num_return_sequences=2)
    >>> sample(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 4, 4, 3, 4, 3, 3, 4], [2, 3, 4, 4, 3, 4, 3, 3]]

A probability that differs in the last digit can turn a draw only if the random number falls on that digit: with float32
logits, once in some million draws. What is cut off before the draw is decided in `warpers.py`.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError, SettingsError
from led_ref.generation.greedy_search import IdById, run_to_end, write_id_by_id
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
)
from led_ref.generation.warpers import probabilities


class Stream:
    """The random numbers of one text.

    Args:
        seed: the document's.
        number: which of the document's texts it is, from 0 on.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, number]))

    def uniform(self) -> float:
        """The next number in [0, 1): the upper 53 of 64 random bits, as many as a float64 keeps.

        Taken from the bits themselves, whose order NumPy promises to keep for ever; not so that of `Generator.random`.
        """
        return float(int(self._bits.random_raw()) >> 11) * 2.0**-53


def streams(settings: GenerationSettings, documents: int, texts: int) -> list[Stream]:
    """A stream for each text, those of one document in a row. Without a seed, one that nobody can foresee.

    Raises:
        SettingsError: if there are several seeds, and not one for each document.
    """
    seeds = settings.seed
    if seeds is None:
        seeds = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(seeds, int):
        seeds = (seeds,) * documents
    if len(seeds) != documents:
        raise SettingsError(
            f"seed holds {len(seeds)} numbers, but there are {documents} documents. Give one seed for all of them, "
            "or one for each."
        )
    return [Stream(seed, number) for seed in seeds for number in range(texts)]


def sample(
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    *,
    stopping: Sequence[StoppingCriterion] = (),
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> SearchResult:
    """num_return_sequences texts of each document, drawn id by id from softmax(processors(logits)).

    Source: transformers 5.23, GenerationMixin._sample.

    Args:
        step: the model; see step.py. It is called with N = B * num_return_sequences rows.
        prompt_ids: (B, P) int64, each row beginning with the start id.
        settings: resolved settings, with the seed.
        processors: from `build_processors`, the filters for sampling among them; they see raw logits.
        stopping: from `build_stopping`.
        progress: called once a step with (ids written, max_length).
        tell: called with what each step decides, under `sample.step.N`.

    Returns:
        sequences (N, U), and with output_scores and output_logits the scores after and before the processors.

    Raises:
        SettingsError: if there are several seeds, and not one for each document.
        InputError: if the model's logits contain NaN, or no id is left to draw.
    """
    return run_to_end(
        sample_id_by_id(step, prompt_ids, settings, processors, stopping=stopping, progress=progress, tell=tell)
    )


def sample_id_by_id(
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    *,
    stopping: Sequence[StoppingCriterion] = (),
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> IdById:
    """As `sample`, and gives out the ids (N,) of each step as they are drawn."""
    texts = settings.num_return_sequences
    pick = partial(draw_ids, streams=streams(settings, len(prompt_ids), texts))
    prompts = np.repeat(prompt_ids, texts, axis=0)
    return write_id_by_id(
        "sample", pick, step, prompts, settings, processors, stopping=stopping, progress=progress, tell=tell
    )


def draw_ids(scores_NV: Scores, streams: Sequence[Stream]) -> Ids:
    """For each row an id, drawn with its probability softmax(scores): the next number of the row's stream decides.

    Raises:
        InputError: if a row's scores are all -inf.
    """
    probs_NV = checked_probabilities(scores_NV)
    return np.array([_place_of(u.uniform(), row) for u, row in zip(streams, probs_NV, strict=True)], dtype=np.int64)


def draw_without_replacement(scores_X: Scores, count: int, stream: Stream) -> npt.NDArray[np.intp]:
    """`count` different places, one after the other, each drawn from softmax(scores) of those that are left.

    Where fewer have a probability at all, the best of the others follow. For beam sampling, whose candidates are drawn.
    Source: transformers 5.23, _get_top_k_continuations (torch.multinomial without replacement).

    Example:
        >>> draw_without_replacement(np.array([-np.inf, 0.0, -np.inf, -np.inf]), 3, Stream(0, 0)).tolist()
        [1, 0, 2]
    """
    weights_X = checked_probabilities(scores_X[None])[0]
    possible = np.flatnonzero(weights_X)
    weights = weights_X[possible]
    drawn = []
    for _ in range(min(count, len(possible))):
        place = _place_of(stream.uniform(), weights)
        drawn.append(int(possible[place]))
        weights[place] = 0
    if len(drawn) < count:
        others = np.setdiff1d(np.argsort(-scores_X, kind="stable"), drawn, assume_unique=True)
        drawn += others[: count - len(drawn)].tolist()
    return np.array(drawn, dtype=np.intp)


def checked_probabilities(scores_NV: Scores) -> npt.NDArray[np.float64]:
    """The softmax of scores, or an error where there is none."""
    probs_NV = probabilities(scores_NV)
    unusable_N = np.isnan(probs_NV).any(axis=-1)
    if unusable_N.any():
        raise InputError(
            f"Row {int(np.argmax(unusable_N))} has no id left to draw: all scores are -inf (or one is +inf). The rules "
            "forbid the whole vocabulary; loosen no_repeat_ngram_size, suppress_tokens, or rules of your own."
        )
    return probs_NV


def _place_of(number: float, weights: npt.NDArray[np.float64]) -> int:
    """The place on which `number`, from [0, 1), falls where the weights lie one behind the other."""
    ends = weights.cumsum()
    place = int(np.searchsorted(ends, number * ends[-1], side="right"))
    # Just below 1 the product may round up to the very end: that is the last place with a weight.
    return min(place, int(np.searchsorted(ends, ends[-1], side="left")))
