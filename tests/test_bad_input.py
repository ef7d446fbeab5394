"""Every kind of bad input that the project promises to refuse, once, where a user meets it.

A row is refused with an error of the right kind that gives what was found and what to do. On the command line that is
exit code 1, a message on standard error, nothing on standard output. And no file has appeared, gone or changed.
The details are tested beside each part: tests/weights, tests/generation, tests/model, test_documents.py, test_config.py.
"""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch_files import Record, View, archive, zip_records

import led_ref
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, ConfigError, InputError, LEDError, MissingFileError, SettingsError
from led_ref.pipelines.text_files import read_document
from led_ref.tools.random_weights import write_random_checkpoint
from led_ref.weights.convert import convert
from led_ref.weights.from_bart import convert_bart
from led_ref.weights.safetensors_file import read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import StoredTensor
from led_ref.weights.summary import summarize_checkpoint

FC1 = "led.encoder.layers.1.fc1.weight"
# As small as can be, but for the vocabulary, which is that of the bundled tokenizer.
CONFIG = LEDConfig(
    vocab_size=6144,
    d_model=6,
    max_encoder_position_embeddings=23,
    max_decoder_position_embeddings=11,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=3,
    encoder_ffn_dim=5,
    decoder_ffn_dim=7,
    attention_window=4,
)


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below a folder, hidden ones too, with what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "/"
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A model of random weights with a tokenizer: there is nothing wrong with it."""
    folder = tmp_path_factory.mktemp("sound")
    write_random_checkpoint(folder, CONFIG)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        shutil.copyfile(led_ref.bundled_model() / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def model(sound):
    return led_ref.load(sound)


@pytest.fixture
def scene(tmp_path, sound, monkeypatch):
    """The current folder, with a sound model in `model` and a sound document in `page.txt`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sound, tmp_path / "model")
    (tmp_path / "page.txt").write_text("NAME\ntar", encoding="utf-8")
    return tmp_path


def test_messages_are_short():
    """A value of many characters does not fill the message, and the remedy stays."""
    for name in ("dtype", "backend", "quantize", "revision"):
        with pytest.raises(LEDError) as refused:
            led_ref.load("allenai/x" if name == "revision" else None, **{name: "é" * 5000})
        assert len(str(refused.value)) < 1000


def test_the_scene_itself_is_sound(scene, command):
    code, _, err = command("summarize", "page.txt", "--model", "model", "--quiet")
    assert (code, err) == (0, "")
    assert command("convert", "model", "new", "--quiet")[0] == 0


# ---- models -------------------------------------------------------------------------------------------------------------


def weights_with(change: Callable[[bytearray, dict], None] | None = None) -> Callable[[Path], None]:
    """Spoil model.safetensors: `change` is given its bytes behind the header, and the header."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        header, data = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
        change(data, header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))

    return spoil


def tensors_with(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Write model.safetensors anew with other tensors, in a file that is sound in itself."""

    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = {key: np.array(tensor.to_numpy("float32")) for key, tensor in read_safetensors(path).items()}
        change(tensors)
        write_safetensors(path, {key: StoredTensor("F32", array) for key, array in tensors.items()}, {})

    return spoil


def bin_of(content: bytes) -> Callable[[Path], None]:
    """Put a pytorch_model.bin in the place of model.safetensors."""

    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)

    return spoil


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("harm",))


def compressed_bin() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for record in zip_records(*ONE_TENSOR):
            file.writestr(record.name, record.data)
    return buffer.getvalue()


ONE_TENSOR = ({"a": View("FloatStorage", "0", 6, 0, (2, 3), (3, 1))}, {"0": bytes(24)})
LYING = ({"a": View("FloatStorage", "0", 600, 0, (20, 30), (30, 1))}, {"0": bytes(24)})
TRICK = [*zip_records(*ONE_TENSOR), Record("archive/../../harm", b"x")]


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def overlap(data: bytearray, header: dict) -> None:
    start, end = header[FC1]["data_offsets"]
    other = header["led.decoder.layers.0.fc2.weight"]["data_offsets"]
    header[FC1]["data_offsets"] = [other[0], other[0] + end - start]


def oversize(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])


def lie(data: bytearray, header: dict) -> None:
    header[FC1]["shape"] = [5, 7]


def nan(tensors: dict) -> None:
    tensors[FC1][3, 4] = np.nan


@dataclasses.dataclass(frozen=True)
class Row:
    """What is done to the scene, and what the message must say: the found value and the remedy."""

    kind: type
    found: tuple[str, ...]
    remedy: str
    spoil: Callable[[Path], None] = lambda folder: None
    model: str = "model"


