r"""Pre-tokenization: split a text into words, as GPT-2 does. BPE merges inside a word, never across two.

    >>> split("It's  3 o'clock, 寿司!")
    ['It', "'s", ' ', ' 3', ' o', "'", 'clock', ',', ' 寿司', '!']

A word is a match of this pattern, from left to right (from the published code of GPT-2, Radford et al. 2019):

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

that is: an English contraction; letters, numbers or other signs, each with at most one space before them; or white
space. Before a word, `\s+(?!\S)` matches white space without its last character. If that last one is a space, it belongs to
the word: above, the first of two spaces is a word and the second belongs to ' 3'.

Python's `re` has no `\p{L}`, and its `\s` matches U+001C...U+001F, which are no white space in Unicode. So the classes are
written out, from the table in unicode_ranges.py. The concatenation of the words is the text.

There is no normalization (é as one code point and as e + accent are two different texts), and no segmentation of languages
without spaces: a Chinese sentence is one word up to its next punctuation mark.
"""

import re

from led_ref.tokenizer.unicode_ranges import LETTERS, NUMBERS, WHITE_SPACE


def character_class(ranges: str) -> str:
    r"""The inside of a `[...]` of a regular expression that matches these ranges of code points.

    Args:
        ranges: words like "41-5a" or "aa", hexadecimal, separated by white space.

    Example:
        >>> character_class("41-5a aa")
        '\\U00000041-\\U0000005a\\U000000aa'
    """
    ends = (word.split("-") for word in ranges.split())
    return "".join("-".join(f"\\U{int(end, 16):08x}" for end in pair) for pair in ends)


_L, _N, _S = character_class(LETTERS), character_class(NUMBERS), character_class(WHITE_SPACE)

# `(?![^S])` is the pattern's `(?!\S)`: the next character is white space, or the text ends.
WORD = re.compile(f"'(?:[stmd]|re|ve|ll)| ?[{_L}]+| ?[{_N}]+| ?[^{_S}{_L}{_N}]+|[{_S}]+(?![^{_S}])|[{_S}]+")

# The 25 white-space characters themselves; `str.isspace` counts four more.
WHITE_SPACE_CHARACTERS = frozenset(re.findall(f"[{_S}]", "".join(map(chr, range(0x3001)))))


def split(text: str) -> list[str]:
    r"""The words of a text, in order; joined they are the text again.

    Example:
        >>> split("Hello world\n")
        ['Hello', ' world', '\n']
    """
    return WORD.findall(text)
