"""A name to a folder: `allenai/led-base-16384` is fetched into the Hub's local cache, a folder is itself.

    resolve("some/folder/that/is/here")       the folder
    resolve("allenai/led-base-16384")         the snapshot's folder in huggingface_hub's cache, fetched if need be

Only what is needed is fetched: config.json, the weights in the first format that the repository has (safetensors before
pytorch_model.bin, which Ai2's own repositories have alone), the tokenizer's files and generation_config.json. All of them
come from one commit. Where the Hub cannot be reached, or HF_HUB_OFFLINE is set, the cache must do.

This file reads no weights, and knows no model by name.
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
    """The folder that holds a model: the one that is named, or the cache's copy of a Hub repository.

    Args:
        name_or_folder: a folder, or `organisation/model`. A folder of that name goes before the Hub.
        revision: branch, tag, commit or pull request (`refs/pr/4`) of the Hub repository.
        notice: is told, in a sentence, when there is nothing but a pytorch_model.bin to fetch.

    Raises:
        MissingFileError: if there is no such folder or repository, it lacks config.json or weights, or the Hub cannot be
            reached and the cache does not hold them.
        InputError: if a revision is asked of a folder.
    """
    name = str(name_or_folder)
    folder = Path(name).expanduser()
    if folder.is_dir() and name:  # Path("") would be the working directory
        if revision is not None:
            raise InputError(f"revision {revision!r} is for names on the Hub, and {folder} is a folder: leave it out.")
        return folder
    if folder.exists() and name:
        raise MissingFileError(f"{folder} is a file. Name the folder that holds it, together with {CONFIG}.")
    if isinstance(name_or_folder, Path) or not _HUB_NAME.fullmatch(name):
        raise MissingFileError(
            f"There is no folder {name!r}, and it is no Hub name either (organisation/model, such as allenai/led-base-16384). "
            f"A model is {LAYOUT}"
        )
    return _fetch(name, revision, notice)


def _fetch(name: str, revision: str | None, notice: Notice | None) -> Path:
    """The folder of a repository's snapshot, with everything in it that a model needs."""
    from huggingface_hub import HfApi, errors

    at = f"{name} (revision {revision})" if revision else name
    try:
        present = {entry.rfilename for entry in HfApi().model_info(name, revision=revision).siblings or ()}
    except errors.GatedRepoError as error:
        raise MissingFileError(
            f"{at} is on the Hub, but not open to you. Accept its terms on its page and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MissingFileError(
            f"There is no folder {name} here, and no model of that name on the Hub (or it is private: `hf auth login`). "
            "See to the spelling."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingFileError(f"{name} has no revision {revision!r}. Leave it out for the newest state.") from error
    except errors.HFValidationError as error:
        raise MissingFileError(
            f"{name!r} cannot be the name of a Hub model ({error}), and no such folder is here."
        ) from error
    except (
        Exception
    ) as error:  # whatever the library's HTTP client raises without a connection; it changed client twice
        return _from_cache(name, revision, why=type(error).__name__)

    if CONFIG not in present:
        raise MissingFileError(f"{at} has no {CONFIG}; it holds {shorten(sorted(present))}. Name an LED's repository.")
    # Only a fetch by the revision's own name leaves the mark in the cache by which it is found without the Hub.
    folder = _download(name, CONFIG, revision).parent
    commit = folder.name  # everything else from the very same state of the repository

    def get(file: str) -> Path:
        return _download(name, file, commit)

    _get_weights(at, present, get, notice)
    for file in (GENERATION_CONFIG, *TOKENIZER_FILES):
        if file in present:
            get(file)
    return folder


def _get_weights(at: str, present: Collection[str], get: Callable[[str], Path], notice: Notice | None) -> None:
    """Fetch the weights in the first format that is present, an index with all shards that it names."""
    first = next((file for file in WEIGHT_FILES if file in present), None)
    if first is None:
        raise MissingFileError(
            f"{at} holds no weights that led_ref reads ({', '.join(WEIGHT_FILES)}); it holds {shorten(sorted(present))}."
        )
    if ".bin" in first and notice is not None:
        notice(f"{at} has no {SAFETENSORS}; fetching {first}. `led-ref convert` turns it into one, which loads faster.")
    path = get(first)
    if path.suffix == ".json":
        shards = sorted(set(read_index(path).values()))
        missing = [shard for shard in shards if shard not in present]
        if missing:
            raise CheckpointError(
                f"{first} of {at} names shards that are not there: {shorten(missing)}. Try a revision."
            )
        for shard in shards:
            get(shard)


def _from_cache(name: str, revision: str | None, *, why: str) -> Path:
    """The folder of what was fetched earlier, if it is whole."""
    from huggingface_hub import errors, hf_hub_download

    at = f"{name} (revision {revision})" if revision else name
    try:
        folder = Path(hf_hub_download(name, CONFIG, revision=revision, local_files_only=True)).parent
        find_weights(folder)
    except (errors.EntryNotFoundError, MissingFileError) as error:
        raise MissingFileError(
            f"The Hub cannot be reached ({why}), and its cache here does not hold {at}. Either try again with a connection "
            "(HF_HUB_OFFLINE unset), or copy the model's files here from elsewhere and name their folder instead: "
            f"{LAYOUT}"
        ) from error
    return folder


def _download(name: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except Exception as error:  # a connection that broke, a full disk; see _fetch
        raise MissingFileError(
            f"{file} of {name} could not be fetched ({type(error).__name__}: {error}). Try again: what has arrived is kept."
        ) from error
