"""Merges by rank against the library's, on random lists of merges; the heap against the definition."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers
from vocabularies import EXAMPLES, TEXTS

from led_ref.tokenizer import bpe
from led_ref.tokenizer.bpe import WordPieces, from_printable, merge, merge_long, to_printable


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Merges of three letters and of what came out of earlier merges, in random order: harder than a learned list."""
    pieces, merges = ["a", "b", "c"], []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from(pieces)), draw(st.sampled_from(pieces))
        if pair not in merges:
            merges.append(pair)
            pieces.append("".join(pair))
    return draw(st.permutations(merges))


@settings(max_examples=EXAMPLES, deadline=None)
@given(merge_lists(), st.text("abc", max_size=40))
def test_merges_are_the_library_s(merges: list[tuple[str, str]], word: str) -> None:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    pieces = merge(word, ranks)
    assert merge_long(word, ranks) == pieces
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(["a", "b", "c", *map("".join, merges)]))}
    assert [token.value for token in models.BPE(vocab=vocab, merges=merges).tokenize(word)] == pieces


def test_byte_alphabet_matches_library() -> None:
    assert set(bpe.BYTE_TO_CHARACTER.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert len(bpe.CHARACTER_TO_BYTE) == 256
    # UTF8_BYTES are the bytes that occur in any text at all.
    assert set(bpe.UTF8_BYTES) == set("".join(chr(c) for c in [*range(0xD800), *range(0xE000, 0x110000)]).encode())


@settings(max_examples=EXAMPLES, deadline=None)
@given(TEXTS)
def test_printable_and_back(text: str) -> None:
    assert from_printable(to_printable(text)).decode("utf-8") == text


def test_merge_cache_is_bounded_and_transparent(monkeypatch) -> None:
    monkeypatch.setattr(bpe, "_MOST_REMEMBERED", 3)
    vocab = {character: byte for byte, character in bpe.BYTE_TO_CHARACTER.items()} | {"ab": 256}
    words = WordPieces(vocab, {("a", "b"): 0})
    for word in ["ab", "b", "c", "d", "ab", "x" * 300, "ab"]:
        assert words[word] == ((256,) if word == "ab" else tuple(word.encode()))
        assert len(words) <= 3
        assert "x" * 300 not in words


def test_long_word_time_is_not_quadratic() -> None:
    """200,000 bytes of one word: a second, where every pair before every merge would be hours."""
    vocab = {character: byte for byte, character in bpe.BYTE_TO_CHARACTER.items()} | {"ab": 256, "abab": 257}
    ids = WordPieces(vocab, {("a", "b"): 0, ("ab", "ab"): 1})["ab" * 100_000]
    assert ids == (257,) * 50_000
