"""Save a model as a folder that led_ref and transformers load, whole or not at all: the inverse of load.py.

    save_model("my-led", model.params, model.config, "LEDForConditionalGeneration", backend=model.backend)

    model.safetensors                       each tensor once, under the names of the table in keys.py
    model-00001-of-00002.safetensors, ...   instead, with model.safetensors.index.json, if one file would be too large
    config.json                             `dtype` of the weights; the class in `architectures`
    other files                             written by `others`

Each class has the tensors that transformers writes for it:

    LEDForConditionalGeneration     led.*, final_logits_bias; lm_head.weight only if it is not the embedding table
    LEDModel                        the same names without `led.`, and no output projection
    LEDForQuestionAnswering         led.*, qa_outputs.*
    LEDForSequenceClassification    led.*, classification_head.*

Numbers keep their dtype, quantized matrices their codes; convert.py changes them.

The new files are written in a hidden folder beside the destination, and read back and compared bit for bit. Then the new
folder, together with the other files of the destination, takes its place by one rename (staging.py). So an error, a full
disk or a killed process leaves the destination unchanged.

What a reader reads before or beside the new files goes with the old ones: an index and its shards, pytorch_model.bin,
generation_config.json; and with a tokenizer's file the whole tokenizer, such as another program's tokenizer.json.
"""

import json
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.compact import CompactWeight
from led_backends.contract import Backend
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError, LEDError, MissingFileError, WriteError, reason_of
from led_ref.files.json_file import is_whole, write_text
from led_ref.files.staging import to_write, write_into
from led_ref.model.params import LEDParams
from led_ref.weights.find_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    GENERATION_CONFIG,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    TOKENIZER_FILES,
    WEIGHT_FILES,
)
from led_ref.weights.keys import EMBED_TOKENS, FINAL_LOGITS_BIAS, LM_HEAD, SHARED, arrays_by_key, heads_in, heads_of
from led_ref.weights.load import fit_to_config, settle_tied_tables
from led_ref.weights.quantization.file_format import CONFIG_KEY, QuantizedTensor, quantization_config, split, tensor_of
from led_ref.weights.safetensors_file import write_safetensors
from led_ref.weights.stored_tensor import DTYPE_NAMES, NUMPY_DTYPES, StoredTensor, from_numpy

