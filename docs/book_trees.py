"""Draws a beam search as a tree, from a trace of a real run. Used by chapter 9.

    recorded = led_ref.trace(led, text, num_beams=3, only="beam.*")
    beam_tree(recorded, led.tokenizer.decode).show()

A row is a step, a node a text with its last word and its score, and on an edge stands what the word adds to the score.
At the left are the running beams, best first; to their right candidates that were not good enough. In the last
row all texts end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from book_steps import INK, Steps
from book_tools import BAND, GLOBAL, QUIET

WIDTH, ROW, TOP = 360, 64, 16
LABEL_AT = 0.85  # where on an edge its number stands: near its end, because many edges have the same beginning


def beam_tree(recorded: Any, decode: Callable[[Sequence[int]], str], *, candidates: int = 5) -> Steps:
    """The tree of the first document; a step of the drawing is a step of the search.

    Args:
        recorded: a trace with `beam.*`.
        decode: ids to text.
        candidates: how many of each step's candidates are shown.
    """
    steps = sum(name.endswith(".candidates.beams") for name in recorded)
    chosen = chosen_beams(recorded, steps)
    tree = Steps(WIDTH, TOP + ROW * steps + 30, count=steps + 1)
    column = WIDTH / candidates
    tree.text(column / 2, TOP, "start", bold=True, halo=True)
    tree.text(column / 2, TOP + 13, "0.00", size=10, halo=True)
    for n in range(steps):
        running = continued(recorded, n, steps)
        beams, words, scores = (of(recorded, n, f"candidates.{what}") for what in ("beams", "tokens", "scores"))
        stops, y = of(recorded, n, "candidates.stops"), TOP + ROW * (n + 1)
        dropped, texts = len(running), []
        for beam, word, score, ends in list(zip(beams, words, scores, stops, strict=True))[:candidates]:
            lives = (beam, word) in running
            place = running.index((beam, word)) if lives else dropped
            dropped += not lives
            color = GLOBAL if lives and chosen[n] == place else BAND if lives else QUIET
            x, from_x = column * (place + 0.5), column * (beam + 0.5) if n else column / 2
            before = of(recorded, n - 1, "running.scores")[beam] if n else 0.0
            tree.line(from_x, y - ROW + 17, x, y - 14, color, width=3 if color == GLOBAL else 1.2, at=n + 2)
            ink, word = color if color == QUIET else INK, repr(decode([word]))
            label_x, label_y = np.array([from_x, y - ROW + 17]) + LABEL_AT * np.array([x - from_x, ROW - 31])
            texts.append((label_x, label_y + 3, f"{score - before:+.2f}", {"size": 8, "color": ink}))
            size = 11 if len(word) < 12 else 9
            texts.append((x, y, word, {"size": size, "color": ink, "bold": color == GLOBAL}))
            texts.append((x, y + 12, f"{score:.2f}{' ends' * bool(ends)}", {"size": 9, "color": ink}))
        for text_x, text_y, words_there, look in texts:  # above all lines
            tree.text(text_x, text_y, words_there, halo=True, at=n + 2, **look)
    return tree


def of(recorded: Any, step: int, name: str) -> np.ndarray:
    """What a step decided, of the first document."""
    return recorded[f"beam.step.{step}.{name}"][0]


def continued(recorded: Any, n: int, steps: int) -> list[tuple[int, int]]:
    """(beam, word) of what goes on at a step, best first; at the last step, of the texts that end there."""
    what = "running" if n < steps - 1 else "candidates"
    width = len(of(recorded, n, "running.beams"))
    pairs = zip(of(recorded, n, f"{what}.beams").tolist(), of(recorded, n, f"{what}.tokens").tolist(), strict=True)
    return list(pairs)[:width]


def chosen_beams(recorded: Any, steps: int) -> list[int | None]:
    """Of each step the place of what became the text which the search chose; None where that had ended already."""
    target = recorded["beam.sequences"][0].tolist()
    texts: list[list[int]] = [[] for _ in of(recorded, 0, "running.beams")]
    found: list[int | None] = []
    for n in range(steps):
        texts = [[*texts[parent], word] for parent, word in continued(recorded, n, steps)]
        matching = [place for place, text in enumerate(texts) if text == target[1 : n + 2]]  # target[0] is the start id
        found.append(matching[0] if matching else None)
    return found
