"""Models that were saved: the same bits when they are read again, in one file or many; and embeddings of another size."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_keys import leaves
from test_load import LM_HEAD

import led_ref
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.heads import LEDForQuestionAnswering, LEDForSequenceClassification
from led_ref.classes.led import LEDModel
from led_ref.errors import CheckpointError, ConfigError, InputError, MissingFileError
from led_ref.weights.keys import entries, heads_of
from led_ref.weights.save import bytes_of_size

CLASSES = (LEDForConditionalGeneration, LEDModel, LEDForQuestionAnswering, LEDForSequenceClassification)


def make(kind, config, tensors, **generation):
    heads = heads_of(kind.architecture)
    if heads:  # such a class writes no words; its head is drawn
        no_words = {LM_HEAD, "final_logits_bias"}
        rows = [row for row in entries(config, heads) if row.key.split(".")[0] in heads]
        head = {row.key: np.random.default_rng(3).standard_normal(row.shape).astype(np.float32) for row in rows}
        tensors = {key: array for key, array in tensors.items() if key not in no_words} | head
    model = kind.from_state_dict(config, tensors, backend="numpy")
    return kind(model.config, model.params, backend="numpy", generation_config=generation)


def assert_same_bits(ours, theirs):
    for (field, a), (_, b) in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=field, strict=True)


@pytest.mark.parametrize("size", ["1GB", 700])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_save_and_load_bit_equal(config, tensors, tmp_path, kind, tied, size):
    if not tied:
        config, tensors[LM_HEAD] = replace(config, tie_word_embeddings=False), tensors["led.shared.weight"] + 1
    model = make(kind, config, tensors, num_beams=3)
    files = model.save_pretrained(tmp_path / "saved", max_shard_size=size)
    again = kind.from_pretrained(tmp_path / "saved", backend="numpy")
    is_writer = kind is LEDForConditionalGeneration
    if not is_writer:  # its files have no output projection: the embedding stands in
        zeros = np.zeros_like(model.params.final_logits_bias)
        expected = replace(model.params, lm_head=model.params.shared, final_logits_bias=zeros)
        assert_same_bits(again.params, expected)
    else:
        assert_same_bits(again.params, model.params)
    assert again.generation_config == {"num_beams": 3}
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (written["architectures"], written["dtype"]) == ([kind.__name__], "float32")
    assert replace(again.config, extra={}) == config

    held = {key: path.name for path in files for key in load_file(path)}
    beside = {key.split(".")[0] for key in held if not key.startswith("led.")}
    if kind is LEDModel:
        assert beside == {"shared", "encoder", "decoder"}
    else:
        assert beside == set(heads_of(kind.architecture) or ("final_logits_bias", "lm_head")[: 2 - tied])

    if size == "1GB":
        assert [path.name for path in files] == ["model.safetensors"]
        return
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == held
    assert len(files) > 5
    for path in files:
        arrays = load_file(path)
        assert sum(array.nbytes for array in arrays.values()) <= 700 or len(arrays) == 1


def test_save_pretrained_of_text_model(bundled, tmp_path, manual_page):
    bundled.save_pretrained(tmp_path / "copy")
    again = led_ref.load(tmp_path / "copy")
    assert again.tokenizer(manual_page) == bundled.tokenizer(manual_page)
    short = manual_page[:300]
    assert again.generate(short, max_new_tokens=4) == bundled.generate(short, max_new_tokens=4)


def test_no_overwriting_without_permission(config, tensors, tmp_path, monkeypatch):
    model = make(LEDForConditionalGeneration, config, tensors)
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match=r"holds model.safetensors already.*overwrite=True"):
        model.save_pretrained(tmp_path / "saved")
    with pytest.raises(MissingFileError, match="no folder"):
        model.save_pretrained(tmp_path / "nowhere" / "saved")

    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    with pytest.raises(CheckpointError, match="No space left"):
        model.save_pretrained(tmp_path / "saved", overwrite=True, others=fail)
    real = os.replace

    def interrupted(old, new):
        if new.name.startswith("model-00003"):
            raise KeyboardInterrupt
        real(old, new)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path / "saved", overwrite=True, max_shard_size=700)
    assert {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before
    monkeypatch.undo()

    larger = model.resize_token_embeddings(config.vocab_size + 1)
    larger.save_pretrained(tmp_path / "saved", overwrite=True, max_shard_size=700)
    # The old single file would be read before the new shards: it must be gone.
    assert_same_bits(
        LEDForConditionalGeneration.from_pretrained(tmp_path / "saved", backend="numpy").params, larger.params
    )


@pytest.mark.parametrize("size", ["5 apples", "0KB", 0, True, 1.5, None])
def test_a_size_is_bytes_or_a_text(size):
    with pytest.raises(InputError, match=r"max_shard_size is .*'200MB'"):
        bytes_of_size(size)
    assert (bytes_of_size("1.5 kb"), bytes_of_size("2TB")) == (1500, 2 * 10**12)


@pytest.mark.parametrize("tied", [True, False])
def test_resized_embeddings_start_at_the_mean(config, tensors, tied):
    if not tied:
        config, tensors[LM_HEAD] = replace(config, tie_word_embeddings=False), tensors["led.shared.weight"] * 2 + 1
    model = make(LEDForConditionalGeneration, config, tensors, num_beams=3)
    before, old = model.params.shared.copy(), config.vocab_size
    larger = model.resize_token_embeddings(old + 3)
    assert (larger.config.vocab_size, larger.generation_config) == (old + 3, {"num_beams": 3})
    assert (larger.params.lm_head is larger.params.shared) == tied
    for name in ("shared", "lm_head"):
        new_rows, old_rows = getattr(larger.params, name), getattr(model.params, name)
        np.testing.assert_array_equal(new_rows[:old], old_rows, strict=True)
        np.testing.assert_allclose(new_rows[old:], np.tile(old_rows.mean(axis=0), (3, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(larger.params.final_logits_bias[0, old:], 0)
    call = {"input_ids": [[0, 5, 7, 2]], "decoder_input_ids": [[2, 9]]}
    np.testing.assert_array_equal(larger(**call).logits[..., :old], model(**call).logits)
    assert larger(input_ids=[[0, old + 2, 2]], decoder_input_ids=[[2]]).logits.shape == (1, 1, old + 3)

    assert_same_bits(larger.resize_token_embeddings(old).params, model.params)
    np.testing.assert_array_equal(model.params.shared, before)
    with pytest.raises(ConfigError, match=r"decoder_start_token_id is 2; ids lie in 0 ... 1"):
        model.resize_token_embeddings(2)
    with pytest.raises(InputError, match="new_num_tokens is 0; give"):
        model.resize_token_embeddings(0)


def test_generation_config_from_config_json(config, tensors, tmp_path):
    says_three = replace(config, extra={"num_beams": 3})
    LEDForConditionalGeneration.from_state_dict(says_three, tensors, backend="numpy").save_pretrained(tmp_path / "old")
    make(LEDForConditionalGeneration, says_three, tensors).save_pretrained(tmp_path / "new")  # its file says nothing
    beams = {}
    for name in ("old", "new"):
        model = LEDForConditionalGeneration.from_pretrained(tmp_path / name, backend="numpy")
        beams[name] = ((tmp_path / name / "generation_config.json").exists(), model.effective_settings().num_beams)
    assert beams == {"old": (False, 3), "new": (True, 1)}
