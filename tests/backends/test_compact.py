"""Compact weights: any rows are those of the dense matrix, and a product needs only a tile of them."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in.cupy_stand_in import installed

from led_backends.compact import HalfWeight, widen
from led_backends.cupy_plain import PlainOperations
from led_backends.numpy_backend import NumpyBackend
from led_backends.numpy_pieces import FEW_ROWS
from led_ref.weights.quantization.rounding import KINDS, quantized
from led_ref.weights.stored_tensor import narrow

ALL_KINDS = ("float16", "bfloat16", *KINDS)


def compact(matrix, kind, dtype="float32"):
    """The matrix kept in such a way."""
    if kind in KINDS:
        weight = quantized(matrix, kind)
        return type(weight)(**{**vars(weight), "dtype": np.dtype(dtype)})
    bits = narrow(matrix, {"float16": "F16", "bfloat16": "BF16"}[kind]).view(np.uint16)
    return HalfWeight(matrix.shape, np.dtype(dtype), bits, kind)


def test_float16_widening_is_exact():
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = bits.view(np.float16)
    finite = np.isfinite(numbers)
    widened = widen(bits[finite], "float16")
    assert widened.dtype == np.float32
    np.testing.assert_array_equal(widened.view(np.uint32), numbers[finite].astype(np.float32).view(np.uint32))


def test_gpu_widens_subnormal_float16():
    """On the way that a CPU takes they would be float32 below the normal numbers, which CuPy's kernels take for 0."""
    with installed() as cupy:
        widened = widen(cupy.asarray(np.array([0x0001, 0x83FF, 0x3E00], np.uint16)), "float16")
    assert widened.get().tolist() == [2.0**-24, -1023 * 2.0**-24, 1.5]


def test_bfloat16_widening_is_exact():
    bits = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(widen(bits, "bfloat16").view(np.uint32), bits.astype(np.uint32) << 16)


@pytest.mark.parametrize("kind", ALL_KINDS)
@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 70)), data=st.data())
def test_row_selection(kind, shape, data):
    start = data.draw(st.integers(0, shape[0]))
    stop = data.draw(st.integers(start, shape[0]))
    weight = compact(np.random.default_rng(shape[0]).standard_normal(shape).astype(np.float32), kind)
    assert (weight.shape, len(weight), weight.size) == (shape, shape[0], shape[0] * shape[1])
    np.testing.assert_array_equal(weight[start:stop], weight[:][start:stop], strict=True)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("rows", [1, 4, FEW_ROWS + 61])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_product_equals_dense_product(kind, rows, dtype):
    rng = np.random.default_rng(rows)
    dense = rng.standard_normal((1103, 389)).astype(np.float32)
    weight = compact(dense, kind, dtype)
    dense = weight[:]
    assert dense.dtype == dtype
    x, bias = rng.standard_normal((rows, 389)).astype(dtype), rng.standard_normal(1103).astype(dtype)
    exact = x.astype(np.float64) @ dense.T.astype(np.float64) + bias
    # n products of numbers that are rounded once each and added up: |error| <= (n + 3) eps sum |x| |w|; 3: scale, row and bias.
    bound = (
        (389 + 3)
        * np.finfo(dtype).eps
        * (np.abs(x).astype(np.float64) @ np.abs(dense.T).astype(np.float64) + np.abs(bias))
    )
    for operations in (NumpyBackend(threads=1), NumpyBackend(threads=3), PlainOperations(np)):
        y = operations.linear(x, weight, bias)
        assert y.dtype == dtype
        assert (np.abs(y - exact) <= bound).all()
    both = NumpyBackend().linears(x, [(weight, bias), (dense[:70], bias[:70])])
    np.testing.assert_array_equal(both[1], NumpyBackend().linear(x, dense[:70], bias[:70]))


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("rows", [2, 64])
def test_large_matrix_is_never_dense_as_a_whole(kind, rows):
    weight = compact(np.ones((8192, 1024), np.float32), kind)
    x, bias = np.ones((rows, 1024), np.float32), np.zeros(8192, np.float32)
    backend = NumpyBackend(threads=1)
    backend.linear(x, weight, bias)
    tracemalloc.start()
    try:
        backend.linear(x, weight, bias)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 4 * weight.size / 3


@pytest.mark.parametrize("kind", [*ALL_KINDS, "dense"])
def test_a_backend_reads_rows_of_any_weight(kind):
    matrix = np.random.default_rng(5).standard_normal((67, 31)).astype(np.float32)
    weight = matrix if kind == "dense" else compact(matrix, kind)
    for operations in (NumpyBackend(threads=1), PlainOperations(np)):
        np.testing.assert_array_equal(operations.rows(weight), weight[:], strict=True)
        np.testing.assert_array_equal(operations.rows(weight, slice(5, 9)), weight[:][5:9], strict=True)
        if kind in ("float16", "bfloat16", "dense"):  # tables are never quantized
            ids = np.array([[3, 66], [3, 0]])
            np.testing.assert_array_equal(operations.rows(weight, ids), weight[:][ids], strict=True)


def test_the_model_does_not_know_how_weights_are_kept():
    """No file of model/ names a compact weight or takes rows of a weight itself."""
    for file in (Path(__file__).parents[2] / "led_ref" / "model").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "compact" not in text.lower(), file
        assert not re.search(r"weight\[|shared_VD\[|positions_PD\[", text), file
