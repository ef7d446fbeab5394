"""Puts a record and the hand-written files of this folder into one HTML file, which opens from disk and asks no host.

    <script type="application/json" id="record">     words and small numbers
    <script type="application/json" id="arrays">     {"0.q": {"dtype": "float32", "shape": [...], "base64": "..."}, ...}

Numbers are little-endian; data.js reads them back into typed arrays. No number is computed here.
"""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from led_ref.tools.explorer.record import Record

FOLDER = Path(__file__).parent
STYLE = "style.css"
SCRIPTS = ("data.js", "attention.js", "views.js", "panel.js", "beams.js")


def page(record: Record) -> str:
    """The whole HTML file."""
    parts = {
        "TITLE": html.escape(record.words["title"], quote=False),
        "STYLE": _text(STYLE),
        "RECORD": _json(record.words),
        "ARRAYS": _json(
            {
                name: {
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                    "base64": base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode("ascii"),
                }
                for name, array in record.arrays.items()
            }
        ),
        "SCRIPT": '"use strict";\n' + "\n".join(map(_text, SCRIPTS)),
    }
    # One pass from left to right: what was put in is not searched for marks again.
    before, *pieces = _text("page.html").split("{{ ")
    for piece in pieces:
        name, _, after = piece.partition(" }}")
        before += parts[name] + after
    return before


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _json(values: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element: no text of the document can end that early."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
