"""What is only made to be looked at: attention as one array of the whole document, in transformers' layout.

Nothing here takes part in the forward pass. The tiles of sliding_window.py are computed a second time and laid out, for
those who ask for attentions or listen to a trace.
"""

from collections.abc import Sequence

from led_backends.contract import Array, Backend
from led_ref.model.intermediates import Tap
from led_ref.model.masks import Block, DocumentMask, seen_in_tile
from led_ref.model.sliding_window import with_globals


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
        k_HZK = with_globals(k_HGK, k_HTK, block, backend)
        tile_HQZ = q_HTK[:, block.start : block.stop] @ k_HZK.swapaxes(-1, -2)
        backend.hide(tile_HQZ[:, :, own_globals:], seen_in_tile(block, backend))
        if softmaxed:
            tile_HQZ = backend.softmax(tile_HQZ)
        picture_HTZ[:, block.start : block.stop, :own_globals] = tile_HQZ[:, :, :own_globals]
        for i in range(block.start, block.stop):  # each row's band starts one column further right in the tile
            low, high = max(block.low, i - radius), min(block.high, i + radius + 1)
            columns = slice(most_globals + radius + low - i, most_globals + radius + high - i)
            band = slice(own_globals + low - block.low, own_globals + high - block.low)
            picture_HTZ[:, i, columns] = tile_HQZ[:, i - block.start, band]
    picture_HTZ[:, backend.to_device((~mask.local_T).nonzero()[0])] = unseen
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


def tell_attention(
    q_BHQK: Array,
    k_BHSK: Array,
    may_look_BQS: Array | None,
    rows: int,
    entries_NS: Array | None,
    backend: Backend,
    tap: Tap,
) -> None:
    """Tell the scores and probabilities of the decoder's attention as (N, H, U, S), one text a row.

    Args:
        q_BHQK: queries of a document's W texts, U after U.
        k_BHSK: the keys that they share.
        may_look_BQS: which of them each query may see; None: all.
        rows: N.
        entries_NS: which of the keys are a text's own, in the order of positions; None: all S, for cross-attention.
        backend: where to compute.
        tap: what listens.
    """
    if not (tap.wants("scores") or tap.wants("probs")):
        return
    scores_BHQS = q_BHQK @ k_BHSK.swapaxes(-1, -2)
    if may_look_BQS is not None:
        backend.hide(scores_BHQS, may_look_BQS[:, None])
    scores_NHUS = rows_of(scores_BHQS, rows, backend)
    if entries_NS is not None:
        scores_NHUS = backend.xp.stack([scores_NHUS[n][:, :, own_S] for n, own_S in enumerate(entries_NS)])
    tap("scores", scores_NHUS)
    if tap.wants("probs"):
        tap("probs", backend.softmax(scores_NHUS.copy()))


def rows_of(x_BHQX: Array, rows: int, backend: Backend) -> Array:
    """(B, H, W * U, X) -> (B * W, H, U, X): what belongs to each text, out of what belongs to its document."""
    documents, heads, queries, width = x_BHQX.shape
    beams = rows // documents
    x_BWHUX = x_BHQX.reshape(documents, heads, beams, queries // beams, width).swapaxes(1, 2)
    x_NHUX: Array = backend.xp.ascontiguousarray(x_BWHUX).reshape(rows, heads, queries // beams, width)
    return x_NHUX
