"""The backward operations against central differences: of the CPU backend, and of the plain array code that a GPU runs.

For an operation y = f(x) and any dy, `sum(f(x) * dy)` is a number whose derivative by each x is what the operation returns.
"""

import numpy as np
import pytest

from led_backends import numpy_backward
from led_backends.cupy_plain import PlainOperations
from led_backends.numpy_backend import NumpyBackend
from led_ref.config import ACTIVATIONS

BACKENDS = {"numpy": NumpyBackend(threads=2), "plain": PlainOperations(np)}
CLOSE = 1e-8  # central differences of float64: a step of 1e-6 squared, and a rounding of 1e-16 divided by it


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """So that small arrays have several pieces, the last one shorter."""
    monkeypatch.setattr(numpy_backward, "OUTPUTS", 5)
    monkeypatch.setattr(numpy_backward, "ROWS", 7)
    monkeypatch.setattr(numpy_backward, "NUMBERS", 29)
    monkeypatch.setattr(NumpyBackend, "queries_per_block", 5)
    monkeypatch.setattr("led_backends.cupy_plain.SCORES_AT_A_TIME", 400)
    monkeypatch.setattr("led_backends.cupy_plain.IDS_AT_A_TIME", 17)


def slope_of(loss, x, step=1e-6):
    """The derivative of a number by each of x, by central differences. `loss` reads x, which is changed and restored."""
    slope = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        before, sides = x[place], []
        for x[place] in (before + step, before - step):
            sides.append(loss())
        x[place] = before
        slope[place] = (sides[0] - sides[1]) / (2 * step)
    return slope


def assert_slopes(gradients, loss, arrays):
    assert len(gradients) == len(arrays)
    for gradient, x in zip(gradients, arrays, strict=True):
        np.testing.assert_allclose(gradient, slope_of(loss, x), rtol=0, atol=CLOSE * max(1, np.abs(gradient).max()))


def test_linear(backend, rng):
    x, weight, bias, dy = (rng.normal(size=shape) for shape in ((2, 11, 7), (13, 7), (13,), (2, 11, 13)))
    gradients = backend.linear_backward(dy, x, weight)
    assert_slopes(gradients, lambda: (backend.linear(x, weight, bias) * dy).sum(), (x, weight, bias))


