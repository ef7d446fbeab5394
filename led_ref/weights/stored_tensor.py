"""Tensors of a checkpoint file: memory-mapped bytes with a dtype name, and their conversion to and from NumPy floats.

A checkpoint of 650 MB is mapped, not read. The operating system shows the file as memory and fetches a page at its first
access. So opening takes milliseconds, and unchanged pages can be shared and dropped. A `StoredTensor` is a view into such
a map: a dtype name, and a NumPy array without a copy.

So the file must stay as it is while its tensors are in use. If another program rewrites it in place, the numbers change; if
it cuts the file off, the system ends the process at the next access (SIGBUS). led_ref itself never does either: it writes a
new file and renames it (files/staging.py), and a map keeps the old one. `mmap=False` reads the file into memory instead.

bfloat16, which NumPy does not know, is a float32 without its lower 16 bits. Its 16 bits are kept as uint16, and widening is a
shift:

    >>> import numpy as np
    >>> bits = np.array([0x3FC0], dtype="<u2")           # sign 0, exponent 0111 1111, fraction 1000000: 1.5
    >>> StoredTensor("BF16", bits).to_numpy().tolist()
    [1.5]

This file knows no file format: safetensors_file.py and torch_files/ find the bytes.
"""

import math
import mmap as memory_maps
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_READ
from mmap import mmap as MemoryMap
from pathlib import Path
from typing import TypeAlias

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import CheckpointError, InputError, MissingFileError

# safetensors' dtype names, and the NumPy dtype of the same bytes. Files are little-endian on every machine.
# BF16 are bit patterns, not numbers.
_CODES = "F64 <f8, F32 <f4, F16 <f2, BF16 <u2, I64 <i8, I32 <i4, I16 <i2, I8 i1, U8 u1, BOOL ?"
NUMPY_DTYPES = {name: np.dtype(code) for name, code in (entry.split() for entry in _CODES.split(", "))}

# The names in config.json, led_backends and the safetensors library: "F32" -> "float32".
DTYPE_NAMES = {name: dtype.name for name, dtype in NUMPY_DTYPES.items()} | {"BF16": "bfloat16"}
FLOAT_NAMES = ("F64", "F32", "F16", "BF16")
_COMPUTED = {DTYPE_NAMES[name]: name for name in ("F32", "F64", "F16")}
HALF_NAMES = {name: DTYPE_NAMES[name] for name in ("F16", "BF16")}

MAX_TENSORS = 100_000  # of one file; LED-large has 587
MAX_DIMENSIONS = 64  # NumPy's limit

# A reader's function that makes the error for one file from a description of the fault.
Refuse: TypeAlias = Callable[[str], CheckpointError]
FileBytes: TypeAlias = MemoryMap | bytes


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint file.

    Args:
        dtype: safetensors' name of the element type: a key of NUMPY_DTYPES.
        data: read-only view of the file's bytes, in NUMPY_DTYPES[dtype]; bfloat16 as its uint16 bit patterns.
            It can be strided (a transposed tensor of a .bin) and unaligned (in a .bin from before PyTorch 1.6).
    """

    dtype: str
    data: HostArray

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.data.shape

    def to_numpy(self, dtype: str = "float32") -> HostArray:
        """The numbers in a dtype and in the machine's own byte order; same shape.

        Widening (float16 or bfloat16 to float32, any of them to float64) is exact; float64 to float32, and anything to
        float16, rounds to nearest even. If the file has this dtype and its bytes are aligned, nothing is copied and the
        result is read-only.

        Args:
            dtype: "float32", "float64" or "float16"; for a tensor of integers or booleans, its own NumPy dtype.

        Raises:
            CheckpointError: if the tensor holds integers and `dtype` is a float.
            InputError: if `dtype` is another, or a finite number is too large for it.
        """
        if self.dtype not in FLOAT_NAMES:
            own = self.data.dtype.newbyteorder("=")
            if np.dtype(dtype) != own:
                raise CheckpointError(
                    f"A tensor of shape {self.shape} holds {own.name}, not {dtype}. An LED's weights are floats: "
                    "convert the checkpoint's tensors with .float() before saving it."
                )
            return _aligned(self.data, own)
        if dtype not in _COMPUTED:
            raise InputError(f"LED cannot compute in dtype {dtype!r}; choose {', '.join(_COMPUTED)}.")
        numbers = self.data
        if self.dtype == "BF16":
            bits = self.data.astype(np.uint32)
            bits <<= np.uint32(16)
            numbers = bits.view(np.float32)
        if np.dtype(dtype).itemsize < numbers.dtype.itemsize:
            return narrow(numbers, _COMPUTED[dtype])
        return _aligned(numbers, np.dtype(dtype))


def from_numpy(name: str, array: HostArray) -> StoredTensor:
    """A NumPy array as a StoredTensor, without a copy.

    Raises:
        InputError: with the tensor's `name`, if its dtype is none of NUMPY_DTYPES.
    """
    for dtype, numpy_dtype in NUMPY_DTYPES.items():
        if dtype != "BF16" and array.dtype == numpy_dtype:
            return StoredTensor(dtype, array)
    raise InputError(f"{name} holds {array.dtype}, which safetensors does not have. Convert it to a float or int type.")


def narrow(array: HostArray, dtype: str, *, name: str = "tensor") -> HostArray:
    """The same numbers in a checkpoint's float type, rounded to nearest, ties to even; NaN stays NaN.

    Args:
        array: float16, float32 or float64, any shape.
        dtype: "F16", "BF16", "F32" or "F64".
        name: the array's name in errors.

    Returns:
        An array in NUMPY_DTYPES[dtype] (bfloat16: uint16 bit patterns), same shape; `array` itself if it has this dtype.

    Raises:
        InputError: if a finite number is too large for the type (float16 ends at 65504), or the type is not a float.

    Example:
        >>> import numpy as np
        >>> hex(narrow(np.array([1.5], np.float32), "BF16")[0])
        '0x3fc0'
    """
    if dtype not in FLOAT_NAMES:
        raise InputError(f"{name} cannot be written as {dtype!r}; choose one of {', '.join(FLOAT_NAMES)}.")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(f"{name} is {array.dtype.name}; only float16, float32 and float64 can be written as {dtype}.")
    if dtype == "BF16":
        narrowed = _bfloat16_bits(array)
        is_infinite = (narrowed & 0x7FFF) == 0x7F80
    else:
        with np.errstate(over="ignore"):  # an overflow raises below
            narrowed = array.astype(NUMPY_DTYPES[dtype], copy=False)
        if narrowed.dtype.itemsize >= array.dtype.itemsize:
            return narrowed
        is_infinite = np.isinf(narrowed)
    overflows = is_infinite & np.isfinite(array)
    if overflows.any():
        raise InputError(
            f"{name} holds {float(array[overflows].flat[0])!r}, which is finite but too large for {dtype}. "
            "Keep a wider type: BF16 has nearly the range of F32 in half its bytes."
        )
    return narrowed


def file_bytes(path: str | Path, *, mmap: bool = True) -> FileBytes:
    """The bytes of a whole file, read-only: mapped, and so as long as an array uses them; with `mmap=False` a copy in memory.

    Raises:
        MissingFileError: if the file does not exist.
        CheckpointError: if it is a folder, is empty, or cannot be opened.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"There is no file {path}. Put the checkpoint's file there, or name another.")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a plain file. Name the file of weights itself.")
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise CheckpointError(f"{path} is empty (0 bytes). Fetch the file again.")
            return MemoryMap(file.fileno(), 0, access=ACCESS_READ) if mmap else file.read()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}). Check its permissions and disk.") from error


