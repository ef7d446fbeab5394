"""Documents that are longer than a model reads, in pieces that overlap.

    tokens   0 ......................................................... N
    piece 0  [ as many as fit, up to the end of a sentence )
    piece 1                        [ overlap | ... )
    piece 2                                              [ overlap | ... )

A piece ends where a sentence ends, if one ends in its second half; else where a word ends; else anywhere. The next one begins
where a sentence begins, at most `overlap` tokens before. The pieces are ranges of the tokens of the whole document, which is
tokenized once: so every token is in a piece, and each has the place in the text that it has in the whole.

What is done with the pieces is a strategy of a name. "join": each piece is summarized, and the summaries are put one under the
other. "again": these are then summarized together, and if they are too long again, in pieces again.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from led_ref.errors import InputError, SettingsError, quoted
from led_ref.pipelines.loading import Document, GlobalAttention, TextPipeline

Item = TypeVar("Item")

STRATEGIES = ("join", "again")

# Tokens that a piece repeats of the one before, unless the caller says otherwise: some sentences.
OVERLAP = 64
# How often summaries may be summarized: each time they are at most half as long, so 2^ROUNDS tables of positions.
ROUNDS = 12

# What is between two sentences: a full stop with what closes quotes or brackets, and white space; or an empty line.
_BETWEEN = re.compile(r"""(?:[.!?]["')\]]*\s|\n[^\S\n]*\n)\s*""")


class Piece(NamedTuple):
    """A piece of a document.

    Args:
        start: its first token, counted in the whole document without special tokens.
        stop: the token after its last one.
    """

    start: int
    stop: int


def check_split(strategy: object, *, truncation: bool, seed: object) -> None:
    """Refuse what does not go together.

    Raises:
        SettingsError: for another strategy; with one, for truncation, and for a seed of each document.
    """
    if strategy not in STRATEGIES:
        raise SettingsError(f"split is {quoted(strategy, 60)}; give {' or '.join(map(repr, STRATEGIES))}, or None.")
    if truncation:
        raise SettingsError(
            f"split={strategy!r} reads all of a document, and truncation=True its beginning. Leave one out."
        )
    if isinstance(seed, list | tuple):
        raise SettingsError(
            f"seed has a number for each document, but split={strategy!r} makes more of them. Give one."
        )


def pieces(text: str, offsets: Sequence[tuple[int, int]], room: int, overlap: int = OVERLAP) -> list[Piece]:
    """Cut a document into pieces that overlap; one piece if it fits.

    Args:
        text: the document.
        offsets: (start, end) of each token in characters of the text, without special tokens.
        room: the most tokens of a piece.
        overlap: the most tokens that a piece repeats of the one before it.

    Raises:
        InputError: for an overlap below 0, or more than half of the room.

    Example:
        >>> text = "One two. Three four. Five six."
        >>> offsets = [m.span() for m in re.finditer(r"[A-Za-z]+|[.]", text)]
        >>> [text[offsets[start][0] : offsets[stop - 1][1]] for start, stop in pieces(text, offsets, room=7, overlap=3)]
        ['One two. Three four.', 'Three four. Five six.']
    """
    if not 0 <= overlap <= room // 2:
        raise InputError(
            f"overlap is {overlap!r}, and a piece has room for {room} tokens. Give a whole number from 0 to {room // 2}."
        )
    # A cut may lie before a token: the first of a sentence, or the first of a word.
    begins = {match.end() for match in _BETWEEN.finditer(text)}
    of_sentence = [i for i, (start, _) in enumerate(offsets) if i and start in begins]
    of_word = [
        i for i, (start, _) in enumerate(offsets) if i and (text[start - 1 : start].isspace() or start in begins)
    ]

    found, start = list[Piece](), 0
    while len(offsets) - start > room:
        least, most = start + room // 2 + 1, start + room
        stop = _last(of_sentence, least, most) or _last(of_word, least, most) or most
        found.append(Piece(start, stop))
        begin = stop - overlap
        start = _first(of_sentence, begin, stop) or _first(of_word, begin, stop) or begin
    return [*found, Piece(start, len(offsets))]


def _last(places: Sequence[int], least: int, most: int) -> int | None:
    """The last of some ascending places that lies from `least` to `most`."""
    i = bisect_right(places, most)
    return places[i - 1] if i and places[i - 1] >= least else None


def _first(places: Sequence[int], least: int, most: int) -> int | None:
    """The first of some ascending places that lies from `least` to `most`."""
    i = bisect_left(places, least)
    return places[i] if i < len(places) and places[i] <= most else None


def text_of_pieces(
    documents: Sequence[Item], strategy: str, *, write: Callable[[Sequence[Item]], list[str]],
    prepare: Callable[[str], Sequence[Item]],
) -> str:  # fmt: skip
    """The text of a document in pieces.

    Args:
        documents: the pieces as a model reads them.
        strategy: "join" or "again".
        write: gives the summaries of pieces.
        prepare: cuts a text into pieces.

    Raises:
        InputError: if the summaries do not become shorter.

    Example:
        >>> first_halves = lambda texts: [text[: len(text) // 2] for text in texts]
        >>> text_of_pieces(["abcd", "efgh"], "again", write=first_halves, prepare=lambda text: [text])
        'ab'
    """
    for _ in range(ROUNDS):
        text = "\n".join(write(documents))
        if strategy == "join" or len(documents) == 1:
            return text
        before, documents = len(documents), prepare(text)
        if len(documents) >= before:
            break
    raise InputError(
        f"The summaries of {len(documents)} pieces are about as long as the pieces. Lower max_new_tokens, or pass "
        "split='join' (--split join)."
    )


def prepare_pieces(
    pipeline: TextPipeline[Any], text: str, *, global_attention: GlobalAttention = "first", overlap: int = OVERLAP
) -> list[Document]:
    """A document in pieces that the model reads (splitting.py), each with `<s>` and `</s>`; one piece if it fits.

    Raises:
        InputError: for a document that is empty, a global_attention that does not fit into each piece, or an overlap of
            more than half a piece.
    """
    pipeline.check_text(text)
    encoding = pipeline.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    room = pipeline.model.longest_document - pipeline.tokenizer.num_special_tokens_to_add()
    found = []
    for start, stop in pieces(text, encoding["offset_mapping"], room, overlap):
        ids = pipeline.tokenizer.build_inputs_with_special_tokens(encoding["input_ids"][start:stop])
        found.append(Document(ids, pipeline.global_mask(ids, global_attention)))
    return found
