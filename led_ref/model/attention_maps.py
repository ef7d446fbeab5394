"""Attention maps: attention of a whole document as one array, in transformers' layout.

Nothing here takes part in the forward pass. What it computes in tiles, or by folding without keys, is computed a second
time and laid out, for `output_attentions` and for traces (intermediates.py).
"""

from led_backends.contract import Array, Backend, HostArray
from led_ref.model.masks import Block, EncoderMasks, seen_in_tile
from led_ref.model.sliding_window import with_globals

# ---- the encoder -------------------------------------------------------------------------------------------------------


def window_maps(q_BHTK: Array, k_BHTK: Array, masks: EncoderMasks, backend: Backend, *, softmaxed: bool) -> Array:
    """Local scores, or probabilities, of a batch: (B, H, T, G + 2R + 1), G the most global tokens of a document.

    Column g < G is the g-th global token of the document; column G + R + (j - i) is key j of query i, so that a token's own
    column is G + R. What is masked is minus infinity (scores) or 0 (probabilities), and so are the rows of masked and of
    global tokens. This is transformers' layout (LEDEncoderSelfAttention).
    """
    batch, heads, length, _ = q_BHTK.shape
    unseen = 0.0 if softmaxed else -backend.xp.inf
    most_globals = max(len(mask.global_positions_G) for mask in masks.documents)
    shape = (batch, heads, length, most_globals + 2 * masks.radius + 1)
    maps_BHTZ: Array = backend.xp.empty(shape, dtype=q_BHTK.dtype)
    maps_BHTZ[...] = unseen
    for b, (mask, blocks) in enumerate(zip(masks.documents, masks.blocks, strict=True)):
        own_globals = len(mask.global_positions_G)
        k_HGK = k_BHTK[b][:, backend.to_device(mask.global_positions_G)]
        for block in blocks:
            k_HZK = with_globals(k_HGK, k_BHTK[b], block, backend)
            tile_HQZ = q_BHTK[b][:, block.start : block.stop] @ k_HZK.swapaxes(-1, -2)
            backend.hide(tile_HQZ[:, :, own_globals:], seen_in_tile(block, backend))
            _place_tile(maps_BHTZ[b], backend.softmax(tile_HQZ) if softmaxed else tile_HQZ, block, own_globals)
        maps_BHTZ[b][:, backend.to_device((~mask.local_T).nonzero()[0])] = unseen
    return maps_BHTZ


def _place_tile(map_HTZ: Array, tile_HQZ: Array, block: Block, own_globals: int) -> None:
    """Copy a tile into a document's map. Each row's band starts one column further right in the tile."""
    radius = block.band.radius
    most_globals = map_HTZ.shape[-1] - (2 * radius + 1)
    map_HTZ[:, block.start : block.stop, :own_globals] = tile_HQZ[:, :, :own_globals]
    for i in range(block.start, block.stop):
        low, high = max(block.low, i - radius), min(block.high, i + radius + 1)
        columns = slice(most_globals + radius + low - i, most_globals + radius + high - i)
        band = slice(own_globals + low - block.low, own_globals + high - block.low)
        map_HTZ[:, i, columns] = tile_HQZ[:, i - block.start, band]


def stacked(parts: dict[int, Array], batch: int, filler: Array | float, backend: Backend) -> Array:
    """One array of the documents' arrays, as large as the largest on each axis, and the filler elsewhere."""
    shape = tuple(map(max, zip(*(part.shape for part in parts.values()), strict=True)))
    whole: Array = backend.xp.empty((batch, *shape), dtype=next(iter(parts.values())).dtype)
    whole[...] = filler
    for b, part in parts.items():
        whole[b][tuple(slice(size) for size in part.shape)] = part
    return whole


# ---- the decoder -------------------------------------------------------------------------------------------------------


def attention_map(
    q_BHQK: Array,
    k_BHSK: Array,
    may_look_BQS: Array | None,
    rows: int,
    slots_NS: HostArray | None,
    backend: Backend,
) -> Array:
    """The scores of the decoder's attention, row by row: (N, H, U, S). Softmax of them are the probabilities.

    Args:
        q_BHQK: queries of a document's W rows, U after U.
        k_BHSK: the keys that they share.
        may_look_BQS: which keys each query may see; None: all.
        rows: N.
        slots_NS: which of the keys are a row's own, in the order of positions; None: all S, for cross-attention.
        backend: where to compute.
    """
    scores_BHQS = q_BHQK @ k_BHSK.swapaxes(-1, -2)
    if may_look_BQS is not None:
        backend.hide(scores_BHQS, may_look_BQS[:, None])
    scores_NHUS = rows_of(scores_BHQS, rows, backend)
    if slots_NS is None:
        return scores_NHUS
    own_NHUS: Array = backend.xp.stack(
        [scores_NHUS[n][:, :, own_S] for n, own_S in enumerate(backend.to_device(slots_NS))]
    )
    return own_NHUS


def own_positions(array_BHEK: Array, slots_NS: HostArray, backend: Backend) -> Array:
    """(N, H, S, K): the keys or values of each row's own positions, in their order."""
    beams = len(slots_NS) // len(array_BHEK)
    own = [array_BHEK[n // beams][:, backend.to_device(own_S)] for n, own_S in enumerate(slots_NS)]
    own_NHSK: Array = backend.xp.stack(own)
    return own_NHSK


def rows_of(x_BHQX: Array, rows: int, backend: Backend) -> Array:
    """(B, H, W * U, X) -> (B * W, H, U, X): the part of each row, out of its document's."""
    documents, heads, queries, width = x_BHQX.shape
    beams = rows // documents
    x_BWHUX = x_BHQX.reshape(documents, heads, beams, queries // beams, width).swapaxes(1, 2)
    x_NHUX: Array = backend.xp.ascontiguousarray(x_BWHUX).reshape(rows, heads, queries // beams, width)
    return x_NHUX
