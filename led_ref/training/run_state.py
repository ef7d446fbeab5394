"""The checkpoint of a training: everything that decides how it goes on, in one file, whole or not at all.

    checkpoint.safetensors      model/{key}         the weights; with LoRA, A and B alone
                                optimizer/{name}    the optimizer's moments and numbers of steps
                                metadata            progress: step, epoch, position in the epoch, the best validation

The batches that follow are a function of seed, epoch and position, dropout one of seed and step. So a training that goes on
ends with the same bits as one that was not interrupted.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from led_backends.contract import HostArray
from led_ref.errors import CheckpointError, reason_of
from led_ref.files.json_file import parse_json
from led_ref.training.loss_scale import LossScale
from led_ref.training.validation import Best
from led_ref.weights.safetensors_file import read_header, read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import from_numpy

CHECKPOINT = "checkpoint.safetensors"
_KEY = "progress"


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Args:
        step: steps so far, those that were not taken too.
        epoch: the epoch of the next step, from 0.
        position: of the next step in its epoch.
        skipped: steps that were not taken.
        skipped_in_a_row: of them the last ones.
        best: of the validations.
        stopped: it came to its end early, since no validation was better.
        loss_scale: of the next step.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: Best = field(default_factory=Best)
    stopped: bool = False
    loss_scale: LossScale = field(default_factory=LossScale)


def save_checkpoint(
    folder: Path, weights: Mapping[str, HostArray], optimizer: Mapping[str, HostArray], progress: Progress
) -> None:
    """Write the checkpoint into a folder, in place of the one before.

    Raises:
        CheckpointError: if it cannot be written, or read back unchanged; the one before is still there.
    """
    arrays = {f"model/{key}": array for key, array in weights.items()}
    arrays |= {f"optimizer/{name}": array for name, array in optimizer.items()}
    tensors = {name: from_numpy(name, array) for name, array in arrays.items()}
    try:
        write_safetensors(folder / CHECKPOINT, tensors, {_KEY: json.dumps(asdict(progress))})
    except OSError as error:
        raise CheckpointError(
            f"{folder / CHECKPOINT} could not be written ({reason_of(error)}). Check the disk's space; the one before is kept."
        ) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, HostArray], dict[str, HostArray], Progress]:
    """Weights, optimizer's arrays and progress of a folder's checkpoint; the arrays are read-only views of the file.

    Raises:
        MissingFileError: if there is none.
        CheckpointError: if it is damaged, or not what led-ref train writes.
    """
    path = folder / CHECKPOINT
    tensors = read_safetensors(path)
    try:
        values = parse_json(read_header(path).metadata[_KEY], finite=False)
        scale = LossScale(**values.get("loss_scale", {}))  # a file of before float16 has none
        progress = Progress(**{**values, "best": Best(**values["best"]), "loss_scale": scale})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say how far the training is ({error!r:.80}). Train anew, into another folder."
        ) from error
    parts: dict[str, dict[str, HostArray]] = {"model": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, key = name.partition("/")
        if part not in parts:
            raise CheckpointError(f"{path} holds {name[:80]!r}, which is no part of a training. Train anew.")
        parts[part][key] = tensor.data
    return parts["model"], parts["optimizer"], progress
