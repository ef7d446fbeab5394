"""The encode cases of a bench as a picture: time and memory against length, both axes logarithmic. Needs matplotlib.

On such axes a straight line of slope 1 is linear growth. Beside the measured curves stands one of full attention, which is
counted: its operations at the speed of this machine's products, and the attention map of one layer alone.
"""

from pathlib import Path
from typing import Any

from led_ref.errors import InputError
from led_ref.oracle.traces.diff_plot import new_figure, save_figure
from led_ref.oracle.traces.trace import check_target

KINDS = (".png", ".svg", ".pdf")
COLOURS = {"led_ref": "#1b7f79", "transformers": "#c44e52", "full attention at best, counted": "0.55"}


def check(path: str | Path) -> None:
    """Refuse a file that could not be drawn, before anything is measured for it.

    Raises:
        InputError: if matplotlib is not installed, cannot draw such a file, or the file exists.
        MissingFileError: if the folder does not exist.
    """
    new_figure(9, 4)
    check_target(path, overwrite=True)
    if Path(path).suffix not in KINDS:
        raise InputError(f"{path} cannot be drawn. Name it {', '.join(KINDS[:-1])} or {KINDS[-1]}.")
    if Path(path).exists():
        raise InputError(f"{path} is there already. Remove it, or name another file.")


def save(report: dict[str, Any], path: str | Path) -> None:
    """Draw the picture into a file; errors as in `check`."""
    figure = new_figure(9, 4)
    _draw(curves(report), figure.subplots(1, 2))
    save_figure(figure, Path(path), dpi=150)


def curves(report: dict[str, Any]) -> dict[str, list[tuple[int, float, float | None]]]:
    """(tokens, seconds, MB above the weights) of every encode case, by who; counted for full attention."""
    cases = sorted((case for case in report["cases"] if case["work"] == "encode"), key=lambda case: case["tokens"])
    found: dict[str, list[tuple[int, float, float | None]]] = {}
    for who in ("led_ref", "transformers"):
        sides = [(case["tokens"], case[who]) for case in cases if case[who] is not None]
        found[who] = [(tokens, side["median_s"], side["above_mb"]) for tokens, side in sides]
    speed = {case["tokens"]: case["limit"]["sgemm_gflop_s"] * 1e9 for case in cases}
    found["full attention at best, counted"] = [
        (entry["tokens"], entry["operations"] / speed[entry["tokens"]], entry["bytes"] / 1e6)
        for entry in sorted(report["full_attention"], key=lambda entry: entry["tokens"])
    ]
    return found


def _draw(lines: dict[str, list[tuple[int, float, float | None]]], axes: Any) -> None:
    for axis, column, label in zip(axes, (1, 2), ("seconds to encode", "MB above the weights"), strict=True):
        for who, points in lines.items():
            known = [(point[0], point[column]) for point in points if point[column]]
            style = "--" if "counted" in who else "o-"
            axis.plot([x for x, _ in known], [y for _, y in known], style, color=COLOURS[who], label=who)
        ticks = [point[0] for point in lines["led_ref"]]
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.set_xlabel("tokens")
        axis.set_ylabel(label)
        axis.grid(visible=True, color="0.9")
        axis.set_axisbelow(True)
    axes[0].legend(frameon=False)
