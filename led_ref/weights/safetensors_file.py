"""Read .safetensors by memory map, with every statement of the header checked; write them atomically.

A file is eight bytes, a header and the numbers:

    offset 0      8 bytes   n, the length of the header, little-endian
    offset 8      n bytes   the header, a JSON object in UTF-8, padded with spaces
    offset 8 + n  the rest  the tensors' bytes, without gaps

    {"__metadata__": {"format": "pt"},
     "fc1.bias": {"dtype": "F32", "shape": [3072], "data_offsets": [0, 12288]}, ...}

The format contains no code, which is its purpose. But a header can be wrong: its own length, a shape whose size is not
the number of bytes, offsets outside the file, or two tensors that overlap. All of this is checked before any number is
read. (`F32 (3072,)` is 4 * 3072 = 12288 bytes, as many as [0, 12288] spans.)

keys.py knows which tensors an LED has, find_files.py reads shards.
Source: the format's description in the safetensors library, which writes the files here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import CheckpointError, InputError, MissingFileError, reason_of
from led_ref.files.json_file import MAX_BYTES, parse_json, unique_object
from led_ref.files.staging import new_file, to_write
from led_ref.weights.stored_tensor import (
    DTYPE_NAMES,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    NUMPY_DTYPES,
    FileBytes,
    Refuse,
    StoredTensor,
    file_bytes,
    is_too_large,
    name_foreign_content,
)

MAX_HEADER_BYTES = MAX_BYTES  # the library takes six times as many; LED-large's header has 80 thousand

# Bytes per step of the comparison of a written file with its tensors.
_COMPARED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a header: its dtype name, its shape, and the range of its bytes in the file."""

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
    """The checked header of a file, without reading its numbers; errors as in `read_safetensors`."""
    return _checked_header(file_bytes(path), Path(path))


def read_safetensors(path: str | Path, *, mmap: bool = True) -> dict[str, StoredTensor]:
    """All tensors of a file, as read-only views into its memory map (without `mmap`: its copy), in the file's order.

    Raises:
        MissingFileError: if the file does not exist.
        CheckpointError: if its header violates the format.
    """
    mapped = file_bytes(path, mmap=mmap)
    header = _checked_header(mapped, Path(path))
    return {
        name: StoredTensor(entry.dtype, np.ndarray(entry.shape, NUMPY_DTYPES[entry.dtype], mapped, entry.start))
        for name, entry in header.tensors.items()
    }


