"""One decoding step on arrays that stay where they are, so that a backend can capture it as a graph and replay it.

A graph repeats the same operations on the same memory; only the numbers that lie there may change. The step of decoder.py
grows from step to step: its buffers get longer, and slices and masks with them. Here every shape is fixed:

    numbers          the ids, their position and their slots: on the device, overwritten before each step (`fill`)
    keys and values  a buffer of C slots for each document, more than are used; new ones go where `numbers` says
    mask             of all C slots: hidden is what is not of a row's own prefix, and so is what nobody has used yet

The layers are those of decoder.py, and so are the numbers, but for the order of sums over more slots. The buffer's used part is
the KV cache of the ordinary step (`cache_after`), so that either can go on where the other stopped. When C slots are used up,
a step with more of them is made.

What is not here: the first call with a prompt, folded cross-attention on a GPU (its products are cuBLAS's, which a graph
cannot hold), what records a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.config import LEDConfig
from led_ref.model.decoder import DecoderMasks, causal_mask, decoder_layer, lm_logits
from led_ref.model.kv_cache import DecoderCache, GrowingBuffer, LayerCache
from led_ref.model.ops import add_and_norm
from led_ref.model.params import LEDParams


@dataclass(frozen=True, repr=False)
class SlotBuffer(GrowingBuffer):
    """Keys or values in a buffer all of whose C slots count as used; append() writes into those that `slots_Q` names."""

    slots_Q: Array = field(kw_only=True)  # int64, on the device

    def append(self, new_BHUK: Array, backend: Backend) -> "SlotBuffer":
        """The same buffer, with other numbers."""
        self.buffer_BHCK[:, :, self.slots_Q] = new_BHUK
        return self


@dataclass(frozen=True)
class StaticStep:
    """A step of N = B W rows: `fill` it, call it, and take `cache_after`.

    Args:
        numbers_X: int64, on the device: N ids, the position, W slots.
        own_BQC: bool, on the device: the mask of self-attention, Q = W.
        layers: keys and values of the documents, and SlotBuffers.
        source_B1T: the documents' padding mask (decoder.padding_mask); None: all are tokens.
    """

    numbers_X: Array
    own_BQC: Array
    layers: Sequence[LayerCache]
    source_B1T: Array | None
    params: LEDParams
    config: LEDConfig
    backend: Backend

    def has_room(self, cache: DecoderCache) -> bool:
        """Whether there are slots for one more step after `cache`."""
        _, beams, slots = self.own_BQC.shape
        return bool(cache.used + beams <= slots)

    def fill(self, token_ids_N1: HostArray, cache: DecoderCache) -> None:
        """Overwrite what the next call reads: two copies to the device.

        Args:
            token_ids_N1: the rows' new ids.
            cache: what is before them; its keys and values are those of this step's buffers.
        """
        slots_BWS = cache.slots_after(1)
        numbers_X = np.concatenate([token_ids_N1[:, 0], [cache.length], slots_BWS[0, :, -1]])
        seen_BQC = np.zeros(self.own_BQC.shape, bool)
        own_BQE = causal_mask(slots_BWS, np.ones(slots_BWS.shape, bool), new=1)
        seen_BQC[:, :, : own_BQE.shape[2]] = own_BQE
        self.numbers_X[...] = self.backend.to_device(numbers_X)
        self.own_BQC[...] = self.backend.to_device(seen_BQC)

    def __call__(self) -> Array:
        """Logits (N, V) of the next id. Nothing here depends on a number that the host knows, so it can be captured."""
        backend, decoder = self.backend, self.params.decoder
        rows = self.own_BQC.shape[0] * self.own_BQC.shape[1]
        embeds_N1D = backend.rows(self.params.shared, self.numbers_X[:rows, None])
        position_1D = backend.rows(decoder.embed_positions, self.numbers_X[rows : rows + 1])
        masks = DecoderMasks(self.own_BQC, self.source_B1T, np.zeros((rows, 0), np.int64))
        x_N1D = add_and_norm(embeds_N1D, position_1D, decoder.layernorm_embedding, backend)
        for layer, memory in zip(decoder.layers, self.layers, strict=True):
            x_N1D, _ = decoder_layer(x_N1D, memory, layer, self.config.decoder_attention_heads, masks, backend)
        logits_NV: Array = lm_logits(x_N1D, self.params, backend)[:, 0]
        return logits_NV

    def cache_after(self, cache: DecoderCache) -> DecoderCache:
        """The cache with what the last call added to it, in this step's memory."""
        used = cache.used + self.own_BQC.shape[1]
        return cache.grown([_of_length(layer, used) for layer in self.layers], new=1)


def static_step(
    cache: DecoderCache, slots: int, params: LEDParams, config: LEDConfig, source_B1T: Array | None, backend: Backend
) -> StaticStep:
    """A step that goes on from `cache`, which is copied: the caller may go on from it in another way.

    Args:
        cache: after the prompt at least.
        slots: C, at least those used.
        params: the weights.
        config: sizes.
        source_B1T: the documents' padding mask; None: all are tokens.
        backend: where to compute.
    """
    xp, (documents, beams, _) = backend.xp, cache.slots_BWS.shape
    numbers_X = xp.zeros(cache.rows + 1 + beams, dtype="int64")
    slots_Q = numbers_X[cache.rows + 1 :]
    layers = []
    for layer in cache.layers:
        k_BHCK, v_BHCK = (_with_room(buffer, slots, backend) for buffer in (layer.self_k, layer.self_v))
        own_k, own_v = (SlotBuffer(buffer, slots, slots_Q=slots_Q) for buffer in (k_BHCK, v_BHCK))
        layers.append(LayerCache(own_k, own_v, layer.cross_k_BHTK, layer.cross_v_BHTK, layer.states_BTD))
    own_BQC = xp.zeros((documents, beams, slots), dtype=bool)
    return StaticStep(numbers_X, own_BQC, layers, source_B1T, params, config, backend)


def _with_room(buffer: GrowingBuffer, slots: int, backend: Backend) -> Array:
    """A copy with so many slots. Those that are free hold zeros: a hidden value is taken 0 times, and 0 times NaN is NaN."""
    documents, heads, used, width = buffer.array.shape
    copy_BHCK: Array = backend.xp.zeros((documents, heads, slots, width), dtype=buffer.array.dtype)
    copy_BHCK[:, :, :used] = buffer.array
    return copy_BHCK


def _of_length(layer: LayerCache, used: int) -> LayerCache:
    own_k, own_v = (GrowingBuffer(buffer.buffer_BHCK, used) for buffer in (layer.self_k, layer.self_v))
    return LayerCache(own_k, own_v, layer.cross_k_BHTK, layer.cross_v_BHTK, layer.states_BTD)
