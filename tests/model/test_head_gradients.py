"""Losses and gradients of the heads that answer and classify, without torch; and the loss of words for large logits."""

import dataclasses
import math

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

from led_backends.numpy_backend import NumpyBackend
from led_ref import LEDForQuestionAnswering, LEDForSequenceClassification
from led_ref.model.dropout import Dropout, DropoutRates
from led_ref.model.losses import cross_entropy_backward
from led_ref.training import loss_and_gradients
from led_ref.training.gradients import GradientOptions
from led_ref.weights.keys import arrays_by_key, heads_of

NUMPY = NumpyBackend(threads=2)
RNG = np.random.default_rng(5)
LED = {key: value for key, value in draw_weights(CONFIG).items() if key != "final_logits_bias"}
SHAPES = {
    "qa_outputs": {"weight": (2, 30), "bias": (2,)},
    "classification_head": {"dense.weight": (30, 30), "dense.bias": (30,), "out_proj.weight": (4, 30), "out_proj.bias": (4,)},
}  # fmt: skip
DRAWN = {
    f"{head}.{key}": RNG.normal(size=shape) / math.sqrt(shape[-1])
    for head, shapes in SHAPES.items()
    for key, shape in shapes.items()
}
IDS = np.where(np.arange(14) == [[13], [8], [10]], 2, RNG.integers(3, 37, (3, 14)))
IDS[np.arange(14) > [[13], [8], [10]]] = CONFIG.pad_token_id
DOCUMENTS = {"input_ids": IDS, "attention_mask": (CONFIG.pad_token_id != IDS).astype(int)}
SPANS = {"start_positions": np.array([4, 14, 0]), "end_positions": np.array([5, 3, 9])}  # one start was cut off
TARGETS = {
    "span": SPANS,
    "single_label_classification": {"labels": np.array([3, -100, 0])},
    "multi_label_classification": {"labels": np.array([[0.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0.3]])},
    "regression": {"labels": RNG.normal(size=(3, 4))},
}


def model_of(kind, **moved):
    weights = {**LED, **DRAWN, **moved}
    head = "qa_outputs" if kind == "span" else "classification_head"
    weights = {key: value for key, value in weights.items() if key.startswith((head, "led."))}
    if kind == "span":
        return LEDForQuestionAnswering.from_state_dict(CONFIG, weights, dtype="float64", backend=NUMPY)
    labels = {str(i): f"label {i}" for i in range(4)}
    config = dataclasses.replace(CONFIG, extra={"problem_type": kind, "id2label": labels})
    return LEDForSequenceClassification.from_state_dict(config, weights, dtype="float64", backend=NUMPY)


@pytest.mark.parametrize("kind", TARGETS)
def test_central_differences_of_heads(kind):
    """Along a drawn direction of the head's weights, and of what lies right below it; two documents at once, then one."""
    rates = DropoutRates(0.2, classifier_dropout=0.3)
    options = GradientOptions(Dropout(rates, seed=2, documents=(5, 6, 7)), documents_at_once=2)
    batch = {**DOCUMENTS, **TARGETS[kind]}
    model = model_of(kind)
    _, params = loss_and_gradients(model, batch, options)
    gradients = arrays_by_key(params, model.config, heads_of(model.architecture))
    rng = np.random.default_rng(3)
    parts = ("qa_outputs", "classification_head.dense", "classification_head.out_proj", "led.decoder.layers.1.fc2")
    for part in parts:
        directions = {key: rng.normal(size=a.shape) for key, a in gradients.items() if key.startswith(part)}
        weights = {**LED, **DRAWN}
        losses = []
        for h in (2e-6, -2e-6):
            moved = {key: weights[key] + h * direction for key, direction in directions.items()}
            losses.append(loss_and_gradients(model_of(kind, **moved), batch, options)[0].mean)
        expected = sum((gradients[key] * direction).sum() for key, direction in directions.items())
        assert abs((losses[0] - losses[1]) / 4e-6 - expected) <= 1e-7 * max(abs(expected), 0.1), part


@pytest.mark.parametrize("kind", TARGETS)
def test_loss_of_heads_is_that_of_forward(kind):
    model, batch = model_of(kind), {**DOCUMENTS, **TARGETS[kind]}
    for together in (1, 3):
        loss, _ = loss_and_gradients(model, batch, GradientOptions(documents_at_once=together))
        assert abs(loss.mean - float(model(**batch).loss)) < 1e-13
        assert loss.counts == {"span": (2, 3), "single_label_classification": (2,)}.get(kind, (12,))


def test_large_logits_do_not_overflow():
    backend = NumpyBackend()
    logits = np.array([[1000.0, -1000, 999], [-2000, -2001, -2000]], np.float32)
    labels = np.array([2, 0])
    total = cross_entropy_backward(logits, labels, 2, 0.0, backend)
    assert total == pytest.approx(1 + math.log1p(math.exp(-1)) + math.log(2 + math.exp(-1)), abs=1e-6)
    probs = np.exp([[0, -2000, -1], [0, -1, 0]])
    probs /= probs.sum(-1, keepdims=True)
    np.testing.assert_allclose(logits, (probs - np.eye(3)[labels]) / 2, atol=1e-7)
