r"""Byte-level byte-pair encoding (BPE): a text to words, and a word to pieces of the vocabulary, by merges in order of rank.

Pre-tokenization comes first, as in GPT-2. BPE merges inside a word, never across two:

    >>> split("It's  3 o'clock, 寿司!")
    ['It', "'s", ' ', ' 3', ' o', "'", 'clock', ',', ' 寿司', '!']

A word is a match of this pattern, from left to right (from the published code of GPT-2, Radford et al. 2019):

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

that is: an English contraction; letters, numbers or other signs, each with at most one space before them; or white
space. Before a word, `\s+(?!\S)` matches white space without its last character. If that last one is a space, it belongs to
the word: above, the first of two spaces is a word and the second belongs to ' 3'.

There is no normalization (é as one code point and as e + accent are two different texts), and no segmentation of languages
without spaces: a Chinese sentence is one word up to its next punctuation mark.

The idea of BPE (Sennrich et al. 2016, arXiv 1508.07909; over bytes: Radford et al. 2019): training of the vocabulary begins
with single bytes, and merges again and again the most frequent pair of neighbours in a large text. The result is the list
of merges in this order. Tokenizing a word repeats them:

    >>> ranks = {("l", "o"): 0, ("e", "r"): 1, ("lo", "w"): 2, ("low", "er"): 3, ("w", "e"): 4}
    >>> merge(list("lowest"), ranks)
    ['low', 'e', 's', 't']

Step by step: of the pairs in l o w e s t, three are in the list: (l, o) of rank 0, and (w, e) of rank 4. The lowest rank
goes first: lo w e s t. Now (lo, w) has rank 2, still before (w, e): low e s t. None of (low, e), (e, s), (s, t) is in
the list, so that is the end. Had (w, e) come first, the word would have become lo we s t: the order is the tokenizer.

Every byte is in the vocabulary, so no text is unknown. 256 printable characters stand for the bytes, so that vocab.json
and merges.txt are readable text; a space becomes Ġ:

    >>> to_printable(" é"), from_printable("ĠÃ©").decode()
    ('ĠÃ©', ' é')
"""

import heapq
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from led_ref.tokenizer.unicode_ranges import LETTERS, NUMBERS, WHITE_SPACE

Pair = tuple[str, str]

# Words up to this many bytes are merged by the definition. Longer ones are rare, but must not take quadratic time (a
# megabyte of one letter is a text, too).
_SHORT = 48
# The cache holds no long words, which rarely repeat, and is bounded.
_LONGEST_REMEMBERED = 256
_MOST_REMEMBERED = 100_000


# ---- text -> words ------------------------------------------------------------------------------------------------------


def character_class(ranges: str) -> str:
    """The inside of a regular expression's `[...]` for ranges of code points in hexadecimal: "41-5a aa" is A to Z and ª."""
    ends = (word.split("-") for word in ranges.split())
    return "".join("-".join(f"\\U{int(end, 16):08x}" for end in pair) for pair in ends)


# Python's `re` has no `\p{L}`, and its `\s` matches U+001C...U+001F, which are no white space in Unicode.
_L, _N, _S = character_class(LETTERS), character_class(NUMBERS), character_class(WHITE_SPACE)

# `(?![^S])` is the pattern's `(?!\S)`: the next character is white space, or the text ends.
WORD = re.compile(f"'(?:[stmd]|re|ve|ll)| ?[{_L}]+| ?[{_N}]+| ?[^{_S}{_L}{_N}]+|[{_S}]+(?![^{_S}])|[{_S}]+")

# The 25 white-space characters themselves; `str.isspace` counts four more.
WHITE_SPACE_CHARACTERS = frozenset(re.findall(f"[{_S}]", "".join(map(chr, range(0x3001)))))


def split(text: str) -> list[str]:
    """The words of a text, in order; joined they are the text again."""
    return WORD.findall(text)


# ---- word -> bytes ------------------------------------------------------------------------------------------------------


