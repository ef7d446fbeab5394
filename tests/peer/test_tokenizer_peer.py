"""LEDTokenizer against transformers' own, on LED's real vocabulary: any Unicode, the machine's manual pages, batches, files.

LED_REF_EXAMPLES sets the number of strings (20,000 unless given) and LED_REF_MAN_PAGES about how many manual pages are read
(2,000 unless given, spread evenly over all that there are).
"""

import gzip
import json
import os
import warnings
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import led_ref
from led_ref.errors import InputError
from led_ref.tokenizer import LEDTokenizer

BUNDLED = Path(led_ref.__file__).parent / "bundled"
REAL = Path(os.environ.get("LED_TOKENIZER_DIR", Path(__file__).parents[3] / "shared" / "led-tokenizer"))
EXAMPLES = int(os.environ.get("LED_REF_EXAMPLES", "20000"))
MAN_PAGES = int(os.environ.get("LED_REF_MAN_PAGES", "2000"))

pytestmark = [
    pytest.mark.peer,
    pytest.mark.parametrize(
        "trio",
        [pytest.param(BUNDLED, id="bundled"), pytest.param(REAL, id="real", marks=pytest.mark.real_vocabulary)],
        indirect=True,
    ),
]

FRAGMENTS = (
    " ", "  ", "\n", "\t", "\x1c", "\x85", "\xa0", "\u3000", "\u200d", "'s", "'ll", " the", "12", "½", "é", "e\u0301", "寿司",
    "\U0001f468\U0001f3fd", "<mask>", " <mask>", "</s>", "<s>", "<pad>", "<|endoftext|>", "<", "Ġ", "-" * 60,
)  # fmt: skip
_ANY = st.integers(0, 0x10F7FF).map(lambda c: chr(c if c < 0xD800 else c + 0x800))
TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=8), _ANY), max_size=10).map("".join)

PER_EXAMPLE = 20  # strings that one drawn example holds: drawing costs more than tokenizing
QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


