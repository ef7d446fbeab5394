"""Ask the `tokenizers` library what it takes for a letter, a number and white space, and write unicode_ranges.py.

    python tests/tokenizer/make_unicode_ranges.py > led_ref/tokenizer/unicode_ranges.py

How the library is asked: its ByteLevel splitter takes maximal runs of one class. So all code points in order, fed to it,
fall apart exactly where the class changes, and one character of each run tells the class of the whole run: put behind
a letter, a number or a punctuation mark, it joins that one which is of its own class. White space joins none of them.
test_unicode_split.py runs the same inquiry on every code point and compares it with the committed table.
"""

import sys
import unicodedata
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import pre_tokenizers

CODE_POINTS = [*range(0xD800), *range(0xE000, 0x110000)]  # all that a string may hold: no surrogates
BLOCK = 1024  # the library slows down on very long strings
WITNESSES = {"LETTERS": "a", "NUMBERS": "1", "OTHERS": "!"}

HEADER = '''r"""Which code points are letters, numbers and white space: Unicode's \\p{{L}}, \\p{{N}} and White_Space.

The table is that of the `tokenizers` library {version} (its regex engine's Unicode tables), so that ids do not depend on
the Python that runs this: `unicodedata` changes with every Python version, and a letter that is no letter elsewhere
splits a word elsewhere. Code points in hexadecimal, single ones and first-last ranges, both ends included.

Written by tests/tokenizer/make_unicode_ranges.py; do not edit by hand. test_unicode_split.py holds it to the library.
"""
'''


def runs() -> Iterator[str]:
    """All code points in order, cut at least wherever the library's class changes.

    The space and the apostrophe are handed out alone: the splitter's pattern gives them a second meaning (` ?` and `'s`).
    """
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    plain = [c for c in CODE_POINTS if chr(c) not in " '"]
    yield " "
    yield "'"
    for begin in range(0, len(plain), BLOCK):
        text = "".join(map(chr, plain[begin : begin + BLOCK]))
        for _, (start, end) in splitter.pre_tokenize_str(text):
            yield text[start:end]


def classes() -> dict[str, set[int]]:
    """The code points of LETTERS, NUMBERS, OTHERS and WHITE_SPACE, as the library sees them."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    found: dict[str, set[int]] = {name: set() for name in (*WITNESSES, "WHITE_SPACE")}
    for run in runs():
        joined = [name for name, witness in WITNESSES.items() if len(splitter.pre_tokenize_str(witness + run[0])) == 1]
        assert len(joined) <= 1, f"{run[0]!r} joins {joined}"
        found[joined[0] if joined else "WHITE_SPACE"].update(map(ord, run))
    return found


def ranges(code_points: Iterable[int]) -> list[tuple[int, int]]:
    """The same code points as first-last pairs, both ends included."""
    pairs: list[tuple[int, int]] = []
    for c in sorted(code_points):
        if pairs and pairs[-1][1] == c - 1:
            pairs[-1] = (pairs[-1][0], c)
        else:
            pairs.append((c, c))
    return pairs


def _lines(name: str, code_points: set[int]) -> Iterator[str]:
    yield f'\n{name} = """'
    line = ""
    for first, last in ranges(code_points):
        word = f"{first:x}" if first == last else f"{first:x}-{last:x}"
        if len(line) + 1 + len(word) > 126:
            yield line
            line = ""
        line = f"{line} {word}".lstrip()
    yield line
    yield '"""'


def main() -> None:
    """Print the module; on stderr, how far this Python's own tables are from it."""
    found = classes()
    print(HEADER.format(version=tokenizers.__version__), end="")
    for name in ("LETTERS", "NUMBERS", "WHITE_SPACE"):
        print("\n".join(_lines(name, found[name])))
    for name, initial in (("LETTERS", "L"), ("NUMBERS", "N")):
        here = {c for c in CODE_POINTS if unicodedata.category(chr(c))[0] == initial}
        print(f"{name}: {len(found[name])} code points; unicodedata {unicodedata.unidata_version} differs in "
              f"{len(here ^ found[name])}", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
