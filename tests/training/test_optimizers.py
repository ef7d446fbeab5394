"""Optimizers without torch: the first step in closed form, threads, dtypes, another backend, state in a file, settings."""

import numpy as np
import pytest

from led_backends.numpy_backend import PIECE, NumpyBackend
from led_ref.errors import CheckpointError, InputError
from led_ref.training.clipping import clip_factor, global_norm, not_finite
from led_ref.training.optimizers import (
    Adafactor,
    AdamW,
    decays,
    initial_state,
    restored_state,
)
from led_ref.training.parameters import trained_parameters
from led_ref.training.schedules import Schedule

BOTH = [AdamW(weight_decay=0.1), Adafactor(weight_decay=0.1)]
# Wider than a piece, three pieces with a cut one, a vector of two pieces.
SHAPES = {"wide.weight": (2, PIECE + 3), "fc1.weight": (211, 401), "long.bias": (PIECE + 5,), "fc1.bias": (13,)}


def arrays(seed, dtype="float64", scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(shape)).astype(dtype) for name, shape in SHAPES.items()}


def trained(optimizer, backend, dtype="float64", steps=3):
    """Weights and state after some steps, on the host."""
    parameters = {name: backend.to_device(array) for name, array in arrays(0, dtype).items()}
    state = initial_state(optimizer, parameters, backend)
    for step in range(1, steps + 1):
        gradients = {name: backend.to_device(array) for name, array in arrays(step, dtype, 10.0**-step).items()}
        factor = clip_factor(global_norm(gradients, backend), 1.0)
        state = optimizer.update(parameters, gradients, state, 0.1, backend, scale=factor)
    return {name: backend.to_host(array) for name, array in parameters.items()} | state.to_host(backend)


def test_first_adamw_step_in_closed_form():
    """The unbiased moments are g and g^2: each number moves by rate g / (|g| + eps), whatever the betas are."""
    optimizer = AdamW(beta1=0.3, beta2=0.6, eps=1e-3, weight_decay=0.5)
    parameters, gradients = arrays(0), arrays(1, scale=1e-3)
    before = {name: array.copy() for name, array in parameters.items()}
    optimizer.update(parameters, gradients, initial_state(optimizer, parameters, NumpyBackend(1)), 0.1, NumpyBackend(1))
    for name, g in gradients.items():
        kept = 1 if name.endswith("bias") else 1 - 0.1 * 0.5
        np.testing.assert_allclose(parameters[name], kept * before[name] - 0.1 * g / (abs(g) + 1e-3), rtol=1e-12)


@pytest.mark.parametrize(("threshold", "rms"), [(0.25, 0.25), (4.0, 1.0)])
def test_first_adafactor_step_of_rank_one_squares(threshold, rms):
    """Where |g| is an outer product, its factored square is exact: every number of u is 1 or -1. Only longer u are cut."""
    rng = np.random.default_rng(2)
    g = np.outer(rng.uniform(1, 2, 211), rng.uniform(1, 2, 401)) * rng.choice([-1, 1], (211, 401))
    parameters = {"fc1.weight": np.zeros((211, 401))}
    optimizer = Adafactor(clip_threshold=threshold)
    state = initial_state(optimizer, parameters, NumpyBackend(2))
    optimizer.update(parameters, {"fc1.weight": g}, state, 0.1, NumpyBackend(2))
    np.testing.assert_allclose(parameters["fc1.weight"], -0.1 * rms * np.sign(g), rtol=1e-12)


def test_what_decays(bundled):
    """Matrices and tables do; biases and LayerNorm do not."""
    for name, array in trained_parameters(bundled.model).items():
        assert decays(name) == (array.ndim == 2), name


@pytest.mark.parametrize("optimizer", BOTH, ids=lambda optimizer: optimizer.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit_and_dtype_stays(optimizer, dtype):
    one, three = (trained(optimizer, NumpyBackend(threads), dtype) for threads in (1, 3))
    for name, array in one.items():
        assert array.dtype == ("int64" if name.endswith(".step") else dtype), name
        assert array.tobytes() == three[name].tobytes(), name


@pytest.mark.parametrize("optimizer", BOTH, ids=lambda optimizer: optimizer.name)
def test_optimizer_on_the_stand_in(optimizer, monkeypatch):
    from stand_in.cupy_stand_in import installed
    from stand_in.kernel_twins import register

    from led_backends import cupy_backend

    expected = trained(optimizer, NumpyBackend(1))
    register()
    monkeypatch.setattr(cupy_backend, "PIECE", 10_007)
    with installed():
        found = trained(optimizer, cupy_backend.CupyBackend())
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-13, err_msg=name)


def test_pieces_cover_every_row_once():
    for rows, width in [(1, 1), (PIECE + 5, 1), (7, PIECE + 1), (1000, 401)]:
        seen = []
        NumpyBackend(1).for_each_piece(seen.append, rows, width)
        assert [row for piece in seen for row in range(rows)[piece]] == list(range(rows))
        assert max(piece.stop - piece.start for piece in seen) * width <= max(PIECE, width)