MODELS = {
    "no such model": Row(MissingFileError, ("no folder 'nowhere at all'",), "vocab.json", model="nowhere at all"),
    "a file for a folder": Row(MissingFileError, ("page.txt is a file",), "Name the folder", model="page.txt"),
    "no config.json": Row(
        MissingFileError, ("model/config.json",), "copy", lambda folder: (folder / "config.json").unlink()
    ),
    "no weights": Row(
        MissingFileError,
        ("model holds no weights", "config.json"),
        "pytorch_model.bin",
        lambda folder: (folder / "model.safetensors").unlink(),
    ),
    "an impossible config": Row(
        ConfigError,
        ("attention_window holds 5",),
        "Double it",
        lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG.to_dict(), "attention_window": 5})),
    ),
    "safetensors truncated": Row(CheckpointError, ("model.safetensors", "was cut off"), "again", truncate),
    "safetensors overlapping": Row(CheckpointError, (FC1, "overlaps"), "again", weights_with(overlap)),
    "safetensors with an oversized header": Row(CheckpointError, (str(1 << 62),), "again", oversize),
    "safetensors that lies of a shape": Row(CheckpointError, (FC1, "[5, 7]"), "again", weights_with(lie)),
    "a .bin with a forbidden global": Row(
        CheckpointError,
        ("mkdir",),
        "Fetch it again",
        bin_of(archive(zip_records(*ONE_TENSOR, pickle=pickle.dumps(Harmful(), 2)))),
    ),
    "a .bin with a compressed record": Row(
        CheckpointError, ("compressed",), "Fetch it again", bin_of(compressed_bin())
    ),
    "a .bin with a record that lies": Row(
        CheckpointError, ("600",), "Fetch it again", bin_of(archive(zip_records(*LYING)))
    ),
    "a .bin with a path trick": Row(CheckpointError, ("archive/../../harm",), "Fetch it again", bin_of(archive(TRICK))),
    "a missing tensor": Row(CheckpointError, ("1 missing", FC1), "same model", tensors_with(lambda t: t.pop(FC1))),
    "an extra tensor": Row(
        CheckpointError,
        ("1 left over", "one.too.many"),
        "same model",
        tensors_with(lambda t: t.update({"one.too.many": np.zeros(3, np.float32)})),
    ),
    "a misshapen tensor": Row(
        CheckpointError,
        ("1 of another shape", FC1, "(5, 6)", "(4, 6)"),
        "same model",
        tensors_with(lambda t: t.update({FC1: t[FC1][:4]})),
    ),
    "NaN in the weights": Row(CheckpointError, (FC1, "nan at (3, 4)"), "Fetch it again", tensors_with(nan)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(scene, command, name):
    row = MODELS[name]
    row.spoil(scene / "model")
    before = tree(scene)
    with pytest.raises(row.kind) as refused:
        led_ref.load(row.model)
    message = str(refused.value)
    for part in (*row.found, row.remedy):
        assert part in message
    # The same words on the command line. And converting, which writes, leaves nothing behind.
    ways = [("summarize", "page.txt", "--model", row.model, "--quiet")]
    if name != "NaN in the weights":  # those can be converted, as they are
        ways.append(("convert", row.model, "new", "--quiet"))
    for way in ways:
        code, out, err = command(*way)
        assert (code, out) == (1, ""), way
        assert all(part in err for part in row.found)
        assert "Traceback" not in err
        assert tree(scene) == before


def test_hub_model_without_connection(scene, tmp_path_factory):
    """In a process of its own, for huggingface_hub reads its environment once."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("cache"))}
    before = tree(scene)
    arguments = ["summarize", "page.txt", "--model", "allenai/led-base-16384"]
    command = [sys.executable, "-m", "led_ref.cli.main", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    for part in ("cannot be reached", "allenai/led-base-16384", "pytorch_model.bin", "vocab.json"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(scene) == before


# ---- documents ----------------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "no such file": (MissingFileError, None, "no file bad.txt", "Check the name"),
    "an empty document": (InputError, b"", "bad.txt is empty", "Give a document"),
    "nothing but blanks": (InputError, b" \n\n", "bad.txt is empty but for 3 blanks", "Give a document"),
    "not UTF-8": (InputError, b"caf\xe9", "byte 0xe9 at position 3", "iconv"),
    "longer than the position table": (InputError, b"a b c d e f " * 9, "reads at most 23", "--truncate"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(scene, model, command, name):
    kind, content, found, remedy = DOCUMENTS[name]
    if content is not None:
        (scene / "bad.txt").write_bytes(content)
    before = tree(scene)
    with pytest.raises(kind) as refused:
        model.generate(read_document("bad.txt"))
    assert found in str(refused.value)
    assert remedy in str(refused.value)
    for way in (("summarize", "bad.txt", "--model", "model", "--quiet"), ("generate", "bad.txt", "--model", "model")):
        code, out, err = command(*way)
        assert (code, out) == (1, ""), way
        assert found in err
        assert remedy in err
        assert "Traceback" not in err
    assert tree(scene) == before


# ---- generation settings ------------------------------------------------------------------------------------------------

SETTINGS = {
    "more sequences than beams": (
        {"num_beams": 2, "num_return_sequences": 3},
        "num_return_sequences is 3",
        "num_beams=3",
    ),
    "max_length past the positions": ({"max_length": 12}, "max_length is 12", "11"),
    "max_new_tokens past the positions": ({"max_new_tokens": 11}, "11", "max_new_tokens"),
    "an unknown setting": ({"num_beam": 2}, "no generation setting 'num_beam'", "'num_beams'"),
    "no number": ({"num_beams": "two"}, "num_beams is 'two'", "whole number"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(scene, model, command, name):
    settings, found, remedy = SETTINGS[name]
    before = tree(scene)
    with pytest.raises(SettingsError) as refused:
        model.generate("NAME tar", **settings)
    assert found in str(refused.value)
    assert remedy in str(refused.value)
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    code, out, err = command("generate", "page.txt", "--model", "model", *given)
    assert (code, out) == (1, "")
    assert found in err
    assert "Traceback" not in err
    assert tree(scene) == before


# ---- ids and masks, in Python -------------------------------------------------------------------------------------------

IDS = [[0, 5, 7, 2]]
ARGUMENTS = {
    "an id out of range": ({"input_ids": [[0, 5, 6144, 2]]}, "input_ids[0, 2] is 6144", "0 ... 6143"),
    "a negative id": ({"input_ids": [[0, -1, 7, 2]]}, "input_ids[0, 1] is -1", "0 ... 6143"),
    "floats as ids": ({"input_ids": [[0.0, 5.0]]}, "float64", "integers"),
    "an empty batch": ({"input_ids": np.zeros((0, 4), int)}, "(0, 4)", "at least one row"),
    "empty documents": ({"input_ids": [[]]}, "(1, 0)", "at least one"),
    "rows of different lengths": ({"input_ids": [[0, 2], [0, 5, 2]]}, "different lengths (2, 3)", "pad()"),
    "a document longer than the table": ({"input_ids": [[5] * 24]}, "has 24 tokens", "at most 23"),
    "padding without a mask": ({"input_ids": [[0, 5, 2, 1]]}, "input_ids[0, 3] is the pad id 1", "attention_mask"),
    "an attention mask of another shape": ({"attention_mask": [[1, 1, 1]]}, "(1, 3)", "shape (1, 4)"),
    "a global mask of another shape": ({"global_attention_mask": [[1, 0, 0, 0]] * 2}, "(2, 4)", "shape (1, 4)"),
    "an attention mask with a 2": ({"attention_mask": [[1, 1, 2, 1]]}, "attention_mask[0, 2] is 2", "0, 1"),
    "an attention mask with a -1": ({"attention_mask": [[1, 1, 1, -1]]}, "attention_mask[0, 3] is -1", "0, 1"),
    "a global mask with a 2": ({"global_attention_mask": [[2, 0, 0, 0]]}, "is 2", "-1, 0, 1"),
    "a global mask with a half": ({"global_attention_mask": [[0.5, 0, 0, 0]]}, "is 0.5", "-1, 0, 1"),
    "decoder ids out of range": ({"decoder_input_ids": [[2, 9999]]}, "decoder_input_ids[0, 1] is 9999", "0 ... 6143"),
    "a prompt longer than the table": ({"decoder_input_ids": [[2] * 12]}, "12", "11"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("way", ["forward", "generate"])
def test_ids_and_masks(scene, model, way, name):
    given, found, remedy = ARGUMENTS[name]
    before = tree(scene)
    arguments = {"input_ids": IDS, **given}
    if way == "forward":
        arguments.setdefault("decoder_input_ids", [[2]])
    with pytest.raises(InputError) as refused:
        getattr(model.model, way)(**arguments)
    assert found in str(refused.value)
    assert remedy in str(refused.value)
    assert tree(scene) == before


def test_global_mask_minus_one_is_padding(model):
    """The tokenizer pads the global mask with -1; that is no bad input."""
    padded = {"attention_mask": [[1, 1, 1, 1, 0]], "global_attention_mask": [[1, 0, 0, 0, -1]]}
    written = model.model.generate([[*IDS[0], 1]], **padded)
    np.testing.assert_array_equal(written, model.model.generate(IDS, global_attention_mask=[[1, 0, 0, 0]]))


@pytest.mark.parametrize("model_type", ["t5", "longformer", ["led"]])
def test_folder_of_another_model_is_named(tmp_path, model_type):
    """Before any file is missed that the other model never has."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "d_model": 8}))
    (folder / "spiece.model").write_bytes(b"\n\x0e")
    if model_type == "longformer":  # the same tokenizer, but for special_tokens_map.json
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(led_ref.bundled_model() / name, folder / name)
    (tmp_path / "data.jsonl").write_text('{"text": "a", "summary": "b"}\n')
    for attempt in (
        lambda: led_ref.load(folder),
        lambda: led_ref.generate("text", folder),
        lambda: led_ref.answer("question", "text", folder),
        lambda: led_ref.classify("text", folder),
        lambda: led_ref.train(tmp_path / "data.jsonl", folder, tmp_path / "out"),
        lambda: led_ref.LEDModel.from_pretrained(folder),
        lambda: led_ref.LEDTokenizer.from_pretrained(folder),
        lambda: convert(folder, tmp_path / "new"),
        lambda: convert_bart(folder, tmp_path / "new"),
        lambda: summarize_checkpoint(folder),
    ):
        with pytest.raises(LEDError, match=re.escape(repr(model_type))):
            attempt()
