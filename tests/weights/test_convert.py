"""Conversion: the same numbers in transformers 5's layout, all of it or nothing."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from test_keys import leaves
from test_load import FORMS, LM_HEAD, SHARED, load

from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, ConfigError, InputError, MissingFileError
from led_ref.files import staging
from led_ref.weights import convert as convert_module
from led_ref.weights import safetensors_file
from led_ref.weights.convert import convert
from led_ref.weights.keys import EMBED_TOKENS

FC1 = "led.encoder.layers.1.fc1.weight"
TOKENIZER = {"vocab.json": b"{}", "merges.txt": b"#version: 0.2\n", "generation_config.json": b'{"num_beams": 4}'}


@pytest.fixture
def source(make_folder, tensors):
    folder = make_folder(tensors, name="source")
    for name, content in TOKENIZER.items():
        (folder / name).write_bytes(content)
    (folder / "training_args.bin").write_bytes(b"stays behind")
    return folder


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")


def tree(folder):
    """Every file below a folder, hidden ones too, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_to_transformers_layout(make_folder, tensors, config, tmp_path, form):
    source = make_folder(FORMS[form](tensors), shards=2)
    report = convert(source, tmp_path / "new", dtype="float32")
    if form.startswith("LEDModel"):
        tensors["final_logits_bias"] = np.zeros((1, config.vocab_size), np.float32)
    # Read by the safetensors library. Dictionaries of arrays are compared key by key.
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for key, array in tensors.items():
        np.testing.assert_array_equal(written[key], array, strict=True)
    with safe_open(tmp_path / "new" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert (report.tensors, report.dtypes) == (len(tensors), ("float32",))
    written_config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert written_config["architectures"] == ["LEDForConditionalGeneration"]
    assert written_config["dtype"] == "float32"
    assert written_config.items() >= json.loads((source / "config.json").read_text()).items()


def test_other_files_and_report(source, tmp_path):
    report = convert(source, tmp_path / "new")
    files = tree(tmp_path / "new")
    assert {name: files[name] for name in TOKENIZER} == TOKENIZER
    assert files.keys() == {*TOKENIZER, "config.json", "model.safetensors"}
    assert sorted(report.copied) == sorted(TOKENIZER)
    assert report.bytes_written == len(files["model.safetensors"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "source"]  # no hidden leftovers


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rounding_and_report(source, config, tensors, tmp_path, dtype):
    edit_config(source, torch_dtype="float32", architectures=["LEDModel"], unknown=[1])
    before = load(source, config)
    assert convert(source, tmp_path / "new", dtype=dtype).dtypes == (dtype,)
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (written["dtype"], written["architectures"], written["unknown"]) == (dtype, ["LEDModel"], [1])
    assert "torch_dtype" not in written
    relative = {"float16": 0.0, "bfloat16": 2.0**-8}[dtype]  # they are float16 numbers; bfloat16 has 8 bits of them
    for (field, ours), (_, theirs) in zip(leaves(load(tmp_path / "new", config)), leaves(before), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=relative, atol=0, err_msg=field)


def test_allenais_window_is_doubled(make_folder, tensors, tmp_path):
    source = make_folder(FORMS["allenai"](tensors))
    edit_config(
        source, attention_window=[2, 3], attention_mode="sliding_chunks", attention_dilation=[1, 1], model_type="bart"
    )
    convert(source, tmp_path / "new")
    assert LEDConfig.from_pretrained(tmp_path / "new").windows == (4, 6)
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == "led"


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_an_untied_lm_head_is_written(make_folder, tensors, tmp_path, tie_word_embeddings):
    tensors[LM_HEAD] = tensors[SHARED] + np.float32(1)
    source = make_folder(tensors)
    edit_config(source, tie_word_embeddings=tie_word_embeddings)
    convert(source, tmp_path / "new")
    written = load_file(tmp_path / "new" / "model.safetensors")
    # transformers makes up any of the four tables that it takes for untied and does not find.
    assert written.keys() == tensors.keys() | (set() if tie_word_embeddings else set(EMBED_TOKENS))
    np.testing.assert_array_equal(written[LM_HEAD], tensors[LM_HEAD])
    for key in written.keys() & set(EMBED_TOKENS):
        np.testing.assert_array_equal(written[key], tensors[SHARED])


def test_head_of_another_class_is_kept(make_folder, tensors, tmp_path):
    shapes = {"dense.weight": (14, 14), "dense.bias": (14,), "out_proj.weight": (3, 14), "out_proj.bias": (3,)}
    tensors |= {f"classification_head.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    del tensors["final_logits_bias"]
    source = make_folder(tensors)
    edit_config(source, id2label={"0": "a", "1": "b", "2": "c"})
    convert(source, tmp_path / "new")
    assert load_file(tmp_path / "new" / "model.safetensors").keys() == tensors.keys()


# ---- all or nothing -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["new folder", "old weights", "in place"])
def destination(request, source, tmp_path):
    """Where a conversion goes that is going to fail."""
    if request.param == "in place":
        return source
    if request.param == "old weights":
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "model.safetensors").write_bytes(b"old")
        (tmp_path / "there" / "notes.txt").write_bytes(b"mine")
    return tmp_path / "there"


def interrupt_renames(monkeypatch):
    """Ctrl-C when the new folder is about to take its place."""

    def rename(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(staging, "_exchange", rename)
    monkeypatch.setattr(staging.os, "rename", rename)
    return KeyboardInterrupt


def fail_verification(monkeypatch):
    """A bit of the file is another one than was written."""
    compare = safetensors_file._compare

    def spoil_and_compare(unfinished, *what):
        written = bytearray(unfinished.read_bytes())
        written[-1] ^= 1
        unfinished.write_bytes(written)
        compare(unfinished, *what)

    monkeypatch.setattr(safetensors_file, "_compare", spoil_and_compare)
    return CheckpointError


def full_disk(monkeypatch):
    def copyfile(old, new):
        new.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module.shutil, "copyfile", copyfile)
    return CheckpointError


@pytest.mark.parametrize("breakage", [interrupt_renames, fail_verification, full_disk])
def test_failure_changes_nothing(source, destination, tmp_path, monkeypatch, breakage):
    before = tree(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(breakage(patch)):
        convert(source, destination, overwrite=True)
    assert tree(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({name.split("/")[0] for name in before})
    convert(source, destination, overwrite=True)  # and the next attempt works
    assert (destination / "notes.txt").exists() == (tmp_path / "there" / "notes.txt").exists()
    assert (destination / "model.safetensors").stat().st_size > 1000


def missing_config(source):
    (source / "config.json").unlink()
    return MissingFileError, r"config\.json"


def another_model(source):
    edit_config(source, model_type="bart")
    return ConfigError, "'bart'"


def other_sizes(source):
    edit_config(source, d_model=28)
    return CheckpointError, "of another shape"


def truncated(source):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return CheckpointError, r"model\.safetensors"


@pytest.mark.parametrize("spoil", [missing_config, another_model, other_sizes, truncated])
def test_a_bad_source_leaves_no_trace(source, tmp_path, spoil):
    kind, message = spoil(source)
    before = tree(tmp_path)
    with pytest.raises(kind, match=message):
        convert(source, tmp_path / "new")
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_float16_overflow_is_named(make_folder, tensors, tmp_path):
    tensors[FC1] = tensors[FC1] + np.float32(70000)
    source = make_folder(tensors)
    with pytest.raises(InputError, match=rf"{FC1} holds .*too large for F16"):
        convert(source, tmp_path / "new", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    convert(source, tmp_path / "new", dtype="bfloat16")


def test_destination_and_dtype_checked_first(source, tmp_path):
    with pytest.raises(InputError, match=r"model\.safetensors already.*overwrite"):
        convert(source, source)
    with pytest.raises(InputError, match="is a file"):
        convert(source, source / "config.json")
    with pytest.raises(MissingFileError, match=r"no folder .*nowhere"):
        convert(source, tmp_path / "nowhere" / "new")
    with pytest.raises(InputError, match="'int8'; choose one of float32, float16, bfloat16"):
        convert(source, tmp_path / "new", dtype="int8")
