"""Convert any checkpoint that load.py accepts to one model.safetensors, in the form of transformers 5.

    convert("led-base-16384", "led-base-half", dtype="float16")

                        source                                  destination
    weights             pytorch_model.bin, shards, float64,     model.safetensors, float16: `led.shared.weight` once,
                        allenai/longformer's names, ...         lm_head.weight only if it is another table;
                                                                quantize="nf4": codes (quantization/file_format.py)
    config.json         allenai's attention_window is R         transformers' is 2R; `dtype` is that of the weights
    everything else     generation_config.json, tokenizer       the same bytes

save.py writes all files or none, and compares them with the tensors.

A conversion changes numbers only by rounding to `dtype` or to codes. from_bart.py converts a BART.
"""

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from led_ref.config import LEDConfig, config_file
from led_ref.errors import InputError
from led_ref.files.staging import to_write
from led_ref.weights.find_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FAIRSEQ,
    GENERATION_CONFIG,
    TOKENIZER_FILES,
    TORCH_BIN,
    TORCH_BIN_INDEX,
    Notice,
    find_weights,
    read_tensors,
)
from led_ref.weights.keys import FINAL_LOGITS_BIAS
from led_ref.weights.load import finite_array
from led_ref.weights.quantization.file_format import QuantizedTensor, quantizable, tensor_of
from led_ref.weights.quantization.rounding import check_kind, quantized
from led_ref.weights.save import MODEL_FILES, check_destination, config_to_write, lay_out, write_folder
from led_ref.weights.stored_tensor import DTYPE_NAMES, StoredTensor, narrow

# The dtypes of the argument, and safetensors' names of them.
_STORED_NAMES = {DTYPE_NAMES[name]: name for name in ("F32", "F16", "BF16")}


