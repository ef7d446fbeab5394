"""Which words of a written text stand in its document, in runs of at least three, as they stand there.

The runs are those of Grusky et al. 2018 (arXiv 1804.11283), with a least length: from the left, at each word the longest one
that the document has, too. Words are compared in small letters, without punctuation around them.
"""

import re
from collections import defaultdict

LEAST = 3  # words; shorter runs stand in any text

Run = tuple[int, int]  # characters: first, and behind the last


def copied_runs(written: str, document: str) -> tuple[list[Run], list[Run], float]:
    """The runs in the written text, where each stands first in the document, and the share of written words in runs, 0 to 1.

    Example:
        >>> copied_runs("He says that the cat sleeps.", "I see that the cat sleeps now")
        ([(8, 27)], [(6, 25)], 0.6666666666666666)
    """
    own, own_places = _words(written)
    other, other_places = _words(document)
    starts = defaultdict(list)
    for j in range(len(other) - LEAST + 1):
        starts[tuple(other[j : j + LEAST])].append(j)
    runs, origins, i, words = list[Run](), list[Run](), 0, 0
    while i < len(own):
        found = [(_common(own, i, other, j), -j) for j in starts.get(tuple(own[i : i + LEAST]), ())]
        if not found:
            i += 1
            continue
        length, j = max(found)
        runs.append((own_places[i][0], own_places[i + length - 1][1]))
        origins.append((other_places[-j][0], other_places[-j + length - 1][1]))
        i, words = i + length, words + length
    return runs, origins, words / len(own) if own else 0.0


def _common(own: list[str], i: int, other: list[str], j: int) -> int:
    length = 0
    while i + length < len(own) and j + length < len(other) and own[i + length] == other[j + length]:
        length += 1
    return length


def _words(text: str) -> tuple[list[str], list[Run]]:
    """The words of a text, and their characters."""
    found = list(re.finditer(r"\w+(?:['’.-]\w+)*", text))
    return [match[0].lower() for match in found], [match.span() for match in found]
