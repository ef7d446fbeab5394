"""The folder of results that `--out` names, and the rules of --out and --resume.

    summaries/paper.summary.txt     a result
    summaries/led-ref.json          the manifest: model, settings, and the documents' digests

Every file is written under a hidden name, synced to the disk and renamed in one step: whatever happens to the program or the
machine, a result exists whole or not at all. A run that goes on therefore only needs to know which results exist. The
manifest holds that they come from the same model, settings and texts. What changes no text that is written already may change:
--truncate may be added, as a document that was not too long is read the same; and where no result exists, everything.

    >>> result_names(["a/one.txt", "b/two.md.gz", "-"], "summary.txt")
    ['one.summary.txt', 'two.summary.txt', 'standard-input.summary.txt']
"""

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from led_ref.cli.shared_options import Misused
from led_ref.errors import InputError, printable
from led_ref.json_file import read_json_object, write_text

MANIFEST = "led-ref.json"

_LONGEST_NAME = 255  # bytes, in the file systems of Linux, macOS and Windows
_TOO_LONG = (
    "The result would be {}, a name of more than 255 bytes, which file systems do not take. Rename the document."
)

# What a resumed run may add: only documents that were refused without it come out otherwise.
_MAY_BE_ADDED = ("truncate",)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --out and the options that belong to it."""
    add = parser.add_argument_group("many documents").add_argument
    add("--out", metavar="DIR", help="write each text into a file in DIR, whole or not at all")
    add("--resume", action="store_true", help="with --out: keep the texts that DIR holds, and write the others")
    add(
        "--batch-size", type=int, metavar="N",
        help="with --out: most documents that are written together (default: 4; 1: each by itself)",
    )  # fmt: skip
    add(
        "--batch-memory", type=int, metavar="MB",
        help="with --out: megabytes that these may take beside the weights (default: 1074)",
    )  # fmt: skip


def check_options(options: argparse.Namespace) -> None:
    """Misused if an option that belongs to --out is given without it: it would do nothing."""
    given = {"--resume": options.resume, "--batch-size": options.batch_size, "--batch-memory": options.batch_memory}
    alone = [name for name, value in given.items() if value not in (None, False)]
    if alone and options.out is None:
        raise Misused(f"{alone[0]} is for a run with results in files; add --out DIR")


class ResultFolder:
    """The folder of one run's results.

    Args:
        options: the command line: files, out, json, resume.
        kind: stands in each result's name, such as "summary".

    Raises:
        InputError: if a document is named twice, if the folder is a file, or if it holds results and the run is not
            to go on from them. Nothing has been read or loaded then.

    Attributes:
        refused: the documents whose results cannot have their names, with the errors that say so.
    """

    def __init__(self, options: argparse.Namespace, *, kind: str) -> None:
        folder = self.path = Path(options.out)
        names = result_names(options.files, f"{kind}.json" if options.json else f"{kind}.txt")
        self._names: dict[str, str] = dict(zip(options.files, names, strict=True))
        self.refused = {
            file: InputError(_TOO_LONG.format(name)) for file, name in self._names.items() if _is_too_long(name)
        }
        for part in (folder, *folder.parents):
            if part.exists() and not part.is_dir():
                raise InputError(f"{part} is a file. Name a folder for the results.")
        present = [name for name in (MANIFEST, *names) if self._has(name)]
        if present and not options.resume:
            raise InputError(
                f"{folder} holds {present[0]} already. To keep its results and write the missing ones, pass "
                "--resume; to begin anew, name another folder."
            )
        if present and MANIFEST not in present:
            raise InputError(
                f"{folder} holds {present[0]}, but no {MANIFEST} that says what made it. "
                "Move that file away, or name another folder."
            )
        self._before = _read(folder / MANIFEST) if present else None

    @property
    def seed(self) -> int | None:
        """The seed of the run that is resumed: one that was drawn is in no command line."""
        return None if self._before is None else self._before["run"].get("seed")

    def _has(self, name: str) -> bool:
        """Whether there is a result of that name; none where the name is too long for the file system."""
        try:
            return (self.path / name).exists()
        except OSError:
            return False

    def begin(self, run: Mapping[str, Any], texts: Mapping[str, str]) -> set[str]:
        """Write the manifest, or compare the run with the manifest that exists.

        Args:
            run: what decides how a text comes out, by name: JSON-ready.
            texts: the text of each document, by the document's name.

        Returns:
            The documents whose results exist already.

        Raises:
            InputError: if existing results were made in another run or from another text. The message names the difference.
        """
        run = json.loads(json.dumps(run))
        digests = {
            printable(self._names[file]): hashlib.sha256(text.encode()).hexdigest() for file, text in texts.items()
        }
        known = {} if self._before is None else self._before["documents"]
        names = {printable(name): name for name in self._names.values()}
        there = {name for name in {*known, *digests} if self._has(names.get(name, name))}
        if there:
            self._compare(self._before or {}, run, {name: digests[name] for name in digests if name in there})
        manifest = {"run": run, "documents": {**known, **digests}}
        if manifest != self._before:
            write_text(self.path / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        return {file for file in texts if self._has(self._names[file])}

    def _compare(self, before: Mapping[str, Any], run: Mapping[str, Any], digests: Mapping[str, str]) -> None:
        """Refuse to go on from results of another run or of other texts."""
        folder, begun, known = self.path, before["run"], before["documents"]
        other = [name for name in {**begun, **run} if begun.get(name) != run.get(name)]
        other = [name for name in other if not (name in _MAY_BE_ADDED and begun.get(name) is False)]
        if other:
            as_begun, now = (
                ", ".join(f"{name} {_short(values.get(name))}" for name in other) for values in (begun, run)
            )
            raise InputError(
                f"{folder} was begun with {as_begun}; this run has {now}. "
                f"Run it as it was begun ({folder / MANIFEST} says how), or name another folder."
            )
        for name, digest in digests.items():
            if name not in known:
                raise InputError(f"{folder / name} exists, but {MANIFEST} does not list it. Move that file away.")
            if known[name] != digest:
                raise InputError(
                    f"{folder / name} was made from another text than the document has now. "
                    "Remove that file to have it made anew, or name another folder."
                )

    def write(self, file: str, text: str) -> Path:
        """Write the result of a document, and return its path.

        Raises:
            InputError: if it cannot be written: a full disk, a name that the file system does not take.
        """
        path = self.path / self._names[file]
        try:
            return write_text(path, text + "\n")
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror or error}). See to the disk's space and the folder's permissions; "
                "--resume writes what is missing."
            ) from error


def result_names(files: Sequence[str], ending: str) -> list[str]:
    """The name of each document's result: the document's name without .txt and the like.

    Where two would have one name, with case ignored as some file systems do, these have their endings too, and then as many
    folders as it takes.

    Example:
        >>> result_names(["a/page.txt", "b/page.txt", "b/page.md", "c.txt"], "summary.txt")
        ['a_page.txt.summary.txt', 'b_page.txt.summary.txt', 'page.md.summary.txt', 'c.summary.txt']

    Raises:
        InputError: if a document is named twice, or two names differ in capitals alone.
    """
    more = [0] * len(files)  # how much of each path is in its name
    while True:
        names = [f"{_stem(file, detail)}.{ending}" for file, detail in zip(files, more, strict=True)]
        places: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            places.setdefault(name.lower(), []).append(i)
        equal = [same for same in places.values() if len(same) > 1]
        if not equal:
            return names
        for i, j in ((same[0], other) for same in equal for other in same[1:]):
            if max(more[i], more[j]) > max(len(Path(files[k]).absolute().parts) for k in (i, j)):
                raise InputError(
                    f"The results of {files[i]} and {files[j]} would both be {names[i]}. Name a document once, and give two "
                    "documents names that differ in more than capitals."
                )
        for i in (i for same in equal for i in same):
            more[i] += 1


def _stem(file: str, more: int) -> str:
    """The beginning of a result's name: of the document's, its ending too, or its ending and more - 1 folders."""
    if file == "-":
        return "standard-input"
    if not more:
        return Path(file).name.removesuffix(".gz").removesuffix(".txt").removesuffix(".md")
    return "_".join(part.strip("/\\:") for part in Path(os.path.abspath(file)).parts[-more:])


def model_digest(folder: Path) -> str:
    """The sha256 of a model's files; what computes it is imported with NumPy, at the first use."""
    from led_ref.weights import find_files

    return find_files.model_digest(folder)


def _is_too_long(name: str) -> bool:
    return len(os.fsencode(name)) > _LONGEST_NAME


def _read(path: Path) -> dict[str, Any]:
    """The manifest of a folder."""
    try:
        manifest = read_json_object(path, error_class=InputError)
        if isinstance(manifest["run"], dict) and isinstance(manifest["documents"], dict):
            return {"run": manifest["run"], "documents": manifest["documents"]}
    except (InputError, KeyError):
        pass
    raise InputError(f"{path} is not what led-ref writes there. Name another folder for the results.")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
