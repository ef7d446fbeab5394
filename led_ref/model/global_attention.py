r"""Global attention: a few chosen tokens see the whole document, and the whole document sees them.

That everybody sees a global token is part of the sliding window's tile (sliding_window.py). This file is the other half:
the rows of the global tokens themselves, with projections of their own (paper section 3.1; checkpoint keys
`...longformer_self_attn.query_global / key_global / value_global`), one softmax over all unmasked tokens:

    out_g = sum_j softmax_j(q_g . k_j / sqrt K) v_j      k = Wk x + bk,  v = Wv x + bv,  over every unmasked j

Two ways to the same numbers. Projecting every token with Wk and Wv costs 2 T D^2 multiplications for what may be one
query. With few global tokens the matrices are applied to the queries instead (folding.py), which costs 2 G H T D: cheaper
as long as G < K = D / H, the width of a head. That is the rule below.
"""

from led_backends.contract import Array, Backend
from led_ref.model.folding import folded_scores, folded_values
from led_ref.model.intermediates import SILENT, Tap
from led_ref.model.masks import DocumentMask
from led_ref.model.ops import linear, scale_and_split
from led_ref.model.params import EncoderLayerParams


def global_attention(
    x_TD: Array,
    params: EncoderLayerParams,
    heads: int,
    mask: DocumentMask,
    backend: Backend,
    tap: Tap = SILENT,
) -> Array:
    """What each global token of one document takes from all unmasked tokens.

    Args:
        x_TD: the layer's input.
        params: the layer; its `*_global` projections are used.
        heads: H.
        mask: what each token is; at least one is global.
        backend: where to compute.
        tap: listens to this one document: scores and probabilities as (H, T, G), which is transformers' layout.

    Returns:
        (G, D), heads side by side.
    """
    positions_G = backend.to_device(mask.global_positions_G)
    may_look_T = None if mask.unmasked_T.all() else backend.to_device(mask.unmasked_T)
    q_GD = linear(x_TD[positions_G], params.query_global, backend)
    tap("query_global.output", q_GD)
    q_HGK = scale_and_split(q_GD[None], heads, backend)[0]
    tap("global_q", q_HGK)
    _, globals_, width = q_HGK.shape
    way = _by_folding if globals_ < width else _by_projecting
    out_HGK = way(q_HGK, x_TD, params, may_look_T, backend, tap)
    out_GD: Array = out_HGK.swapaxes(0, 1).reshape(len(positions_G), x_TD.shape[-1])
    return out_GD


def _by_folding(
    q_HGK: Array, x_TD: Array, params: EncoderLayerParams, may_look_T: Array | None, backend: Backend, tap: Tap
) -> Array:
    """Few global tokens: `(q Wk) . x` and `Wv (p x)`; no token is projected."""
    heads, _, width = q_HGK.shape
    scores_HGT = folded_scores(q_HGK, x_TD, params.key_global, backend)
    if may_look_T is not None:
        backend.hide(scores_HGT, may_look_T)
    if tap.wants("global_scores"):  # what is shown is q . k, with the term that softmax does not see
        key_bias_HK1 = params.key_global.bias.reshape(heads, width, 1)
        tap("global_scores", (scores_HGT + q_HGK @ key_bias_HK1).swapaxes(-1, -2))
    probs_HGT = backend.softmax(scores_HGT)
    tap("global_probs", probs_HGT.swapaxes(-1, -2))
    return folded_values(probs_HGT, x_TD, params.value_global, backend)


def _by_projecting(
    q_HGK: Array, x_TD: Array, params: EncoderLayerParams, may_look_T: Array | None, backend: Backend, tap: Tap
) -> Array:
    """Many global tokens: ordinary attention, with keys and values of every token."""
    heads = len(q_HGK)
    k_HTK = backend.split_heads(linear(x_TD, params.key_global, backend)[None], heads)[0]
    v_HTK = backend.split_heads(linear(x_TD, params.value_global, backend)[None], heads)[0]
    if tap.wants("global_scores") or tap.wants("global_probs"):  # made to be shown
        scores_HGT = q_HGK @ k_HTK.swapaxes(-1, -2)
        if may_look_T is not None:
            backend.hide(scores_HGT, may_look_T)
        tap("global_scores", scores_HGT.swapaxes(-1, -2))
        tap("global_probs", backend.softmax(scores_HGT.copy()).swapaxes(-1, -2))
    may_look_11T = None if may_look_T is None else may_look_T[None, None]
    out_HGK: Array = backend.attend(q_HGK[None], k_HTK[None], v_HTK[None], may_look_11T)[0]
    return out_HGK
