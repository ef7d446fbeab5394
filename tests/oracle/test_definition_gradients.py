"""The backward pass against central differences of the float64 definition, which shares no code with it."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))

from small_led import CONFIG, draw_weights

from led_backends.numpy_backend import NumpyBackend
from led_ref import LEDForConditionalGeneration
from led_ref.oracle.definition import chain_rule as chain
from led_ref.oracle.definition.gradients import derivative, training_loss
from led_ref.oracle.definition.training import loss_and_gradients
from led_ref.training.gradients import GradientOptions, accumulate_gradients

WEIGHTS = draw_weights(CONFIG)
MOST = 1e-7  # relative; the differences themselves are good to 1e-9
PAD = CONFIG.pad_token_id


def batch():
    rng = np.random.default_rng(3)
    ids, labels = rng.integers(4, CONFIG.vocab_size, (2, 19)), rng.integers(4, CONFIG.vocab_size, (2, 7))
    mask, marks = np.ones_like(ids), np.zeros_like(ids)
    mask[1, 13:] = 0
    ids[1, 13:] = PAD
    marks[0, [0, 5]] = 1
    labels[1, 4:] = -100
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks, "labels": labels}


def gradients(smoothing):
    model = LEDForConditionalGeneration.from_state_dict(CONFIG, WEIGHTS, dtype="float64", backend=NumpyBackend(1))
    found = {}
    accumulate_gradients(
        model,
        batch(),
        lambda key, array: found.update({key: found[key] + array if key in found else array.copy()}),
        GradientOptions(label_smoothing=smoothing, documents_at_once=2),
    )
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_are_differences_of_the_definition(smoothing):
    given, found, rng = batch(), gradients(smoothing), np.random.default_rng(5)

    def loss_of(weights):
        return training_loss(
            weights,
            CONFIG,
            given["input_ids"],
            given["labels"],
            given["attention_mask"],
            given["global_attention_mask"],
            label_smoothing=smoothing,
        )

    keys = sorted(found)
    for part in range(6):  # six directions, each through a sixth of the tensors
        direction = {key: rng.normal(size=WEIGHTS[key].shape) for key in keys[part::6]}
        if "led.shared.weight" in direction:
            direction["led.shared.weight"][PAD] = 0  # PyTorch's padding_idx: no gradient by look-up
        expected = derivative(loss_of, WEIGHTS, direction, step=1e-5)
        ours = sum(float((found[key] * d).sum()) for key, d in direction.items())
        assert abs(ours - expected) <= MOST * abs(expected), (part, ours, expected)


# ---- the chain rule of the definition ---------------------------------------------------------------------------------

RULES = {
    "add": lambda n: n["x"] + n["row"],
    "multiply": lambda n: n["x"] * n["row"],
    "divide": lambda n: n["row"] / n["positive"],
    "matmul": lambda n: n["x"] @ n["y"],
    "transpose": lambda n: n["x"].T @ n["x"],
    "taken twice": lambda n: n["x"][np.array([1, 0, 1])],
    "power": lambda n: chain.power(n["positive"], -0.5),
    "exp": lambda n: chain.exp(n["x"]),
    "log": lambda n: chain.log(n["positive"]),
    "tanh": lambda n: chain.tanh(n["x"]),
    "erf": lambda n: chain.erf(n["x"]),
    "where": lambda n: chain.where(n["x"].value > 0.1, n["x"], 0.0),
    "total": lambda n: chain.total(n["x"], 0),
    "mean": lambda n: chain.mean(n["x"]),
    "side by side": lambda n: chain.side_by_side([n["x"], n["positive"]]),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_differences(rule):
    rng = np.random.default_rng(2)
    arrays = {"x": rng.normal(size=(3, 4)), "y": rng.normal(size=(4, 2)), "row": rng.normal(size=4)}
    arrays["positive"] = rng.uniform(0.5, 2, size=(3, 4))
    direction = {name: rng.normal(size=array.shape) for name, array in arrays.items()}

    def result(values):
        return RULES[rule]({name: chain.Node(value) for name, value in values.items()})

    nodes = {name: chain.Node(array) for name, array in arrays.items()}
    given = rng.normal(size=result(arrays).value.shape)
    found = chain.gradients(RULES[rule](nodes), nodes, given)
    ours = sum((found[name] * d).sum() for name, d in direction.items())
    assert abs(ours) > 0.01
    assert ours == pytest.approx(
        derivative(lambda values: (result(values).value * given).sum(), arrays, direction), rel=1e-9
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_definition_trains_the_definition(smoothing):
    """The loss is model.py's, to the last bits, and the gradients are its differences; ours agree with them."""
    given = batch()
    arguments = (CONFIG, given["input_ids"], given["labels"], given["attention_mask"], given["global_attention_mask"])
    loss, found = loss_and_gradients(WEIGHTS, *arguments, label_smoothing=smoothing)
    assert loss == pytest.approx(training_loss(WEIGHTS, *arguments, label_smoothing=smoothing), rel=1e-15)
    rng = np.random.default_rng(6)
    for part in range(2):
        direction = {key: rng.normal(size=WEIGHTS[key].shape) for key in sorted(found)[part::2]}
        if "led.shared.weight" in direction:
            direction["led.shared.weight"][PAD] = 0
        expected = derivative(
            lambda weights: training_loss(weights, *arguments, label_smoothing=smoothing), WEIGHTS, direction, step=1e-5
        )
        assert sum((found[key] * d).sum() for key, d in direction.items()) == pytest.approx(expected, rel=1e-7)
    for key, array in gradients(smoothing).items():
        assert np.abs(array - found[key]).max() < 1e-13 * max(1, np.abs(found[key]).max()), key
