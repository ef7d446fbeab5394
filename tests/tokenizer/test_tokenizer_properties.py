"""The tokenizer equals its definition (oracle/definition/tokenizer.py); invariants of padding, truncation and saving."""

import functools
import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import BUNDLED, EXAMPLES, TEXTS, TINY_MERGES, tiny_vocab

from led_ref.oracle.definition import tokenizer as dense_tokenizer
from led_ref.oracle.definition.tokenizer import Vocabulary
from led_ref.tokenizer import AddedToken, LEDTokenizer
from led_ref.tokenizer.batch import length_rules
from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER, split

MANY = settings(max_examples=EXAMPLES)


@functools.cache
def both() -> tuple[LEDTokenizer, Vocabulary]:
    """The bundled vocabulary, twice."""
    ids = json.loads((BUNDLED / "vocab.json").read_text("utf-8"))
    lines = (BUNDLED / "merges.txt").read_text("utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return LEDTokenizer.from_pretrained(BUNDLED), Vocabulary(ids, {pair: rank for rank, pair in enumerate(merges)})


# ---- the tokenizer is its definition --------------------------------------------------------------------------------


@MANY
@given(TEXTS, st.one_of(st.none(), TEXTS))
@example("It's  3 o'clock, you'd say; they'll'\n\n go \t", None)
@example("the rest of the chapter, " * 3, "a </s> b  <mask> c")
def test_tokenizer_definition(text: str, pair: str | None) -> None:
    tokenizer, vocabulary = both()
    encoding = tokenizer(text, pair)
    expected = dense_tokenizer.encode(text, vocabulary, pair)
    assert encoding.input_ids == expected
    assert tokenizer(text, pair, add_special_tokens=False).input_ids == dense_tokenizer.encode(
        text, vocabulary, pair, specials=False
    )
    for skip in (False, True):
        assert tokenizer.decode(expected, skip) == dense_tokenizer.decode(expected, vocabulary, skip_specials=skip)


@MANY
@given(st.text("ab \n'st3½.<>\u00a0\x1c寿", max_size=20))
def test_word_split_definition(text: str) -> None:
    assert split(text) == dense_tokenizer.split_words(text)


def test_byte_alphabet_definition() -> None:
    assert tuple(BYTE_TO_CHARACTER.values()) == dense_tokenizer.byte_characters()


@MANY
@given(st.lists(st.integers(0, 300), max_size=12), st.booleans())
def test_decode_any_ids_to_their_bytes(ids: list[int], skip: bool) -> None:
    """Most of these bytes are no UTF-8."""
    tokenizer, vocabulary = both()
    assert tokenizer.decode(ids, skip) == dense_tokenizer.decode(ids, vocabulary, skip_specials=skip)


@MANY
@given(st.lists(st.sampled_from(["<q>", "<q>>", "→", "lower", " ", "low", "er", "<mask>", "</s>", ">"])).map("".join))
def test_longest_added_token_wins(text: str) -> None:
    added = {264: AddedToken("<q>"), 265: AddedToken("<q>>"), 266: AddedToken("→", normalized=False)}
    tokenizer = LEDTokenizer(tiny_vocab(), TINY_MERGES, added_tokens=added, mask_token="<mask>")
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert ids.count(265) == text.count("<q>>")
    assert ids.count(264) == text.count("<q>") - text.count("<q>>")
    assert ids.count(2) == text.count("</s>")


# ---- cutting, filling up, saving ------------------------------------------------------------------------------------


@MANY
@given(first=st.integers(0, 30), second=st.integers(0, 30), room=st.integers(0, 40), added=st.integers(0, 4))
def test_longest_first_truncation(first: int, second: int, room: int, added: int) -> None:
    """Of two that are equally long, which one loses the next id is settled by which was shorter to begin with."""
    kept = length_rules(truncation=True, max_length=max(1, room + added)).kept(first, second, added)
    room = max(1, room + added) - added
    if first + second <= room:
        assert kept == (first, second)
        return
    lengths = [first, second]
    while sum(lengths) > room:
        lengths[lengths[1] >= lengths[0] if first <= second else lengths[1] > lengths[0]] -= 1
    assert sum(kept) == room
    assert sorted(kept) == sorted(lengths)
    assert (kept[0] <= kept[1]) == (first <= second) or kept[0] == kept[1]


@MANY
@given(text=TEXTS, pair=st.one_of(st.none(), TEXTS), length=st.integers(4, 30), side=st.sampled_from(["right", "left"]))
def test_truncation_side(text: str, pair: str | None, length: int, side: str) -> None:
    tokenizer = LEDTokenizer(tiny_vocab(), TINY_MERGES, truncation_side=side)
    whole = [tokenizer.encode(part, add_special_tokens=False) for part in (text, pair or "")]
    kept = length_rules(truncation=True, max_length=length).kept(
        len(whole[0]), None if pair is None else len(whole[1]), 2 if pair is None else 4
    )
    cut = [ids[:n] if side == "right" else ids[len(ids) - n :] for ids, n in zip(whole, kept, strict=True)]
    expected = [0, *cut[0], 2] if pair is None else [0, *cut[0], 2, 2, *cut[1], 2]
    assert tokenizer.encode(text, pair, truncation=True, max_length=length) == expected


@MANY
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), multiple=st.sampled_from([1, 4, 7]), side=st.booleans())
def test_padding_fields(texts: list[str], multiple: int, side: bool) -> None:
    tokenizer, _ = both()
    rows = [tokenizer.encode(text) for text in texts]
    marked = [{"input_ids": row, "global_attention_mask": [1] + [0] * (len(row) - 1)} for row in rows]
    where = "left" if side else "right"
    batch = tokenizer.pad(marked, pad_to_multiple_of=multiple, padding_side=where)
    width = -(-max(map(len, rows)) // multiple) * multiple
    for row, ids, mask, marks in zip(
        rows, batch.input_ids, batch.attention_mask, batch.global_attention_mask, strict=True
    ):
        blank, alone = width - len(row), [1] + [0] * (len(row) - 1)
        if side:
            assert (ids, mask) == ([1] * blank + row, [0] * blank + [1] * len(row))
            assert marks == [-1] * blank + alone
        else:
            assert (ids, mask) == (row + [1] * blank, [1] * len(row) + [0] * blank)
            assert marks == alone + [-1] * blank


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> LEDTokenizer:
    folder: Path = tmp_path_factory.mktemp("saved")
    both()[0].save_pretrained(folder)
    return LEDTokenizer.from_pretrained(folder)


@given(text=TEXTS)
def test_save_and_load_round_trip(saved: LEDTokenizer, text: str) -> None:
    tokenizer, _ = both()
    ids = tokenizer.encode(text)
    assert saved.encode(text) == ids
    assert saved.decode(ids) == tokenizer.decode(ids)