def _printable_bytes() -> dict[int, str]:
    """The character of each byte: itself if visible, else one from U+0100 on, in order."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    stands_for = {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return dict(sorted(stands_for.items()))


BYTE_TO_CHARACTER = _printable_bytes()
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}

# The bytes that UTF-8 can contain: all but C0, C1 and F5...FF. A vocabulary must have them all.
UTF8_BYTES = (*range(0xC0), *range(0xC2, 0xF5))


def to_printable(text: str) -> str:
    """The UTF-8 bytes of a text, one printable character per byte."""
    # In Latin-1, byte b is code point b, so that `translate` maps bytes.
    return text.encode("utf-8").decode("latin-1").translate(BYTE_TO_CHARACTER)


def from_printable(piece: str) -> bytes:
    """The bytes of a piece; its UTF-8 if a character stands for no byte (an added token such as "→")."""
    try:
        return bytes(CHARACTER_TO_BYTE[character] for character in piece)
    except KeyError:
        return piece.encode("utf-8")


# ---- bytes -> pieces ----------------------------------------------------------------------------------------------------


def merge(pieces: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Merge the pair of lowest rank, the leftmost of equal ones, until no pair is in the list: the definition of BPE.

    It compares every pair before every merge, so it takes quadratic time.

    Args:
        pieces: the bytes of one word, as printable characters.
        ranks: the position of each pair in the list of merges, from 0.

    Example:
        >>> merge(list("aaaaa"), {("a", "a"): 0, ("aa", "aa"): 1})
        ['aaaa', 'a']
    """
    pieces = list(pieces)
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not found:
            return pieces
        _, i = min(found)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def merge_long(pieces: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """The same result as `merge` in n log n: a heap holds the pairs, and a merge adds its two new pairs.

    After a merge, the left position holds the joined piece and the right one "". A pair in the heap whose halves have
    changed stays there; it is recognised and skipped when it is popped.

    Example:
        >>> merge_long(list("aaaaa"), {("a", "a"): 0, ("aa", "aa"): 1})
        ['aaaa', 'a']
    """
    pieces = list(pieces)
    before = [i - 1 for i in range(len(pieces))]  # the left neighbour; -1: none
    after = [i + 1 for i in range(len(pieces))]  # the right neighbour; len(pieces): none
    heap: list[tuple[int, int, Pair]] = []

    def push_pair(i: int) -> None:
        """Push the pair that begins at position i, if it is in the list of merges."""
        if i >= 0 and after[i] < len(pieces):
            pair = pieces[i], pieces[after[i]]
            if pair in ranks:
                heapq.heappush(heap, (ranks[pair], i, pair))

    for i in range(len(pieces)):
        push_pair(i)
    while heap:
        _, i, pair = heapq.heappop(heap)
        right = after[i]
        if right == len(pieces) or (pieces[i], pieces[right]) != pair:
            continue  # one of the two has been merged with its other neighbour
        pieces[i], pieces[right] = pair[0] + pair[1], ""
        after[i] = after[right]
        if after[i] < len(pieces):
            before[after[i]] = i
        push_pair(before[i])
        push_pair(i)
    return [piece for piece in pieces if piece]


class WordPieces(dict[str, tuple[int, ...]]):
    """A cache of the ids of words: `WordPieces(...)[" lower"]` is a tuple of ids, computed at the first look-up.

    Most words of a text repeat and cost one look-up, which makes Python fast enough. A full cache is emptied.

    Args:
        vocab: piece -> id.
        ranks: pair of pieces -> position in the list of merges.

    Example:
        >>> words = WordPieces({"l": 0, "o": 1, "w": 2, "lo": 3, "Ġ": 4}, {("l", "o"): 0})
        >>> words["low"], words[" lo"]
        ((3, 2), (4, 3))
    """

    def __init__(self, vocab: Mapping[str, int], ranks: Mapping[Pair, int]) -> None:
        super().__init__()
        self._vocab = vocab
        self._ranks = ranks

    def pieces(self, word: str) -> list[str]:
        """The pieces of one word, as printable characters."""
        printable = to_printable(word)
        return (merge if len(printable) <= _SHORT else merge_long)(printable, self._ranks)

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._vocab[piece] for piece in self.pieces(word))
        if len(word) <= _LONGEST_REMEMBERED:
            if len(self) >= _MOST_REMEMBERED:
                self.clear()
            self[word] = ids
        return ids
