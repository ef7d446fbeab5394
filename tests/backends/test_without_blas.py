"""A NumPy without BLAS multiplies in another way, and LED computes the same."""

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
