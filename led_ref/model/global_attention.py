r"""Global attention: a few chosen tokens see the whole document, and the whole document sees them.

That everybody sees a global token is part of the sliding window's tile (sliding_window.py). This file is the other half:
the rows of the global tokens themselves, with projections of their own (paper section 3.1; checkpoint keys
`...longformer_self_attn.query_global / key_global / value_global`), one softmax over all unmasked tokens:

    out_g = sum_j softmax_j(q_g . k_j / sqrt K) v_j      k = Wk x + bk,  v = Wv x + bv,  over every unmasked j

Two variants give the same numbers. Projecting every token with Wk and Wv costs 2 T D^2 multiplications for what may be one
query. With few global tokens the matrices are applied to the queries instead (folding.py), which costs 2 G H T D: cheaper
as long as G < K = D / H, the width of a head. That is the rule below.
"""

from led_backends.contract import Array, Backend
from led_ref.model.folding import folded_scores, folded_values
from led_ref.model.masks import DocumentMask
from led_ref.model.ops import linear, scale_and_split
from led_ref.model.params import EncoderLayerParams


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
    _, globals_, width = q_HGK.shape
    variant = _by_folding if globals_ < width else _by_projecting
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
