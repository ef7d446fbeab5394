"""Find a model: its name to a folder, the folder to its weight files, and these to mapped tensors by their names.

    resolve("a/local/folder")             the folder
    resolve("allenai/led-base-16384")     the snapshot's folder in huggingface_hub's cache, downloaded if needed

Downloaded are config.json, the weights in the first format that the repository has, the tokenizer's files and
generation_config.json, all from one commit. If the Hub cannot be reached, or HF_HUB_OFFLINE is set, the cache must hold
them.

A model's folder holds config.json and the first that exists of:

    model.safetensors                   all weights in one file
    model.safetensors.index.json        the shard (one of several files) of each tensor
    pytorch_model.bin                   the same, written by torch.save; Ai2's published format
    pytorch_model.bin.index.json
    model.pt                            the same of fairseq, whose BARTs `led-ref convert --from-bart` takes

An index is a JSON object such as {"weight_map": {"led.shared.weight": "model-00001-of-00002.safetensors", ...}}. It is
untrusted: a shard must be a plain file name in the same folder, and hold exactly the tensors of its entries.

load.py compares the tensors with the table of an LED (keys.py). This file reads no numbers: the files are mapped.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from led_backends.notices import inform
from led_ref.errors import CheckpointError, InputError, MissingFileError, quoted
from led_ref.files import hub
from led_ref.files.json_file import read_json_object
from led_ref.weights.safetensors_file import read_safetensors
from led_ref.weights.stored_tensor import MAX_TENSORS, StoredTensor
from led_ref.weights.torch_files.torch_bin import read_torch_bin

Notice = Callable[[str], None]

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TORCH_BIN = "pytorch_model.bin"
TORCH_BIN_INDEX = "pytorch_model.bin.index.json"
FAIRSEQ = "model.pt"
WEIGHT_FILES = (SAFETENSORS, SAFETENSORS_INDEX, TORCH_BIN, TORCH_BIN_INDEX, FAIRSEQ)

# The other files of a model; all but config.json are optional.
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
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

# What stands before a model's own names; the shortest, as `model.encoder` is itself a name of allenai's files and of BART.
_WRAPPED = re.compile(
    r"(\w+\.)*?(?=(led|model)\.(shared|encoder|decoder)\.)|((module|_orig_mod)\.)+(?=(shared|encoder|decoder)\.)"
)


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a model's weights.

    Args:
        paths: the file, or all shards in the order of their names.
        weight_map: tensor name -> shard's file name; None without an index.
    """

    paths: tuple[Path, ...]
    weight_map: Mapping[str, str] | None = None

    @property
    def are_torch(self) -> bool:
        """Whether torch.save wrote them."""
        return self.paths[0].suffix in (".bin", ".pt")


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
            f"{found} names {len(shards)} shards, of which {len(missing)} do not exist: {shorten(missing)}. Add them."
        )
    return WeightFiles(shards, weight_map)


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
    if len(weight_map) > MAX_TENSORS:
        raise CheckpointError(f"{path} names {len(weight_map):,} tensors; the limit is {MAX_TENSORS:,}. {again}")
    for name, shard in weight_map.items():
        if not (isinstance(shard, str) and _is_file_name(shard) and shard.endswith(suffix)):
            raise CheckpointError(
                f"{path} puts {quoted(name)} into {quoted(shard)}; a shard is a plain file name that ends in {suffix}. {again}"
            )
    return weight_map


def _is_file_name(name: str) -> bool:
    """Whether a text names a file in the same folder on every system: no separator, no drive, not hidden, not too long."""
    return name.isprintable() and not set(name) & set("/\\:") and name[:1] != "." and len(name.encode()) <= 255


def read_tensors(folder: str | Path, *, mmap: bool = True, notice: Notice | None = None) -> dict[str, StoredTensor]:
    """Every tensor of a folder's weights, by its name in the file.

    Args:
        folder: the model's folder.
        mmap: map the files; False: read them into memory (stored_tensor.py).
        notice: called with a sentence for the user if the weights come from a .bin.

    Raises:
        MissingFileError: if the weights or a shard do not exist.
        CheckpointError: for a damaged or hostile file, and for an index that contradicts its shards.
    """
    files = find_weights(folder)
    if files.are_torch:
        (notice or inform)(
            f"Reading {files.paths[0].name}: the folder has no {SAFETENSORS}. "
            "`led-ref convert` writes one, which loads faster."
        )
    read = partial(read_torch_bin if files.are_torch else read_safetensors, mmap=mmap)
    if files.weight_map is None:
        return unwrapped(read(files.paths[0]))
    names_of: dict[str, set[str]] = {}
    for name, shard in files.weight_map.items():
        names_of.setdefault(shard, set()).add(name)
    tensors: dict[str, StoredTensor] = {}
    for path in files.paths:
        of_shard, listed = read(path), names_of[path.name]
        for names, what in ((listed - of_shard.keys(), "lacks"), (of_shard.keys() - listed, "has, unlisted,")):
            if names:
                raise CheckpointError(
                    f"The index of {folder} and {path.name} disagree: the shard {what} {len(names)} tensors: "
                    f"{shorten(sorted(names))}. Fetch the index and its shards again, all from one revision."
                )
        tensors.update(of_shard)
    return unwrapped(tensors)