def test_linear_adds_to_given_gradients(backend, rng):
    x, weight, dy = (rng.normal(size=shape) for shape in ((2, 11, 7), (13, 7), (2, 11, 13)))
    new = backend.linear_backward(dy, x, weight)
    given = np.ones((2, 11, 7)), np.ones((13, 7)), np.ones(13)
    returned = backend.linear_backward(dy, x, weight, given[1:], given[0])
    for i in range(3):
        assert np.shares_memory(returned[i], given[i])
        np.testing.assert_allclose(given[i], new[i] + 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("update_shape", [None, (3, 11, 7), (11, 7)])
@pytest.mark.parametrize("spread", [1.0, 1e-2])
def test_layer_norm(backend, rng, update_shape, spread):
    """A small spread has a variance near eps, 1e-5."""
    x, dy = rng.normal(size=(3, 11, 7)) * spread, rng.normal(size=(3, 11, 7))
    update = None if update_shape is None else rng.normal(size=update_shape) * spread
    weight, bias = rng.normal(size=(2, 7))
    gradients = backend.layer_norm_backward(dy, x, weight, update)
    assert_slopes(gradients, lambda: (backend.layer_norm(x, weight, bias, update) * dy).sum(), (x, weight, bias))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_and_slope(backend, rng, activation):
    x = rng.normal(size=(5, 13)) * 3
    y, slope = backend.activate_with_slope(x.copy(), activation)
    np.testing.assert_array_equal(y, getattr(backend, activation)(x.copy()))
    np.testing.assert_allclose(
        slope, slope_of(lambda: getattr(backend, activation)(x.copy()).sum(), x), rtol=0, atol=CLOSE
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slope_far_from_zero(backend, activation, dtype):
    """1 on the right, 0 on the left, without overflow."""
    x = np.array([30, 90, 1e4, 1e18, -90, -1e4, -1e18], dtype)
    with np.errstate(all="raise", under="ignore"):
        y, slope = backend.activate_with_slope(x.copy(), activation)
    assert slope.dtype == dtype
    np.testing.assert_allclose(slope, [1, 1, 1, 1, 0, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(y, getattr(backend, activation)(x.copy()))


def test_softmax(backend, rng):
    scores, dprobs = rng.normal(size=(2, 3, 11)), rng.normal(size=(2, 3, 11))
    scores[1, 2] = scores[0, 1, :4] = -np.inf  # a row that sees nothing, and one that sees 7 keys
    dscores = backend.softmax_backward(dprobs.copy(), backend.softmax(scores.copy()))
    seen = scores > -np.inf
    np.testing.assert_array_equal(dscores[~seen], 0)
    for row, gradient in ((scores[0, 0], dscores[0, 0]), (scores[0, 1, 4:], dscores[0, 1, 4:])):
        assert_slopes([gradient], lambda: (backend.softmax(scores.copy()) * dprobs).sum(), [row])


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("looking", ["each", "batch", "padding", "all"])
def test_attention(backend, rng, looking, scale):
    """Scores of up to 100, too: their softmax is computed from differences."""
    q, k, v, dout = (rng.normal(size=(2, 3, length, 5)) for length in (13, 11, 11, 13))
    q *= scale
    each_BQS = rng.random((2, 13, 11)) < 0.6
    each_BQS[1, 4] = False  # a query that sees nothing
    may_look = {"each": each_BQS, "batch": each_BQS[:1], "padding": each_BQS[:, :1], "all": None}[looking]
    gradients = backend.attend_backward(dout, q, k, v, may_look)
    assert_slopes(gradients, lambda: (backend.attend(q, k, v, may_look) * dout).sum(), (q, k, v))


def test_rows_added_to_a_table(backend, rng):
    table, ids, rows = rng.normal(size=(19, 5)), rng.integers(0, 17, 53), rng.normal(size=(53, 5))
    expected = table.copy()
    np.add.at(expected, ids, rows)
    backend.add_rows(table, ids, rows)
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-14)
    backend.add_rows(table, ids[:0], rows[:0])
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-14)


def test_rows_of_an_id_are_added_in_their_order(rng):
    """Whatever lies between them: to the last bit of float32 sums of 500 numbers."""
    ids, rows = rng.integers(0, 3, 1499), rng.normal(size=(1499, 5)).astype(np.float32)
    tables = np.zeros((2, 3, 5), np.float32)
    NumpyBackend().add_rows(tables[0], ids, rows)
    for id_ in (2, 0, 1):
        NumpyBackend().add_rows(tables[1], ids[ids == id_], rows[ids == id_])
    np.testing.assert_array_equal(tables[0], tables[1])


def every_operation(backend, rng, dtype):
    """The results of all of them, with pieces for five threads."""
    x, update, dx, weight = (rng.normal(size=shape).astype(dtype) for shape in ((67, 31), (67, 31), (67, 31), (31,)))
    dy, matrix = rng.normal(size=(67, 43)).astype(dtype), rng.normal(size=(43, 31)).astype(dtype)
    q, k, v, dout = (rng.normal(size=(2, 3, length, 5)).astype(dtype) for length in (29, 23, 23, 29))
    may_look = rng.random((2, 29, 23)) < 0.7
    yield from backend.linear_backward(dy, x, matrix)
    yield from backend.layer_norm_backward(dx, x, weight, update)
    yield from backend.attend_backward(dout, q, k, v, may_look)
    yield backend.softmax_backward(
        rng.random((7, 11)).astype(dtype), backend.softmax(rng.random((7, 11)).astype(dtype))
    )
    for activation in ACTIVATIONS:
        yield from backend.activate_with_slope(x.copy(), activation)
    table = np.zeros((11, 31), dtype)
    backend.add_rows(table, rng.integers(0, 11, 67), x)
    yield table


def test_same_bits_for_any_number_of_threads():
    results = [list(every_operation(NumpyBackend(n), np.random.default_rng(3), np.float32)) for n in (1, 2, 3, 5)]
    for others in results[1:]:
        for ours, theirs in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_keep_the_dtype(backend, dtype):
    exact = list(every_operation(BACKENDS["plain"], np.random.default_rng(3), np.float64))
    found = list(every_operation(backend, np.random.default_rng(3), np.dtype(dtype)))
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)