def let_go(array: HostArray) -> None:
    """Give back the memory of the map that an array is a view of, if it is; the next access reads the file again.

    A map's pages count as the process's memory from their first use. Who has copied what he needs has no use for them.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, MemoryMap) and hasattr(memory_maps, "MADV_DONTNEED"):  # Windows has none
        base.madvise(memory_maps.MADV_DONTNEED)


def name_foreign_content(head: bytes) -> str:
    """The probable format of a file that is no checkpoint, by its first bytes; "" if they are unknown."""
    known = {
        b"version https://git-lfs": "It is a Git LFS pointer instead of the file: run `git lfs pull`. ",
        b"<": "It is a web page instead of the file. ",
        b"PK\x03\x04": "It is a zip archive, perhaps a pytorch_model.bin. ",
        b"\x80": "It is a pickle, perhaps an old pytorch_model.bin. ",
    }
    return next((hint for start, hint in known.items() if head.startswith(start)), "")


def is_too_large(shape: tuple[int, ...] | list[int]) -> bool:
    """Whether NumPy cannot make an array of this shape. A 0 in the shape does not hide the other sizes."""
    return math.prod(max(n, 1) for n in shape) >= 2**59


def _aligned(array: HostArray, dtype: np.dtype[np.generic]) -> HostArray:
    """`array` in `dtype`, copied only if it has another dtype or is unaligned."""
    if array.dtype == dtype and array.flags.aligned:
        return array
    return array.astype(dtype)


def _bfloat16_bits(array: HostArray) -> HostArray:
    """The nearest bfloat16 of each number, ties to even, as its 16 bits: uint16, same shape."""
    # Keep the upper 16 bits of a float32. Adding 0x7FFF carries into them if the lower half is more than a half; at a
    # tie, the last kept bit is added and decides. Infinity has a lower half of zeros and does not change. The carry
    # could turn a NaN into an infinity, so NaNs are set separately.
    bits = _float32_rounded_to_odd(array).view(np.uint32)
    last_kept = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = np.asarray((bits + (np.uint32(0x7FFF) + last_kept)) >> np.uint32(16), dtype="<u2")
    is_nan = np.isnan(array)
    rounded[is_nan] = (bits[is_nan] >> np.uint32(16)).astype("<u2") | np.uint16(0x40)  # 0x40: quiet, never infinity
    return rounded


def _float32_rounded_to_odd(array: HostArray) -> HostArray:
    """`array` in float32, "rounded to odd": rounding the result to fewer bits equals rounding `array` once.

    Rounding to nearest twice can be wrong: 1 + 2**-8 + 2**-40 becomes 1 + 2**-8 in float32, which is a tie in bfloat16
    and rounds down instead of up. Rounding to odd truncates, and sets the last bit if a bit was lost: then only a true
    tie has the bits of a tie.
    """
    if array.dtype.itemsize <= 4:
        return np.array(array, dtype=np.float32)
    with np.errstate(over="ignore"):
        nearest = np.array(array, dtype=np.float32)
    bits = nearest.view(np.uint32)
    is_inexact = np.isfinite(array) & (nearest != array)
    bits[np.abs(nearest) > np.abs(array)] -= np.uint32(1)  # the next float32 towards zero
    bits[is_inexact] |= np.uint32(1)
    return nearest
