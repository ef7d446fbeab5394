"""The decoder's attention on arrays: every query sees every key that its mask lets through. No cache.

    q = (Wq x + bq) / sqrt(K)      k = Wk y + bk      v = Wv y + bv
    attention(x, y) = out_proj(softmax(q k.T) v)      for each head of width K (checkpoint `led.decoder.layers.i.*_attn`)

Self-attention has y = x and a causal mask, cross-attention has y = the encoder's states and their padding mask. decoder.py
uses the same pieces with a KV cache between them: keys and values of earlier positions are kept, and not computed again.
In training there is no cache: all positions of a target are read at once (teacher forcing), and this file is what runs.

The backward pass goes up the same lines. With p = softmax(q k.T) and `d` for the gradient of the loss with respect to what
follows it:

    dp = dout v.T      ds = p (dp - sum(p dp))      dq = ds k      dk = ds.T q      dv = p.T dout

N = B W rows: the W rows of a document (its beams) are W times as many queries to the same keys.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from led_backends.contract import Array, Backend
from led_ref.model.dropout import NOTHING_DROPPED, Site, Tile
from led_ref.model.ops import linear, linear_backward, scale_and_split
from led_ref.model.params import AttentionParams, Linear


@dataclass(frozen=True)
class Seeing:
    """How an attention looks: with how many heads, at which keys, and which probabilities it drops in training."""

    heads: int  # H
    mask_BQS: Array | None  # bool, True: this query sees this key; broadcasts over B and Q; None: all see all
    dropped: Site = NOTHING_DROPPED
    document: int = 0  # the first document's place in the batch
    positions_Q: Array | None = None  # of the queries; None: 0, 1, 2, ...


@dataclass(frozen=True)
class Attended:
    """What one attention computed on its way, and its backward pass reads."""

    x_NUD: Array
    y_BSD: Array
    q_BHQK: Array
    k_BHSK: Array
    v_BHSK: Array
    attended_NUD: Array  # heads side by side, before the output projection


def attention(
    x_NUD: Array, y_BSD: Array, params: AttentionParams, seeing: Seeing, backend: Backend
) -> tuple[Array, Attended]:
    """Attention from x to y: (N, U, D), and what its backward pass reads.

    Args:
        x_NUD: the queries' sequence.
        y_BSD: the sequence of keys and values; document b is that of rows b W to (b + 1) W.
        params: the four projections.
        seeing: heads and mask; Q = W U.
        backend: where to compute.
    """
    q_BHQK = split_queries(linear(x_NUD, params.q_proj, backend), len(y_BSD), seeing.heads, backend)
    k_BHSK = backend.split_heads(linear(y_BSD, params.k_proj, backend), seeing.heads)
    v_BHSK = backend.split_heads(linear(y_BSD, params.v_proj, backend), seeing.heads)
    attended_NUD = merge_heads(attend(q_BHQK, k_BHSK, v_BHSK, seeing, backend)).reshape(x_NUD.shape)
    update_NUD = linear(attended_NUD, params.out_proj, backend)
    return update_NUD, Attended(x_NUD, y_BSD, q_BHQK, k_BHSK, v_BHSK, attended_NUD)


def attention_backward(
    dupdate_NUD: Array, of: Attended, params: AttentionParams, seeing: Seeing, backend: Backend
) -> tuple[Array, Array, AttentionParams]:
    """The gradients of x, (N, U, D), and y, (B, S, D), and those of the four projections.

    In self-attention x is y, and has the sum of both. Nothing is folded here: keys and values exist.
    """
    dattended_NUD, dout_proj = linear_backward(dupdate_NUD, of.attended_NUD, params.out_proj, backend)
    documents, heads, _, width = of.q_BHQK.shape
    dout_BHQK = backend.split_heads(dattended_NUD.reshape(documents, -1, heads * width), heads)
    dq_BHQK, dk_BHSK, dv_BHSK = attend_backward(dout_BHQK, of.q_BHQK, of.k_BHSK, of.v_BHSK, seeing, backend)
    dq_BHQK *= dq_BHQK.dtype.type(1 / math.sqrt(width))
    dx_NUD, dq_proj = linear_backward(merge_heads(dq_BHQK).reshape(of.x_NUD.shape), of.x_NUD, params.q_proj, backend)
    dy_BSD, dk_proj = linear_backward(merge_heads(dk_BHSK), of.y_BSD, params.k_proj, backend)
    more_BSD, dv_proj = linear_backward(merge_heads(dv_BHSK), of.y_BSD, params.v_proj, backend)
    dy_BSD += more_BSD
    return dx_NUD, dy_BSD, AttentionParams(dq_proj, dk_proj, dv_proj, dout_proj)


# ---- softmax(q k.T) v, with dropout of the probabilities -----------------------------------------------------------------


def attend(q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, seeing: Seeing, backend: Backend) -> Array:
    """`softmax(q k.T) v`: (B, H, Q, K). The backend's own operation, unless probabilities are dropped."""
    if not seeing.dropped.rate:
        return backend.attend(q_BHQK, k_BHSK, v_BHSK, seeing.mask_BQS)
    out_BHQK: Array = backend.xp.empty(q_BHQK.shape, dtype=q_BHQK.dtype)

    def one_tile(b: int, block: slice, h: slice) -> None:
        tile = _tile(b, block, h, k_BHSK.shape[2], seeing, backend)
        probs_hQS = _probabilities(q_BHQK[b, h, block], k_BHSK[b, h], (b, block), seeing, backend)
        out_BHQK[b, h, block] = seeing.dropped.drop_probs(probs_hQS, tile, backend) @ v_BHSK[b, h]

    _for_each_tile(one_tile, q_BHQK.shape, backend)
    return out_BHQK


