"""The CPU: NumPy for the arithmetic, its BLAS for the products, threads for both (numpy_pieces.py).

What NumPy does element by element (GELU, LayerNorm, softmax) is cut into pieces that stay in a core's cache; products are
cut by rows, by heads, or, where the rows are few, by tiles of what they are multiplied with. No cut depends on the number of
threads in a way that a result would show.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np

from led_backends import numpy_backward as backward
from led_backends import numpy_products as without_blas
from led_backends.compact import rows_of, tile_of
from led_backends.contract import Array, Band, HostArray, Weight
from led_backends.numpy_pieces import (
    FEW_ROWS,
    KEYS,
    WEIGHT_ROWS,
    Parts,
    band_corners,
    blas_at_one_thread,
    exponentials,
    gelu_in_place,
    gelu_new_in_place,
    in_columns,
    inside_a_piece,
    parallel_for,
    quietly,
    relu_in_place,
    share,
    shares,
    silu_in_place,
    slices,
    tiled_product,
    tiled_sum,
)
from led_backends.processors import default_threads

# Elements that one thread works on at a time, in what is done element by element. Fewer stay nearer to the core, but each
# call ends with a wait for Python's lock: with two threads, GELU took 2.9 ns a number like this, 3.9 with half, 3.2 with twice
# as many (2 cores, AVX-512, 1 MB of L2 each). LayerNorm, in float64, does best with twice as many.
CHUNK = 1 << 16

# Rows of a feed-forward that one thread takes through both of its products: the F numbers of all rows are never held at once.
# A product packs the weights anew for each block: those of led-base's 4,096 tokens took 382 ms of both cores in blocks of 512
# rows, 353 ms in blocks of 1,024.
BLOCK_ROWS = 1024

# Numbers of a CompactWeight that a thread makes dense at a time, for few rows. That is several short calls each, so a wait for
# Python's lock weighs more here than in CHUNK. A table of 50,265 x 768 float16 numbers, times one row, took 29 ms like this
# and 66 with a quarter (int8: 17 and 44, NF4: 46 and 79); with four times as many NF4's tiles leave the cache (100).
DENSE = 1 << 18

# Numbers of each array in a piece of an optimizer's step: weight, gradient, two moments and two temporaries stay in the cache.
PIECE = 1 << 16

# Numbers to read, below which a product is sooner done than shared with another thread.
SMALL = 1 << 19

LAYER_NORM_EPS = 1e-5

Piece = TypeVar("Piece")


class NumpyBackend:
    """The contract (contract.py) on the CPU, for float32 and float64.

    Args:
        threads: how many threads to use; None: `default_threads` (processors.py).
    """

    name = "numpy"
    xp: Any = np
    queries_per_block = 128
    columns_multiple = 1
    compute_dtypes: tuple[str, ...] = ("float32", "float64")  # NumPy has no fast product for half-precision types
    graphs = False

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; give at least 1, or None for the default.")
        self.threads = threads or default_threads().number

    def describe(self) -> str:
        """The version of NumPy and the number of threads."""
        return f"NumPy {np.__version__}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def free_memory(self) -> int | None:
        """None: the operating system manages the host's memory."""
        return None

    def at_work(self) -> AbstractContextManager[None]:
        """BLAS is held to one thread (numpy_pieces.py), once and not for each operation: a decoding step has some eighty."""
        return blas_at_one_thread()

    def captured(self, work: Callable[[], Array]) -> Callable[[], Array]:
        """The work itself."""
        return work

    def to_device(self, array: HostArray) -> Array:
        """The array itself: the host is the device."""
        return np.ascontiguousarray(array)

    def to_host(self, array: Array) -> HostArray:
        """The array itself."""
        return array

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        """`x @ weight.T + bias`, all leading axes of x taken together as rows of one product."""
        return self.linears(x, [(weight, bias)])[0]

    def linears(self, x: Array, maps: Sequence[tuple[Weight, Array]]) -> list[Array]:
        """`linear` of the same x for each (weight, bias).

        Few rows: each thread takes a share of the weights, of all maps together, tile by tile (see WEIGHT_ROWS). Many: a
        share of the rows. A CompactWeight becomes numbers as it is used, so it is shared out itself, in small pieces.
        """
        rows = x.reshape(-1, x.shape[-1])
        results = [np.empty((len(rows), weight.shape[0]), rows.dtype) for weight, _ in maps]
        few = len(rows) <= FEW_ROWS
        alone = inside_a_piece() or (few and sum(weight.size for weight, _ in maps) < SMALL)
        threads = 1 if alone else self.threads
        product = tiled_product if without_blas.HAS_BLAS else without_blas.product
        dense = [(weight, bias) for weight, bias in maps if isinstance(weight, np.ndarray)]
        if few and threads == 1 and len(dense) == len(maps):
            # As below, in fewer calls of Python: a decoding step of a small model is made of these.
            with blas_at_one_thread(), np.errstate(invalid="ignore"):
                for (matrix, bias), y in zip(dense, results, strict=True):
                    product(rows, matrix, WEIGHT_ROWS, y)
                    y += bias
            return [y.reshape(*x.shape[:-1], y.shape[-1]) for y in results]

        def multiply(parts: Parts) -> None:
            for n, part in parts:
                (weight, bias), y = maps[n], results[n]
                if few and isinstance(weight, np.ndarray):  # a part of the outputs
                    y = y[:, part]
                    product(rows, weight[part], WEIGHT_ROWS, y)
                    y += bias[part]
                elif isinstance(weight, np.ndarray):  # a part of the rows of x
                    if without_blas.HAS_BLAS:
                        np.matmul(rows[part], weight.T, out=y[part])
                    else:
                        without_blas.times_transposed(rows[part], weight, y[part])
                    y[part] += bias
                else:  # a part of the outputs, of which a tile is dense at a time
                    y = y[:, part]
                    tile, scales = tile_of(weight, part)
                    product(rows, tile, WEIGHT_ROWS if few else len(tile), y)
                    if scales is not None:
                        y *= scales
                    y += bias[part]

        pieces: list[Parts] = []
        lengths = []  # of the matrices whose rows are dealt to the threads
        for n, (weight, _) in enumerate(maps):
            outputs, is_dense = weight.shape[0], isinstance(weight, np.ndarray)
            lengths.append(outputs if few and is_dense else 0)
            if not is_dense:
                most = max(1, (DENSE if few else SMALL) // (WEIGHT_ROWS * rows.shape[-1])) * WEIGHT_ROWS
                pieces += [[(n, part)] for part in slices(outputs, min(share(outputs, threads), most))]
            elif not few:
                pieces += [
                    [(n, part)] for part in slices(len(rows), min(share(len(rows), threads), BLOCK_ROWS), WEIGHT_ROWS)
                ]
        if few:
            pieces = [*shares(tuple(lengths), threads), *pieces]
        self._parallel_for(multiply, pieces)
        return [y.reshape(*x.shape[:-1], y.shape[-1]) for y in results]

    def rows(self, weight: Weight, which: slice | Array | None = None) -> Array:
        """Rows of a weight as numbers."""
        if isinstance(weight, np.ndarray):
            return weight if which is None else weight[which]
        return rows_of(weight, which)

    def layer_norm(self, x: Array, weight: Array, bias: Array, update: Array | None = None) -> Array:
        """LayerNorm of x, or of x + update, over rows that stay in cache. Leaves both alone.

        In float64 within a row, rounded once at its end: six float32 roundings one after the other would be a good part
        of all the error that a float32 model makes (docs/accuracy.md). All LayerNorms are 5% of the encoder's time.
        """
        width = x.shape[-1]
        rows = x.reshape(-1, width)
        if update is not None and update.shape != x.shape:
            update = np.broadcast_to(update, x.shape)
        updates = None if update is None else update.reshape(-1, width)
        out = np.empty_like(rows)

        def normalise(piece: slice) -> None:
            if updates is None:
                centred = rows[piece].astype(np.float64)
            else:
                centred = np.add(rows[piece], updates[piece], dtype=np.float64)
            centred -= np.add.reduce(centred, -1, keepdims=True) / width
            variance = np.einsum("rd,rd->r", centred, centred)[:, None] / width
            centred *= 1 / np.sqrt(variance + LAYER_NORM_EPS)
            centred *= weight
            centred += bias
            out[piece] = centred

        self._by_pieces(normalise, len(rows), max(1, 2 * CHUNK // width))
        return out.reshape(x.shape)

    def gelu(self, x: Array) -> Array:
        """`max(x, 0) - |x| Phi(-|x|)`, in place (gelu_tail.py says why this form)."""
        return self._in_place(gelu_in_place, x)

    def relu(self, x: Array) -> Array:
        """`max(x, 0)`, in place."""
        return self._in_place(relu_in_place, x)

    def silu(self, x: Array) -> Array:
        """`x sigmoid(x)`, in place."""
        return self._in_place(silu_in_place, x)

    def gelu_new(self, x: Array) -> Array:
        """`x sigmoid(2 u)`, in place, since `(1 + tanh(u)) / 2 = sigmoid(2 u)` (numpy_pieces.py)."""
        return self._in_place(gelu_new_in_place, x)

    def _in_place(self, activate: Callable[[Array], None], x: Array) -> Array:
        """Let `activate` overwrite x, one cache-sized piece at a time."""
        if not x.flags.c_contiguous:
            raise ValueError("An activation works in place and needs a contiguous array.")
        flat = x.reshape(-1)
        self._by_pieces(lambda piece: activate(flat[piece]), len(flat), CHUNK)
        return x

    def clamp_overflow(self, x: Array) -> Array:
        """X itself: float16 is not computed in."""
        return x

    def split_heads(self, x_BTD: Array, heads: int, queries: int = 0) -> Array:
        """For one query, columns lie together: BLAS then reads positions by the thousand, and not a row of 64 after the other.

        A step of one text that reads 4,096 positions spends 1.5 ms a layer on them like this, and 2.0 with dense rows; for
        four texts rows are better (2.2 ms; 2 cores, OpenBLAS 0.3.31).
        """
        batch, length, d_model = x_BTD.shape
        x_BHTK = x_BTD.reshape(batch, length, heads, d_model // heads).swapaxes(1, 2)
        if queries == 1:
            columns_BHKT = np.empty((batch, heads, d_model // heads, length), x_BTD.dtype)
            out_BHTK: Array = columns_BHKT.swapaxes(2, 3)
        elif x_BTD.size <= CHUNK:
            return np.ascontiguousarray(x_BHTK)
        else:
            out_BHTK = np.empty(x_BHTK.shape, x_BTD.dtype)

        def copy(piece: tuple[int, slice]) -> None:
            b, rows = piece
            out_BHTK[b, :, rows] = x_BHTK[b, :, rows]

        pieces = [(b, rows) for b in range(batch) for rows in slices(length, max(1, CHUNK // d_model))]
        parallel_for(copy, pieces, self.threads, products=False)
        return out_BHTK

    def hide(self, scores: Array, may_look: Array) -> None:
        """Minus infinity where `may_look` is False, in place."""
        np.copyto(scores, -np.inf, where=~may_look)

    def softmax(self, scores: Array) -> Array:
        """Softmax over the last axis, in place; a row that may look at nothing becomes zeros."""
        total = exponentials(scores)
        scores /= total
        return scores

    def scores(self, q_hQK: Array, k_hZK: Array) -> Array:
        """`q @ k.T` for each head."""
        if not without_blas.HAS_BLAS:
            return without_blas.times_transposed(q_hQK, k_hZK)
        scores_hQZ: Array = q_hQK @ k_hZK.swapaxes(-1, -2)
        return scores_hQZ

    def band_softmax(self, scores_hQZ: Array, globals_: int, band: Band) -> Array:
        """Hide what the band does not show, then softmax."""
        self._hide_outside(scores_hQZ[:, :, globals_:], band)
        return self.softmax(scores_hQZ)

    def band_attend(self, scores_hQZ: Array, v_hZK: Array, globals_: int, band: Band) -> Array:
        """`exp(scores) @ v / sum(exp(scores))`: K divisions a query instead of G + S."""
        self._hide_outside(scores_hQZ[:, :, globals_:], band)
        total_hQ1 = exponentials(scores_hQZ)
        out_hQK: Array = scores_hQZ @ v_hZK if without_blas.HAS_BLAS else without_blas.times(scores_hQZ, v_hZK)
        out_hQK /= total_hQ1
        return out_hQK

    def _hide_outside(self, scores_hQS: Array, band: Band) -> None:
        """Hide the corners outside the band (for most tiles, only the first and last columns have any), and what is masked."""
        queries, keys = scores_hQS.shape[1:]
        for columns, hidden_QS in band_corners(band.first, queries, keys, band.radius):
            np.copyto(scores_hQS[:, :, columns], -np.inf, where=hidden_QS)
        if band.local_S is not None:
            self.hide(scores_hQS, band.local_S)

    def window_attend(
        self, q_HTK: Array, k_HTK: Array, v_HTK: Array, globals_G: Array, local_T: HostArray, radius: int
    ) -> Array | None:
        """Tile by tile."""
        return None

    def attend(self, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None) -> Array:
        """Some heads of one document at a time, over threads; few queries by tiles of keys (see KEYS), many in blocks."""
        batch, heads, queries, _ = q_BHQK.shape
        keys = k_BHSK.shape[2]
        out_BHQK = np.empty(q_BHQK.shape, q_BHQK.dtype)
        if may_look_BQS is not None:
            may_look_BQS = np.broadcast_to(may_look_BQS, (batch, queries, keys))
        few = queries <= FEW_ROWS
        tile = KEYS if few and not (queries == 1 and in_columns(k_BHSK)) else keys
        product, product_sum = (
            (tiled_product, tiled_sum) if without_blas.HAS_BLAS else (without_blas.product, without_blas.product_sum)
        )
        together = heads if few and k_BHSK[0].size < SMALL else -(-heads // self.threads) if few else 1

        def attend_heads(piece: tuple[int, slice, slice]) -> None:
            b, h, block = piece
            q_hQK = q_BHQK[b, h, block]
            scores_hQS = np.empty((*q_hQK.shape[:2], keys), q_hQK.dtype)
            product(q_hQK, k_BHSK[b, h], tile, scores_hQS)
            if may_look_BQS is not None:
                self.hide(scores_hQS, may_look_BQS[b, block])
            total_hQ1 = exponentials(scores_hQS)
            product_sum(scores_hQS, v_BHSK[b, h], tile, out_BHQK[b, h, block])
            out_BHQK[b, h, block] /= total_hQ1  # K divisions a query instead of S

        blocks = list(slices(queries, queries if few else self.queries_per_block))
        self._parallel_for(
            attend_heads, [(b, h, block) for b in range(batch) for h in slices(heads, together) for block in blocks]
        )
        return out_BHQK

    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        """One head a tile, the tiles shared among threads, BLAS at one thread meanwhile."""
        self._parallel_for(tile, [slice(h, h + 1) for h in range(heads)])

    def for_each_block(self, work: Callable[[slice], None], rows: int) -> None:
        """Blocks of BLOCK_ROWS rows, shared among threads, BLAS at one thread meanwhile."""
        self._parallel_for(work, list(slices(rows, BLOCK_ROWS)))

    def for_each_piece(self, work: Callable[[slice], None], rows: int, width: int = 1) -> None:
        """Pieces of PIECE numbers, shared among threads."""
        parallel_for(work, list(slices(rows, max(1, PIECE // width))), self.threads, products=False)

    # ---- backward (numpy_backward.py) ------------------------------------------------------------------------------

    def linear_backward(
        self,
        dy: Array,
        x: Array,
        weight: Weight,
        into: tuple[Array, Array] | None = None,
        dx: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """`dy @ weight`, `dy.T @ x`, `sum of dy`, all leading axes taken together as rows."""
        return backward.linear_backward(dy, x, self.rows(weight), (dx, into), self.threads)

    def layer_norm_backward(
        self, dy: Array, x: Array, weight: Array, update: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Row by row, in float64 within a row."""
        return backward.layer_norm_backward(dy, x, weight, update, LAYER_NORM_EPS, self.threads)

    def activate_with_slope(self, x: Array, activation: str) -> tuple[Array, Array]:
        """In place, one cache-sized piece at a time."""
        return backward.activate_with_slope(x, activation, self.threads)

    def softmax_backward(self, dprobs: Array, probs: Array) -> Array:
        """Over dprobs."""
        return backward.softmax_backward(dprobs, probs)

    def attend_backward(
        self, dout_BHQK: Array, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None
    ) -> tuple[Array, Array, Array]:
        """A head of a document a piece; its blocks of queries in order, since each adds to the gradients of all keys."""
        qkv = q_BHQK, k_BHSK, v_BHSK
        return backward.attend_backward(dout_BHQK, qkv, may_look_BQS, self.queries_per_block, self.threads)

    def add_rows(self, table: Array, ids: HostArray, rows: Array) -> None:
        """Sorted by id, so that each row of the table is written once."""
        backward.add_rows(table, ids, rows)

    # ---- threads ----------------------------------------------------------------------------------------------------

    def _by_pieces(self, work: Callable[[slice], None], total: int, step: int) -> None:
        """Do work without products on pieces of `step`; a single one, as in a decoding step, is simply done."""
        if total <= step:
            work(slice(0, total))
        else:
            parallel_for(work, list(slices(total, step)), self.threads, products=False)

    def _parallel_for(self, work: Callable[[Piece], None], pieces: Sequence[Piece]) -> None:
        """Do work with products on every piece, over this backend's threads."""
        parallel_for(quietly(work), pieces, self.threads)
