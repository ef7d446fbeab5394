r"""Attention through a sliding window: what makes LED's encoder linear in the length of the document.

A local token at position i sees its neighbours and the global tokens, each once, in one softmax (paper section 3.1;
checkpoint keys `...longformer_self_attn.query / key / value`):

    seen(i)   = { j : |i - j| <= R, j local }  and every global j
    out_i     = sum_j softmax_j(q_i . k_j / sqrt K) v_j      over j in seen(i)

Computed block by block (masks.py): Q queries against the S <= Q + 2R keys around them, with the G global keys as leading
columns of the same tile. One tile per head and block is all that ever exists: time and memory grow with T (Q + 2R), and
the T x T matrix is never formed.

    one tile:   global keys G | keys in reach S
               +--------------+--------------------------+
      Q rows   |  all seen    |  \  band of width 2R+1 \  |
               +--------------+--------------------------+

What is not here: the rows of global tokens (global_attention.py overwrites them) and padding to a multiple of the window
(there is none: the last block is just shorter).
"""

from collections.abc import Sequence

from led_backends.contract import Array, Backend
from led_ref.model.masks import Block, DocumentMask


def sliding_window_attention(
    q_HTK: Array, k_HTK: Array, v_HTK: Array, mask: DocumentMask, blocks: Sequence[Block], backend: Backend
) -> Array:
    """What each local token of one document takes from those it sees.

    Args:
        q_HTK: queries, already divided by sqrt(K).
        k_HTK: keys of all tokens, by the local projection (global tokens' too).
        v_HTK: values, likewise.
        mask: what each token is.
        blocks: the document's blocks for this layer's radius (masks.window_blocks).
        backend: where to compute.

    Returns:
        (T, D), heads side by side. Rows of masked and of global tokens are zero.
    """
    xp = backend.xp
    heads, length, width = q_HTK.shape
    out_THK = xp.zeros((length, heads, width), dtype=q_HTK.dtype)
    globals_G = backend.to_device(mask.global_positions_G)
    k_HGK, v_HGK = k_HTK[:, globals_G], v_HTK[:, globals_G]

    def attend(h: slice) -> None:
        for block in blocks:
            probs_hQZ = backend.softmax(tile_scores(q_HTK[h], k_HTK[h], k_HGK[h], block, backend))
            out_hQK = probs_hQZ[:, :, len(globals_G) :] @ v_HTK[h, block.low : block.high]
            if len(globals_G):
                out_hQK += probs_hQZ[:, :, : len(globals_G)] @ v_HGK[h]
            out_THK[block.start : block.stop, h] = out_hQK.swapaxes(0, 1)

    backend.for_each_tile(attend, heads)
    out_THK[backend.to_device(~mask.local_T)] = 0
    out_TD: Array = out_THK.reshape(length, heads * width)
    return out_TD


def tile_scores(q_hTK: Array, k_hTK: Array, k_hGK: Array, block: Block, backend: Backend) -> Array:
    """The scores of one tile: (h, Q, G + S), global keys first, minus infinity where a query may not look.

    h is however many heads the backend takes at a time; the formula is the same for each.
    """
    xp = backend.xp
    globals_ = k_hGK.shape[1]
    q_hQK = q_hTK[:, block.start : block.stop]
    k_hSK = k_hTK[:, block.low : block.high]
    scores_hQZ: Array = xp.empty((len(q_hQK), q_hQK.shape[1], globals_ + k_hSK.shape[1]), dtype=q_hTK.dtype)
    scores_hQZ[:, :, :globals_] = q_hQK @ k_hGK.swapaxes(-1, -2)
    scores_hQS = scores_hQZ[:, :, globals_:]
    xp.matmul(q_hQK, k_hSK.swapaxes(-1, -2), out=scores_hQS)
    for columns, may_look in block.hidden:
        backend.hide(scores_hQS[:, :, columns], may_look)
    return scores_hQZ


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