def test_parameters_without_gradient_stay():
    optimizer = AdamW(weight_decay=0.5)
    parameters = arrays(0)
    state = initial_state(optimizer, parameters, NumpyBackend(1))
    gradients = {"fc1.bias": arrays(1)["fc1.bias"]}
    given = gradients["fc1.bias"].copy()
    state = optimizer.update(parameters, gradients, state, 0.1, NumpyBackend(1), scale=0.5)
    assert state.steps == {"wide.weight": 0, "fc1.weight": 0, "long.bias": 0, "fc1.bias": 1}
    assert [name for name, array in arrays(0).items() if (array != parameters[name]).any()] == ["fc1.bias"]
    np.testing.assert_array_equal(gradients["fc1.bias"], given)


def test_norm_of_large_numbers_and_of_none():
    gradients = {"a": np.full(PIECE + 1, 1e25, np.float32), "b": np.full((3, 4), -1e25, np.float32)}
    assert global_norm(gradients, NumpyBackend(2)) == pytest.approx(1e25 * (PIECE + 13) ** 0.5, rel=1e-6)
    assert global_norm({}, NumpyBackend(1)) == 0
    assert clip_factor(0.5, 1.0) == 1.0
    assert clip_factor(4e-6, 1e-6) == pytest.approx(0.2)  # 1e-6 / (4e-6 + 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_gradient_that_is_not_finite_is_refused(bad):
    gradients = arrays(0)
    gradients["long.bias"][PIECE + 1] = bad
    norm = global_norm(gradients, NumpyBackend(2))
    with pytest.raises(InputError, match=r"is (nan|inf): .* were not changed\. Lower the learning rate"):
        clip_factor(norm, 1.0)
    assert not_finite(gradients, NumpyBackend(1)) == ["long.bias"]


@pytest.mark.parametrize("optimizer", BOTH, ids=lambda optimizer: optimizer.name)
def test_state_comes_back(optimizer):
    backend = NumpyBackend(1)
    parameters = arrays(0)
    state = optimizer.update(parameters, arrays(1), initial_state(optimizer, parameters, backend), 0.1, backend)
    saved = {name: array.copy() for name, array in state.to_host(backend).items()}
    for array in saved.values():
        array.flags.writeable = False  # as a mapped file's
    restored = restored_state(optimizer, saved, parameters, backend)
    copies = {name: array.copy() for name, array in parameters.items()}
    optimizer.update(parameters, arrays(2), state, 0.1, backend)
    again = optimizer.update(copies, arrays(2), restored, 0.1, backend)
    assert set(again.steps.values()) == {2}
    for name, array in parameters.items():
        np.testing.assert_array_equal(copies[name], array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("fc1.bias.exp_avg"), "lacks fc1.bias.exp_avg. Resume with the settings"),
        (lambda arrays: arrays.update(x=np.zeros(1)), "holds x, which adamw does not have here"),
        (
            lambda arrays: arrays.update({"fc1.bias.exp_avg": np.zeros(12)}),
            r"float64 \(12,\); adamw needs float64 \(13,\)",
        ),
        (lambda arrays: arrays.update({"fc1.bias.step": np.zeros((), np.int32)}), r"int32 \(\); adamw needs int64"),
    ],
)
def test_state_of_other_settings_is_refused(change, message):
    parameters, backend = arrays(0), NumpyBackend(1)
    saved = initial_state(AdamW(), parameters, backend).to_host(backend)
    change(saved)
    with pytest.raises(CheckpointError, match=message):
        restored_state(AdamW(), saved, parameters, backend)


def test_mapped_weights_are_refused():
    array = np.zeros((3, 5))
    for other in (array.T, np.frombuffer(bytes(40))):
        with pytest.raises(InputError, match=r"fc1\.weight cannot be changed in place.*own_copies"):
            initial_state(AdamW(), {"fc1.weight": other}, NumpyBackend(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(beta1=1.0), r"beta1 is 1\.0; give a number from 0 to below 1"),
        (lambda: AdamW(beta2=-0.1), "beta2 is -0.1"),
        (lambda: AdamW(eps=0.0), r"eps is 0\.0; give a number above 0"),
        (lambda: AdamW(weight_decay=float("nan")), "weight_decay is nan"),
        (lambda: Adafactor(decay_rate=0.8), r"decay_rate is 0\.8; give a number below 0"),
        (lambda: Adafactor(clip_threshold=0), "clip_threshold is 0"),
        (lambda: Schedule("cosin", total_steps=3), "'cosin'; choose one of linear, cosine"),
        (lambda: Schedule("linear"), "total_steps is 0; linear ends there"),
        (lambda: Schedule("constant", warmup_steps=-1), "warmup_steps is -1"),
        (lambda: Schedule("inverse_sqrt", timescale=0), "timescale is 0"),
        (lambda: Schedule("polynomial", total_steps=9, warmup_steps=2, lr_end=0.1).rate(0, 0.1), "lr_end is 0.1"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_schedules_begin_and_end():
    steps = {"warmup_steps": 4, "total_steps": 20}
    for name, last in [
        ("linear", 0.0),
        ("cosine", 0.0),
        ("polynomial", 1e-7),
        ("constant", 1.0),
        ("inverse_sqrt", 0.5),
    ]:
        schedule = Schedule(name, **steps)
        at = 20 if name != "inverse_sqrt" else 16
        found = [schedule.rate(step, 1.0) for step in (0, 1, 4, at)]
        assert found == pytest.approx([0.0, 0.25, 1.0, last], abs=1e-15), name
