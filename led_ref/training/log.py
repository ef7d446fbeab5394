"""The log of a training: one JSON object a line, written as it happens; and its curve as a picture. Needs matplotlib for that.

    {"step": 12, "epoch": 0.31, "loss": 4.02, "grad_norm": 2.7, "learning_rate": 4.4e-05, "tokens": 9120, ...}
    {"step": 12, "epoch": 0.31, "eval_loss": 3.9, "seconds": 20.1, "time": "2026-11-28T18:00:00+00:00"}
    {"step": 13, "epoch": 0.33, "skipped": "the loss is nan", "documents": ["train.jsonl:7"], ...}

`seconds` is the time that the step or the validation took. A step that is not taken has no loss, and `skipped` says why.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from led_ref.errors import InputError, MissingFileError
from led_ref.files.json_file import parse_json, write_text
from led_ref.files.staging import naming, new_file, to_write

_PICTURES = (".svg", ".png", ".pdf")


class TrainingLog:
    """A log that is being written.

    Args:
        path: the file.
        after_step: a run that goes on after this step: later lines, of the steps that are made again, are dropped. None: a
            new log, in place of one that is there.

    Raises:
        InputError: if the log that is to go on is none.
    """

    def __init__(self, path: str | Path, *, after_step: int | None = None) -> None:
        self.path = Path(path)
        kept = []
        if after_step is not None and self.path.exists():
            kept = [line for line in read_log(self.path) if line["step"] <= after_step]
        write_text(self.path, "".join(map(_as_line, kept)))

    def write(self, values: Mapping[str, Any]) -> None:
        """Write one line, with the time, so that another program sees it at once."""
        # Opened for each line: its folder may have been replaced by one rename (staging.py).
        with naming(self.path), self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(_as_line({**values, "time": datetime.now(UTC).isoformat(timespec="seconds")}))


def _as_line(values: Mapping[str, Any]) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a log. A last line that was cut off, as by a full disk, does not count.

    Raises:
        MissingFileError: if it does not exist.
        InputError: if it is no log of a training.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise MissingFileError(f"There is no log {path}. led-ref train writes one into its folder.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a log ({error}). Name the log.jsonl of a training.") from error
    found = []
    for number, line in enumerate(lines[:-1], start=1):  # behind the last end of line is nothing, or a piece
        try:
            values = parse_json(line, finite=False)
            if not isinstance(values["step"], int):
                raise ValueError("step is no number")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number} is no line of a log ({error!r:.80}). Name another file.") from error
        found.append(values)
    return found


# ---- the curve -----------------------------------------------------------------------------------------------------------


def check_picture(path: str | Path) -> None:
    """Refuse a picture that could not be drawn, before anything is trained for it.

    Raises:
        InputError: if matplotlib is not installed, or cannot draw such a file.
        MissingFileError: if the folder does not exist.
    """
    _figure_class()
    path = to_write("path", path)
    if path.suffix not in _PICTURES:
        raise InputError(f"{path} cannot be drawn. Name it {', '.join(_PICTURES[:-1])} or {_PICTURES[-1]}.")
    if not path.absolute().parent.is_dir():
        raise MissingFileError(f"There is no folder {path.parent} to draw {path.name} in. Make it first.")


def save_curve(lines: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw loss and learning rate over the steps into a file, whole or not at all.

    Args:
        lines: of a log (`read_log`).
        path: its suffix is the format: .svg, .png, .pdf.

    Raises:
        InputError: as `check_picture`.
        MissingFileError: as `check_picture`.
    """
    path = to_write("path", path)
    check_picture(path)
    figure = _figure_class()(figsize=(8, 5), layout="constrained")
    _draw(lines, *figure.subplots(2, 1, sharex=True, height_ratios=(3, 1)))
    with new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


def _draw(lines: Sequence[Mapping[str, Any]], loss: Any, rate: Any) -> None:
    """Above the losses: each step, a mean over steps, the held-out documents; below the learning rate."""
    steps = [line for line in lines if line.get("loss") is not None]
    numbers = [line["step"] for line in steps]
    loss.plot(numbers, [line["loss"] for line in steps], color="0.75", linewidth=0.8, label="a step")
    loss.plot(numbers, smoothed([line["loss"] for line in steps]), color="#4c72b0", label="mean of some steps")
    validations = [line for line in lines if line.get("eval_loss") is not None]
    if validations:
        held_out = [line["eval_loss"] for line in validations]
        loss.plot([line["step"] for line in validations], held_out, "o-", color="#c44e52", label="held out")
    for skipped in (line["step"] for line in lines if "skipped" in line):
        loss.axvline(skipped, color="#dd8452", linewidth=0.8, linestyle=":")
    loss.set_ylabel("loss")
    loss.legend(frameon=False)
    rate.plot(numbers, [line["learning_rate"] for line in steps], color="#4c72b0")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    for axes in (loss, rate):
        axes.grid(visible=True, color="0.9")
        axes.set_axisbelow(True)


def smoothed(values: Sequence[float]) -> list[float]:
    """For each value the exponential mean of it and those before, over about a fiftieth of all.

    Example:
        >>> smoothed([4.0, 2.0, 3.0])
        [4.0, 3.0, 3.0]
    """
    keep = 1 - 1 / max(2.0, len(values) / 50)
    found: list[float] = []
    for value in values:
        found.append(value if not found else keep * found[-1] + (1 - keep) * value)
    return found


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"A picture needs matplotlib ({error}). Install it: pip install 'led-ref[plot]'") from error
    return Figure
