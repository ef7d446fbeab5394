"""Read pytorch_model.bin without PyTorch, and without running its pickle.

A .bin has storages, flat arrays of numbers, which are mapped, and a pickle, which describes each tensor as a view of a
storage. A pickle is a program; restricted_pickle.py reads it without running it:

    torch_zip.py           the container since PyTorch 1.6, a zip archive: finds the pickle and the storages
    restricted_pickle.py   the pickle: names -> TensorRecord(storage, offset, size, stride)
    torch_bin.py           this file: names -> StoredTensor, views into the mapped file; the container before 1.6

With offset 1, size (2, 3) and stride (1, 2), element (i, j) is number 1 + i + 2 j of the storage: six numbers from 1 to 6,
transposed. Two tensors of one storage are tied, and stay tied: they show the same bytes.

The container before 1.6 is five pickles, then the storages. It has no alignment and no checksum:

    pickle  0x1950a86a20f9469cfc6c      the magic number
    pickle  1001                        the version of this format
    pickle  {"little_endian": True, ...}
    pickle  the tensors, with the keys of their storages
    pickle  ["94183729403664", ...]     the keys, memory addresses of the writing process, in the order of the storages
    then for each key: the storage's number of elements (8 bytes), and the elements

Source: files of `torch.save(..., _use_new_zipfile_serialization=False)`, disassembled by Python's pickletools.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from led_ref.errors import CheckpointError, quoted
from led_ref.weights.stored_tensor import (
    MAX_TENSORS,
    NUMPY_DTYPES,
    FileBytes,
    Refuse,
    StoredTensor,
    file_bytes,
    is_too_large,
    name_foreign_content,
)
from led_ref.weights.torch_files.restricted_pickle import Pickled, TensorRecord, run_pickle
from led_ref.weights.torch_files.torch_zip import read_torch_zip

MAGIC = 0x1950A86A20F9469CFC6C
FORMAT_VERSION = 1001

# Where trainers put a model's state_dict: Lightning, PyTorch's tutorials, fairseq, DeepSpeed.
_STATE_DICTS = ("state_dict", "model_state_dict", "model", "module")


def read_torch_bin(path: str | Path, *, mmap: bool = True) -> dict[str, StoredTensor]:
    """All tensors of a pytorch_model.bin, as read-only views into its memory map or, without `mmap`, its copy.

    The file is a state_dict (names -> tensors), or a dictionary with one beside other things, as trainers write it
    (`_STATE_DICTS`): these are not looked at. The zip format's checksums are verified,
    which reads every byte once; the older format has none.

    Raises:
        MissingFileError: if the file does not exist.
        CheckpointError: if the file is damaged, or its pickle does more than tensors need. Nothing in it is run.
    """
    mapped = file_bytes(path, mmap=mmap)
    refuse = partial(_refusal, Path(path))
    if mapped[:4] == b"PK\x03\x04":
        pickled, places = read_torch_zip(mapped, refuse)
    elif mapped[:1] == b"\x80":
        pickled, places = _read_legacy(mapped, refuse)
    elif mapped[257:262] == b"ustar":
        raise refuse("it is a tar archive, the format of PyTorch 0.1")
    else:
        raise refuse(f"it begins with {mapped[:8]!r}. {name_foreign_content(mapped[:64])}")
    tensors = _tensors_of(pickled.value, refuse)
    return {name: _view(mapped, places[record.storage.key], record, name, refuse) for name, record in tensors.items()}


def _refusal(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a readable pytorch_model.bin: {found.rstrip(' .')}. Fetch it again; or, if you trust its author, "
        "load it with PyTorch and save its state_dict as safetensors."
    )


def _tensors_of(value: object, refuse: Refuse) -> Mapping[str, TensorRecord]:
    """The pickle's state_dict, at its top or under a name of `_STATE_DICTS`."""
    if isinstance(value, dict):
        value = next((value[name] for name in _STATE_DICTS if isinstance(value.get(name), dict)), value)
    if not isinstance(value, dict):
        raise refuse(f"it holds a {type(value).__name__}, not a dictionary of tensors")
    others = {
        name: type(entry).__name__
        for name, entry in value.items()
        if not isinstance(entry, TensorRecord) or not isinstance(name, str)
    }
    if others:
        listed = ", ".join(f"{quoted(name, 80)} ({kind})" for name, kind in list(others.items())[:5])
        raise refuse(f"it holds {len(others)} entries that are no tensors: {listed}{', ...' * (len(others) > 5)}")
    if len(value) > MAX_TENSORS:
        raise refuse(f"it names {len(value)} tensors, more than the limit {MAX_TENSORS}")
    return value


def _view(mapped: FileBytes, place: int, record: TensorRecord, name: str, refuse: Refuse) -> StoredTensor:
    """The tensor as a view of its storage, after a check that it lies inside and repeats no element."""
    storage, shown = record.storage, repr(name[:80])
    dtype = NUMPY_DTYPES[storage.dtype]
    count = math.prod(record.size)
    if is_too_large(record.size):
        raise refuse(f"{shown} has the shape {record.size}, too large for an array")
    if count == 0:
        return StoredTensor(storage.dtype, np.ndarray(record.size, dtype, buffer=b""))
    last = record.offset + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True))
    if last >= storage.numel:
        raise refuse(f"{shown} reaches number {last} of a storage that has {storage.numel}")
    if count > storage.numel:
        raise refuse(f"{shown} has {count} elements made of a storage of {storage.numel}: it repeats them")
    # The stride of a dimension of size 1 is never used, and can be any number, even one that is too large for NumPy.
    steps = [step * dtype.itemsize if n > 1 else 0 for n, step in zip(record.size, record.stride, strict=True)]
    memory = memoryview(mapped)[place : place + storage.nbytes]
    return StoredTensor(storage.dtype, np.ndarray(record.size, dtype, memory, record.offset * dtype.itemsize, steps))


def _read_legacy(mapped: FileBytes, refuse: Refuse) -> tuple[Pickled, dict[str, int]]:
    """The fourth pickle's value, and the position of each of its storages in the file.

    Raises:
        CheckpointError: made by `refuse`, for every deviation from PyTorch's format.
    """
    magic = run_pickle(mapped, 0, len(mapped), refuse)
    if magic.value != MAGIC:
        raise refuse("it is a pickle, but not one that torch.save wrote (the magic number is missing)")
    version = run_pickle(mapped, magic.stop, len(mapped), refuse)
    if version.value != FORMAT_VERSION:
        raise refuse(f"its format has another version than {FORMAT_VERSION}")
    system = run_pickle(mapped, version.stop, len(mapped), refuse)
    if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
        raise refuse("its numbers are not little-endian")
    pickled = run_pickle(mapped, system.stop, len(mapped), refuse)
    keys = run_pickle(mapped, pickled.stop, len(mapped), refuse)
    names = keys.value
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise refuse("its list of storages is not a list of keys")
    if len(set(names)) != len(names) or set(names) != pickled.storages.keys():
        raise refuse(f"its list of storages has {len(names)} keys, which are not the {len(pickled.storages)} in use")
    places = {}
    position = keys.stop
    for name in names:
        storage = pickled.storages[name]
        numel = int.from_bytes(mapped[position : position + 8], "little", signed=True)
        if numel != storage.numel:
            raise refuse(f"storage {name[:40]!r} should have {storage.numel} numbers, but has {numel}")
        places[name] = position + 8
        position += 8 + storage.nbytes
    if position != len(mapped):
        how = "it was cut off" if position > len(mapped) else "something was added to it"
        raise refuse(f"its storages end at byte {position}, but the file has {len(mapped)}: {how}")
    return pickled, places
