"""Level 0 of the vectors: texts to ids and back, by dense_tokenizer.py, with the vocabulary of the bundled model.

Texts are JSON strings among the arguments; a text that comes out is its UTF-8 bytes, so that every answer is a tensor.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.oracle.definition import tokenizer as dense_tokenizer
from led_ref.oracle.definition.tokenizer import Vocabulary
from led_ref.oracle.vectors.format import Array, Case

VOCABULARY_FILES = ("vocab.json", "merges.txt")

# id, text, flags. White space, letters and marks in all the ways in which a splitter can go wrong.
_TEXTS: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("empty", "", ("empty",)),
    ("plain", "Hello world, the tar program archives files.", ()),
    ("contractions", "It's o'clock; we'll see, they'Ve 'S'd I'm'", ("contraction",)),
    ("spaces", "  two  three   end  ", ("white_space",)),
    ("lines", "a\n\nb\r\n\tc \n", ("white_space",)),
    ("unicode-spaces", "a\u00a0b\u2003 c\u3000\u3000d\u0085e", ("white_space", "unicode")),
    ("separators", "a\x1cb\x1f c\x00", ("white_space", "control")),
    ("numbers", "3.14 x2 ½ Ⅷ ٣ 1,000,000", ("unicode",)),
    ("accents", "é e\u0301 ß Ünï", ("unicode", "split_character")),
    ("scripts", "寿司 한국어 ไทย עברית", ("unicode", "split_character")),
    ("emoji", "ok 👨‍👩‍👧 👍🏽!", ("unicode", "split_character")),
    ("printable-bytes", "Ġ Ċ are letters", ("unicode",)),
    ("long-word", "ab" * 45 + "-" * 70, ("long_word",)),
    ("special-in-text", "a</s>b <s> <pad><unk>", ("special_in_text",)),
    ("mask", "A, <mask> sentence  <mask>.", ("special_in_text",)),
    ("not-special", "<|endoftext|> madeupword0000 </S> <mask", ()),
)


def cases(bundled: Path) -> Iterator[Case]:
    """The cases of level 0.

    Args:
        bundled: the folder whose vocab.json and merges.txt are used (and copied into the vectors).
    """
    vocabulary = read_vocabulary(bundled)
    for name, text, flags in _TEXTS:
        ids = dense_tokenizer.encode(text, vocabulary)
        yield _case(f"tokenize-{name}", "tokenize", {"text": text}, {"ids": _ids(ids)}, flags)
    bare = dense_tokenizer.encode("Hello world", vocabulary, specials=False)
    arguments: dict[str, Any] = {"text": "Hello world", "add_special_tokens": False}
    yield _case("tokenize-bare", "tokenize", arguments, {"ids": _ids(bare)})
    pair = dense_tokenizer.encode("first text", vocabulary, "and  second")
    yield _case(
        "tokenize-pair", "tokenize", {"text": "first text", "pair": "and  second"}, {"ids": _ids(pair)}, ("pair",)
    )
    yield from _back(vocabulary)
    yield from _batches(vocabulary)


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocab.json and merges.txt of a folder."""
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    return Vocabulary(ids, {(first, second): i for i, (first, second) in enumerate(pairs)})


def _back(vocabulary: Vocabulary) -> Iterator[Case]:
    """Ids to text; among them bytes that are no UTF-8, and an id that does not exist."""
    characters = dense_tokenizer.byte_characters()
    mixed = dense_tokenizer.encode(" Hello</s> é 👍🏽<mask>", vocabulary)
    broken = [vocabulary.ids[characters[byte]] for byte in (0x61, 0xE5, 0xAF, 0x62, 0xFF, 0xC3, 0xA9)]
    for name, ids, skip, flags in (
        ("all", mixed, False, ("special_in_text", "split_character")),
        ("skip-specials", mixed, True, ("special_in_text", "split_character")),
        ("not-utf8", broken, False, ("invalid_utf8",)),
        ("nothing-left", [0, 2], True, ("empty",)),
    ):
        text = dense_tokenizer.decode(ids, vocabulary, skip_specials=skip).encode("utf-8")
        answer = {"text": np.frombuffer(text, np.uint8)}
        arguments = {"skip_special_tokens": skip}
        yield _case(f"detokenize-{name}", "detokenize", arguments, answer, flags, inputs={"ids": _ids(ids)})
    for name, i in (("too-large", len(vocabulary.ids)), ("negative", -1)):
        inputs = {"ids": _ids([0, i, 2])}
        yield _case(
            f"detokenize-{name}", "detokenize", {"skip_special_tokens": False}, None, ("id_out_of_range",), inputs
        )