def unwrapped(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors by their names in the model itself, without the prefix that a module around it gave to all of them.

    Such modules are DistributedDataParallel (`module.`), torch.compile (`_orig_mod.`), and a trainer's own (`model.`).

    Example:
        >>> list(unwrapped({"module.model.led.shared.weight": None, "module.model.lm_head.weight": None}))
        ['led.shared.weight', 'lm_head.weight']
    """
    found = next(filter(None, map(_WRAPPED.match, tensors)), None)
    prefix = found[0] if found else ""
    if not prefix or not all(name.startswith(prefix) for name in tensors):
        return dict(tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def shorten(names: Iterable[str], shown: int = 5) -> str:
    """The first few of many names, each at most 200 characters, and the number of the others: "a, b, c and 12 more"."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name if len(name) <= 200 else quoted(name) for name in names[:shown]) + more


def resolve(name_or_folder: str | Path, *, revision: str | None = None, notice: Notice | None = None) -> Path:
    """The folder of a model: the named folder, or the cache's copy of a Hub repository.

    Args:
        name_or_folder: a folder, or `organisation/model`. An existing folder of this name is preferred to the Hub.
        revision: branch, tag, commit or pull request (`refs/pr/4`) of the Hub repository.
        notice: called with a sentence for the user if the repository has only a pytorch_model.bin.

    Raises:
        MissingFileError: if the folder or repository does not exist or lacks config.json or weights, or if neither the Hub
            can be reached nor the cache holds them.
        InputError: for a folder with a revision.
    """
    name = str(name_or_folder)
    folder = Path(name).expanduser()
    try:
        exists = folder.exists()
    except (OSError, ValueError):  # longer than the file system allows, or with a zero byte
        raise MissingFileError(f"There can be no folder {quoted(name)}. A model is {LAYOUT}") from None
    if folder.is_dir() and name:  # Path("") is the working directory
        if revision is not None:
            raise InputError(f"revision {revision!r} is for names on the Hub, but {folder} is a folder: leave it out.")
        return folder
    if exists and name:
        raise MissingFileError(f"{folder} is a file. Name the folder that holds it and {CONFIG}.")
    if isinstance(name_or_folder, Path) or not hub.NAME.fullmatch(name):
        raise MissingFileError(
            f"There is no folder {name!r}, and it is no Hub name (organisation/model, such as allenai/led-base-16384). "
            f"A model is {LAYOUT}"
        )
    return _fetch(name, revision, notice)


def _fetch(name: str, revision: str | None, notice: Notice | None) -> Path:
    """Download a model's files; the folder of the repository's snapshot."""
    at = f"{name} (revision {revision})" if revision else name
    try:
        present = hub.files_of(name, revision)
    except hub.UnreachableError as error:
        return _from_cache(name, revision, at, why=str(error))
    if CONFIG not in present:
        raise MissingFileError(f"{at} has no {CONFIG}; it holds {shorten(sorted(present))}. Name an LED's repository.")
    # The cache finds a revision without the Hub only if one download named it.
    folder = hub.download(name, revision, CONFIG).parent
    get = partial(hub.download, name, folder.name)  # all other files are of the same commit
    _get_weights(at, present, get, notice)
    for file in (GENERATION_CONFIG, *TOKENIZER_FILES):
        if file in present:
            get(file)
    return folder


def _get_weights(at: str, present: Collection[str], get: Callable[[str], Path], notice: Notice | None) -> None:
    """Download the weights in the first format that the repository has, an index with all its shards."""
    first = next((file for file in WEIGHT_FILES if file in present), None)
    if first is None:
        raise MissingFileError(
            f"{at} holds no weights that led_ref reads ({', '.join(WEIGHT_FILES)}); it holds {shorten(sorted(present))}."
        )
    if ".bin" in first:
        (notice or inform)(
            f"{at} has no {SAFETENSORS}; fetching {first}. `led-ref convert` writes one, which loads faster."
        )
    path = get(first)
    if path.suffix == ".json":
        shards = sorted(set(read_index(path).values()))
        missing = [shard for shard in shards if shard not in present]
        if missing:
            raise CheckpointError(f"Shards of {first} of {at} do not exist: {shorten(missing)}. Try another revision.")
        for shard in shards:
            get(shard)


def _from_cache(name: str, revision: str | None, at: str, *, why: str) -> Path:
    """The folder of an earlier download, if it is complete."""
    try:
        folder = hub.cached(name, CONFIG, revision).parent
        find_weights(folder)
    except MissingFileError as error:
        raise MissingFileError(
            f"The Hub cannot be reached ({why}), and its local cache does not hold {at}. Either try again with a connection "
            f"(HF_HUB_OFFLINE unset), or copy the model's files from another machine and name their folder: {LAYOUT}"
        ) from error
    return folder


def model_digest(folder: Path) -> str:
    """The sha256 of a model's files: weights, configuration, vocabulary."""
    names = {
        CONFIG,
        GENERATION_CONFIG,
        *TOKENIZER_FILES,
        *WEIGHT_FILES,
        *(path.name for path in find_weights(folder).paths),
    }
    digest = hashlib.sha256()
    for path in (folder / name for name in sorted(names)):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
