"""What only a GPU can show. `make gpu` runs this file; its name keeps it out of `make test`, and nothing in it is skipped.

Where no GPU answers, every test here fails with the reason. The checks are those of `led-ref doctor --gpu`;
measure.py also measures, and writes the report.
"""

import numpy as np
import pytest

import led_backends
from led_backends.cupy_backend import CupyBackend
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.tools.gpu import checks as gpu_checks
from led_ref.tools.gpu.report import FULL
from led_ref.tools.random_weights import random_weights
from led_ref.training.trained import in_float16, whole_weights

DTYPES = ("float32", "float64", "float16")


@pytest.fixture(scope="session")
def backend():
    return led_backends.get("cupy")


@pytest.fixture(scope="session")
def models(backend):
    """A model of led-base's size with the same random weights: on the GPU, on the CPU."""
    weights = random_weights(FULL.config)
    return [
        LEDForConditionalGeneration.from_state_dict(FULL.config, weights, backend=on)
        for on in (backend, NumpyBackend())
    ]


def test_all_dtypes_are_checked(backend):
    assert backend.compute_dtypes == DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", gpu_checks.operations())
def test_operation_matches_cpu(backend, operation, dtype):
    found = gpu_checks.check_operation(backend, operation, dtype)
    assert found["ok"], found


def test_model_matches_cpu(models):
    found = gpu_checks.check_model(*models, FULL.tokens, FULL.new_tokens)
    assert found["ok"], found


def test_gradients_match_cpu(models):
    found = gpu_checks.check_gradients(*models, FULL.tokens)
    assert found["ok"], found


def test_float16_gradients_match_cpu(models):
    half = in_float16(whole_weights(models[0], ())).model
    found = gpu_checks.check_gradients(half, models[1], FULL.tokens)
    assert found["ok"], found


def test_one_synchronization_per_step(models):
    found = gpu_checks.check_waits(models[0], FULL.tokens, FULL.new_tokens)
    assert found["ok"], found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_graph_writes_the_ordinary_ids(backend, dtype):
    """100 new tokens of 4 beams: a second graph is captured. Graphs have never been on a GPU: begin with this."""
    weights = random_weights(FULL.config)
    captured, plain = (
        LEDForConditionalGeneration.from_state_dict(FULL.config, weights, dtype=dtype, backend=on)
        for on in (CupyBackend(graphs=True), backend)
    )
    found = gpu_checks.check_graph(captured, plain, FULL.tokens, 100)
    assert found["ok"], found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_fused_window_is_trusted_and_matches_cpu(models, dtype):
    """The kernel window_attend has never been on a GPU."""
    weights, on = random_weights(FULL.config), CupyBackend(fused=True)
    fused = LEDForConditionalGeneration.from_state_dict(FULL.config, weights, dtype=dtype, backend=on)
    found = gpu_checks.check_model(fused, models[1], FULL.tokens, FULL.new_tokens)
    assert found["ok"], found
    assert on._window.trusted == {np.dtype(dtype).char: True}


@pytest.mark.parametrize("tokens", FULL.lengths)
def test_memory_matches_plan(models, tokens):
    found = gpu_checks.check_memory(models[0], tokens, FULL.new_tokens)
    assert found["ok"], found
