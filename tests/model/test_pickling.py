"""Pickles of models: by folder where that holds the weights, else by arrays; the same texts in another process."""

import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

import led_ref
from led_ref.errors import CheckpointError, MissingFileError

TEXT = "A text about files and folders."
IDS = [[0, 11, 12, 13, 2]]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(led_ref.bundled_model(), tmp_path / "model")


def written(led):
    return led.generate(TEXT, max_new_tokens=4)


@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}, {"quantize": "nf4"}, {"keep_stored": True}])
def test_pickle_by_folder(options):
    led = led_ref.load(backend="numpy", **options)
    assert len(pickle.dumps(led.model)) < 4000
    again = pickle.loads(pickle.dumps(led))
    assert written(again) == written(led)
    assert again.model.params is again.model.led.params
    assert again.model.params.lm_head is again.model.params.shared
    assert len(pickle.dumps(again.model)) < 4000


def test_spawned_process():
    led = led_ref.load(backend="numpy")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(written, [led]) == [written(led)]


@pytest.mark.parametrize("engine", ["python", "rust"])
def test_tokenizer(engine):
    tokenizer = led_ref.LEDTokenizer.from_pretrained(led_ref.bundled_model(), engine=engine)
    assert pickle.loads(pickle.dumps(tokenizer))(TEXT, TEXT) == tokenizer(TEXT, TEXT)


def test_other_weights_in_the_folder(folder):
    model = led_ref.LEDForConditionalGeneration.from_pretrained(folder, backend="numpy")
    kept = pickle.dumps(model)
    rng = np.random.default_rng(1)
    state = {key: array + rng.normal(size=array.shape).astype("f4") for key, array in model.state_dict().items()}
    state = {key: state["led.shared.weight"] if array.shape == (6144, 192) else array for key, array in state.items()}
    other = type(model).from_state_dict(model.config, state, backend="numpy")
    other.save_pretrained(folder, overwrite=True)
    with pytest.raises(CheckpointError, match="other weights"):
        pickle.loads(kept)
    shutil.rmtree(folder)
    with pytest.raises(MissingFileError):
        pickle.loads(kept)


def test_a_trace_can_be_sent():
    traced = led_ref.trace(led_ref.load().model, [[0, 5, 2]], decoder_input_ids=[[2]], only="logits")
    again = pickle.loads(pickle.dumps(traced))
    assert (list(again), again.radii) == (list(traced), traced.radii)
    assert (again["logits"] == traced["logits"]).all()


def test_pickle_by_arrays():
    """What no folder holds: made in memory, and resized. Settings that were changed go along."""
    made = led_ref.LEDForConditionalGeneration.from_state_dict(CONFIG, draw_weights(CONFIG), backend="numpy")
    resized = led_ref.load(backend="numpy").model.resize_token_embeddings(8200)
    for model in (made, resized):
        model.generation_config = {"min_new_tokens": 3, "max_new_tokens": 3}
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.generate(IDS), model.generate(IDS))
        assert again.generate(IDS).shape == (1, 4)


def test_loaded_weights_are_read_only():
    """So no change of them can be lost in a pickle by folder."""
    for options in ({}, {"dtype": "float64"}):
        params = led_ref.load(backend="numpy", **options).model.params
        with pytest.raises(ValueError, match="read-only"):
            params.encoder.layers[0].fc1.weight[0, 0] = 1
    own = draw_weights(CONFIG)
    led_ref.LEDForConditionalGeneration.from_state_dict(CONFIG, own, backend="numpy", dtype="float64")
    assert all(array.flags.writeable for array in own.values())
