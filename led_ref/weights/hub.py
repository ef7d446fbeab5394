"""Resolve a model's name to a folder: a Hub name is downloaded into the Hub's local cache, a folder is itself.

    resolve("a/local/folder")             the folder
    resolve("allenai/led-base-16384")     the snapshot's folder in huggingface_hub's cache, downloaded if needed

Downloaded are config.json, the weights in the first format that the repository has (safetensors before pytorch_model.bin,
the only format of Ai2's repositories), the tokenizer's files and generation_config.json, all from one commit. If the Hub
cannot be reached, or HF_HUB_OFFLINE is set, the cache must hold them.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path

from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.weights.find_files import (
    CONFIG,
    GENERATION_CONFIG,
    LAYOUT,
    SAFETENSORS,
    TOKENIZER_FILES,
    WEIGHT_FILES,
    Notice,
    find_weights,
    read_index,
    shorten,
)

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


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
    if folder.is_dir() and name:  # Path("") is the working directory
        if revision is not None:
            raise InputError(f"revision {revision!r} is for names on the Hub, but {folder} is a folder: leave it out.")
        return folder
    if folder.exists() and name:
        raise MissingFileError(f"{folder} is a file. Name the folder that holds it and {CONFIG}.")
    if isinstance(name_or_folder, Path) or not _HUB_NAME.fullmatch(name):
        raise MissingFileError(
            f"There is no folder {name!r}, and it is no Hub name (organisation/model, such as allenai/led-base-16384). "
            f"A model is {LAYOUT}"
        )
    return _fetch(name, revision, notice)


def _fetch(name: str, revision: str | None, notice: Notice | None) -> Path:
    """Download a model's files; the folder of the repository's snapshot."""
    from huggingface_hub import HfApi, errors

    at = f"{name} (revision {revision})" if revision else name
    try:
        present = {entry.rfilename for entry in HfApi().model_info(name, revision=revision).siblings or ()}
    except errors.GatedRepoError as error:
        raise MissingFileError(
            f"{at} is on the Hub, but you have no access. Accept its terms on its page and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MissingFileError(
            f"There is no folder {name}, and no model of this name on the Hub (or it is private: `hf auth login`). "
            "Check the spelling."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingFileError(f"{name} has no revision {revision!r}. Leave it out for the newest revision.") from error
    except errors.HFValidationError as error:
        raise MissingFileError(
            f"{name!r} cannot be the name of a Hub model ({error}), and no folder has this name."
        ) from error
    except Exception as error:  # no connection; the library changed its HTTP client, and so the errors, twice
        return _from_cache(name, revision, why=type(error).__name__)

    if CONFIG not in present:
        raise MissingFileError(f"{at} has no {CONFIG}; it holds {shorten(sorted(present))}. Name an LED's repository.")
    # The cache finds a revision without the Hub only if one download named it.
    folder = _download(name, CONFIG, revision).parent
    commit = folder.name  # of all other files

    def get(file: str) -> Path:
        return _download(name, file, commit)

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
    if ".bin" in first and notice is not None:
        notice(f"{at} has no {SAFETENSORS}; fetching {first}. `led-ref convert` writes one, which loads faster.")
    path = get(first)
    if path.suffix == ".json":
        shards = sorted(set(read_index(path).values()))
        missing = [shard for shard in shards if shard not in present]
        if missing:
            raise CheckpointError(
                f"{first} of {at} names shards that do not exist: {shorten(missing)}. Try another revision."
            )
        for shard in shards:
            get(shard)


def _from_cache(name: str, revision: str | None, *, why: str) -> Path:
    """The folder of an earlier download, if it is complete."""
    from huggingface_hub import errors, hf_hub_download

    at = f"{name} (revision {revision})" if revision else name
    try:
        folder = Path(hf_hub_download(name, CONFIG, revision=revision, local_files_only=True)).parent
        find_weights(folder)
    except (errors.EntryNotFoundError, MissingFileError) as error:
        raise MissingFileError(
            f"The Hub cannot be reached ({why}), and its local cache does not hold {at}. Either try again with a connection "
            f"(HF_HUB_OFFLINE unset), or copy the model's files from another machine and name their folder: {LAYOUT}"
        ) from error
    return folder


def _download(name: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except Exception as error:  # a lost connection, a full disk
        raise MissingFileError(
            f"{file} of {name} could not be fetched ({type(error).__name__}: {error}). Try again: finished downloads are kept."
        ) from error
