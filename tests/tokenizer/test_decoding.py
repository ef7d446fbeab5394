"""Ids to text: added tokens whose letters also stand for bytes, and streams."""

import random

import numpy as np
import pytest
from vocabularies import TINY_MERGES, tiny_vocab

from led_ref.generation.search import holds_a_stop_string
from led_ref.tokenizer import AddedToken, LEDTokenizer
from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER
from led_ref.tokenizer.decoding import ByteTable, text_pieces

BYTES = ByteTable({character: byte for byte, character in BYTE_TO_CHARACTER.items()}, {})


def with_letters(engine: str) -> LEDTokenizer:
    vocab = tiny_vocab()
    added = {264: AddedToken("größe"), 265: AddedToken("£€"), vocab["é"]: AddedToken("é"), vocab["Ġ"]: AddedToken("Ġ")}
    return LEDTokenizer(vocab, TINY_MERGES, added_tokens=added, engine=engine)


@pytest.mark.parametrize("engine", ["python", "rust"])
@pytest.mark.parametrize("text", ["größe low é £€", "ééé", "é", "鯿é鯿", "low größe鯿", "low low"])
def test_letters_of_added_tokens_come_back(engine, text):
    tokenizer = with_letters(engine)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert "".join(text_pieces(tokenizer, ids)) == text
    assert tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens([264, 265])) == "größe£€"
    assert (tokenizer.token_bytes(264), tokenizer.token_bytes(tokenizer.convert_tokens_to_ids("é"))) == (
        "größe".encode(), "é".encode()
    )  # fmt: skip


@pytest.mark.parametrize("stop", ["鯿", "é", "größe", "é鯿", "鯿é", "w鯿", "¿"])
def test_stop_strings_of_letters_and_bytes(stop):
    """A text ends with the first id after which it holds the stop string, and not again with a later one."""
    tokenizer = with_letters("python")
    rng, ids_of = random.Random(5), tokenizer.convert_tokens_to_ids
    pieces = [*ids_of(["é", "¯", "¿", "w", "low"]), 264]
    rows = [tokenizer.encode("low鯿 é鯿é größe ¿", add_special_tokens=False)]
    rows += [rng.choices(pieces, k=9) for _ in range(300)]
    ended = 0
    for ids in rows:
        for end in range(1, len(ids) + 1):
            found = holds_a_stop_string(
                np.array([ids[:end]]), None, stop_strings=[stop.encode()], text_bytes=tokenizer.text_bytes
            )
            now, before = (tokenizer.decode(ids[:n]).count(stop) for n in (end, end - 1))
            assert found[0] == (now > before), (ids[:end], now, before)
            ended += now > before
    assert ended


def test_pieces_are_joined_as_ids_are():
    tokenizer = with_letters("python")
    for text in ("鯿é鯿", "größe low é £€"):
        tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))
        assert tokenizer.convert_tokens_to_string(tokens) == text


def test_any_bytes_are_decoded_as_by_python():
    rng = random.Random(3)
    likely = [0x41, 0x80, 0xBF, 0xC2, 0xC3, 0xE0, 0xA0, 0xE9, 0xED, 0x9F, 0xF0, 0x90, 0xF4, 0x8F, 0xF5, 0xFF, 0xC0]
    for _ in range(5000):
        data = bytes(rng.choices(likely, k=rng.randrange(9)))
        stream = BYTES.stream()
        text = "".join([*map(stream.take, data), stream.rest()])
        assert text == BYTES.decode(data) == data.decode(errors="replace"), data
