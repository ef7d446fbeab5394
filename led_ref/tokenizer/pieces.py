"""What ids are in text, one at a time: their bytes, and text that comes while ids come.

One character may be spread over several ids, so a text that grows id by id must wait for the rest of it:

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
from collections.abc import Iterable, Iterator

from led_ref.tokenizer.bpe import from_printable
from led_ref.tokenizer.tokenizer import LEDTokenizer


def token_bytes(tokenizer: LEDTokenizer, token_id: int) -> bytes:
    """The bytes that an id stands for; a special token's are those of its name.

    Raises:
        InputError: for an id that the vocabulary does not have.
    """
    return from_printable(tokenizer.convert_ids_to_tokens(token_id))


def text_pieces(tokenizer: LEDTokenizer, token_ids: Iterable[int]) -> Iterator[str]:
    """Text as its ids come: pieces that together are `decode(ids, skip_special_tokens=True).strip()`.

    No piece ends inside a character, and none is empty. Blanks wait for what follows them, because at the end they go.

    Args:
        tokenizer: whose ids these are.
        token_ids: read one at a time, as they come.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # keeps the beginning of a character back
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
