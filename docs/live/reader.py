"""What the site's pages ask of Python in the reader's browser (worker.js): functions that answer in JSON.

It runs in Pyodide only, in a thread of the browser. `report` takes a JSON text that the page gets at once.
"""

import ast
import contextlib
import ctypes
import importlib.util
import io
import json
import linecache
import marshal
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

import led_backends
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
        {text, ids, tokens, seconds, looked}: what was written, its ids, how many tokens the text has, how long it took, and
        where the model looked.
    """
    started = time.perf_counter()
    led = bundled()
    document = led.prepare(text)
    tell(report, tokens=len(document.ids), most=most)
    masks = document.masks()

    def progress(kind: str, done: int, of: int) -> None:
        tell(report, stage=kind, done=int(done), of=int(of))

    read = led.model.encoder([document.ids], **masks, progress=progress)
    of_read = {"encoder_outputs": read, "attention_mask": masks["attention_mask"]}
    settings = {"num_beams": beams, "max_new_tokens": most}
    if beams == 1:
        ids = [2]
        for (token_id,) in led.model.stream([document.ids], **of_read, progress=progress, **settings):
            ids.append(int(token_id))
            tell(report, text=led.tokenizer.decode(ids, skip_special_tokens=True))
    else:
        ids = led.model.generate([document.ids], **of_read, progress=progress, **settings)[0].tolist()
    written = led.tokenizer.decode(ids, skip_special_tokens=True)
    # All that was written at once, as in training: the row of a token is what it was chosen by.
    again = led.model.led(decoder_input_ids=[ids[:-1]], **of_read, use_cache=False, output_attentions=True)
    shares_UT = again.to_numpy().cross_attentions[-1][0].mean(axis=0)
    looked = {"tokens": pieces(led.tokenizer, document.ids), "words": words(led.tokenizer, ids, shares_UT)}
    seconds = time.perf_counter() - started
    return json.dumps({"text": written, "ids": ids, "tokens": len(document.ids), "seconds": seconds, "looked": looked})


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each id; together they are the text. A character of several ids stands at the last of them."""
    stream = tokenizer.text_stream()
    found = [stream.take(token_id) for token_id in ids]
    found[-1] += stream.rest()
    return found


def words(tokenizer: Any, ids: list[int], shares_UT: Any) -> list[dict[str, Any]]:
    """The written words, each with its tokens and with where the model looked when it wrote them.

    Args:
        tokenizer: has the text of ids.
        ids: what was written, with the id that it begins with.
        shares_UT: the attention that each id but the first was chosen by.

    Returns:
        For each word {before, word, tokens, looked}: the blanks before it, its letters, the texts of its tokens, and
        [[place in the text, share], ...] with the largest share first: means of its tokens. Shares under 0.1% are left out.
    """
    found: list[dict[str, Any]] = []
    blanks = ""
    for text, row in zip(pieces(tokenizer, ids)[1:], range(len(ids) - 1), strict=True):
        if tokenizer.decode([ids[row + 1]], skip_special_tokens=True) == "":
            continue
        begins = text[:1].isspace() or bool(blanks) or not found
        letters = text.lstrip()
        blanks += text[: len(text) - len(letters)]
        if not letters:
            continue
        if begins:
            found.append({"before": blanks, "word": "", "tokens": [], "rows": []})
            blanks = ""
        found[-1]["word"] += letters
        found[-1]["tokens"].append(letters)
        found[-1]["rows"].append(row)
    for word in found:
        share_T = shares_UT[word.pop("rows")].mean(axis=0)
        word["looked"] = [[int(j), round(float(share_T[j]), 4)] for j in (-share_T).argsort() if share_T[j] >= 0.001]
    return found


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


# ---- cells of chapters and notebooks -----------------------------------------------------------------------------------

PAGE: dict[str, Any] = {"__name__": "__main__"}  # the variables of the page that this Python was started for


def run_cell(report: Report, code: str, name: str) -> str:
    """Run a cell as a notebook does: what it prints, the pictures it draws and its last value are reported as they come.

    Args:
        report: gets {out}, {error} (what is printed to standard output and error), {svg} and {markdown}.
        code: the cell.
        name: what tracebacks call it.

    Returns:
        {failed}: the traceback, from the cell on; None if the cell ran to its end.
    """
    prepare_page(report)
    file = f"<{name}>"
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    try:
        with (
            contextlib.redirect_stdout(Told(lambda text: tell(report, out=text))),
            contextlib.redirect_stderr(Told(lambda text: tell(report, error=text))),
        ):
            statements = ast.parse(code, file).body
            last = statements.pop() if statements and isinstance(statements[-1], ast.Expr) else None
            exec(compile(ast.Module(statements, []), file, "exec"), PAGE)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), file, "eval"), PAGE)
                if value is not None:
                    print(repr(value))
            show_pictures(report)
    except BaseException as error:
        show_pictures(lambda _: None)  # one that was begun belongs to no other cell
        below = error.__traceback__
        while below and below.tb_frame.f_code.co_filename == __file__:
            below = below.tb_next
        return json.dumps({"failed": "".join(traceback.format_exception(type(error), error, below))})
    return json.dumps({"failed": None})


class Told(io.TextIOBase):
    """A file that hands on what is written to it."""

    def __init__(self, hand_on: Callable[[str], None]) -> None:
        self._hand_on = hand_on

    def write(self, text: str) -> int:
        """Hand it on."""
        if text:
            self._hand_on(text)
        return len(text)


