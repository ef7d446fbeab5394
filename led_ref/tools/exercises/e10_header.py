"""Read the header of a safetensors file.

    8 bytes          n, a whole number, the lowest byte first
    n bytes          JSON: name -> {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, and perhaps "__metadata__"
    the rest         the numbers; offsets count from its beginning

No library is needed: int.from_bytes(..., "little") and json.loads are enough.
"""

import json
from typing import Any

from led_ref.tools.exercises.expect import Yours, expect


def shapes(file: bytes) -> dict[str, list[int]]:
    """The shape of every tensor by name. "__metadata__" is none."""
    size = int.from_bytes(file[:8], "little")
    header: dict[str, Any] = json.loads(file[8 : 8 + size])
    return {name: about["shape"] for name, about in header.items() if name != "__metadata__"}


def tensor_bytes(file: bytes, name: str) -> bytes:
    """The numbers of one tensor, as they are stored."""
    size = int.from_bytes(file[:8], "little")
    start, stop = json.loads(file[8 : 8 + size])[name]["data_offsets"]
    return file[8 + size + start : 8 + size + stop]


def check_a_file_by_hand(yours: Yours) -> None:
    """Two tensors of one and two bytes."""
    about = {
        "__metadata__": {"made": "by hand"},
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "U8", "shape": [2, 1], "data_offsets": [1, 3]},
    }
    header = json.dumps(about).encode()
    file = len(header).to_bytes(8, "little") + header + bytes([7, 8, 9])
    expect(yours.shapes(file), {"a": [1], "b": [2, 1]}, "shapes(file)")
    expect(list(yours.tensor_bytes(file, "b")), [8, 9], "the bytes of b")


def check_the_bundled_model(yours: Yours) -> None:
    """All shapes of its first file, and one tensor's numbers, against led_ref's reader."""
    import numpy as np

    from led_ref.api import bundled_model
    from led_ref.weights.safetensors_file import read_safetensors

    path = bundled_model() / "model-00001-of-00002.safetensors"
    file, wanted = path.read_bytes(), read_safetensors(path)
    found = yours.shapes(file)
    expect(sorted(found), sorted(wanted), f"the names of the tensors of {path.name}")
    for name, tensor in wanted.items():
        expect(list(found[name]), list(tensor.shape), f"the shape of {name}")
    name = "led.encoder.layernorm_embedding.weight"
    numbers = np.frombuffer(yours.tensor_bytes(file, name), "<f2").astype("float64")
    expect(numbers, wanted[name].to_numpy("float64"), name)
