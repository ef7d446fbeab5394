"""What a checkpoint holds: sizes, windows, tensors, dtypes, memory. From the headers, without reading a number.

For led-base's file of 648 MB this takes milliseconds, and no memory to speak of: safetensors keep names, dtypes and shapes
in a header. (Of a .bin the pickle says the same, but its checksums are verified, for which its bytes are read once.)

    led-ref inspect MODEL      prints this

A checkpoint that does not fit its config.json is described too; `problem` then says what is wrong with it.
Whether two tables under tied names are really equal, and whether all numbers are finite, only loading can tell (load.py).
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError
from led_ref.weights.find_files import find_weights, read_tensors
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, TIED, canonical_key, heads_in
from led_ref.weights.load import fit_to_config


@dataclass(frozen=True)
class TensorSummary:
    """One tensor: its name in the file, its dtype there (safetensors' name, such as "F32"), and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class CheckpointSummary:
    """What a folder's checkpoint holds.

    Args:
        files: names of the files that hold the weights.
        config: what config.json says.
        windows: total window width 2R of each encoder layer.
        radii: R of each encoder layer, how far a token sees to each side.
        parameters: trained numbers; a table under several tied names counts once.
        dtypes: how many tensors there are of each dtype.
        bytes_on_disk: the size of those files.
        bytes_in_float32: the memory that the weights take when they are loaded in float32; twice that in float64.
        problem: why it will not load, as far as names, shapes and dtypes tell; None if nothing is wrong with those.
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
        """All of it as plain dictionaries and lists, ready for JSON."""
        return {**asdict(self), "config": self.config.to_dict()}


def summarize_checkpoint(folder: str | Path) -> CheckpointSummary:
    """Describe the checkpoint in a folder.

    Raises:
        MissingFileError: if there is no config.json or no weights.
        ConfigError: if config.json is not an LED's.
        CheckpointError: if a file of weights is damaged.
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
    # Every name once; of the tied names one, and the output projection too where config.json says that it is not tied.
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
