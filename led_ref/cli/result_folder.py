"""The folder of results of `--out`: what is in it was written whole, and all of it in one way.

    summaries/paper.summary.txt     a result
    summaries/led-ref.json          what made the results: model, settings, and the documents' digests

A file is made under a hidden name, its bytes waited for, and then it takes its own name in one step: whatever happens to the
program or the machine, a result is there whole or not at all. Which results are there is therefore all that a run needs to
know to go on. That they are results of the same model, settings and texts, the manifest says.

    >>> result_names(["a/one.txt", "b/two.md.gz", "-"], "summary.txt")
    ['one.summary.txt', 'two.summary.txt', 'standard-input.summary.txt']
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from led_ref.errors import InputError, MissingFileError

MANIFEST = "led-ref.json"

# Files of a model's folder that decide what it writes.
_OF_A_MODEL = (".json", ".safetensors", ".bin", ".txt")


def result_names(files: Sequence[str], ending: str) -> list[str]:
    """The name of each document's result.

    Raises:
        InputError: if two are the same, in small letters too, which some file systems do not tell from capitals.
    """
    names, of = [], dict[str, str]()
    for file in files:
        stem = "standard-input" if file == "-" else Path(file).name.removesuffix(".gz")
        name = f"{stem.removesuffix('.txt').removesuffix('.md')}.{ending}"
        other = of.setdefault(name.lower(), file)
        if other is not file:
            raise InputError(
                f"The results of {other} and {file} would both be {name}. "
                "Rename one of the documents, or write them into two folders, in two runs."
            )
        names.append(name)
    return names


def check_folder(folder: Path, names: Sequence[str], *, resume: bool) -> None:
    """Refuse a folder before anything is read or loaded for it.

    Raises:
        InputError: if it is a file, or holds results and the run is not to go on from them.
        MissingFileError: if there is no folder to make it in.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file. Name a folder for the results.")
    if not folder.absolute().parent.is_dir():
        raise MissingFileError(f"There is no folder {folder.parent} to make {folder.name} in. Make it first.")
    present = [name for name in (MANIFEST, *names) if (folder / name).exists()]
    if present and not resume:
        raise InputError(
            f"{folder} holds {present[0]} already. To keep what is there and write what is missing, pass --resume; "
            "to begin anew, name another folder."
        )
    if present and MANIFEST not in present:
        raise InputError(
            f"{folder} holds {present[0]}, but no {MANIFEST} that says what made it. "
            "Move that file away, or name another folder."
        )


def open_folder(folder: Path, run: Mapping[str, Any], texts: Mapping[str, str]) -> set[str]:
    """Write the manifest, or hold what is there to it; the names of the results that are there already.

    Args:
        folder: see `check_folder`.
        run: what decides how a text comes out: JSON-ready.
        texts: by the name of its result, the text of each document.

    Raises:
        InputError: if results that are there were made in another way or from another text. The message says what differs.
    """
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    manifest = {"run": dict(run), "documents": digests}
    path = folder / MANIFEST
    if path.exists():
        before = _read(path)
        for what in sorted(before["run"].keys() | run.keys()):
            if before["run"].get(what) != json.loads(json.dumps(run.get(what))):
                raise InputError(
                    f"{folder} was begun with {what} {_short(before['run'].get(what))}, and this run has "
                    f"{_short(run.get(what))}. Run it as it was begun ({path} says how), or name another folder."
                )
        for name in digests.keys() & before["documents"].keys():
            if before["documents"][name] != digests[name] and (folder / name).exists():
                raise InputError(
                    f"{folder / name} was made from another text than the document has now. "
                    "Remove that file to have it made anew, or name another folder."
                )
        manifest["documents"] = {**before["documents"], **digests}
        unknown = [n for n in digests if n not in before["documents"] and (folder / n).exists()]
        if unknown:
            raise InputError(f"{folder / unknown[0]} is there, but {MANIFEST} does not know it. Move that file away.")
        if manifest == before:
            return {name for name in digests if (folder / name).exists()}
    folder.mkdir(exist_ok=True)
    write_whole(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return {name for name in digests if (folder / name).exists()}


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, even if the machine loses its power."""
    # One name for each file: what a killed run left under it the next one writes over.
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # a folder cannot be opened everywhere; then its new name is on its way only
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def model_digest(folder: Path) -> str:
    """The sha256 of what a model's folder holds: weights, configuration, vocabulary."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _OF_A_MODEL and path.is_file():
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """The manifest of a folder."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(manifest["run"], dict) and isinstance(manifest["documents"], dict):
            return {"run": manifest["run"], "documents": manifest["documents"]}
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is not what led-ref writes there. Name another folder for the results.")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
