"""LEDTokenizer's own work: special tokens, pairs, cutting, filling up. Both engines; transformers' word is in tests/peer."""

import pickle

import numpy as np
import pytest
from vocabularies import BOTH, BUNDLED, REAL, TINY_MERGES, tiny_vocab

from led_ref.tokenizer import AddedToken, BatchEncoding, LEDTokenizer

pytestmark = pytest.mark.parametrize("engine", ["python", "rust"])


@pytest.fixture
def tiny(engine: str) -> LEDTokenizer:
    return LEDTokenizer(tiny_vocab(), TINY_MERGES, engine=engine, model_max_length=12)


@pytest.mark.real_vocabulary
def test_known_ids_of_the_real_vocabulary(engine: str) -> None:
    tokenizer = LEDTokenizer.from_pretrained(REAL, engine=engine)
    known = {
        "Hello world": [0, 31414, 232, 2],
        "A long paragraph for summarization.": [0, 250, 251, 17818, 13, 39186, 1938, 4, 2],
        "A, <mask> AllenNLP sentence.": [0, 250, 6, 50264, 3823, 487, 21992, 3645, 4, 2],
        "a</s>b": [0, 102, 2, 428, 2],
        "": [0, 2],
    }
    assert {text: tokenizer.encode(text) for text in known} == known
    assert len(tokenizer) == tokenizer.vocab_size == 50265
    assert tokenizer.model_max_length == 16384
    # In the vocabulary, but no special tokens: in a text they are text.
    for name in ("<|endoftext|>", "madeupword0000"):
        assert len(tokenizer.tokenize(name)) > 1
        assert tokenizer.convert_tokens_to_ids(name) not in tokenizer.all_special_ids


@BOTH
def test_special_tokens(folder, engine: str) -> None:
    tokenizer = LEDTokenizer.from_pretrained(folder, engine=engine)
    mask = len(tokenizer) - 1
    assert tokenizer.all_special_ids == [0, 1, 2, 3, mask]
    assert tokenizer.all_special_tokens == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert tokenizer.special_tokens_map == {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
        "cls_token": "<s>", "mask_token": "<mask>",
    }  # fmt: skip
    ids = [getattr(tokenizer, f"{name}_id") for name in tokenizer.special_tokens_map]
    assert ids == [0, 2, 3, 2, 1, 0, mask]
    # <mask> takes the space before it, and its offsets do not.
    encoding = tokenizer("a \n <mask> b", return_offsets_mapping=True)
    assert tokenizer.tokenize("a \n <mask> b") == ["a", "<mask>", "Ġb"]
    assert encoding.offset_mapping == [(0, 0), (0, 1), (4, 10), (11, 12), (0, 0)]
    assert tokenizer.decode(encoding.input_ids) == "<s>a<mask> b</s>"
    assert tokenizer.decode(encoding.input_ids, skip_special_tokens=True) == "a b"


def test_one_text_is_a_list_of_one(tiny: LEDTokenizer) -> None:
    for pair in (None, "er", ""):
        asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
        alone = tiny("low", pair, **asked)
        listed = tiny(["low"], None if pair is None else [pair], **asked)
        assert {name: [values] for name, values in alone.items()} == dict(listed)


def test_pairs(tiny: LEDTokenizer) -> None:
    encoding = tiny("low er", "lower", return_offsets_mapping=True, return_special_tokens_mask=True)
    low, er, space = tiny.convert_tokens_to_ids(["low", "er", "Ġ"])
    a, b = [low, space, er], [low, er]
    assert encoding.input_ids == [0, *a, 2, 2, *b, 2] == tiny.build_inputs_with_special_tokens(a, b)
    assert encoding.special_tokens_mask == [1, 0, 0, 0, 1, 1, 0, 0, 1] == tiny.get_special_tokens_mask(a, b)
    assert tiny.get_special_tokens_mask(encoding.input_ids, already_has_special_tokens=True) == [
        1,
        0,
        0,
        0,
        1,
        1,
        0,
        0,
        1,
    ]
    assert tiny.create_token_type_ids_from_sequences(a, b) == [0] * 9
    # Offsets count from the beginning of each text.
    assert encoding.offset_mapping == [(0, 0), (0, 3), (4, 4), (4, 6), (0, 0), (0, 0), (0, 3), (3, 5), (0, 0)]
    assert tiny("low er", "lower", add_special_tokens=False).input_ids == a + b
    assert tiny("a", "").input_ids == [0, tiny.convert_tokens_to_ids("a"), 2, 2, 2]


