"""The folder of results that `--out` names, and the rules of --out, --resume and --shard.

    summaries/paper.summary.txt     a result
    summaries/results.jsonl         or all of them: a line each, in the order in which they were made
    summaries/led-ref.json          the manifest: model, settings, and the documents' digests

Every file is written under a hidden name, synced to the disk and renamed in one step, and a torn line is none: whatever
happens to the program or the machine, a result exists whole or not at all. A run that goes on therefore only needs to know
which results exist. The manifest holds that they come from the same model, settings and texts. What changes no text that is
written already may change: --truncate may be added, as a document that was not too long is read the same; and where no result
exists, everything.

Shards (shards.py) may share a folder: each has a manifest of its own, such as `led-ref.shard-2-of-4.json`. All of them must
be given the same documents. gather.py puts their results together.

    >>> result_names(["a/one.txt", "b/two.md.gz", "-"], "summary.txt")
    ['one.summary.txt', 'two.summary.txt', 'standard-input.summary.txt']
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from led_ref.errors import InputError, printable
from led_ref.files.json_file import read_json_object, write_text
from led_ref.files.lines import append_line, drop_torn_line, parse_line, whole_lines
from led_ref.files.staging import LONGEST_NAME, naming, new_file, staging, to_write
from led_ref.pipelines.shards import Shard

MANIFEST = "led-ref.json"
MOST_MANIFEST_BYTES = 1 << 28  # some hundred bytes for each of a million documents

_TOO_LONG = (
    "The result would be {}, a name of more than 255 bytes, which file systems do not take. Rename the document."
)

# What a resumed run may add: only documents that were refused without it come out otherwise.
_MAY_BE_ADDED = ("truncate",)


class ResultFolder:
    """The folder of one run's results.

    Args:
        path: of the folder.
        documents: the names of all documents, of the other shards' too.
        ending: stands at the end of each result's name, such as "summary.txt"; None: results are lines of one file.
        shard: the part of the documents whose results this run makes.
        resume: keep the results that are there, and go on.
        redo: of these, remove those that this run would make from another text, or with other settings.

    Raises:
        InputError: if a document is named twice, if the folder is a file, or if it holds results and the run is not
            to go on from them. Nothing has been read or loaded then.

    Attributes:
        documents: those of the shard.
        redone: the names of the results that were removed.
        refused: the documents whose results cannot have their names, with the errors that say so.
    """

    def __init__(
        self, path: Path, documents: Sequence[str], *, ending: str | None, shard: Shard, resume: bool = False,
        redo: bool = False,
    ) -> None:  # fmt: skip
        self.path, self.shard, self._redo, self.redone = to_write("out", path), shard, redo, list[str]()
        names = list(documents) if ending is None else result_names(documents, ending)
        self._lines = path / lines_name(shard) if ending is None else None
        self._names = dict(pair for i, pair in enumerate(zip(documents, names, strict=True)) if shard.holds(i))
        self.documents = list(self._names)
        self.refused = {
            file: InputError(_TOO_LONG.format(name))
            for file, name in self._names.items()
            if self._lines is None and _is_too_long(name)
        }
        self._written = set[str]() if self._lines is None else {name for name, _ in lines_of(self._lines)}
        self._part = None if shard.of == 1 else {
            **shard._asdict(), "documents": len(names), "sha256 of the names": names_digest(map(printable, names)),
        }  # fmt: skip
        for part in (path, *path.parents):
            if part.exists() and not part.is_dir():
                raise InputError(f"{part} is a file. Name a folder for the results.")
        self._manifest = path / manifest_name(shard)
        self._refuse_other_parts()
        present = [self._manifest.name] if self._manifest.exists() else []
        present += [name for name in self._names.values() if self._has(name)]
        if present and not resume:
            raise InputError(
                f"{path} holds {present[0]} already. To keep its results and write the missing ones, pass "
                "--resume; to begin anew, name another folder."
            )
        if present and self._manifest.name not in present:
            raise InputError(
                f"{path} holds {present[0]}, but no {self._manifest.name} that says what made it. "
                "Move that file away, or name another folder."
            )
        self._before = read_manifest(self._manifest) if present else None
        if self._before is not None and self._before["lines"] != (self._lines is not None):
            begun, now = ("lines of JSON", "files") if self._before["lines"] else ("files", "lines of JSON (--jsonl)")
            raise InputError(f"{path} was begun with results in {begun}; this run has {now}. Run it as it was begun.")

    @property
    def has_lines(self) -> bool:
        """Whether results are lines of one file."""
        return self._lines is not None

    @property
    def seed(self) -> int | None:
        """The seed of the run that is resumed: one that was drawn is in no command line."""
        return None if self._before is None else self._before["run"].get("seed")

    def _has(self, name: str) -> bool:
        """Whether there is a result of that name; none where the name is too long for the file system."""
        if self._lines is not None:
            return printable(name) in self._written
        try:
            return (self.path / name).exists()
        except OSError:
            return False

    def _refuse_other_parts(self) -> None:
        """Refuse the folder of a run that has other parts: none, or another number of shards."""
        for other in manifests(self.path):
            part = read_manifest(other)["shard"]
            if (part or {"of": 1})["of"] != self.shard.of:
                begun = "a run without shards" if part is None else f"a run of {part['of']} shards"
                this = "a run without shards" if self._part is None else self.shard
                raise InputError(
                    f"{other} is of {begun}; this is {this}. Run it as it was begun, or name another folder."
                )

    @contextlib.contextmanager
    def begun(self, run: Mapping[str, Any], digests: Mapping[str, str | None]) -> Iterator[set[str]]:
        """Write the manifest, or compare the run with the manifest that exists; results are written within this context.

        Args:
            run: what decides how a text comes out, by name: JSON-ready.
            digests: the sha256 of the text of each of `documents`, None of one that cannot be read.

        Yields:
            The documents whose results exist already.

        Raises:
            InputError: if existing results were made in another run or from another text, if the other shards have other
                documents or settings: the message names the difference. If another run writes into the folder now.
        """
        with naming(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                label = self._manifest.name.replace(".json", ".run")
                self._place = stack.enter_context(staging(self.path / label, alone=True))
            except BlockingIOError as error:
                raise InputError(
                    f"Another run writes {self.shard if self._part else 'results'} into {self.path} now. Wait for its end, "
                    "name another folder, or give each run a shard of its own (--shard 1/2, --shard 2/2)."
                ) from error
            if self._lines is not None:
                drop_torn_line(self._lines)
            self._write_manifest(json.loads(json.dumps(run)), digests)
            yield {file for file in self.documents if self._has(self._names[file])}

    def _write_manifest(self, run: Mapping[str, Any], digests: Mapping[str, str | None]) -> None:
        by_name = {printable(name): digests[file] for file, name in self._names.items()}
        if (read_manifest(self._manifest) if self._manifest.exists() else None) != self._before:
            raise InputError(f"Another run has changed {self._manifest} just now. Run this one with --resume.")
        lines = self._lines is not None
        before = self._before or {"run": {}, "lines": lines, "shard": self._part, "documents": {}}
        known = before["documents"]
        names = {printable(name): name for name in self._names.values()}
        there = {name for name in {*known, *by_name} if self._has(names.get(name, name))}
        if self._redo:  # of a document that cannot be read now, the result would be lost
            other = bool(settings_that_differ(before["run"], run))
            self.redone = [
                name for name, digest in by_name.items() if name in there and digest and (other or known.get(name) != digest)
            ]  # fmt: skip
            there -= set(self.redone)
        if there:
            self._compare(before, run, {name: by_name[name] for name in by_name if name in there})
        self._remove({names[name] for name in self.redone})
        by_name = {name: digest or known.get(name) for name, digest in by_name.items()}
        others = {name: known[name] for name in known if name not in by_name} if before["shard"] == self._part else {}
        manifest = {"run": run, "lines": lines, "shard": self._part, "documents": {**by_name, **others}}
        if manifest != self._before:
            self._write_json(manifest)
        try:
            self._compare_with_shards(run)
        except InputError:
            if self._before is None:  # else the next to begin would be compared with it
                self._manifest.unlink()
            raise

    def _remove(self, names: Collection[str]) -> None:
        """Remove results."""
        if self._lines is None:
            for name in names:
                (self.path / name).unlink()
        elif gone := {printable(name) for name in names}:
            with new_file(self._lines, self._place) as unfinished, unfinished.open("wb") as file:
                lines = zip(lines_of(self._lines), whole_lines(self._lines), strict=True)
                file.writelines(line for (name, _), (_, line) in lines if name not in gone)
            self._written -= gone

    def _write_json(self, manifest: Mapping[str, Any]) -> None:
        known = {name: value for name, value in manifest.items() if value not in (None, False)}
        write_text(self._manifest, json.dumps(known, indent=1, ensure_ascii=False) + "\n", self._place)

    def _compare(self, before: Mapping[str, Any], run: Mapping[str, Any], digests: Mapping[str, str | None]) -> None:
        """Refuse to go on from results of another run, of other texts, or of another part of the documents."""
        folder, known = self.path, before["documents"]
        refuse_other_run(self._manifest, before["run"], run)
        if before["shard"] != self._part:
            self._refuse_documents(self._manifest, before["shard"])
        for name, digest in digests.items():
            if name not in known:
                raise InputError(
                    f"{folder / name} exists, but {self._manifest.name} does not list it. Move that file away."
                )
            if digest is not None and known[name] != digest:
                raise InputError(
                    f"{folder / name} was made from another text than the document has now. "
                    "--redo changed makes such results anew; or name another folder."
                )

    def _compare_with_shards(self, run: Mapping[str, Any]) -> None:
        """Refuse a run that is another than that of the other shards in the folder. It is done when all can see this one."""
        for path in manifests(self.path):
            if path != self._manifest:
                other = read_manifest(path)
                if not self._redo:  # the other shards may be redone after this one
                    refuse_other_run(path, other["run"], run)
                if other["shard"] != {**(self._part or {}), "number": (other["shard"] or {}).get("number")}:
                    self._refuse_documents(path, other["shard"])

    def _refuse_documents(self, path: Path, other: Mapping[str, Any] | None) -> None:
        now, begun = self._part or {}, other or {}
        raise InputError(
            f"{path} was begun with {begun.get('documents')} documents in blocks of {begun.get('block')}; this run has "
            f"{now.get('documents')} in blocks of {now.get('block')}, or others. All shards get the same documents and "
            "--batch-size. Run it as it was begun, or name another folder."
        )

    def write(self, file: str, result: str | Mapping[str, Any]) -> Path:
        """Write the result of a document, and return the path of its file; within the context of `begun`.

        Args:
            file: the document.
            result: a text; for a line an object, whose "file" is the document.

        Raises:
            InputError: if it cannot be written: a full disk, a name that the file system does not take.
        """
        path = self._lines or self.path / self._names[file]
        try:
            if isinstance(result, str):
                return write_text(path, result + "\n", self._place)
            append_line(path, {**result, "file": printable(file)})
            self._written.add(printable(file))
            return path
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


# ---- manifests -------------------------------------------------------------------------------------------------------


def manifest_name(shard: Shard) -> str:
    """The name of the manifest of a run."""
    return MANIFEST if shard.of == 1 else f"led-ref.shard-{shard.number}-of-{shard.of}.json"


def lines_name(shard: Shard) -> str:
    """The name of the file of results that are lines."""
    return "results.jsonl" if shard.of == 1 else f"results.{shard.number}-of-{shard.of}.jsonl"


def lines_of(path: Path) -> Iterator[tuple[str, int]]:
    """The document of each line of results, and where the line begins, in bytes.

    Raises:
        InputError: for a line that is none.
    """
    for start, line in whole_lines(path):
        try:
            yield str(parse_line(line)["file"]), start
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{path} holds at byte {start} what led-ref did not write. Remove that line, or name another folder."
            ) from None


def manifests(folder: Path) -> list[Path]:
    """The manifests that a folder holds: that of one run, or those of shards, by their numbers."""
    found = [path for path in folder.glob("led-ref*.json") if path.name == MANIFEST or ".shard-" in path.name]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run: its "run", "documents", "lines", and "shard", which is None where there are no shards.

    Raises:
        InputError: if it is none.
    """
    try:
        manifest = read_json_object(path, error_class=InputError, most_bytes=MOST_MANIFEST_BYTES)
        found: dict[str, Any] = {name: manifest.get(name) for name in ("run", "lines", "shard", "documents")}
        found["lines"] = bool(found["lines"])
        part = found["shard"]
        is_part = part is None or (
            isinstance(part, dict) and all(isinstance(part.get(name), int) for name in (*Shard._fields, "documents"))
        )
        if isinstance(found["run"], dict) and isinstance(found["documents"], dict) and is_part:
            return found
    except InputError:
        pass
    raise InputError(f"{path} is not what led-ref writes there. Name another folder for the results.")


def refuse_other_run(path: Path, begun: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Refuse a run that is not the one of a manifest, which lies at `path`.

    Raises:
        InputError: naming the settings that differ, and no other.
    """
    other = settings_that_differ(begun, run)
    if other:
        as_begun, now = (", ".join(f"{name} {_short(values.get(name))}" for name in other) for values in (begun, run))
        raise InputError(
            f"{path.parent} was begun with {as_begun}; this run has {now}. "
            f"Run it as it was begun ({path} says how), name another folder, or make such results anew with --redo changed."
        )


def settings_that_differ(begun: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """The names of what differs in two runs, so that a text may come out otherwise."""
    other = [name for name in {**begun, **run} if begun.get(name) != run.get(name)]
    return [name for name in other if not (name in _MAY_BE_ADDED and begun.get(name) is False)]


def names_digest(names: Iterable[str]) -> str:
    """The sha256 of the results' names, in the order of the documents."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _is_too_long(name: str) -> bool:
    return len(os.fsencode(name)) > LONGEST_NAME


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
