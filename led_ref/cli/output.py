"""How results are printed: as JSON for programs, as names and values for people."""

import json
import sys
from collections.abc import Mapping
from typing import Any


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON object on one line, at once. Letters stay as they are where standard output can carry all of them."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    print(json.dumps(values, ensure_ascii=encoding != "utf8", default=str), flush=True)


def print_values(values: Mapping[str, Any], *, indent: int = 0) -> None:
    """A line for each name and its value."""
    for name, value in values.items():
        print(f"{'':{indent}}{name:<{26 - indent}} {in_words(value)}")


def in_words(value: Any) -> str:
    """A value as a person would write it.

    Example:
        >>> in_words(True), in_words(4187392), in_words((1024, 512)), in_words(None)
        ('yes', '4,187,392', '1,024, 512', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value))
    return str(value)


def megabytes(size: int) -> str:
    """A number of bytes in megabytes (10**6).

    Example:
        >>> megabytes(647_693_783)
        '647.7 MB'
    """
    return f"{size / 1e6:,.1f} MB"