@pytest.mark.parametrize(
    ("lengths", "truncation", "max_length", "kept"),
    [
        ((9, None), True, 7, (5, None)),
        ((9, None), "only_first", 2, (0, None)),
        ((9, 3), True, 11, (4, 3)),
        ((3, 9), "longest_first", 11, (3, 4)),
        ((9, 8), True, 11, (4, 3)),
        ((8, 9), True, 11, (3, 4)),
        ((9, 9), True, 11, (3, 4)),
        ((9, 8), "only_first", 14, (2, 8)),
        ((9, 8), "only_second", 14, (9, 1)),
        ((3, 2), True, 9, (3, 2)),
        ((3, 2), True, 4, (0, 0)),
    ],
)  # fmt: skip
def test_truncation(tiny: LEDTokenizer, lengths, truncation, max_length, kept) -> None:
    a, b = "abcdefghi"[: lengths[0]], None if lengths[1] is None else "123456789"[: lengths[1]]
    expected = tiny.encode(a[: kept[0]], None if b is None else b[: kept[1]])
    encoding = tiny(a, b, truncation=truncation, max_length=max_length, return_offsets_mapping=True)
    assert encoding.input_ids == expected
    assert len(encoding.offset_mapping) == len(encoding.attention_mask) == len(expected) <= max_length


