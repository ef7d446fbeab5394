"""What is only made to be looked at: attention as one array of the whole document, in transformers' layout.

Nothing here takes part in the forward pass. The tiles of sliding_window.py are computed a second time and laid out, for
those who ask for attentions or listen to a trace.
"""

from collections.abc import Sequence

from led_backends.contract import Array, Backend
from led_ref.model.masks import Block, DocumentMask
from led_ref.model.sliding_window import tile_scores


def window_pictures(
    q_BHTK: Array,
    k_BHTK: Array,
    masks: Sequence[DocumentMask],
    blocks: Sequence[Sequence[Block]],
    radius: int,
    backend: Backend,
    *,
    softmaxed: bool,
) -> Array:
    """Local scores or probabilities of the whole batch, (B, H, T, G + 2R + 1): window_picture of each."""
    most_globals = max(len(mask.global_positions_G) for mask in masks)
    pictures_BHTZ: Array = backend.xp.stack(
        [
            window_picture(q_HTK, k_HTK, mask, row, radius, most_globals, backend, softmaxed=softmaxed)
            for q_HTK, k_HTK, mask, row in zip(q_BHTK, k_BHTK, masks, blocks, strict=True)
        ]
    )
    return pictures_BHTZ


def window_picture(
    q_HTK: Array,
    k_HTK: Array,
    mask: DocumentMask,
    blocks: Sequence[Block],
    radius: int,
    most_globals: int,
    backend: Backend,
    *,
    softmaxed: bool,
) -> Array:
    """All of a document's local scores or probabilities in one array, for those who want to see them: (H, T, G + 2R + 1).

    Column g < G is the g-th global token of this document (G = most_globals of the batch); column G + R + (j - i) is key j
    of query i, so that a token's own column is G + R. What is not seen is minus infinity (scores) or 0 (probabilities), and
    so are the rows of masked and of global tokens. This is transformers' layout (LEDEncoderSelfAttention).
    """
    heads, length, _ = q_HTK.shape
    unseen = 0.0 if softmaxed else -backend.xp.inf
    picture_HTZ: Array = backend.xp.empty((heads, length, most_globals + 2 * radius + 1), dtype=q_HTK.dtype)
    picture_HTZ[...] = unseen
    own_globals = len(mask.global_positions_G)
    k_HGK = k_HTK[:, backend.to_device(mask.global_positions_G)]
    for block in blocks:
        tile_HQZ = tile_scores(q_HTK, k_HTK, k_HGK, block, backend)
        if softmaxed:
            tile_HQZ = backend.softmax(tile_HQZ)
        picture_HTZ[:, block.start : block.stop, :own_globals] = tile_HQZ[:, :, :own_globals]
        for i in range(block.start, block.stop):  # each row's band starts one column further right in the tile
            low, high = max(block.low, i - radius), min(block.high, i + radius + 1)
            columns = slice(most_globals + radius + low - i, most_globals + radius + high - i)
            band = slice(own_globals + low - block.low, own_globals + high - block.low)
            picture_HTZ[:, i, columns] = tile_HQZ[:, i - block.start, band]
    picture_HTZ[:, backend.to_device(~mask.local_T)] = unseen
    return picture_HTZ


def together(parts: dict[int, Array], batch: int, filler: Array | float, backend: Backend) -> Array:
    """One array of what documents told of themselves, with room for the most of each axis, and the filler elsewhere."""
    shape = tuple(map(max, zip(*(part.shape for part in parts.values()), strict=True)))
    whole: Array = backend.xp.empty((batch, *shape), dtype=next(iter(parts.values())).dtype)
    whole[...] = filler
    for b, part in parts.items():
        room = tuple(slice(size) for size in part.shape)
        whole[b][room] = part
    return whole
