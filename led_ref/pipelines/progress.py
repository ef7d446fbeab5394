"""Progress bars on standard error, of tqdm: of one document, and over all documents."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class ProgressBars(contextlib.AbstractContextManager["ProgressBars"]):
    """A bar for reading (encoder layers) and one for writing (tokens); its calls are those of `Progress` (classes/led.py).

    Args:
        label: what stands before the bar, such as the document's name.
        enabled: False: show nothing.
        position: how many bars are above it.
    """

    def __init__(self, label: str, *, enabled: bool, position: int = 0) -> None:
        self.label = label
        self.enabled = enabled
        self.position = position
        self._stage = ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a stage ("read" or "write") are finished."""
        if not self.enabled:
            return
        if stage != self._stage:
            self._close()
            unit = "layer" if stage == "read" else "token"
            self._bar = bar(total=total, desc=f"{self.label}: {stage}", unit=unit, position=self.position)
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    def __exit__(self, *_: object) -> None:
        """Close what is open, also after an error."""
        self._close()


@contextlib.contextmanager
def count_documents(total: int, done: int, *, enabled: bool) -> Iterator[Callable[[], None]]:
    """Show a bar over all documents; yields the function to call after each finished document."""
    if not enabled:
        yield lambda: None
        return
    with bar(total=total, initial=done, desc="documents") as shown:
        yield lambda: shown.update() and None


def bar(**options: Any) -> Any:
    """A bar of tqdm on standard error, which disappears at its end.

    Many containers have a terminal of 0 x 0 characters, on which tqdm would show nothing: it gets 80 x 24 there.
    """
    from tqdm import tqdm

    size = {"ncols": 80, "nrows": 24}
    with contextlib.suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns:
            size = {}
    return tqdm(file=sys.stderr, leave=False, **options, **size)


@contextlib.contextmanager
def bars_of(documents: int) -> Iterator[tuple[ProgressBars, Callable[[], None]]]:
    """Bars of a call with so many documents: what to call after each layer and token, and after each document."""
    several = documents > 1
    with (
        count_documents(documents, 0, enabled=several) as count,
        ProgressBars("now" if several else "document", enabled=True, position=int(several)) as progress,
    ):
        yield progress, count
