"""The pytorch_model.bin of PyTorch before 1.6: five pickles and the storages, one after the other.

    pickle  0x1950a86a20f9469cfc6c      the magic number
    pickle  1001                        the version of this format
    pickle  {"little_endian": True, ...}
    pickle  the tensors, made of storages that are named by keys
    pickle  ["94183729403664", ...]     the keys, in the order in which the storages follow
    then for each key: the storage's number of elements (8 bytes), and the elements

There is no alignment and no checksum, and the keys are addresses in the memory of a process that ended long ago.

What this file does not do: it does not read the tar files of PyTorch 0.1, which no LED was ever saved in.
Source: files that `torch.save(..., _use_new_zipfile_serialization=False)` wrote, disassembled by Python's pickletools.
"""

import mmap

from led_ref.weights.stored_tensor import Refuse
from led_ref.weights.torch_files.restricted_pickle import Pickled, run_pickle

MAGIC = 0x1950A86A20F9469CFC6C
FORMAT_VERSION = 1001


def read_torch_legacy(mapped: mmap.mmap, refuse: Refuse) -> tuple[Pickled, dict[str, int]]:
    """The value of the fourth pickle, and where in the file each storage that it names begins.

    Raises:
        CheckpointError: made by `refuse`, for anything that is not as PyTorch writes it.
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
        told = int.from_bytes(mapped[position : position + 8], "little", signed=True)
        if told != storage.numel:
            raise refuse(f"storage {name[:40]!r} should have {storage.numel} numbers, but has {told}")
        places[name] = position + 8
        position += 8 + storage.nbytes
    if position != len(mapped):
        how = "it was cut off" if position > len(mapped) else "something was added to it"
        raise refuse(f"its storages end at byte {position}, but the file has {len(mapped)}: {how}")
    return pickled, places
