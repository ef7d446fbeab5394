"""Run every notebook and every chapter of the book, and make a page of each, with its pictures in it, and an .ipynb.

    notebooks/NAME.py -> docs/notebooks/NAME.md        docs/book/NAME.py -> docs/book/NAME.md

    python docs/build_notebooks.py                     all that changed since they were built
    python docs/build_notebooks.py 02_sliding_window   this one, in any case; the others stay as they are

A notebook is kept as a Python file in the percent format (`# %%` begins a cell), without outputs: it can be read, compared
and run as it is. Here its cells are executed, in order, from an empty kernel. If one fails nothing is written for that
notebook, the cell is named, and the exit code is 1. Two notebooks run at a time.

A page is kept as long as nothing changed that it is made of: its source, all code of led_ref, the bundled model, what is
in docs/data, and the files here. A hash of those lies beside it (`.NAME.made_of`).

A cell that draws says in words what its picture shows, for those who cannot see it:

    # %% alt="A dark band along the diagonal"

Its code is folded on the page. So is that of a cell with `tags=["fold"]`, whose numbers matter and not its code, and of a cell
that begins with an import and shows nothing. A cell tagged "native" does not run in a browser; the text of one tagged "machine"
is about the machine, and tests/browser/check_cells.py does not compare it.

Cells can import docs/book_tools.py. A cell that does nothing but call its `source` is not shown itself, only what it shows.
How pictures look on the site is in docs/matplotlibrc, how a page is put together in docs/notebook.md.j2.
"""

import hashlib
import html
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# Where sources are -> where their pages go.
FOLDERS = {ROOT / "notebooks": DOCS / "notebooks", DOCS / "book": DOCS / "book"}
# What any of them may use. A change here builds all of them again.
MADE_OF = (
    "led_ref",
    "backends/led_backends",
    "docs/*.py",
    "docs/notebook.md.j2",
    "docs/matplotlibrc",
    "docs/data",
    "tests/mutants",
    "tests/vectors",
)
INK = "#3f4a50"  # of docs/matplotlibrc: all that is neither a curve nor a guide. On a page it is the colour of its text
LIBRARIES = ("numpy", "matplotlib", "nbconvert", "jupytext")
DOTS = 88  # to an inch of a drawing
DRAWING = "image/svg+xml"
SECONDS_FOR_A_CELL = 120
AT_A_TIME = 2


def main(names: Sequence[str]) -> int:
    """Build the notebooks of these names, or all that changed. Returns the exit code."""
    # Read by the kernels, which inherit this environment.
    os.environ |= {
        "MATPLOTLIBRC": str(DOCS / "matplotlibrc"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(DOCS), os.environ.get("PYTHONPATH")])),
    }
    sources = [source for folder in FOLDERS for source in sorted(folder.glob("[0-9]*.py"))]
    for unknown in set(names) - {source.stem for source in sources}:
        print(f"{unknown}: there is no such notebook", file=sys.stderr)
        return 1
    shared = hash_of_shared()
    if names:
        sources = [source for source in sources if source.stem in names]
    else:
        remove_pages_without_a_source(sources)
        sources = [source for source in sources if not is_up_to_date(source, shared)]
    with ProcessPoolExecutor(AT_A_TIME) as workers:
        outcomes = workers.map(build_and_report, sources, [shared] * len(sources))
        return 0 if all(list(outcomes)) else 1


def build_and_report(source: Path, shared: str) -> bool:
    """Build one, say how it went, and remember what it was made of. Returns whether it went well."""
    started = time.perf_counter()
    name = source.relative_to(ROOT)
    stamp_of(source).unlink(missing_ok=True)
    try:
        build(source)
    except NotebookError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return False
    stamp_of(source).write_text(hash_of(source, shared), encoding="utf-8")
    print(f"{name}: executed in {time.perf_counter() - started:.1f} s", flush=True)
    return True


# ---- what is built already -------------------------------------------------------------------------------------------


def hash_of_shared() -> str:
    """Of everything that any notebook may use, names and contents."""
    digest = hashlib.sha256(" ".join([sys.version, *map(version, LIBRARIES)]).encode())
    for pattern in MADE_OF:
        for path in sorted(ROOT.glob(pattern)):
            files = [path] if path.is_file() else sorted(path.rglob("*"))
            for file in files:
                if file.is_file() and "__pycache__" not in file.parts:
                    digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def hash_of(source: Path, shared: str) -> str:
    """Of all that one page is made of."""
    return hashlib.sha256(shared.encode() + source.read_bytes()).hexdigest()


def stamp_of(source: Path) -> Path:
    """The file that says what the page of this source was made of. MkDocs does not publish names that begin with a dot."""
    return FOLDERS[source.parent] / f".{source.stem}.made_of"


def is_up_to_date(source: Path, shared: str) -> bool:
    """Whether the page is there, and was made of what is there now."""
    stamp = stamp_of(source)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == hash_of(source, shared)


