"""What the tokenizer's tests share: the vocabularies, a tiny one to be damaged, and texts of any Unicode."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import strategies as st

import led_ref
from led_ref.tokenizer.bpe import BYTE_TO_CHARACTER

BUNDLED = Path(led_ref.__file__).parent / "bundled"
REAL = Path(os.environ.get("LED_TOKENIZER_DIR", Path(__file__).parents[3] / "shared" / "led-tokenizer"))

# How many texts a property is tried on.
EXAMPLES = int(os.environ.get("LED_REF_EXAMPLES", "200"))

# Each test that takes `folder` runs on the bundled model's vocabulary, and where it is there on LED's own.
BOTH = pytest.mark.parametrize(
    "folder",
    [pytest.param(BUNDLED, id="bundled"), pytest.param(REAL, id="real", marks=pytest.mark.real_vocabulary)],
)

# What the splitter, the special tokens and the offsets might trip over.
FRAGMENTS = (
    " ", "  ", "   ", "\n", "\r\n", "\t", "\x00", "\x1c", "\x85", "\xa0", "\u2003", "\u3000", "\u200b", "\u200d", "\ufeff",
    "'s", "'S", "'ll", "'", "the", " the", "Hello", "3", " 12", "½", "Ⅷ", "٣", "é", "e\u0301", "ß", "寿司", "한국어",
    "ไทย", "\U0001f468", "\U0001f3fd", "\U00020000", "\U0010ffff", "Ġ", "Ċ", "<", ">", "mask", "<mask>", " <mask>", "</s>",
    "<s>", "<pad>", "<unk>", "<|endoftext|>", "madeupword0000", "-" * 70, "ab" * 40,
)  # fmt: skip

_CHARACTERS = st.integers(0, 0x10F7FF).map(lambda c: chr(c if c < 0xD800 else c + 0x800))  # each but the surrogates
TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=8), _CHARACTERS), max_size=12).map("".join)


def tiny_vocab() -> dict[str, int]:
    """The special tokens, the 256 bytes, three merges' results and `<mask>`."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *BYTE_TO_CHARACTER.values(), "lo", "low", "er", "<mask>"]
    return {piece: i for i, piece in enumerate(pieces)}


TINY_MERGES = ["l o", "lo w", "e r"]
TINY_SPECIALS = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": True},
}  # fmt: skip


def write_tiny(folder: Path) -> Path:
    """A folder with the tiny tokenizer's files."""
    (folder / "vocab.json").write_text(json.dumps(tiny_vocab()), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(TINY_MERGES) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(TINY_SPECIALS), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 12}', encoding="utf-8")
    return folder
