"""The decoder: what is written so far, looking back at itself and across at the document.

One layer, for every target position (paper section 3; BART's decoder unchanged; checkpoint `led.decoder.layers.i`):

    x = LayerNorm(x + out_proj(self_attention(x)))        each position sees itself and those before it
    x = LayerNorm(x + out_proj(cross_attention(x, e)))    every position sees all unmasked states e of the encoder
    x = LayerNorm(x + fc2(activation(fc1(x))))

N = B * W rows: each of the B documents has W texts in adjacent rows (beams, mostly). They are W times as many queries to the
same keys: to the document's one copy of keys and values in cross-attention, and in self-attention to the one store that
they share, where a mask tells each text its own past from the others'. So both are one operation, and with W = 1 they are
what they are in any batch.
"""

from dataclasses import dataclass, replace

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.model.attention_maps import rows_of, tell_attention
from led_ref.model.folding import folded_attention
from led_ref.model.intermediates import SILENT, Tap
from led_ref.model.kv_cache import FIRST_ROOM, DecoderCache, Growing, LayerCache
from led_ref.model.ops import add_and_norm, add_positions, by_heads, feed_forward, linear, scale_and_split
from led_ref.model.params import AttentionParams, DecoderLayerParams, DecoderParams


@dataclass(frozen=True)
class DecoderMasks:
    """Who may look at whom in the decoder; None: at everything there is. The W texts of U positions are W * U = Q queries."""

    own_BQE: Array | None  # bool, (B or 1, Q, E): the entries of the store, the new ones included
    source_B1T: Array | None  # bool, (B, 1, T)
    entries_NS: HostArray  # int64: each text's own entries in the order of positions, the new ones included


def decoder_masks(
    new: int,
    cache: DecoderCache,
    decoder_attention_mask_NS: HostArray | None,
    attention_mask_BT: HostArray | None,
    backend: Backend,
) -> DecoderMasks:
    """The masks for `new` more positions of each text.

    Args:
        new: U, how many positions are computed now.
        cache: what comes before them.
        decoder_attention_mask_NS: 1 for target tokens, 0 for padding, over all positions so far; None: no padding.
        attention_mask_BT: 1 for source tokens, 0 for padding; None: no padding.
        backend: where they will be used.
    """
    entries_BWS = cache.entries_after(new)
    entries_NS = entries_BWS.reshape(cache.rows, -1)
    own_BQE = source_B1T = None
    real_NS = np.ones(entries_NS.shape, bool) if decoder_attention_mask_NS is None else decoder_attention_mask_NS == 1
    if new > 1 or entries_BWS.shape[1] > 1 or not real_NS.all():
        own_BQE = backend.to_device(_own_past(entries_BWS, real_NS.reshape(entries_BWS.shape), new))
    if attention_mask_BT is not None and not attention_mask_BT.all():
        source_B1T = backend.to_device(attention_mask_BT == 1)[:, None]
    return DecoderMasks(own_BQE, source_B1T, entries_NS)


def _own_past(entries_BWS: HostArray, real_BWS: HostArray, new: int) -> HostArray:
    r"""Which entries each query sees, (B, W * U, E): those of its own text, real ones, up to its own position.

    Two texts of a document, two positions each, the last of them new; `x` is what a text sees of the four entries:

        >>> entries = np.array([[[0, 2], [1, 3]]])
        >>> seen = _own_past(entries, np.ones_like(entries, bool), new=1)
        >>> print("\n".join("".join(".x"[s] for s in row) for row in seen[0].astype(int)))
        x.x.
        .x.x
    """
    documents, beams, positions = entries_BWS.shape
    own_BWUE = np.zeros((documents, beams, new, entries_BWS.max() + 1), bool)
    u = np.arange(new)[:, None]
    real_BWUS = real_BWS[:, :, None] & (np.arange(positions) <= positions - new + u)
    np.put_along_axis(own_BWUE, np.broadcast_to(entries_BWS[:, :, None], real_BWUS.shape), real_BWUS, axis=3)
    return own_BWUE.reshape(documents, beams * new, -1)


