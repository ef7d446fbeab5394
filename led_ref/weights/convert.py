"""Any checkpoint that load.py accepts becomes one model.safetensors, written as transformers 5 writes it.

    convert("led-base-16384", "led-base-half", dtype="float16")

                        source                                  destination
    weights             pytorch_model.bin, shards, float64,     model.safetensors, float16: `led.shared.weight` once,
                        allenai/longformer's names, ...         lm_head.weight only where it is another table
    config.json         allenai's attention_window is R         transformers' is 2R; `dtype` says what the weights are
    everything else     generation_config.json, tokenizer       the same bytes

It is all or nothing. The new files are made in a hidden folder beside the destination, read back and compared bit for bit
with what they should hold, and only then take their names, each by one rename; if that is broken off, what was there before
is put back. An error, Ctrl-C or a full disk leaves the destination as it was.

This file changes no number but by rounding it to the dtype asked for, and makes no LED out of another model.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.weights.folder import (
    CONFIG,
    GENERATION_CONFIG,
    SAFETENSORS,
    TOKENIZER_FILES,
    WEIGHT_FILES,
    Notice,
    find_weights,
    read_tensors,
)
from led_ref.weights.keys import EMBED_TOKENS, FINAL_LOGITS_BIAS, LM_HEAD, OTHER_HEADS, SHARED
from led_ref.weights.load import fit_to_config, same_bits, settle_tied_tables
from led_ref.weights.safetensors_file import read_safetensors, write_safetensors
from led_ref.weights.stored import NUMPY_DTYPES, StoredTensor, narrow

# The dtypes that can be asked for, and safetensors' names of them.
_STORED_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_DTYPE_NAMES = {**{stored: dtype for dtype, stored in _STORED_NAMES.items()}, "F64": "float64"}


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
        copied: names of the files that were taken over unchanged.
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
    overwrite: bool = False,
    notice: Notice | None = None,
) -> ConversionReport:
    """Write a folder's checkpoint anew as model.safetensors with its config.json, and verify what was written.

    Args:
        source_folder: config.json and weights in any accepted form.
        destination_folder: made if it is not there. It may be the source itself, which then gets model.safetensors too.
        dtype: "float32", "float16" or "bfloat16"; None: each tensor keeps its own.
        overwrite: whether weights that are already in the destination may be replaced.
        notice: is told in a sentence what a person may want to know.

    Raises:
        MissingFileError: if the source lacks a file, or the destination's parent folder is not there.
        InputError: if `dtype` is unknown, the destination has weights already, or a finite number is too large for `dtype`.
        CheckpointError: if the source is not a whole LED, or reading back gives another number than was written.
    """
    source, destination = Path(source_folder), Path(destination_folder).resolve()
    if dtype is not None and dtype not in _STORED_NAMES:
        raise InputError(
            f"dtype is {dtype!r}; choose one of {', '.join(_STORED_NAMES)}, or none to keep each tensor's own."
        )
    _check_destination(destination, overwrite)
    config = LEDConfig.from_pretrained(source)
    files = find_weights(source)
    tensors = _layout(read_tensors(source, notice=notice), config)
    tensors = {key: _as_dtype(key, tensor, dtype) for key, tensor in tensors.items()}
    dtypes = tuple(sorted({_DTYPE_NAMES[tensor.dtype] for tensor in tensors.values()}))
    copied = tuple(name for name in (GENERATION_CONFIG, *TOKENIZER_FILES) if (source / name).is_file())
    bytes_read = sum(path.stat().st_size for path in files.paths)
    _write_all(destination, tensors, _config_to_write(config, dtypes), [source / name for name in copied])
    return ConversionReport(
        source=files.paths,
        destination=destination / SAFETENSORS,
        tensors=len(tensors),
        parameters=sum(math.prod(tensor.shape) for key, tensor in tensors.items() if key != FINAL_LOGITS_BIAS),
        dtypes=dtypes,
        bytes_read=bytes_read,
        bytes_written=(destination / SAFETENSORS).stat().st_size,
        copied=copied,
    )


def _check_destination(destination: Path, overwrite: bool) -> None:
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination} is a file. Name a folder to write {SAFETENSORS} and {CONFIG} into.")
    if not destination.parent.is_dir():
        raise MissingFileError(f"There is no folder {destination.parent} to make {destination.name} in. Make it first.")
    present = [name for name in WEIGHT_FILES if (destination / name).exists()]
    if present and not overwrite:
        raise InputError(
            f"{destination} holds {present[0]} already. Name another folder, or allow it to be replaced (overwrite=True, "
            "--overwrite on the command line)."
        )


def _layout(tensors: Mapping[str, StoredTensor], config: LEDConfig) -> dict[str, StoredTensor]:
    """The tensors under the names that transformers 5 writes, in the order of their names. Heads come along.

    Where config.json says that nothing is tied, transformers gives encoder, decoder and output tables of their own, and
    fills those that a file lacks with random numbers. So they are all written then.
    """
    laid_out = settle_tied_tables(fit_to_config(tensors, config, heads=OTHER_HEADS), config)
    if not config.tie_word_embeddings:
        laid_out.update(dict.fromkeys(EMBED_TOKENS, laid_out[SHARED]))
        laid_out.setdefault(LM_HEAD, laid_out[SHARED])
    if not any(key.split(".")[0] in OTHER_HEADS for key in laid_out):
        dtype = laid_out[SHARED].dtype
        zeros = StoredTensor(dtype, np.zeros((1, config.vocab_size), NUMPY_DTYPES[dtype]))
        laid_out.setdefault(FINAL_LOGITS_BIAS, zeros)
    return dict(sorted(laid_out.items()))


def _as_dtype(key: str, tensor: StoredTensor, dtype: str | None) -> StoredTensor:
    """The tensor rounded to a dtype, or widened to it.

    Raises:
        InputError: if one of its finite numbers is too large for that, naming the tensor.
    """
    if dtype is None or tensor.dtype == _STORED_NAMES[dtype]:
        return tensor
    numbers = tensor.to_numpy("float64" if tensor.dtype == "F64" else "float32")  # exact; so it is rounded just once
    return StoredTensor(_STORED_NAMES[dtype], narrow(numbers, _STORED_NAMES[dtype], name=key))


def _config_to_write(config: LEDConfig, dtypes: tuple[str, ...]) -> LEDConfig:
    """The configuration with `dtype` as the weights have it, and a class of LED as its architecture."""
    extra = {key: value for key, value in config.extra.items() if key not in {"dtype", "torch_dtype"}}
    if len(dtypes) == 1:
        extra["dtype"] = dtypes[0]
    if not any(str(name).startswith("LED") for name in extra.get("architectures") or ()):
        extra["architectures"] = ["LEDForConditionalGeneration"]
    return replace(config, extra=extra)


def _write_all(
    destination: Path, tensors: Mapping[str, StoredTensor], config: LEDConfig, others: Iterable[Path]
) -> None:
    """Put weights, config.json and copies of other files into the destination: all of them, or none.

    Raises:
        CheckpointError: if the disk does not take them, or does not give them back as they were written.
    """
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".converting", dir=destination.parent))
        try:
            new = staging / "new"
            config.save(new)
            for path in others:
                shutil.copyfile(path, new / path.name)
            given = {key: (tensor.dtype, tensor.shape, tensor.data) for key, tensor in tensors.items()}
            _verify(write_safetensors(new / SAFETENSORS, given, {"format": "pt"}), tensors)
            _install(new, destination, aside=staging / "before")
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"{destination} could not be written ({error}). See to the disk's space and permissions; nothing was changed."
        ) from error


def _verify(path: Path, expected: Mapping[str, StoredTensor]) -> None:
    """Read a written file back by the reader of this project and compare every tensor."""
    written = read_safetensors(path)
    different = [key for key in expected if key not in written or not same_bits(written[key], expected[key])]
    if different or len(written) != len(expected):
        raise CheckpointError(
            f"What was read back is not what was written ({len(different)} tensors differ: {different[:1]}). The disk or the "
            "memory of this machine is not to be trusted; nothing was changed."
        )


def _install(new: Path, destination: Path, *, aside: Path) -> None:
    """Give the files of a finished folder their names in the destination: all of them, or none."""
    if not destination.exists():
        os.rename(new, destination)
        return
    names = sorted(path.name for path in new.iterdir())
    before = {name for name in names if (destination / name).exists()}
    aside.mkdir()
    try:
        for name in names:
            if name in before:
                os.replace(destination / name, aside / name)
            os.replace(new / name, destination / name)
    except BaseException:  # Ctrl-C too
        for name in names:
            if (aside / name).exists():
                os.replace(aside / name, destination / name)
            elif name not in before:
                (destination / name).unlink(missing_ok=True)
        raise
