"""Find a folder's weight files, and map every tensor in them by its name in the file.

A model's folder holds config.json and the first that exists of:

    model.safetensors                   all weights in one file
    model.safetensors.index.json        the shard (one of several files) of each tensor
    pytorch_model.bin                   the same, written by torch.save; Ai2's published format
    pytorch_model.bin.index.json

An index is a JSON object such as {"weight_map": {"led.shared.weight": "model-00001-of-00002.safetensors", ...}}. It is
untrusted: a shard must be a plain file name in the same folder, and hold exactly the tensors of its entries.

load.py compares the tensors with the table of an LED (keys.py). This file reads no numbers: the files are mapped.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from led_ref.errors import CheckpointError, MissingFileError
from led_ref.json_file import read_json_object
from led_ref.weights.safetensors_file import read_safetensors
from led_ref.weights.stored_tensor import StoredTensor
from led_ref.weights.torch_files.torch_bin import read_torch_bin

Notice = Callable[[str], None]

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TORCH_BIN = "pytorch_model.bin"
TORCH_BIN_INDEX = "pytorch_model.bin.index.json"
WEIGHT_FILES = (SAFETENSORS, SAFETENSORS_INDEX, TORCH_BIN, TORCH_BIN_INDEX)

# The other files of a model; all but config.json are optional.
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)

LAYOUT = f"""a folder with
    {CONFIG}
    {SAFETENSORS}  (or {SAFETENSORS_INDEX} and the shards it names, or {TORCH_BIN})
    vocab.json and merges.txt  (or tokenizer.json)
    {GENERATION_CONFIG}  (if the model has one)"""

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a model's weights.

    Args:
        paths: the file, or all shards in the order of their names.
        weight_map: tensor name -> shard's file name; None without an index.
        index: the index file; None without one.
    """

    paths: tuple[Path, ...]
    weight_map: Mapping[str, str] | None = None
    index: Path | None = None

    @property
    def are_torch(self) -> bool:
        """Whether torch.save wrote them."""
        return self.paths[0].suffix == ".bin"


def find_weights(folder: str | Path) -> WeightFiles:
    """The weight files of a folder: safetensors before .bin, one file before shards.

    Raises:
        MissingFileError: if the folder, its weights or a shard do not exist.
        CheckpointError: for an index that is damaged or names a file outside the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"There is no folder {folder}. A model is {LAYOUT}")
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        present = shorten(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise MissingFileError(f"{folder} holds no weights (it holds {present}). A model is {LAYOUT}")
    if found.suffix != ".json":
        return WeightFiles((found,))
    weight_map = read_index(found)
    shards = tuple(folder / shard for shard in sorted(set(weight_map.values())))
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise MissingFileError(
            f"{found} names {len(shards)} shards, of which {len(missing)} do not exist: {shorten(missing)}. "
            "Put them beside the index."
        )
    return WeightFiles(shards, weight_map, found)


def read_index(path: Path) -> dict[str, str]:
    """The checked `weight_map` of an index: tensor name -> file name of a shard in the same folder.

    Raises:
        CheckpointError: if it is no index, repeats a tensor, or names a shard by more than a plain file name.
    """
    suffix = ".bin" if path.name == TORCH_BIN_INDEX else ".safetensors"
    again = "Fetch the index again."
    values = read_json_object(path, error_class=CheckpointError, remedy=again, unique_names=True)
    weight_map = values.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no 'weight_map' of tensor names to file names. {again}")
    for name, shard in weight_map.items():
        # No path to another folder: no separator of any system, no drive, no hidden file, no control character.
        plain = isinstance(shard, str) and shard.isprintable() and not set(shard) & set("/\\:") and shard[:1] != "."
        if not plain or not shard.endswith(suffix):
            raise CheckpointError(
                f"{path} puts {name!r} into {shard!r}; a shard is a plain file name that ends in {suffix}, in the "
                f"folder of the index. {again}"
            )
    return weight_map


def read_tensors(folder: str | Path, *, notice: Notice | None = None) -> dict[str, StoredTensor]:
    """Every tensor of a folder's weights, by its name in the file; mapped, not read.

    Args:
        folder: the model's folder.
        notice: called with a sentence for the user if the weights come from a .bin.

    Raises:
        MissingFileError: if the weights or a shard do not exist.
        CheckpointError: for a damaged or hostile file, and for an index that contradicts its shards.
    """
    files = find_weights(folder)
    if files.are_torch and notice is not None:
        notice(
            f"Reading {files.paths[0].name}: the folder has no {SAFETENSORS}. "
            "`led-ref convert` writes one, which loads faster."
        )
    read = read_torch_bin if files.are_torch else read_safetensors
    if files.weight_map is None or files.index is None:
        return read(files.paths[0])
    tensors: dict[str, StoredTensor] = {}
    for path in files.paths:
        of_shard = read(path)
        listed = {name for name, shard in files.weight_map.items() if shard == path.name}
        for names, what in ((listed - of_shard.keys(), "lacks"), (of_shard.keys() - listed, "has, unlisted,")):
            if names:
                raise CheckpointError(
                    f"{files.index.name} and {path.name} disagree: the shard {what} {len(names)} tensors: "
                    f"{shorten(sorted(names))}. Fetch the index and its shards again, all from one revision."
                )
        tensors.update(of_shard)
    return tensors


def shorten(names: Iterable[str], shown: int = _NAMES_SHOWN) -> str:
    """The first few of many names, and the number of the others: "a, b, c and 12 more"."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
