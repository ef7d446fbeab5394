"""Accumulated gradients, their weights, what is trained and what is frozen."""

import tracemalloc

import numpy as np
import pytest

import led_ref
from led_backends.numpy_backend import NumpyBackend
from led_ref.errors import InputError
from led_ref.training.accumulator import GradientAccumulator, loss_divisors
from led_ref.training.optimizers import AdamW, initial_state
from led_ref.training.parameters import frozen_keys, trainable_copy, trained_parameters
from led_ref.weights.convert import convert

BACKEND = NumpyBackend(2)
PARAMETERS = {"fc1.weight": np.zeros((401, 211), np.float32), "fc1.bias": np.zeros(401, np.float32)}


def parts(seed, count=3):
    rng = np.random.default_rng(seed)
    return [{key: rng.standard_normal(a.shape).astype(a.dtype) for key, a in PARAMETERS.items()} for _ in range(count)]


def test_parts_add_up_step_after_step():
    accumulator = GradientAccumulator(PARAMETERS, BACKEND)
    for step in range(2):
        given = parts(step)
        for part in given:
            for key, gradient in part.items():
                accumulator.add(key, gradient.copy())
        for key, total in accumulator.gradients.items():
            np.testing.assert_array_equal(total, given[0][key] + given[1][key] + given[2][key])
            assert total.dtype == np.float32
        accumulator.clear()
    assert accumulator.gradients == {}


def test_no_gradient_is_held_twice():
    """The first part is the sum, and after `clear` nothing is left: LED-base's would be 0.65 GB more in each step."""
    accumulator, gradient = GradientAccumulator(PARAMETERS, BACKEND), parts(0)[0]["fc1.weight"]
    accumulator.add("fc1.weight", gradient)
    assert accumulator.gradients["fc1.weight"] is gradient
    tracemalloc.start()
    accumulator.add("fc1.weight", parts(1)[0]["fc1.weight"])
    accumulator.clear()
    del gradient
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < PARAMETERS["fc1.weight"].nbytes


def test_parameters_without_a_part_have_no_gradient():
    accumulator = GradientAccumulator(PARAMETERS, BACKEND, frozen=["fc1.weight"])
    accumulator.add("fc1.bias", parts(0)[0]["fc1.bias"])
    assert accumulator.gradients.keys() == {"fc1.bias"}
    assert [accumulator.needs(key) for key in ("fc1.weight", "fc1.bias", "final_logits_bias")] == [False, True, False]
    with pytest.raises(InputError, match=r"fc1.weight is frozen or no parameter"):
        accumulator.add("fc1.weight", PARAMETERS["fc1.weight"])


@pytest.mark.parametrize("wrong", [np.zeros(401), np.zeros((1, 401), np.float32)])
def test_gradient_of_another_shape_or_dtype_is_refused(wrong):
    with pytest.raises(InputError, match=r"gradient of fc1.bias is float.*the parameter is float32 \(401,\)"):
        GradientAccumulator(PARAMETERS, BACKEND).add("fc1.bias", wrong)


def test_weights_of_micro_batches():
    """Losses of 30 and 10 labels, each 1 on the one side and each 3 on the other."""
    sums, counts = [(30.0,), (30.0,)], [(30,), (10,)]
    for name, expected in [("labels", 60 / 40), ("transformers", (1 + 3) / 2)]:
        divisors = loss_divisors(counts, name)
        assert sum(s / d for (s,), (d,) in zip(sums, divisors, strict=True)) == pytest.approx(expected)
    assert loss_divisors([(2, 3), (0, 1)]) == [(2, 4), (2, 4)]  # spans: an answer that was cut off has no start


@pytest.mark.parametrize(
    ("counts", "name", "message"),
    [
        ([(3,)], "mean", "'mean'; choose 'labels' or 'transformers'"),
        ([(0,), (0,)], "labels", "number 0: its loss would be a mean of nothing"),
        ([], "labels", "number none"),
        ([(3,), (0,)], "transformers", "Leave it out, or use accumulate_as='labels'"),
    ],
)
def test_micro_batches_without_labels_are_refused(counts, name, message):
    with pytest.raises(InputError, match=message):
        loss_divisors(counts, name)


def test_trainable_copy_is_the_model(bundled):
    original = bundled.model
    copy = trainable_copy(original)
    parameters = trained_parameters(copy)
    assert copy.params.lm_head is copy.params.shared is parameters["led.shared.weight"]
    assert {"lm_head.weight", "final_logits_bias"}.isdisjoint(parameters)
    ids = [[0, 9, 11, 2]]
    before = copy.backend.to_host(copy(input_ids=ids, labels=ids).loss)
    np.testing.assert_array_equal(before, original.backend.to_host(original(input_ids=ids, labels=ids).loss))
    state = initial_state(AdamW(), parameters, copy.backend)  # refuses what cannot be changed in place
    signs = np.random.default_rng(0).choice(
        [-1, 1], copy.params.shared.shape
    )  # a LayerNorm does not see a shift of all
    gradients = {"led.shared.weight": copy.backend.to_device(signs.astype(np.float32))}
    AdamW().update(parameters, gradients, state, 0.01, copy.backend)
    assert copy(input_ids=ids, labels=ids).loss != before
    np.testing.assert_array_equal(original(input_ids=ids, labels=ids).loss, before)


def test_number_of_trained_parameters(bundled):
    from led_ref.weights.keys import parameter_count

    parameters = trained_parameters(bundled.model)
    assert sum(array.size for array in parameters.values()) == parameter_count(bundled.model.config)


def test_quantized_weights_are_not_trained(tmp_path):
    """The bundled classifier is stored in 8 bits. What the error advises makes a model that can be trained."""
    folder, floats = led_ref.bundled_model() / "classifier", tmp_path / "floats"
    with pytest.raises(InputError, match="led-ref convert FOLDER OTHER --dtype float32"):
        trainable_copy(led_ref.LEDForSequenceClassification.from_pretrained(folder))
    convert(folder, floats, dtype="float32")
    trainable_copy(led_ref.LEDForSequenceClassification.from_pretrained(floats))
    with pytest.raises(InputError, match="is quantized or stored in half precision"):
        trainable_copy(led_ref.load(backend="numpy", quantize="int8").model)


def test_frozen_names(bundled):
    keys = trained_parameters(bundled.model)
    assert frozen_keys([], keys) == frozenset()
    assert frozen_keys(["embeddings"], keys) == {"led.shared.weight"}
    assert frozen_keys(["positions"], keys) == {
        "led.encoder.embed_positions.weight",
        "led.decoder.embed_positions.weight",
    }
    encoder = frozen_keys(["encoder"], keys)
    assert encoder == {key for key in keys if key.startswith("led.encoder.")}
    assert frozen_keys(["encoder", "embeddings"], keys) == encoder | {"led.shared.weight"}
    layer = frozen_keys(["led.encoder.layers.1"], [*keys, "led.encoder.layers.10.fc1.bias"])
    assert layer == {key for key in keys if key.startswith("led.encoder.layers.1.")}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["encodr"], "no 'encodr' to freeze; did you mean 'encoder'"),
        (["led.encoder.layers.9"], "Choose from encoder, decoder, embeddings, positions"),
        (["encoder", "decoder", "embeddings"], "Freezing encoder, decoder, embeddings leaves nothing to train"),
    ],
)
def test_names_that_freeze_nothing_or_all_are_refused(names, message, bundled):
    with pytest.raises(InputError, match=message):
        frozen_keys(names, trained_parameters(bundled.model))
