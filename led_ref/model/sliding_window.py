r"""Attention through a sliding window: what makes LED's encoder linear in the length of the document.

A local token at position i sees its neighbours and the global tokens, each once, in one softmax (paper section 3.1;
checkpoint keys `...longformer_self_attn.query / key / value`):

    seen(i)   = { j : |i - j| <= R, j local }  and every global j
    out_i     = sum_j softmax_j(q_i . k_j / sqrt K) v_j      over j in seen(i)

Computed block by block (masks.py): Q queries against the S <= Q + 2R keys around them, with the G global keys as leading
columns of the same tile. Time grows with T (Q + 2R + G), and one tile of Q (G + S) numbers for each thread is all the
memory it takes; the T x T matrix is never formed.

    one tile:   global keys G | keys in reach S
               +--------------+--------------------------+
      Q rows   |  all seen    |  \  band of width 2R+1 \  |
               +--------------+--------------------------+

A query, key and value are three views of a token, each a linear map of it: what it looks for, what it offers to be found
by, and what it gives. With one head of width 2 and a query [1, 0] (already divided by sqrt K) that sees three keys:

    >>> import numpy as np
    >>> k_SK, v_SK = np.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]), np.array([[10.0, 0.0], [0.0, 10.0], [4.0, 4.0]])
    >>> scores_S = k_SK @ np.array([1.0, 0.0])
    >>> probs_S = np.exp(scores_S) / np.exp(scores_S).sum()
    >>> probs_S.round(3).tolist(), (probs_S @ v_SK).round(2).tolist()
    ([0.665, 0.09, 0.245], [7.63, 1.88])

What is not here: the rows of global tokens (global_attention.py overwrites them) and padding to a multiple of the window
(there is none: the last block is just shorter).
"""

from collections.abc import Sequence

from led_backends.contract import Array, Backend
from led_ref.model.masks import Block, DocumentMask


def sliding_window_attention(
    q_HTK: Array, k_HTK: Array, v_HTK: Array, mask: DocumentMask, blocks: Sequence[Block], backend: Backend
) -> Array:
    """Attention of the local tokens of one document to their neighbours and the global tokens.

    Args:
        q_HTK: queries, already divided by sqrt(K).
        k_HTK: keys of all tokens, the global ones too, by the local projection.
        v_HTK: values, likewise.
        mask: of the document.
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

    def one_tile(h: slice, block: Block) -> Array:
        k_hZK = with_globals(k_HGK[h], k_HTK[h], block, backend)
        scores_hQZ = backend.scores(q_HTK[h, block.start : block.stop], k_hZK)
        del k_hZK  # free the keys before allocating the values
        v_hZK = with_globals(v_HGK[h], v_HTK[h], block, backend)
        return backend.band_attend(scores_hQZ, v_hZK, len(globals_G), block.band)

    def attend(h: slice) -> None:
        for block in blocks:  # a tile is freed when its function returns: one at a time is allocated
            out_THK[block.start : block.stop, h] = one_tile(h, block).swapaxes(0, 1)

    backend.for_each_tile(attend, heads)
    out_THK[backend.to_device((~mask.local_T).nonzero()[0])] = 0
    out_TD: Array = out_THK.reshape(length, heads * width)
    return out_TD


def with_globals(x_hGK: Array, x_hTK: Array, block: Block, backend: Backend) -> Array:
    """The keys (or values) of one tile, global ones first, side by side in memory: (h, G + S, K).

    h is however many heads the backend takes at a time; the formula is the same for each.
    """
    x_hSK = x_hTK[:, block.low : block.high]
    if not x_hGK.shape[1]:
        return x_hSK
    x_hZK: Array = backend.xp.concatenate([x_hGK, x_hSK], axis=1)
    return x_hZK
