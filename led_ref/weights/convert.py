"""Any checkpoint that load.py accepts becomes one model.safetensors, written as transformers 5 writes it.

    convert("led-base-16384", "led-base-half", dtype="float16")

                        source                                  destination
    weights             pytorch_model.bin, shards, float64,     model.safetensors, float16: `led.shared.weight` once,
                        allenai/longformer's names, ...         lm_head.weight only where it is another table
                        with quantize="nf4": matrices as in quantized.py
    config.json         allenai's attention_window is R         transformers' is 2R; `dtype` says what the weights are
    everything else     generation_config.json, tokenizer       the same bytes

It is all or nothing, and what was written is read back and compared: new_folder.py does that.

This file changes no number but by rounding it to the dtype asked for. It makes no LED out of another model; from_bart.py does.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from led_ref.config import LEDConfig
from led_ref.errors import InputError
from led_ref.weights.find_files import GENERATION_CONFIG, TOKENIZER_FILES, Notice, find_weights, read_tensors
from led_ref.weights.keys import FINAL_LOGITS_BIAS
from led_ref.weights.load import finite_array
from led_ref.weights.quantization.file_format import QuantizedTensor, quantizable, tensor_of
from led_ref.weights.quantization.rounding import check_kind
from led_ref.weights.quantization.rounding import quantized as rounded
from led_ref.weights.stored_tensor import StoredTensor, narrow
from led_ref.weights.write_folder import DTYPE_NAMES, check_destination, config_to_write, lay_out, write_folder

# The dtypes that can be asked for, and safetensors' names of them.
_STORED_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read and wrote.

    Args:
        source: the files that were read.
        destination: the file of weights that was written.
        tensors: how many tensors it holds, each compared with its source.
        parameters: how many numbers those are.
        dtypes: the dtypes in it, such as ("float16",).
        bytes_read: size of the source's weights.
        bytes_written: size of the destination's.
        copied: names of the other files that were taken over.
    """

    source: tuple[Path, ...]
    destination: Path
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    bytes_read: int
    bytes_written: int
    copied: tuple[str, ...]


def convert(
    source_folder: str | Path,
    destination_folder: str | Path,
    *,
    dtype: str | None = None,
    quantize: str | None = None,
    overwrite: bool = False,
    notice: Notice | None = None,
) -> ConversionReport:
    """Write a folder's checkpoint anew as model.safetensors with its config.json, and verify what was written.

    Args:
        source_folder: config.json and weights in any accepted form.
        destination_folder: made if it is not there. It may be the source itself, which then gets model.safetensors too.
        dtype: "float32", "float16" or "bfloat16"; None: each tensor keeps its own. Matrices that are quantized in the source
            become floats of that dtype again.
        quantize: round the linear maps' matrices to "int8", "nf4" or "nf4-double"; dtype is for the others then.
        overwrite: whether weights that are already in the destination may be replaced.
        notice: is told in a sentence what a person may want to know.

    Raises:
        MissingFileError: if the source lacks a file, or the destination's parent folder is not there.
        InputError: if `dtype` or `quantize` is unknown, the source is quantized otherwise already, the destination has
            weights already, or a finite number is too large for `dtype`.
        CheckpointError: if the source is not a whole LED, or reading back gives another number than was written.
    """
    source, destination = Path(source_folder), Path(destination_folder).resolve()
    check_destination(destination, overwrite=overwrite)
    config = LEDConfig.from_pretrained(source)
    tensors = read_tensors(source, notice=notice)
    return write_converted(source, tensors, config, destination, dtype=dtype, quantize=quantize)


def write_converted(
    source: Path,
    tensors: Mapping[str, StoredTensor],
    config: LEDConfig,
    destination: Path,
    *,
    dtype: str | None,
    architecture: str | None = None,
    quantize: str | None = None,
    others: Callable[[Path], object] = lambda new: None,
) -> ConversionReport:
    """Write an LED whose tensors came from a source's files, and copy the other files.

    Args:
        source: where generation_config.json and the tokenizer's files are taken from, and the weights were.
        tensors: an LED's, in any of the spellings that load.py knows.
        config: of that LED.
        destination: a folder that `check_destination` has let pass.
        dtype: as in `convert`.
        architecture: the class that config.json shall name; None: the one that it names.
        quantize: as in `convert`.
        others: changes what was copied, in the folder that it is given.

    Raises:
        InputError: if `dtype` or `quantize` is unknown, or a finite number is too large for `dtype`.
        CheckpointError: if the tensors are not a whole LED, or reading back gives another number than was written.
    """
    if dtype is not None and dtype not in _STORED_NAMES:
        raise InputError(
            f"dtype is {dtype!r}; choose one of {', '.join(_STORED_NAMES)}, or none to keep each tensor's own."
        )
    check_kind(quantize)
    files = find_weights(source)
    matrices = quantizable(config) if quantize is not None else {}
    tensors = {
        key: _quantized(key, tensor, str(quantize)) if key in matrices else _as_dtype(key, tensor, dtype)
        for key, tensor in lay_out(tensors, config).items()
    }
    copied = tuple(name for name in (GENERATION_CONFIG, *TOKENIZER_FILES) if (source / name).is_file())
    bytes_read = sum(path.stat().st_size for path in files.paths)

    def copy(new: Path) -> None:
        for name in copied:
            shutil.copyfile(source / name, new / name)
        others(new)

    (written,) = write_folder(destination, tensors, config_to_write(config, tensors, architecture), others=copy)
    return ConversionReport(
        source=files.paths,
        destination=written,
        tensors=len(tensors),
        parameters=sum(math.prod(tensor.shape) for key, tensor in tensors.items() if key != FINAL_LOGITS_BIAS),
        dtypes=tuple(sorted({DTYPE_NAMES.get(tensor.dtype, tensor.dtype) for tensor in tensors.values()})),
        bytes_read=bytes_read,
        bytes_written=written.stat().st_size,
        copied=copied,
    )


def _as_dtype(key: str, tensor: StoredTensor, dtype: str | None) -> StoredTensor:
    """The tensor rounded to a dtype, or widened to it.

    Raises:
        InputError: if one of its finite numbers is too large for that, naming the tensor.
    """
    if dtype is None or tensor.dtype == _STORED_NAMES[dtype]:
        return tensor
    numbers = tensor.to_numpy("float64" if tensor.dtype == "F64" else "float32")  # exact; so it is rounded just once
    return StoredTensor(_STORED_NAMES[dtype], narrow(numbers, _STORED_NAMES[dtype], name=key))


def _quantized(key: str, tensor: StoredTensor, kind: str) -> StoredTensor:
    """A matrix rounded to codes.

    Raises:
        InputError: if it is quantized otherwise already.
        CheckpointError: if it holds a number that is not finite.
    """
    if isinstance(tensor, QuantizedTensor):
        if tensor.dtype == kind:
            return tensor
        raise InputError(
            f"{key} is {tensor.dtype} already. Quantize a checkpoint of floats: to round twice costs accuracy."
        )
    return tensor_of(rounded(finite_array(key, tensor, "float32"), kind))
