"""Make tokens of letters, as byte pair encoding does.

A word begins as a list of letters. The merges are pairs of neighbours that become one piece, in order of priority. Find the
neighbours whose merge stands first in the list, join them wherever they stand side by side (from the left), and repeat,
until no neighbours are in the list:

    l o w e r   merges: (l o), (e r), (lo w)
    lo w e r    (l o) stands first
    lo w er     then (e r)
    low er      then (lo w); (low er) is not in the list
"""

import itertools
from collections.abc import Sequence

from led_ref.tools.exercises.expect import Yours, expect


def merge(letters: Sequence[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    """The pieces of a word."""
    pieces = list(letters)
    while True:
        neighbours = set(itertools.pairwise(pieces))
        chosen = next((pair for pair in merges if pair in neighbours), None)
        if chosen is None:
            return pieces
        joined, i = [], 0
        while i < len(pieces):
            found = tuple(pieces[i : i + 2]) == chosen
            joined.append("".join(chosen) if found else pieces[i])
            i += 2 if found else 1
        pieces = joined


def check_the_example_above(yours: Yours) -> None:
    """The word l o w e r."""
    merges = [("l", "o"), ("e", "r"), ("lo", "w")]
    expect(yours.merge("lower", merges), ["low", "er"], "merge('lower', ...)")


def check_the_order_of_the_list_counts(yours: Yours) -> None:
    """The first merge in the list comes first, not the first in the word."""
    expect(yours.merge("abc", [("b", "c"), ("a", "b")]), ["a", "bc"], "merge('abc', [bc, ab])")
    expect(yours.merge("abc", [("a", "b"), ("b", "c")]), ["ab", "c"], "merge('abc', [ab, bc])")


def check_three_in_a_row(yours: Yours) -> None:
    """From the left, and no letter twice."""
    expect(yours.merge("lll", [("l", "l")]), ["ll", "l"], "merge('lll', [ll])")
    expect(yours.merge("", [("l", "l")]), [], "merge('', [ll])")


def check_real_words(yours: Yours) -> None:
    """The bundled model's own merges, against led_ref's tokenizer."""
    from led_ref.api import bundled_model
    from led_ref.tokenizer.tokenizer import LEDTokenizer

    folder = bundled_model()
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines[1:] if " " in line)]
    tokenizer = LEDTokenizer.from_pretrained(folder)
    for word in ("compress", "directory", "unreadable", "mississippi"):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        expect(yours.merge(word, merges), [tokenizer.decode([i]) for i in ids], f"merge({word!r}, ...)")
