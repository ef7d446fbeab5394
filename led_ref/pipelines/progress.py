"""Progress bars on standard error, of tqdm: of one document, and over all documents."""

import contextlib
import os
import sys
import time
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


class DocumentCount(contextlib.AbstractContextManager["DocumentCount"]):
    """The documents of a run, their tokens, and how many of both a second; on a bar, whoever computes them.

    Args:
        total: how many documents there are.
        done: how many of them were done before this run.
        enabled: False: count, and show nothing.
    """

    def __init__(self, total: int, done: int, *, enabled: bool) -> None:
        self.documents = self.tokens = 0
        self._began = time.perf_counter()
        self._bar = bar(total=total, initial=done, desc="documents", unit=" documents") if enabled else None

    def __call__(self, tokens: int = 0) -> None:
        """Count a document that is done, with the tokens that were read of it."""
        self.documents += 1
        self.tokens += tokens
        if self._bar is not None:
            if self.tokens:
                self._bar.set_postfix_str(f"{self.tokens / self._seconds():,.0f} tokens/s", refresh=False)
            self._bar.update()

    def _seconds(self) -> float:
        return max(time.perf_counter() - self._began, 1e-9)

    def __str__(self) -> str:
        """Numbers and speeds as a sentence says them; without tokens where none were counted.

        Example:
            >>> with DocumentCount(2, 0, enabled=False) as count:
            ...     str(count)
            '0 documents in 0.0 s (0.00 a second)'
        """
        seconds = self._seconds()
        counts = {"documents": self.documents, **({"tokens": self.tokens} if self.tokens else {})}
        numbers = " and ".join(f"{number:,} {name}" for name, number in counts.items())
        speeds = " and ".join(
            f"{number / seconds:,.{0 if number > 100 * seconds else 2}f}" for number in counts.values()
        )
        return f"{numbers} in {seconds:,.1f} s ({speeds} a second)"

    def __exit__(self, *_: object) -> None:
        """Close the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()


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
        DocumentCount(documents, 0, enabled=several) as count,
        ProgressBars("now" if several else "document", enabled=True, position=int(several)) as progress,
    ):
        yield progress, count
