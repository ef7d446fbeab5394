r"""LED's tokenizer by definition: character by character, merge by merge, without regular expressions or heap.

It judges led_ref/tokenizer and shares only the table of letters, numbers and white space (unicode_ranges.py) with it.

    >>> split_words("It's  3 o'clock!")
    ['It', "'s", ' ', ' 3', ' o', "'", 'clock', '!']
    >>> merge_word("lowest", {("l", "o"): 0, ("e", "r"): 1, ("lo", "w"): 2, ("low", "er"): 3, ("w", "e"): 4})
    ['low', 'e', 's', 't']

Source: docs/semantics.md, Tokenizer; the split is GPT-2's, the pairs and special tokens are BART's. Inputs are not validated.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from led_ref.tokenizer.unicode_ranges import LETTERS, NUMBERS, WHITE_SPACE

CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


@dataclass(frozen=True)
class Vocabulary:
    """The content of a tokenizer's files: piece -> id, and pair -> its rank in the list of merges, from 0."""

    ids: Mapping[str, int]
    merges: Mapping[tuple[str, str], int]


# ---- text -> words --------------------------------------------------------------------------------------------------


@functools.cache
def character_class(character: str) -> str:
    """One of "letter", "number", "space" and "other"."""
    for name, ranges in (("letter", LETTERS), ("number", NUMBERS), ("space", WHITE_SPACE)):
        for word in ranges.split():
            first, _, last = word.partition("-")
            if int(first, 16) <= ord(character) <= int(last or first, 16):
                return name
    return "other"


def split_words(text: str) -> list[str]:
    r"""Split a text into words: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, without `re`."""
    classes = [character_class(character) for character in text]
    words, i = [], 0
    while i < len(text):
        end = _end_of_word(text, classes, i)
        words.append(text[i:end])
        i = end
    return words


def _end_of_word(text: str, classes: Sequence[str], i: int) -> int:
    """The end of the word that begins at i: the alternatives of the pattern, in order."""
    for contraction in CONTRACTIONS:
        if text.startswith(contraction, i):
            return i + len(contraction)
    begin = i + 1 if text[i] == " " and i + 1 < len(text) else i  # letters, numbers, others can have one space before
    if classes[begin] != "space":
        return _end_of_run(classes, begin)
    end = _end_of_run(classes, i)
    if end < len(text) and end - i > 1:
        return end - 1  # the last of several spaces belongs to the next word
    return end


def _end_of_run(classes: Sequence[str], i: int) -> int:
    end = i
    while end < len(classes) and classes[end] == classes[i]:
        end += 1
    return end


# ---- words -> pieces ------------------------------------------------------------------------------------------------


@functools.cache
def byte_characters() -> tuple[str, ...]:
    """The printable character of each of the 256 bytes.

    A byte with a visible Latin-1 character (! to ~, ¡ to ¬, ® to ÿ) has this character; the others have U+0100, U+0101, ...
    in the order of the bytes.
    """
    characters, hidden = [], 0
    for byte in range(256):
        is_visible = 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF
        characters.append(chr(byte) if is_visible else chr(256 + hidden))
        hidden += not is_visible
    return tuple(characters)


def merge_word(word: str, merges: Mapping[tuple[str, str], int]) -> list[str]:
    """The pieces of a word: merge the leftmost pair of lowest rank until no pair is in the list."""
    characters = byte_characters()
    pieces = [characters[byte] for byte in word.encode("utf-8")]
    while True:
        pairs = list(pairwise(pieces))
        known = [pair for pair in pairs if pair in merges]
        if not known:
            return pieces
        i = pairs.index(min(known, key=merges.__getitem__))
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]


# ---- encode and decode ----------------------------------------------------------------------------------------------


def encode(text: str, vocabulary: Vocabulary, pair: str | None = None, *, specials: bool = True) -> list[int]:
    """The ids of a text, `<s> A </s>`, or of two, `<s> A </s></s> B </s>`; without specials just A, or A B."""
    first, second = _ids(text, vocabulary), None if pair is None else _ids(pair, vocabulary)
    if not specials:
        return first + (second or [])
    begin, end = [vocabulary.ids["<s>"]], [vocabulary.ids["</s>"]]
    ids = begin + first + end
    return ids if second is None else ids + end + second + end


def decode(ids: Sequence[int], vocabulary: Vocabulary, *, skip_specials: bool = False) -> str:
    """The text of ids: the bytes of all pieces decoded as UTF-8, � for invalid bytes."""
    characters = byte_characters()
    pieces = {i: piece for piece, i in vocabulary.ids.items()}
    raw = b""
    for i in ids:
        if pieces[i] in SPECIAL_TOKENS:
            raw += b"" if skip_specials else pieces[i].encode("utf-8")
        else:
            raw += bytes(characters.index(character) for character in pieces[i])
    return raw.decode("utf-8", errors="replace")


def _ids(text: str, vocabulary: Vocabulary) -> list[int]:
    """The ids of a text; special tokens in the text are found first, none are added."""
    ids: list[int] = []
    for stretch in _cut_at_specials(text):
        if stretch in SPECIAL_TOKENS:
            ids.append(vocabulary.ids[stretch])
            continue
        for word in split_words(stretch):
            ids += [vocabulary.ids[piece] for piece in merge_word(word, vocabulary.merges)]
    return ids


def _cut_at_specials(text: str) -> list[str]:
    """The special tokens of a text and the stretches between them. `<mask>` removes the white space before it."""
    stretches, plain, i = [], "", 0
    while i < len(text):
        found = next((token for token in SPECIAL_TOKENS if text.startswith(token, i)), None)
        if found is None:
            plain += text[i]
            i += 1
            continue
        while found == "<mask>" and plain and character_class(plain[-1]) == "space":
            plain = plain[:-1]
        stretches += [plain, found] if plain else [found]
        plain = ""
        i += len(found)
    return [*stretches, plain] if plain else stretches
