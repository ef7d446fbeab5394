"""Splits by a hash, families by union-find, and JSON Lines: what all recipes share."""

import gzip
import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def share(text: str) -> float:
    """A number from 0 to below 1 that depends on the text alone: the same on every machine and in every run."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def split_of(text: str, *, test: float, validation: float) -> str:
    """The split, "test", "validation" or "train", of everything that has this text, so that it never stands on two sides."""
    found = share(text)
    if found < test:
        return "test"
    return "validation" if found < test + validation else "train"


def families(links: Mapping[Hashable, Iterable[Hashable]]) -> dict[Any, Any]:
    """The family of each member: its smallest member that can be reached over links, in either direction.

    Example:
        >>> families({1: [2], 2: [], 3: [2], 4: [], 5: [77]})
        {1: 1, 2: 1, 3: 1, 4: 4, 5: 5}
    """
    parent: dict[Any, Any] = {member: member for member in links}

    def root(member: Any) -> Any:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for member, others in links.items():
        for other in others:
            if other in parent:
                low, high = sorted((root(member), root(other)))
                parent[high] = low
    return {member: root(member) for member in parent}


def write_lines(path: Path, records: Iterable[Record]) -> int:
    """Write JSON Lines, .gz, the same bytes for the same records; the file appears only when it is whole."""
    unfinished, count = path.with_name(path.name + ".unfinished"), 0
    with open(unfinished, "wb") as file, gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as zipped:
        for record in records:
            zipped.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            count += 1
    unfinished.replace(path)
    return count


def read_lines(path: Path) -> Iterator[Record]:
    """The records of a file of `write_lines`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
