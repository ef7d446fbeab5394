"""The CPU backend against the definitions of its operations, in every precision and with any number of threads."""

import math
import threading
from fractions import Fraction

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import led_backends
from led_backends import numpy_pieces
from led_backends.cupy_plain import PlainOperations
from led_backends.numpy_backend import CHUNK, NumpyBackend

DTYPES = ("float32", "float64")
THREADS = (1, 2, 5)
# What gelu_tail.py claims: the largest absolute error between -8 and 8, half a unit in the last place of the result there.
GELU_ERROR = {"float32": 2.4e-7, "float64": 4.45e-16}
# A few roundings of numbers of about 1.
CLOSE = {"float32": 2e-6, "float64": 4e-15}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def exact_gelu(x):
    """x Phi(x) as a fraction: the tail has 53 bits of its own, so that nothing cancels, and the subtraction is exact."""
    tail = Fraction(abs(x)) * Fraction(0.5 * math.erfc(abs(x) / math.sqrt(2)))
    return max(Fraction(x), Fraction(0)) - tail


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_error_bound(dtype):
    x = np.concatenate([np.linspace(-8, 8, 4801), np.linspace(8, 12, 601), [0.0, -0.0, 4.7, 1e-30, -1e-30]]).astype(
        dtype
    )
    out = NumpyBackend(threads=1).gelu(x.copy())
    errors = np.array([abs(float(Fraction(float(got)) - exact_gelu(float(v)))) for got, v in zip(out, x, strict=True)])
    usual = np.abs(x) <= 8
    print(f"gelu {dtype}: largest error {errors[usual].max():.2e} at {x[usual][errors[usual].argmax()]:.3f}")
    assert errors[usual].max() <= GELU_ERROR[dtype]
    assert (errors[~usual] <= np.spacing(x[~usual]) / 2).all()  # beyond, the nearest number that there is


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_tails(dtype):
    x = np.array([40, 1e3, 1e18, -40, -1e3, -1e18], dtype)
    np.testing.assert_array_equal(NumpyBackend().gelu(x.copy()), np.maximum(x, 0))


def silu(x):
    return x / (1 + math.exp(-x)) if x > -700 else 0.0


