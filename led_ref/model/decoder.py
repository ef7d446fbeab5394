"""The decoder: what is written so far, looking back at itself and across at the document.

One layer, for every target position (paper section 3; BART's decoder unchanged; checkpoint `led.decoder.layers.i`):

    x = LayerNorm(x + out_proj(self_attention(x)))        each position sees itself and those before it
    x = LayerNorm(x + out_proj(cross_attention(x, e)))    every position sees all unmasked states e of the encoder
    x = LayerNorm(x + fc2(gelu(fc1(x))))

N = B * W rows: each of the B documents has W beams in adjacent rows, and all of them read the document's one copy of keys
and values. With W = 1 this is an ordinary batch.
"""

from dataclasses import dataclass, replace

from led_backends.contract import Array, Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.model.cache import DecoderCache, LayerCache
from led_ref.model.ops import add_and_norm, add_positions, feed_forward, linear, scale_and_split, split_heads
from led_ref.model.params import AttentionParams, DecoderLayerParams, DecoderParams
from led_ref.model.tap import SILENT, Tap


@dataclass(frozen=True)
class DecoderMasks:
    """Who may look at whom in the decoder; None: at everything there is."""

    causal_NUS: Array | None  # bool, (N or 1, U, S): S target positions so far, the new U the last of them
    source_BT: Array | None  # bool, (B, T)


def decoder_masks(
    new: int,
    before: int,
    decoder_attention_mask_NS: HostArray | None,
    attention_mask_BT: HostArray | None,
    backend: Backend,
) -> DecoderMasks:
    """The masks for `new` target positions after `before` others.

    Args:
        new: U, how many positions are computed now.
        before: how many the cache covers already.
        decoder_attention_mask_NS: 1 for target tokens, 0 for padding, over all positions so far; None: no padding.
        attention_mask_BT: 1 for source tokens, 0 for padding; None: no padding.
        backend: where they will be used.
    """
    xp = backend.xp
    causal_NUS = None
    if new > 1:
        causal_NUS = (xp.arange(before, before + new)[:, None] >= xp.arange(before + new))[None]
    if decoder_attention_mask_NS is not None and not decoder_attention_mask_NS.all():
        real_NUS = backend.to_device(decoder_attention_mask_NS == 1)[:, None, :]
        causal_NUS = real_NUS if causal_NUS is None else causal_NUS & real_NUS
    source_BT = None
    if attention_mask_BT is not None and not attention_mask_BT.all():
        source_BT = backend.to_device(attention_mask_BT == 1)
    return DecoderMasks(causal_NUS, source_BT)


