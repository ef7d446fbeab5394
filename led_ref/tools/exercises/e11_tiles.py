"""Cut a document into tiles.

The queries are taken Q at a time; the last block may be shorter. A block of queries [start, stop) needs the keys from R
before its first query to R after its last, within the document. 20 tokens, Q = 5, R = 3; the second block:

    queries 5 ... 9, keys 2 ... 12
"""

from led_ref.tools.exercises.expect import Yours, expect


def tiles(tokens: int, radius: int, queries: int) -> list[tuple[int, int, int, int]]:
    """(start, stop, low, high) of each block: its queries start ... stop - 1, its keys low ... high - 1."""
    found = []
    for start in range(0, tokens, queries):
        stop = min(start + queries, tokens)
        found.append((start, stop, max(0, start - radius), min(tokens, stop + radius)))
    return found


def check_the_example_above(yours: Yours) -> None:
    """20 tokens."""
    wanted = [(0, 5, 0, 8), (5, 10, 2, 13), (10, 15, 7, 18), (15, 20, 12, 20)]
    expect(yours.tiles(20, 3, 5), wanted, "tiles(20, 3, 5)")


def check_a_last_block_that_is_shorter(yours: Yours) -> None:
    """No padding to a multiple of anything."""
    expect(yours.tiles(7, 1, 3), [(0, 3, 0, 4), (3, 6, 2, 7), (6, 7, 5, 7)], "tiles(7, 1, 3)")


def check_the_model_cuts_so(yours: Yours) -> None:
    """Against led_ref/model/masks.py."""
    import numpy as np

    from led_backends.numpy_backend import NumpyBackend
    from led_ref.model.masks import document_masks, window_blocks

    for tokens, radius, queries in ((37, 3, 11), (5, 9, 2), (128, 64, 128), (131, 17, 32)):
        (mask,) = document_masks(np.ones((1, tokens), dtype=int), None)
        blocks = window_blocks(mask, radius, NumpyBackend(), queries=queries)
        wanted = [(block.start, block.stop, block.low, block.high) for block in blocks]
        expect(yours.tiles(tokens, radius, queries), wanted, f"tiles({tokens}, {radius}, {queries})")
