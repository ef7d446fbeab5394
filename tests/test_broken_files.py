"""Files broken on purpose: one file for each kind of damage that once ended in a crash, in minutes, or in gigabytes."""

import json
import struct
import time
from pathlib import Path

import pytest
from fuzz.run import bounded_memory
from fuzz.scenes import TOKENIZER, VOCAB, Scene, scenes, write

from led_ref.errors import MAX_MESSAGE, LEDError, MissingFileError, quoted
from led_ref.weights.find_files import resolve
from led_ref.weights.keys import checkpoint_entries


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Scene]:
    return scenes(tmp_path_factory.mktemp("made"))


def raw(scene: str, **texts: str) -> tuple[str, dict[str, str]]:
    """A scene, and JSON texts to put under names of its file."""
    return scene, texts


NESTED = "[" * 700 + "]" * 700
SURROGATE = '"\\ud800"'
HUGE = "1" + "0" * 400
CASES = {
    "a million layers": (*raw("config.json", encoder_layers="1000000"), "encoder_layers is 1000000.*at most 1,000"),
    "more layers than tensors": (*raw("config.json", decoder_layers="900"), "900 decoder layers, but the weights are 78 ten"),
    "a dropout of 400 digits": (*raw("config.json", dropout=HUGE), "401 digits"),
    "a size beyond any memory": (*raw("config.json", vocab_size="9" * 30), "vocab_size is 9{30}.*at most"),
    "an unknown key, nested": (*raw("config.json", later=NESTED), "nested more than 64 deep"),
    "one list too deep": (*raw("tokenizer_config.json", later="[" * 65 + "]" * 65), "nested more than 64 deep"),
    "nested without end": (*raw("config.json", later="[" * 100_000), "nested more than 64 deep|not JSON"),
    "a surrogate": (*raw("config.json", later=SURROGATE), "half of a surrogate pair"),
    "labels that are a number": (*raw("a classifier's config.json", id2label="5"), "id2label is 5; it must be an object"),
    "thirty million labels": (
        *raw("a classifier's config.json", num_labels="30000000", id2label="null"), r"\(3, 6\) in the file, \(30000000, 6\)"
    ),
    "thirty million labels, three names": (*raw("a classifier's config.json", num_labels="30000000"), "num_labels is 30000000"),
    "a problem type that is a list": (*raw("a classifier's config.json", problem_type="[]"), r"problem_type is \[\]"),
    "a million beams": (*raw("generation_config.json", num_beams="1000000"), "num_beams is 1000000 .*at most 1000"),
    "a million texts": (*raw("generation_config.json", num_return_sequences="1000000"), "num_return_sequences is 1000000"),
    "a length penalty of 400 digits": (*raw("generation_config.json", length_penalty=HUGE), "401 digits"),
    "a diversity penalty of 1e308": (*raw("generation_config.json", diversity_penalty="1e308"), "diversity_penalty is 1e.308"),
    "no limit that is Infinity": (*raw("tokenizer_config.json", model_max_length="Infinity"), "holds 'Infinity'"),
    "no limit that is NaN": (*raw("tokenizer_config.json", model_max_length="NaN"), "holds 'NaN'"),
    "further tokens, a number": (*raw("tokenizer_config.json", additional_special_tokens="5"), "is 5; it must be a list"),
    "a token of three million letters": (
        *raw("tokenizer_config.json", extra_special_tokens='["' + "y" * 3_000_000 + '"]'), "3,000,0.. letters; the limits are"
    ),
    "a decoder that is a list": (*raw("tokenizer_config.json", added_tokens_decoder="[1]"), r"is \[1\]; it must be an object"),
    "a decoder's id of 5,000 digits": (
        *raw("tokenizer_config.json", added_tokens_decoder='{"' + "9" * 5000 + '": "a"}'), r"has the id '9+ \.\.\. 9+'"
    ),
    "an added id that is a list": (*raw("added_tokens.json", a="[]"), r"'a' has \[\] for an id"),
    "an added id of 31 digits": (*raw("added_tokens.json", a="1" + "0" * 30), "'a' has 10+ for an id"),
    "an id of 31 digits": (*raw("vocab.json", a="1" + "0" * 30), "'a' has 10+ for an id"),
    "a piece with a surrogate": (*raw("vocab.json", **{"\\ud800": "500"}), "half of a surrogate pair"),
    "added tokens that are a number": (*raw("tokenizer.json", added_tokens="7"), "added_tokens is 7; it must be a list"),
    "no merges": (*raw("tokenizer.json", model=json.dumps({"vocab": VOCAB, "merges": None})), "merges is None"),
    "a shard with a long name": (
        *raw("an index", weight_map='{"a": "' + "n" * 300 + '.safetensors"}'), "a shard is a plain file name"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_damage_ends_in_a_short_message(sound, tmp_path, name):
    key, texts, said = CASES[name]
    scene = sound[key]
    values = {json.dumps(name): json.dumps(value) for name, value in json.loads(scene.files[scene.file]).items()}
    values |= {f'"{name}"': text for name, text in texts.items()}
    write(tmp_path, scene.files)
    content = "{" + ", ".join(f"{name}: {text}" for name, text in values.items()) + "}"
    (tmp_path / scene.file).write_text(content, encoding="utf-8")
    started = time.process_time()
    for use in scene.uses.values() if scene.uses is TOKENIZER else list(scene.uses.values())[:1]:
        with bounded_memory(100_000_000), pytest.raises(LEDError, match=said) as refused:
            use(tmp_path)
        assert len(str(refused.value)) < MAX_MESSAGE
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("scene", "content", "said"),
    [
        ("vocab.json", b"{" + b", ".join([b'"a": 1'] * 100_000) + b"}", "holds the name 'a' twice"),
        ("an index", b'{"weight_map": {' + b", ".join([b'"a": "b"'] * 100_000) + b"}}", "holds the name 'a' twice"),
        ("vocab.json", b'{"a": "' + b"x" * (1 << 24) + b'"}', r"has 16,777,225 bytes; the limit is 16,777,216"),
        ("merges.txt", b"a b\n" * (1 << 23), r"bytes; the limit is 16,777,216"),
        ("config.json", b'{"d_model": "' + b"x" * 10_000_000 + b'"}', r"d_model is 'x+' \.\.\. 'x+' \(10,000,000 char"),
        ("config.json", b'{"a": [' + b"[], " * 500_001 + b"0]}", "lists and commas; the limit is 1,000,000"),
        ("model.safetensors", struct.pack("<Q", 1 << 25) + b"{" + b" " * (1 << 25), "a header at most"),
    ],
    ids=[
        "a repeated piece",
        "a repeated tensor",
        "a large file",
        "many merges",
        "a long value",
        "many lists",
        "a long header",
    ],
)
def test_large_damage_takes_little(sound, tmp_path, scene, content, said):
    write(tmp_path, {**sound[scene].files, sound[scene].file: content})
    started = time.process_time()
    for use in sound[scene].uses.values():
        with bounded_memory(2 * len(content) + 200_000_000), pytest.raises(LEDError, match=said) as refused:
            use(tmp_path)
        assert len(str(refused.value)) < 1000
    assert time.process_time() - started < 5


def test_no_table_is_made_of_too_many_layers(sound, tmp_path, monkeypatch):
    """The number of layers is compared with the file's tensors before the keys of all layers are made."""
    for key in ("config.json", "BART's config.json"):
        scene = sound[key]
        values = json.loads(scene.files["config.json"]) | {"encoder_layers": 800, "attention_window": 4}
        write(tmp_path, {**scene.files, "config.json": json.dumps(values).encode()})

        def refuse(*_: object) -> None:
            pytest.fail("the table was made")

        for module in ("load", "from_bart"):
            monkeypatch.setattr(f"led_ref.weights.{module}.{checkpoint_entries.__name__}", refuse)
        for use in list(scene.uses.values())[:1]:
            with pytest.raises(LEDError, match="800 encoder"):
                use(tmp_path)


@pytest.mark.parametrize("name", ["n" * 5000, "a\0b", "n/" + "m" * 300])
def test_folder_names_that_cannot_be(name):
    with pytest.raises(MissingFileError, match=r"There (can be|is) no folder") as refused:
        resolve(Path(name))
    assert len(str(refused.value)) < 1000


def test_a_message_is_cut():
    assert len(str(LEDError("x" * 10**6))) <= MAX_MESSAGE
    assert str(LEDError("short")) == "short"
    assert len(quoted("x" * 10**7)) < 250
    assert quoted("short") == "'short'"
