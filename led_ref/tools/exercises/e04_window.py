"""Attention through a window, for one head.

Token i has a query q[i], a key k[i] and a value v[i], each of head dimension K. It attends to the tokens j with |i - j| <= R:

    score(j)  =  q[i] . k[j] / sqrt(K)
    p(j)      =  exp(score(j)) / the sum of exp(score) over all j that i attends to
    out[i]    =  the sum of p(j) v[j]

Before exp, subtract the largest score: p stays the same, and exp cannot overflow. A loop over i is fine.
"""

import math

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect

Floats = npt.NDArray[np.float64]


def window_attention(q: Floats, k: Floats, v: Floats, radius: int) -> Floats:
    """(T, K) from q, k and v of (T, K)."""
    out = np.empty_like(v)
    for i in range(len(q)):
        seen = slice(max(0, i - radius), i + radius + 1)
        scores = k[seen] @ q[i] / math.sqrt(q.shape[1])
        probs = np.exp(scores - scores.max())
        out[i] = (probs / probs.sum()) @ v[seen]
    return out


def _drawn(tokens: int, width: int) -> tuple[Floats, Floats, Floats]:
    """Queries, keys and values, the same every time."""
    q, k, v = np.random.default_rng(4).normal(size=(3, tokens, width))
    return q, k, v


def check_a_radius_of_zero(yours: Yours) -> None:
    """A token that attends only to itself gets its own value."""
    q, k, v = _drawn(5, 3)
    expect(yours.window_attention(q, k, v, 0), v, "window_attention with radius 0")


def check_equal_scores_are_an_average(yours: Yours) -> None:
    """Queries of zero: every neighbour weighs the same."""
    q, k, v = np.zeros((4, 1)), np.ones((4, 1)), np.array([[0.0], [2.0], [4.0], [9.0]])
    expect(yours.window_attention(q, k, v, 1), [[1.0], [2.0], [5.0], [6.5]], "window_attention of zero queries")


def check_large_scores(yours: Yours) -> None:
    """Scores in the thousands must not overflow."""
    q, k, v = _drawn(7, 5)
    found = np.asarray(yours.window_attention(q * 1e4, k, v, 2))
    expect(bool(np.isfinite(found).all()), True, "whether all numbers are finite for large queries")


def check_the_tiles_give_the_same(yours: Yours) -> None:
    """led_ref's own function, which works block by block, on 37 tokens."""
    from led_backends.numpy_backend import NumpyBackend
    from led_ref.model.masks import document_masks, window_blocks
    from led_ref.model.sliding_window import sliding_window_attention

    q, k, v = _drawn(37, 5)
    backend = NumpyBackend()
    (mask,) = document_masks(np.ones((1, 37), dtype=int), None)
    blocks = window_blocks(mask, 3, backend, queries=11)
    heads = (q[None] / math.sqrt(5), k[None], v[None])
    wanted = sliding_window_attention(*heads, mask, blocks, backend)
    expect(yours.window_attention(q, k, v, 3), wanted, "window_attention of 37 tokens, radius 3")