class Trio:
    """The two engines and transformers' tokenizer of one folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import LEDTokenizer as Theirs

        assert (folder / "vocab.json").is_file(), (
            f"{folder} holds no vocabulary; LED_TOKENIZER_DIR can name another folder"
        )
        self.python = LEDTokenizer.from_pretrained(folder)
        self.rust = LEDTokenizer.from_pretrained(folder, engine="rust")
        self.theirs = Theirs.from_pretrained(folder)


_trio_of = cache(Trio)


@pytest.fixture
def trio(request: pytest.FixtureRequest) -> Trio:
    return _trio_of(request.param)


def test_any_unicode(trio: Trio) -> None:
    """Both engines and transformers: ids, offsets, masks, and the text that the ids decode to."""
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
    strings = 0

    @settings(QUICK, max_examples=-(-EXAMPLES // PER_EXAMPLE))
    @given(st.lists(TEXTS, min_size=PER_EXAMPLE, max_size=PER_EXAMPLE))
    def equal(texts: list[str]) -> None:
        nonlocal strings
        strings += len(texts)
        expected = dict(trio.theirs(texts, **asked))
        decoded = trio.theirs.batch_decode(expected["input_ids"])
        for tokenizer in (trio.python, trio.rust):
            assert dict(tokenizer(texts, **asked)) == expected
            assert tokenizer.batch_decode(expected["input_ids"]) == decoded
            assert tokenizer.batch_decode(expected["input_ids"], True) == trio.theirs.batch_decode(
                expected["input_ids"], True
            )
        plain = [text.replace("<", "(") for text in texts]
        assert trio.python.batch_decode(trio.python(plain, add_special_tokens=False).input_ids) == plain

    equal()
    assert strings >= EXAMPLES


def test_manual_pages(trio: Trio, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Manual pages of this machine, as troff source in whatever language: ids equal, and the text comes back."""
    paths = sorted(path for path in Path("/usr/share/man").rglob("*.gz") if path.is_file() and not path.is_symlink())
    found = len(paths)
    on_bundled = "bundled" in request.node.callspec.id
    paths = paths[:: max(1, found // (MAN_PAGES // 4 if on_bundled else MAN_PAGES))]
    tokens = 0
    for begin in range(0, len(paths), 64):
        pages = [gzip.decompress(path.read_bytes()).decode("utf-8", "replace") for path in paths[begin : begin + 64]]
        expected = trio.theirs(pages, add_special_tokens=False, verbose=False)["input_ids"]
        assert trio.python(pages, add_special_tokens=False).input_ids == expected
        assert trio.python.batch_decode(expected) == pages
        # One page in 64 with offsets, and by the other engine.
        alone = trio.theirs(pages[0], return_offsets_mapping=True, verbose=False)
        for tokenizer in (trio.python, trio.rust):
            assert dict(tokenizer(pages[0], return_offsets_mapping=True)) == dict(alone)
        tokens += sum(map(len, expected))
    with capsys.disabled():
        print(f"\n{found} manual pages found, {len(paths)} compared, {tokens} tokens", end=" ")


@st.composite
def calls(draw: st.DrawFn) -> tuple[list, dict]:
    size = draw(st.integers(1, 4))
    text = st.lists(
        st.sampled_from(["Hello", " world", " <mask>", "</s>", "é", "寿司", " the", "\n", "x y z"]), max_size=8
    ).map("".join)
    batch = st.lists(text, min_size=size, max_size=size)
    arguments = {
        "add_special_tokens": draw(st.booleans()),
        "padding": draw(st.sampled_from([False, True, "longest", "max_length"])),
        "truncation": draw(st.sampled_from([False, True, "longest_first", "only_first", "only_second"])),
        "max_length": draw(st.sampled_from([None, *range(1, 25)])),
        "pad_to_multiple_of": draw(st.sampled_from([None, None, 4])),
        "padding_side": draw(st.sampled_from(["right", "left"])),
    }
    return [draw(batch), draw(st.one_of(st.none(), batch))], arguments


# What we refuse and transformers does not, each by the words of our message; the module's docstring of tokenizer.py says why.
ONLY_WE_REFUSE = ("alone does nothing", "does nothing without padding", "to pad to", "special tokens alone are")


def test_padding_and_truncation(trio: Trio) -> None:
    """Every combination of settings, on texts and on pairs: where both accept it, everything is equal."""
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
    accepted = 0

    @settings(QUICK, max_examples=1000)
    @given(calls())
    def equal(call: tuple[list, dict]) -> None:
        nonlocal accepted
        texts, arguments = call
        try:
            ours = [dict(tokenizer(*texts, **arguments, **asked)) for tokenizer in (trio.python, trio.rust)]
        except InputError as error:
            specials = trio.python.num_special_tokens_to_add(texts[1] is not None)
            no_room = str(arguments["truncation"]).startswith("only") and arguments["max_length"] == specials
            if not no_room and not any(words in str(error) for words in ONLY_WE_REFUSE):
                with pytest.raises(Exception):  # noqa: B017
                    _quietly(trio.theirs, *texts, **arguments)
            return
        assert ours == [dict(_quietly(trio.theirs, *texts, **arguments, **asked))] * 2
        accepted += 1

    equal()
    assert accepted >= 300


def _quietly(call, *args, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **settings)


def test_left_truncation(trio: Trio) -> None:
    from transformers import LEDTokenizer as Theirs

    folder = Path(trio.theirs.name_or_path)
    theirs = Theirs.from_pretrained(folder, truncation_side="left")
    ours = LEDTokenizer(trio.python.get_vocab(), list(trio.python._ranks), truncation_side="left")
    for pair in (None, "A second text, <mask> longer than that."):
        settings = {"truncation": True, "max_length": 9, "return_offsets_mapping": True}
        assert dict(ours("One text of some length.", pair, **settings)) == dict(
            theirs("One text of some length.", pair, **settings)
        )


def test_pad_and_small_things(trio: Trio) -> None:
    ours, theirs = trio.python, trio.theirs
    encodings = [ours("Hello world"), ours("Hello")]
    assert dict(ours.pad(encodings, pad_to_multiple_of=3)) == dict(
        theirs.pad([dict(e) for e in encodings], pad_to_multiple_of=3)
    )
    ids = ours.encode("a <mask> b</s>")
    for skip in (False, True):
        assert ours.convert_ids_to_tokens(ids, skip) == theirs.convert_ids_to_tokens(ids, skip)
    assert ours.convert_tokens_to_ids(["Ġthe", "nonsense", "<mask>"]) == theirs.convert_tokens_to_ids(
        ["Ġthe", "nonsense", "<mask>"]
    )
    assert ours.convert_tokens_to_string(["Ġ", "→", "Ã", "©"]) == theirs.convert_tokens_to_string(["Ġ", "→", "Ã", "©"])
    masks = [t.get_special_tokens_mask(ids, already_has_special_tokens=True) for t in (ours, theirs)]
    assert masks[0] == masks[1]
    for name in ("vocab_size", "model_max_length", "special_tokens_map", "padding_side", "truncation_side"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ours.special_tokens_map:
        assert getattr(ours, name) == getattr(theirs, name)
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_id")
    assert set(ours.all_special_ids) == set(theirs.all_special_ids)
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    assert [t.num_special_tokens_to_add(pair) for t in (ours, theirs) for pair in (False, True)] == [2, 4, 2, 4]
    # Spaces before signs stay, whatever is asked: theirs ignores clean_up_tokenization_spaces for byte-level BPE.
    ids = ours.encode("low , er .")
    assert ours.decode(ids, True, clean_up_tokenization_spaces=True) == _quietly(
        theirs.decode, ids, True, clean_up_tokenization_spaces=True
    )


@pytest.mark.parametrize("engine", ["python", "rust"])
def test_saved_files_load_in_both_directions(trio: Trio, engine: str, tmp_path: Path) -> None:
    from transformers import LEDTokenizer as Theirs

    text = "".join(FRAGMENTS)
    expected = dict(trio.theirs(text, return_offsets_mapping=True))
    trio.theirs.save_pretrained(tmp_path / "theirs")  # tokenizer.json and tokenizer_config.json
    ours = LEDTokenizer.from_pretrained(tmp_path / "theirs", engine=engine)
    assert dict(ours(text, return_offsets_mapping=True)) == expected
    assert ours.model_max_length == trio.theirs.model_max_length
    trio.python.save_pretrained(tmp_path / "ours")
    theirs = Theirs.from_pretrained(tmp_path / "ours")
    assert dict(theirs(text, return_offsets_mapping=True)) == expected
    assert theirs.special_tokens_map == trio.theirs.special_tokens_map
    assert theirs.model_max_length == trio.theirs.model_max_length


def test_where_we_differ_on_purpose(trio: Trio, tmp_path: Path) -> None:
    """Each difference that tokenizer.py lists: if transformers changes one, the list is to be changed."""
    from transformers import LEDTokenizer as Theirs

    ours, theirs = trio.python, trio.theirs
    assert len(_quietly(theirs, "Hello world", max_length=3)["input_ids"]) == 3
    with pytest.raises(InputError, match="alone does nothing"):
        ours("Hello world", max_length=3)
    assert len(theirs("Hello world", padding="max_length", max_length=3)["input_ids"]) > 3
    with pytest.raises(InputError, match="more than the max_length 3 to pad to"):
        ours("Hello world", padding="max_length", max_length=3)
    settings = {"truncation": "only_second", "max_length": 4}
    assert theirs("a", "b", **settings)["input_ids"] == [0, 2, 2, 2]
    with pytest.raises(InputError, match="the other has 1 of the 0 available"):
        ours("a", "b", **settings)
    assert theirs("a", "")["input_ids"] != theirs(["a"], [""])["input_ids"][0] == ours("a", "").input_ids
    assert theirs.tokenize("a <mask>")[-1] == " <mask>"
    assert ours.tokenize("a <mask>")[-1] == "<mask>"
    rows = [{"input_ids": [0, 2], "global_attention_mask": [1, 0]}, {"input_ids": [0], "global_attention_mask": [1]}]
    assert theirs.pad(rows)["global_attention_mask"] == [[1, 0], [1]]
    assert ours.pad(rows).global_attention_mask == [[1, 0], [1, -1]]
    assert theirs.decode([10**6]) == ""
    with pytest.raises(InputError, match="holds the id 1000000"):
        ours.decode([10**6])
    far = len(ours) + 5
    ours.save_pretrained(tmp_path / "far")
    (tmp_path / "far" / "added_tokens.json").write_text(f'{{"<far>": {far}}}')
    values = json.loads((tmp_path / "far" / "tokenizer_config.json").read_text())
    del values["added_tokens_decoder"]
    (tmp_path / "far" / "tokenizer_config.json").write_text(json.dumps(values))
    assert Theirs.from_pretrained(tmp_path / "far").convert_tokens_to_ids("<far>") == len(ours)
    for engine in ("python", "rust"):
        assert LEDTokenizer.from_pretrained(tmp_path / "far", engine=engine).convert_tokens_to_ids("<far>") == far
    ours.save_vocabulary(tmp_path)
    bare = Theirs.from_pretrained(tmp_path)
    assert bare.mask_token_id in bare.encode("a <mask>")
    assert len(bare.encode("a <mask>")) == 1 + len(ours.encode("a <mask>"))  # the space is a token of its own
