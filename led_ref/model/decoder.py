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
from led_ref.model.ops import add_and_norm, add_positions, feed_forward, linear, scaled_queries, split_heads
from led_ref.model.params import AttentionParams, DecoderLayerParams, DecoderParams


@dataclass(frozen=True)
class Decoded:
    """What the decoder gives: its states, the memory for the next step, and what was asked for besides."""

    last_hidden_state_NUD: Array
    cache: DecoderCache
    hidden_states: tuple[Array, ...]
    attentions: tuple[Array, ...]
    cross_attentions: tuple[Array, ...]


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


def source_memory(states_BTD: Array, params: DecoderParams, heads: int, rows: int, backend: Backend) -> DecoderCache:
    """The cache before the first word: each layer's keys and values of the document, made once; no target position yet.

    Args:
        states_BTD: the encoder's last hidden state.
        params: the decoder's weights.
        heads: H of the decoder.
        rows: N, how many rows will be written.
        backend: where to compute.
    """
    empty_NH0K = backend.xp.zeros((rows, heads, 0, states_BTD.shape[-1] // heads), dtype=states_BTD.dtype)
    return DecoderCache(
        tuple(
            LayerCache(
                empty_NH0K,
                empty_NH0K,
                split_heads(linear(states_BTD, layer.encoder_attn.k_proj, backend), heads, backend),
                split_heads(linear(states_BTD, layer.encoder_attn.v_proj, backend), heads, backend),
            )
            for layer in params.layers
        ),
        length=0,
        rows=rows,
        source_shape=(states_BTD.shape[0], states_BTD.shape[1]),
    )


def decode(
    embeds_NUD: Array,
    cache: DecoderCache,
    params: DecoderParams,
    config: LEDConfig,
    masks: DecoderMasks,
    backend: Backend,
    *,
    output_attentions: bool = False,
) -> Decoded:
    """Run the decoder over U new target positions, after those that the cache covers.

    Args:
        embeds_NUD: embeddings of the new target tokens, positions not yet added.
        cache: what came before, and the document (source_memory).
        params: the decoder's weights.
        config: sizes.
        masks: who may look at whom (decoder_masks).
        backend: where to compute.
        output_attentions: also return probabilities: self (N, H, U, S), cross (N, H, U, T) of each layer.
    """
    x_NUD = add_positions(embeds_NUD, params.embed_positions, params.layernorm_embedding, backend, first=cache.length)
    hidden_states, layers, attentions, cross_attentions = [x_NUD], [], [], []
    for layer, memory in zip(params.layers, cache.layers, strict=True):
        x_NUD, memory, probs = decoder_layer(
            x_NUD, memory, layer, config.decoder_attention_heads, masks, backend, output_attentions
        )
        hidden_states.append(x_NUD)
        layers.append(memory)
        if probs is not None:
            attentions.append(probs[0])
            cross_attentions.append(probs[1])
    new_cache = replace(cache, layers=tuple(layers), length=cache.length + embeds_NUD.shape[1])
    return Decoded(x_NUD, new_cache, tuple(hidden_states), tuple(attentions), tuple(cross_attentions))


def decoder_layer(
    x_NUD: Array,
    memory: LayerCache,
    params: DecoderLayerParams,
    heads: int,
    masks: DecoderMasks,
    backend: Backend,
    output_attentions: bool,
) -> tuple[Array, LayerCache, tuple[Array, Array] | None]:
    """One layer: (N, U, D) -> (N, U, D), with the memory grown by U positions, and the two probabilities if wanted."""
    xp = backend.xp
    own = params.self_attn
    memory = LayerCache(
        xp.concatenate([memory.self_k_NHUK, split_heads(linear(x_NUD, own.k_proj, backend), heads, backend)], axis=2),
        xp.concatenate([memory.self_v_NHUK, split_heads(linear(x_NUD, own.v_proj, backend), heads, backend)], axis=2),
        memory.cross_k_BHTK,
        memory.cross_v_BHTK,
    )
    causal_N1US = None if masks.causal_NUS is None else masks.causal_NUS[:, None]
    update_NUD, probs = attention(
        x_NUD, memory.self_k_NHUK, memory.self_v_NHUK, own, heads, causal_N1US, backend, output_attentions
    )
    x_NUD = add_and_norm(x_NUD, update_NUD, params.self_attn_layer_norm, backend)

    source_B11T = None if masks.source_BT is None else masks.source_BT[:, None, None]
    update_NUD, cross_probs = attention(
        x_NUD,
        memory.cross_k_BHTK,
        memory.cross_v_BHTK,
        params.encoder_attn,
        heads,
        source_B11T,
        backend,
        output_attentions,
    )
    x_NUD = add_and_norm(x_NUD, update_NUD, params.encoder_attn_layer_norm, backend)

    update_NUD = feed_forward(x_NUD, params.fc1, params.fc2, backend)
    x_NUD = add_and_norm(x_NUD, update_NUD, params.final_layer_norm, backend)
    return x_NUD, memory, None if probs is None or cross_probs is None else (probs, cross_probs)


def attention(
    x_NUD: Array,
    k_BHSK: Array,
    v_BHSK: Array,
    params: AttentionParams,
    heads: int,
    may_look_B1US: Array | None,
    backend: Backend,
    output_attentions: bool,
) -> tuple[Array, Array | None]:
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
        output_attentions: also return the probabilities, (N, H, U, S).
    """
    xp = backend.xp
    rows, new, d_model = x_NUD.shape
    documents, _, keys, width = k_BHSK.shape
    beams = rows // documents
    q_NHUK = scaled_queries(x_NUD, params.q_proj, heads, backend)
    # (B * W, H, U, K) -> (B, H, W * U, K): all queries to a document's keys become the rows of one matrix.
    q_BHQK = q_NHUK.reshape(documents, beams, heads, new, width).swapaxes(1, 2)
    q_BHQK = q_BHQK.reshape(documents, heads, beams * new, width)
    out_BHQK = xp.empty(q_BHQK.shape, dtype=x_NUD.dtype)
    probs_BHQS = xp.empty((documents, heads, beams * new, keys), dtype=x_NUD.dtype) if output_attentions else None

    def attend(h: slice) -> None:
        for b in range(documents):
            scores_hQS = q_BHQK[b, h] @ k_BHSK[b, h].swapaxes(-1, -2)
            if may_look_B1US is not None:
                backend.hide(scores_hQS, may_look_B1US[b if len(may_look_B1US) > 1 else 0])
            probs_hQS = backend.softmax(scores_hQS)
            out_BHQK[b, h] = probs_hQS @ v_BHSK[b, h]
            if probs_BHQS is not None:
                probs_BHQS[b, h] = probs_hQS

    backend.for_each_tile(attend, heads)
    out_BWUHK = out_BHQK.reshape(documents, heads, beams, new, width).transpose(0, 2, 3, 1, 4)
    update_NUD = linear(out_BWUHK.reshape(rows, new, d_model), params.out_proj, backend)
    if probs_BHQS is None:
        return update_NUD, None
    probs_BWHUS = probs_BHQS.reshape(documents, heads, beams, new, keys).swapaxes(1, 2)
    return update_NUD, probs_BWHUS.reshape(rows, heads, new, keys)
