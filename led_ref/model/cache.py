"""What the decoder remembers between the words it writes.

Two things are worth keeping. The keys and values of the target positions so far grow by one position a step and belong to
one beam each. The keys and values of the source are made once from the encoder's states and never change: one copy serves
all beams of a document (elsewhere each beam gets its own: 576 MiB a beam for led-base at 16,384 positions).

A cache is frozen; a step returns a new one. To reorder beams is to pick rows of the first part; the second stays where it
is. If both beams go on from what was beam 1:

    >>> import numpy as np
    >>> from led_backends.numpy_backend import NumpyBackend
    >>> own, source = np.array([10.0, 11.0]).reshape(2, 1, 1, 1), np.zeros((1, 1, 7, 1))
    >>> cache = DecoderCache((LayerCache(own, own, source, source),), length=1, rows=2, source_shape=(1, 7))
    >>> after = cache.reorder(np.array([1, 1]), NumpyBackend())
    >>> after.layers[0].self_k_NHSK.ravel().tolist(), after.layers[0].cross_k_BHTK is source
    ([11.0, 11.0], True)
"""

from dataclasses import dataclass

from led_backends.contract import Array, Backend, HostArray


@dataclass(frozen=True)
class LayerCache:
    """One decoder layer's memory. N = B * W rows: the beams of a document lie next to each other. S: positions so far."""

    self_k_NHSK: Array
    self_v_NHSK: Array
    cross_k_BHTK: Array
    cross_v_BHTK: Array


@dataclass(frozen=True)
class DecoderCache:
    """The memory of all layers, and how many target positions it covers."""

    layers: tuple[LayerCache, ...]
    length: int
    rows: int  # N
    source_shape: tuple[int, int]  # (B, T)

    def reorder(self, parents_N: HostArray, backend: Backend) -> "DecoderCache":
        """The cache whose row n continues what was row parents_N[n]. parents_N: int64 on the host."""
        rows = backend.to_device(parents_N)
        return DecoderCache(
            tuple(
                LayerCache(layer.self_k_NHSK[rows], layer.self_v_NHSK[rows], layer.cross_k_BHTK, layer.cross_v_BHTK)
                for layer in self.layers
            ),
            self.length,
            len(parents_N),
            self.source_shape,
        )
