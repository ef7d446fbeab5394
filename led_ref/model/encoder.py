"""The encoder: embeddings, then layers of windowed and global attention and a feed-forward, each closed by a LayerNorm.

One layer, for every token (post-norm, as in BART; paper section 3 and appendix; checkpoint `led.encoder.layers.i`):

    x = LayerNorm(x + output(attention(x)))
    x = LayerNorm(x + fc2(gelu(fc1(x))))

Attention takes the documents of a batch one at a time: a document's numbers do not depend on what lies beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from led_backends.contract import Array, Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.model.global_attention import global_attention
from led_ref.model.masks import Block, DocumentMask, document_masks, window_blocks
from led_ref.model.ops import add_and_norm, add_positions, feed_forward, linear, scaled_queries, split_heads
from led_ref.model.outputs import LEDEncoderBaseModelOutput
from led_ref.model.params import EncoderLayerParams, EncoderParams
from led_ref.model.sliding_window import sliding_window_attention, window_probabilities

# Called after each layer with (layers done, layers in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Attended:
    """What a layer's self-attention gives: its output before the output projection, and its probabilities if asked for."""

    out_BTD: Array
    probs_BHTZ: Any = None  # an Array if asked for; Z = G + 2R + 1
    global_probs_BHTG: Any = None  # likewise; (B, H, T, G)


def encode(
    embeds_BTD: Array,
    params: EncoderParams,
    config: LEDConfig,
    attention_mask_BT: HostArray,
    global_attention_mask_BT: HostArray | None,
    backend: Backend,
    *,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    progress: Progress | None = None,
) -> LEDEncoderBaseModelOutput:
    """Run the encoder over embedded tokens.

    Args:
        embeds_BTD: token embeddings, positions not yet added.
        params: the encoder's weights.
        config: sizes; `config.radii` gives each layer's R.
        attention_mask_BT: 1 for tokens, 0 for padding, on the host.
        global_attention_mask_BT: 1 for global tokens, on the host; None: none.
        backend: where to compute.
        output_hidden_states: also return the embeddings and each layer's output.
        output_attentions: also return each layer's probabilities (their layout: sliding_window.window_probabilities).
        progress: called after each layer.
    """
    masks = document_masks(attention_mask_BT, global_attention_mask_BT)
    blocks_by_radius = {
        radius: [window_blocks(mask, radius, backend) for mask in masks] for radius in sorted(set(config.radii))
    }
    x_BTD = add_positions(embeds_BTD, params.embed_positions, params.layernorm_embedding, backend)
    hidden_states = [x_BTD] if output_hidden_states else []
    attended_layers = []
    for i, (layer, radius) in enumerate(zip(params.layers, config.radii, strict=True)):
        x_BTD, attended = encoder_layer(
            x_BTD,
            layer,
            config.encoder_attention_heads,
            masks,
            blocks_by_radius[radius],
            backend,
            radius_to_show=radius if output_attentions else None,
        )
        if output_hidden_states:
            hidden_states.append(x_BTD)
        if output_attentions:
            attended_layers.append(attended)
        if progress is not None:
            progress(i + 1, config.encoder_layers)
    any_global = any(len(mask.global_positions_G) for mask in masks)
    return LEDEncoderBaseModelOutput(
        last_hidden_state=x_BTD,
        hidden_states=tuple(hidden_states) if output_hidden_states else None,
        attentions=tuple(a.probs_BHTZ for a in attended_layers) if output_attentions else None,
        global_attentions=tuple(a.global_probs_BHTG for a in attended_layers)
        if output_attentions and any_global
        else None,
    )


def encoder_layer(
    x_BTD: Array,
    params: EncoderLayerParams,
    heads: int,
    masks: Sequence[DocumentMask],
    blocks: Sequence[Sequence[Block]],
    backend: Backend,
    *,
    radius_to_show: int | None = None,
) -> tuple[Array, Attended]:
    """One layer: (B, T, D) -> (B, T, D)."""
    attended = longformer_self_attention(x_BTD, params, heads, masks, blocks, backend, radius_to_show=radius_to_show)
    update_BTD = linear(attended.out_BTD, params.output, backend)
    x_BTD = add_and_norm(x_BTD, update_BTD, params.self_attn_layer_norm, backend)
    update_BTD = feed_forward(x_BTD, params.fc1, params.fc2, backend)
    return add_and_norm(x_BTD, update_BTD, params.final_layer_norm, backend), attended


def longformer_self_attention(
    x_BTD: Array,
    params: EncoderLayerParams,
    heads: int,
    masks: Sequence[DocumentMask],
    blocks: Sequence[Sequence[Block]],
    backend: Backend,
    *,
    radius_to_show: int | None = None,
) -> Attended:
    """Windowed attention of the local tokens and global attention of the global ones, document by document.

    Args:
        x_BTD: the layer's input.
        params: the layer.
        heads: H.
        masks: each document's mask.
        blocks: each document's blocks for this layer's radius.
        backend: where to compute.
        radius_to_show: this layer's R, if the probabilities are wanted too.

    Returns:
        The attention's output (masked tokens: zeros), and the probabilities if wanted.
    """
    xp = backend.xp
    batch, length, _ = x_BTD.shape
    q_BHTK = scaled_queries(x_BTD, params.query, heads, backend)
    k_BHTK = split_heads(linear(x_BTD, params.key, backend), heads, backend)
    v_BHTK = split_heads(linear(x_BTD, params.value, backend), heads, backend)

    out_BTD = xp.empty(x_BTD.shape, dtype=x_BTD.dtype)
    wanted = radius_to_show is not None
    most_globals = max(len(mask.global_positions_G) for mask in masks)
    probs = []
    global_probs_BHTG = xp.zeros((batch, heads, length, most_globals), dtype=x_BTD.dtype) if wanted else None
    for b, (mask, row_blocks) in enumerate(zip(masks, blocks, strict=True)):
        q_HTK, k_HTK = q_BHTK[b], k_BHTK[b]
        out_BTD[b] = sliding_window_attention(q_HTK, k_HTK, v_BHTK[b], mask, row_blocks, backend)
        if len(mask.global_positions_G):
            out_GD, probs_HGT = global_attention(x_BTD[b], params, heads, mask, backend, want_probs=wanted)
            out_BTD[b, backend.to_device(mask.global_positions_G)] = out_GD
            if global_probs_BHTG is not None and probs_HGT is not None:
                global_probs_BHTG[b, :, :, : probs_HGT.shape[1]] = probs_HGT.swapaxes(-1, -2)
        if radius_to_show is not None:
            probs.append(window_probabilities(q_HTK, k_HTK, mask, row_blocks, radius_to_show, most_globals, backend))
    return Attended(out_BTD, xp.stack(probs) if wanted else None, global_probs_BHTG)
