"""Matrices quantized by bitsandbytes on a CPU, for tests/weights/test_quantize.py: bitsandbytes.safetensors beside this file.

    pip install bitsandbytes torch safetensors          (in an environment of its own; made with 0.50.2 and torch 2.13)
    python tests/weights/golden/make_bitsandbytes.py

Of each matrix (float16 numbers, so that the file is small): int8's codes and absmaxes; NF4's bytes and absmaxes; with double
quantization its codes, absmaxes and offset; and the numbers that bitsandbytes makes of them again. And the two code books.
"""

from pathlib import Path

import numpy as np
import torch
from bitsandbytes import functional
from safetensors.numpy import save_file

SHAPES = {"even": (13, 128), "odd": (7, 31), "many": (331, 64)}  # 217 numbers: no whole blocks; 331 blocks: over 256


def main() -> None:
    rng, found = np.random.default_rng(5), {}
    for name, shape in SHAPES.items():
        drawn = (rng.standard_normal(shape) * rng.uniform(0.01, 3, (shape[0], 1))).astype(np.float16)
        if name == "even":
            drawn[3] = 0
        matrix = torch.from_numpy(drawn.astype(np.float32))
        codes, absmax, _ = functional.int8_vectorwise_quant(matrix)
        found |= {f"{name}.matrix": drawn, f"{name}.int8": codes.numpy(), f"{name}.int8_absmax": absmax.numpy()}
        found[f"{name}.int8_numbers"] = functional.int8_vectorwise_dequant(codes, absmax).numpy()
        for double in (False, True):
            packed, state = functional.quantize_4bit(matrix, compress_statistics=double, quant_type="nf4")
            way = f"{name}.nf4{'_double' * double}"
            found |= {way: packed.numpy(), f"{way}_absmax": state.absmax.numpy()}
            if double:
                found |= {f"{way}_absmax2": state.state2.absmax.numpy(), f"{way}_offset": state.offset.numpy()}
            found[f"{way}_numbers"] = functional.dequantize_4bit(packed, state).numpy()
    found["nf4_book"] = functional.get_4bit_type("nf4", device="cpu").numpy()
    found["dynamic_map"] = functional.create_dynamic_map().numpy()
    for way in ("int8", "nf4"):  # the numbers of the small ones will do
        del found[f"many.{way}_numbers"]
    kept = {key: np.ascontiguousarray(value) for key, value in found.items()}
    save_file(kept, Path(__file__).parent / "bitsandbytes.safetensors")


if __name__ == "__main__":
    main()
