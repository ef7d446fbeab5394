"""The folder of a training run: what is in it, and whether a run may begin in it or go on.

Each file is written beside its place, under a hidden name, and put there whole. So a run that was killed, at whatever moment,
goes on from its last checkpoint; what it left unfinished is removed then.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from led_backends.contract import Array, HostArray
from led_ref.errors import CheckpointError, InputError, MissingFileError, reason_of
from led_ref.files.json_file import read_json_object, write_text
from led_ref.files.staging import remove_leftovers, to_write
from led_ref.training.run_state import CHECKPOINT, Progress, load_checkpoint, save_checkpoint
from led_ref.weights.find_files import WEIGHT_FILES

FACTS = "training.json"


class RunFolder:
    """The folder that a training writes into.

    Args:
        path: created by `begin`; its parent must exist.
        resume: whether a run may go on in it.

    Raises:
        InputError: if it is a file, or holds a model or a training and is not to go on.
        MissingFileError: if its parent does not exist.
    """

    def __init__(self, path: str | Path, *, resume: bool) -> None:
        self.path = to_write("out", path)
        self.log, self.last = self.path / "log.jsonl", self.path / "last"
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file. Name a folder for the trained model.")
        if not self.path.absolute().parent.is_dir():
            raise MissingFileError(f"There is no folder {self.path.parent} to make {self.path.name} in. Make it first.")
        present = [name for name in (FACTS, *WEIGHT_FILES) if (self.path / name).exists()]
        if present and not resume:
            raise InputError(
                f"{self.path} holds {present[0]} already. To go on with its training pass resume=True (--resume); to begin "
                "anew, name another folder."
            )
        if present and FACTS not in present:
            raise InputError(
                f"{self.path} holds {present[0]}, but no {FACTS}: it is no training that could go on. Name another folder."
            )

    def begin(self, facts: Mapping[str, Any], *, may_change: Collection[str] = ()) -> Progress | None:
        """Make the folder, or compare the run with the one that began in it.

        Args:
            facts: what decides how the training goes: JSON-ready.
            may_change: names of facts, with dots, that may be others than when the run began.

        Returns:
            The progress of the checkpoint; None if the run is to begin.

        Raises:
            InputError: if the run differs from the one that began. The message names the difference.
            CheckpointError: if the folder cannot be written into, or its checkpoint is damaged.
        """
        path = self.path / FACTS
        if not path.exists():
            self._write_facts(facts)
            return None
        try:
            before = read_json_object(path)
            found = list(_differences(before, json.loads(json.dumps(facts))))
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is not what led-ref train writes there ({error!r:.80}). Name another folder."
            ) from error
        if differences := [one for one in found if one[0] not in may_change]:
            name, was, now = differences[0]
            raise InputError(
                f"{self.path} was begun with {name} {was!r:.80}, and this run has {now!r:.80}. Run it as it was begun "
                f"({path} says how), or name another folder."
            )
        if found:
            self._write_facts(facts)
        self._remove_leftovers()
        return load_checkpoint(self.path)[2] if (self.path / CHECKPOINT).exists() else None

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        try:
            self.path.mkdir(exist_ok=True)
            self._remove_leftovers()
            write_text(self.path / FACTS, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"{self.path / FACTS} could not be written ({reason_of(error)}). Check the disk's space and permissions."
            ) from error

    def _remove_leftovers(self) -> None:
        """Remove what a killed run left of the files that it was writing."""
        for path in (self.path.resolve(), self.path / FACTS, self.path / CHECKPOINT, self.log, self.last):
            remove_leftovers(path)

    def save(self, weights: Mapping[str, HostArray], optimizer: Mapping[str, HostArray], progress: Progress) -> None:
        """Write the checkpoint; errors as in save_checkpoint."""
        save_checkpoint(self.path, weights, optimizer, progress)

    def load(self, weights: Mapping[str, Array]) -> tuple[dict[str, HostArray], dict[str, HostArray], Progress]:
        """The checkpoint, whose weights must be these.

        Raises:
            CheckpointError: if it is damaged, or of other weights.
        """
        found, optimizer, progress = load_checkpoint(self.path)
        for key in weights.keys() | found.keys():
            shapes = [
                (tuple(arrays[key].shape), arrays[key].dtype) if key in arrays else None for arrays in (weights, found)
            ]
            if shapes[0] != shapes[1]:
                raise CheckpointError(
                    f"{self.path / CHECKPOINT} has {key} as {shapes[1]}, the model as {shapes[0]}. Give the --model that the "
                    "training began with."
                )
        return found, optimizer, progress


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Any:
    """The values in which two dictionaries differ: (name, before, now)."""
    for name in sorted(before.keys() | now.keys()):
        values = before.get(name), now.get(name)
        if isinstance(values[0], dict) and isinstance(values[1], dict):
            yield from _differences(values[0], values[1], f"{path}{name}.")
        elif values[0] != values[1]:
            yield path + name, *values
