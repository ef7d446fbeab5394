r"""Global attention: a few chosen tokens see the whole document, and the whole document sees them.

That everybody sees a global token is part of the sliding window's tile (sliding_window.py). This file is the other half:
the rows of the global tokens themselves, with projections of their own (paper section 3.1; checkpoint keys
`...longformer_self_attn.query_global / key_global / value_global`), one softmax over all unmasked tokens:

    out_g = sum_j softmax_j(q_g . k_j / sqrt K) v_j      k = Wk x + bk,  v = Wv x + bv,  over every unmasked j

Two variants give the same numbers. Projecting every token with Wk and Wv costs 2 T D^2 multiplications for what may be one
query. With few global tokens the matrices are applied to the queries instead (folding.py), which costs 2 G H T D: cheaper
as long as G < K = D / H, the width of a head. That is the rule below.

Backward has the same two variants, and goes up the same lines. In training, probabilities may be dropped.
"""

import math
from dataclasses import dataclass

from led_backends.contract import Array, Backend
from led_ref.model.attention import Seeing, attend, attend_backward, merge_heads
from led_ref.model.dropout import Site, Tile
from led_ref.model.folding import folded_scores, folded_scores_backward, folded_values, folded_values_backward
from led_ref.model.masks import DocumentMask
from led_ref.model.ops import linear, linear_backward, scale_and_split
from led_ref.model.params import EncoderLayerParams, Linear


def global_attention(
    x_TD: Array, params: EncoderLayerParams, heads: int, mask: DocumentMask, backend: Backend
) -> Array:
    """Attention of the global tokens of one document to all unmasked tokens.

    Args:
        x_TD: the layer's input.
        params: the layer; its `*_global` projections are used.
        heads: H.
        mask: of the document; at least one token is global.
        backend: where to compute.

    Returns:
        (G, D), heads side by side.
    """
    positions_G = backend.to_device(mask.global_positions_G)
    may_look_T = None if mask.unmasked_T.all() else backend.to_device(mask.unmasked_T)
    q_GD = linear(x_TD[positions_G], params.query_global, backend)
    q_HGK = scale_and_split(q_GD[None], heads, backend)[0]
    variant = _by_folding if _folds(q_HGK) else _by_projecting
    out_HGK = variant(q_HGK, x_TD, params, may_look_T, backend)
    out_GD: Array = out_HGK.swapaxes(0, 1).reshape(len(positions_G), x_TD.shape[-1])
    return out_GD


def _by_folding(
    q_HGK: Array, x_TD: Array, params: EncoderLayerParams, may_look_T: Array | None, backend: Backend
) -> Array:
    """Few global tokens: `(q Wk) . x` and `Wv (p x)`; no token is projected."""
    scores_HGT = folded_scores(q_HGK, x_TD, params.key_global, backend)
    if may_look_T is not None:
        backend.hide(scores_HGT, may_look_T)
    return folded_values(backend.softmax(scores_HGT), x_TD, params.value_global, backend)


def _by_projecting(
    q_HGK: Array, x_TD: Array, params: EncoderLayerParams, may_look_T: Array | None, backend: Backend
) -> Array:
    """Many global tokens: ordinary attention, with keys and values of every token."""
    heads = len(q_HGK)
    k_HTK = backend.split_heads(linear(x_TD, params.key_global, backend)[None], heads)[0]
    v_HTK = backend.split_heads(linear(x_TD, params.value_global, backend)[None], heads)[0]
    may_look_11T = None if may_look_T is None else may_look_T[None, None]
    out_HGK: Array = backend.attend(q_HGK[None], k_HTK[None], v_HTK[None], may_look_11T)[0]
    return out_HGK


# ---- training ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GlobalRows:
    """How the global tokens of one document look, in training: their mask, and what is dropped."""

    heads: int  # H
    mask: DocumentMask
    dropped: Site  # attention_dropout, another draw than the window's
    document: int  # its place in the batch


def global_attention_with_dropout(x_TD: Array, params: EncoderLayerParams, rows: GlobalRows, backend: Backend) -> Array:
    """`global_attention` in training: (G, D)."""
    if not rows.dropped.rate:
        return global_attention(x_TD, params, rows.heads, rows.mask, backend)
    seeing, q_HGK = _seeing(rows, backend), _queries(x_TD, params, rows, backend)
    if _folds(q_HGK):
        probs_HGT = _drop(_folded_probabilities(q_HGK, x_TD, params, seeing, backend), seeing, backend)
        out_HGK = folded_values(probs_HGT, x_TD, params.value_global, backend)
        # What is left of the p_j does not add up to one, so that the value's bias is not taken once.
        out_HGK += (probs_HGT.sum(-1)[:, :, None] - 1) * params.value_global.bias.reshape(rows.heads, 1, -1)
    else:
        k_1HTK, v_1HTK = _keys_and_values(x_TD, params, rows.heads, backend)
        out_HGK = attend(q_HGK[None], k_1HTK, v_1HTK, seeing, backend)[0]
    out_GD: Array = merge_heads(out_HGK[None])[0]
    return out_GD