def test_truncation_length_and_side_of_model(tiny: LEDTokenizer) -> None:
    assert tiny.decode(tiny.encode("x" * 40, truncation=True)) == "<s>" + "x" * 10 + "</s>"
    left = LEDTokenizer(tiny_vocab(), TINY_MERGES, truncation_side="left", engine=tiny.engine)
    encoding = left("abcdef", truncation=True, max_length=5, return_offsets_mapping=True)
    assert left.decode(encoding.input_ids) == "<s>def</s>"
    assert encoding.offset_mapping == [(0, 0), (3, 4), (4, 5), (5, 6), (0, 0)]
    assert left.encode("abcdef", truncation=True, max_length=2) == [0, 2]
    # Without being asked it cuts nothing, however long the text.
    assert len(tiny.encode("x" * 40)) == 42


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({"padding": False}, None),
        ({"padding": True}, 7),
        ({"padding": "longest", "pad_to_multiple_of": 4}, 8),
        ({"padding": "max_length", "max_length": 9}, 9),
        ({"padding": "max_length"}, 12),
        ({"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 5}, 10),
        ({"padding": True, "truncation": True, "max_length": 5}, 5),
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(tiny: LEDTokenizer, settings, length, side) -> None:
    texts = ["xyz", "vwxyz", ""]
    batch = tiny(texts, **settings, padding_side=side, return_special_tokens_mask=True, return_offsets_mapping=True)
    for i, text in enumerate(texts):
        cut = {
            name: value
            for name, value in settings.items()
            if name in ("truncation", "max_length") and "truncation" in settings
        }
        row = tiny(text, **cut, return_special_tokens_mask=True, return_offsets_mapping=True)
        missing = 0 if length is None else length - len(row.input_ids)
        for name, value in (
            ("input_ids", 1),
            ("attention_mask", 0),
            ("special_tokens_mask", 1),
            ("offset_mapping", (0, 0)),
        ):
            filling = [value] * missing
            assert batch[name][i] == (row[name] + filling if side == "right" else filling + row[name]), name


def test_pad_fills_ids_and_both_masks_together(tiny: LEDTokenizer) -> None:
    rows = [
        {"input_ids": [0, 9, 2], "global_attention_mask": [1, 0, 0]},
        {"input_ids": [0, 2], "global_attention_mask": [1, 0]},
    ]
    expected = {
        "input_ids": [[0, 9, 2, 1], [0, 2, 1, 1]],
        "global_attention_mask": [[1, 0, 0, -1], [1, 0, -1, -1]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 0, 0]],
    }
    of_arrays = {name: [np.array(row[name]) for row in rows] for name in rows[0]}
    for form in (rows, {name: [row[name] for row in rows] for name in rows[0]}, of_arrays):
        assert dict(tiny.pad(form, pad_to_multiple_of=4)) == expected
    assert rows[1]["input_ids"] == [0, 2]  # what was handed in is as it was
    alone = tiny.pad(rows[1], padding="max_length", max_length=3, padding_side="left", return_attention_mask=False)
    assert dict(alone) == {"input_ids": [1, 0, 2], "global_attention_mask": [-1, 1, 0]}
    # A batch in two steps is a batch in one.
    texts = ["low", "lower lower"]
    assert tiny.pad([tiny(text) for text in texts]) == tiny(texts, padding=True)
    assert tiny.pad(tiny(texts)) == tiny(texts, padding=True)


def test_conversions(tiny: LEDTokenizer) -> None:
    ids = tiny.encode(" lower")
    assert tiny.convert_ids_to_tokens(ids) == ["<s>", "Ġ", "low", "er", "</s>"]
    assert tiny.convert_ids_to_tokens(np.array(ids), skip_special_tokens=True) == ["Ġ", "low", "er"]
    assert tiny.convert_ids_to_tokens(ids[2]) == "low"
    assert tiny.convert_tokens_to_ids(["low", "nonsense"]) == [ids[2], tiny.unk_token_id]
    assert tiny.convert_tokens_to_string(["Ġ", "low", "Ã", "©"]) == " lowé"
    assert tiny.decode(ids[2]) == tiny.decode(np.int64(ids[2])) == tiny.decode(np.array([ids[2]])) == "low"
    assert tiny.batch_decode(np.array([ids, ids]), skip_special_tokens=True) == [" lower", " lower"]
    assert tiny.decode([]) == ""
    # Half a character is written as a replacement character; the halves joined are the character.
    e_acute = tiny.encode("é", add_special_tokens=False)
    assert [tiny.decode(half) for half in e_acute] == ["�", "�"]
    assert tiny.decode(e_acute) == "é"
    # Spaces before signs stay: nothing is tidied, as in transformers 5.
    assert tiny.decode(tiny.encode("low , er ."), True, clean_up_tokenization_spaces=True) == "low , er ."
    assert tiny.get_vocab() == tiny_vocab()


def test_added_token_ids(engine: str, tmp_path) -> None:
    tokenizer = LEDTokenizer(
        tiny_vocab(), TINY_MERGES, engine=engine, mask_token="<mask>", extra_special_tokens=["<q>", "<z>"],
        added_tokens={264: AddedToken("→", rstrip=True)},
    )  # fmt: skip
    assert (tokenizer.vocab_size, len(tokenizer)) == (264, 267)
    assert tokenizer.tokenize("a→ b<q> <mask>") == [
        "a",
        "→",
        "b",
        "<q>",
        "Ġ",
        "<mask>",
    ]  # <mask> as a plain text: no lstrip
    assert tokenizer.convert_tokens_to_ids(["→", "<q>", "<z>"]) == [264, 265, 266]
    assert tokenizer.decode([264, 265], skip_special_tokens=True) == "→"
    tokenizer.save_pretrained(tmp_path)
    again = LEDTokenizer.from_pretrained(tmp_path, engine=engine)
    assert again.tokenize("a→ b<q> <mask>") == ["a", "→", "b", "<q>", "Ġ", "<mask>"]
    assert again.all_special_tokens == tokenizer.all_special_tokens


def test_encoding_is_a_read_only_mapping(engine: str) -> None:
    encoding = LEDTokenizer.from_pretrained(BUNDLED, engine=engine)(["a"], return_attention_mask=False)
    assert {**encoding} == {"input_ids": encoding.input_ids} == encoding
    assert type(encoding.input_ids[0]) is list
    with pytest.raises(AttributeError, match="no 'attention_mask'; it has input_ids"):
        encoding.attention_mask  # noqa: B018
    with pytest.raises(AttributeError, match=r"is not changed.*\{\*\*encoding, 'labels'"):
        encoding.labels = []
    assert pickle.loads(pickle.dumps(encoding)) == encoding == BatchEncoding(encoding)


def test_arrays(tiny: LEDTokenizer) -> None:
    one = tiny("low", return_tensors="np", return_offsets_mapping=True)
    assert (one.input_ids.dtype, one.input_ids.shape, one.offset_mapping.shape) == (np.int64, (1, 3), (1, 3, 2))
    texts = ["low", "lower lower"]
    batch, lists = tiny(texts, padding=True, return_tensors="np"), tiny(texts, padding=True)
    assert {name: values.tolist() for name, values in batch.items()} == dict(lists)
    again = tiny.pad(tiny(texts), return_tensors="np")
    assert all((again[name] == batch[name]).all() for name in batch)


def test_special_tokens_in_a_text_may_be_letters(engine: str, tmp_path) -> None:
    given = {"added_tokens": {264: AddedToken("<own>")}, "engine": engine}
    tokenizer = LEDTokenizer(tiny_vocab(), TINY_MERGES, **given)
    text = "low</s> <own><mask>"
    found = tokenizer(text, split_special_tokens=True, return_offsets_mapping=True)
    letters = [tiny_vocab()[letter] for letter in "</s>"]
    assert found.input_ids[:6] == [0, 261, *letters]
    assert (found.input_ids.count(2), found.input_ids.count(264), found.input_ids.count(263)) == (1, 1, 0)
    assert tokenizer.decode(found.input_ids, skip_special_tokens=True) == text
    assert tokenizer.encode(text)[:3] == [0, 261, 2]
    always = LEDTokenizer(tiny_vocab(), TINY_MERGES, split_special_tokens=True, **given)
    always.save_pretrained(tmp_path / "saved")
    assert LEDTokenizer.from_pretrained(tmp_path / "saved", engine=engine)(text).input_ids == found.input_ids
    always.add_tokens("<more>")
    assert always(text).input_ids == found.input_ids


def test_tokens_can_be_added(engine: str, tmp_path) -> None:
    tokenizer = LEDTokenizer(tiny_vocab(), TINY_MERGES, engine=engine)
    assert tokenizer.add_tokens(["<a>", "<b>", "<a>", "low"]) == 3
    assert tokenizer.add_tokens("<b>") == 0
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<doc-sep>"], "pad_token": "<filler>"}) == 2
    assert len(tokenizer) == 268
    assert tokenizer.encode("<a>low<b><doc-sep>") == [0, 264, 261, 265, 266, 2]
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<filler>", 267)
    assert tokenizer.decode([264, 266, 267], skip_special_tokens=True) == "<a>"
    tokenizer.save_pretrained(tmp_path / "saved")
    again = LEDTokenizer.from_pretrained(tmp_path / "saved", engine=engine)
    assert (again.encode("<a>low<b><doc-sep>"), again.pad_token_id) == ([0, 264, 261, 265, 266, 2], 267)
