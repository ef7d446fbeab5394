"""The encoder: embeddings, then layers of windowed and global attention and a feed-forward, each closed by a LayerNorm.

One layer, for every token (post-norm, as in BART; paper section 3 and appendix; checkpoint `led.encoder.layers.i`):

    x = LayerNorm(x + output(attention(x)))
    x = LayerNorm(x + fc2(activation(fc1(x))))

Attention takes the documents of a batch one at a time: a document's numbers do not depend on what lies beside it.
"""

from collections.abc import Callable, Sequence

from led_backends.contract import Array, Backend
from led_ref.model.global_attention import global_attention
from led_ref.model.masks import EncoderMasks
from led_ref.model.ops import add_and_norm, add_positions, feed_forward, linear, scale_and_split
from led_ref.model.params import EncoderLayerParams, EncoderParams
from led_ref.model.sliding_window import sliding_window_attention

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
