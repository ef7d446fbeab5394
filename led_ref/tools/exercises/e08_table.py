"""A KV cache for beams, without copying: a table of slots.

The keys of all beams of a document lie in one cache, slot after slot. `entries[w]` lists the slots that hold the past of
beam w. Two beams have generated one token each, in slots 0 and 1:

    entries = [[0], [1]]

Now both beams continue from beam 1. Its row is taken twice, and no key moves: [[1], [1]]. Each beam generates one more token;
the new slots are 2 (of beam 0) and 3 (of beam 1), as the cache holds two slots already: [[1, 2], [1, 3]]. Slot 0 keeps its
key, and no query attends to it.
"""

from collections.abc import Sequence
from typing import Any

from led_ref.tools.exercises.expect import Yours, expect


def reorder(entries: Sequence[Sequence[int]], parents: Sequence[int]) -> list[list[int]]:
    """The table in which beam w continues from the former beam parents[w]."""
    return [list(entries[parent]) for parent in parents]


def grow(entries: Sequence[Sequence[int]], stored: int) -> list[list[int]]:
    """The table after each beam, in turn, generated one more token. `stored`: the number of slots in use before."""
    return [[*row, stored + w] for w, row in enumerate(entries)]


def check_the_example_above(yours: Yours) -> None:
    """Two beams."""
    taken = yours.reorder([[0], [1]], [1, 1])
    expect(taken, [[1], [1]], "reorder([[0], [1]], [1, 1])")
    expect(yours.grow(taken, 2), [[1, 2], [1, 3]], "grow([[1], [1]], 2)")


def check_what_was_given_is_left_alone(yours: Yours) -> None:
    """A table is immutable: growing it makes a new one."""
    before = [[0], [1]]
    rows = yours.reorder(before, [1, 1])
    yours.grow(rows, 2)
    expect(before, [[0], [1]], "the table that was given, afterwards,")
    expect(rows, [[1], [1]], "what reorder gave, after grow,")


def check_a_search_of_six_steps(yours: Yours) -> None:
    """Against led_ref/model/kv_cache.py, with drawn parents."""
    import numpy as np

    from led_ref.model.kv_cache import DecoderCache

    rng = np.random.default_rng(8)
    cache = DecoderCache((), np.zeros((1, 3, 0), np.int64), 0, (1, 5))
    mine: Any = [[], [], []]
    for step in range(6):
        parents = rng.integers(0, 3, size=3)
        cache = cache.reorder(parents).grown((), 1)
        mine = yours.grow(yours.reorder(mine, parents.tolist()), 3 * step)
        expect(mine, cache.slots_BWS[0].tolist(), f"the table after {step + 1} steps")
