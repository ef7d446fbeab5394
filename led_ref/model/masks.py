r"""Who may look at whom in the encoder, worked out once per document on the host, before any layer runs.

A token is masked (padding), local, or global. transformers writes this as `attention_mask * (global_attention_mask + 1)`
= 0, 1 or 2; here it is two boolean arrays. A global mark on a masked token is masked, and so is the -1 with which the
tokenizer pads the global mask.

The window is never built as a T x T picture. The queries are cut into blocks of Q = 128 in a row, and a block needs just
the keys from R before its first query to R after its last:

    queries of one block       [start ......... stop)
    keys it can reach    [low .............................. high)      S = high - low <= Q + 2R

Within that tile a query sees |i - j| <= R: a band, so only the tile's first and last Q columns hold a corner to hide. A
document of 20 tokens, R = 3, blocks of 5 queries; the second block, queries 5 ... 9, reaches the keys 2 ... 12:

    >>> from led_backends.numpy_backend import NumpyBackend
    >>> (mask,) = document_masks(np.ones((1, 20), int), None)
    >>> block = window_blocks(mask, 3, NumpyBackend(), queries=5)[1]
    >>> (block.start, block.stop), (block.low, block.high)
    ((5, 10), (2, 13))
    >>> tile_QS = np.ones((5, 11), int)  # 1: may look
    >>> for columns, may_look in block.hidden:
    ...     tile_QS[:, columns] = may_look
    >>> print("\n".join("".join("# "[1 - seen] for seen in row) for row in tile_QS))  # doctest: +NORMALIZE_WHITESPACE
    #######
     #######
      #######
       #######
        #######
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from led_backends.contract import Array, Backend, HostArray

# Queries in a block. More make the products larger, and the hidden corners (Q x Q of every Q x (Q + 2R) tile) too.
QUERIES_PER_BLOCK = 128


@dataclass(frozen=True)
class DocumentMask:
    """What each of a document's T tokens is, and where its G global tokens stand. All on the host."""

    unmasked_T: HostArray  # bool: not padding
    local_T: HostArray  # bool: seen through the window: unmasked and not global
    global_positions_G: HostArray  # int64, ascending


@dataclass(frozen=True)
class Block:
    """Queries start ... stop - 1 and the keys low ... high - 1 that they can reach.

    `hidden` lists the pieces of the tile that hold something to hide: (columns of the tile, may_look of those columns),
    columns counted from `low`.
    """

    start: int
    stop: int
    low: int
    high: int
    hidden: tuple[tuple[slice, Array], ...]


def document_masks(
    attention_mask_BT: HostArray, global_attention_mask_BT: HostArray | None
) -> tuple[DocumentMask, ...]:
    """The masks of each document of a batch.

    Args:
        attention_mask_BT: 1 for a token, 0 for padding.
        global_attention_mask_BT: 1 for a global token, 0 for a local one, -1 for padding (which masks the token, even if
            attention_mask says 1: 1 * (-1 + 1) = 0); None: no global token.
    """
    unmasked_BT = attention_mask_BT == 1
    if global_attention_mask_BT is None:
        global_BT = np.zeros_like(unmasked_BT)
    else:
        unmasked_BT = unmasked_BT & (global_attention_mask_BT != -1)
        global_BT = unmasked_BT & (global_attention_mask_BT == 1)
    return tuple(
        DocumentMask(unmasked_T, unmasked_T & ~global_T, np.flatnonzero(global_T))
        for unmasked_T, global_T in zip(unmasked_BT, global_BT, strict=True)
    )


def window_blocks(
    mask: DocumentMask, radius: int, backend: Backend, *, queries: int = QUERIES_PER_BLOCK
) -> Sequence[Block]:
    """The blocks of queries of a document, in order, without those in which no query is local.

    Args:
        mask: what each token is.
        radius: R, how many keys a query sees on each side.
        backend: where the masks will be used.
        queries: Q, how many queries a block has at most.
    """
    length = len(mask.local_T)
    blocks = []
    corners: dict[tuple[int, int, int, int], tuple[tuple[slice, Array], ...]] = {}
    for start in range(0, length, queries):
        stop = min(start + queries, length)
        if not mask.local_T[start:stop].any():
            continue
        low, high = max(0, start - radius), min(length, stop + radius)
        if mask.local_T[low:high].all():
            # Every key in reach is local: what is hidden depends on the block's shape alone, and most blocks share one.
            shape = (start - low, stop - low, high - low, radius)
            if shape not in corners:
                corners[shape] = _band_corners(*shape, backend)
            hidden = corners[shape]
        else:
            columns = np.arange(low, high)
            rows = np.arange(start, stop)[:, None]
            may_look_QS = (abs(rows - columns) <= radius) & mask.local_T[low:high]
            hidden = ((slice(0, high - low), backend.to_device(may_look_QS)),)
        blocks.append(Block(start, stop, low, high, hidden))
    return blocks


def _band_corners(first: int, last: int, keys: int, radius: int, backend: Backend) -> tuple[tuple[slice, Array], ...]:
    """The corners of a tile outside the band |i - j| <= R, for queries [first, last) among keys [0, keys)."""
    rows = np.arange(first, last)[:, None]
    pieces = []
    left_end = min(keys, last - 1 - radius)  # columns before it are too far left for the block's last query
    right_start = max(first + radius + 1, left_end, 0)  # columns from it on are too far right for the first query
    for columns in (slice(0, left_end), slice(right_start, keys)):
        if columns.start < columns.stop:
            may_look = abs(rows - np.arange(columns.start, columns.stop)) <= radius
            pieces.append((columns, backend.to_device(may_look)))
    return tuple(pieces)
