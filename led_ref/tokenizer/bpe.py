"""Byte-level BPE: from a word to the pieces that the vocabulary has a name for.

The idea (Sennrich et al. 2016, arXiv 1508.07909; over bytes: Radford et al. 2019): whoever made the vocabulary began with
single bytes and wrote down, again and again, the pair of neighbours that was most frequent in a large text. That list of
merges, in the order in which they were found, is all there is to know. A word is tokenized by repeating them:

    >>> ranks = {("l", "o"): 0, ("e", "r"): 1, ("lo", "w"): 2, ("low", "er"): 3, ("w", "e"): 4}
    >>> merge(list("lowest"), ranks)
    ['low', 'e', 's', 't']

Step by step: of the pairs in l o w e s t, three are in the list: (l, o) of rank 0, and (w, e) of rank 4. The lowest rank
goes first: lo w e s t. Now (lo, w) has rank 2, still before (w, e): low e s t. None of (low, e), (e, s), (s, t) is in
the list, so that is the end. Had (w, e) come first, the word would have become lo we s t: the order is the tokenizer.

Since every byte is in the vocabulary, no text is ever unknown. Bytes are written as 256 printable characters, so that
vocab.json and merges.txt are readable text; a space becomes Ġ:

    >>> to_printable(" é"), from_printable("ĠÃ©").decode()
    ('ĠÃ©', ' é')

What this does not do: it learns no merges, and it has no dropout.
"""

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise

Pair = tuple[str, str]

# Words up to this many bytes are merged by the plain definition; of longer ones a text has few, but they must not take
# quadratic time (a megabyte of one letter is a text, too).
_SHORT = 48
# Nothing is gained from remembering rare long words, and a cache must not grow with everything that was ever read.
_LONGEST_REMEMBERED = 256
_MOST_REMEMBERED = 100_000


def _printable_bytes() -> dict[int, str]:
    """The character that stands for each byte: itself where that can be seen, else one from U+0100 on, in order."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    stands_for = {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return dict(sorted(stands_for.items()))


BYTE_TO_CHARACTER = _printable_bytes()
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}

# The bytes that UTF-8 can contain: all but C0, C1 and F5...FF. A vocabulary without one of them would lose text.
UTF8_BYTES = (*range(0xC0), *range(0xC2, 0xF5))


def to_printable(text: str) -> str:
    """The UTF-8 bytes of a text, one printable character per byte."""
    # Latin-1 is the encoding in which byte b is code point b, so that `translate` sees the bytes.
    return text.encode("utf-8").decode("latin-1").translate(BYTE_TO_CHARACTER)


def from_printable(piece: str) -> bytes:
    """The bytes that a piece stands for.

    A piece with a character that stands for no byte (an added token such as "→") is its own UTF-8.
    """
    try:
        return bytes(CHARACTER_TO_BYTE[character] for character in piece)
    except KeyError:
        return piece.encode("utf-8")


def merge(pieces: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Join neighbours, the pair of lowest rank first and the leftmost among equals, until no pair is in the list.

    This is the definition of BPE. It looks at every pair before every merge, so it takes quadratic time.

    Args:
        pieces: the bytes of one word, as printable characters.
        ranks: the place of each pair in the list of merges, 0 first.

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
    """What `merge` gives, in n log n: the pairs wait in a heap, and a merge looks only at its two new neighbours.

    A merged pair's left place holds the joined piece and its right place holds "" from then on. Pairs in the heap are
    not taken out when one of their halves has changed; they are recognised when their turn comes, and passed over.

    Example:
        >>> merge_long(list("aaaaa"), {("a", "a"): 0, ("aa", "aa"): 1})
        ['aaaa', 'a']
    """
    pieces = list(pieces)
    before = [i - 1 for i in range(len(pieces))]  # the living neighbour on the left; -1: none
    after = [i + 1 for i in range(len(pieces))]  # the living neighbour on the right; len(pieces): none
    waiting: list[tuple[int, int, Pair]] = []

    def look_at(i: int) -> None:
        """Let the pair that begins at place i wait for its turn, if it is in the list of merges."""
        if i >= 0 and after[i] < len(pieces):
            pair = pieces[i], pieces[after[i]]
            if pair in ranks:
                heapq.heappush(waiting, (ranks[pair], i, pair))

    for i in range(len(pieces)):
        look_at(i)
    while waiting:
        _, i, pair = heapq.heappop(waiting)
        right = after[i]
        if right == len(pieces) or (pieces[i], pieces[right]) != pair:
            continue  # one of the two was merged with its other neighbour meanwhile
        pieces[i], pieces[right] = pair[0] + pair[1], ""
        after[i] = after[right]
        if after[i] < len(pieces):
            before[after[i]] = i
        look_at(before[i])
        look_at(i)
    return [piece for piece in pieces if piece]


class WordPieces(dict[str, tuple[int, ...]]):
    """The ids of words: a dictionary that works out what it does not hold. `WordPieces(...)[" lower"]` is a tuple of ids.

    Nearly every word of a text was seen before, so nearly every word costs one look-up; that is what makes Python fast
    enough here. The dictionary is emptied when it is full; what it gives never depends on what it holds.

    Args:
        vocab: piece -> id.
        ranks: pair of pieces -> place in the list of merges.

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
