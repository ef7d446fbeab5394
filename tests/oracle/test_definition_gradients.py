"""The backward pass against central differences of the float64 definition, which shares no code with it."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))

from small_led import CONFIG, draw_weights

from led_backends.numpy_backend import NumpyBackend
from led_ref import LEDForConditionalGeneration
from led_ref.oracle.definition.gradients import derivative, training_loss
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
