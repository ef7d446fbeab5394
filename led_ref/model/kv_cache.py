"""What the decoder remembers between the words it writes.

Two things are worth keeping, and neither is ever copied from beam to beam.

The document's keys and values are made once from the encoder's states and never change: one copy serves all beams
(elsewhere each beam gets its own: 576 MiB a beam for led-base at 16,384 positions). With cross_attention="folded" not even
these are kept, only the states themselves (folding.py).

The keys and values of what is written so far grow by one entry a step and beam, and a document's beams share one store of
them. `entries` says which entries are a text's own past, position after position; so a beam that goes on from another one
takes over its row of that table, and no key moves. Two beams have written one id each, entries 0 and 1; then both go on
from what was beam 1:

    >>> from led_backends.numpy_backend import NumpyBackend
    >>> cache = DecoderCache((), None, entries_BWS=np.array([[[0], [1]]]), stored=2, source_shape=(1, 7))
    >>> after = cache.reorder(np.array([1, 1]))
    >>> after.entries_BWS.tolist()
    [[[1], [1]]]
    >>> after.grown((), new=1).entries_BWS.tolist()
    [[[1, 2], [1, 3]]]
"""

from dataclasses import dataclass, field, replace

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.errors import InputError

# The positions for which a store has room at first. Then it doubles, so that an entry is copied less than twice on average.
FIRST_ROOM = 32


@dataclass(frozen=True)
class Growing:
    """Keys or values (B, H, E, K) with room for more behind them. A value: to append makes another one, and keeps this.

    Both share their memory. The next free place in it belongs to the first that claims it, so that two continuations of
    one past do not write over each other: the second moves out, into memory of its own.
    """

    room_BHCK: Array
    length: int  # E of C
    claims: dict[int, object] = field(default_factory=dict)

    @property
    def array(self) -> Array:
        """What is there: (B, H, E, K), a view."""
        entries_BHEK: Array = self.room_BHCK[:, :, : self.length]
        return entries_BHEK

    def append(self, new_BHUK: Array, backend: Backend) -> "Growing":
        """With the new entries behind those that are there."""
        room_BHCK, claims, claim = self.room_BHCK, self.claims, object()
        documents, heads, capacity, width = room_BHCK.shape
        after = self.length + new_BHUK.shape[2]
        if after > capacity or claims.setdefault(self.length, claim) is not claim:  # setdefault: one thread gets it
            shape = (documents, heads, max(after, 2 * capacity), width)
            room_BHCK = backend.xp.empty(shape, dtype=room_BHCK.dtype)
            room_BHCK[:, :, : self.length] = self.array
            claims = {}
        room_BHCK[:, :, self.length : after] = new_BHUK
        return Growing(room_BHCK, after, claims)


@dataclass(frozen=True)
class LayerCache:
    """One decoder layer's memory: of the texts (E entries), and of the documents (None if folded)."""

    self_k: Growing
    self_v: Growing
    cross_k_BHTK: Array | None
    cross_v_BHTK: Array | None


@dataclass(frozen=True)
class DecoderCache:
    """The memory of all layers. W texts to a document, of S positions each; the table of entries lies on the host."""

    layers: tuple[LayerCache, ...]
    states_BTD: Array | None  # the encoder's states, if cross-attention is folded; else None
    entries_BWS: HostArray  # int64: where position s of text w is among the document's entries
    stored: int  # E, entries of a document so far: those of abandoned beams are still there
    source_shape: tuple[int, int]  # (B, T)

    @property
    def length(self) -> int:
        """How many target positions it covers."""
        return int(self.entries_BWS.shape[2])

    @property
    def rows(self) -> int:
        """N = B * W."""
        documents, beams = self.entries_BWS.shape[:2]
        return int(documents * beams)

    def reorder(self, parents_N: HostArray) -> "DecoderCache":
        """The cache whose row n continues what was row parents_N[n], a text of the same document. int64 on the host.

        Raises:
            InputError: for a row of another document, whose keys are elsewhere.
        """
        documents, beams, _ = self.entries_BWS.shape
        parents_BW = np.asarray(parents_N).reshape(documents, beams)
        document_B1 = np.arange(documents)[:, None]
        if (parents_BW // beams != document_B1).any():
            raise InputError(
                f"Rows {np.asarray(parents_N).tolist()} are to be continued, but each document has {beams} rows of its own, "
                "and a text can only go on from one of the same document."
            )
        return replace(self, entries_BWS=self.entries_BWS[document_B1, parents_BW % beams])

    def entries_after(self, new: int) -> HostArray:
        """The table with `new` more positions: texts append in turn, each its positions in a row."""
        documents, beams, _ = self.entries_BWS.shape
        added_WU = self.stored + np.arange(beams * new).reshape(beams, new)
        return np.concatenate([self.entries_BWS, np.broadcast_to(added_WU, (documents, beams, new))], axis=2)

    def grown(self, layers: tuple[LayerCache, ...], new: int) -> "DecoderCache":
        """The cache after `new` more positions of each text, which are in `layers` already."""
        stored = self.stored + self.entries_BWS.shape[1] * new
        return replace(self, layers=layers, entries_BWS=self.entries_after(new), stored=stored)
