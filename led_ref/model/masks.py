r"""Attention masks of the encoder, computed once per document on the host, before any layer runs.

A token is masked (by the padding mask), local, or global. transformers writes `attention_mask * (global_attention_mask + 1)`
= 0, 1 or 2; here it is two boolean arrays. A global mark on a masked token is masked, and so is the -1 with which the
tokenizer pads the global mask.

The T x T table of the window is never built. The queries are cut into blocks of Q = 128 in a row, and a block needs just
the keys from R before its first query to R after its last:

    queries of one block       [start ......... stop)
    keys it can reach    [low .............................. high)      S = high - low <= Q + 2R

Within that tile a query sees |i - j| <= R: a band, and two corners that the softmax leaves out. A document of 20 tokens,
R = 3, blocks of 5 queries; the second block, queries 5 ... 9, reaches the keys 2 ... 12:

    >>> from led_backends.numpy_backend import NumpyBackend
    >>> (mask,) = document_masks(np.ones((1, 20), int), None)
    >>> block = window_blocks(mask, 3, NumpyBackend(), queries=5)[1]
    >>> (block.start, block.stop), (block.low, block.high)
    ((5, 10), (2, 13))
    >>> may_look_QS = seen_in_tile(block, NumpyBackend())
    >>> print("\n".join("".join(" #"[s] for s in row) for row in may_look_QS.astype(int)))  # doctest: +NORMALIZE_WHITESPACE
    #######
     #######
      #######
       #######
        #######
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from led_backends.contract import Array, Backend, Band, HostArray


@dataclass(frozen=True)
class DocumentMask:
    """What each of a document's T tokens is, and where its G global tokens stand. All on the host."""

    unmasked_T: HostArray  # bool: not padding
    local_T: HostArray  # bool: seen through the window: unmasked and not global
    global_positions_G: HostArray  # int64, ascending


@dataclass(frozen=True)
class Block:
    """Queries start ... stop - 1, the keys low ... high - 1 that they can reach, and which of these each query sees."""

    start: int
    stop: int
    low: int
    high: int
    band: Band


@dataclass(frozen=True)
class EncoderMasks:
    """The masks of a batch, for layers of one radius."""

    documents: Sequence[DocumentMask]
    blocks: Sequence[Sequence[Block]]  # of each document
    radius: int  # R


def encoder_masks(
    documents: Sequence[DocumentMask], radii: Sequence[int], backend: Backend
) -> tuple[EncoderMasks, ...]:
    """The masks of each layer. Layers of the same radius share them."""
    of_radius = {
        radius: EncoderMasks(documents, [window_blocks(mask, radius, backend) for mask in documents], radius)
        for radius in sorted(set(radii))
    }
    return tuple(of_radius[radius] for radius in radii)


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


def window_blocks(mask: DocumentMask, radius: int, backend: Backend, *, queries: int | None = None) -> Sequence[Block]:
    """The blocks of queries of a document, in order, without those in which no query is local.

    Args:
        mask: what each token is.
        radius: R, how many keys a query sees on each side.
        backend: where the masks will be used.
        queries: Q, how many queries a block has at most; None: what suits the backend. More make the products larger, and
            the corners outside the band (Q x Q of every Q x (Q + 2R) tile) too.
    """
    length = len(mask.local_T)
    blocks = []
    for start in range(0, length, queries or backend.queries_per_block):
        stop = min(start + (queries or backend.queries_per_block), length)
        if not mask.local_T[start:stop].any():
            continue
        low, high = max(0, start - radius), min(length, stop + radius)
        # More keys than are in reach change nothing: the band hides them.
        more = -(len(mask.global_positions_G) + high - low) % backend.columns_multiple
        low = max(0, low - max(0, high + more - length))
        high = min(length, high + more)
        all_local = mask.local_T[low:high].all()
        local_S = None if all_local else backend.to_device(mask.local_T[low:high])
        blocks.append(Block(start, stop, low, high, Band(start - low, radius, local_S)))
    return blocks


def seen_in_tile(block: Block, backend: Backend) -> Array:
    """What a block's band says, spelled out: (Q, S) bool. For pictures; the softmax works from the band itself."""
    xp = backend.xp
    distance_QS = xp.arange(block.start, block.stop)[:, None] - xp.arange(block.low, block.high)
    may_look_QS: Array = abs(distance_QS) <= block.band.radius
    return may_look_QS if block.band.local_S is None else may_look_QS & block.band.local_S
