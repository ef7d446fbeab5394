"""The encoder: embeddings, then layers of windowed and global attention and a feed-forward, each closed by a LayerNorm.

One layer, for every token (post-norm, as in BART; paper section 3 and appendix; checkpoint `led.encoder.layers.i`):

    x = LayerNorm(x + output(attention(x)))
    x = LayerNorm(x + fc2(activation(fc1(x))))

Attention takes the documents of a batch one at a time: a document's numbers do not depend on what lies beside it.
"""

from collections.abc import Callable, Sequence

from led_backends.contract import Array, Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.model.attention_maps import together, window_pictures
from led_ref.model.global_attention import global_attention
from led_ref.model.intermediates import SILENT, Tap, tap_of_document
from led_ref.model.masks import Block, DocumentMask, document_masks, window_blocks
from led_ref.model.ops import add_and_norm, add_positions, feed_forward, linear, scale_and_split
from led_ref.model.params import EncoderLayerParams, EncoderParams, Linear
from led_ref.model.sliding_window import sliding_window_attention

# Called after each layer with (layers done, layers in all).
Progress = Callable[[int, int], None]


def encode(
    embeds_BTD: Array,
    params: EncoderParams,
    config: LEDConfig,
    attention_mask_BT: HostArray,
    global_attention_mask_BT: HostArray | None,
    backend: Backend,
    *,
    tap: Tap = SILENT,
    progress: Progress | None = None,
) -> Array:
    """Run the encoder over embedded tokens: (B, T, D) -> (B, T, D), the last hidden state.

    Args:
        embeds_BTD: token embeddings, positions not yet added.
        params: the encoder's weights.
        config: sizes; `config.radii` gives each layer's R.
        attention_mask_BT: 1 for tokens, 0 for padding, on the host.
        global_attention_mask_BT: 1 for global tokens, on the host; None: none.
        backend: where to compute.
        tap: listens at `led.encoder`.
        progress: called after each layer.
    """
    masks = document_masks(attention_mask_BT, global_attention_mask_BT)
    blocks_by_radius = {
        radius: [window_blocks(mask, radius, backend) for mask in masks] for radius in sorted(set(config.radii))
    }
    x_BTD = add_positions(embeds_BTD, params.embed_positions, params.layernorm_embedding, backend, tap=tap)
    for i, (layer, radius) in enumerate(zip(params.layers, config.radii, strict=True)):
        heads, blocks = config.encoder_attention_heads, blocks_by_radius[radius]
        x_BTD = encoder_layer(x_BTD, layer, heads, masks, blocks, radius, backend, tap.at(f"layers.{i}"))
        if progress is not None:
            progress(i + 1, config.encoder_layers)
    return x_BTD


def encoder_layer(
    x_BTD: Array,
    params: EncoderLayerParams,
    heads: int,
    masks: Sequence[DocumentMask],
    blocks: Sequence[Sequence[Block]],
    radius: int,
    backend: Backend,
    tap: Tap = SILENT,
) -> Array:
    """One layer: (B, T, D) -> (B, T, D)."""
    attended_BTD = longformer_self_attention(
        x_BTD, params, heads, masks, blocks, radius, backend, tap.at("self_attn.longformer_self_attn")
    )
    update_BTD = linear(attended_BTD, params.output, backend)
    tap("self_attn.output.output", update_BTD)
    x_BTD = add_and_norm(x_BTD, update_BTD, params.self_attn_layer_norm, backend, tap.at("self_attn_layer_norm"))

    update_BTD = feed_forward(x_BTD, params, backend, tap)
    x_BTD = add_and_norm(x_BTD, update_BTD, params.final_layer_norm, backend, tap.at("final_layer_norm"))
    return backend.clamp_overflow(x_BTD)  # in float16 alone


def longformer_self_attention(
    x_BTD: Array,
    params: EncoderLayerParams,
    heads: int,
    masks: Sequence[DocumentMask],
    blocks: Sequence[Sequence[Block]],
    radius: int,
    backend: Backend,
    tap: Tap = SILENT,
) -> Array:
    """Windowed attention of the local tokens and global attention of the global ones, document by document.

    Args:
        x_BTD: the layer's input.
        params: the layer.
        heads: H.
        masks: each document's mask.
        blocks: each document's blocks for this radius.
        radius: R.
        backend: where to compute.
        tap: listens at `led.encoder.layers.i.self_attn.longformer_self_attn`.

    Returns:
        The attention's output, before the output projection: (B, T, D). Masked tokens: zeros.
    """
    # One after the other, so that a projection is gone when the next is made: it stays as its copy by heads.
    q_BHTK = scale_and_split(_project(x_BTD, "query", params.query, backend, tap), heads, backend)
    tap("q", q_BHTK)
    k_BHTK = backend.split_heads(_project(x_BTD, "key", params.key, backend, tap), heads)
    tap("k", k_BHTK)
    v_BHTK = backend.split_heads(_project(x_BTD, "value", params.value, backend, tap), heads)
    tap("v", v_BHTK)

    for role in ("scores", "probs"):
        if tap.wants(role):
            tap(role, window_pictures(q_BHTK, k_BHTK, masks, blocks, radius, backend, softmaxed=role == "probs"))
    out_BTD: Array = backend.xp.empty(x_BTD.shape, dtype=x_BTD.dtype)
    for b, mask in enumerate(masks):
        out_BTD[b] = sliding_window_attention(q_BHTK[b], k_BHTK[b], v_BHTK[b], mask, blocks[b], backend)
    if any(len(mask.global_positions_G) for mask in masks):
        _overwrite_global_rows(out_BTD, x_BTD, params, heads, masks, backend, tap)
    tap("output", out_BTD)
    return out_BTD


def _project(x_BTD: Array, role: str, projection: Linear, backend: Backend, tap: Tap) -> Array:
    y_BTD = linear(x_BTD, projection, backend)
    tap(f"{role}.output", y_BTD)
    return y_BTD


def _overwrite_global_rows(
    out_BTD: Array,
    x_BTD: Array,
    params: EncoderLayerParams,
    heads: int,
    masks: Sequence[DocumentMask],
    backend: Backend,
    tap: Tap,
) -> None:
    """Put what the global tokens take from everywhere into their rows of `out_BTD`."""
    for role, projection in (("key_global.output", params.key_global), ("value_global.output", params.value_global)):
        if tap.wants(role):  # made to be shown: global_attention mostly does without them
            tap(role, linear(x_BTD, projection, backend))
    told: dict[str, dict[int, Array]] = {}
    for b, mask in enumerate(masks):
        if len(mask.global_positions_G):
            out_GD = global_attention(x_BTD[b], params, heads, mask, backend, tap_of_document(b, told, tap))
            out_BTD[b, backend.to_device(mask.global_positions_G)] = out_GD
    # Where a document has fewer global tokens than another: nothing is seen, and the bias is what rows of zeros project to.
    fillers = {"query_global.output": params.query_global.bias, "global_scores": -backend.xp.inf}
    for role, parts in told.items():
        tap(role, together(parts, len(masks), fillers.get(role, 0.0), backend))
