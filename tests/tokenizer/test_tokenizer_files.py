"""The tokenizer's files: every style that is in use, and every way to be damaged, by name."""

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from vocabularies import BOTH, FRAGMENTS, TINY_MERGES, TINY_SPECIALS, tiny_vocab, write_tiny

from led_ref.errors import CheckpointError, LEDError, MissingFileError
from led_ref.tokenizer import AddedToken, LEDTokenizer
from led_ref.tokenizer.engine import RustEngine

TEXT = "".join(FRAGMENTS)


@BOTH
def test_saved_is_read_again(folder: Path, tmp_path: Path) -> None:
    tokenizer = LEDTokenizer.from_pretrained(folder)
    paths = tokenizer.save_pretrained(tmp_path / "new")
    assert [Path(path).name for path in paths] == [
        "vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(Path(path).name for path in paths)
    again = LEDTokenizer.from_pretrained(tmp_path / "new")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(TEXT, return_offsets_mapping=True) == tokenizer(TEXT, return_offsets_mapping=True)
    assert again.model_max_length == tokenizer.model_max_length == (8192 if "bundled" in str(folder) else 16384)
    # The two files of the vocabulary say what the originals say.
    assert json.loads(Path(paths[0]).read_text("utf-8")) == json.loads((folder / "vocab.json").read_text("utf-8"))
    assert Path(paths[1]).read_bytes() == (folder / "merges.txt").read_bytes()
    assert Path(tokenizer.save_vocabulary(tmp_path, "tiny")[0]).name == "tiny-vocab.json"


def test_all_styles_give_the_same(tmp_path: Path) -> None:
    """Texts or objects; flags in the map, in tokenizer_config.json or in tokenizer.json; merges as texts or pairs; CR LF."""
    write_tiny(tmp_path)
    expected = LEDTokenizer.from_pretrained(tmp_path)(TEXT + " low <mask>er", return_offsets_mapping=True)

    def check() -> None:
        assert LEDTokenizer.from_pretrained(tmp_path)(TEXT + " low <mask>er", return_offsets_mapping=True) == expected

    objects = {name: {"content": value} if isinstance(value, str) else value for name, value in TINY_SPECIALS.items()}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(objects))
    check()
    (tmp_path / "merges.txt").write_bytes("\r\n".join(TINY_MERGES).encode())  # no version line, no last line feed
    check()
    (tmp_path / "special_tokens_map.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**TINY_SPECIALS, "add_prefix_space": False}))
    check()
    decoder = {
        str(i): {"content": name, "lstrip": name == "<mask>", "special": True}
        for name, i in tiny_vocab().items()
        if i < 4
    }
    decoder |= {"263": {"content": "<mask>", "lstrip": True, "special": True}}
    plain = {name: value if isinstance(value, str) else "<mask>" for name, value in TINY_SPECIALS.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**plain, "added_tokens_decoder": decoder}))
    check()
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").unlink()
    _write_tokenizer_json(tmp_path)
    check()
    values = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    values["model"]["merges"] = TINY_MERGES
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    check()


def _write_tokenizer_json(folder: Path) -> None:
    """tokenizer.json as the library itself writes it."""
    flags = {"normalized": False, "special": True}
    added = {AddedToken(name, **flags): i for name, i in tiny_vocab().items() if i < 4}
    added[AddedToken("<mask>", lstrip=True, special=True)] = 263
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(TINY_MERGES)}
    rust: Tokenizer = RustEngine(tiny_vocab(), ranks, added)._rust
    rust.save(str(folder / "tokenizer.json"))


def test_legacy_added_tokens_file(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<mask>": 263, "<new>": 264}')
    tokenizer = LEDTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("a <mask> <new>") == ["a", "<mask>", "Ġ", "<new>"]
    assert tokenizer.convert_tokens_to_ids("<new>") == 264


def test_huge_model_max_length_is_none(tmp_path: Path) -> None:
    (write_tiny(tmp_path) / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert LEDTokenizer.from_pretrained(tmp_path).model_max_length is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["vocab.json"], "no vocab.json"),
        (["vocab.json", "merges.txt"], "no vocab.json and no merges.txt"),
        (["special_tokens_map.json"], "no special_tokens_map.json"),
    ],
)
def test_missing_files_are_named(tmp_path: Path, names: list[str], said: str) -> None:
    write_tiny(tmp_path)
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(MissingFileError, match=said + r"[\s\S]*[Cc]opy the"):
        LEDTokenizer.from_pretrained(tmp_path)