def prepare_page(report: Report) -> None:
    """Give the page what a notebook's kernel would: `IPython.display`, and `plt.show` that shows."""
    display = ModuleType("IPython.display")
    display.Markdown = str  # type: ignore[attr-defined]
    display.SVG = lambda text: {"svg": text}  # type: ignore[attr-defined]
    display.display = lambda *shown: [  # type: ignore[attr-defined]
        tell(report, **(one if isinstance(one, dict) else {"markdown": str(one)})) for one in shown
    ]
    package = ModuleType("IPython")
    package.display = display  # type: ignore[attr-defined]
    package.get_ipython = lambda: None  # type: ignore[attr-defined]
    package.version_info = (9, 0)  # type: ignore[attr-defined]
    limits = ModuleType("threadpoolctl")  # there is one thread
    limits.threadpool_limits = lambda *_, **__: contextlib.nullcontext()  # type: ignore[attr-defined]
    sys.modules |= {"IPython": package, "IPython.display": display, "threadpoolctl": limits}
    if "safetensors" not in sys.modules and importlib.util.find_spec("safetensors") is None:
        sys.modules["safetensors"] = small_safetensors()
    os.environ["MATPLOTLIBRC"] = str(Path(__file__).parent / "docs" / "matplotlibrc")
    os.environ["MPLBACKEND"] = "svg"
    if "matplotlib.pyplot" in sys.modules or importlib.util.find_spec("matplotlib"):
        import matplotlib.pyplot as plt

        plt.show = lambda *_, **__: show_pictures(report)


def small_safetensors() -> ModuleType:
    """What led_ref uses of the library safetensors to write a file. The library is compiled, and not for a browser."""
    from led_ref.weights.safetensors_file import DTYPE_NAMES

    library = ModuleType("safetensors")
    kinds = {name: kind for kind, name in DTYPE_NAMES.items()}

    def serialize_file(specs: dict[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
        # Wide numbers first, so that each lies at a multiple of its width.
        order = sorted(specs, key=lambda name: (-specs[name].data_len // max(1, math.prod(specs[name].shape)), name))
        header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
        end = 0
        for name in order:
            spec, begin = specs[name], end
            end += spec.data_len
            header[name] = {"dtype": kinds[spec.dtype], "shape": spec.shape, "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with Path(path).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                file.write(ctypes.string_at(specs[name].data_ptr, specs[name].data_len))

    library.TensorSpec = SimpleNamespace  # type: ignore[attr-defined]
    library.SafetensorError = ValueError  # type: ignore[attr-defined]
    library.serialize_file = serialize_file  # type: ignore[attr-defined]
    return library


def show_pictures(report: Report) -> None:
    """Report the figures that are open, and close them."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    plt = sys.modules["matplotlib.pyplot"]
    for number in plt.get_fignums():
        file = io.StringIO()
        figure = plt.figure(number)
        figure.savefig(file, format="svg", bbox_inches="tight")
        plt.close(figure)
        tell(report, svg=file.getvalue())


# ---- exercises ---------------------------------------------------------------------------------------------------------


def exercise(report: Report, number: int) -> str:
    """{title, handout, solution} of an exercise: what `led-ref exercise N` writes, and one way to do it."""
    from led_ref.tools.exercises import handout

    one = handout.exercise(number)
    return json.dumps(
        {"title": one.title, "handout": handout.handout(one.solved), "solution": handout.solutions(one.solved)}
    )


def check(report: Report, number: int, code: str) -> str:
    """The outcomes of the checks that `led-ref exercise N` makes: [{name, failure}]; failure is None where it is right."""
    from led_ref.tools.exercises import handout

    one = handout.exercise(number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / one.file_name
        path.write_text(code, encoding="utf-8")
        return json.dumps([{"name": each.name, "failure": each.failure} for each in handout.run_checks(one, path)])


# ---- what was compiled ---------------------------------------------------------------------------------------------------

# Nobody checks such a file against its source: the browser keeps it under the names of the archives that it was made from.
UNCHECKED = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)


def count_compiled() -> int:
    """How many modules of the standard library, of NumPy and of led_ref are compiled."""
    return len(_of_library()) + len(_of_others())


def write_compiled(stdlib: str, modules: str) -> None:
    """Two archives for the next start: the standard library with what is compiled of it, and the other compiled modules."""
    shutil.copy(_library(), stdlib)
    with zipfile.ZipFile(stdlib, "a", zipfile.ZIP_DEFLATED) as archive:
        there = set(archive.namelist())
        for name in _of_library():
            if f"{name}c" not in there:
                code = compile(archive.read(name), f"{_library()}/{name}", "exec", dont_inherit=True)
                archive.writestr(f"{name}c", UNCHECKED + marshal.dumps(code))
    with zipfile.ZipFile(modules, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _of_others():
            archive.writestr(str(path).removeprefix("/"), UNCHECKED + path.read_bytes()[len(UNCHECKED) :])


def _of_library() -> list[str]:
    """The modules of the standard library that have been imported: the names of their sources in its archive."""
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    here = f"{_library()}/"
    return sorted({file.removeprefix(here).removesuffix("c") for file in files if file.startswith(here)})


def _of_others() -> list[Path]:
    """What Python compiled of NumPy and of led_ref. Not of this file and of the chapters' own: their names do not change."""
    folders = [Path(package.__file__ or "").parent for package in (np, led_ref, led_backends)]
    return sorted(path for folder in folders for path in folder.rglob("__pycache__/*.pyc"))


def _library() -> str:
    """The archive with the standard library."""
    return next(path for path in sys.path if path.endswith(".zip"))
