"""Reading .safetensors by memory map, trusting nothing that a file says of itself; and writing it, whole or not at all.

The format is eight bytes, a text and the numbers:

    offset 0      8 bytes   n, the length of the header, little-endian
    offset 8      n bytes   the header, a JSON object in UTF-8, padded with spaces
    offset 8 + n  the rest  the tensors' bytes, one after the other

    {"__metadata__": {"format": "pt"},
     "fc1.bias": {"dtype": "F32", "shape": [3072], "data_offsets": [0, 12288]}, ...}

Nothing in it can run, which is its point. But a header can lie: about its own length, about shapes whose product is
not the number of bytes, about offsets outside the file or inside one another's range. All of that is checked before a
single number is looked at. (`F32 (3072,)` is 4 * 3072 = 12288 bytes, and [0, 12288] spans just as many.)

What this file does not do: it does not know which tensors an LED needs (keys.py), nor sharded checkpoints (load.py).
Source: the format's description in the safetensors library, which also does the writing here.
"""

import json
import math
import mmap
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.weights.stored_tensor import NUMPY_DTYPES, Refuse, StoredTensor, map_file, name_foreign_content

MAX_HEADER_BYTES = 100_000_000  # the library's own limit; LED-large's header has 80 thousand
MAX_TENSORS = 100_000  # LED-large has 587
MAX_DIMENSIONS = 64  # NumPy's limit

# Bytes per step when a written file is compared with what should be in it.
_COMPARED_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class TensorEntry:
    """What the header says of one tensor: its dtype name, its shape, and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """A checked header: the tensors in the order of the file's bytes, and the `__metadata__`."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_header(path: str | Path) -> SafetensorsHeader:
    """The checked header of a file; the numbers are not touched.

    Raises:
        MissingFileError: if there is no such file.
        CheckpointError: if anything in the header is not as the format has it.
    """
    return _checked_header(map_file(path), Path(path))


def read_safetensors(path: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a file, as read-only views into its memory map, in the order of the file's bytes.

    Raises:
        MissingFileError: if there is no such file.
        CheckpointError: if anything in the header is not as the format has it.
    """
    mapped = map_file(path)
    header = _checked_header(mapped, Path(path))
    return {
        name: StoredTensor(
            entry.dtype, np.ndarray(entry.shape, NUMPY_DTYPES[entry.dtype], buffer=mapped, offset=entry.start)
        )
        for name, entry in header.tensors.items()
    }


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...], HostArray | bytes]],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a file so that under its name there is at every moment the old file or the whole new one, never a part.

    The library writes into a hidden file beside the target; that is read back and compared byte for byte, and only then
    takes the target's name. Whatever goes wrong, Ctrl-C included, the hidden file is removed.

    The library wants all tensors at once, so they are all in memory while it writes; but nothing is copied, and a view
    into a memory map (what the readers return) takes no memory of its own.

    Args:
        path: the file to write. Its folder must exist.
        tensors: name -> (dtype name, shape, data): an array in NUMPY_DTYPES[dtype] (bfloat16 as uint16 bit patterns, as
            `narrow` gives it), or the tensor's bytes in row-major, little-endian order.
        metadata: text to keep in the header; transformers wants {"format": "pt"}.

    Returns:
        The path.

    Raises:
        InputError: if a tensor's data has not the dtype, shape or size that is said of it.
        MissingFileError: if the folder does not exist.
        CheckpointError: if the disk does not take the file, or does not give back what was written.
    """
    import safetensors

    path = Path(path)
    if not path.parent.is_dir():
        raise MissingFileError(f"There is no folder {path.parent} to write {path.name} into. Make it first.")
    raw = {name: _row_major_bytes(name, *given) for name, given in tensors.items()}
    specs = {
        name: safetensors.TensorSpec(
            dtype=_LIBRARY_NAMES[dtype], shape=list(shape), data_ptr=raw[name].ctypes.data, data_len=raw[name].nbytes
        )
        for name, (dtype, shape, _) in tensors.items()
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # as the umask has it; the library would make the file private to its owner
        safetensors.serialize_file(specs, unfinished, metadata=dict(metadata) if metadata else None)
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())  # wait until the bytes are on the disk and not only on their way
        _compare(unfinished, tensors, raw, dict(metadata or {}))
        os.replace(unfinished, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({error}). See to the disk's space and permissions; no part of it was left."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


# ---- the header -----------------------------------------------------------------------------------------------------


def _checked_header(mapped: mmap.mmap, path: Path) -> SafetensorsHeader:
    """Everything that the format demands, in the order in which it can be known."""
    refuse = partial(_refusal, path)
    if len(mapped) < 8:
        raise refuse(f"it has {len(mapped)} bytes, fewer than the 8 that every such file begins with")
    length = int.from_bytes(mapped[:8], "little")
    data_start = 8 + length
    if length > MAX_HEADER_BYTES or data_start > len(mapped):
        raise refuse(
            f"its header claims {length} bytes, but the file has {len(mapped)} in all and a header at most "
            f"{MAX_HEADER_BYTES}. {name_foreign_content(mapped[:64])}Or the download was cut off"
        )
    header = _parse_json(mapped[8:data_start], refuse)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refuse("its __metadata__ is not an object of strings")
    if len(header) > MAX_TENSORS:
        raise refuse(f"it names {len(header)} tensors, more than the {MAX_TENSORS} that are read")
    entries = {name: _checked_entry(name, values, data_start, refuse) for name, values in header.items()}
    by_place = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)))
    _check_cover(by_place, data_start, len(mapped), refuse)
    return SafetensorsHeader(by_place, metadata)