def _batches(vocabulary: Vocabulary) -> Iterator[Case]:
    """Several texts as one batch: padded to the longest or to max_length, cut if asked."""
    texts = ["A much longer text than the others.", "short", ""]
    rows = [dense_tokenizer.encode(text, vocabulary) for text in texts]
    yield _batch_case("longest", {"texts": texts}, rows, max(map(len, rows)), ("padding",))
    cut = [row if len(row) <= 7 else [*row[:6], row[-1]] for row in rows]
    arguments = {"texts": texts, "padding": "max_length", "truncation": True, "max_length": 7}
    yield _batch_case("truncated", arguments, cut, 7, ("padding", "truncation"))
    arguments = {"texts": texts, "truncation": True, "max_length": 1}
    yield _case("batch-no-room", "tokenize_batch", arguments, None, ("truncation", "too_short"))
    yield _cut_pair(vocabulary, texts[0], "a second text, not as long", room=7)

    marks = [[1, *[0] * (len(row) - 1)] for row in rows]
    longest = max(map(len, rows))
    padded = {
        "input_ids": _filled(rows, longest, vocabulary.ids["<pad>"]),
        "attention_mask": _filled([[1] * len(row) for row in rows], longest, 0),
        "global_attention_mask": _filled(marks, longest, -1),
    }
    arguments = {"input_ids": rows, "global_attention_mask": marks}
    flags = ("padding", "global_on_pad")
    yield _case("pad-global-mask", "pad", arguments, padded, flags)


def _cut_pair(vocabulary: Vocabulary, text: str, pair: str, *, room: int) -> Case:
    """A pair with room for an odd number of ids: one goes at a time, from the longer text; of two equal ones from the second.

    (Of two equal ones the text that was shorter to begin with loses the next; here that is the second.)
    """
    first, second = (dense_tokenizer.encode(part, vocabulary, specials=False) for part in (text, pair))
    if not len(first) > len(second) > room // 2:
        raise ValueError(f"{len(first)} and {len(second)} ids: this case needs a first text that is the longer one.")
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    begin, end = vocabulary.ids["<s>"], vocabulary.ids["</s>"]
    row = [begin, *first, end, end, *second, end]
    arguments = {"texts": [text], "text_pair": [pair], "truncation": True, "max_length": room + 4}
    return _batch_case("pair-truncated", arguments, [row], len(row), ("pair", "truncation"))


def _batch_case(
    name: str, arguments: dict[str, Any], rows: list[list[int]], length: int, flags: tuple[str, ...]
) -> Case:
    answer = {
        "input_ids": _filled(rows, length, 1),
        "attention_mask": _filled([[1] * len(row) for row in rows], length, 0),
    }
    return _case(f"batch-{name}", "tokenize_batch", arguments, answer, flags)


def _filled(rows: Sequence[Sequence[int]], length: int, value: int) -> Array:
    return _ids([[*row, *[value] * (length - len(row))] for row in rows])


def _ids(values: Sequence[Any]) -> Array:
    return np.asarray(values, np.int64)


def _case(
    name: str,
    operation: str,
    arguments: Mapping[str, Any],
    answer: Mapping[str, Array] | None,
    flags: tuple[str, ...] = (),
    inputs: Mapping[str, Array] | None = None,
) -> Case:
    """A case with one answer, or, if that is None, one that must be refused."""
    return Case(
        id=f"L0-{name}",
        operation=operation,
        result="invalid" if answer is None else "valid",
        model="tokenizer",
        inputs=inputs or {},
        arguments=arguments,
        answers=() if answer is None else (answer,),
        flags=flags,
    )
