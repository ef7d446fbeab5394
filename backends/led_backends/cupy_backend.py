"""An NVIDIA GPU: CuPy for arrays and products, kernels of our own (kernels.cu) where one trip through memory does.

**Run on one kind of GPU so far**, an NVIDIA H100: docs/gpu_report.md says when and what came out. Most machines that build
and test this project have none. What is shown without one: the kernels compile for GPUs and are executed on a CPU, thread
by thread (tests/kernels), and the model runs on a strict stand-in for CuPy (tests/stand_in). docs/gpu.md says more.

Computes in float32, float64 and float16; whatever adds up adds up in float32 (or float64). The kernels take bfloat16,
too, but the model's products of more than two axes are CuPy's, and CuPy 14.2 has none of those for bfloat16.

A GPU runs behind Python: a call only queues work. Only `to_host` waits for it. One stream, CuPy's current one.
What is not here: the arithmetic in array notation (cupy_plain.py, on which this is made), several GPUs, a plan of memory.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np

from led_backends.compact import CompactWeight, rows_of
from led_backends.contract import (
    Array,
    BackendUnavailableError,
    Band,
    DeviceMemoryError,
    HostArray,
    NoDeviceError,
    Weight,
)
from led_backends.cupy_graph import capture
from led_backends.cupy_plain import PlainOperations
from led_backends.cupy_products import float16_products
from led_backends.cupy_window import FusedWindow

# How the kernels call the dtypes that they store, by `dtype.char` (E: bfloat16), since NumPy is slow to say a dtype's name.
STORED_AS = {"f": "float", "e": "__half", "E": "__nv_bfloat16"}

# What kernels.cu says of the same names.
WARP = 32
CHUNK = 256
MAX_HEAD_WIDTH = 128
MAX_NORM_WIDTH = 1024
MAX_QUERIES = 16

# Rows that linear_few takes at most; more are a product for cuBLAS.
FEW_ROWS = 16

# Rows of a feed-forward taken through both products at a time: enough for any GPU to be full, and at F = 4096 their
# hidden numbers are 64 MiB of float32, not 256 MiB as at 16,384 rows.
BLOCK_ROWS = 4096

# Numbers in a piece of an optimizer's step: enough for any GPU to be full, and a temporary of it is 64 MiB of float32.
PIECE = 1 << 24

DRIVERS = (
    "`pip install led-ref[cuda13]` for an NVIDIA driver from 580 on, `pip install led-ref[cuda12]` from 525 on; "
    "`nvidia-smi` shows the driver's version"
)

Operation = TypeVar("Operation", bound=Callable[..., Any])


def explained(operation: Operation) -> Operation:
    """The same operation; if memory runs out in it, the error says what to do.

    A step of the decoder is some hundred of these calls, and the GPU waits for Python between them: so this is a plain
    try, which costs nothing, and not `with self.at_work()`.
    """

    @wraps(operation)
    def with_explanation(self: "CupyBackend", *args: Any, **options: Any) -> Any:
        try:
            return operation(self, *args, **options)
        except self.xp.cuda.memory.OutOfMemoryError as error:
            raise self._what_to_lower(error) from error

    return cast(Operation, with_explanation)


class CupyBackend(PlainOperations):
    """The contract (contract.py) on one GPU.

    Args:
        tf32: let float32 products round their factors to 10 bits, which tensor cores multiply several times faster. Off,
            unless CuPy's own environment variable CUPY_TF32 says otherwise.
        graphs: capture a decoding step as a CUDA graph and replay it (cupy_graph.py). Off: it has never run on a GPU.
        fused: compute a document's sliding window in one kernel (cupy_window.py). Off: it has never run on a GPU.

    Raises:
        BackendUnavailableError: without CuPy, without CUDA's libraries, or where no GPU answers.
    """

    name = "cupy"
    compute_dtypes: tuple[str, ...] = ("float32", "float64", "float16")

    # What a tile costs for each query grows with its S = Q + 2R keys, so small blocks waste least; but each tile costs some
    # nine launches, and that is Python's time. Measured on an H100 (docs/gpu.md): 1024 was never slower than 512, which
    # computes less, nor than 2048, which launches less.
    queries_per_block = 1024

    # A GPU reads memory in pieces of 16 bytes, and a row of a float16 tile begins at one only if the row before has whole
    # ones: with an odd number of columns cuBLAS takes its slowest product.
    columns_multiple = 8

    def __init__(self, *, tf32: bool = False, graphs: bool = False, fused: bool = False) -> None:
        super().__init__(_cupy_that_works())
        self._cublas = importlib.import_module("cupy_backends.cuda.libs.cublas")
        self._source = Path(__file__).with_name("kernels.cu").read_text(encoding="utf-8")
        self._kernels: dict[tuple[str, str, int], Callable[..., None]] = {}  # by kernel, dtype.char, rows or queries
        self._no_mask = self.xp.zeros(1, bool)  # in place of a mask that a kernel does not read
        self.graphs = graphs
        self._stream: Any = None  # on which graphs are captured
        self._captures = False  # whether that is being done
        self.fused = fused
        self._window = FusedWindow(self)
        self._tf32 = tf32
        if tf32:
            _allow_tf32(self.xp)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[()]]:
        """How pickle makes it again: in a process of its own, with kernels of its own."""
        return partial(type(self), tf32=self._tf32, graphs=self.graphs, fused=self.fused), ()

    def describe(self) -> str:
        """Which CuPy on which GPU, for people: "CuPy 14.2.0 on NVIDIA H100 80GB HBM3 (79 GiB)"."""
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        gibibytes = properties["totalGlobalMem"] / 2**30
        return f"CuPy {self.xp.__version__} on {properties['name'].decode()} ({gibibytes:.0f} GiB)"

    def captured(self, work: Callable[[], Array]) -> Callable[[], Array]:
        """`work` as a CUDA graph (cupy_graph.py). It cannot hold cuBLAS's products, so `linear` does without, in parts."""
        self._stream = self._stream or self.xp.cuda.Stream(non_blocking=True)
        self._captures = True
        try:
            return capture(self.xp, self._stream, work)
        finally:
            self._captures = False

    @explained
    def to_device(self, array: HostArray) -> Array:
        """A contiguous copy on the device. Ids and positions are checked before: CuPy wraps what is out of range."""
        on_device: Array = self.xp.asarray(np.ascontiguousarray(array))
        return on_device

    def to_host(self, array: Array) -> HostArray:
        """A copy on the host. Waits for the device: the only operation here that does."""
        on_host: HostArray = self.xp.asnumpy(array)
        return on_host

    @explained
    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        """`x @ weight.T + bias`, all leading axes of x taken together as rows of one product. Few: one launch."""
        rows = x.size // x.shape[-1]
        if self._captures and rows > FEW_ROWS:
            return self._linear_in_parts(x.reshape(rows, -1), weight, bias).reshape(*x.shape[:-1], -1)
        if not 0 < rows <= FEW_ROWS or x.dtype.char not in STORED_AS or isinstance(weight, CompactWeight):
            return super().linear(x, weight, bias)
        outputs, width = weight.shape
        out: Array = self.xp.empty((*x.shape[:-1], outputs), x.dtype)
        arguments = (self._dense(x), self._dense(rows_of(weight)), self._dense(bias), out, *_ints(rows, width, outputs))
        most = 1 << (rows - 1).bit_length()  # compiled for 1, 2, 4, 8 and 16 rows
        self.launch("linear_few", x, outputs * WARP, 256, *arguments, of=most)
        return out

    def _linear_in_parts(self, x_XD: Array, weight: Weight, bias: Array) -> Array:
        """Of FEW_ROWS rows at a time."""
        y_XF: Array = self.xp.empty((len(x_XD), weight.shape[0]), x_XD.dtype)
        for start in range(0, len(x_XD), FEW_ROWS):
            part = slice(start, start + FEW_ROWS)
            y_XF[part] = self.linear(x_XD[part], weight, bias)
        return y_XF

    @explained
    def layer_norm(self, x: Array, weight: Array, bias: Array, update: Array | None = None) -> Array:
        """LayerNorm of x, or of x + update, in one pass over each row. Leaves both alone."""
        width = x.shape[-1]
        if x.dtype.char not in STORED_AS or width > MAX_NORM_WIDTH or not x.size:
            return super().layer_norm(x, weight, bias, update)
        x, update_rows, updates = self._dense(x), 0, x
        if update is not None:
            shape = update.shape[next((n for n, size in enumerate(update.shape) if size > 1), update.ndim - 1) :]
            if shape != x.shape[x.ndim - len(shape) :]:  # not the same for all leading axes, as positions are
                update = self.xp.broadcast_to(update, x.shape)
            updates = self._dense(update)
            update_rows = updates.size // width
        out: Array = self.xp.empty(x.shape, x.dtype)
        rows = x.size // width
        arguments = (x, updates, self._dense(weight), self._dense(bias), out)
        self.launch("layer_norm", x, rows * WARP, 128, *arguments, *_ints(rows, width, update_rows))
        return out

    @explained
    def gelu(self, x: Array) -> Array:
        """`x Phi(x)` in place, a thread for each number."""
        if x.dtype.char not in STORED_AS or not x.size:
            return super().gelu(x)
        if not x.flags.c_contiguous:
            raise ValueError("gelu works in place and needs a contiguous array.")
        self.launch("gelu", x, x.size, 256, x, np.int64(x.size))
        return x

    relu = explained(PlainOperations.relu)
    silu = explained(PlainOperations.silu)
    gelu_new = explained(PlainOperations.gelu_new)
    clamp_overflow = explained(PlainOperations.clamp_overflow)
    hide = explained(PlainOperations.hide)
    scores = explained(PlainOperations.scores)
    band_attend = explained(PlainOperations.band_attend)
    rows = explained(PlainOperations.rows)

    @explained
    def softmax(self, scores: Array) -> Array:
        """Softmax over the last axis, in place if the scores are dense: a band_softmax without a band."""
        if scores.dtype.char not in STORED_AS or not scores.size:
            return super().softmax(scores)
        return self._softmax_of_rows(self._dense(scores), 1, scores.shape[-1], Band(0, 0, None))

    def _products(self, a: Array, b: Array) -> Array:
        """`a @ b` of stacks of matrices; float16 by tensor cores, which `@` does not use (cupy_products.py)."""
        if a.dtype.char != "e" or not (a.size and b.size):
            return super()._products(a, b)
        return float16_products(self.xp, self._cublas, a, b)

    @explained
    def band_softmax(self, scores_hQZ: Array, globals_: int, band: Band) -> Array:
        """Softmax over the rows of a tile in place; the kernel knows the band, and no mask is made."""
        if scores_hQZ.dtype.char not in STORED_AS or not scores_hQZ.size:
            return super().band_softmax(scores_hQZ, globals_, band)
        return self._softmax_of_rows(self._dense(scores_hQZ), scores_hQZ.shape[1], globals_, band)

    def _softmax_of_rows(self, scores: Array, queries: int, globals_: int, band: Band) -> Array:
        columns = scores.shape[-1]
        threads = 1024 if columns > 4096 else 256  # a row of a whole document is one of few, and a block has it alone
        mask = self._no_mask if band.local_S is None else self._dense(band.local_S)
        sizes = _ints(band.local_S is not None, queries, globals_, columns - globals_, band.first, band.radius)
        self.launch("band_softmax", scores, scores.size // columns * threads, threads, scores, mask, *sizes)
        return scores

    @explained
    def attend(self, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None) -> Array:
        """Few queries: the positions in chunks over the whole GPU (kernels.cu says how). Many: products, as it is written."""
        documents, heads, queries, width = q_BHQK.shape
        positions = k_BHSK.shape[2]
        few = queries <= MAX_QUERIES and width <= MAX_HEAD_WIDTH and q_BHQK.dtype.char in STORED_AS
        if not (few and q_BHQK.size and positions):
            return super().attend(q_BHQK, k_BHSK, v_BHSK, may_look_BQS)
        xp, chunks = self.xp, math.ceil(positions / CHUNK)
        keys, key_stride = self.store(k_BHSK)
        values, value_stride = self.store(v_BHSK)
        mask, look_document, look_query = self._no_mask, 0, 0
        if may_look_BQS is not None:
            mask = self._dense(may_look_BQS)
            look_query = positions if mask.shape[1] > 1 else 0
            look_document = mask.shape[1] * positions if mask.shape[0] > 1 else 0
        of_chunk = (documents * heads, chunks, queries)
        highest, total = xp.empty(of_chunk, "float32"), xp.empty(of_chunk, "float32")
        sums = xp.empty((*of_chunk, width), "float32")
        sizes = _ints(may_look_BQS is not None, heads, positions, width)
        q_BHQK = self._dense(q_BHQK)
        strides = (key_stride, value_stride, look_document, look_query)  # 8 bytes each, as Python's go to a kernel
        arguments = (q_BHQK, keys, values, mask, highest, total, sums, *sizes, *strides)
        self.launch("attend_chunk", q_BHQK, documents * heads * chunks * CHUNK, CHUNK, *arguments, of=queries)
        out_BQHK: Array = xp.empty(
            (documents, queries, heads, width), q_BHQK.dtype
        )  # as it is read: heads side by side
        sizes = _ints(documents * heads * queries, chunks, queries, heads, width)
        self.launch("attend_combine", out_BQHK, out_BQHK.size, 256, highest, total, sums, out_BQHK, *sizes)
        out_BHQK: Array = out_BQHK.swapaxes(1, 2)
        return out_BHQK

    @explained
    def window_attend(
        self, q_HTK: Array, k_HTK: Array, v_HTK: Array, globals_G: Array, local_T: HostArray, radius: int
    ) -> Array | None:
        """By one kernel, if that was asked for and has shown that it computes the same (cupy_window.py)."""
        return self._window(q_HTK, k_HTK, v_HTK, globals_G, local_T, radius) if self.fused else None

    @explained
    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        """All heads in one call: one launch for all of them is what fills a GPU."""
        tile(slice(0, heads))

    @explained
    def for_each_block(self, work: Callable[[slice], None], rows: int) -> None:
        """Blocks of BLOCK_ROWS rows, one after the other."""
        for start in range(0, rows, BLOCK_ROWS):
            work(slice(start, min(start + BLOCK_ROWS, rows)))

    @explained
    def for_each_piece(self, work: Callable[[slice], None], rows: int, width: int = 1) -> None:
        """Pieces of PIECE numbers, one after the other."""
        step = max(1, PIECE // width)
        for start in range(0, rows, step):
            work(slice(start, min(start + step, rows)))

    def free_memory(self) -> int | None:
        """What the GPU has free and CuPy's pool holds unused, within the pool's limit."""
        pool = self.xp.get_default_memory_pool()
        free: int = self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
        return min(free, pool.get_limit() - pool.used_bytes()) if pool.get_limit() else free

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts, CuPy's out-of-memory error becomes one that says what to lower.

        The operations do this by themselves; whoever makes large arrays through `xp` puts them under it, too.

        Raises:
            DeviceMemoryError: in place of cupy.cuda.memory.OutOfMemoryError.
        """
        try:
            yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            raise self._what_to_lower(error) from error

    def _what_to_lower(self, error: Exception) -> DeviceMemoryError:
        free, all_of_it = self.xp.cuda.runtime.memGetInfo()
        pool = self.xp.get_default_memory_pool()
        limit = f"{pool.get_limit():,} bytes" if pool.get_limit() else "none"
        return DeviceMemoryError(
            f"{error} Of the GPU's {all_of_it:,} bytes {free:,} are free; CuPy's pool holds {pool.total_bytes():,}, of "
            f"which {pool.free_bytes():,} are unused; its limit: {limit}. Give fewer tokens, beams or documents at a time, "
            "dtype='float16', or cross_attention='folded', which keeps no keys and values of the document."
        )

    def launch(self, kernel: str, stored: Array, threads: int, of_block: int, *arguments: Any, of: int = 0) -> None:
        """Queue a kernel for the dtype of `stored` (and `of` rows or queries), on as many blocks as hold `threads` threads."""
        key = kernel, stored.dtype.char, of
        launch = self._kernels.get(key)
        if launch is None:  # compiled now, and kept by CuPy on disk
            name = f"{kernel}<{STORED_AS[stored.dtype.char]}{f', {of}' if of else ''}>"
            module = self.xp.RawModule(code=self._source, options=("-std=c++17",), name_expressions=(name,))
            launch = self._kernels[key] = module.get_function(name)
        launch((math.ceil(threads / of_block),), (of_block,), arguments)

    def _dense(self, x: Array) -> Array:
        """x, copied only if it does not lie in memory as its axes run: a kernel gets a pointer and knows no strides."""
        dense: Array = x if x.flags.c_contiguous else self.xp.ascontiguousarray(x)
        return dense

    def store(self, x_BHSK: Array) -> tuple[Array, int]:
        """Keys or values, and how many numbers apart heads begin in them: a buffer may have capacity for more positions.

        Each head has to be dense and heads equally far apart. Else it is a dense copy.
        """
        documents, heads, positions, width = x_BHSK.shape
        size = x_BHSK.itemsize
        of_document, of_head, *within = x_BHSK.strides
        if within != [width * size, size] or (documents > 1 and of_document != heads * of_head):
            return self._dense(x_BHSK), positions * width
        return x_BHSK, of_head // size


@lru_cache(maxsize=1024)  # the layers of a model ask for the same ones
def _ints(*numbers: int) -> tuple[np.int32, ...]:
    """Numbers as a kernel's `int`: CuPy would hand over Python's in 8 bytes."""
    return tuple(np.int32(n) for n in numbers)


def _cupy_that_works() -> Any:
    """The module cupy, once a GPU has answered and multiplied."""
    try:
        import cupy
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        raise (NoDeviceError if is_missing else BackendUnavailableError)(
            f"The GPU backend needs CuPy, which cannot be imported ({error}). {DRIVERS}. Without a GPU: backend='numpy'."
        ) from error
    try:
        if not cupy.cuda.runtime.getDeviceCount():
            raise RuntimeError("CUDA counts no device")
        cupy.ones((2, 3), "float32") @ cupy.ones((3, 2), "float32")  # loads cuBLAS; waits for nothing
    except (RuntimeError, ImportError) as error:
        is_missing = any(words in str(error) for words in ("counts no device", "cudaErrorNoDevice"))
        raise (NoDeviceError if is_missing else BackendUnavailableError)(
            f"CuPy {cupy.__version__} is installed, but no GPU answers: {error}. {DRIVERS}; it fails where there is no NVIDIA "
            "GPU. Without one: backend='numpy'."
        ) from error
    return cupy


def _allow_tf32(cupy: Any) -> None:
    """CuPy has a public switch for this only as an environment variable; what the variable sets is set here."""
    from cupy._core import _routines_linalg  # private: CuPy 14

    _routines_linalg.set_compute_type(np.float32, _routines_linalg.COMPUTE_TYPE_TF32)