def _refusal(path: Path, found: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a sound safetensors file: {found}. Fetch or convert it again.")


def _parse_json(header: bytes, refuse: Refuse) -> dict[str, Any]:
    """The header as a dictionary, more strictly than Python's json has it: no name twice, no number but 0, 1, 2, ..."""

    def object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            (repeated, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise refuse(f"its header has the name {repeated[:200]!r} twice")
        return values

    def whole_number(digits: str) -> int:
        if not digits.isdecimal() or len(digits) > 19:  # 19 digits hold every offset that a file can have
            raise refuse(f"its header has the number {digits[:40]}, which is no size, dimension or offset")
        return int(digits)

    # Each comma and bracket becomes a Python object of some 60 bytes: count them, lest a small file ask for gigabytes.
    if sum(header.count(mark) for mark in (b",", b"[", b"{")) > 16 * MAX_TENSORS:
        raise refuse(f"its header has more lists and commas than {MAX_TENSORS} tensors need")
    if header[:1] != b"{":
        raise refuse(f"its header begins with {bytes(header[:8])!r}, not with a brace")
    try:
        text = header.decode("utf-8")
        values = json.loads(
            text,
            object_pairs_hook=object_without_repeats,
            parse_int=whole_number,
            parse_float=whole_number,
            parse_constant=whole_number,
        )
        json.dumps(values, ensure_ascii=False).encode("utf-8")  # half a surrogate pair, written "\\ud800", is no text
    except (UnicodeError, json.JSONDecodeError, RecursionError) as error:
        raise refuse(f"its header is not JSON in UTF-8 ({str(error)[:200]})") from error
    assert isinstance(values, dict)  # it begins with a brace
    return values


def _checked_entry(name: str, values: object, data_start: int, refuse: Refuse) -> TensorEntry:
    """One tensor's entry, if dtype, shape and offsets exist, are of the right kind, and agree about the size."""
    shown = repr(name[:200])
    if not isinstance(values, dict) or set(values) != {"dtype", "shape", "data_offsets"}:
        raise refuse(f"the entry {shown} is not an object of dtype, shape and data_offsets")
    dtype, shape, offsets = values["dtype"], values["shape"], values["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMPY_DTYPES:
        raise refuse(f"{shown} has the dtype {str(dtype)[:40]!r}; known are {', '.join(NUMPY_DTYPES)}")
    if not _is_list_of_whole(shape) or len(shape) > MAX_DIMENSIONS:
        raise refuse(f"{shown} has the shape {str(shape)[:80]}, not at most {MAX_DIMENSIONS} whole numbers")
    if not _is_list_of_whole(offsets) or len(offsets) != 2:
        raise refuse(f"{shown} has the data_offsets {str(offsets)[:80]}, not two whole numbers")
    size = math.prod(shape) * NUMPY_DTYPES[dtype].itemsize
    start, stop = offsets
    if stop - start != size:
        raise refuse(
            f"{shown} is {dtype} of shape {shape}, {size} bytes, but data_offsets {offsets} span {stop - start}"
        )
    if math.prod(max(n, 1) for n in shape) >= 2**59:  # a 0 among the dimensions hides the others from `size`
        raise refuse(f"{shown} has the shape {shape}, beyond what an array can have")
    return TensorEntry(dtype, tuple(shape), data_start + start, data_start + stop)


def _is_list_of_whole(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int for n in value)  # a bool is an int, but not of this type


def _check_cover(by_place: Mapping[str, TensorEntry], data_start: int, file_size: int, refuse: Refuse) -> None:
    """The tensors lie end to end from the header to the end of the file: no overlap, no gap, nothing outside."""
    previous, position = "the header", data_start
    for name, entry in by_place.items():
        if entry.start != position:
            what = "overlaps" if entry.start < position else "leaves a hole after"
            raise refuse(
                f"{name[:200]!r} begins at byte {entry.start} and {what} {previous[:200]!r}, which ends at {position}"
            )
        previous, position = name, entry.stop
    if position != file_size:
        raise refuse(
            f"its tensors end at byte {position}, but the file has {file_size}. "
            + ("It was cut off" if position > file_size else "Something was added to it")
        )


# ---- writing --------------------------------------------------------------------------------------------------------

# What the library calls the dtypes when it writes.
_LIBRARY_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def _row_major_bytes(name: str, dtype: str, shape: tuple[int, ...], data: HostArray | bytes) -> HostArray:
    """The tensor's bytes as a flat uint8 array: without a copy, unless it is strided. Refuses what does not fit."""
    if dtype not in NUMPY_DTYPES:
        raise InputError(f"{name} has the dtype {dtype!r}; known are {', '.join(NUMPY_DTYPES)}.")
    wanted = NUMPY_DTYPES[dtype]
    if isinstance(data, np.ndarray):
        if data.dtype != wanted or data.shape != tuple(shape):
            raise InputError(
                f"{name} is announced as {dtype} {tuple(shape)} but is a {data.dtype} array of shape {data.shape}. "
                f"narrow(array, {dtype!r}) makes such an array of floats."
            )
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    size = math.prod(shape) * wanted.itemsize
    if len(data) != size:
        raise InputError(f"{name} is announced as {dtype} {tuple(shape)}, {size} bytes, but {len(data)} were given.")
    return np.frombuffer(data, np.uint8)


def _compare(
    unfinished: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...], HostArray | bytes]],
    raw: Mapping[str, HostArray],
    metadata: Mapping[str, str],
) -> None:
    """Read the file back with this module's own reader and hold it against what should be in it."""
    written = read_safetensors(unfinished)
    if written.keys() != tensors.keys() or read_header(unfinished).metadata != metadata:
        raise CheckpointError(
            f"{unfinished} holds other names than were written to it. See to the disk; write it again."
        )
    for name, (dtype, shape, _) in tensors.items():
        found = written[name]
        found_bytes = found.data.reshape(-1).view(np.uint8)
        if (found.dtype, found.shape) != (dtype, tuple(shape)) or not all(
            np.array_equal(found_bytes[i : i + _COMPARED_AT_ONCE], raw[name][i : i + _COMPARED_AT_ONCE])
            for i in range(0, found_bytes.size, _COMPARED_AT_ONCE)
        ):
            raise CheckpointError(
                f"{unfinished} does not give back {name} as it was written. See to the disk; write it again."
            )
