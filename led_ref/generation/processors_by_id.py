"""More logits processors: those that name ids, and those that repair or rescale all scores.

They have the form of processors.py, `(ids_NU, scores_NV) -> scores_NV`, and like them leave their arguments as they are.
For example, ids 5 and 6 may not come in a row; so after a 5, 6 is forbidden:

    >>> bad = bias_table([((5, 6), -np.inf)])
    >>> add_biases(np.array([[2, 5]]), np.zeros((1, 8)), biases=bad).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -inf, 0.0]]

N rows, U ids so far (prompt and generated prefix), V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError
from led_ref.generation.step import Ids, PrefixAllowedTokens, Processor, Scores


@dataclass(frozen=True)
class BiasesOfLength:
    """All runs of one length: X of them."""

    beginnings_XU: Ids  # the ids before the last; none, for runs of one id
    last_X: Ids
    biases_X: npt.NDArray[np.float64]


def bias_table(pairs: Iterable[tuple[tuple[int, ...], float]]) -> list[BiasesOfLength]:
    """Runs of ids and their biases, grouped by length, so that all of one length are compared at once."""
    by_length: dict[int, list[tuple[tuple[int, ...], float]]] = {}
    for run, bias in pairs:
        by_length.setdefault(len(run), []).append((run, bias))
    table = []
    for same_length in by_length.values():
        runs = np.array([run for run, _ in same_length], dtype=np.int64)
        table.append(BiasesOfLength(runs[:, :-1], runs[:, -1], np.array([bias for _, bias in same_length])))
    return table


def add_biases(ids_NU: Ids, scores_NV: Scores, *, biases: Sequence[BiasesOfLength]) -> Scores:
    """Add a run's bias to the score of its last id, in each row that ends with the run's other ids.

    A run of one id always gets its bias. The biases of several runs with the same last id add up. A bias of -inf forbids:
    so bad_words_ids is this rule too.
    Source: transformers' SequenceBiasLogitsProcessor and NoBadWordsLogitsProcessor.

    Example:
        >>> table = bias_table([((7,), 1.0), ((5, 7), 2.0)])
        >>> add_biases(np.array([[5], [6]]), np.zeros((2, 8)), biases=table)[:, 7].tolist()
        [3.0, 1.0]
    """
    sums_NV = np.zeros_like(scores_NV)
    length = ids_NU.shape[1]
    for same in biases:
        before = same.beginnings_XU.shape[1]
        if before > length:
            continue
        ends_N1U = ids_NU[:, None, length - before :]
        rows, runs = (ends_N1U == same.beginnings_XU).all(axis=-1).nonzero()
        np.add.at(sums_NV, (rows, same.last_X[runs]), same.biases_X[runs])
    return scores_NV + sums_NV


def suppress(ids_NU: Ids, scores_NV: Scores, *, token_ids: Sequence[int], at_length: int | None = None) -> Scores:
    """Forbid `token_ids`: always, or only after `at_length` ids.

    Source: transformers' SuppressTokensLogitsProcessor and SuppressTokensAtBeginLogitsProcessor.
    """
    if at_length is not None and ids_NU.shape[1] != at_length:
        return scores_NV
    scores_NV = scores_NV.copy()
    scores_NV[:, list(token_ids)] = -np.inf
    return scores_NV


def favour_the_end(
    ids_NU: Ids, scores_NV: Scores, *, eos_token_ids: Sequence[int], after_length: int, factor: float
) -> Scores:
    """Every id past `after_length` makes the end likelier: + |score| * (factor ** ids past it - 1).

    The absolute value, so that a negative score rises as well. A factor below 1 puts the end off.
    Source: transformers' ExponentialDecayLengthPenalty.

    Example:
        >>> late = {"eos_token_ids": (1,), "after_length": 2, "factor": 2.0}
        >>> [favour_the_end(np.zeros((1, n), int), np.array([[0.0, -3.0]]), **late)[0, 1].item() for n in (2, 3, 4)]
        [-3.0, 0.0, 6.0]
    """
    past = ids_NU.shape[1] - after_length
    if past <= 0:
        return scores_NV
    scores_NV = scores_NV.copy()
    ends = list(eos_token_ids)
    ends_NX = scores_NV[:, ends]
    # A forbidden id stays forbidden: nothing is added to its -inf.
    raised_NX = np.abs(np.where(np.isfinite(ends_NX), ends_NX, 0)) * (factor**past - 1)
    scores_NV[:, ends] = ends_NX + raised_NX.astype(scores_NV.dtype)
    return scores_NV


def allow_by_prefix(
    ids_NU: Ids, scores_NV: Scores, *, allowed: PrefixAllowedTokens, rows_per_document: int, beams: int
) -> Scores:
    """Only the ids that `allowed(document, ids so far)` names.

    Where other rules forbid all of these in every beam of a document, they come back with a score of 0: the caller's
    function overrules the other rules.
    Source: De Cao et al. 2020 (arXiv 2010.00904), section 3.2; transformers' PrefixConstrainedLogitsProcessor.

    Raises:
        InputError: if no id is allowed, or one that the vocabulary does not have.

    Example:
        >>> after_2 = lambda document, ids: [3, 5] if ids[-1] == 2 else [4]
        >>> given = {"allowed": after_2, "rows_per_document": 1, "beams": 1}
        >>> allow_by_prefix(np.array([[2], [3]]), np.ones((2, 6)), **given).argmax(axis=1).tolist()
        [3, 4]
    """
    only_NV = np.full_like(scores_NV, -np.inf)
    size = scores_NV.shape[1]
    for n, ids_U in enumerate(ids_NU):
        token_ids = [int(token) for token in allowed(n // rows_per_document, ids_U)]
        if not token_ids or not all(0 <= token < size for token in token_ids):
            raise InputError(
                f"prefix_allowed_tokens_fn returned {token_ids} for document {n // rows_per_document} after the ids "
                f"{ids_U.tolist()}. Return at least one id, and ids from 0 to {size - 1}."
            )
        only_NV[n, token_ids] = 0
    limited_NV = scores_NV + only_NV
    hopeless_B = (limited_NV == -np.inf).all(axis=1).reshape(-1, beams).all(axis=1)
    limited_NV = np.where(np.repeat(hopeless_B, beams)[:, None], only_NV, limited_NV)
    return limited_NV


def remove_invalid(ids_NU: Ids, scores_NV: Scores) -> Scores:
    """NaN becomes 0, infinity the largest number and -infinity the lowest one of the dtype.

    A forbidden id is then only very unlikely. Source: transformers' InfNanRemoveLogitsProcessor.

    Example:
        >>> remove_invalid(np.array([[0]]), np.array([[np.nan, 1.0, -np.inf]], np.float32)).tolist()
        [[0.0, 1.0, -3.4028234663852886e+38]]
    """
    return np.nan_to_num(scores_NV)


def checked(processor: Callable[[Ids, Scores], Any]) -> Processor:
    """A caller's own processor, with a check of its result: scores of the same shape, without NaN."""

    def apply(ids_NU: Ids, scores_NV: Scores) -> Scores:
        given_NV = np.asarray(processor(ids_NU.copy(), scores_NV.copy()))
        name = getattr(processor, "__name__", type(processor).__name__)
        if given_NV.shape != scores_NV.shape or not np.issubdtype(given_NV.dtype, np.floating):
            raise InputError(
                f"logits_processor {name} returned {given_NV.dtype} of shape {given_NV.shape}. "
                f"Return floating-point scores of shape {scores_NV.shape}: one for each row and id."
            )
        if np.isnan(given_NV).any():
            raise InputError(f"logits_processor {name} returned NaN, which is no score. Forbid an id with -inf.")
        return given_NV.astype(scores_NV.dtype, copy=False)

    return apply
