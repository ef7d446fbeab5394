"""A model's folder, written whole or not at all: weights as transformers 5 writes them, config.json, and what goes with them.

    write_folder("my-led", tensors, config, others=tokenizer.save_pretrained)

    model.safetensors                       each tensor once, under the names of the table in keys.py
    model-00001-of-00002.safetensors, ...   instead of it, with model.safetensors.index.json, if one file would be too large
    config.json                             `dtype` says what the weights are, `architectures` which class they make
    the rest                                whatever `others` puts there

The new files are made in a hidden folder beside the destination, read back and compared bit for bit with what they should
hold, and only then take their names, each by one rename; if that is broken off, what was there before is put back. An
error, Ctrl-C or a full disk leaves the destination as it was.

What this file does not do: it decides no number. convert.py, from_bart.py and LEDPreTrainedModel.save_pretrained do.
"""

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.weights.find_files import CONFIG, SAFETENSORS, SAFETENSORS_INDEX, WEIGHT_FILES
from led_ref.weights.keys import EMBED_TOKENS, FINAL_LOGITS_BIAS, LM_HEAD, SHARED, heads_in
from led_ref.weights.load import fit_to_config, same_bits, settle_tied_tables
from led_ref.weights.quantization.file_format import CONFIG_KEY, QuantizedTensor, quantization_config, split
from led_ref.weights.safetensors_file import read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import NUMPY_DTYPES, StoredTensor

# safetensors' names of the float types, and config.json's.
DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def check_destination(destination: Path, *, overwrite: bool) -> None:
    """Refuse a destination before any work is done for it.

    Raises:
        InputError: if it is a file, or holds weights already and may not be overwritten.
        MissingFileError: if its parent folder is not there.
    """
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


def lay_out(tensors: Mapping[str, StoredTensor], config: LEDConfig) -> dict[str, StoredTensor]:
    """The tensors under the names that transformers 5 writes, in the order of their names. Heads come along.

    Where config.json says that nothing is tied, transformers gives encoder, decoder and output tables of their own, and
    fills those that a file lacks with random numbers. So they are all written then.

    Raises:
        CheckpointError: if the tensors are not exactly those of the configuration.
    """
    heads = heads_in(tensors)
    laid_out = settle_tied_tables(fit_to_config(tensors, config, heads=heads), config)
    if not config.tie_word_embeddings:
        laid_out.update(dict.fromkeys(EMBED_TOKENS, laid_out[SHARED]))
        if not heads:
            laid_out.setdefault(LM_HEAD, laid_out[SHARED])
    if not heads:
        dtype = laid_out[SHARED].dtype
        zeros = StoredTensor(dtype, np.zeros((1, config.vocab_size), NUMPY_DTYPES[dtype]))
        laid_out.setdefault(FINAL_LOGITS_BIAS, zeros)
    return dict(sorted(laid_out.items()))


def config_to_write(
    config: LEDConfig, tensors: Mapping[str, StoredTensor], architecture: str | None = None
) -> LEDConfig:
    """The configuration with `dtype` as the weights have it, and a class of LED as its architecture: this one, if given."""
    extra = {key: value for key, value in config.extra.items() if key not in {"dtype", "torch_dtype"}}
    extra.pop(CONFIG_KEY, None)
    extra |= quantization_config(tensors)
    dtypes = {DTYPE_NAMES[tensor.dtype] for tensor in tensors.values() if not isinstance(tensor, QuantizedTensor)}
    if len(dtypes) == 1:
        extra["dtype"] = dtypes.pop()
    if architecture is not None:
        extra["architectures"] = [architecture]
    if not any(str(name).startswith("LED") for name in extra.get("architectures") or ()):
        extra["architectures"] = ["LEDForConditionalGeneration"]
    return replace(config, extra=extra)


def bytes_of_size(size: int | str) -> int:
    """A size as transformers takes it: a number of bytes, or a text such as "5GB" (10**9) or "200MB" (10**6).

    Raises:
        InputError: for anything else, and for less than one byte.

    Example:
        >>> bytes_of_size("5GB"), bytes_of_size(1000)
        (5000000000, 1000)
    """
    if isinstance(size, str) and (parts := re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)", size.strip().upper())):
        size = int(float(parts[1]) * _UNITS[parts[2]])
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"max_shard_size is {size!r}; give bytes, or a text such as '200MB' or '5GB'.")
    return size


def write_folder(
    destination: Path,
    tensors: Mapping[str, StoredTensor],
    config: LEDConfig,
    *,
    others: Callable[[Path], object],
    max_shard_size: int | str | None = None,
) -> tuple[Path, ...]:
    """Put weights, config.json and other files into the destination: all of them, or none. What has their names is replaced.

    Args:
        destination: the folder, which is made if it is not there; its parent must be (`check_destination`).
        tensors: what the file of weights shall hold, by its names there; of a quantized matrix all parts (quantized.py).
        config: what config.json shall say.
        others: writes further files into the folder that it is given, in which config.json is already.
        max_shard_size: the most bytes of tensors in one file; a single tensor that is larger has a file of its own.
            None: everything in one.

    Returns:
        The files of weights.

    Raises:
        InputError: if `max_shard_size` is no size.
        CheckpointError: if the disk does not take the files, or does not give them back as they were written.
    """
    shards = _shards(split(tensors), math.inf if max_shard_size is None else bytes_of_size(max_shard_size))
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".unfinished", dir=destination.parent))
        try:
            new = staging / "new"
            config.save(new)
            others(new)
            for name, shard in shards.items():
                given = {key: (tensor.dtype, tensor.shape, tensor.data) for key, tensor in shard.items()}
                _verify(write_safetensors(new / name, given, {"format": "pt"}), shard)
            if len(shards) > 1:
                _write_index(new / SAFETENSORS_INDEX, shards)
            _install(new, destination, aside=staging / "before")
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"{destination} could not be written ({error}). See to the disk's space and permissions; nothing was changed."
        ) from error
    return tuple(destination / name for name in shards)


def _shards(tensors: Mapping[str, StoredTensor], most: float) -> dict[str, dict[str, StoredTensor]]:
    """The tensors by the file that each goes into, in their order: a file is closed when the next one would be too much."""
    shards: list[dict[str, StoredTensor]] = [{}]
    for key, tensor in tensors.items():
        if shards[-1] and sum(t.data.nbytes for t in shards[-1].values()) + tensor.data.nbytes > most:
            shards.append({})
        shards[-1][key] = tensor
    if len(shards) == 1:
        return {SAFETENSORS: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def _write_index(path: Path, shards: Mapping[str, Mapping[str, StoredTensor]]) -> None:
    size = sum(tensor.data.nbytes for shard in shards.values() for tensor in shard.values())
    index = {
        "metadata": {"total_size": size},
        "weight_map": {key: name for name, shard in shards.items() for key in shard},
    }
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
    # One file goes before an index when a folder is read; an old one beside new shards would be taken for the model.
    outdated = {SAFETENSORS} if SAFETENSORS_INDEX in names else set()
    before = {name for name in {*names, *outdated} if (destination / name).exists()}
    aside.mkdir()
    try:
        for name in sorted(outdated & before):
            os.replace(destination / name, aside / name)
        for name in names:
            if name in before:
                os.replace(destination / name, aside / name)
            os.replace(new / name, destination / name)
    except BaseException:  # Ctrl-C too
        for name in {*names, *outdated}:
            if (aside / name).exists():
                os.replace(aside / name, destination / name)
            elif name not in before:
                (destination / name).unlink(missing_ok=True)
        raise