def remove_pages_without_a_source(sources: Sequence[Path]) -> None:
    """A page whose notebook is gone must not linger."""
    for folder, pages in FOLDERS.items():
        there = {source.stem for source in sources if source.parent == folder}
        for page in [*pages.glob("[0-9]*.md"), *pages.glob("[0-9]*.ipynb")]:
            if page.stem not in there:
                page.unlink()


# ---- one notebook ----------------------------------------------------------------------------------------------------


class NotebookError(Exception):
    """A notebook that cannot become a page; the message names the cell."""


def build(source: Path) -> None:
    """Execute one notebook and write its page, pictures and all, and its .ipynb.

    Raises:
        NotebookError: if a cell fails or warns, or a picture has no text in its place.
    """
    import jupytext
    import nbformat
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    pages = FOLDERS[source.parent]
    # No cell has a command of IPython's: what looks like one ("#!/bin/sh" in a text) stays as it is.
    notebook = jupytext.read(source, fmt={"extension": ".py", "format_name": "percent", "comment_magics": False})
    execute(notebook, source)
    check_pictures(notebook, source)
    check_silence(notebook, source)

    # Left alone, it would put drawings into files of their own.
    settings = Config({"ExtractOutputPreprocessor": {"enabled": False}})
    exporter = MarkdownExporter(template_file=str(DOCS / "notebook.md.j2"), config=settings)
    exporter.register_filter("drawing", drawing)
    resources = {
        "notebook_name": source.stem,
        "folder": pages.name,
        "needs": [f"{module}.py" for module in book_modules(source)],
    }
    page, _ = exporter.from_notebook_node(notebook, resources)
    pages.mkdir(exist_ok=True)
    (pages / f"{source.stem}.md").write_text(page, encoding="utf-8")
    nbformat.write(notebook, pages / f"{source.stem}.ipynb")


def book_modules(source: Path) -> list[str]:
    """The modules of docs/ that a chapter imports, and those that these import."""
    found = set(re.findall(r"^from (book_\w+) import", source.read_text(encoding="utf-8"), re.MULTILINE))
    return sorted(found.union(*(book_modules(DOCS / f"{module}.py") for module in found)))


def execute(notebook: Any, source: Path) -> None:
    """Run all cells in a new kernel, their outputs into the notebook.

    Raises:
        NotebookError: naming the first cell that fails, and its error.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS_FOR_A_CELL,
        coalesce_streams=True,  # what a cell prints is one text
        extra_arguments=[
            "--InlineBackend.figure_formats=svg",  # drawings, sharp in any size, which can take a page's colours
            "--IPKernelApp.log_level=40",  # it warns that it talks to us unencrypted, on this machine
        ],
        resources={"metadata": {"path": str(source.parent)}},
    )
    reached = [0]
    client.on_cell_start = lambda cell, cell_index: reached.__setitem__(0, cell_index)
    try:
        client.execute()
    except CellExecutionError as error:
        raise NotebookError(f"{where(notebook, reached[0], source)} failed\n{error.traceback}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise NotebookError(f"{where(notebook, reached[0], source)} failed\n{error}") from None


def check_pictures(notebook: Any, source: Path) -> None:
    """Every picture needs a text that says what it shows.

    Raises:
        NotebookError: naming the first cell whose picture has none.
    """
    for index, cell in enumerate(notebook.cells):
        draws = any(DRAWING in output.get("data", {}) for output in cell.get("outputs", ()))
        if draws and not cell.metadata.get("alt"):
            raise NotebookError(f'{where(notebook, index, source)} draws; say what: # %% alt="..."')


def check_silence(notebook: Any, source: Path) -> None:
    """No warning, nor anything else from standard error, belongs on a page.

    Raises:
        NotebookError: naming the first cell that wrote there, and what.
    """
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise NotebookError(f"{where(notebook, index, source)} warns: {output.text.strip()}")


def drawing(svg: str, alt: str) -> str:
    """Matplotlib's drawing as a part of the page, so that its letters and lines take the page's colour, light or dark."""
    head, body = re.fullmatch(r".*?(<svg[^>]*)>(.*)", svg, re.DOTALL).groups()
    points = float(re.search(r'width="([\d.]+)pt"', head)[1])
    head = re.sub(r'(width|height)="[\d.]+pt"', "", head)
    # Its one rule of style is about every element of a page; docs/assets/site.css has it for drawings.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL).replace(INK, "currentColor")
    label = f'role="img" aria-label="{html.escape(alt)}" style="--width: {points / 72 * DOTS:.0f}px"'
    return f'<div class="picture">{head} {label}>{body.strip()}</div>'


def where(notebook: Any, index: int, source: Path) -> str:
    """The cell's number, its first line of code and where that stands in the file."""
    code = notebook.cells[index].source
    first = next((line for line in code.splitlines() if line.strip() and not line.startswith("#")), "")
    lines = source.read_text(encoding="utf-8").splitlines()
    number = lines.index(first) + 1 if first in lines else "?"
    return f"cell {index + 1}, line {number} (`{first.strip()}`)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
