"""The decoder: autoregressive, it attends to its own prefix and, through cross-attention, to the document.

One layer, for every target position (paper section 3; BART's decoder unchanged; checkpoint `led.decoder.layers.i`):

    x = LayerNorm(x + out_proj(self_attention(x)))        causal: each position sees itself and those before it
    x = LayerNorm(x + out_proj(cross_attention(x, e)))    every position sees all unmasked states e of the encoder
    x = LayerNorm(x + fc2(gelu(fc1(x))))

Both attentions are those of attention.py, with the KV cache between projection and attention: keys and values of earlier
positions, and of the document, are computed once (kv_cache.py). In training all positions of the right target are read at
once (teacher forcing), without a cache; that layer, and its backward pass, are at the end of this file.

N = B * W rows: each of the B documents has W adjacent rows, its beams. Their queries attend to the document's one copy of
keys and values in cross-attention, and in self-attention to the buffer that they share, where a mask separates their
prefixes. With W = 1 this is what it is in any batch.
"""

from dataclasses import dataclass, field

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.model.attention import Attended, Seeing, attention, attention_backward, merge_and_project, split_queries
from led_ref.model.dropout import Dropout
from led_ref.model.folding import folded_attention
from led_ref.model.kv_cache import CachePlan, DecoderCache, GrowingBuffer, LayerCache
from led_ref.model.ops import (
    FedForward,
    add_and_norm,
    add_and_norm_backward,
    add_positions,
    by_heads,
    feed_forward,
    feed_forward_sublayer,
    feed_forward_sublayer_backward,
    linear,
)
from led_ref.model.params import AttentionParams, DecoderLayerParams, DecoderParams, LEDParams

# ---- masks ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DecoderMasks:
    """Attention masks of the decoder; None: unmasked. W rows of U positions are W * U = Q queries of a document."""

    own_BQE: Array | None  # bool, (B or 1, Q, E): the causal mask, over the slots of the buffer, the new ones included
    source_B1T: Array | None  # bool, (B, 1, T): the documents' padding mask
    slots_NS: HostArray  # int64: each row's own slots in the order of positions, the new ones included


def decoder_masks(
    new: int,
    cache: DecoderCache,
    decoder_attention_mask_NS: HostArray | None,
    attention_mask_BT: HostArray | None,
    backend: Backend,
) -> DecoderMasks:
    """The masks for `new` more positions of each row.

    Args:
        new: U, the number of positions to compute now.
        cache: the positions before them.
        decoder_attention_mask_NS: 1 for target tokens, 0 for padding, over all positions so far; None: no padding.
        attention_mask_BT: 1 for source tokens, 0 for padding; None: no padding.
        backend: where they will be used.
    """
    slots_BWS = cache.slots_after(new)
    slots_NS = slots_BWS.reshape(cache.rows, -1)
    own_BQE = None
    real_NS = np.ones(slots_NS.shape, bool) if decoder_attention_mask_NS is None else decoder_attention_mask_NS == 1
    if new > 1 or slots_BWS.shape[1] > 1 or not real_NS.all():
        own_BQE = backend.to_device(causal_mask(slots_BWS, real_NS.reshape(slots_BWS.shape), new))
    return DecoderMasks(own_BQE, padding_mask(attention_mask_BT, backend), slots_NS)


def padding_mask(attention_mask_BT: HostArray | None, backend: Backend) -> Array | None:
    """Which tokens of their documents the targets see: (B, 1, T) bool on the device; None: all."""
    if attention_mask_BT is None or attention_mask_BT.all():
        return None
    return backend.to_device(attention_mask_BT == 1)[:, None]


def causal_mask(slots_BWS: HostArray, real_BWS: HostArray, new: int) -> HostArray:
    r"""The slots that each query sees, (B, W * U, E): of its own row, no padding, up to its own position.

    Two rows of a document, two positions each, the last of them new; `x` marks the slots, of four, that a row sees:

        >>> slots = np.array([[[0, 2], [1, 3]]])
        >>> seen = causal_mask(slots, np.ones_like(slots, bool), new=1)
        >>> print("\n".join("".join(".x"[s] for s in row) for row in seen[0].astype(int)))
        x.x.
        .x.x
    """
    documents, beams, positions = slots_BWS.shape
    own_BWUE = np.zeros((documents, beams, new, slots_BWS.max() + 1), bool)
    u = np.arange(new)[:, None]
    real_BWUS = real_BWS[:, :, None] & (np.arange(positions) <= positions - new + u)
    np.put_along_axis(own_BWUE, np.broadcast_to(slots_BWS[:, :, None], real_BWUS.shape), real_BWUS, axis=3)
    return own_BWUE.reshape(documents, beams * new, -1)


