"""Beams without copying: a table that says whose past is whose.

The keys of all texts of a document lie in one store, entry behind entry. `entries[w]` lists the entries that are text w's
own past. Two texts have written one word each, entries 0 and 1:

    entries = [[0], [1]]

Now both go on from text 1. Its row is taken twice, and no key moves: [[1], [1]]. Each writes one more word; the new entries
are 2 (text 0's) and 3 (text 1's), as the store has two already: [[1, 2], [1, 3]]. Entry 0 stays, and nobody looks at it.
"""

from collections.abc import Sequence
from typing import Any

from led_ref.tools.exercises.expect import expect


def reorder(entries: Sequence[Sequence[int]], parents: Sequence[int]) -> list[list[int]]:
    """The table in which text w goes on from what was text parents[w]."""
    return [list(entries[parent]) for parent in parents]


def grow(entries: Sequence[Sequence[int]], stored: int) -> list[list[int]]:
    """The table after each text wrote one more word, in turn. `stored`: how many entries there were before."""
    return [[*row, stored + w] for w, row in enumerate(entries)]


def check_the_example_above(yours: Any) -> None:
    """Two texts."""
    taken = yours.reorder([[0], [1]], [1, 1])
    expect(taken, [[1], [1]], "reorder([[0], [1]], [1, 1])")
    expect(yours.grow(taken, 2), [[1, 2], [1, 3]], "grow([[1], [1]], 2)")


def check_what_was_given_is_left_alone(yours: Any) -> None:
    """A table is a value: to grow it makes another one."""
    before = [[0], [1]]
    rows = yours.reorder(before, [1, 1])
    yours.grow(rows, 2)
    expect(before, [[0], [1]], "the table that was given, afterwards,")
    expect(rows, [[1], [1]], "what reorder gave, after grow,")


def check_a_search_of_six_steps(yours: Any) -> None:
    """Against led_ref/model/kv_cache.py, with drawn parents."""
    import numpy as np

    from led_ref.model.kv_cache import DecoderCache

    rng = np.random.default_rng(8)
    cache = DecoderCache((), None, np.zeros((1, 3, 0), np.int64), 0, (1, 5))
    mine: Any = [[], [], []]
    for step in range(6):
        parents = rng.integers(0, 3, size=3)
        cache = cache.reorder(parents).grown((), 1)
        mine = yours.grow(yours.reorder(mine, parents.tolist()), 3 * step)
        expect(mine, cache.entries_BWS[0].tolist(), f"the table after {step + 1} steps")
