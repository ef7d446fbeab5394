r"""Read the lines of files of documents: JSON Lines and CSV, also compressed by gzip. A record is what one line says, by field.

    train.jsonl, .ndjson, .json     one JSON object on each line
    train.csv, train.tsv            a line of names, then one line of values for each document; a value may be in quotes

The files may come from anywhere. A line has at most 16 MiB and ends with LF, CR LF or CR, a file at most 64 GiB when unpacked,
a name occurs once, text is UTF-8 and nothing else. A record that cannot be read is one of the `Problems`, which are raised all
together.
"""

import contextlib
import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from led_ref.errors import InputError, MissingFileError, wrong_type
from led_ref.files.json_file import unique_object

MOST_LINE_BYTES = 16 << 20  # a hundred times what an LED reads
MOST_FILE_BYTES = 64 << 30  # gzip packs a line of blanks a thousandfold
MOST_LISTED = 20

_GZIP_MAGIC = b"\x1f\x8b"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Record:
    """The values of one line by field, and the place of the line: "train.jsonl:12"."""

    place: str
    values: dict[str, Any]


class Problems:
    """What is wrong with the lines of files: the first sentences, and how many there are.

    Args:
        data: what the files are.
        outcome: what was not done because of it.
    """

    def __init__(self, data: str = "training data", outcome: str = "nothing was trained") -> None:
        self.data, self.outcome = data, outcome
        self.listed: list[str] = []
        self.count = 0

    def add(self, place: str, sentence: str) -> None:
        """Note what is wrong at a place."""
        self.count += 1
        if self.count <= MOST_LISTED:
            self.listed.append(f"{place}: {sentence}")

    def raise_if_any(self) -> None:
        """Raise what was noted.

        Raises:
            InputError: with one problem a line, and the number of those that are not listed.
        """
        if not self.count:
            return
        more = self.count - len(self.listed)
        heading = "1 problem" if self.count == 1 else f"{self.count:,} problems"
        lines = [f"The {self.data} has {heading}; {self.outcome}.", *self.listed]
        raise InputError("\n  ".join([*lines, *([f"... and {more:,} more"] if more else [])]))


def read_records(paths: Sequence[str | Path], problems: Problems) -> Iterator[Record]:
    """The records of some files, file after file.

    Args:
        paths: the files.
        problems: gets what cannot be read.

    Raises:
        MissingFileError: if a file does not exist; before any is read.
        InputError: if no file is named, one is named twice, is a folder, or its name does not say what is in it.
    """
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise wrong_type("data", list(paths), "a path or a list of paths")
    files = [Path(path) for path in paths]
    if not files:
        raise InputError("No file of documents is named. Give at least one .jsonl or .csv file.")
    for i, path in enumerate(files):
        if os.path.isdir(path):
            raise InputError(f"{path} is a folder. Name the files in it, for example {path}/*.jsonl.")
        if not os.path.exists(path):
            raise MissingFileError(f"There is no file {path}. Check its name.")
        if path in files[:i]:
            raise InputError(f"{path} is named twice. Name it once; of a training, --epochs says how often it is read.")
        _suffix(path)
    for path in files:
        yield from _read_file(path, problems)


def _read_file(path: Path, problems: Problems) -> Iterator[Record]:
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            is_packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
        content: Any = stack.enter_context(gzip.GzipFile(fileobj=file)) if is_packed else file
        lines = _Lines(path, content, problems)
        separator = _SEPARATORS.get(_suffix(path))
        yield from _json_records(lines) if separator is None else _csv_records(lines, separator)


def _suffix(path: Path) -> str:
    """What is in a file, by its name."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _SEPARATORS and suffix not in _JSON_LINES:
        raise InputError(
            f"{path} ends in {suffix or 'nothing'}, which does not say what is in it. Name the file .jsonl (one JSON object a "
            "line), .csv or .tsv; .gz may follow."
        )
    return suffix


class _Lines(Iterator[str]):
    """The lines of a file as text, with the end of line; `number` is that of the last one, from 1."""

    def __init__(self, path: Path, file: IO[bytes], problems: Problems) -> None:
        self.path, self.file, self.problems = path, file, problems
        self.number = self._bytes = 0
        self._ahead: list[bytes] = []  # lines that end with a lone CR are read together; the next one is the last

    @property
    def place(self) -> str:
        """The place of the last line."""
        return f"{self.path}:{self.number}"

    def __next__(self) -> str:
        self.number += 1
        if not self._ahead:
            self._ahead = self._read().splitlines(keepends=True)[::-1]
        line = self._ahead.pop()
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            found = error.object[error.start]
            self.problems.add(
                self.place, f"byte {found:#04x} is not UTF-8. Convert the file first: iconv -f latin1 -t utf-8"
            )
            return ""

    def _read(self) -> bytes:
        """What comes up to the next LF."""
        try:
            line = self.file.readline(MOST_LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            self._give_up(f"the file cannot be read on from here ({error}). Fetch it again.")
        if not line:
            raise StopIteration
        self._bytes += len(line)
        if len(line) > MOST_LINE_BYTES:
            self._give_up(f"the line has more than {MOST_LINE_BYTES >> 20} MiB; what follows was not read. Shorten it.")
        if self._bytes > MOST_FILE_BYTES:
            self._give_up(f"the file has more than {MOST_FILE_BYTES >> 30} GiB when unpacked. Split it.")
        return line

    def _give_up(self, sentence: str) -> NoReturn:
        self.problems.add(self.place, sentence)
        raise StopIteration


def _json_records(lines: _Lines) -> Iterator[Record]:
    for line in lines:
        if not line.strip():
            continue
        try:
            values = json.loads(line, object_pairs_hook=unique_object, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            hint = " (of an array, jq -c '.[]' makes such lines)" if line.lstrip().startswith("[") else ""
            lines.problems.add(lines.place, f"not JSON ({error}). There must be one JSON object on each line{hint}.")
            continue
        if isinstance(values, dict):
            yield Record(lines.place, values)
        else:
            kind = {list: "an array (jq -c '.[]' makes lines of it)"}.get(type(values), type(values).__name__)
            lines.problems.add(lines.place, f'there is {kind}, not a JSON object such as {{"text": ...}}.')


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _csv_records(lines: _Lines, separator: str) -> Iterator[Record]:
    """The rows of a CSV file. A quoted value may hold line ends; the place is that of the row's first line."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    names: list[str] | None = None
    limit = csv.field_size_limit(MOST_LINE_BYTES)  # for all readers of this process, so it is put back
    try:
        while True:
            place = f"{lines.path}:{lines.number + 1}"
            try:
                row = next(reader, None)
            except csv.Error as error:
                lines.problems.add(place, f"not CSV ({error}); what follows was not read. See to the quotes.")
                return
            if row is None:
                return
            if not row:
                continue
            if names is None:
                names = row
                if "" in names or len(set(names)) < len(names):
                    lines.problems.add(
                        place, f"the line of names is {', '.join(names)!r:.200}; each needs a name of its own."
                    )
                    return
            elif len(row) != len(names):
                lines.problems.add(
                    place,
                    f"the row has {len(row)} values for {len(names)} names. Put quotes around values with {separator!r}.",
                )
            else:
                yield Record(place, dict(zip(names, row, strict=True)))
    finally:
        csv.field_size_limit(limit)
