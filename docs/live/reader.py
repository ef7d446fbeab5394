"""What the site's pages ask of Python in the reader's browser (worker.js): functions that answer in JSON.

It runs in Pyodide only, in a thread of the browser. `report` takes a JSON text that the page gets at once.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import led_ref

Report = Callable[[str], None]
_loaded: dict[str, Any] = {}


def bundled() -> Any:
    """The bundled model, loaded once."""
    if "bundled" not in _loaded:
        _loaded["bundled"] = led_ref.load()
    return _loaded["bundled"]


def write(report: Report, text: str, beams: int, most: int) -> str:
    """Let the bundled model write about a text: pieces as they come with one beam, counts of steps with more.

    Returns:
        {text, ids, tokens, seconds}: what was written, its ids, how many tokens the text has, and how long it took.
    """
    started = time.perf_counter()
    led = bundled()
    document = led.prepare(text)
    tell(report, tokens=len(document.ids), most=most)
    masks = document.masks()

    def progress(kind: str, done: int, of: int) -> None:
        tell(report, stage=kind, done=int(done), of=int(of))

    settings = {"num_beams": beams, "max_new_tokens": most}
    if beams == 1:
        ids = [2]
        for (token_id,) in led.model.stream([document.ids], **masks, progress=progress, **settings):
            ids.append(int(token_id))
            tell(report, text=led.tokenizer.decode(ids, skip_special_tokens=True))
    else:
        ids = led.model.generate([document.ids], **masks, progress=progress, **settings)[0].tolist()
    written = led.tokenizer.decode(ids, skip_special_tokens=True)
    seconds = time.perf_counter() - started
    return json.dumps({"text": written, "ids": ids, "tokens": len(document.ids), "seconds": seconds})


def explore(report: Report, text: str) -> str:
    """The explorer's page (one HTML file) for the bundled model on a text."""
    from led_ref.pipelines.loading import global_mask
    from led_ref.tools.explorer.page import page
    from led_ref.tools.explorer.record import record

    led = bundled()
    ids = led.encode(text)
    return json.dumps(page(record(led, ids, global_mask("first", len(ids)), title="your text")))


def tell(report: Report, **values: Any) -> None:
    """Report these values."""
    report(json.dumps(values))
