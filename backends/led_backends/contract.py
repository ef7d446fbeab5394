"""What a backend must be able to do: the few operations in which the machines really differ.

A backend is an object that the model holds and passes down. There is no current backend, no global and no environment
variable. Everything else the model does with arrays goes through `xp`, and only through the names in `XP_NAMES`,
which NumPy and CuPy share with the same meaning; a test holds the model to that list.

This package never imports led_ref.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

# An array of the backend: numpy.ndarray here, cupy.ndarray on a GPU. Type checkers see NumPy's class for both.
Array: TypeAlias = npt.NDArray[Any]
HostArray: TypeAlias = npt.NDArray[Any]

# The names of the array namespace that model/ may use.
XP_NAMES = frozenset(
    {
        "arange",
        "asarray",
        "ascontiguousarray",
        "concatenate",
        "empty",
        "exp",
        "inf",
        "log",
        "stack",
        "tanh",
        "zeros",
    }
)


class BackendUnavailableError(ImportError):
    """The backend cannot run on this machine, and the message says what would make it."""


class NoDeviceError(BackendUnavailableError):
    """There is no such device here, or its library is not installed: nothing is wrong if it is not asked for by name."""


class DeviceMemoryError(MemoryError):
    """The device's memory cannot hold an array. The message says its size, the free memory, and which setting to lower."""


class CaptureError(RuntimeError):
    """Work could not be captured as a graph; the message says what the device refused. Nothing else has changed."""


@dataclass(frozen=True)
class Band:
    """The sliding window's mask of a tile: query q sees key s if `|first + q - s| <= radius` and key s is local.

    first: the column of query 0's own key. local_S: bool, on the device; None where every key is local.
    """

    first: int
    radius: int
    local_S: Array | None


class Weight(Protocol):
    """A linear map's matrix (out, in) or a table, as a backend keeps it: an array, or something smaller (compact.py).

    It is opaque: only `linear`, `linears` and `rows` of its backend read its numbers.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        ...

    @property
    def size(self) -> int:
        """The number of its numbers."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of its numbers once they are read: what is computed in."""
        ...


