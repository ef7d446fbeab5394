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

The backward pass takes the same tiles. A tile has all keys of its queries, so the softmax is whole: it is computed again, and
neither probabilities nor their sums are kept. With `d` for the gradient of the loss with respect to what follows it:

    dv += p.T dout      dp = dout v.T      ds = p (dp - sum(p dp))      dq = ds k      dk += ds.T q

Neighbouring tiles share keys, so dk and dv are added up, tile after tile, in one order.

What is not here: the rows of global tokens (global_attention.py overwrites them) and padding to a multiple of the window
(there is none: the last block is just shorter).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from led_backends.contract import Array, Backend
from led_ref.model.dropout import Site, Tile
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
    globals_G = backend.to_device(mask.global_positions_G)
    if blocks:  # a backend may have all of it in one operation
        at_once_THK = backend.window_attend(q_HTK, k_HTK, v_HTK, globals_G, mask.local_T, blocks[0].band.radius)
        if at_once_THK is not None:
            return at_once_THK.reshape(length, heads * width)
    out_THK = xp.zeros((length, heads, width), dtype=q_HTK.dtype)
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


@dataclass(frozen=True)
class Window:
    """How the local tokens of one document look, in training: their mask and blocks, and what is dropped."""

    mask: DocumentMask
    blocks: Sequence[Block]
    dropped: Site  # attention_dropout
    document: int  # its place in the batch


def sliding_window_attention_with_dropout(
    q_HTK: Array, k_HTK: Array, v_HTK: Array, window: Window, backend: Backend
) -> Array:
    """`sliding_window_attention` in training: (T, D)."""
    if not window.dropped.rate:
        return sliding_window_attention(q_HTK, k_HTK, v_HTK, window.mask, window.blocks, backend)
    heads, length, width = q_HTK.shape
    out_THK = backend.xp.zeros((length, heads, width), dtype=q_HTK.dtype)
    globals_G = backend.to_device(window.mask.global_positions_G)
    k_HGK, v_HGK = k_HTK[:, globals_G], v_HTK[:, globals_G]

    def attend(h: slice) -> None:
        for block in window.blocks:
            probs_hQZ = _probabilities(q_HTK[h], with_globals(k_HGK[h], k_HTK[h], block, backend), block, backend)
            probs_hQZ = _drop(probs_hQZ, window, block, h, backend)
            out_hQK = probs_hQZ @ with_globals(v_HGK[h], v_HTK[h], block, backend)
            out_THK[block.start : block.stop, h] = out_hQK.swapaxes(0, 1)

    backend.for_each_tile(attend, heads)
    out_THK[backend.to_device((~window.mask.local_T).nonzero()[0])] = 0
    out_TD: Array = out_THK.reshape(length, heads * width)
    return out_TD


def sliding_window_attention_backward(
    dout_TD: Array, q_HTK: Array, k_HTK: Array, v_HTK: Array, window: Window, backend: Backend
) -> tuple[Array, Array, Array]:
    """The gradients of q, k and v, heads side by side: (T, D) each.

    Rows of masked and of global tokens were set to zero on the way, so nothing comes back from them. With dropout,
    `out = drop(p) v`, so `dv = drop(p).T dout` and `dp = drop(dout v.T)`, with the same mask.
    """
    xp = backend.xp
    heads, length, width = q_HTK.shape
    dout_TD = dout_TD.copy()
    dout_TD[backend.to_device((~window.mask.local_T).nonzero()[0])] = 0
    dout_HTK = backend.split_heads(dout_TD[None], heads)[0]
    del dout_TD
    dq_THK, dk_THK, dv_THK = (xp.zeros((length, heads, width), dtype=q_HTK.dtype) for _ in range(3))
    globals_G = backend.to_device(window.mask.global_positions_G)
    count = len(globals_G)

    def some_heads(h: slice) -> None:
        q_hTK, k_hTK, v_hTK, dout_hTK = q_HTK[h], k_HTK[h], v_HTK[h], dout_HTK[h]
        k_hGK, v_hGK = k_hTK[:, globals_G], v_hTK[:, globals_G]
        dk_hTK, dv_hTK, dk_hGK, dv_hGK = (xp.zeros(x.shape, dtype=x.dtype) for x in (k_hTK, v_hTK, k_hGK, v_hGK))
        for block in window.blocks:
            queries, keys = slice(block.start, block.stop), slice(block.low, block.high)
            k_hZK, dout_hQK = with_globals(k_hGK, k_hTK, block, backend), dout_hTK[:, queries]
            probs_hQZ = _probabilities(q_hTK, k_hZK, block, backend)
            dv_hZK = _drop(probs_hQZ, window, block, h, backend).swapaxes(1, 2) @ dout_hQK
            dprobs_hQZ = backend.scores(dout_hQK, with_globals(v_hGK, v_hTK, block, backend))
            dprobs_hQZ = _drop(dprobs_hQZ, window, block, h, backend)
            dscores_hQZ = backend.softmax_backward(dprobs_hQZ, probs_hQZ)
            dq_THK[queries, h] = (dscores_hQZ @ k_hZK).swapaxes(0, 1)
            dk_hZK = dscores_hQZ.swapaxes(1, 2) @ q_hTK[:, queries]
            for total_hTK, total_hGK, d_hZK in ((dk_hTK, dk_hGK, dk_hZK), (dv_hTK, dv_hGK, dv_hZK)):
                total_hGK += d_hZK[:, :count]
                total_hTK[:, keys] += d_hZK[:, count:]
        for d_THK, d_hTK, d_hGK in ((dk_THK, dk_hTK, dk_hGK), (dv_THK, dv_hTK, dv_hGK)):
            d_hTK[:, globals_G] += d_hGK
            d_THK[:, h] = d_hTK.swapaxes(0, 1)

    backend.for_each_tile(some_heads, heads)
    dq_TD, dk_TD, dv_TD = (d_THK.reshape(length, heads * width) for d_THK in (dq_THK, dk_THK, dv_THK))
    return dq_TD, dk_TD, dv_TD


def _probabilities(q_hTK: Array, k_hZK: Array, block: Block, backend: Backend) -> Array:
    """The softmax of one tile: (h, Q, G + S)."""
    scores_hQZ = backend.scores(q_hTK[:, block.start : block.stop], k_hZK)
    return backend.band_softmax(scores_hQZ, k_hZK.shape[1] - (block.high - block.low), block.band)


def _drop(probs_hQZ: Array, window: Window, block: Block, h: slice, backend: Backend) -> Array:
    """Dropout of a tile's probabilities. It depends on where they stand in the document, and not on the cut into tiles."""
    if not window.dropped.rate:
        return probs_hQZ
    xp = backend.xp
    keys_Z = xp.concatenate([backend.to_device(window.mask.global_positions_G), xp.arange(block.low, block.high)])
    tile = Tile(window.document, h, xp.arange(block.start, block.stop), keys_Z)
    return window.dropped.drop_probs(probs_hQZ, tile, backend)


def with_globals(x_hGK: Array, x_hTK: Array, block: Block, backend: Backend) -> Array:
    """The keys (or values) of one tile, global ones first, side by side in memory: (h, G + S, K).

    h is however many heads the backend takes at a time; the formula is the same for each.
    """
    x_hSK = x_hTK[:, block.low : block.high]
    if not x_hGK.shape[1]:
        return x_hSK
    x_hZK: Array = backend.xp.concatenate([x_hGK, x_hSK], axis=1)
    return x_hZK
