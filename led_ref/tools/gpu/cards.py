"""A GPU's peak figures, and the time that LED's operations and bytes take at them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from led_ref.costs.operations import Work

# The time of one launch from Python through CuPy, with what the program does around it, in seconds. Measured on 2026-11-22
# on an H100's machine: a decoding step of 141 launches took 5.1 to 7.9 ms there from one moment to the next, of which the
# search on the host is 1.4 ms. The shortest possible launch took 8.4 microseconds.
LAUNCH = 30e-6


@dataclass(frozen=True)
class Card:
    """A GPU by its maker's figures.

    Args:
        name: of the card.
        peak: operations a second, by dtype: float32 without TF32, float16 by tensor cores, adding up in float32, dense.
        bandwidth: bytes a second from its memory.
        memory: its bytes.
        link: bytes a second to the host, one way.
        source: where the figures stand.
    """

    name: str
    peak: dict[str, float]
    bandwidth: float
    memory: float
    link: float
    source: str


def floor_seconds(work: Work, card: Card, dtype: str) -> float:
    """A lower bound for any program on this card: its operations at peak speed or its bytes, whichever takes longer."""
    return max(work.operations / card.peak[dtype], work.bytes / card.bandwidth)


def design_seconds(works: Iterable[Work], card: Card, dtype: str, launch: float = LAUNCH) -> tuple[float, str]:
    """The time that the cost model predicts for this design, and what bounds it.

    Kinds of work follow each other, each at its lower bound; meanwhile Python launches. The slower of the two decides.
    """
    works = list(works)
    products = sum(work.operations for work in works) / card.peak[dtype]
    busy = sum(floor_seconds(work, card, dtype) for work in works)
    launching = sum(work.launches for work in works) * launch
    if launching > busy:
        return launching, "launches"
    return busy, "products" if products > busy / 2 else "memory"


def table(head: str, rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    columns = head.split(" | ")
    lines = [f"| {head} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])
