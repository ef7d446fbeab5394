"""JSON Lines that grow: a line is on the disk as soon as it is appended.

Of a process that was killed the last line may be torn: readers see whole lines alone, and the next writer drops the torn one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from led_ref.files.json_file import parse_json
from led_ref.files.staging import naming


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append an object as a line; it is on the disk when this returns.

    Raises:
        WriteError: if the disk does not take it; the file is as it was.
    """
    line = json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    with naming(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            written = 0
            while written < len(line):  # a full disk takes a part, and refuses the next
                written += file.write(line[written:]) or 0
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, before)
            raise


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The place of each whole line in a file, in bytes, and the line; none where there is no file."""
    if not path.exists():
        return
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)


def parse_line(line: bytes) -> Any:
    """What `append_line` wrote, within the limits of json_file.py.

    Raises:
        ValueError: for what is no JSON.
    """
    return parse_json(line.decode("utf-8", "surrogatepass"), finite=False)


def drop_torn_line(path: Path) -> None:
    """Remove what stands after the last whole line."""
    if path.exists():
        end = max((start + len(line) for start, line in whole_lines(path)), default=0)
        if end < path.stat().st_size:
            os.truncate(path, end)
