"""From the scores of starts and ends to the best spans of a text: what led_ref.answer does with a model's logits.

A span (i, j) is worth start_i + end_j. There are T x T of them, but an answer is short: with at most L tokens there are
L diagonals of that table, j = i, j = i + 1, ..., and each is one sum of two arrays. So it takes T x L additions and memory for
one diagonal, whatever T is.

    start        0   5   1   0                   the best with L = 2:  (1, 2)  5 + 3
    end          2   0   3   4                   with L = 3:           (1, 3)  5 + 4

This file knows no model and no words, but of a token's characters (`where_answers_may_lie`) where in the text they are.
"""

from collections.abc import Sequence

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import InputError

Span = tuple[int, int]


def best_spans(
    start_T: HostArray,
    end_T: HostArray,
    *,
    may_begin_T: HostArray,
    may_end_T: HostArray,
    longest: int,
    count: int,
) -> list[tuple[Span, float]]:
    """The `count` best spans (i, j), i <= j < i + longest, best first, each with start_i + end_j.

    Of equal ones the one that begins first comes first, then the shorter one.

    Args:
        start_T: floats, how good a start each token is.
        end_T: floats, how good an end; an end is a span's last token.
        may_begin_T: bool, where a span may begin.
        may_end_T: bool, where one may end.
        longest: most tokens of a span.
        count: how many to find; there may be fewer.

    Raises:
        InputError: if a score is not finite.

    Example:
        >>> start, end = np.array([0.0, 5, 1, 0]), np.array([2.0, 0, 3, 4])
        >>> anywhere = np.ones(4, bool)
        >>> best_spans(start, end, may_begin_T=anywhere, may_end_T=anywhere, longest=2, count=2)
        [((1, 2), 8.0), ((1, 1), 5.0)]
    """
    if not (np.isfinite(start_T).all() and np.isfinite(end_T).all()):
        raise InputError(
            "The model's scores hold NaN or infinity, so no span is the best. Compute in float32 or float64."
        )
    start_T = np.where(may_begin_T, start_T, -np.inf)
    end_T = np.where(may_end_T, end_T, -np.inf)
    best: list[tuple[float, int, int]] = []  # (-score, i, j): in this order, the best first
    for more in range(min(longest, len(start_T))):
        scores = start_T[: len(start_T) - more] + end_T[more:]
        least = -best[-1][0] if len(best) == count else -np.inf
        promising = np.flatnonzero((scores >= least) & (scores > -np.inf))
        first = promising[np.argsort(-scores[promising], kind="stable")[:count]]
        best = sorted([*best, *((-float(scores[i]), int(i), int(i) + more) for i in first)])[:count]
    return [((i, j), -worth) for worth, i, j in best]


def where_answers_may_lie(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[HostArray, HostArray]:
    """Which tokens an answer may begin with, and which it may end with: (T,) bool twice.

    A token of white space alone does neither. Of the tokens that share a character (é may be two bytes in two tokens) only
    the first may begin an answer and only the last end one. So two different spans are two different pieces of the text.

    Args:
        text: what the tokens are of.
        offsets: the characters (start, end) of each token, without the spaces before and behind it.

    Example:
        >>> begin, end = where_answers_may_lie("hi é", [(0, 2), (3, 3), (3, 4), (3, 4)])  # hi, a space, two bytes of é
        >>> begin.tolist(), end.tolist()
        ([True, False, True, False], [True, False, False, True])
    """
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    has_text = np.array([bool(text[start:end].strip()) for start, end in offsets], bool)
    shares_with_next = starts[1:] < ends[:-1]
    may_begin, may_end = has_text.copy(), has_text.copy()
    may_begin[1:] &= ~shares_with_next
    may_end[:-1] &= ~shares_with_next
    return may_begin, may_end


def log_softmax(scores_X: HostArray) -> HostArray:
    """`x - log sum exp(x)`: the logarithms of the probabilities."""
    shifted_X = scores_X - scores_X.max()
    result: HostArray = shifted_X - np.log(np.exp(shifted_X).sum())
    return result
