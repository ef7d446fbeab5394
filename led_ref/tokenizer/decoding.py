"""Ids to text: the bytes of each id, decoded as UTF-8 together; whole, and piece by piece while ids are generated.

A piece of the vocabulary is spelled with one printable character for each byte, an added token with the letters it stands for.
So the bytes of an added token are those of its letters. One kind is both: a token "é" that the vocabulary also has, as the
byte E9. Its id is a byte where that byte belongs to a character, and the letter elsewhere:

    >>> table = ByteTable({"é": 0, "¯": 1, "¿": 2, "x": 3}, {"é": 0, "größe": 4})
    >>> [table.decode(ids) for ids in ([0], [3, 0, 3], [4], [0, 1, 2])]
    ['é', 'xéx', 'größe', '鯿']

A character can consist of several ids, so a stream of text waits for all of them:

    >>> from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER
    >>> from led_ref.tokenizer import LEDTokenizer
    >>> vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 260}
    >>> vocab |= {character: 4 + byte for byte, character in BYTE_TO_CHARACTER.items()}
    >>> tokenizer = LEDTokenizer(vocab, [])
    >>> ids = tokenizer("né !")["input_ids"]
    >>> len(ids) - 2, list(text_pieces(tokenizer, ids))
    (5, ['n', 'é', ' !'])
"""

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import wraps
from itertools import groupby
from typing import Any, TypeVar, overload

import numpy as np

from led_ref.errors import InputError, items_of, quoted, wrong_call, wrong_type
from led_ref.tokenizer.batch import check_booleans
from led_ref.tokenizer.bpe import from_printable

Function = TypeVar("Function", bound=Callable[..., Any])

_LONGEST = 4  # bytes of a character in UTF-8


def known_arguments(function: Function) -> Function:
    """A decorator: the error for an argument that the function does not have names the one that is meant.

    Raises:
        ArgumentTypeError: as `wrong_call`; other errors of the function as they are.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except TypeError:
            try:
                signature.bind(*arguments, **named)
            except TypeError as error:
                raise wrong_call(function.__qualname__, signature.parameters, named, error) from None
            raise

    return called  # type: ignore[return-value]


class ByteTable:
    """The bytes of every id.

    Args:
        vocab: piece -> id.
        added: text of an added token -> id.
    """

    def __init__(self, vocab: Mapping[str, int], added: Mapping[str, int]) -> None:
        self._bytes_of = {i: from_printable(piece) for piece, i in vocab.items()}
        self._bytes_of |= {i: text.encode("utf-8") for text, i in added.items() if text not in vocab}
        # Added tokens of one letter that the vocabulary has as a byte which is no character by itself.
        self._letter_of = {
            i: text for text, i in added.items() if text in vocab and len(text) == 1 and self._bytes_of[i][0] >= 0x80
        }

    def __getitem__(self, token_id: int) -> bytes:
        """The bytes of an id by itself."""
        letter = self._letter_of.get(token_id)
        return self._bytes_of[token_id] if letter is None else letter.encode()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, with � for invalid bytes."""
        return self.text_bytes(ids).decode("utf-8", errors="replace")

    def text_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the text of ids: where an id is a letter and not a byte, those of the letter."""
        return join_bytes((self._bytes_of[i], self._letter_of.get(i)) for i in ids)

    def of_tokens(self, tokens: Iterable[str], id_of: Mapping[str, int]) -> bytes:
        """The bytes of the text of pieces; those without an id are spelled as in a vocabulary."""
        ids = ((token, id_of.get(token, -1)) for token in tokens)
        return join_bytes((self._bytes_of[i] if i >= 0 else from_printable(t), self._letter_of.get(i)) for t, i in ids)

    def stream(self) -> "TextStream":
        """A decoder that takes one id after the other."""
        return TextStream(self._bytes_of, self._letter_of)


class TextStream:
    """Text from ids, one at a time; bytes of a character that is not complete wait for the next id."""

    def __init__(self, bytes_of: Mapping[int, bytes], letter_of: Mapping[int, str]) -> None:
        self._bytes_of, self._letter_of = bytes_of, letter_of
        self._waiting = b""
        self._letters: dict[int, str] = {}  # place in `_waiting` -> the letter that this byte may be

    def take(self, token_id: int) -> str:
        """The text that is complete with this id."""
        if token_id in self._letter_of:
            self._letters[len(self._waiting)] = self._letter_of[token_id]
        self._waiting += self._bytes_of[token_id]
        return self._text_up_to(len(self._waiting) - _incomplete(self._waiting))

    def rest(self) -> str:
        """What waits still, as it is."""
        return self._text_up_to(len(self._waiting))

    def _text_up_to(self, end: int) -> str:
        data, letters = self._waiting[:end], self._letters
        self._waiting = self._waiting[end:]
        self._letters = {place - end: letter for place, letter in letters.items() if place >= end}
        now = {place: letter for place, letter in letters.items() if place < end}
        return _with_letters(data, now).decode("utf-8", errors="replace")


def join_bytes(pieces: Iterable[tuple[bytes, str | None]]) -> bytes:
    """The bytes of pieces together; a piece that may be a letter, too, is one where its byte is no part of a character.

    Args:
        pieces: the bytes of each, and the letter that it may be.
    """
    data, letters = bytearray(), {}
    for some, letter in pieces:
        if letter is not None:
            letters[len(data)] = letter
        data += some
    return _with_letters(bytes(data), letters)


def _with_letters(data: bytes, letters: Mapping[int, str]) -> bytes:
    """The bytes with letters in place of those, by place, that belong to no character."""
    parts, begin = [], 0
    for place, letter in letters.items():
        if not _belongs_to_a_character(data, place):
            parts += [data[begin:place], letter.encode()]
            begin = place + 1
    return b"".join([*parts, data[begin:]])


def _incomplete(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character: 0 to 3."""
    for length in range(1, min(_LONGEST, len(data) + 1)):
        first = data[-length]
        if first >= 0xC0:  # begins a character of 2 to 4 bytes
            return length if length < _length_of(first) and _may_go_on(data[-length:]) else 0
        if first < 0x80:
            break
    return 0


