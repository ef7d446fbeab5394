"""Files of a repository on the Hub, by huggingface_hub's cache. It is imported where a name on the Hub is given."""

import re
from collections.abc import Iterable
from os.path import exists
from pathlib import Path

from led_ref.errors import InputError, MissingFileError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FIRST = "config.json"  # every model has it


class UnreachableError(Exception):
    """No connection to the Hub; its text says which error."""


def named(name_or_folder: str | Path, files: Iterable[str], revision: str | None = None) -> Path:
    """The path itself, or for a name on the Hub that is no path here, a folder with config.json and those of `files` it has.

    Args:
        name_or_folder: a path, or `organisation/model`. An existing path of this name is preferred to the Hub.
        files: names of files; no weights are downloaded.
        revision: branch, tag or commit of the Hub repository.

    Raises:
        MissingFileError: if the repository does not exist, or neither the Hub can be reached nor the cache holds its files.
        InputError: for a path with a revision.
    """
    path = Path(name_or_folder)
    if not isinstance(name_or_folder, str) or not NAME.fullmatch(name_or_folder) or exists(path):
        if revision is not None:
            raise InputError(f"revision {revision!r} is for names on the Hub, but {path} is a path: leave it out.")
        return path
    try:
        present = files_of(name_or_folder, revision)
    except UnreachableError as error:
        try:
            return cached(name_or_folder, _FIRST, revision).parent
        except MissingFileError:
            raise MissingFileError(
                f"There is no folder {name_or_folder}, the Hub cannot be reached ({error}), and its local cache does not hold "
                "a model of this name. Name a folder, or try again with a connection (HF_HUB_OFFLINE unset)."
            ) from error
    folder = download(name_or_folder, revision, _FIRST).parent
    for file in files:
        if file in present:
            download(name_or_folder, folder.name, file)  # of the same commit
    return folder


def files_of(name: str, revision: str | None) -> set[str]:
    """The names of a repository's files.

    Raises:
        MissingFileError: for a repository or revision that does not exist, or is not open to this user.
        UnreachableError: without a connection.
    """
    from huggingface_hub import HfApi, errors

    at = f"{name} (revision {revision})" if revision else name
    try:
        return {entry.rfilename for entry in HfApi().model_info(name, revision=revision).siblings or ()}
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
        raise MissingFileError(f"{name!r} is no folder, and cannot be the name of a Hub model ({error}).") from error
    except Exception as error:  # no connection; the library changed its HTTP client, and so the errors, twice
        raise UnreachableError(type(error).__name__) from error


def cached(name: str, file: str, revision: str | None) -> Path:
    """A file of an earlier download; MissingFileError if the cache does not hold it."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=True))
    except errors.EntryNotFoundError as error:
        raise MissingFileError(f"The cache does not hold {file} of {name}. Fetch it with a connection.") from error


def download(name: str, revision: str | None, file: str) -> Path:
    """A file, fetched where the cache lacks it; MissingFileError if that fails."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except Exception as error:  # a lost connection, a full disk
        raise MissingFileError(
            f"{file} of {name} could not be fetched ({type(error).__name__}: {error}). Try again: finished downloads are kept."
        ) from error
