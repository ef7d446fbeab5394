"""Sampling: draw each next id by its probability, instead of taking the best one.

Draws are made on the host, from float64 probabilities, with reproducible random numbers: each text has a stream of its
own, made of the seed and of the text's number among those of its document, and of nothing else. So the same seed gives a
document the same text on every machine, alone or in any batch, and the first of three texts is the one that would have
been drawn alone. (Two equal documents in a batch get equal texts. For different texts of one document use
num_return_sequences; for different ones of equal documents, a seed for each.) The loop is that of `greedy_search.py`:

    >>> from led_ref.generation.greedy_search import greedy_search
    >>> def step(token_ids, parents):  # 3 and 4 are equally likely
    ...     return np.where(np.isin(np.arange(6), (3, 4)), 0.0, -np.inf) + np.zeros((len(token_ids), 1))
    >>> settings = GenerationConfig(do_sample=True, seed=1, max_length=8, num_return_sequences=2)
    >>> greedy_search(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 4, 4, 3, 4, 3, 3, 4], [2, 3, 4, 4, 3, 4, 3, 3]]

A probability that differs in the last digit can turn a draw only if the random number falls on that digit: with float32
logits, once in some million draws. The warpers (`warpers.py`) cut the unlikely ids off before the draw.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError, SettingsError
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import Ids, Scores
from led_ref.generation.warpers import probabilities


class Stream:
    """The random numbers of one text.

    Args:
        seed: the document's.
        number: the text's number among those of the document, from 0 on.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, number]))

    def uniform(self) -> float:
        """The next number in [0, 1): the upper 53 of 64 random bits, as many as a float64 keeps.

        Taken from the bits themselves, whose order NumPy promises to keep for ever; not so that of `Generator.random`.
        """
        return float(int(self._bits.random_raw()) >> 11) * 2.0**-53


def streams(settings: GenerationConfig, documents: int, texts: int) -> list[Stream]:
    """A stream for each text, those of one document in a row. Without a seed, random ones.

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


def draw_ids(scores_NV: Scores, streams: Sequence[Stream]) -> Ids:
    """For each row an id, drawn with its probability softmax(scores): the next number of the row's stream decides.

    Raises:
        InputError: if a row's scores are all -inf.
    """
    return ids_at(scores_NV, [stream.uniform() for stream in streams])


def ids_at(scores_NV: Scores, numbers: Sequence[float]) -> Ids:
    """For each row the id that a number in [0, 1) draws; errors as `draw_ids`."""
    probs_NV = checked_probabilities(scores_NV)
    return np.array([_index_of(u, row) for u, row in zip(numbers, probs_NV, strict=True)], dtype=np.int64)


def draw_without_replacement(scores_X: Scores, count: int, stream: Stream) -> npt.NDArray[np.intp]:
    """`count` different indices, one after the other, each drawn from softmax(scores) of the remaining ones.

    Where fewer have a probability above 0, the best of the others follow. Beam sampling draws its candidates with it.
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
        index = _index_of(stream.uniform(), weights)
        drawn.append(int(possible[index]))
        weights[index] = 0
    if len(drawn) < count:
        others = np.setdiff1d(np.argsort(-scores_X, kind="stable"), drawn, assume_unique=True)
        drawn += others[: count - len(drawn)].tolist()
    return np.array(drawn, dtype=np.intp)


def checked_probabilities(scores_NV: Scores) -> npt.NDArray[np.float64]:
    """The softmax of scores, or an error for a row in which every id is forbidden."""
    probs_NV = probabilities(scores_NV)
    unusable_N = np.isnan(probs_NV).any(axis=-1)
    if unusable_N.any():
        raise InputError(
            f"Row {int(np.argmax(unusable_N))} has no id left to draw: all scores are -inf (or one is +inf). The rules "
            "forbid the whole vocabulary; loosen no_repeat_ngram_size, suppress_tokens, or rules of your own."
        )
    return probs_NV


def _index_of(number: float, weights: npt.NDArray[np.float64]) -> int:
    """The index at which the cumulative weights pass `number` of their total; `number` is from [0, 1)."""
    ends = weights.cumsum()
    index = int(np.searchsorted(ends, number * ends[-1], side="right"))
    # Just below 1 the product may round up to the very end: then it is the last index with a weight.
    return min(index, int(np.searchsorted(ends, ends[-1], side="left")))
