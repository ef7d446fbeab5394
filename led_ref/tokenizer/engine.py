"""Encoding, text -> ids, with offsets: a readable engine, and the `tokenizers` library.

Tests compare the two on every kind of text. Both find added tokens; tokenizer.py and batch.py add `<s>` and `</s>`,
truncate and pad, for both.

    >>> from led_ref.tokenizer.bpe import CHARACTER_TO_BYTE
    >>> engine = PythonEngine(CHARACTER_TO_BYTE | {"hi": 256}, {("h", "i"): 0}, {AddedToken("</s>", special=True): 257})
    >>> engine.encode_with_offsets("hi é</s>")
    ([256, 32, 195, 169, 257], [(0, 2), (3, 3), (3, 4), (3, 4), (4, 8)])

Offsets are (start, end) in characters of the text: text[start:end] is the text of a piece, except that
    - the spaces at the beginning and end of a piece are left out: the lone space above has (3, 3);
    - a piece with a part of a character has the whole character: é is two bytes, here two pieces, and both have (3, 4).
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate, chain

from led_ref.tokenizer.bpe import WHITE_SPACE_CHARACTERS, WORD, Pair, WordPieces, split
from led_ref.tokenizer.specials import AddedToken, AddedTokenFinder

Offsets = tuple[int, int]
Encoded = tuple[list[int], list[Offsets]]
_SPACES = "".join(WHITE_SPACE_CHARACTERS) + "Ġ"  # a space, in a piece


class PythonEngine:
    """The readable engine. The tokenizer has validated texts (no lone surrogates) and ids (in the vocabulary).

    Args:
        vocab: piece -> id.
        ranks: pair of pieces -> its position in the list of merges.
        added: added token -> id, in the order of ids.
    """

    def __init__(self, vocab: Mapping[str, int], ranks: Mapping[Pair, int], added: Mapping[AddedToken, int]) -> None:
        self._added = dict(added)
        self._finder = AddedTokenFinder(list(added))
        self._words = WordPieces(vocab, ranks)
        self._piece_of = {i: piece for piece, i in vocab.items()} | {i: token.content for token, i in added.items()}
        # One cache for each engine: the pieces of a word depend on the vocabulary.
        self._offsets_in = lru_cache(maxsize=100_000)(self._offsets_in_word)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ids: list[int] = []
        for span in self._finder.find(text):
            if span.token:
                ids.append(self._added[span.token])
            else:
                ids.extend(chain.from_iterable(map(self._words.__getitem__, split(text[span.start : span.end]))))
        return ids

    def encode_with_offsets(self, text: str) -> Encoded:
        """The ids of a text, and the offset (start, end) of each."""
        ids: list[int] = []
        offsets: list[Offsets] = []
        for span in self._finder.find(text):
            if span.token:
                ids.append(self._added[span.token])
                offsets.append(_trimmed(text[span.start : span.end], span.start, span.end))
                continue
            for match in WORD.finditer(text, span.start, span.end):
                word, begin = match.group(), match.start()
                ids.extend(self._words[word])
                offsets.extend((begin + start, begin + end) for start, end in self._offsets_in(word))
        return ids, offsets

    def _offsets_in_word(self, word: str) -> list[Offsets]:
        """The offsets of a word's pieces, counted from the word's first character."""
        character_of_byte = [i for i, character in enumerate(word) for _ in character.encode("utf-8")]
        pieces = [self._piece_of[i] for i in self._words[word]]
        ends = list(accumulate(map(len, pieces)))  # a piece has one printable character for each byte
        return [
            _trimmed(piece, character_of_byte[end - len(piece)], character_of_byte[end - 1] + 1)
            for piece, end in zip(pieces, ends, strict=True)
        ]


class RustEngine:
    """The same by the `tokenizers` library, which is imported only here. Arguments as in PythonEngine."""

    def __init__(self, vocab: Mapping[str, int], ranks: Mapping[Pair, int], added: Mapping[AddedToken, int]) -> None:
        from tokenizers import AddedToken as RustAddedToken
        from tokenizers import Tokenizer, models, pre_tokenizers, processors

        # The library numbers added tokens on from the vocabulary, without a gap. As pieces of the vocabulary they keep the
        # ids of their file; no merge makes them.
        pieces = dict(vocab) | {token.content: i for token, i in added.items()}
        self._rust = Tokenizer(models.BPE(vocab=pieces, merges=sorted(ranks, key=ranks.__getitem__)))
        self._rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._rust.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
        # All at once: the library builds its search for them anew at each call.
        self._rust.add_tokens(
            [
                RustAddedToken(
                    token.content,
                    special=token.special,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                )
                for token in added
            ]
        )

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        return ids

    def encode_with_offsets(self, text: str) -> Encoded:
        """The ids of a text, and the offset (start, end) of each."""
        encoding = self._rust.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets


Engine = PythonEngine | RustEngine
ENGINES: Mapping[str, type[Engine]] = {"python": PythonEngine, "rust": RustEngine}


def _trimmed(piece: str, start: int, end: int) -> Offsets:
    """The offsets of a piece without its white space at both ends; start never exceeds end."""
    leading = len(piece) - len(piece.lstrip(_SPACES))
    trailing = len(piece) - len(piece.rstrip(_SPACES))
    start = min(start + leading, end)
    return start, max(end - trailing, start)