def test_folders_of_other_models_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").touch()
    with pytest.raises(
        MissingFileError, match=r"tokenizer of another type: SentencePiece \(T5.*LED's is byte-level BPE"
    ):
        LEDTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "longformer"}')
    with pytest.raises(MissingFileError, match=r"config.json is of a 'longformer', and led_ref runs 'led' only"):
        LEDTokenizer.from_pretrained(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no folder .*nowhere. Name one that holds vocab.json"):
        LEDTokenizer.from_pretrained(tmp_path / "nowhere")


def _vocab(**changes: object) -> str:
    return json.dumps({**tiny_vocab(), **changes})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.json", "{", r"vocab.json is not JSON .*Fetch the file again"),
        ("vocab.json", b"\xff\xfe{}", r"vocab.json is not UTF-8: byte 0 is 0xff"),
        ("vocab.json", "[1]", r"vocab.json holds a JSON list, not an object"),
        ("vocab.json", "{}", r"vocab.json holds an empty object, not an object of piece -> id"),
        ("vocab.json", _vocab(low="7"), r"vocab.json: 'low' has '7' for an id; ids are whole numbers"),
        ("vocab.json", _vocab(low=True), r"'low' has True for an id"),
        ("vocab.json", _vocab(low=-1), r"'low' has -1 for an id"),
        ("vocab.json", _vocab(low=2), r"'</s>' and 'low' have the same id 2"),
        ("vocab.json", '{"a": 1, "a": 2}', r"vocab.json is not JSON \(it holds the name 'a' twice\)"),
        ("vocab.json", '{"a": 1}', r"no piece for 242 of the bytes.*: 0x00 \(Ā\), .*\.\.\.\. Texts with them would lose them"),
        ("merges.txt", "#version: 0.2\nl o\nlo\n", r"merges.txt, line 3: 'lo' is not two pieces with one space between"),
        ("merges.txt", "#version: 0.2\nl  o\n", r"merges.txt, line 2: 'l  o' is not two"),
        ("merges.txt", "l o\n\nlo w\n", r"merges.txt, line 2: '' is not two"),
        ("merges.txt", "l o\nlo x\n", r"line 2: 'lo x' needs the piece 'lox', which is not in the vocabulary. Take the merges"),
        ("merges.txt", "#version: 0.2\nzz o\n", r"line 2: 'zz o' needs the piece 'zz'"),
        ("merges.txt", "l o\nl o\n", r"line 2: 'l o' is listed before, at 1"),
        ("special_tokens_map.json", '{"mask_token": 7}', r"special_tokens_map.json: 7 is no token; write a text"),
        ("special_tokens_map.json", '{"mask_token": {}}', r"\{\} is no token"),
        ("special_tokens_map.json", '{"mask_token": ""}', r"content is ''; it must be a text"),
        ("special_tokens_map.json", '{"mask_token": {"content": "m", "single_word": true}}', r"'m' has single_word=True"),
        ("tokenizer_config.json", '{"add_prefix_space": true}', r"add_prefix_space True; LED's is False.*Remove the entry"),
        ("tokenizer_config.json", '{"model_max_length": "many"}', r"model_max_length 'many'; it must be a whole number"),
        ("tokenizer_config.json", '{"padding_side": "up"}', r"padding_side is 'up'; it can be 'right', 'left'"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": "<q>"}}', r"has the id 'x'; ids are whole numbers"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"9": "<q>"}}', r"'<q>' has id 9, but the vocabulary says '\S+'"),
        ("added_tokens.json", '{"low": 300}', r"'low' has id 300, but the vocabulary says None for 300 and 261 for 'low'"),
        ("tokenizer.json", '{"model": {"type": "WordPiece"}}', r"not a tokenizer of LED's type: model.type 'WordPiece'; pre_"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    (write_tiny(tmp_path) / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LEDError, match=said) as caught:
        LEDTokenizer.from_pretrained(tmp_path)
    if name in ("vocab.json", "merges.txt", "tokenizer.json"):
        assert isinstance(caught.value, CheckpointError)
    assert len(list(tmp_path.iterdir())) == 4 + (name in ("added_tokens.json", "tokenizer.json"))


def test_failed_save_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = LEDTokenizer(tiny_vocab(), TINY_MERGES)
    tokenizer.save_pretrained(tmp_path)
    before = (tmp_path / "vocab.json").read_bytes()

    def full(source: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "vocab.json").read_bytes() == before
    assert not [path for folder in (tmp_path, tmp_path.parent) for path in folder.glob(".*unfinished")]


def test_line_ends_of_merges(tmp_path):
    """CR LF or CR at the end of each line: the same merges."""
    sound = LEDTokenizer(tiny_vocab(), TINY_MERGES)
    sound.save_pretrained(tmp_path)
    lines = (tmp_path / "merges.txt").read_bytes()
    for end in (b"\r\n", b"\r"):
        (tmp_path / "merges.txt").write_bytes(lines.replace(b"\n", end))
        assert LEDTokenizer.from_pretrained(tmp_path)(TEXT) == sound(TEXT)
