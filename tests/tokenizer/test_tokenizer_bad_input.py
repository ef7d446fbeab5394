"""What cannot be used is refused by name: the error's kind, what was found, and what to do instead. Both engines alike."""

import numpy as np
import pytest
from vocabularies import TINY_MERGES, tiny_vocab

from led_ref.errors import ArgumentTypeError, InputError
from led_ref.tokenizer import LEDTokenizer

TOKENIZERS = {
    engine: LEDTokenizer(tiny_vocab(), TINY_MERGES, engine=engine, model_max_length=12) for engine in ("python", "rust")
}


@pytest.mark.parametrize("engine", ["python", "rust"])
@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["a\ud800b"], {}, r"text holds the lone surrogate U\+D800 at position 1.*errors='replace'"),
        ([["ok", "\udfff"]], {}, r"text\[1\] holds the lone surrogate U\+DFFF at position 0"),
        (["a", "\udc80"], {}, r"text_pair holds the lone surrogate U\+DC80"),
        ([b"bytes"], {}, r"text is a bytes, not a text: b'bytes'. Pass a str or a list of str; decode bytes first"),
        ([None], {}, r"text is a NoneType, not a text"),
        ([["a", 7]], {}, r"text\[1\] is a int, not a text: 7"),
        ([[("a", "b")]], {}, r"text\[0\] is a tuple.*pass pairs as text=\[\.\.\.\], text_pair"),
        ([[]], {}, r"batch of texts is empty. Pass at least one text"),
        ([["a", "b"], ["c"]], {}, r"There are 2 texts, but 1 in text_pair"),
        ([["a"], "b"], {}, r"text is a list, but text_pair is a str. Pass two texts, or two lists"),
        (["a", ["b"]], {}, r"text is a str, but text_pair is a list"),
        (["a"], {"padding": "longset"}, r"padding is 'longset'; it can be False, 'do_not_pad', True, 'longest', 'max_length'"),
        (["a"], {"padding": 1}, r"padding is 1; it can be"),
        (["a"], {"truncation": "first"}, r"truncation is 'first'; it can be .*'only_first'"),
        (["a"], {"padding": True, "padding_side": "up"}, r"padding_side is 'up'; it can be 'right', 'left'"),
        (["a"], {"truncation": True, "max_length": 0}, r"max_length is 0; it must be a whole number from 1 to"),
        (["a"], {"truncation": True, "max_length": 2.0}, r"max_length is 2.0; it must"),
        (["a"], {"truncation": True, "max_length": True}, r"max_length is True; it must"),
        (["a"], {"padding": True, "pad_to_multiple_of": -4}, r"pad_to_multiple_of is -4; it must"),
        (["a"], {"max_length": 5}, r"max_length=5 alone does nothing.*add truncation=True"),
        (["a"], {"pad_to_multiple_of": 4}, r"pad_to_multiple_of=4 does nothing without padding. Add padding=True"),
        (["a"], {"truncation": True, "padding": True, "max_length": 9, "pad_to_multiple_of": 4}, r"9 .* multiple of 4"),
        (["abc"], {"truncation": True, "max_length": 1}, r"max_length is 1, but the special tokens alone are 2.*at least 2"),
        (["", "b"], {"truncation": True, "max_length": 3}, r"max_length is 3, but the special tokens alone are 4"),
        (["abc"], {"truncation": "only_second", "max_length": 4}, r"only_second' needs a second text.*'only_first'"),
        (["ab", "cdefg"], {"truncation": "only_first", "max_length": 9}, r"cut only a text of 2 .* has 5 of the 5 available"),
        (["", "cdefg"], {"truncation": "only_first", "max_length": 8}, r"cut only a text of 0 tokens, but the other has 5"),
        ([["a", "abcdef"]], {"padding": "max_length", "max_length": 6}, r"Row 1 has 8 tokens.* 6 to pad to.*truncation=True"),
    ],
)  # fmt: skip
def test_encoding(engine: str, arguments: list, settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        TOKENIZERS[engine](*arguments, **settings)


@pytest.mark.parametrize("engine", ["python", "rust"])
@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (
            [0, 264],
            r"Position 1 holds the id 264, which this vocabulary of 264 does not have \(ids lie in 0 \.\.\. 263\)",
        ),
        ([-100], r"Position 0 holds the id -100.*Replace -100 of labels by pad_token_id"),
        ([0, 5.0], r"Position 1 holds 5.0, a float, not an id.*cast floats back"),
        ([[0, 2]], r"Position 0 holds \[0, 2\], a list.*use batch_decode"),
        ("low", r"token_ids is 'low', a str; it takes ids"),
        (None, r"token_ids is None, a NoneType; it takes ids"),
        (b"low", r"token_ids is b'low', a bytes"),
        ({5: 6}, r"token_ids is \{5: 6\}, a dict"),
        ({5, 6}, r"token_ids is \{5, 6\}, a set"),
        (np.ma.masked_array([5, 6], [0, 1]), r"token_ids is masked_array"),
        ([True], r"Position 0 holds True, a bool"),
        (np.array([True]), r"Position 0 holds True, a bool"),
        ([np.timedelta64(5)], r"Position 0 holds .*, a timedelta64"),
    ],
)
def test_decoding(engine: str, ids: object, said: str) -> None:
    for method in ("decode", "convert_ids_to_tokens"):
        with pytest.raises(InputError, match=said):
            getattr(TOKENIZERS[engine], method)(ids)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], r"batch to pad is empty. Pass at least one"),
        ({"input_ids": []}, r"batch to pad is empty"),
        ({"attention_mask": [1]}, r"no input_ids, only attention_mask"),
        ([{"attention_mask": [1]}], r"Row 0 has no input_ids, only attention_mask"),
        ({"input_ids": [0, 2], "attention_mask": [1]}, r"Row 0: attention_mask has 1 entries, not 2 as input_ids has"),
        ({"input_ids": [[0], [0, 2]], "attention_mask": [[1]]}, r"attention_mask has not 2 rows"),
        (
            [{"input_ids": [0]}, {"input_ids": [0], "attention_mask": [1]}],
            r"rows have different fields.*Give each row the same",
        ),
        (
            {"input_ids": [0], "labels": [2]},
            r"'labels' cannot be padded; known are input_ids, attention_mask.*Leave it out",
        ),
        ("text", r"A str cannot be padded. Pass an encoding"),
        ([[0, 2]], r"A list cannot be padded"),
        ({"input_ids": [0, 5.5]}, r"Position 1 holds 5.5, a float"),
        ({"input_ids": ["low", 2]}, r"Position 0 holds 'low', a str"),
        ({"input_ids": [0, 999]}, r"Position 1 holds the id 999"),
        ({"input_ids": [True]}, r"Position 0 holds True, a bool"),
        (
            {"input_ids": [0], "attention_mask": [7]},
            r"Row 0: attention_mask holds 7 at position 0; it may hold 0 and 1",
        ),
        ({"input_ids": [0], "attention_mask": [1.0]}, r"attention_mask holds 1.0"),
        ({"input_ids": [0], "global_attention_mask": [-2]}, r"global_attention_mask holds -2.* 0 and 1 and -1"),
    ],
)
def test_padding(inputs: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        TOKENIZERS["python"].pad(inputs)


def test_unknown_arguments_are_told_the_nearest(tmp_path) -> None:
    tokenizer = LEDTokenizer(tiny_vocab(), TINY_MERGES)
    tokenizer.save_pretrained(tmp_path)
    for call, named, said in (
        (tokenizer, {"text": "a", "max_lenght": 3}, "LEDTokenizer.__call__ has no argument 'max_lenght'.*'max_length'"),
        (tokenizer.encode, {"text": "a", "truncate": True}, r"no argument 'truncate'. Did you mean 'truncation'"),
        (tokenizer, {"texts": ["a"]}, r"has no argument 'texts'. Did you mean 'text'"),
        (tokenizer, {}, r"missing a required argument: 'text'. It takes text, text_pair"),
        (tokenizer.pad, {"encoded_inputs": {"input_ids": [0]}, "pading": True}, "Did you mean 'padding'"),
        (tokenizer.decode, {"token_ids": [0], "skip_special": True}, "Did you mean 'skip_special_tokens'"),
        (tokenizer.batch_decode, {"sequence": [[0]]}, "Did you mean 'sequences'"),
        (LEDTokenizer.from_pretrained, {"folder": tmp_path, "use_fast": True}, "'use_fast'.*It takes .*engine"),
    ):
        with pytest.raises(ArgumentTypeError, match=said):
            call(**named)


def test_the_rest() -> None:
    tokenizer = LEDTokenizer(tiny_vocab(), TINY_MERGES)
    with pytest.raises(InputError, match=r"return_tensors is 'pt'.*'np'.*torch.from_numpy"):
        tokenizer("a", return_tensors="pt")
    with pytest.raises(InputError, match=r"rows have 3 to 4 tokens.*Add padding=True"):
        tokenizer(["a", "ab"], return_tensors="np")
    with pytest.raises(InputError, match=r"no special token 'padding'; there are bos_token"):
        tokenizer.add_special_tokens({"padding": "<x>"})
    for wrong in (5, [5], None, {"a"}):
        with pytest.raises(InputError, match=r"new_tokens is .*it takes a text"):
            tokenizer.add_tokens(wrong)
    with pytest.raises(InputError, match=r"truncation=True need a length, but max_length is None.*Give max_length"):
        tokenizer("a", truncation=True)
    with pytest.raises(InputError, match=r"encode takes one text, not a list. Call the tokenizer itself"):
        tokenizer.encode(["a"])
    with pytest.raises(InputError, match=r"are one sequence: leave token_ids_1 out"):
        tokenizer.get_special_tokens_mask([0], [2], already_has_special_tokens=True)
    with pytest.raises(InputError, match=r"no engine 'c'. Use 'python' or 'rust'"):
        LEDTokenizer(tiny_vocab(), TINY_MERGES, engine="c")