def _length_of(first: int) -> int:
    """The bytes of the character that a byte begins."""
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def _may_go_on(data: bytes) -> bool:
    """Whether some bytes are the beginning of a valid character."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _belongs_to_a_character(data: bytes, place: int) -> bool:
    """Whether a byte is a part of a valid character of several bytes."""
    for start in range(max(0, place - _LONGEST + 1), place + 1):
        stop = start + _length_of(data[start])
        if data[start] >= 0xC0 and place < stop <= len(data) and _is_valid(data[start:stop]):
            return True
    return False


def _is_valid(data: Sequence[int]) -> bool:
    try:
        bytes(data).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class FromIds:
    """Ids to text and to pieces; the subclass LEDTokenizer fills the tables."""

    _id_of: Mapping[str, int]  # piece -> id
    _piece_of: Mapping[int, str]  # id -> piece
    _special_ids: frozenset[int]
    _bytes: ByteTable
    unk_token_id: int

    def has_id(self, token_id: int) -> bool:
        """Whether the vocabulary has an id: a model's may have more of them."""
        return token_id in self._piece_of

    @known_arguments
    def decode(
        self,
        token_ids: int | Iterable[int],
        skip_special_tokens: bool = False,
        *,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """The text of ids: all their bytes decoded as UTF-8, with � for invalid bytes.

        Args:
            token_ids: ids, or one id.
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: has no effect, as in transformers 5: decoding gives back the encoded text.

        Raises:
            InputError: for ids outside the vocabulary, and for values that are no whole numbers.
        """
        check_booleans(skip_special_tokens=skip_special_tokens)
        skipped = self._special_ids if skip_special_tokens else ()
        return self._bytes.decode([i for i in self._checked_ids(token_ids) if i not in skipped])

    @known_arguments
    def batch_decode(
        self,
        sequences: Iterable[Iterable[int]],
        skip_special_tokens: bool = False,
        *,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """`decode` of each row; one id is a row, too."""
        check_booleans(skip_special_tokens=skip_special_tokens)
        rows = [self._checked_ids(row, f"sequences[{i}]") for i, row in enumerate(_as_list(sequences, "sequences"))]
        return [self.decode(row, skip_special_tokens) for row in rows]

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: Iterable[int], skip_special_tokens: bool = False) -> list[str]: ...
    def convert_ids_to_tokens(self, ids: int | Iterable[int], skip_special_tokens: bool = False) -> str | list[str]:
        """The piece of an id, or the pieces of ids, in the vocabulary's spelling; errors as in `decode`."""
        check_booleans(skip_special_tokens=skip_special_tokens)
        checked = self._checked_ids(ids)
        if not isinstance(ids, Iterable):
            return self._piece_of[checked[0]]
        skipped = self._special_ids if skip_special_tokens else ()
        return [self._piece_of[i] for i in checked if i not in skipped]

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...
    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        """The id of a piece, or the ids of pieces, in the vocabulary's spelling; unk for unknown pieces."""
        if isinstance(tokens, str):
            return self._id_of.get(tokens, self.unk_token_id)
        if not isinstance(tokens, list | tuple) or not all(isinstance(token, str) for token in tokens):
            raise wrong_type("tokens", tokens, "a piece, or a list of pieces")
        return [self._id_of.get(token, self.unk_token_id) for token in tokens]

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        """The text of pieces; those that the tokenizer does not know are spelled as in a vocabulary."""
        pieces = items_of("tokens", tokens, "a list of pieces")
        if not all(isinstance(piece, str) for piece in pieces):
            raise wrong_type("tokens", pieces, "a list of pieces")
        return self._bytes.of_tokens(pieces, self._id_of).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of an id; those of a special token's name. InputError for an id outside the vocabulary."""
        ids = self._checked_ids(token_id, "token_id")
        if len(ids) != 1:
            raise wrong_type("token_id", token_id, "one id; text_bytes takes several")
        return self._bytes[ids[0]]

    def text_bytes(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of the text of ids, special tokens included: `decode(ids)` before UTF-8; errors as in `decode`."""
        return self._bytes.text_bytes(self._checked_ids(token_ids))

    def text_stream(self) -> TextStream:
        """A decoder that takes ids one at a time, and gives their text as soon as its characters are complete."""
        return self._bytes.stream()

    def _checked_ids(self, ids: Any, name: str = "token_ids") -> list[int]:
        """The ids as a list of int, after a check that the vocabulary has them."""
        checked = []
        for place, value in enumerate(_as_list(ids, name)):
            try:
                i = operator.index(value)
            except TypeError:
                i = None
            if i is None or isinstance(value, bool | np.bool_):
                raise InputError(
                    f"Position {place} holds {quoted(value, 60)}, a {type(value).__name__}, not an id, a whole number. "
                    "For rows of ids use batch_decode; cast floats back to integers."
                )
            if i not in self._piece_of:
                raise InputError(
                    f"Position {place} holds the id {i}, which this vocabulary of {len(self._piece_of)} does not have "
                    f"(ids lie in 0 ... {max(self._piece_of)}). Ids of another model's tokenizer? "
                    "Replace -100 of labels by pad_token_id."
                )
            checked.append(i)
        return checked


def _as_list(ids: Any, name: str = "token_ids") -> list[Any]:
    """Ids as a list, in their order: of a list, an array, another library's tensor, an iterator; or one id.

    Raises:
        ArgumentTypeError: for what has no order or holds no ids: a text, bytes, a set, a mapping, a masked array.
    """
    if isinstance(ids, np.ma.MaskedArray | str | bytes | bytearray | Set | Mapping) or ids is None:
        raise wrong_type(name, ids, "ids, as a list or an array")
    if hasattr(ids, "tolist"):  # an array, or another library's tensor
        values = ids.tolist()
        return values if isinstance(values, list) else [values]
    return list(ids) if isinstance(ids, Iterable) else [ids]


def readable(tokenizer: FromIds, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    """`decode`, with a mark such as `<id 4099>` for an id that the tokenizer does not have."""
    return "".join(
        tokenizer.decode(run, skip_special_tokens=skip_special_tokens)
        if is_known
        else "".join(f"<id {token_id}>" for token_id in run)
        for is_known, run in ((known, list(ids)) for known, ids in groupby(token_ids, key=tokenizer.has_id))
    )


def text_pieces(tokenizer: FromIds, token_ids: Iterable[int]) -> Iterator[str]:
    """Pieces of text during generation; their concatenation is `decode(ids, skip_special_tokens=True).strip()`.

    No piece is empty or ends inside a character. White space waits for the next text, because the end is stripped.

    Args:
        tokenizer: decodes the ids.
        token_ids: an iterator, read one id at a time.
    """
    stream = tokenizer.text_stream()  # keeps an incomplete character
    waiting = ""
    has_begun = False

    def ready(text: str) -> Iterator[str]:
        nonlocal waiting, has_begun
        text = waiting + text if has_begun else (waiting + text).lstrip()
        piece = text.rstrip()
        waiting = text[len(piece) :]
        if piece:
            has_begun = True
            yield piece

    for token_id in token_ids:
        if tokenizer.convert_ids_to_tokens([token_id], skip_special_tokens=True):
            yield from ready(stream.take(token_id))
    yield from ready(stream.rest())
