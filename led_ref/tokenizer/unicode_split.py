r"""Cut a text into words, as GPT-2 does: BPE then works inside each word and never merges across two of them.

    >>> split("It's  3 o'clock, 寿司!")
    ['It', "'s", ' ', ' 3', ' o', "'", 'clock', ',', ' 寿司', '!']

A word is what this pattern takes, from left to right (GPT-2's, Radford et al. 2019, in its published code):

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

that is: an English contraction; letters, numbers or other signs, each with at most one space before them; or white
space. `\s+(?!\S)` takes all of a white space but its last character if a word follows, so that this last one, if it is a
space, goes to the word: above, the first of two spaces stands alone and the second belongs to ' 3'.

Python's `re` knows no `\p{L}`, and its `\s` takes U+001C...U+001F for white space, which Unicode does not. So the
classes are written out, from the table in unicode_ranges.py. Nothing is lost: the words joined are the text.

What this does not do: it does not normalise (é as one code point and as e + accent stay two different texts), and it
knows no words of languages that write none; a Chinese sentence is one word up to its next punctuation mark.
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

# `(?![^S])` is the pattern's `(?!\S)`: no character that is not white space comes next.
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
