"""The products that the CPU backend cuts into tiles, against the same things said plainly."""

import numpy as np
import pytest

from led_backends.contract import Band
from led_backends.numpy_backend import BLOCK_ROWS, CHUNK, NumpyBackend
from led_backends.numpy_pieces import FEW_ROWS, KEYS, WEIGHT_ROWS, shares

# A few roundings of sums of some hundred products of numbers of about 1.
CLOSE = {"float32": 2e-4, "float64": 2e-13}


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_few_rows_times_weights_of_any_height(rng):
    """Whole tiles, a rest behind them, fewer than one tile; one row, few, and one more than few."""
    for rows in (1, 2, 5, FEW_ROWS, FEW_ROWS + 1):
        for out in (3, WEIGHT_ROWS, 2 * WEIGHT_ROWS + 7, 5 * WEIGHT_ROWS):
            x, weight, bias = rng.standard_normal((rows, 29)), rng.standard_normal((out, 29)), rng.standard_normal(out)
            for dtype in CLOSE:
                arguments = [array.astype(dtype) for array in (x, weight, bias)]
                results = [NumpyBackend(threads).linear(*arguments) for threads in (1, 2, 5)]
                assert results[0].dtype == dtype
                np.testing.assert_allclose(results[0], x @ weight.T + bias, rtol=0, atol=CLOSE[dtype])
                assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize("rows", [129, 193, 1025])
def test_many_rows_are_not_cut_into_few(rng, rows):
    """A share of 128 of 129 rows would leave one, which BLAS multiplies by its kernel for vectors: other last bits."""
    x, weight, bias = (rng.standard_normal(shape).astype("float32") for shape in ((rows, 192), (640, 192), 640))
    alone = NumpyBackend(1).linear(x, weight, bias)
    for threads in (2, 3, 5, 16):
        assert np.array_equal(NumpyBackend(threads).linear(x, weight, bias), alone)


def plain_attention(q, k, v, may_look):
    scores = q @ k.swapaxes(-1, -2)
    scores = np.where(may_look[:, None], scores, -np.inf)
    highest = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(highest), 0, highest))
    return weights / np.maximum(weights.sum(-1, keepdims=True), 1e-300) @ v


@pytest.mark.parametrize("queries", [1, 4, FEW_ROWS, FEW_ROWS + 1, 131])
@pytest.mark.parametrize("keys", [1, 7, KEYS, 2 * KEYS + 19])
def test_attention_over_any_number_of_keys(rng, queries, keys):
    q, k, v = (rng.standard_normal((2, 3, size, 5)) for size in (queries, keys, keys))
    each = rng.random((2, queries, keys)) < 0.5
    each[1, 0] = False  # a query that sees nothing
    for may_look in (each, each[:1], each[:, :1], None):
        seen = np.ones((2, queries, keys), bool) if may_look is None else np.broadcast_to(may_look, each.shape)
        expected = plain_attention(q, k, v, seen)
        for dtype in CLOSE:
            room_k, room_v = (np.full((2, 3, keys + 11, 5), np.nan, dtype) for _ in "kv")
            room_k[:, :, :keys], room_v[:, :, :keys] = k, v
            views = room_k[:, :, :keys], room_v[:, :, :keys]  # as the decoder's store hands them over
            columns = [
                np.ascontiguousarray(x.swapaxes(2, 3)).swapaxes(2, 3) for x in views
            ]  # as split_heads for one query
            for lie in (views, columns):
                found = [NumpyBackend(threads).attend(q.astype(dtype), *lie, may_look) for threads in (1, 3)]
                assert found[0].dtype == dtype
                np.testing.assert_allclose(found[0], expected, rtol=0, atol=CLOSE[dtype])
                assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("rows", [1, 4])
