"""What the chapters of the book share: code shown by its name, the small model, colours.

    from book_tools import BAND, bundled, source

    source("led_ref.model.masks:window_blocks")    the function as it stands in the file, today
    led = bundled()                                the model that comes with led_ref, in float64
    planted("positions-plus-two").add_positions    the function as one of the mutants of tests/mutants has it

A chapter never repeats code of led_ref: it names it. If the name is gone the build fails, so what the book shows is what runs.
"""

import ast
import functools
import inspect
import pydoc
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

# One colour for each kind of thing, the same in all chapters. They stand on a light and on a dark page.
BAND = "#2a9d8f"  # what is seen through the window; also: the right way
GLOBAL = "#e9a23b"  # global tokens
WRONG = "#d1495b"  # what a mistake does
QUIET = "#808080"  # lines that only guide the eye


def shares() -> Any:
    """The colours of a table of numbers, from none to BAND: what is 0 has the page's own colour, light or dark."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", [f"{BAND}10", BAND])


def source(name: str, *, docstring: bool = False) -> None:
    """Show code of led_ref by its name, `module:function`, `module:Class` or `module:Class.method`.

    Args:
        name: a dotted module, a colon, and the name in it.
        docstring: keep the docstring. Most chapters say the same in other words, so it is left out unless asked for.

    Raises:
        LookupError: if there is no such name. Then the chapter does not build.
    """
    from IPython.display import Markdown, display

    module, _, inside = name.partition(":")
    found = pydoc.locate(f"{module}.{inside}") if inside else None
    if found is None:
        raise LookupError(f"There is no {name}. Was it renamed? Give source() the name that the code has today.")
    code = textwrap.dedent(inspect.getsource(found))
    path = _path_in_the_repository(inspect.getsourcefile(found) or "")
    display(
        Markdown(f'``` {{ .python title="{path}" }}\n{(code if docstring else _without_docstring(code)).rstrip()}\n```')
    )


def _path_in_the_repository(file: str) -> str:
    """`led_ref/model/masks.py`, `backends/led_backends/contract.py`."""
    return Path(file).resolve().relative_to(Path(__file__).resolve().parent.parent).as_posix()


def _without_docstring(code: str) -> str:
    """The code of one function or class, without the docstring of that function or class."""
    definition = ast.parse(code).body[0]
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    if ast.get_docstring(definition) is None:
        return code
    first = definition.body[0]
    lines = code.splitlines()
    del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(lines)


def planted(name: str) -> ModuleType:
    """A mutant: a copy of a module of led_ref with one mistake in it: the module itself stays as it is.

    Args:
        name: of a mutant in tests/mutants, listed in docs/mutation_testing.md.

    Raises:
        LookupError: if there is no such mutant. ValueError, if the code that it changes is not there any more.
    """
    root = Path(__file__).resolve().parent.parent
    if str(root / "tests" / "mutants") not in sys.path:
        sys.path.append(str(root / "tests" / "mutants"))
    from mutants import all_mutants

    found = {mutant.name: mutant for mutant in all_mutants()}.get(name)
    if found is None:
        raise LookupError(f"There is no mutant {name}. docs/mutation_testing.md has the list.")
    module = ModuleType(found.file.removeprefix("backends/").removesuffix(".py").replace("/", "."))
    exec(compile(found.apply((root / found.file).read_text(encoding="utf-8")), found.file, "exec"), module.__dict__)
    return module


@functools.cache
def bundled(dtype: str = "float64") -> Any:
    """The model that comes with led_ref, loaded once. float64, so that two ways to a number agree to 15 digits."""
    import led_ref

    return led_ref.load(dtype=dtype)


@functools.cache
def manual_page() -> str:
    """The document that most chapters read: led_ref's own manual page."""
    import led_ref

    return (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")


def table_of(axes: Any, cells: Any, *, rows: Any = None, columns: Any = None, digits: int | None = None) -> None:
    """Turn axes into a table: a frame around every cell, labels on top and at the left, numbers if digits are given.

    Args:
        axes: matplotlib's, on which the cells were drawn with imshow.
        cells: the numbers, (rows, columns); a NaN is not written.
        rows: labels at the left.
        columns: labels on top.
        digits: after the point; None: no numbers are written.
    """
    height, width = cells.shape
    axes.set_xticks(range(width), columns if columns is not None else range(width))
    axes.set_yticks(range(height), rows if rows is not None else range(height))
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.55, width - 0.45), ylim=(height - 0.45, -0.55))
    for n in range(max(height, width) + 1):
        if n <= width:
            axes.plot([n - 0.5, n - 0.5], [-0.5, height - 0.5], color=QUIET, linewidth=0.8, alpha=0.5)
        if n <= height:
            axes.plot([-0.5, width - 0.5], [n - 0.5, n - 0.5], color=QUIET, linewidth=0.8, alpha=0.5)
    if digits is not None:
        for i, j in zip(
            *(cells == cells).nonzero(), strict=True
        ):  # NaN is not equal to itself: such a cell stays empty
            axes.text(j, i, f"{cells[i, j]:.{digits}f}", ha="center", va="center", fontsize=8)
