"""Decoding beside `decode`: the bytes of one id, ids without a piece, and pieces of text while ids are generated.

A character can consist of several ids, so its text must wait for all of them:

    >>> from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER
    >>> from led_ref.tokenizer import LEDTokenizer
    >>> vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 260}
    >>> vocab |= {character: 4 + byte for byte, character in BYTE_TO_CHARACTER.items()}
    >>> tokenizer = LEDTokenizer(vocab, [])
    >>> ids = tokenizer("né !")["input_ids"]
    >>> len(ids) - 2, list(text_pieces(tokenizer, ids))
    (5, ['n', 'é', ' !'])
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from led_ref.tokenizer.bpe import from_printable
from led_ref.tokenizer.tokenizer import LEDTokenizer


def token_bytes(tokenizer: LEDTokenizer, token_id: int) -> bytes:
    """The bytes of an id; those of a special token's name. InputError for an id outside the vocabulary."""
    return from_printable(tokenizer.convert_ids_to_tokens(token_id))


def readable(tokenizer: LEDTokenizer, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
    """`decode`, with a mark such as `<id 4099>` for an id that the tokenizer does not have."""
    return "".join(
        tokenizer.decode(run, skip_special_tokens=skip_special_tokens)
        if is_known
        else "".join(f"<id {token_id}>" for token_id in run)
        for is_known, run in groupby(token_ids, key=tokenizer.has_id)
    )


def text_pieces(tokenizer: LEDTokenizer, token_ids: Iterable[int]) -> Iterator[str]:
    """Pieces of text during generation; their concatenation is `decode(ids, skip_special_tokens=True).strip()`.

    No piece is empty or ends inside a character. White space waits for the next text, because the end is stripped.

    Args:
        tokenizer: decodes the ids.
        token_ids: an iterator, read one id at a time.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # keeps an incomplete character
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
            yield from ready(decoder.decode(token_bytes(tokenizer, token_id)))
    yield from ready(decoder.decode(b"", final=True))
