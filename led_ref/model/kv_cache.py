"""The decoder's KV cache: keys and values of what is already computed, kept between two steps of autoregressive decoding.

Two kinds of key-value pairs are kept, and neither is ever copied from beam to beam.

**Of the document** (cross-attention): computed once from the encoder's states, then constant. One copy serves all beams
(elsewhere each beam gets its own: 576 MiB a beam for led-base at 16,384 positions). With cross_attention="folded" no keys
and values are kept, only the states themselves (folding.py).

**Of the generated prefix** (self-attention): they grow by one slot a step and beam, in one buffer that a document's beams
share. A table, `slots`, holds for each beam the slots of its own prefix, position after position. So a beam that continues
another one takes over its row of the table, and no key moves. Two beams have generated one id each, in slots 0 and 1; then
both continue beam 1:

    >>> from led_backends.numpy_backend import NumpyBackend
    >>> cache = DecoderCache((), slots_BWS=np.array([[[0], [1]]]), used=2, source_shape=(1, 7))
    >>> after = cache.reorder(np.array([1, 1]))
    >>> after.slots_BWS.tolist()
    [[[1], [1]]]
    >>> after.grown((), new=1).slots_BWS.tolist()
    [[[1, 2], [1, 3]]]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.errors import InputError
from led_ref.model.brief_repr import BriefRepr

# A buffer's capacity at first, in slots. Then it doubles, so that a slot is copied less than twice on average.
FIRST_CAPACITY = 32


@dataclass(frozen=True)
class CachePlan:
    """How a cache is laid out.

    Args:
        rows: N, the rows that the decoder will compute.
        folded: keep no keys and values of the document: cross-attention works from the states (folding.py).
        capacity: the slots that a document's buffer is allocated for at first.
    """

    rows: int
    folded: bool = False
    capacity: int = FIRST_CAPACITY


@dataclass(frozen=True, repr=False)
class GrowingBuffer(BriefRepr):
    """Keys or values (B, H, E, K) in a buffer of capacity C. Immutable: append() returns a new one and leaves this one valid.

    Both share their memory. The next free slot belongs to the first that claims it, so that two continuations of one prefix
    do not overwrite each other: the second moves to memory of its own.
    """

    buffer_BHCK: Array
    length: int  # E of C
    claims: dict[int, object] = field(default_factory=dict, repr=False)

    @property
    def array(self) -> Array:
        """The used slots: (B, H, E, K), a view."""
        used_BHEK: Array = self.buffer_BHCK[:, :, : self.length]
        return used_BHEK

    def append(self, new_BHUK: Array, backend: Backend) -> "GrowingBuffer":
        """With the new slots behind the used ones."""
        buffer_BHCK, claims, claim = self.buffer_BHCK, self.claims, object()
        documents, heads, capacity, width = buffer_BHCK.shape
        after = self.length + new_BHUK.shape[2]
        if after > capacity or claims.setdefault(self.length, claim) is not claim:  # setdefault: one thread gets it
            shape = (documents, heads, max(after, 2 * capacity), width)
            buffer_BHCK = backend.xp.empty(shape, dtype=buffer_BHCK.dtype)
            buffer_BHCK[:, :, : self.length] = self.array
            claims = {}
        buffer_BHCK[:, :, self.length : after] = new_BHUK
        return GrowingBuffer(buffer_BHCK, after, claims)

    def cut(self, length: int) -> "GrowingBuffer":
        """With the first `length` slots alone. The others may be overwritten: this one is not to be used any more."""
        return self if length == self.length else GrowingBuffer(self.buffer_BHCK, length)


@dataclass(frozen=True, repr=False)
class LayerCache(BriefRepr):
    """One decoder layer's keys and values: of the prefixes (E slots), and of the documents, or in their place the states."""

    self_k: GrowingBuffer
    self_v: GrowingBuffer
    cross_k_BHTK: Array | None
    cross_v_BHTK: Array | None
    states_BTD: Array | None = None  # the encoder's states, the same for all layers, if cross-attention is folded

    @property
    def documents(self) -> int:
        """B."""
        return len(self.self_k.buffer_BHCK)


@dataclass(frozen=True, repr=False)
class DecoderCache(BriefRepr):
    """The KV caches of all layers. W beams of a document, of S positions each; the table of slots lies on the host."""

    layers: tuple[LayerCache, ...]
    slots_BWS: HostArray  # int64: the slot of position s of beam w
    used: int  # E, used slots of a document's buffer: those of abandoned beams stay
    source_shape: tuple[int, int]  # (B, T)

    @property
    def length(self) -> int:
        """S, the number of target positions in it."""
        return int(self.slots_BWS.shape[2])

    @property
    def rows(self) -> int:
        """N = B * W."""
        documents, beams = self.slots_BWS.shape[:2]
        return int(documents * beams)

    def reorder(self, parents_N: HostArray) -> "DecoderCache":
        """The cache whose row n continues row parents_N[n], a row of the same document. int64 on the host.

        Raises:
            InputError: for a row of another document, whose keys are elsewhere.
        """
        documents, beams, _ = self.slots_BWS.shape
        parents_BW = np.asarray(parents_N).reshape(documents, beams)
        document_B1 = np.arange(documents)[:, None]
        if (parents_BW // beams != document_B1).any():
            raise InputError(
                f"Rows {np.asarray(parents_N).tolist()} are to be continued, but each document has {beams} rows of its own, "
                "and a hypothesis can only continue one of the same document."
            )
        slots_BWS = self.slots_BWS[document_B1, parents_BW % beams]
        return DecoderCache(self.layers, slots_BWS, self.used, self.source_shape)

    def of_document(self, b: int) -> "DecoderCache":
        """The cache of document b alone, in the same memory. This one is not to be used any more."""
        here = slice(b, b + 1)

        def own(buffer: GrowingBuffer) -> GrowingBuffer:
            return GrowingBuffer(buffer.buffer_BHCK[here], buffer.length)

        def shared(array: Array | None) -> Array | None:
            return None if array is None else array[here]

        layers = [
            LayerCache(
                own(layer.self_k),
                own(layer.self_v),
                shared(layer.cross_k_BHTK),
                shared(layer.cross_v_BHTK),
                shared(layer.states_BTD),
            )
            for layer in self.layers
        ]
        return DecoderCache(tuple(layers), self.slots_BWS[here], self.used, (1, self.source_shape[1]))

    def cut(self, length: int) -> "DecoderCache":
        """The cache of one row after its first `length` positions. This one is not to be used any more (GrowingBuffer.cut)."""
        if length == self.length:
            return self
        layers = [
            replace(layer, self_k=layer.self_k.cut(length), self_v=layer.self_v.cut(length)) for layer in self.layers
        ]
        return DecoderCache(tuple(layers), self.slots_BWS[:, :, :length], length, self.source_shape)

    def slots_after(self, new: int) -> HostArray:
        """The table with `new` more positions: the beams append in turn, each its positions in a row."""
        documents, beams, _ = self.slots_BWS.shape
        added_WU = self.used + np.arange(beams * new).reshape(beams, new)
        return np.concatenate([self.slots_BWS, np.broadcast_to(added_WU, (documents, beams, new))], axis=2)

    def grown(self, layers: Sequence[LayerCache], new: int) -> "DecoderCache":
        """The cache after `new` more positions of each beam, which `layers` hold already."""
        used = self.used + self.slots_BWS.shape[1] * new
        return DecoderCache(tuple(layers), self.slots_after(new), used, self.source_shape)