def test_several_linear_maps_equal_single_ones(rng, rows):
    """Dealt to threads together, with heights that are no whole tiles: each row of each map once, and no bit differs."""
    x = rng.standard_normal((rows, 1361)).astype(np.float32)
    maps = [(rng.standard_normal((height, 1361)).astype(np.float32), np.zeros(height, np.float32))
            for height in (WEIGHT_ROWS + 3, 1, 5 * WEIGHT_ROWS, 197)]  # fmt: skip
    alone = [NumpyBackend(1).linear(x, *one) for one in maps]
    for threads in (1, 2, 3, 7):
        for found, expected in zip(NumpyBackend(threads).linears(x, maps), alone, strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_shares_are_whole_tiles_covering_rows(threads):
    lengths = (0, WEIGHT_ROWS + 3, 1, 5 * WEIGHT_ROWS, 197)
    dealt = shares(lengths, threads)
    assert 1 <= len(dealt) <= threads
    seen = [np.zeros(length, int) for length in lengths]
    for n, part in (one for parts in dealt for one in parts):
        assert part.start % WEIGHT_ROWS == 0
        assert part.stop % WEIGHT_ROWS == 0 or part.stop == lengths[n]
        seen[n][part] += 1
    assert all((counts == 1).all() for counts in seen)


@pytest.mark.parametrize("queries", [0, 1, 4])
@pytest.mark.parametrize("length", [1, 7, 2 * CHUNK // 15])
def test_heads_are_column_slices(rng, queries, length):
    x = rng.standard_normal((2, length, 15)).astype(np.float32)
    for threads in (1, 3):
        found = NumpyBackend(threads).split_heads(x, 3, queries)
        assert found.shape == (2, 3, length, 5)
        assert found.strides[-1 if queries != 1 else -2] == x.itemsize
        for h in range(3):
            assert np.array_equal(found[:, h], x[:, :, 5 * h : 5 * h + 5])


@pytest.mark.parametrize("radius", [0, 2, 5, 40])
@pytest.mark.parametrize("globals_", [0, 3])
def test_banded_softmax_equals_plain_softmax(rng, radius, globals_):
    """For every place of the band in the tile, also where it ends before the tile does, or never."""
    backend = NumpyBackend(1)
    for queries, keys in ((1, 1), (7, 13), (13, 7), (5, 30)):
        for first in (0, 2, 6):
            scores = rng.standard_normal((2, queries, globals_ + keys))
            distance = first + np.arange(queries)[:, None] - np.arange(keys)
            local = rng.random(keys) < 0.6
            for local_S in (None, local):
                seen = (abs(distance) <= radius) & (True if local_S is None else local_S)
                plain = scores.copy()
                backend.hide(plain[:, :, globals_:], seen)
                found = backend.band_softmax(scores.copy(), globals_, Band(first, radius, local_S))
                assert np.array_equal(found, backend.softmax(plain))


@pytest.mark.parametrize("height", [1, 29, 31, 700])
def test_banded_attention_definition(rng, height):
    """Also where the highest scores are too high, or too low, for exp to bear them as they are."""
    backend, band = NumpyBackend(1), Band(3, 4, np.arange(17) != 6)
    values = rng.standard_normal((2, 2 + 17, 5))
    for shift in (height, -height):
        scores = rng.standard_normal((2, 11, 2 + 17)) + shift
        scores[0, 3] = -np.inf  # a query that sees nothing takes nothing
        plain = backend.band_softmax(scores.copy(), 2, band) @ values
        found = backend.band_attend(scores.copy(), values, 2, band)
        np.testing.assert_allclose(found, plain, rtol=1e-13, atol=1e-13)
        assert (found[0, 3] == 0).all()
        lifted = backend.band_attend(scores - shift, values, 2, band)
        np.testing.assert_allclose(
            found, lifted, rtol=2e-12, atol=2e-12
        )  # scores of 700 have 1e-13 as their last place


@pytest.mark.parametrize("rows", [1, BLOCK_ROWS, 2 * BLOCK_ROWS + 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_cover_each_row_once(rows, threads):
    counts = np.zeros(rows, int)

    def count(block):
        assert 0 < block.stop - block.start <= BLOCK_ROWS
        counts[block] += 1

    NumpyBackend(threads).for_each_block(count, rows)
    assert (counts == 1).all()
