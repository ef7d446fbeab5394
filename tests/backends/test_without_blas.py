"""A NumPy without BLAS multiplies in another way, and LED computes the same."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

import led_ref
from led_backends import numpy_products
from led_backends.numpy_products import times, times_transposed


@pytest.fixture
def no_blas(monkeypatch):
    monkeypatch.setattr(numpy_products, "HAS_BLAS", False)


def test_this_numpy_has_blas_and_pyodides_has_none(monkeypatch):
    assert numpy_products.has_blas()
    told = {"Build Dependencies": {"blas": {"name": "auto"}, "lapack": {"name": "lapack"}}}  # by NumPy 2.4.3 there
    monkeypatch.setattr(np, "show_config", lambda mode: told)
    assert not numpy_products.has_blas()


@pytest.mark.parametrize("shape", [(3, 1, 7, 5), (2, 131, 32, 97), (1, 67, 128, 13), (1, 1, 32, 263)])
@pytest.mark.parametrize("dense", [True, False])
def test_products(no_blas, shape, dense):
    heads, n, k, m = shape
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(heads, n, k)), rng.normal(size=(heads, m, k))
    if not dense:
        b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    np.testing.assert_allclose(times_transposed(a, b), a @ b.swapaxes(-1, -2), rtol=0, atol=1e-12)
    out = np.empty((heads, n, m))
    assert times(a, b.swapaxes(-1, -2), out) is not None
    np.testing.assert_allclose(out, a @ b.swapaxes(-1, -2), rtol=0, atol=1e-12)


def in_memory_of_its_own(monkeypatch):
    """The kernel of docs/build_products.py as a function of led_backends' arrays: wasmtime's memory is not NumPy's."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs")
    import wasmtime
    from build_products import binary

    store = wasmtime.Store()
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(64, None)))
    module = wasmtime.Module(store.engine, binary())
    products = wasmtime.Instance(store, module, [memory]).exports(store)["products"]

    def kernel(batches, n, m, k, *layouts):
        """Copy operands in as they lie, and the result out, with all bytes between its rows."""
        at, moved, back = 64, [], None
        for address, batch, row, rows, columns in zip(
            layouts[0::3], layouts[1::3], layouts[2::3], (n, m, n), (k, k, m), strict=True
        ):
            size = batch * (batches - 1) + row * (rows - 1) + 4 * columns
            outside = (ctypes.c_char * size).from_address(address)
            memory.write(store, bytes(outside), at)
            moved += [at, batch, row]
            back = outside, at, size
            at += size + 4
        products(store, batches, n, m, k, *moved)
        outside, at, size = back
        outside.raw = bytes(memory.read(store, at, at + size))

    return kernel


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((7, 5), (3, 5)),
        ((1, 192), (19, 192)),  # a step of one hypothesis
        ((4, 131), (11, 131)),
        ((2, 13, 8), (2, 17, 8)),
        ((3, 5, 7), (11, 7)),  # one matrix for all
        ((2, 1, 5, 6), (2, 3, 7, 6)),
        ((5, 1), (2, 1)),
        ((0, 3), (2, 3)),
        ((5, 0), (2, 0)),
    ],
)
def test_kernel_of_the_browser(monkeypatch, a, b):
    """float32 sums of at most 192 terms of size 1: within 192 * 2^-24 of the sum of their absolute values."""
    calls = []
    kernel = in_memory_of_its_own(monkeypatch)
    monkeypatch.setattr(numpy_products, "KERNEL", lambda *given: calls.append(given) or kernel(*given))
    rng = np.random.default_rng(5)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in (a, b))
    wide = rng.normal(size=(*a.shape[:-1], 2 * a.shape[-1] + 1)).astype(np.float32)
    wide[..., : a.shape[-1]] = a
    expected = a.astype(np.float64) @ b.astype(np.float64).swapaxes(-1, -2)
    atol = 192 * 2**-24 * (np.abs(a).max(initial=0) * np.abs(b).max(initial=0) * max(1, a.shape[-1]))
    for rows in (a, wide[..., : a.shape[-1]], np.asfortranarray(a)):
        np.testing.assert_allclose(times_transposed(rows, b), expected, rtol=0, atol=atol)
    around = np.full((*expected.shape[:-1], expected.shape[-1] + 3), 7, np.float32)
    result = around[..., 1:-2]
    assert times(a, b.swapaxes(-1, -2), result) is result
    np.testing.assert_allclose(result, expected, rtol=0, atol=atol)
    assert (around[..., [0, -2, -1]] == 7).all()  # it writes where it should alone
    assert calls


def test_kernel_takes_float32_alone(monkeypatch):
    monkeypatch.setattr(numpy_products, "KERNEL", lambda *_: pytest.fail("it was called"))
    ones = np.ones((3, 4))
    assert (times_transposed(ones, ones) == 4).all()
    assert (times_transposed(ones.astype("f"), ones) == 4).all()
    assert (times_transposed(*[ones.astype("f")] * 2, np.empty((3, 3))) == 4).all()


def test_infinities_pass_through_the_kernel(monkeypatch):
    monkeypatch.setattr(numpy_products, "KERNEL", in_memory_of_its_own(monkeypatch))
    a = np.ones((5, 9), np.float32)
    a[2, 8], a[3, 0] = np.inf, np.nan
    found = times_transposed(a, np.ones((3, 9), np.float32))
    assert np.isinf(found[2]).all()
    assert np.isnan(found[3]).all()
    assert (found[[0, 1, 4]] == 9).all()


@pytest.mark.parametrize("beams", [1, 4])
def test_the_model_writes_the_same(no_blas, monkeypatch, beams):
    text = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
    led = led_ref.load(dtype="float64")
    ids = led.encode(text)[:300]
    out = led.model.encoder([ids], global_attention_mask=[[1] + [0] * 299])
    written = led.model.generate(encoder_outputs=out, num_beams=beams, max_new_tokens=8)
    monkeypatch.setattr(numpy_products, "HAS_BLAS", True)
    with_blas = led.model.encoder([ids], global_attention_mask=[[1] + [0] * 299])
    np.testing.assert_allclose(out.last_hidden_state, with_blas.last_hidden_state, rtol=0, atol=1e-10)
    assert np.array_equal(written, led.model.generate(encoder_outputs=with_blas, num_beams=beams, max_new_tokens=8))