def source_memory(
    states_BTD: Array,
    params: DecoderParams,
    heads: int,
    rows: int,
    backend: Backend,
    tap: Tap = SILENT,
    *,
    folded: bool = False,
    room: int = FIRST_ROOM,
) -> DecoderCache:
    """The cache before the first word: each layer's keys and values of the document, made once; no target position yet.

    Args:
        states_BTD: the encoder's last hidden state.
        params: the decoder's weights.
        heads: H of the decoder.
        rows: N, how many rows will be written.
        backend: where to compute.
        tap: listens at `led.decoder`.
        folded: make no keys and values; cross-attention will work from the states (folding.py).
        room: how many entries a document's store of its texts has memory for before it must grow.
    """
    documents, length, d_model = states_BTD.shape
    own_shape = (documents, heads, room, d_model // heads)
    queries = rows // documents  # of a document in each step
    layers = []
    for i, layer in enumerate(params.layers):
        k_BHTK = v_BHTK = None
        inner = tap.at(f"layers.{i}.encoder_attn")
        if not folded or any(inner.wants(role) for role in ("k_proj.output", "v_proj.output", "k", "v")):
            k_BTD = linear(states_BTD, layer.encoder_attn.k_proj, backend)
            inner("k_proj.output", k_BTD)
            k_BHTK = backend.split_heads(k_BTD, heads, queries)
            inner("k", k_BHTK)
            del k_BTD  # or it would be there beside the values
            v_BTD = linear(states_BTD, layer.encoder_attn.v_proj, backend)
            inner("v_proj.output", v_BTD)
            v_BHTK = backend.split_heads(v_BTD, heads, queries)
            inner("v", v_BHTK)
            del v_BTD
        if folded:  # made to be shown, if at all
            k_BHTK = v_BHTK = None
        own_k, own_v = (Growing(backend.xp.empty(own_shape, dtype=states_BTD.dtype), 0) for _ in "kv")
        layers.append(LayerCache(own_k, own_v, k_BHTK, v_BHTK))
    return DecoderCache(
        tuple(layers),
        states_BTD if folded else None,
        np.zeros((documents, rows // documents, 0), np.int64),
        0,
        (documents, length),
    )


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
        heads, states_BTD = config.decoder_attention_heads, cache.states_BTD
        x_NUD, memory = decoder_layer(x_NUD, memory, states_BTD, layer, heads, masks, backend, tap.at(f"layers.{i}"))
        layers.append(memory)
    return x_NUD, cache.grown(tuple(layers), embeds_NUD.shape[1])


def decoder_layer(
    x_NUD: Array,
    memory: LayerCache,
    states_BTD: Array | None,
    params: DecoderLayerParams,
    heads: int,
    masks: DecoderMasks,
    backend: Backend,
    tap: Tap = SILENT,
) -> tuple[Array, LayerCache]:
    """One layer: (N, U, D) -> (N, U, D), and the memory grown by U positions. states_BTD: only if it is to be folded."""
    update_NUD, memory = self_attention(x_NUD, memory, params.self_attn, heads, masks, backend, tap.at("self_attn"))
    x_NUD = add_and_norm(x_NUD, update_NUD, params.self_attn_layer_norm, backend, tap.at("self_attn_layer_norm"))

    inner = tap.at("encoder_attn")
    update_NUD = cross_attention(x_NUD, memory, states_BTD, params.encoder_attn, heads, masks, backend, inner)
    x_NUD = add_and_norm(x_NUD, update_NUD, params.encoder_attn_layer_norm, backend, tap.at("encoder_attn_layer_norm"))

    update_NUD = feed_forward(x_NUD, params, backend, tap)
    x_NUD = add_and_norm(x_NUD, update_NUD, params.final_layer_norm, backend, tap.at("final_layer_norm"))
    return x_NUD, memory


def self_attention(
    x_NUD: Array,
    memory: LayerCache,
    params: AttentionParams,
    heads: int,
    masks: DecoderMasks,
    backend: Backend,
    tap: Tap = SILENT,
) -> tuple[Array, LayerCache]:
    """Every position looks at itself and those of its own text before it: (N, U, D), and the memory with U more of each."""
    maps = [(linear_map.weight, linear_map.bias) for linear_map in (params.q_proj, params.k_proj, params.v_proj)]
    q_NUD, k_NUD, v_NUD = backend.linears(x_NUD, maps)
    tap("k_proj.output", k_NUD)
    tap("v_proj.output", v_NUD)
    documents = len(memory.self_k.room_BHCK)
    grown = []
    for role, before, new_NUD in (("k", memory.self_k, k_NUD), ("v", memory.self_v, v_NUD)):
        new_BQD = new_NUD.reshape(documents, -1, new_NUD.shape[-1])  # the texts of a document, one after the other
        after = before.append(by_heads(new_BQD, heads), backend)
        if tap.wants(role):  # shown text by text, position by position
            tap(role, _own_entries(after.array, masks.entries_NS, backend))
        grown.append(after)
    k_BHEK, v_BHEK = grown[0].array, grown[1].array
    q_BHQK = _queries(q_NUD, documents, heads, backend, tap)
    entries_NS = backend.to_device(masks.entries_NS) if tap.wants("scores") or tap.wants("probs") else None
    tell_attention(q_BHQK, k_BHEK, masks.own_BQE, len(x_NUD), entries_NS, backend, tap)
    out_BHQK = backend.attend(q_BHQK, k_BHEK, v_BHEK, masks.own_BQE)
    return _project_out(out_BHQK, x_NUD.shape, params, backend, tap), replace(memory, self_k=grown[0], self_v=grown[1])


def _own_entries(array_BHEK: Array, entries_NS: HostArray, backend: Backend) -> Array:
    """(N, H, S, K): of each text its own entries, in the order of positions."""
    beams = len(entries_NS) // len(array_BHEK)
    own = [array_BHEK[n // beams][:, backend.to_device(own_S)] for n, own_S in enumerate(entries_NS)]
    own_NHSK: Array = backend.xp.stack(own)
    return own_NHSK


def cross_attention(
    x_NUD: Array,
    memory: LayerCache,
    states_BTD: Array | None,
    params: AttentionParams,
    heads: int,
    masks: DecoderMasks,
    backend: Backend,
    tap: Tap = SILENT,
) -> Array:
    """Every position of every text looks at all unmasked tokens of its document.

    Through the keys and values that were made of them, or, if the memory holds none, by folding the projections.
    """
    documents = len(memory.self_k.room_BHCK)
    q_BHQK = _queries(linear(x_NUD, params.q_proj, backend), documents, heads, backend, tap)
    k_BHTK, v_BHTK = memory.cross_k_BHTK, memory.cross_v_BHTK
    if k_BHTK is not None and v_BHTK is not None:
        tell_attention(q_BHQK, k_BHTK, masks.source_B1T, len(x_NUD), None, backend, tap)
        out_BHQK = backend.attend(q_BHQK, k_BHTK, v_BHTK, masks.source_B1T)
    else:
        assert states_BTD is not None
        if tap.wants("scores") or tap.wants("probs"):
            shown_BHTK = backend.split_heads(linear(states_BTD, params.k_proj, backend), heads)
            tell_attention(q_BHQK, shown_BHTK, masks.source_B1T, len(x_NUD), None, backend, tap)
        out_BHQK = folded_attention(q_BHQK, states_BTD, params.k_proj, params.v_proj, masks.source_B1T, backend)
    return _project_out(out_BHQK, x_NUD.shape, params, backend, tap)


def _queries(q_NUD: Array, documents: int, heads: int, backend: Backend, tap: Tap) -> Array:
    """`(Wq x + bq) / sqrt(K)` as (B, H, Q, K): all queries to a document's keys as the rows of one matrix, Q = W * U."""
    tap("q_proj.output", q_NUD)
    rows = len(q_NUD)
    q_BHQK = scale_and_split(q_NUD.reshape(documents, -1, q_NUD.shape[-1]), heads, backend)
    if tap.wants("q"):
        tap("q", rows_of(q_BHQK, rows, backend))
    return q_BHQK


def _project_out(out_BHQK: Array, shape: tuple[int, ...], params: AttentionParams, backend: Backend, tap: Tap) -> Array:
    """Heads side by side again, rows as they were, and the output projection: (B, H, Q, K) -> (N, U, D)."""
    attended_NUD = out_BHQK.swapaxes(1, 2).reshape(shape)
    tap("out_proj.input", attended_NUD)
    update_NUD = linear(attended_NUD, params.out_proj, backend)
    tap("out_proj.output", update_NUD)
    return update_NUD
