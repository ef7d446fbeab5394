"""What the model wrote, document by document: in memory, or in a folder from which a run that was cut off goes on.

    scores/led-ref.json      the manifest: model, settings, and the documents' digest
    scores/written.jsonl     {"document": 0, "place": "heldout.jsonl:1", "text": "..."}, a line as soon as it is written
    scores/scores.json       what came out

Shards have a file of their own, such as written.2-of-4.jsonl; a run without shards that goes on reads all of them. A line is
on the disk as soon as it is written, and a torn one is dropped (files/lines.py): its document is written again. Only what
changes a written text is compared with the manifest: stemmer, baselines and references may be others.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from led_ref.errors import InputError, MissingFileError
from led_ref.files.json_file import is_whole, read_json_object, write_text
from led_ref.files.lines import append_line, drop_torn_line, parse_line, whole_lines
from led_ref.files.staging import naming, staging, to_write
from led_ref.pipelines.shards import Shard

MANIFEST, WRITTEN, SCORES = "led-ref.json", "written.jsonl", "scores.json"


class Results:
    """The texts of a run by the numbers of their documents, in `texts`; and its `shard`.

    Args:
        out: the folder; None: in memory alone.
        resume: go on from the texts that the folder holds.
        shard: the part whose texts these are; None: all.

    Raises:
        InputError: if it is a file, holds texts and the run is not to go on from them, or is to go on, or to be a part, without
            a folder.
        MissingFileError: if the folder that should hold it does not exist.
    """

    def __init__(self, out: str | Path | None, *, resume: bool, shard: Shard | None = None) -> None:
        self.texts: dict[int, str] = {}
        self.shard = shard
        self._written = WRITTEN if shard is None else f"written.{shard.number}-of-{shard.of}.jsonl"
        self.folder = folder = None if out is None else to_write("out", out)
        if folder is None:
            if resume or shard is not None:
                given = "resume is True" if resume else f"this is {shard}"
                raise InputError(f"{given}, but no folder of a run is named. Name it with out (--out).")
            return
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file. Name a folder for the texts and scores.")
        if not folder.absolute().parent.is_dir():
            raise MissingFileError(f"There is no folder {folder.parent} to make {folder.name} in. Make it first.")
        names = (MANIFEST, SCORES, *self._files()) if shard is None else (self._written,)
        present = [name for name in names if (folder / name).exists()]
        if present and not resume:
            raise InputError(
                f"{folder} holds {present[0]} already. To go on from it pass resume=True (--resume), or name another folder."
            )
        if present and not (folder / MANIFEST).exists():
            raise InputError(
                f"{folder} holds {present[0]}, but no {MANIFEST} that says what made it. Name another folder."
            )

    def _files(self) -> list[str]:
        """The names of the files whose texts are this run's: its own, and where it is no shard, those of all shards."""
        if self.folder is None or self.shard is not None:
            return [self._written]
        return [WRITTEN, *sorted(path.name for path in self.folder.glob("written.*-of-*.jsonl"))]

    @contextlib.contextmanager
    def begun(self, run: Mapping[str, Any], documents: int) -> Iterator[None]:
        """Write the manifest, or compare the run with the one that exists, and read the texts that are there.

        Texts are added within this context.

        Args:
            run: what decides how a text comes out, by name: JSON-ready.
            documents: how many there are.

        Raises:
            InputError: if the folder's texts come from another run; the message names the difference. If another run writes
                them now.
        """
        if self.folder is None:
            yield
            return
        with naming(self.folder):
            self.folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(staging(self.folder / self._written, alone=True))
            except BlockingIOError as error:
                raise InputError(
                    f"Another run writes {self._written} into {self.folder} now. Wait for its end, name another folder, or "
                    "give each run a shard of its own (--shard 1/2, --shard 2/2)."
                ) from error
            self._begin(self.folder, json.loads(json.dumps(dict(run))), documents)
            yield

    def _begin(self, folder: Path, run: dict[str, Any], documents: int) -> None:
        path = folder / MANIFEST
        if not path.exists():
            write_text(path, json.dumps(run, indent=1, ensure_ascii=False) + "\n")
        else:
            before = read_json_object(path, error_class=InputError, remedy="Name another folder.")
            if other := [name for name in {**before, **run} if before.get(name) != run.get(name)]:
                begun, now = (", ".join(f"{n} {_short(of.get(n))}" for n in other) for of in (before, run))
                raise InputError(
                    f"{folder} was begun with {begun}; this run has {now}. Run it as it was begun ({path} says how), or "
                    "name another folder."
                )
        drop_torn_line(folder / self._written)
        for name in self._files():
            self._read(folder / name, documents)

    def _read(self, path: Path, documents: int) -> None:
        for number, (_, line) in enumerate(whole_lines(path), 1):
            try:
                found = parse_line(line)
                i, text = found["document"], found["text"]
                is_one = is_whole(i) and 0 <= i < documents and isinstance(text, str)
            except (ValueError, KeyError, TypeError):
                is_one = False
            if not is_one:
                raise InputError(
                    f"{path}:{number} is not what led-ref writes there. Remove the line, or name another folder."
                )
            self.texts[i] = text

    def add(self, i: int, place: str, text: str) -> None:
        """Take the text of document i; it is on the disk when this returns."""
        self.texts[i] = text
        if self.folder is None:
            return
        append_line(self.folder / self._written, {"document": i, "place": place, "text": text})

    def finish(self, report: Mapping[str, Any]) -> None:
        """Write what came out, if it is of all documents."""
        if self.folder is not None and self.shard is None:
            write_text(self.folder / SCORES, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