class Backend(Protocol):
    """The operations. Every array argument and result lives on the backend's device and keeps its dtype."""

    name: str
    xp: Any
    # How many queries the encoder's tiles have (led_ref/model/masks.py): what fits a core's cache, or fills a GPU.
    queries_per_block: int
    # Its tiles have a multiple of so many columns, where the document has the keys for it: what a GPU reads at once.
    columns_multiple: int
    # The dtypes that it computes in. A checkpoint's own may be others.
    compute_dtypes: tuple[str, ...]
    # Whether a decoding step is to be captured (`captured`) and replayed: not on a CPU, and on a GPU only if asked.
    graphs: bool

    def describe(self) -> str:
        """What it runs on, for people: "NumPy 2.4.6, 2 threads"."""
        ...

    def free_memory(self) -> int | None:
        """Bytes of the device's memory that are still free; None: the host's, which the operating system manages."""
        ...

    def at_work(self) -> AbstractContextManager[None]:
        """While this lasts, operations follow each other closely, and share what has to be set up only once.

        A device that runs out of memory raises DeviceMemoryError, which says what to lower.
        """
        ...

    def captured(self, work: Callable[[], Array]) -> Callable[[], Array]:
        """`work` as one call: it computes anew, from what then lies in the same memory, and returns the same array.

        The work allocates what it likes, takes nothing from the host, gives it nothing, and does the same if it is done
        twice. A machine without graphs returns the work itself.

        Raises:
            CaptureError: if it cannot be captured.
        """
        ...

    def to_device(self, array: HostArray) -> Array:
        """The same values on the device, contiguous, same dtype."""
        ...

    def to_host(self, array: Array) -> HostArray:
        """The same values as a NumPy array; a NumPy array itself is returned as it is. A GPU is waited for."""
        ...

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        """`x @ weight.T + bias`: x (..., in), weight (out, in), bias (out,) -> (..., out).

        Of a weight that is kept smaller only a tile of rows is dense at a time.
        """
        ...

    def linears(self, x: Array, maps: Sequence[tuple[Weight, Array]]) -> list[Array]:
        """`linear` of the same x for each (weight, bias): few rows may be taken through all of them at once."""
        ...

    def rows(self, weight: Weight, which: slice | Array | None = None) -> Array:
        """Rows of a weight as numbers: a slice of them, those of an array of row numbers, or all: (..., in)."""
        ...

    def layer_norm(self, x: Array, weight: Array, bias: Array, update: Array | None = None) -> Array:
        """`(y - mean) / sqrt(variance + 1e-5) * weight + bias` over the last axis of y = x (+ update); population variance.

        `update` broadcasts against x. That both are taken in one pass saves a trip through memory and a rounding.
        """
        ...

    def gelu(self, x: Array) -> Array:
        """`x (1 + erf(x / sqrt 2)) / 2`. May overwrite x, as may the three other activation functions."""
        ...

    def relu(self, x: Array) -> Array:
        """`max(x, 0)`."""
        ...

    def silu(self, x: Array) -> Array:
        """`x / (1 + exp(-x))`, without overflow."""
        ...

    def gelu_new(self, x: Array) -> Array:
        """`x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`: gelu's approximation, without overflow."""
        ...

    def clamp_overflow(self, x: Array) -> Array:
        """X (B, ...); in float16, each document that holds an infinity or a NaN is clamped to +-(65504 - 1000).

        NaN stays NaN. In other dtypes the result is x itself.
        """
        ...

    def split_heads(self, x_BTD: Array, heads: int, queries: int = 0) -> Array:
        """(B, T, D) -> (B, H, T, K): head h takes columns h K to (h + 1) K of each row. A copy, unless x lies so already.

        Each head's rows are dense, so that a tile of them is one block of memory. But keys and values that `attend` will read
        often, for so many `queries` of a document at a time, may lie as suits the machine.
        """
        ...

    def hide(self, scores: Array, may_look: Array) -> None:
        """Set scores to minus infinity, in place, where `may_look` is False. `may_look` broadcasts against scores."""
        ...

    def softmax(self, scores: Array) -> Array:
        """Softmax over the last axis; hidden scores become 0, and so does a row that is hidden as a whole.

        May overwrite scores.
        """
        ...

    def scores(self, q_hQK: Array, k_hZK: Array) -> Array:
        """`q @ k.T` for each head: what each query has in common with each key, (h, Q, Z)."""
        ...

    def band_softmax(self, scores_hQZ: Array, globals_: int, band: Band) -> Array:
        """Softmax over the rows of a sliding window's tile: its first G columns, and of the S others the band.

        What lies outside the band becomes 0, and so does a row that sees nothing. May overwrite scores.
        The plain version: `hide` what the band does not show, then `softmax`.
        """
        ...

    def band_attend(self, scores_hQZ: Array, v_hZK: Array, globals_: int, band: Band) -> Array:
        """`band_softmax(scores) @ v`: what each query of the tile takes, (h, Q, K). May overwrite scores.

        That both are one operation lets a machine divide the K numbers of a query in place of its Z scores.
        """
        ...

    def window_attend(
        self, q_HTK: Array, k_HTK: Array, v_HTK: Array, globals_G: Array, local_T: HostArray, radius: int
    ) -> Array | None:
        """The sliding window of a whole document in one operation: (T, H, K); None: the backend has none, and takes tiles.

        Query i sees every global token, and each local one that is at most `radius` away; queries come divided by sqrt(K).
        Rows of tokens that are not local are zero; one that is sees at least itself. `globals_G` (int64) lies on the device,
        `local_T` (bool) on the host; no global token is local.
        """
        ...

    def attend(self, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None) -> Array:
        """`softmax(q @ k.T) @ v` for every document and head: (B, H, Q, K). Queries come divided by sqrt(K).

        Made for few queries and many keys, as in a decoding step: each key and value is read once for all queries.
        `may_look_BQS` is bool and broadcasts over B and Q; None: every query sees every key. A query that sees nothing
        gets zeros. Keys and values may be views of larger buffers, with capacity for more positions: a head's rows are
        dense, but the next head does not begin where the last one ends. Or they lie as `split_heads` made them.
        """
        ...

    # ---- backward: `d` before a name is the gradient of the loss with respect to it, and has its shape and dtype ----

    def linear_backward(
        self,
        dy: Array,
        x: Array,
        weight: Weight,
        into: tuple[Array, Array] | None = None,
        dx: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """Of `linear`: `dx = dy @ weight`, `dweight = dy.T @ x`, `dbias = sum of dy`, the sums over all leading axes.

        Each sum has one order, so no bit of it depends on the number of threads. `into`, (dweight, dbias), and `dx` are
        contiguous arrays to add to and to return, in place of new ones.
        """
        ...

    def layer_norm_backward(
        self, dy: Array, x: Array, weight: Array, update: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Of `layer_norm`: the gradient of `x + update` (both have it), of weight and of bias."""
        ...

    def activate_with_slope(self, x: Array, activation: str) -> tuple[Array, Array]:
        """`activation(x)`, over x, and its derivative at x: `dx = dy * slope`. One of gelu, relu, silu, gelu_new."""
        ...

    def softmax_backward(self, dprobs: Array, probs: Array) -> Array:
        """`probs (dprobs - sum(probs dprobs))`: the gradient of the scores. May overwrite dprobs. Hidden scores get 0."""
        ...

    def attend_backward(
        self, dout_BHQK: Array, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None
    ) -> tuple[Array, Array, Array]:
        """Of `attend`: (dq, dk, dv). The probabilities are computed again, some queries at a time."""
        ...

    def add_rows(self, table: Array, ids: HostArray, rows: Array) -> None:
        """`table[id] += row` for each, in place, in the order of the rows: table (V, D), ids (X,) on the host, rows (X, D)."""
        ...

    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        """Call `tile(slice)` so that the slices cover range(heads), in whatever grain and order suits the machine.

        The calls write to separate places and may run at the same time.
        """
        ...

    def for_each_block(self, work: Callable[[slice], None], rows: int) -> None:
        """Call `work(slice)` so that the slices cover range(rows): the same for work that takes each row by itself."""
        ...

    def for_each_piece(self, work: Callable[[slice], None], rows: int, width: int = 1) -> None:
        """Call `work(slice)` so that the slices cover range(rows): for short work on each number, such as an optimizer's step.

        A row has `width` numbers, and a piece as many rows as stay in a core's cache, or fill a GPU. The pieces are the same
        for any number of threads, so sums over a piece are, too.
        """
        ...
