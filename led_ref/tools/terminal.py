"""What a command prints: results on standard output, notices and progress bars on standard error.

Results are JSON for programs, or names and values for people. Bars show only while standard error is a terminal. Notices never
stop the work: where standard error is closed or full, it goes on without them.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from led_ref.pipelines.progress import bar


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object on one line and flush. Letters are escaped only where standard output is not UTF-8."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    print(json.dumps(values, ensure_ascii=encoding != "utf8", default=str), flush=True)


def print_values(values: Mapping[str, Any], *, indent: int = 0) -> None:
    """Print one line for each name and its value."""
    for name, value in values.items():
        print(f"{'':{indent}}{name:<{26 - indent}} {in_words(value)}")


def in_words(value: Any) -> str:
    """A value as a person would write it.

    Example:
        >>> in_words(True), in_words(4187392), in_words((1024, 512)), in_words(None)
        ('yes', '4,187,392', '1,024, 512', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value))
    return str(value)


def megabytes(size: int) -> str:
    """A number of bytes in megabytes (10**6).

    Example:
        >>> megabytes(647_693_783)
        '647.7 MB'
    """
    return f"{size / 1e6:,.1f} MB"


def say(sentence: str, *, command: str = "led-ref") -> None:
    """Print a notice for the person at the terminal, if there is a standard error (pythonw and `2>&-` have none)."""
    if sys.stderr is not None:  # print(file=None) would be standard output
        with contextlib.suppress(OSError, ValueError):  # a full disk, a closed pipe, a closed file
            print(f"{command}: {sentence}", file=sys.stderr, flush=True)


def has_bars() -> bool:
    """Whether progress bars can be shown: standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Within this context the reader of standard output may close its pipe, as `head` does: the command goes on.

    For what is printed where the exit code or the files still to be written say more than the printed lines.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        forget_output()


def forget_output() -> None:
    """Redirect standard output to the null device, so that what is still printed, and Python's last flush, cannot fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class TrainingBar(contextlib.AbstractContextManager["TrainingBar"]):
    """A bar over the steps of a training, with loss, tokens a second and the time left.

    Args:
        enabled: False: show nothing.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._bar: Any = None

    def show(self, line: Mapping[str, Any]) -> None:
        """Show a line of the training's log (training/log.py)."""
        if not self.enabled or "total_steps" not in line:
            return
        if self._bar is None:  # a run that goes on begins in the middle
            self._bar = bar(total=line["total_steps"], initial=line["step"] - 1, desc="training", unit="step")
        if line.get("loss") is not None:
            speed = f"{line['tokens_per_second']:,.0f} tokens/s"
            self._bar.set_postfix_str(f"loss {line['loss']:.3f}, {speed}", refresh=False)
        self._bar.update(line["step"] - self._bar.n)

    def say(self, sentence: str) -> None:
        """Print a notice above the bar."""
        if self._bar is not None:
            self._bar.clear()
        say(sentence)

    def __exit__(self, *_: object) -> None:
        """Close the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
