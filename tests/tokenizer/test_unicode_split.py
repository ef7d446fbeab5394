"""The table of classes is the library's on every code point, and the split is the library's on every text."""

import make_unicode_ranges
from hypothesis import given, settings
from tokenizers import pre_tokenizers
from vocabularies import EXAMPLES, TEXTS

from led_ref.tokenizer import unicode_ranges
from led_ref.tokenizer.bpe import WHITE_SPACE_CHARACTERS, split

SPLITTER = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _members(ranges: str) -> set[int]:
    ends = [[int(end, 16) for end in word.split("-")] for word in ranges.split()]
    return {c for pair in ends for c in range(pair[0], pair[-1] + 1)}


def test_table_matches_library_on_every_code_point() -> None:
    found = make_unicode_ranges.classes()
    for name in ("LETTERS", "NUMBERS", "WHITE_SPACE"):
        assert _members(getattr(unicode_ranges, name)) == found[name], name
    # The inquiry has missed none.
    assert sum(map(len, found.values())) == 0x110000 - 0x800
    assert {ord(character) for character in WHITE_SPACE_CHARACTERS} == found["WHITE_SPACE"]


@settings(max_examples=EXAMPLES, deadline=None)
@given(TEXTS)
def test_split_is_the_library_s(text: str) -> None:
    words = split(text)
    assert "".join(words) == text
    assert words == [text[start:end] for _, (start, end) in SPLITTER.pre_tokenize_str(text)]