def gelu_new(x):
    """The formula of transformers with the sum `1 + tanh(u)`, which cancels for negative u, as `2 / (1 + exp(-2 u))`."""
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / (1 + math.exp(-2 * u)) if u > -350 else 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "exact"), [("relu", lambda x: max(x, 0.0)), ("silu", silu), ("gelu_new", gelu_new)])
def test_an_activation_is_its_formula_to_a_few_roundings(name, exact, dtype):
    x = np.concatenate([np.linspace(-9, 9, 3601), [0.0, -0.0, 1e-30, -1e-30, 30, -30, 80, -80]]).astype(dtype)
    out = getattr(NumpyBackend(threads=1), name)(x.copy())
    assert out.dtype == dtype
    expected = np.array([exact(float(v)) for v in x])
    # sigmoid(z) has the relative error of exp(-|z|): that of z, |z| roundings of it; |z| is 80 for silu, 70 for gelu_new at -9.
    np.testing.assert_allclose(out, expected, rtol=400 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


def test_gelu_new_is_the_formula_with_tanh():
    x = np.linspace(-9, 9, 181)
    expected = [0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x.tolist()]
    np.testing.assert_allclose(NumpyBackend().gelu_new(x.copy()), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gelu", "relu", "silu", "gelu_new"])
def test_activation_far_out_and_nan(name, dtype):
    x = np.array([1e3, 1e18, np.finfo(dtype).max, -1e3, -1e18, np.finfo(dtype).min], dtype)
    x = x[[0, 1, 3, 4]] if name == "gelu" else x  # |x| + x would overflow at the largest number
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_array_equal(getattr(NumpyBackend(), name)(x.copy()), np.maximum(x, 0))
    assert np.isnan(getattr(NumpyBackend(), name)(np.array([np.nan], dtype))).all()


@pytest.mark.parametrize("name", ["gelu", "relu", "silu", "gelu_new"])
def test_an_activation_works_in_place_or_refuses(name):
    x, activation = np.ones((3, 5), np.float32), getattr(NumpyBackend(), name)
    assert activation(x) is x
    with pytest.raises(ValueError, match="contiguous"):
        activation(np.ones((5, 3), np.float32).T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_clamp_where_float16_is_not_computed_in(dtype):
    x = np.array([[np.inf, 1e5, np.nan]], dtype)
    for operations in (NumpyBackend(), PlainOperations(np)):
        assert operations.clamp_overflow(x) is x
    np.testing.assert_array_equal(x, np.array([[np.inf, 1e5, np.nan]], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_definition_and_unchanged_argument(rng, dtype):
    x = (rng.normal(size=(2, 3, 7)) * 5 + 100).astype(dtype)  # far from zero: variance by E[x^2] - mean^2 would be off
    weight, bias = rng.normal(size=(2, 7)).astype(dtype)
    before = x.copy()
    out = NumpyBackend().layer_norm(x, weight, bias)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    np.testing.assert_allclose(out, expected, rtol=0, atol=20 * CLOSE[dtype])  # the mean of 100 costs its last digits
    np.testing.assert_array_equal(x, before)
    constant = NumpyBackend().layer_norm(np.full((2, 7), 3, dtype), weight, bias)
    np.testing.assert_array_equal(constant, np.tile(bias, (2, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_over_unmasked_positions(rng, dtype):
    backend = NumpyBackend()
    scores = (rng.normal(size=(2, 3, 5, 7)) * 300).astype(dtype)  # exp of these would overflow
    may_look = rng.random((2, 1, 5, 7)) < 0.5
    may_look[1, 0, 2] = False  # a row that may look at nothing
    expected = np.zeros(scores.shape)
    for b, h, t in np.ndindex(2, 3, 5):
        seen = may_look[b, 0, t]
        wide = scores[b, h, t, seen].astype(np.float64)
        if seen.any():
            expected[b, h, t, seen] = np.exp(wide - wide.max()) / np.exp(wide - wide.max()).sum()
    assert backend.hide(scores, may_look) is None
    assert (np.isneginf(scores) == ~np.broadcast_to(may_look, scores.shape)).all()
    out = backend.softmax(scores)
    np.testing.assert_allclose(out, expected, rtol=0, atol=CLOSE[dtype])
    assert (out[1, :, 2] == 0).all()
    assert out.dtype == dtype
    assert backend.softmax(np.empty((3, 0), dtype)).shape == (3, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_flattens_leading_axes(rng, dtype):
    x = rng.normal(size=(3, 5, 2, 7)).astype(dtype).swapaxes(1, 2)  # not contiguous
    weight, bias = rng.normal(size=(11, 7)).astype(dtype), rng.normal(size=11).astype(dtype)
    expected = np.einsum("abcd,ed->abce", x.astype(np.float64), weight.astype(np.float64)) + bias
    np.testing.assert_allclose(NumpyBackend().linear(x, weight, bias), expected, rtol=0, atol=10 * CLOSE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_thread_count_invariance(rng, dtype):
    width = 97
    x = rng.normal(size=(3, CHUNK // width, width)).astype(dtype)  # several pieces, the last one short
    weight, bias = rng.normal(size=(2, width)).astype(dtype)
    wide = rng.normal(size=(3, CHUNK + 1)).astype(dtype)  # one row is more than a piece
    results = []
    for threads in THREADS:
        backend = NumpyBackend(threads)
        found = [backend.layer_norm(x, weight, bias), backend.gelu(x.copy()), backend.linear(x, weight[None], bias[:1])]
        found.append(backend.layer_norm(wide, wide[0], wide[1]))
        assert [array.dtype for array in found] == [dtype] * 4
        results.append(found)
    for other in results[1:]:
        for array, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("heads", [1, 2, 13])
def test_tiles_cover_each_head_once(threads, heads):
    seen = np.zeros(heads, int)

    def tile(some):
        assert isinstance(some, slice)
        seen[some] += 1

    NumpyBackend(threads).for_each_tile(tile, heads)
    assert (seen == 1).all()


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("threads", THREADS)
def test_thread_exception_restores_blas_threads(threads):
    before, inside = blas_threads(), set()
    caller = threading.get_ident()

    def tile(some):
        inside.update(blas_threads() if threading.get_ident() != caller else {1})
        if some.start == 3:
            raise ZeroDivisionError("in head 3")

    with pytest.raises(ZeroDivisionError, match="in head 3"):
        NumpyBackend(threads).for_each_tile(tile, 5)
    assert inside == {1}
    assert blas_threads() == before


def test_host_and_device_are_one():
    backend = NumpyBackend()
    array = np.arange(12.0).reshape(3, 4)
    assert np.shares_memory(backend.to_device(array), array)
    assert backend.to_device(array.T).flags.c_contiguous
    assert backend.to_host(array) is array


def test_backends_by_name():
    assert [led_backends.get(name).name for name in ("auto", "numpy")] == ["numpy", "numpy"]
    with pytest.raises(led_backends.BackendUnavailableError, match=r"no backend 'torch'.*auto, numpy"):
        led_backends.get("torch")
    with pytest.raises(led_backends.BackendUnavailableError, match=r"CuPy.*backend='numpy'"):
        led_backends.get("cupy")
    with pytest.raises(ValueError, match=r"threads is 0.*at least 1"):
        NumpyBackend(0)


def test_overlapping_holders_restore_blas_threads():
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas")
    before = [library["num_threads"] for library in blas.info()]
    first_is_in, second_is_in, first_is_done = (threading.Event() for _ in range(3))

    def first(piece: slice) -> None:
        first_is_in.set()
        assert second_is_in.wait(10)

    def second(piece: slice) -> None:
        second_is_in.set()
        assert first_is_done.wait(10)

    threads = [
        threading.Thread(target=NumpyBackend(threads=2).for_each_tile, args=(work, 2)) for work in (first, second)
    ]
    threads[0].start()
    assert first_is_in.wait(10)
    threads[1].start()
    threads[0].join()
    first_is_done.set()
    threads[1].join()
    assert [library["num_threads"] for library in blas.info()] == before


def test_nested_parallel_for_has_no_deadlock():
    backend, seen = NumpyBackend(threads=2), []
    backend.for_each_tile(lambda outer: backend.for_each_tile(lambda inner: seen.append(inner), 3), 5)
    assert len(seen) == 15


def test_no_more_threads_are_named(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(numpy_pieces, "_helpers", [])
    monkeypatch.setattr(threading.Thread, "start", start)
    seen = []
    with pytest.warns(RuntimeWarning, match=r"no more threads \(can't start new thread\).*with 1\. See to `ulimit -u`"):
        NumpyBackend(threads=5).for_each_tile(seen.append, 9)
    assert len(seen) == 9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_norm_of_a_sum_rounds_the_sum_once(dtype):
    rng = np.random.default_rng(3)
    x, update = rng.standard_normal((2, 3, 5, 7)).astype(dtype)
    weight, bias = rng.standard_normal((2, 7)).astype(dtype)
    found = NumpyBackend().layer_norm(x, weight, bias, update)
    wide = [each.astype(np.float64) for each in (x, weight, bias, update)]
    expected = NumpyBackend().layer_norm(wide[0] + wide[3], wide[1], wide[2])
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.5 * np.spacing(np.abs(expected).max().astype(dtype)))
    rows = update[0]  # broadcast over the batch, as positions are
    np.testing.assert_array_equal(
        NumpyBackend().layer_norm(x, weight, bias, rows), NumpyBackend().layer_norm(x, weight, bias, rows + 0 * x)
    )


def test_tile_suppresses_invalid_value_warnings():
    """OpenBLAS may raise the flag of an invalid operation for numbers that are no part of the result."""
    seen = []

    def tile(h: slice) -> None:
        seen.append(float(np.float32(np.inf) - np.float32(np.inf)))

    for threads in (1, 2):
        NumpyBackend(threads).for_each_tile(tile, 2)
    assert len(seen) == 4