def global_attention_backward(
    dout_GD: Array, x_TD: Array, params: EncoderLayerParams, rows: GlobalRows, backend: Backend
) -> tuple[Array, tuple[Linear, Linear, Linear]]:
    """The gradients of x, (T, D), and of query_global, key_global, value_global. A key's bias has none: softmax hides it."""
    positions_G = backend.to_device(rows.mask.global_positions_G)
    seeing, q_HGK = _seeing(rows, backend), _queries(x_TD, params, rows, backend)
    dout_HGK = backend.split_heads(dout_GD[None], rows.heads)[0]
    if _folds(q_HGK):
        probs_HGT = _folded_probabilities(q_HGK, x_TD, params, seeing, backend)
        dprobs_HGT, dx_TD, dvalue = folded_values_backward(
            dout_HGK, _drop(probs_HGT, seeing, backend), x_TD, params.value_global, backend
        )
        dscores_HGT = backend.softmax_backward(_drop(dprobs_HGT, seeing, backend), probs_HGT)
        dq_HGK, more_TD, dkey_DD = folded_scores_backward(dscores_HGT, q_HGK, x_TD, params.key_global, backend)
        dx_TD += more_TD
    else:
        k_1HTK, v_1HTK = _keys_and_values(x_TD, params, rows.heads, backend)
        dq_1HGK, dk_1HTK, dv_1HTK = attend_backward(dout_HGK[None], q_HGK[None], k_1HTK, v_1HTK, seeing, backend)
        dq_HGK = dq_1HGK[0]
        dx_TD, dkey = linear_backward(merge_heads(dk_1HTK)[0], x_TD, params.key_global, backend)
        more_TD, dvalue = linear_backward(merge_heads(dv_1HTK)[0], x_TD, params.value_global, backend)
        dx_TD += more_TD
        dkey_DD = backend.rows(dkey.weight)
    dq_HGK *= dq_HGK.dtype.type(1 / math.sqrt(q_HGK.shape[-1]))
    dx_GD, dquery = linear_backward(merge_heads(dq_HGK[None])[0], x_TD[positions_G], params.query_global, backend)
    dx_TD[positions_G] += dx_GD
    no_bias_D = backend.xp.zeros(params.key_global.bias.shape, dtype=x_TD.dtype)
    return dx_TD, (dquery, Linear(dkey_DD, no_bias_D), dvalue)


def _seeing(rows: GlobalRows, backend: Backend) -> Seeing:
    """All unmasked tokens are seen."""
    unmasked_T = rows.mask.unmasked_T
    may_look_11T = None if unmasked_T.all() else backend.to_device(unmasked_T)[None, None]
    positions_G = backend.to_device(rows.mask.global_positions_G)
    return Seeing(rows.heads, may_look_11T, rows.dropped, rows.document, positions_G)


def _queries(x_TD: Array, params: EncoderLayerParams, rows: GlobalRows, backend: Backend) -> Array:
    """(H, G, K), divided by sqrt(K)."""
    x_GD = x_TD[backend.to_device(rows.mask.global_positions_G)]
    q_1HGK = scale_and_split(linear(x_GD, params.query_global, backend)[None], rows.heads, backend)
    q_HGK: Array = q_1HGK[0]
    return q_HGK


def _folds(q_HGK: Array) -> bool:
    """Fewer global tokens than a head is wide."""
    _, globals_, width = q_HGK.shape
    return int(globals_) < int(width)


def _folded_probabilities(
    q_HGK: Array, x_TD: Array, params: EncoderLayerParams, seeing: Seeing, backend: Backend
) -> Array:
    """(H, G, T)."""
    scores_HGT = folded_scores(q_HGK, x_TD, params.key_global, backend)
    if seeing.mask_BQS is not None:
        backend.hide(scores_HGT, seeing.mask_BQS)
    return backend.softmax(scores_HGT)


def _keys_and_values(x_TD: Array, params: EncoderLayerParams, heads: int, backend: Backend) -> tuple[Array, Array]:
    """(1, H, T, K) each: those of a batch of one."""
    k_1HTK = backend.split_heads(linear(x_TD, params.key_global, backend)[None], heads)
    return k_1HTK, backend.split_heads(linear(x_TD, params.value_global, backend)[None], heads)


def _drop(probs_HGT: Array, seeing: Seeing, backend: Backend) -> Array:
    """Dropout of the probabilities, by the positions of query and key in the document."""
    assert seeing.positions_Q is not None
    keys_T = backend.xp.arange(probs_HGT.shape[2])
    tile = Tile(seeing.document, slice(0, seeing.heads), seeing.positions_Q, keys_T)
    return seeing.dropped.drop_probs(probs_HGT, tile, backend)
