"""Draws a beam search as a tree, from a trace of a real run. Used by chapter 9.

    recorded = led_ref.trace(led, text, num_beams=3, only="beam.*")
    draw_beam_tree(axes, recorded, led.tokenizer.decode)

A column is a step, a node a text with its last word and its score, and on an edge stands what the word adds to the score.
The rows on top are the running beams, best first; below them are candidates that were not good enough.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from book_tools import BAND, GLOBAL

DROPPED = "#808080"
INK = "#3f4a50"  # of docs/matplotlibrc; the global colour is too light for letters
LABEL_AT = 0.84  # where on an edge its number stands: near its end, because many edges have the same beginning
GAP = 0.1  # half the height of a number, in rows
LEFT, RIGHT = 0.2, 0.75  # where between two columns an edge begins and ends


def draw_beam_tree(axes: Any, recorded: Any, decode: Callable[[Sequence[int]], str], *, candidates: int = 5) -> None:
    """Draw the tree of the first document.

    Args:
        axes: matplotlib's.
        recorded: a trace with `beam.*`.
        decode: ids to text.
        candidates: how many of each step's candidates are shown.
    """
    steps = sum(name.endswith(".candidates.beams") for name in recorded) - 1  # at the last step every text stops
    chosen = chosen_beams(recorded, steps)
    axes.text(0, 0, "start\n0.00", ha="center", va="center", fontsize=9, color=BAND)
    for n in range(steps):
        now = f"beam.step.{n}"
        beams, words, scores = (recorded[f"{now}.candidates.{what}"][0] for what in ("beams", "tokens", "scores"))
        running = list(
            zip(
                recorded[f"{now}.running.beams"][0].tolist(), recorded[f"{now}.running.tokens"][0].tolist(), strict=True
            )
        )
        for place, (beam, word, score) in enumerate(zip(beams[:candidates], words, scores, strict=False)):
            lives = (beam, word) in running
            row = running.index((beam, word)) if lives else len(running) + 0.75 * (place - len(running))
            color, width = (BAND, 1.2) if lives else (DROPPED, 0.7)
            if lives and chosen[n] == row:
                color, width = GLOBAL, 2.4
            before = recorded[f"beam.step.{n - 1}.running.scores"][0, beam] if n else 0.0
            _edge(axes, n, -beam if n else 0, -row, f"{score - before:+.2f}", color, width)
            label = f"{decode([word])!r}\n{score:.2f}"
            axes.text(n + 1, -row, label, ha="center", va="center", fontsize=9, color=INK if color == GLOBAL else color)
    lowest = len(running) + 0.75 * max(0, candidates - len(running) - 1)
    axes.set(xlim=(-0.3, steps + 0.4), ylim=(-lowest - 0.4, 0.4))
    axes.axis("off")


def chosen_beams(recorded: Any, steps: int) -> list[int | None]:
    """Of each step the running beam that became the text which the search chose; None where it had ended already."""
    target = recorded["beam.sequences"][0].tolist()
    texts: list[list[int]] = [[] for _ in recorded["beam.step.0.running.beams"][0]]
    found: list[int | None] = []
    for n in range(steps):
        words, parents = recorded[f"beam.step.{n}.running.tokens"][0], recorded[f"beam.step.{n}.running.beams"][0]
        texts = [[*texts[parent], int(word)] for word, parent in zip(words, parents, strict=True)]
        matching = [place for place, text in enumerate(texts) if text == target[1 : n + 2]]  # target[0] is the start id
        found.append(matching[0] if matching else None)
    return found


def _edge(axes: Any, column: int, y_from: float, y_to: float, label: str, color: str, width: float) -> None:
    """A line from one column to the next with a number: above a level line, in a gap of one that rises or falls."""
    begin, way = np.array([column + LEFT, y_from]), np.array([RIGHT - LEFT, y_to - y_from])
    level = y_to == y_from
    gap = 0 if level else GAP / abs(y_to - y_from)
    for part in ((0, LABEL_AT - gap), (LABEL_AT + gap, 1)):
        axes.plot(*zip(*(begin + share * way for share in part), strict=True), color=color, lw=width)
    x, y = begin + LABEL_AT * way
    ink = INK if color == GLOBAL else color
    axes.text(x, y, label, fontsize=8, color=ink, ha="center", va="bottom" if level else "center")
