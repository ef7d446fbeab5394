"""Documents from files, folders and patterns, one after the other: no more than one is in memory.

    papers                    a folder: its .txt and .md, packed or not, and those of the folders in it
    "papers/**/*.txt"         a pattern that no shell has replaced
    papers.jsonl, .csv        a document on each line, its text in one field; .gz may follow (files/records.py)
    papers.parquet            a document in each row

A document is named by its file, one of many in a file by the file and its line: "papers.jsonl:12".
"""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from led_ref.errors import InputError, LEDError, MissingFileError, quoted
from led_ref.files.json_file import is_whole, with_line_feeds
from led_ref.files.records import Problems, Record, read_records
from led_ref.pipelines.text_files import documents_of_folder, read_document

PARQUET = ".parquet"
_LINES = (".jsonl", ".ndjson", ".csv", ".tsv")
_ID = "id"


class Given(NamedTuple):
    """A document as it was given.

    Args:
        i: its number.
        name: see above.
        text: its text, or the error that refuses it.
        id: of a record, the value of its field of that name.
    """

    i: int
    name: str
    text: str | LEDError
    id: str | int | None = None


def has_records(file: str) -> bool:
    """Whether a file holds many documents, by its name."""
    return file.lower().removesuffix(".gz").endswith(_LINES) or file.lower().endswith(PARQUET)


def expand(given: Sequence[str], *, out: Path | None = None) -> tuple[list[str], dict[str, list[str]]]:
    """The files that folders, patterns and names stand for, and for each folder what else is in it.

    Args:
        given: names of files and folders, patterns, and "-" for standard input.
        out: the folder of results; of a folder of documents it is left out.

    Raises:
        InputError: for a folder without documents, and one that the results are to go to: they would be read as documents.
        MissingFileError: for a pattern that no file has.
    """
    files, others = list[str](), dict[str, list[str]]()
    for name in given:
        if name == "-" or os.path.isfile(name):  # no error for a name that no file can have
            files.append(name)
        elif os.path.isdir(name):
            if out is not None and out.resolve() == Path(name).resolve():
                raise InputError(
                    f"{name} holds the documents, and --out names it for their results. Name another folder."
                )
            documents, others[name] = documents_of_folder(Path(name), out)
            files += documents
        elif glob.has_magic(name) and not os.path.lexists(name):
            found = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())
            if not found:
                raise MissingFileError(
                    f"There is no file for the pattern {name}. Check it; ** stands for folders, too."
                )
            files += found
        else:
            files.append(name)
    return files, others


@dataclass(frozen=True)
class Corpus:
    """All documents of a run, in the order of their names; those of one file in the order of its lines.

    Args:
        files: as `expand` returns them.
        text_field: of a record, the name of the field with the text.
        id_field: that of the field with its id; None: "id", where a record has that.
        texts: documents that are no files, named by their numbers.
    """

    files: Sequence[str]
    text_field: str = "text"
    id_field: str | None = None
    texts: Sequence[str] = ()
    _held: dict[str, str | LEDError] = field(default_factory=dict)  # of standard input, which can be read once

    @property
    def has_records(self) -> bool:
        """Whether any document is no file of its own."""
        return bool(self.texts) or any(map(has_records, self.files))

    @cached_property
    def names(self) -> list[str]:
        """The names of all documents."""
        of_files = [name for file in self.files for name in ([file] if not has_records(file) else self._places(file))]
        return of_files + [str(k) for k in range(len(self.texts))]

    def _places(self, file: str) -> Iterator[str]:
        return (place for place, _ in self._records(file))

    def read(self, wanted: Callable[[int], bool] = lambda i: True) -> Iterator[Given]:
        """The documents whose numbers are wanted, one after the other."""
        i = 0
        for file in self.files:
            if not has_records(file):
                if wanted(i):
                    yield Given(i, file, self._text(file))
                i += 1
                continue
            for place, record in self._records(file):
                if wanted(i):
                    yield self._of_record(i, place, record)
                i += 1
        for k, text in enumerate(self.texts):
            if wanted(i + k):
                yield Given(i + k, str(k), text)

    def _text(self, file: str) -> str | LEDError:
        if file in self._held:
            return self._held[file]
        try:
            text: str | LEDError = read_document(file)
        except LEDError as error:
            text = error
        if file == "-":
            self._held[file] = text
        return text

    def _of_record(self, i: int, place: str, record: Record | InputError) -> Given:
        if isinstance(record, InputError):
            return Given(i, place, record)
        values, number = record.values, record.values.get(self.id_field or _ID)
        if not (isinstance(number, str) or is_whole(number)):
            if self.id_field is not None:
                return Given(i, place, self._without(place, "id", self.id_field, values))
            number = None
        text = values.get(self.text_field)
        if not isinstance(text, str):
            return Given(i, place, self._without(place, "text", self.text_field, values), number)
        if not text.strip():
            return Given(
                i, place, InputError(f"{place}: the field {self.text_field!r} is empty. Give it a text."), number
            )
        return Given(i, place, with_line_feeds(text), number)

    @staticmethod
    def _without(place: str, what: str, name: str, values: dict[str, Any]) -> InputError:
        found = quoted(values[name], 60) if name in values else f"missing; there are {', '.join(values):.200}"
        return InputError(f"{place}: the field {name!r} is {found}. Name that of the {what} with --{what}-field.")

    def _records(self, file: str) -> Iterator[tuple[str, Record | InputError]]:
        """The place of each line or row of a file, and what it holds, or why it cannot be read."""
        if file.lower().endswith(PARQUET):
            yield from _rows(file, [self.text_field, self.id_field or _ID])
            return
        waiting = _Waiting()
        for record in read_records([file], waiting):
            yield from waiting.taken()
            yield record.place, record
        yield from waiting.taken()


class _Waiting(Problems):
    """Lines that cannot be read, each of which is one document that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[tuple[str, InputError]] = []

    def add(self, place: str, sentence: str) -> None:
        """Note what is wrong at a place."""
        self._lines.append((place, InputError(f"{place}: {sentence}")))

    def taken(self) -> list[tuple[str, InputError]]:
        """What was noted since the last time."""
        found, self._lines = self._lines, []
        return found


def _rows(file: str, wanted: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """The rows of a Parquet file; of its columns only those that are wanted are read.

    Raises:
        InputError: where pyarrow is not installed, or the file is no Parquet.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(f"{file} is Parquet, which needs pyarrow: pip install 'led-ref[parquet]'.") from error
    try:
        with parquet.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            number, chosen = 0, [name for name in columns if name in wanted] or columns[:1]
            for batch in table.iter_batches(batch_size=64, columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    others = dict.fromkeys(columns) if wanted[0] not in row else {}
                    yield f"{file}:{number}", Record(f"{file}:{number}", {**others, **row})
    except (ArrowException, OSError) as error:
        raise InputError(f"{file} cannot be read as Parquet ({error!s:.200}). Fetch it again.") from error
