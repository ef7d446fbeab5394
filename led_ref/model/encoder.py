"""The encoder: embeddings, then layers of windowed and global attention and a feed-forward, each closed by a LayerNorm.

One layer, for every token (post-norm, as in BART; paper section 3 and appendix; checkpoint `led.encoder.layers.i`):

    x = LayerNorm(x + output(attention(x)))
    x = LayerNorm(x + fc2(activation(fc1(x))))

Attention takes the documents of a batch one at a time: a document's numbers do not depend on what lies beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from led_backends.contract import Array, Backend
from led_ref.model.dropout import Dropout
from led_ref.model.global_attention import (
    GlobalRows,
    global_attention,
    global_attention_backward,
    global_attention_with_dropout,
)
from led_ref.model.masks import EncoderMasks
from led_ref.model.ops import (
    FedForward,
    add_and_norm,
    add_and_norm_backward,
    add_gradients,
    add_positions,
    feed_forward,
    feed_forward_sublayer,
    feed_forward_sublayer_backward,
    linear,
    linear_backward,
    scale_and_split,
    zeros_like,
)
from led_ref.model.params import EncoderLayerParams, EncoderParams, Linear
from led_ref.model.sliding_window import (
    Window,
    sliding_window_attention,
    sliding_window_attention_backward,
    sliding_window_attention_with_dropout,
)

# Called after each layer with (layers done, layers in all).
LayerProgress = Callable[[int, int], None]


def encode(
    embeds_BTD: Array,
    params: EncoderParams,
    heads: int,
    masks: Sequence[EncoderMasks],
    backend: Backend,
    progress: LayerProgress | None = None,
) -> Array:
    """Run the encoder over embedded tokens: (B, T, D) -> (B, T, D), the last hidden state.

    Args:
        embeds_BTD: token embeddings, without positions.
        params: the encoder's weights.
        heads: H.
        masks: those of each layer (masks.encoder_masks).
        backend: where to compute.
        progress: called after each layer.
    """
    x_BTD = add_positions(embeds_BTD, params.embed_positions, params.layernorm_embedding, backend)
    for i, (layer, masks_of_layer) in enumerate(zip(params.layers, masks, strict=True)):
        x_BTD = encoder_layer(x_BTD, layer, heads, masks_of_layer, backend)
        if progress is not None:
            progress(i + 1, len(params.layers))
    return x_BTD


def encoder_layer(x_BTD: Array, params: EncoderLayerParams, heads: int, masks: EncoderMasks, backend: Backend) -> Array:
    """One layer: (B, T, D) -> (B, T, D)."""
    attended_BTD = longformer_self_attention(x_BTD, params, heads, masks, backend)
    update_BTD = linear(attended_BTD, params.output, backend)
    x_BTD = add_and_norm(x_BTD, update_BTD, params.self_attn_layer_norm, backend)

    update_BTD = feed_forward(x_BTD, params, backend)
    x_BTD = add_and_norm(x_BTD, update_BTD, params.final_layer_norm, backend)
    return backend.clamp_overflow(x_BTD)  # float16 only


def longformer_self_attention(
    x_BTD: Array, params: EncoderLayerParams, heads: int, masks: EncoderMasks, backend: Backend
) -> Array:
    """Windowed attention of the local tokens and global attention of the global ones, document by document.

    Args:
        x_BTD: the layer's input.
        params: the layer.
        heads: H.
        masks: of the batch, for the layer's radius.
        backend: where to compute.

    Returns:
        The attention's output, before the output projection: (B, T, D). Masked tokens: zeros.
    """
    # One projection after the other, so that only its copy by heads stays in memory when the next is computed.
    q_BHTK = scale_and_split(linear(x_BTD, params.query, backend), heads, backend)
    k_BHTK = backend.split_heads(linear(x_BTD, params.key, backend), heads)
    v_BHTK = backend.split_heads(linear(x_BTD, params.value, backend), heads)

    out_BTD: Array = backend.xp.empty(x_BTD.shape, dtype=x_BTD.dtype)
    for b, (mask, blocks) in enumerate(zip(masks.documents, masks.blocks, strict=True)):
        out_BTD[b] = sliding_window_attention(q_BHTK[b], k_BHTK[b], v_BHTK[b], mask, blocks, backend)
    for b, mask in enumerate(masks.documents):
        if len(mask.global_positions_G):  # their rows are overwritten
            out_GD = global_attention(x_BTD[b], params, heads, mask, backend)
            out_BTD[b, backend.to_device(mask.global_positions_G)] = out_GD
    return out_BTD


# ---- training: with dropout, and the backward pass ---------------------------------------------------------------------


@dataclass(frozen=True)
class LayerSeeing:
    """What a layer reads beside its input in training: how it looks, and what it drops."""

    heads: int  # H
    masks: EncoderMasks
    dropout: Dropout  # at this layer

    def window(self, b: int) -> Window:
        """Of the local tokens of a document."""
        return Window(self.masks.documents[b], self.masks.blocks[b], self.dropout.attention("self_attn.probs"), b)

    def global_rows(self, b: int) -> GlobalRows:
        """Of its global tokens."""
        dropped = self.dropout.attention("self_attn.global_probs")
        return GlobalRows(self.heads, self.masks.documents[b], dropped, b)


@dataclass(frozen=True)
class EncoderLayerForward:
    """What a layer computes on its way, and its backward pass reads."""

    x_BTD: Array
    q_BHTK: Array
    k_BHTK: Array
    v_BHTK: Array
    attended_BTD: Array
    attention_update_BTD: Array
    middle_BTD: Array
    fed_forward: list[FedForward] = field(default_factory=list)  # empty: computed again


def encoder_layer_with_dropout(
    x_BTD: Array, params: EncoderLayerParams, seeing: LayerSeeing, backend: Backend
) -> Array:
    """`encoder_layer` in training: (B, T, D) -> (B, T, D)."""
    of = _forward(x_BTD, params, seeing, backend)
    return feed_forward_sublayer(of.middle_BTD, params, seeing.dropout, backend)


def encoder_layer_kept(
    x_BTD: Array, params: EncoderLayerParams, seeing: LayerSeeing, backend: Backend
) -> tuple[Array, EncoderLayerForward]:
    """`encoder_layer_with_dropout`, and what it computed: the backward pass takes it in place of x, and computes less."""
    of = _forward(x_BTD, params, seeing, backend)
    return feed_forward_sublayer(of.middle_BTD, params, seeing.dropout, backend, of.fed_forward), of


def encoder_layer_backward(
    dy_BTD: Array,
    x_BTD: Array | EncoderLayerForward,
    params: EncoderLayerParams,
    seeing: LayerSeeing,
    backend: Backend,
) -> tuple[Array, EncoderLayerParams]:
    """The gradients of the layer's input, (B, T, D), and of its weights.

    The layer is computed again from its input, unless what it computed was kept; then this goes up the lines of `_forward`,
    the last one first. A residual connection `x + update` gives its gradient to both; the one of update is dropped out where
    update was.
    """
    of = x_BTD if isinstance(x_BTD, EncoderLayerForward) else _forward(x_BTD, params, seeing, backend)
    dropout = seeing.dropout

    dmiddle_BTD, dfc1, dfc2, dfinal_layer_norm = feed_forward_sublayer_backward(
        dy_BTD, of.middle_BTD, params, dropout, backend, of.fed_forward
    )

    dx_BTD, dself_attn_layer_norm = add_and_norm_backward(
        dmiddle_BTD, of.x_BTD, of.attention_update_BTD, params.self_attn_layer_norm, backend
    )
    dupdate_BTD = dropout.hidden("self_attn.output").drop(dx_BTD, backend)
    dattended_BTD, doutput = linear_backward(dupdate_BTD, of.attended_BTD, params.output, backend)
    del dmiddle_BTD, dupdate_BTD  # what follows is the most that a training holds
    query, key, value, query_global, key_global, value_global = _self_attention_backward(
        dattended_BTD, dx_BTD, of, params, seeing, backend
    )
    gradients = EncoderLayerParams(
        query,
        key,
        value,
        query_global,
        key_global,
        value_global,
        doutput,
        dself_attn_layer_norm,
        dfc1,
        params.activation,
        dfc2,
        dfinal_layer_norm,
    )
    return dx_BTD, gradients


def _forward(x_BTD: Array, params: EncoderLayerParams, seeing: LayerSeeing, backend: Backend) -> EncoderLayerForward:
    """The layer up to its feed-forward: the lines of `encoder_layer` and `longformer_self_attention`, and dropout."""
    dropout, heads = seeing.dropout, seeing.heads
    q_BHTK = scale_and_split(linear(x_BTD, params.query, backend), heads, backend)
    k_BHTK = backend.split_heads(linear(x_BTD, params.key, backend), heads)
    v_BHTK = backend.split_heads(linear(x_BTD, params.value, backend), heads)
    attended_BTD: Array = backend.xp.empty(x_BTD.shape, dtype=x_BTD.dtype)
    for b, mask in enumerate(seeing.masks.documents):
        attended_BTD[b] = sliding_window_attention_with_dropout(
            q_BHTK[b], k_BHTK[b], v_BHTK[b], seeing.window(b), backend
        )
        if len(mask.global_positions_G):
            out_GD = global_attention_with_dropout(x_BTD[b], params, seeing.global_rows(b), backend)
            attended_BTD[b, backend.to_device(mask.global_positions_G)] = out_GD

    update_BTD = linear(attended_BTD, params.output, backend)
    update_BTD = dropout.hidden("self_attn.output").drop(update_BTD, backend)
    middle_BTD = add_and_norm(x_BTD, update_BTD, params.self_attn_layer_norm, backend)
    return EncoderLayerForward(x_BTD, q_BHTK, k_BHTK, v_BHTK, attended_BTD, update_BTD, middle_BTD)


def _self_attention_backward(
    dattended_BTD: Array,
    dx_BTD: Array,
    of: EncoderLayerForward,
    params: EncoderLayerParams,
    seeing: LayerSeeing,
    backend: Backend,
) -> list[Linear]:
    """The gradients of query, key, value, query_global, key_global, value_global. That of the input is added to dx.

    Each is a sum over documents, in their order. Without a global token the global ones are zeros.
    """
    maps = (params.query, params.key, params.value)
    gradients = [
        zeros_like(map_, backend) for map_ in (*maps, params.query_global, params.key_global, params.value_global)
    ]
    for b, mask in enumerate(seeing.masks.documents):
        dq_TD, dk_TD, dv_TD = sliding_window_attention_backward(
            dattended_BTD[b], of.q_BHTK[b], of.k_BHTK[b], of.v_BHTK[b], seeing.window(b), backend
        )
        dq_TD *= dq_TD.dtype.type(1 / math.sqrt(of.q_BHTK.shape[-1]))
        for d_TD, map_, total in zip((dq_TD, dk_TD, dv_TD), maps, gradients, strict=False):
            linear_backward(d_TD, of.x_BTD[b], map_, backend, dx=dx_BTD[b], dparams=total)
        del d_TD, dq_TD, dk_TD, dv_TD
        if len(mask.global_positions_G):
            dout_GD = dattended_BTD[b, backend.to_device(mask.global_positions_G)]
            dx_TD, of_document = global_attention_backward(dout_GD, of.x_BTD[b], params, seeing.global_rows(b), backend)
            dx_BTD[b] += dx_TD
            for total, more in zip(gradients[3:], of_document, strict=True):
                add_gradients(total, more)
    gradients[1].bias[...] = 0  # the key's: softmax does not see it
    return gradients