def attend_backward(
    dout_BHQK: Array, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, seeing: Seeing, backend: Backend
) -> tuple[Array, Array, Array]:
    """The gradients of q, k and v. The probabilities are computed again, a tile of (h, Q, S) at a time.

    With dropout, `out = drop(p) v`: so `dv = drop(p).T dout` and `dp = drop(dout v.T)`, with the same mask.
    """
    if not seeing.dropped.rate:
        return backend.attend_backward(dout_BHQK, q_BHQK, k_BHSK, v_BHSK, seeing.mask_BQS)
    xp = backend.xp
    dq_BHQK = xp.empty(q_BHQK.shape, dtype=q_BHQK.dtype)
    dk_BHSK, dv_BHSK = (xp.zeros(x.shape, dtype=x.dtype) for x in (k_BHSK, v_BHSK))

    def one_tile(b: int, block: slice, h: slice) -> None:
        tile = _tile(b, block, h, k_BHSK.shape[2], seeing, backend)
        q_hQK, k_hSK, v_hSK, dout_hQK = q_BHQK[b, h, block], k_BHSK[b, h], v_BHSK[b, h], dout_BHQK[b, h, block]
        probs_hQS = _probabilities(q_hQK, k_hSK, (b, block), seeing, backend)
        dv_BHSK[b, h] += seeing.dropped.drop_probs(probs_hQS, tile, backend).swapaxes(1, 2) @ dout_hQK
        dprobs_hQS = seeing.dropped.drop_probs(dout_hQK @ v_hSK.swapaxes(1, 2), tile, backend)
        dscores_hQS = backend.softmax_backward(dprobs_hQS, probs_hQS)
        dq_BHQK[b, h, block] = dscores_hQS @ k_hSK
        dk_BHSK[b, h] += dscores_hQS.swapaxes(1, 2) @ q_hQK

    _for_each_tile(one_tile, q_BHQK.shape, backend)
    return dq_BHQK, dk_BHSK, dv_BHSK


def _tile(b: int, block: slice, h: slice, keys: int, seeing: Seeing, backend: Backend) -> Tile:
    """Where the probabilities of a tile stand: its dropout depends on that."""
    xp, positions_Q = backend.xp, seeing.positions_Q
    queries_Q = xp.arange(block.start, block.stop) if positions_Q is None else positions_Q[block]
    return Tile(seeing.document + b, h, queries_Q, xp.arange(keys))


def _probabilities(q_hQK: Array, k_hSK: Array, at: tuple[int, slice], seeing: Seeing, backend: Backend) -> Array:
    """`softmax(q k.T)` of a tile of a document b: (h, Q, S); at: b, and which of its queries these are."""
    scores_hQS = q_hQK @ k_hSK.swapaxes(1, 2)
    if seeing.mask_BQS is not None:
        b, block = at
        mask_QS = seeing.mask_BQS[b if len(seeing.mask_BQS) > 1 else 0]
        backend.hide(scores_hQS, mask_QS[block] if len(mask_QS) > 1 else mask_QS)
    return backend.softmax(scores_hQS)


def _for_each_tile(one_tile: Callable[[int, slice, slice], None], shape: tuple[int, ...], backend: Backend) -> None:
    """Call `one_tile(b, queries, h)` for all of (B, H, Q, K), in blocks of queries.

    Heads may run at the same time. Blocks may not: each adds to the gradients of all keys, and the order decides the bits.
    """
    documents, heads, queries, _ = shape
    for b in range(documents):
        for start in range(0, queries, backend.queries_per_block):
            block = slice(start, min(start + backend.queries_per_block, queries))
            backend.for_each_tile(partial(one_tile, b, block), heads)


# ---- queries of all rows of a document, and their heads ------------------------------------------------------------------


def split_queries(q_NUD: Array, documents: int, heads: int, backend: Backend) -> Array:
    """`q / sqrt(K)` as (B, H, Q, K): all queries to a document's keys as the rows of one matrix, Q = W U. Overwrites q."""
    return scale_and_split(q_NUD.reshape(documents, -1, q_NUD.shape[-1]), heads, backend)


def merge_heads(x_BHQK: Array) -> Array:
    """(B, H, Q, K) -> (B, Q, D): heads side by side again. The inverse of `split_heads`, and so its backward pass."""
    batch, heads, queries, width = x_BHQK.shape
    x_BQD: Array = x_BHQK.swapaxes(1, 2).reshape(batch, queries, heads * width)
    return x_BQD


def merge_and_project(out_BHQK: Array, shape: tuple[int, ...], out_proj: Linear, backend: Backend) -> Array:
    """Heads side by side again, rows as they were, and the output projection: (B, H, Q, K) -> (N, U, D)."""
    return linear(merge_heads(out_BHQK).reshape(shape), out_proj, backend)