def source_memory(
    states_BTD: Array, params: DecoderParams, heads: int, rows: int, backend: Backend, tap: Tap = SILENT
) -> DecoderCache:
    """The cache before the first word: each layer's keys and values of the document, made once; no target position yet.

    Args:
        states_BTD: the encoder's last hidden state.
        params: the decoder's weights.
        heads: H of the decoder.
        rows: N, how many rows will be written.
        backend: where to compute.
        tap: listens at `led.decoder`.
    """
    empty_NH0K = backend.xp.zeros((rows, heads, 0, states_BTD.shape[-1] // heads), dtype=states_BTD.dtype)
    layers = []
    for i, layer in enumerate(params.layers):
        k_BTD = linear(states_BTD, layer.encoder_attn.k_proj, backend)
        tap(f"layers.{i}.encoder_attn.k_proj.output", k_BTD)
        v_BTD = linear(states_BTD, layer.encoder_attn.v_proj, backend)
        tap(f"layers.{i}.encoder_attn.v_proj.output", v_BTD)
        k_BHTK, v_BHTK = split_heads(k_BTD, heads, backend), split_heads(v_BTD, heads, backend)
        tap(f"layers.{i}.encoder_attn.k", k_BHTK)
        tap(f"layers.{i}.encoder_attn.v", v_BHTK)
        layers.append(LayerCache(empty_NH0K, empty_NH0K, k_BHTK, v_BHTK))
    return DecoderCache(tuple(layers), 0, rows, (states_BTD.shape[0], states_BTD.shape[1]))


def decode(
    embeds_NUD: Array,
    cache: DecoderCache,
    params: DecoderParams,
    config: LEDConfig,
    masks: DecoderMasks,
    backend: Backend,
    tap: Tap = SILENT,
) -> tuple[Array, DecoderCache]:
    """Run the decoder over U new target positions, after those that the cache covers.

    Args:
        embeds_NUD: embeddings of the new target tokens, positions not yet added.
        cache: what came before, and the document (source_memory).
        params: the decoder's weights.
        config: sizes.
        masks: who may look at whom (decoder_masks).
        backend: where to compute.
        tap: listens at `led.decoder`.

    Returns:
        The last hidden state, (N, U, D), and the memory for the next step.
    """
    tables = (params.embed_positions, params.layernorm_embedding)
    x_NUD = add_positions(embeds_NUD, *tables, backend, first=cache.length, tap=tap)
    layers = []
    for i, (layer, memory) in enumerate(zip(params.layers, cache.layers, strict=True)):
        heads = config.decoder_attention_heads
        x_NUD, memory = decoder_layer(x_NUD, memory, layer, heads, masks, backend, tap.at(f"layers.{i}"))
        layers.append(memory)
    return x_NUD, replace(cache, layers=tuple(layers), length=cache.length + embeds_NUD.shape[1])


def decoder_layer(
    x_NUD: Array,
    memory: LayerCache,
    params: DecoderLayerParams,
    heads: int,
    masks: DecoderMasks,
    backend: Backend,
    tap: Tap = SILENT,
) -> tuple[Array, LayerCache]:
    """One layer: (N, U, D) -> (N, U, D), and the memory grown by U positions."""
    memory = remember(x_NUD, memory, params.self_attn, heads, backend, tap.at("self_attn"))
    own_k_NHSK, own_v_NHSK = memory.self_k_NHSK, memory.self_v_NHSK
    causal_N1US = None if masks.causal_NUS is None else masks.causal_NUS[:, None]
    update_NUD = attention(
        x_NUD, own_k_NHSK, own_v_NHSK, params.self_attn, heads, causal_N1US, backend, tap.at("self_attn")
    )
    x_NUD = add_and_norm(x_NUD, update_NUD, params.self_attn_layer_norm, backend, tap.at("self_attn_layer_norm"))

    source_B11T = None if masks.source_BT is None else masks.source_BT[:, None, None]
    cross_k_BHTK, cross_v_BHTK = memory.cross_k_BHTK, memory.cross_v_BHTK
    update_NUD = attention(
        x_NUD, cross_k_BHTK, cross_v_BHTK, params.encoder_attn, heads, source_B11T, backend, tap.at("encoder_attn")
    )
    x_NUD = add_and_norm(x_NUD, update_NUD, params.encoder_attn_layer_norm, backend, tap.at("encoder_attn_layer_norm"))

    update_NUD = feed_forward(x_NUD, params.fc1, params.fc2, backend, tap)
    x_NUD = add_and_norm(x_NUD, update_NUD, params.final_layer_norm, backend, tap.at("final_layer_norm"))
    return x_NUD, memory


def remember(
    x_NUD: Array, memory: LayerCache, params: AttentionParams, heads: int, backend: Backend, tap: Tap
) -> LayerCache:
    """The memory with the keys and values of U more target positions behind those that it has."""
    k_NUD = linear(x_NUD, params.k_proj, backend)
    tap("k_proj.output", k_NUD)
    v_NUD = linear(x_NUD, params.v_proj, backend)
    tap("v_proj.output", v_NUD)
    k_NHUK, v_NHUK = split_heads(k_NUD, heads, backend), split_heads(v_NUD, heads, backend)
    k_NHSK = backend.xp.concatenate([memory.self_k_NHSK, k_NHUK], axis=2)
    tap("k", k_NHSK)
    v_NHSK = backend.xp.concatenate([memory.self_v_NHSK, v_NHUK], axis=2)
    tap("v", v_NHSK)
    return replace(memory, self_k_NHSK=k_NHSK, self_v_NHSK=v_NHSK)


def attention(
    x_NUD: Array,
    k_BHSK: Array,
    v_BHSK: Array,
    params: AttentionParams,
    heads: int,
    may_look_B1US: Array | None,
    backend: Backend,
    tap: Tap,
) -> Array:
    """Full attention, `softmax(q k / sqrt K) v`, then the output projection; W = N / B rows share each set of keys.

    For self-attention B = N, so W = 1. For cross-attention the W beams of a document are W times as many queries to the
    same keys: one product reads the keys once for all of them.

    Args:
        x_NUD: where the queries come from.
        k_BHSK: keys.
        v_BHSK: values.
        params: the projections; keys and values are made already.
        heads: H.
        may_look_B1US: which keys each query may see, broadcast over heads; None: all.
        backend: where to compute.
        tap: listens at the module.
    """
    xp = backend.xp
    rows, new, d_model = x_NUD.shape
    documents, _, keys, width = k_BHSK.shape
    beams = rows // documents
    q_NUD = linear(x_NUD, params.q_proj, backend)
    tap("q_proj.output", q_NUD)
    q_NHUK = scale_and_split(q_NUD, heads, backend)
    tap("q", q_NHUK)
    # (B * W, H, U, K) -> (B, H, W * U, K): all queries to a document's keys become the rows of one matrix.
    q_BHQK = q_NHUK.reshape(documents, beams, heads, new, width).swapaxes(1, 2)
    q_BHQK = q_BHQK.reshape(documents, heads, beams * new, width)
    out_BHQK = xp.empty(q_BHQK.shape, dtype=x_NUD.dtype)
    shown = {
        role: xp.empty((documents, heads, beams * new, keys), dtype=x_NUD.dtype)
        for role in ("scores", "probs")
        if tap.wants(role)
    }

    def attend(h: slice) -> None:
        for b in range(documents):
            scores_hQS = q_BHQK[b, h] @ k_BHSK[b, h].swapaxes(-1, -2)
            if may_look_B1US is not None:
                backend.hide(scores_hQS, may_look_B1US[b if len(may_look_B1US) > 1 else 0])
            if "scores" in shown:
                shown["scores"][b, h] = scores_hQS
            probs_hQS = backend.softmax(scores_hQS)
            if "probs" in shown:
                shown["probs"][b, h] = probs_hQS
            out_BHQK[b, h] = probs_hQS @ v_BHSK[b, h]

    backend.for_each_tile(attend, heads)
    for role, values_BHQS in shown.items():
        values_BWHUS = values_BHQS.reshape(documents, heads, beams, new, keys).swapaxes(1, 2)
        tap(role, values_BWHUS.reshape(rows, heads, new, keys))
    out_BWUHK = out_BHQK.reshape(documents, heads, beams, new, width).transpose(0, 2, 3, 1, 4)
    attended_NUD = out_BWUHK.reshape(rows, new, d_model)
    tap("out_proj.input", attended_NUD)
    update_NUD = linear(attended_NUD, params.out_proj, backend)
    tap("out_proj.output", update_NUD)
    return update_NUD