# ---- the stack of layers -------------------------------------------------------------------------------------------------


def source_memory(
    states_BTD: Array, params: DecoderParams, heads: int, plan: CachePlan, backend: Backend
) -> DecoderCache:
    """The cache before the first target position: each layer's keys and values of the document, computed once.

    Args:
        states_BTD: the encoder's last hidden state.
        params: the decoder's weights.
        heads: H of the decoder.
        plan: rows, capacity, and whether cross-attention is folded: then no keys and values are computed.
        backend: where to compute.
    """
    documents, length, d_model = states_BTD.shape
    own_shape = (documents, heads, plan.capacity, d_model // heads)
    queries = plan.rows // documents  # of a document in each step
    layers = []
    for layer in params.layers:
        k_BHTK = v_BHTK = None
        if not plan.folded:  # one after the other: the projection is freed when its copy by heads exists
            k_BHTK = backend.split_heads(linear(states_BTD, layer.encoder_attn.k_proj, backend), heads, queries)
            v_BHTK = backend.split_heads(linear(states_BTD, layer.encoder_attn.v_proj, backend), heads, queries)
        own_k, own_v = (GrowingBuffer(backend.xp.empty(own_shape, dtype=states_BTD.dtype), 0) for _ in "kv")
        layers.append(LayerCache(own_k, own_v, k_BHTK, v_BHTK, states_BTD if plan.folded else None))
    slots_BWS = np.zeros((documents, queries, 0), np.int64)
    return DecoderCache(tuple(layers), slots_BWS, 0, (documents, length))


def decode(
    embeds_NUD: Array,
    cache: DecoderCache,
    params: DecoderParams,
    config: LEDConfig,
    masks: DecoderMasks,
    backend: Backend,
) -> tuple[Array, DecoderCache]:
    """Run the decoder over U new target positions, after those of the cache.

    Args:
        embeds_NUD: embeddings of the new target tokens, without positions.
        cache: earlier positions, and the document (source_memory).
        params: the decoder's weights.
        config: sizes.
        masks: for these positions (decoder_masks).
        backend: where to compute.

    Returns:
        The last hidden state, (N, U, D), and the cache for the next step.
    """
    x_NUD = add_positions(embeds_NUD, params.embed_positions, params.layernorm_embedding, backend, first=cache.length)
    layers = []
    for layer, memory in zip(params.layers, cache.layers, strict=True):
        x_NUD, memory = decoder_layer(x_NUD, memory, layer, config.decoder_attention_heads, masks, backend)
        layers.append(memory)
    return x_NUD, cache.grown(layers, embeds_NUD.shape[1])


def lm_logits(x_NUD: Array, params: LEDParams, backend: Backend) -> Array:
    """`x @ lm_head.T + final_logits_bias`: (N, U, D) -> (N, U, V). The output table is the embedding table, unless untied."""
    return backend.linear(x_NUD, params.lm_head, params.final_logits_bias[0])


def decoder_layer(
    x_NUD: Array, memory: LayerCache, params: DecoderLayerParams, heads: int, masks: DecoderMasks, backend: Backend
) -> tuple[Array, LayerCache]:
    """One layer: (N, U, D) -> (N, U, D), and its cache with U more positions."""
    update_NUD, memory = self_attention(x_NUD, memory, params.self_attn, heads, masks, backend)
    x_NUD = add_and_norm(x_NUD, update_NUD, params.self_attn_layer_norm, backend)

    update_NUD = cross_attention(x_NUD, memory, params.encoder_attn, heads, masks, backend)
    x_NUD = add_and_norm(x_NUD, update_NUD, params.encoder_attn_layer_norm, backend)

    update_NUD = feed_forward(x_NUD, params, backend)
    return add_and_norm(x_NUD, update_NUD, params.final_layer_norm, backend), memory


def self_attention(
    x_NUD: Array, memory: LayerCache, params: AttentionParams, heads: int, masks: DecoderMasks, backend: Backend
) -> tuple[Array, LayerCache]:
    """Every position attends to itself and to the positions of its own row before it: (N, U, D), and the cache after it."""
    maps = [(linear_map.weight, linear_map.bias) for linear_map in (params.q_proj, params.k_proj, params.v_proj)]
    q_NUD, k_NUD, v_NUD = backend.linears(x_NUD, maps)
    grown = []
    for before, new_NUD in ((memory.self_k, k_NUD), (memory.self_v, v_NUD)):
        # The rows of a document, one after the other.
        new_BQD = new_NUD.reshape(memory.documents, -1, new_NUD.shape[-1])
        grown.append(before.append(by_heads(new_BQD, heads), backend))
    q_BHQK = split_queries(q_NUD, memory.documents, heads, backend)
    out_BHQK = backend.attend(q_BHQK, grown[0].array, grown[1].array, masks.own_BQE)
    memory = LayerCache(grown[0], grown[1], memory.cross_k_BHTK, memory.cross_v_BHTK, memory.states_BTD)
    return merge_and_project(out_BHQK, x_NUD.shape, params.out_proj, backend), memory


def cross_attention(
    x_NUD: Array, memory: LayerCache, params: AttentionParams, heads: int, masks: DecoderMasks, backend: Backend
) -> Array:
    """Every position of every row attends to all unmasked tokens of its document.

    Through the document's cached keys and values, or, if the cache holds none, by folding the projections.
    """
    q_BHQK = split_queries(linear(x_NUD, params.q_proj, backend), memory.documents, heads, backend)
    k_BHTK, v_BHTK, states_BTD = memory.cross_k_BHTK, memory.cross_v_BHTK, memory.states_BTD
    if k_BHTK is not None and v_BHTK is not None:
        out_BHQK = backend.attend(q_BHQK, k_BHTK, v_BHTK, masks.source_B1T)
    else:
        assert states_BTD is not None
        out_BHQK = folded_attention(q_BHQK, states_BTD, params.k_proj, params.v_proj, masks.source_B1T, backend)
    return merge_and_project(out_BHQK, x_NUD.shape, params.out_proj, backend)


# ---- teacher forcing: all positions of a target at once, without a cache -------------------------------------------------


@dataclass(frozen=True)
class TeacherForcing:
    """What all layers of the decoder read in training, beside their input."""

    states_BTD: Array  # the encoder's last hidden state
    source_B1T: Array | None  # bool, (B, 1, T): the documents' padding mask; None: unmasked
    causal_1UU: Array | None  # bool, (1, U, U): each position sees itself and those before it; None: U is 1
    heads: int  # H


def teacher_forcing(
    states_BTD: Array, attention_mask_BT: HostArray, target_length: int, heads: int, backend: Backend
) -> TeacherForcing:
    """For documents and targets of a batch. Padding behind a target needs no mask: no earlier position sees it.

    Args:
        states_BTD: the encoder's last hidden state.
        attention_mask_BT: 1 for source tokens, 0 for padding, on the host.
        target_length: U.
        heads: H of the decoder.
        backend: where to compute.
    """
    positions_U = backend.xp.arange(target_length)
    causal_1UU = (positions_U[:, None] >= positions_U)[None] if target_length > 1 else None
    return TeacherForcing(states_BTD, padding_mask(attention_mask_BT, backend), causal_1UU, heads)


@dataclass(frozen=True)
class DecoderLayerForward:
    """What a layer computes on its way: inputs of its three sublayers, updates of two, and what its attentions looked like."""

    of_self: Attended
    self_update_BUD: Array
    middle_BUD: Array
    of_cross: Attended
    cross_update_BUD: Array
    last_BUD: Array
    fed_forward: list[FedForward] = field(default_factory=list)  # empty: computed again


def teacher_forced_layer(
    x_BUD: Array, params: DecoderLayerParams, given: TeacherForcing, dropout: Dropout, backend: Backend
) -> Array:
    """`decoder_layer` without a cache and with dropout: (B, U, D) -> (B, U, D).

    Args:
        x_BUD: the layer's input.
        params: the layer.
        given: what it reads beside.
        dropout: at this layer.
        backend: where to compute.
    """
    of = _forward(x_BUD, params, given, dropout, backend)
    return feed_forward_sublayer(of.last_BUD, params, dropout, backend)


def teacher_forced_layer_kept(
    x_BUD: Array, params: DecoderLayerParams, given: TeacherForcing, dropout: Dropout, backend: Backend
) -> tuple[Array, DecoderLayerForward]:
    """`teacher_forced_layer`, and what it computed: the backward pass takes it in place of x, and computes less."""
    of = _forward(x_BUD, params, given, dropout, backend)
    return feed_forward_sublayer(of.last_BUD, params, dropout, backend, of.fed_forward), of


def decoder_layer_backward(
    dy_BUD: Array,
    x_BUD: Array | DecoderLayerForward,
    params: DecoderLayerParams,
    given: TeacherForcing,
    dropout: Dropout,
    backend: Backend,
) -> tuple[Array, Array, DecoderLayerParams]:
    """The gradients of the layer's input, (B, U, D), of the encoder's states, (B, T, D), and of the layer's weights.

    The layer is computed again from its input, unless what it computed was kept; then this goes up the lines of `_forward`,
    the last one first. A residual connection `x + update` gives its gradient to both; the one of update is dropped out where
    update was.
    """
    of = x_BUD if isinstance(x_BUD, DecoderLayerForward) else _forward(x_BUD, params, given, dropout, backend)
    seeing_self, seeing_cross = _seeing(given, dropout)

    dlast_BUD, dfc1, dfc2, dfinal_layer_norm = feed_forward_sublayer_backward(
        dy_BUD, of.last_BUD, params, dropout, backend, of.fed_forward
    )

    dmiddle_BUD, dencoder_attn_layer_norm = add_and_norm_backward(
        dlast_BUD, of.middle_BUD, of.cross_update_BUD, params.encoder_attn_layer_norm, backend
    )
    dupdate_BUD = dropout.hidden("encoder_attn.out_proj").drop(dmiddle_BUD, backend)
    dx_BUD, dstates_BTD, dencoder_attn = attention_backward(
        dupdate_BUD, of.of_cross, params.encoder_attn, seeing_cross, backend
    )
    dmiddle_BUD += dx_BUD

    dinput_BUD, dself_attn_layer_norm = add_and_norm_backward(
        dmiddle_BUD, of.of_self.x_NUD, of.self_update_BUD, params.self_attn_layer_norm, backend
    )
    dupdate_BUD = dropout.hidden("self_attn.out_proj").drop(dinput_BUD, backend)
    dx_BUD, dy_BUD, dself_attn = attention_backward(dupdate_BUD, of.of_self, params.self_attn, seeing_self, backend)
    dinput_BUD += dx_BUD
    dinput_BUD += dy_BUD

    gradients = DecoderLayerParams(
        dself_attn,
        dself_attn_layer_norm,
        dencoder_attn,
        dencoder_attn_layer_norm,
        dfc1,
        params.activation,
        dfc2,
        dfinal_layer_norm,
    )
    return dinput_BUD, dstates_BTD, gradients


def _forward(
    x_BUD: Array, params: DecoderLayerParams, given: TeacherForcing, dropout: Dropout, backend: Backend
) -> DecoderLayerForward:
    """The layer up to its feed-forward."""
    seeing_self, seeing_cross = _seeing(given, dropout)

    self_BUD, of_self = attention(x_BUD, x_BUD, params.self_attn, seeing_self, backend)
    self_BUD = dropout.hidden("self_attn.out_proj").drop(self_BUD, backend)
    middle_BUD = add_and_norm(x_BUD, self_BUD, params.self_attn_layer_norm, backend)

    cross_BUD, of_cross = attention(middle_BUD, given.states_BTD, params.encoder_attn, seeing_cross, backend)
    cross_BUD = dropout.hidden("encoder_attn.out_proj").drop(cross_BUD, backend)
    last_BUD = add_and_norm(middle_BUD, cross_BUD, params.encoder_attn_layer_norm, backend)

    return DecoderLayerForward(of_self, self_BUD, middle_BUD, of_cross, cross_BUD, last_BUD)


def _seeing(given: TeacherForcing, dropout: Dropout) -> tuple[Seeing, Seeing]:
    """How the layer's self-attention and its cross-attention look."""
    return (
        Seeing(given.heads, given.causal_1UU, dropout.attention("self_attn.probs")),
        Seeing(given.heads, given.source_B1T, dropout.attention("encoder_attn.probs")),
    )
