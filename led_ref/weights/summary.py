"""Summarize a checkpoint: sizes, windows, tensors, dtypes and memory, from the headers alone.

    led-ref inspect MODEL      prints the summary

For led-base's file of 648 MB this takes milliseconds and almost no memory: a safetensors header has all names, dtypes and
shapes. (So has the pickle of a .bin, but the check of its checksums reads every byte once.)

A checkpoint that does not fit its config.json is summarized, too; `problem` describes the misfit. Only loading (load.py)
checks that tied tables are equal and all numbers finite.
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError
from led_ref.model.brief_repr import BriefRepr
from led_ref.weights.find_files import find_weights, read_tensors
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, TIED, canonical_key, heads_in
from led_ref.weights.load import fit_to_config


@dataclass(frozen=True)
class TensorSummary:
    """One tensor: its name in the file, its dtype there (safetensors' name, such as "F32"), and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class CheckpointSummary(BriefRepr):
    """The content of a folder's checkpoint.

    Args:
        files: names of the weight files.
        config: from config.json.
        windows: total window width 2R of each encoder layer.
        radii: R of each encoder layer, the reach of local attention to each side.
        parameters: trained numbers; a tied table counts once.
        dtypes: the number of tensors of each dtype.
        bytes_on_disk: the size of the weight files.
        bytes_in_float32: the memory of the weights in float32; twice as much in float64.
        problem: why it cannot be loaded, by its names, shapes and dtypes; None if they fit.
        tensors: every tensor, in the order of the files.
    """

    files: tuple[str, ...]
    config: LEDConfig
    windows: tuple[int, ...]
    radii: tuple[int, ...]
    parameters: int
    dtypes: dict[str, int]
    bytes_on_disk: int
    bytes_in_float32: int
    problem: str | None
    tensors: tuple[TensorSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain dictionaries and lists, ready for JSON."""
        return {**asdict(self), "config": self.config.to_dict()}


def summarize_checkpoint(folder: str | Path) -> CheckpointSummary:
    """Summarize the checkpoint in a folder.

    Raises:
        MissingFileError: if the folder lacks config.json or weights.
        ConfigError: if config.json is not an LED's.
        CheckpointError: if a weight file is damaged.
    """
    config = LEDConfig.from_pretrained(folder)
    files = find_weights(folder)
    tensors = read_tensors(folder)
    problem = None
    by_key = {canonical_key(name): tensor for name, tensor in tensors.items()}
    try:
        by_key = fit_to_config(tensors, config, heads=heads_in(tensors))
    except CheckpointError as error:
        problem = str(error)
    # Each key counts once; the tied names count as one table, and an untied output projection as another.
    sizes = {key: math.prod(tensor.shape) for key, tensor in by_key.items()}
    table = max((sizes[key] for key in TIED if key in sizes), default=0)
    output = 0 if config.tie_word_embeddings else sizes.get(LM_HEAD, 0)
    parameters = table + output + sum(size for key, size in sizes.items() if key not in {*TIED, FINAL_LOGITS_BIAS})
    return CheckpointSummary(
        files=tuple(path.name for path in files.paths),
        config=config,
        windows=config.windows,
        radii=config.radii,
        parameters=parameters,
        dtypes=dict(Counter(tensor.dtype for tensor in tensors.values())),
        bytes_on_disk=sum(path.stat().st_size for path in files.paths),
        bytes_in_float32=4 * (parameters + sizes.get(FINAL_LOGITS_BIAS, config.vocab_size)),
        problem=problem,
        tensors=tuple(TensorSummary(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()),
    )
