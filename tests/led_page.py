"""The tables of docs/led_page.md, as rows of names there and what stands for them here."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "led_page.md"


def rows() -> list[tuple[str, str]]:
    """(there, here) of every row."""
    found = re.findall(r"^\| (.+?) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [row for row in found if row != ("there", "here")]


def names(cell: str) -> list[str]:
    """What stands in backticks and is a name, dotted or not."""
    return [name for name in re.findall(r"`([^`]+)`", cell) if re.fullmatch(r"[A-Za-z_][\w.]*", name)]
