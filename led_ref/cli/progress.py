"""Progress on standard error: bars while a terminal looks, nothing otherwise."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self


class ProgressBars:
    """A bar for reading (encoder layers) and one for writing (tokens); called as `Progress` is (led.py).

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
        """Show that `done` of `total` steps of a stage ("read" or "write") are behind us."""
        if not self.enabled:
            return
        from tqdm import tqdm

        if stage != self._stage:
            self._close()
            self._bar = tqdm(
                total=total,
                desc=f"{self.label}: {stage}",
                unit="layer" if stage == "read" else "token",
                file=sys.stderr,
                leave=False,
                position=self.position,
                **_size(),
            )
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    def __enter__(self) -> Self:
        """Bars are closed on the way out, also when something failed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        self._close()


@contextlib.contextmanager
def count_documents(total: int, done: int, *, enabled: bool) -> Iterator[Callable[[], None]]:
    """A bar over all documents; what it gives is called as each is done."""
    if not enabled:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, desc="documents", file=sys.stderr, leave=False, **_size()) as bar:
        yield lambda: bar.update() and None


def _size() -> dict[str, int]:
    """A size for tqdm where the terminal says 0 x 0, as in many containers: tqdm would show nothing then."""
    with contextlib.suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns:
            return {}
    return {"ncols": 80, "nrows": 24}


def say(sentence: str) -> None:
    """A notice for the person at the terminal."""
    print(f"led-ref: {sentence}", file=sys.stderr)
