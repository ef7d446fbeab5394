"""Plot the error of every step of two traces, layer by layer. Needs matplotlib (the extra `plot`).

The x axis is the order of computation, the y axis the largest error of a step, on a logarithmic scale. Rounding errors grow
slowly; a fault is a jump, and the step of the jump is the first difference.
"""

import math
from pathlib import Path
from typing import Any

from led_ref.errors import InputError
from led_ref.files.staging import new_file
from led_ref.oracle.traces.diff import Difference, part_of
from led_ref.oracle.traces.trace import check_target

_EQUAL, _DIFFERENT = "#4c72b0", "#c44e52"


def save_plot(difference: Difference, path: str | Path) -> Path:
    """Draw the plot into a file, atomically; its suffix is the format: .png, .svg, .pdf.

    Returns:
        The path.

    Raises:
        InputError: if matplotlib is not installed, or does not know the format.
        MissingFileError: if the folder does not exist.
    """
    figure = new_figure(11, 4.5)
    check_target(path, overwrite=True)
    _draw(difference, figure.subplots())
    return save_figure(figure, Path(path), dpi=120)


def new_figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib, sizes in inches; InputError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"A picture needs matplotlib ({error}). Install it: pip install 'led-ref[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path, *, dpi: int) -> Path:
    """Write a figure into a file, whole or not at all; InputError for a suffix that matplotlib does not know."""
    try:
        with new_file(path) as unfinished:
            figure.savefig(unfinished, dpi=dpi)
    except ValueError as error:
        raise InputError(f"{path} cannot be drawn ({error}). Name it .png, .svg or .pdf.") from error
    return path


def _draw(difference: Difference, axes: Any) -> None:
    """A point for each step, a thin line and a name at the beginning of a layer, and the first difference as title."""
    steps = difference.compared
    known = [step.max_error for step in steps if math.isfinite(step.max_error) and step.max_error > 0]
    floor, ceiling = (min(known) / 10, max(known) * 10) if known else (1e-12, 1.0)
    # Bit-equal: at the bottom. Infinite, NaN or of another shape: at the top.
    heights = [min(max(step.max_error, floor), ceiling) if step.max_error >= 0 else ceiling for step in steps]
    axes.set_yscale("log")
    axes.set_ylim(floor / 2, ceiling * 2)
    axes.plot(heights, color="0.8", linewidth=1, zorder=1)
    axes.scatter(
        range(len(steps)), heights, s=14, zorder=2, color=[_EQUAL if step.equal else _DIFFERENT for step in steps]
    )
    parts = [part_of(step.name) for step in steps]
    starts = [
        (i, part.removeprefix("led.").replace(".layers.", " "))
        for i, part in enumerate(parts)
        if i == 0 or parts[i - 1] != part
    ]
    for start, _ in starts[1:]:
        axes.axvline(start - 0.5, color="0.9", linewidth=0.8, zorder=0)
    named: list[tuple[int, str]] = []
    for start, name in starts:
        if not named or start - named[-1][0] >= len(steps) / 50:  # some fifty names fit below the plot
            named.append((start, name))
    axes.set_xticks([start for start, _ in named], [name for _, name in named], rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("largest error of a step")
    axes.set_title("equal" if difference.first is None else f"part at {difference.first.name}", fontsize=10)
    axes.margins(x=0.01)