@dataclass(frozen=True)
class ConversionReport:
    """The files and sizes of a conversion.

    Args:
        source: the weight files that were read.
        destination: the weight file that was written.
        tensors: the number of its tensors.
        parameters: the number of its numbers, without final_logits_bias.
        dtypes: its dtypes, such as ("float16",).
        bytes_read: size of the source's weights.
        bytes_written: size of the destination's.
        copied: names of the other files that were copied.
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
    """Write a folder's checkpoint as model.safetensors with its config.json, read back and compared.

    Args:
        source_folder: config.json and weights in any accepted form.
        destination_folder: created if needed; it can be the source, which then gets model.safetensors, too.
        dtype: "float32", "float16" or "bfloat16"; None: each tensor keeps its own. Quantized matrices of the source become
            floats of this dtype.
        quantize: round the matrices of linear maps to "int8", "nf4" or "nf4-double"; `dtype` is for the other tensors.
        overwrite: allow to replace weights in the destination.
        notice: see read_tensors.

    Raises:
        MissingFileError: if the source lacks a file, or the destination's parent does not exist.
        InputError: if `dtype` or `quantize` is unknown, the source has another quantization, the destination has weights
            already, or a finite number is too large for `dtype`.
        CheckpointError: if the source is not a whole LED, or the written file cannot be read back unchanged.
    """
    config_file(source_folder)
    source, destination = Path(source_folder), to_write("destination_folder", destination_folder).resolve()
    check_destination(destination, overwrite=overwrite, owned=owned_files(source, destination))
    config = LEDConfig.from_pretrained(source)
    tensors = read_tensors(source, notice=notice)
    return write_converted(source, tensors, config, destination, dtype=dtype, quantize=quantize, overwrite=overwrite)


def owned_files(source: Path, destination: Path) -> tuple[str, ...]:
    """The names of the files that the destination has from the source alone: all of a model's.

    In place, its .bin and its adapter stay.
    """
    stays = (
        (TORCH_BIN, TORCH_BIN_INDEX, FAIRSEQ, ADAPTER_CONFIG, ADAPTER_WEIGHTS)
        if source.resolve() == destination
        else ()
    )
    return tuple(name for name in (*MODEL_FILES, *TOKENIZER_FILES) if name not in stays)


def write_converted(
    source: Path,
    tensors: Mapping[str, StoredTensor],
    config: LEDConfig,
    destination: Path,
    *,
    dtype: str | None,
    overwrite: bool,
    architecture: str | None = None,
    quantize: str | None = None,
    others: Callable[[Path], object] = lambda new: None,
) -> ConversionReport:
    """Write an LED from a source's tensors, and copy the source's generation_config.json and tokenizer files.

    Arguments and errors as in `convert`, and:

    Args:
        source: the folder of the tensors and of the files to copy.
        tensors: an LED's, in any spelling that load.py accepts.
        config: the LED's configuration.
        destination: a folder that `check_destination` accepted.
        architecture: the class for config.json; None keeps its class.
        others: called with the new folder after the copying; may change the copied files.
    """
    if dtype is not None and dtype not in _STORED_NAMES:
        raise InputError(f"dtype is {dtype!r}; choose one of {', '.join(_STORED_NAMES)}, or None: as in the file.")
    if quantize is not None:
        check_kind(quantize)
    files = find_weights(source)
    matrices = quantizable(config) if quantize is not None else {}
    tensors = {
        key: _rounded(key, tensor, str(quantize)) if key in matrices else _as_dtype(key, tensor, dtype)
        for key, tensor in lay_out(tensors, config).items()
    }
    copied = _files_to_copy(source)
    bytes_read = sum(path.stat().st_size for path in files.paths)

    def copy(new: Path) -> None:
        for name in copied:
            shutil.copyfile(source / name, new / name)
        others(new)

    (written,) = write_folder(
        destination,
        tensors,
        config_to_write(config, tensors, architecture),
        others=copy,
        overwrite=overwrite,
        owned=owned_files(source, destination),
    )
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


def _files_to_copy(source: Path) -> tuple[str, ...]:
    """The source's generation_config.json and tokenizer files.

    Raises:
        InputError: for a symbolic link out of the folder, whose content would be copied along unseen. The Hub's cache is
            made of links to its own `blobs`; these are followed.
    """
    names = tuple(name for name in (GENERATION_CONFIG, *TOKENIZER_FILES) if os.path.lexists(source / name))
    folder = source.resolve()
    homes = (folder, folder.parent.parent / "blobs") if folder.parent.name == "snapshots" else (folder,)
    for name in names:
        place = (source / name).resolve()
        if not any(place.is_relative_to(home) for home in homes):
            raise InputError(
                f"{source / name} is a symbolic link to {place}, outside the folder. Put a copy of the file in its place if it "
                "belongs to the model."
            )
        if not place.is_file():
            raise InputError(
                f"{source / name} is no plain file, or a link to nothing. Remove it, or put the file there."
            )
    return names


def _as_dtype(key: str, tensor: StoredTensor, dtype: str | None) -> StoredTensor:
    """The tensor rounded or widened to a dtype; InputError if a finite number is too large for it."""
    if dtype is None or tensor.dtype == _STORED_NAMES[dtype]:
        return tensor
    numbers = tensor.to_numpy("float64" if tensor.dtype == "F64" else "float32")  # exact: it is rounded only once
    return StoredTensor(_STORED_NAMES[dtype], narrow(numbers, _STORED_NAMES[dtype], name=key))


def _rounded(key: str, tensor: StoredTensor, scheme: str) -> StoredTensor:
    """A matrix rounded to codes; InputError if it has another quantization, CheckpointError if not all are finite."""
    if isinstance(tensor, QuantizedTensor):
        if tensor.dtype == scheme:
            return tensor
        raise InputError(f"{key} is {tensor.dtype} already. Quantize a checkpoint of floats: two roundings cost more.")
    return tensor_of(quantized(finite_array(key, tensor, "float32"), scheme))