def write_safetensors(
    path: str | Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a file atomically: its name always stands for the old file or the whole new one, never for a part.

    The library writes a file in a hidden folder beside the target, which is read back, compared byte for byte, and renamed
    to the target; after any error, Ctrl-C included, it is removed. The library takes all tensors at once; but nothing is
    copied, and a view into a memory map (the readers' result) takes no memory of its own.

    Args:
        path: the file to write. Its folder must exist.
        tensors: the tensors by name, each with its array in NUMPY_DTYPES[dtype] (`narrow` makes one of floats).
        metadata: text for the header; transformers requires {"format": "pt"}.

    Returns:
        The path.

    Raises:
        InputError: if a tensor's array has another dtype.
        MissingFileError: if the folder does not exist.
        CheckpointError: if the file cannot be written, or read back unchanged.
    """
    import safetensors

    path = to_write("path", path)
    if not path.parent.is_dir():
        raise MissingFileError(f"There is no folder {path.parent} for {path.name}. Make it first.")
    raw = {name: _row_major_bytes(name, tensor) for name, tensor in tensors.items()}
    specs = {
        name: safetensors.TensorSpec(
            dtype=DTYPE_NAMES[tensor.dtype],
            shape=list(tensor.shape),
            data_ptr=raw[name].ctypes.data,
            data_len=raw[name].nbytes,
        )
        for name, tensor in tensors.items()
    }
    try:
        with new_file(path) as unfinished:
            unfinished.touch()
            mode = unfinished.stat().st_mode  # by the umask; the library would make the file private to its owner
            safetensors.serialize_file(specs, unfinished, metadata=dict(metadata) if metadata else None)
            unfinished.chmod(mode)
            _compare(unfinished, tensors, raw, dict(metadata or {}))
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} could not be written ({reason_of(error)}). Check the disk's space and permissions; no part of it is left."
        ) from error
    return path


# ---- the header -----------------------------------------------------------------------------------------------------


def _checked_header(mapped: FileBytes, path: Path) -> SafetensorsHeader:
    """Read the header and check every rule of the format."""
    refuse = partial(_refusal, path)
    if len(mapped) < 8:
        raise refuse(f"it has {len(mapped)} bytes, fewer than the 8 of the header's length")
    length = int.from_bytes(mapped[:8], "little")
    data_start = 8 + length
    if length > MAX_HEADER_BYTES or data_start > len(mapped):
        raise refuse(
            f"its header claims {length} bytes, but the file has {len(mapped)} and a header at most "
            f"{MAX_HEADER_BYTES}. {name_foreign_content(mapped[:64])}Or the download was cut off"
        )
    header = _parse_json(mapped[8:data_start], refuse)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata  # null is none, to the library too
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refuse("its __metadata__ is not an object of strings")
    if len(header) > MAX_TENSORS:
        raise refuse(f"it names {len(header)} tensors, more than the limit {MAX_TENSORS}")
    entries = {name: _checked_entry(name, values, data_start, refuse) for name, values in header.items()}
    by_place = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)))
    _check_cover(by_place, data_start, len(mapped), refuse)
    return SafetensorsHeader(by_place, metadata)


def _refusal(path: Path, found: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a sound safetensors file: {found}. Fetch or convert it again.")


def _parse_json(header: bytes, refuse: Refuse) -> dict[str, Any]:
    """The header as a dictionary, by stricter rules than Python's json: unique names, and only the numbers 0, 1, 2, ..."""

    def whole_number(digits: str) -> int:
        if not digits.isdecimal() or len(digits) > 19:  # 19 digits hold every offset that a file can have
            raise ValueError(f"the number {digits[:40]} is no size, dimension or offset")
        return int(digits)

    if header[:1] != b"{":
        raise refuse(f"its header begins with {bytes(header[:8])!r}, not with a brace")
    try:
        values = parse_json(header.decode("utf-8"), parse_object=_header_object, parse_number=whole_number)
    except ValueError as error:
        raise refuse(f"its header is not JSON in UTF-8 ({str(error)[:200]})") from error
    assert isinstance(values, dict)  # it begins with a brace
    return values


def _header_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Names occur once, except in an object of texts, the metadata: there the last counts, as in the library."""
    return dict(pairs) if all(isinstance(value, str) for _, value in pairs) else unique_object(pairs)


def _checked_entry(name: str, values: object, data_start: int, refuse: Refuse) -> TensorEntry:
    """One tensor's entry, checked: dtype, shape and offsets exist, have the right types and agree about the size."""
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
        raise refuse(f"{shown} is {dtype} {shape}, {size} bytes, but data_offsets {offsets} span {stop - start}")
    if is_too_large(shape):
        raise refuse(f"{shown} has the shape {shape}, too large for an array")
    return TensorEntry(dtype, tuple(shape), data_start + start, data_start + stop)


def _is_list_of_whole(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int for n in value)  # not isinstance: a bool is an int


def _check_cover(by_place: Mapping[str, TensorEntry], data_start: int, file_size: int, refuse: Refuse) -> None:
    """Check that the tensors fill the file from the header to its end, without overlap or gap."""
    previous, position = "the header", data_start
    for name, entry in by_place.items():
        if entry.start != position:
            what = "overlaps" if entry.start < position else "leaves a hole after"
            raise refuse(f"{name[:200]!r} at byte {entry.start} {what} {previous[:200]!r}, which ends at {position}")
        previous, position = name, entry.stop
    if position != file_size:
        raise refuse(
            f"its tensors end at byte {position}, but the file has {file_size}. "
            + ("It was cut off" if position > file_size else "Something was added to it")
        )


# ---- writing --------------------------------------------------------------------------------------------------------


def _row_major_bytes(name: str, tensor: StoredTensor) -> HostArray:
    """The tensor's bytes as a flat uint8 array, copied only if strided; InputError if its array has another dtype."""
    if NUMPY_DTYPES.get(tensor.dtype) != tensor.data.dtype:
        raise InputError(
            f"{name} should be {tensor.dtype}, but its array is {tensor.data.dtype}. Known are {', '.join(NUMPY_DTYPES)}; "
            "narrow(array, dtype) makes an array of one of its floats."
        )
    return np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8)


def _compare(
    unfinished: Path, tensors: Mapping[str, StoredTensor], raw: Mapping[str, HostArray], metadata: Mapping[str, str]
) -> None:
    """Read the file back, a piece at a time, and compare it with the tensors: a map of all of it would count as memory."""
    header = read_header(unfinished)
    if header.tensors.keys() != tensors.keys() or header.metadata != metadata:
        raise CheckpointError(f"{unfinished} holds other names than written. Check the disk; write the file again.")
    with unfinished.open("rb") as file:
        for name, entry in header.tensors.items():
            tensor, expected = tensors[name], raw[name]
            file.seek(entry.start)
            if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape) or not all(
                np.array_equal(np.frombuffer(file.read(len(piece)), np.uint8), piece)
                for piece in np.split(expected, range(_COMPARED_AT_ONCE, expected.size, _COMPARED_AT_ONCE))
            ):
                raise CheckpointError(f"{unfinished} does not give back {name}. Check the disk; write the file again.")
