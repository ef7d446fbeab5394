"""Run every notebook and make a page of it: notebooks/NAME.py -> docs/notebooks/NAME.md, its pictures, NAME.ipynb.

    python docs/build_notebooks.py                     all of them
    python docs/build_notebooks.py 01_sliding_window   this one; the others stay as they are

A notebook is kept as a Python file in the percent format (`# %%` begins a cell), without outputs: it can be read, compared
and run as it is. Here its cells are executed, in order, from an empty kernel. If one fails nothing is written for that
notebook, the cell is named, and the exit code is 1.

A cell that draws says in words what its picture shows, for those who cannot see it:

    # %% alt="A dark band along the diagonal"

How pictures look on the site is in docs/matplotlibrc, how a page is put together in docs/notebook.md.j2.
"""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
SOURCES = DOCS.parent / "notebooks"
PAGES = DOCS / "notebooks"
SECONDS_FOR_A_CELL = 120


def main(names: list[str]) -> int:
    """Build the notebooks of these names, or all. Returns the exit code."""
    # Read by the kernels, which inherit this environment.
    os.environ |= {"MATPLOTLIBRC": str(DOCS / "matplotlibrc"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    sources = [SOURCES / f"{name}.py" for name in names] or sorted(SOURCES.glob("*.py"))
    if not names:
        shutil.rmtree(PAGES, ignore_errors=True)  # a page whose notebook is gone must not linger
    failed = 0
    for source in sources:
        started = time.perf_counter()
        try:
            build(source)
        except NotebookError as error:
            print(f"{source.relative_to(DOCS.parent)}: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{source.relative_to(DOCS.parent)}: executed in {time.perf_counter() - started:.1f} s")
    return 1 if failed else 0


class NotebookError(Exception):
    """A notebook that cannot become a page; the message names the cell."""


def build(source: Path) -> None:
    """Execute one notebook and write its page, its pictures and its .ipynb.

    Raises:
        NotebookError: if there is no such notebook, a cell fails, or a picture has no text in its place.
    """
    import jupytext
    import nbformat
    from nbconvert import MarkdownExporter

    if not source.is_file():
        raise NotebookError("there is no such notebook")
    notebook = jupytext.read(source)
    execute(notebook, source)
    check_pictures(notebook, source)

    exporter = MarkdownExporter(template_file=str(DOCS / "notebook.md.j2"))
    pictures = {"output_files_dir": f"{source.stem}_files", "unique_key": source.stem}
    page, resources = exporter.from_notebook_node(notebook, {**pictures, "notebook_name": source.stem})
    PAGES.mkdir(exist_ok=True)
    shutil.rmtree(PAGES / pictures["output_files_dir"], ignore_errors=True)
    for name, content in resources["outputs"].items():
        path = PAGES / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (PAGES / f"{source.stem}.md").write_text(page, encoding="utf-8")
    nbformat.write(notebook, PAGES / f"{source.stem}.ipynb")


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
        extra_arguments=[
            "--InlineBackend.figure_formats=retina",  # pictures in double resolution, which know their size on the page
            "--IPKernelApp.log_level=40",  # it warns that it talks to us unencrypted, on this machine
        ],
        resources={"metadata": {"path": str(SOURCES)}},
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
        draws = any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
        if draws and not cell.metadata.get("alt"):
            raise NotebookError(f'{where(notebook, index, source)} draws; say what: # %% alt="..."')


def where(notebook: Any, index: int, source: Path) -> str:
    """The cell's number, its first line of code and where that stands in the file."""
    code = notebook.cells[index].source
    first = next((line for line in code.splitlines() if line.strip() and not line.startswith("#")), "")
    lines = source.read_text(encoding="utf-8").splitlines()
    number = lines.index(first) + 1 if first in lines else "?"
    return f"cell {index + 1}, line {number} (`{first.strip()}`)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
