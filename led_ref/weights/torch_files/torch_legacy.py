"""Read the container of a pytorch_model.bin from before PyTorch 1.6: five pickles, then the storages.

    pickle  0x1950a86a20f9469cfc6c      the magic number
    pickle  1001                        the version of this format
    pickle  {"little_endian": True, ...}
    pickle  the tensors, with the keys of their storages
    pickle  ["94183729403664", ...]     the keys, in the order of the storages
    then for each key: the storage's number of elements (8 bytes), and the elements

The format has no alignment and no checksum; the keys are memory addresses of the writing process. The tar files of PyTorch
0.1 are refused: no LED has this format.
Source: files of `torch.save(..., _use_new_zipfile_serialization=False)`, disassembled by Python's pickletools.
"""

import mmap

from led_ref.weights.stored_tensor import Refuse
from led_ref.weights.torch_files.restricted_pickle import Pickled, run_pickle

MAGIC = 0x1950A86A20F9469CFC6C
FORMAT_VERSION = 1001


def read_torch_legacy(mapped: mmap.mmap, refuse: Refuse) -> tuple[Pickled, dict[str, int]]:
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