# The files of a model that a reader reads, but for its tokenizer. transformers merges an adapter beside the weights into them.
MODEL_FILES = (*WEIGHT_FILES, CONFIG, GENERATION_CONFIG, ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_SHARD = re.compile(r"(pytorch_)?model-\d+-of-\d+\.(safetensors|bin)")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def save_model(
    folder: str | Path,
    params: LEDParams,
    config: LEDConfig,
    architecture: str,
    *,
    backend: Backend,
    generation_config: Mapping[str, Any] | None,
    others: Callable[[Path], object],
    max_shard_size: int | str,
    overwrite: bool,
) -> tuple[Path, ...]:
    """Write a model's weights, config.json and generation_config.json; all of them, or none.

    Arguments, result and errors as in LEDPreTrainedModel.save_pretrained, and:

    Args:
        params: the weights, on the backend's device.
        architecture: transformers' name of the class.
        generation_config: the content of generation_config.json; None writes none.
    """
    destination = to_write("save_directory", folder).resolve()
    check_destination(destination, overwrite=overwrite)
    tensors = _tensors(params, config, architecture, backend)
    config = config_to_write(config, tensors, architecture)

    def write_others(new: Path) -> None:
        if generation_config is not None:
            write_text(new / GENERATION_CONFIG, json.dumps(dict(generation_config), indent=2, sort_keys=True) + "\n")
        others(new)

    return write_folder(
        destination, tensors, config, others=write_others, overwrite=overwrite, max_shard_size=max_shard_size
    )


def _tensors(params: LEDParams, config: LEDConfig, architecture: str, backend: Backend) -> dict[str, StoredTensor]:
    """The model's tensors on the host, by the names in its class's files."""
    heads = heads_of(architecture)
    arrays = arrays_by_key(params, config, heads)
    if heads or params.lm_head is params.shared:
        del arrays[LM_HEAD]
    if heads:
        del arrays[FINAL_LOGITS_BIAS]
    stored = {
        key: tensor_of(weight.on(backend.to_host))
        if isinstance(weight, CompactWeight)
        else from_numpy(key, backend.to_host(backend.rows(weight)))
        for key, weight in arrays.items()
    }
    tensors = lay_out(stored, config)
    if architecture == "LEDModel":
        return {key.removeprefix("led."): tensor for key, tensor in tensors.items() if key.startswith("led.")}
    return tensors


def check_destination(destination: Path, *, overwrite: bool, owned: Collection[str] = MODEL_FILES) -> None:
    """Validate a destination before any work.

    Raises:
        InputError: if it is a file, or holds files that would be replaced (of the names `owned`) and `overwrite` is False.
        MissingFileError: if its parent folder does not exist.
    """
    if os.path.exists(destination) and not os.path.isdir(destination):
        raise InputError(f"{destination} is a file. Name a folder to write {SAFETENSORS} and {CONFIG} into.")
    if not destination.parent.is_dir():
        raise MissingFileError(f"There is no folder {destination.parent} for {destination.name}. Make it first.")
    refuse_overwriting(destination, [name for name in owned if (destination / name).exists()], overwrite=overwrite)


def refuse_overwriting(destination: Path, present: Collection[str], *, overwrite: bool) -> None:
    """InputError if files would be replaced or removed, and that is not allowed."""
    if present and not overwrite:
        raise InputError(
            f"{destination} holds {next(iter(present))} already. Name another folder, or pass overwrite=True (--overwrite)."
        )


def lay_out(tensors: Mapping[str, StoredTensor], config: LEDConfig) -> dict[str, StoredTensor]:
    """The tensors, heads included, under the names that transformers 5 writes, sorted by name.

    If tie_word_embeddings is false, transformers has separate tables for encoder, decoder and output, and fills those that
    a file lacks with random numbers. So all of them are written.

    Raises:
        CheckpointError: if the tensors are not exactly those of the configuration.
    """
    heads = heads_in(tensors)
    laid_out = settle_tied_tables(fit_to_config(tensors, config, heads=heads))
    if not config.tie_word_embeddings:
        laid_out.update(dict.fromkeys(EMBED_TOKENS, laid_out[SHARED]))
        if not heads:
            laid_out.setdefault(LM_HEAD, laid_out[SHARED])
    if not heads:
        dtype = laid_out[SHARED].dtype
        zeros = StoredTensor(dtype, np.zeros((1, config.vocab_size), NUMPY_DTYPES[dtype]))
        laid_out.setdefault(FINAL_LOGITS_BIAS, zeros)
    return dict(sorted(laid_out.items()))


def config_to_write(config: LEDConfig, tensors: Mapping[str, StoredTensor], architecture: str | None) -> LEDConfig:
    """The configuration with the weights' `dtype`, and with a class of LED in `architectures`: the given one, if any."""
    extra = {key: value for key, value in config.extra.items() if key not in {"dtype", "torch_dtype"}}
    extra.pop(CONFIG_KEY, None)
    extra |= quantization_config(tensors)
    dtypes = {DTYPE_NAMES[tensor.dtype] for tensor in tensors.values() if not isinstance(tensor, QuantizedTensor)}
    if len(dtypes) == 1:
        extra["dtype"] = dtypes.pop()
    if architecture is not None:
        extra["architectures"] = [architecture]
    elif not any(name.startswith("LED") for name in config.architectures):
        extra["architectures"] = ["LEDForConditionalGeneration"]
    return replace(config, extra=extra)


def bytes_of_size(size: int | str) -> int:
    """A size in bytes, from a number or a text such as "5GB" (10**9) or "200MB" (10**6), as in transformers.

    Raises:
        InputError: for anything else, and for less than one byte.

    Example:
        >>> bytes_of_size("5GB"), bytes_of_size(1000)
        (5000000000, 1000)
    """
    if isinstance(size, str) and (parts := re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)", size.strip().upper())):
        size = int(float(parts[1]) * _UNITS[parts[2]])
    if is_whole(size) and size >= 1:
        return size
    raise InputError(f"max_shard_size is {size!r}; give bytes, or a text such as '200MB' or '5GB'.")


def write_folder(
    destination: Path,
    tensors: Mapping[str, StoredTensor],
    config: LEDConfig,
    *,
    others: Callable[[Path], object],
    overwrite: bool,
    owned: Collection[str] = MODEL_FILES,
    max_shard_size: int | str | None = None,
) -> tuple[Path, ...]:
    """Write weights, config.json and other files into the destination, all or none.

    Args:
        destination: created if needed, in an existing folder (`check_destination`).
        tensors: the tensors by their names in the file; a quantized matrix is split into its parts here.
        config: the content of config.json.
        others: called with the new folder, which holds config.json already; writes further files into it.
        overwrite: allow to replace files of the destination.
        owned: the names of the model's files: those that are not written anew are removed. So are shards, and the
            tokenizer's files if `others` writes one of them.
        max_shard_size: the maximum bytes of tensors in one file; a larger tensor gets its own file. None: one file.

    Returns:
        The weight files.

    Raises:
        InputError: if `max_shard_size` is no size, or files would be replaced without `overwrite`.
        CheckpointError: if the files cannot be written, or read back unchanged.
    """
    shards = _shards(split(tensors), math.inf if max_shard_size is None else bytes_of_size(max_shard_size))

    def write(new: Path) -> None:
        config.save(new)
        others(new)
        for name, shard in shards.items():
            write_safetensors(new / name, shard, {"format": "pt"})
        if len(shards) > 1:
            size = sum(tensor.data.nbytes for shard in shards.values() for tensor in shard.values())
            weight_map = {key: name for name, shard in shards.items() for key in shard}
            index = {"metadata": {"total_size": size}, "weight_map": weight_map}
            write_text(new / SAFETENSORS_INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")

    def owned_with(written: Collection[str]) -> set[str]:
        present = {path.name for path in destination.iterdir()} if destination.is_dir() else set()
        old_shards = {name for name in present if _SHARD.fullmatch(name) and Path(name).suffix in suffixes}
        has_tokenizer = not set(TOKENIZER_FILES).isdisjoint(written)
        return {*owned, *old_shards, *(TOKENIZER_FILES if has_tokenizer else ())}

    suffixes = {Path(name).suffix for name in owned}
    try:
        write_into(
            destination,
            write,
            owned=owned_with,
            check=lambda names: refuse_overwriting(destination, names, overwrite=overwrite),
        )
    except OSError as error:
        if isinstance(error, LEDError) and not isinstance(error, WriteError):
            raise
        raise CheckpointError(
            f"{destination} could not be written ({reason_of(error)}). Check the disk's space; nothing was changed."
        ) from error
    return tuple(destination / name for name in shards)


def _shards(tensors: Mapping[str, StoredTensor], most: float) -> dict[str, dict[str, StoredTensor]]:
    """The tensors of each file, in order; a tensor that would make a file too large begins the next one."""
    shards: list[dict[str, StoredTensor]] = [{}]
    for key, tensor in tensors.items():
        if shards[-1] and sum(t.data.nbytes for t in shards[-1].values()) + tensor.data.nbytes > most:
            shards.append({})
        shards[-1][key] = tensor
    if len(shards) == 1:
        return {SAFETENSORS: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}
