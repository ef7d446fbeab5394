"""Dropout masks are a pure function of seed, step, site, document and position, and of nothing else."""

import numpy as np
import pytest

import led_backends
from led_backends.numpy_backend import NumpyBackend
from led_ref.errors import InputError
from led_ref.model.dropout import NO_DROPOUT, Dropout, DropoutRates, Tile

BACKEND = NumpyBackend(threads=2)
RATES = DropoutRates(dropout=0.3, attention_dropout=0.3, activation_dropout=0.3, encoder_layerdrop=0.4)


def mask(shape, *, site="led.encoder.layers.0.fc2", backend=BACKEND, **changes):
    given = {"rates": RATES, "seed": 5, "step": 11, "documents": range(shape[0]), **changes}
    return Dropout(**given).hidden(site).drop(np.ones(shape), backend) != 0


def tile_mask(dropout, document, heads, queries, keys):
    site = dropout.at("led.encoder.layers.0").attention("self_attn.probs")
    tile = Tile(document, heads, np.asarray(queries), np.asarray(keys))
    ones = np.ones((heads.stop - heads.start, len(queries), len(keys)))
    return site.drop_probs(ones, tile, BACKEND) != 0


def test_share_and_scale_of_what_is_kept():
    x = np.random.default_rng(0).normal(size=(3, 200, 100)).astype(np.float32)
    for rate in (0.1, 0.5, 0.9):
        dropout = Dropout(DropoutRates(dropout=rate), documents=(4, 5, 6))
        y = dropout.hidden("led.decoder.layers.1.fc2").drop(x, BACKEND)
        assert y.dtype == np.float32
        kept = y != 0
        np.testing.assert_allclose(y[kept], (x / (1 - rate))[kept], rtol=1e-6)
        spread = np.sqrt(
            rate * (1 - rate)
        )  # of one number; means of n numbers: spread / sqrt(n), five of which are allowed
        assert abs(kept.mean() - (1 - rate)) < 5 * spread / np.sqrt(kept.size)
        assert abs(kept.mean((0, 2)) - (1 - rate)).max() < 5 * spread / np.sqrt(300)
        assert abs(kept.mean((0, 1)) - (1 - rate)).max() < 5 * spread / np.sqrt(600)


def test_masks_of_different_places_are_independent():
    """Of two independent masks, 0.7 * 0.7 + 0.3 * 0.3 of the places agree: within 5 standard errors, 0.58 +- 0.017."""
    shape = (1, 100, 211)
    first = mask(shape)
    others = [
        mask(shape, seed=6),
        mask(shape, step=12),
        mask(shape, site="led.encoder.layers.1.fc2"),
        mask(shape, site="led.decoder.layers.0.fc2"),
        mask(shape, site="led.encoder.layers.0.self_attn.output"),
        mask(shape, documents=(1,)),
        *(np.roll(first, shift, axis) for axis in (1, 2) for shift in (1, 2, 7)),
    ]
    for i, other in enumerate(others):
        assert abs((first == other).mean() - 0.58) < 0.017, i


def test_masks_depend_on_no_neighbour_padding_or_thread():
    whole = mask((3, 40, 30), documents=(8, 3, 5))
    for threads in (1, 3):
        one = mask((1, 25, 30), documents=(3,), backend=NumpyBackend(threads))
        np.testing.assert_array_equal(one[0], whole[1, :25])
    assert not (whole[0] == whole[1]).all()


def test_rows_of_a_block_are_those_of_the_whole():
    x = np.ones((2, 30, 7))
    site = Dropout(RATES, documents=(1, 2)).activation("led.encoder.layers.0.fc1")
    states = site.states(2, 30, BACKEND)
    rows = site.drop_rows(x.reshape(60, 7)[20:45], states, slice(20, 45), BACKEND)
    np.testing.assert_array_equal(rows, site.drop(x, BACKEND).reshape(60, 7)[20:45])


def test_probabilities_are_dropped_by_pairs_of_positions():
    dropout = Dropout(RATES, seed=1, documents=(9, 4))
    whole = tile_mask(dropout, 1, slice(0, 3), range(50), range(60))
    keys = [40, 7, *range(20, 31)]
    np.testing.assert_array_equal(
        tile_mask(dropout, 1, slice(1, 3), range(12, 19), keys), whole[1:3, 12:19][:, :, keys]
    )
    assert abs(whole.mean() - 0.7) < 5 * 0.46 / np.sqrt(whole.size)
    for other in (whole[[1, 2, 0]], np.roll(whole, 1, 1), tile_mask(dropout, 0, slice(0, 3), range(50), range(60))):
        assert abs((whole == other).mean() - 0.58) < 5 * 0.5 / np.sqrt(whole.size)


def test_given_masks():
    kept = np.random.default_rng(1).random((2, 5, 4)) < 0.5
    pairs = np.random.default_rng(2).random((1, 3, 6, 6)) < 0.5
    given = {"led.encoder.layers.0.fc2": kept, "led.encoder.layers.0.self_attn.probs": pairs}
    dropout = Dropout(RATES, given={**given, "led.encoder.layers.1": False})
    x = np.ones((2, 5, 4))
    layer = dropout.at("led.encoder.layers.0")
    np.testing.assert_array_equal(layer.hidden("fc2").drop(x, BACKEND), kept / (1 - 0.3))
    assert layer.hidden("self_attn.output").drop(x, BACKEND) is x
    np.testing.assert_array_equal(
        tile_mask(dropout, 0, slice(1, 3), [4, 5], [0, 3, 2]), pairs[0, 1:3, 4:6][:, :, [0, 3, 2]]
    )
    assert [dropout.skips("encoder", layer) for layer in range(3)] == [False, True, False]


def test_layerdrop():
    skipped = np.array([[Dropout(RATES, step=step).skips("encoder", i) for i in range(6)] for step in range(500)])
    assert abs(skipped.mean(0) - 0.4).max() < 5 * 0.49 / np.sqrt(500)
    assert not Dropout(RATES).skips("decoder", 0)


def test_without_dropout_nothing_is_computed():
    x = np.ones((1, 2, 3))
    assert NO_DROPOUT.at("led.decoder.layers.0").hidden("fc2").drop(x, BACKEND) is x


def test_refused_rates_and_numbers_of_documents():
    with pytest.raises(InputError, match=r"activation_dropout is 1\.0; it is a probability"):
        DropoutRates(activation_dropout=1.0)
    with pytest.raises(InputError, match="numbers of 1 documents, but the batch has 2"):
        mask((2, 3, 4), documents=(7,))


def test_same_bits_on_every_backend():
    """On the stand-in and on a GPU (--backend) against NumPy; NumPy against itself otherwise."""
    backend = led_backends.get("auto")
    site = Dropout(RATES, documents=(1, 2)).hidden("led.encoder.layers.0.fc2")
    x = np.random.default_rng(0).normal(size=(2, 30, 7)).astype(np.float32)
    np.testing.assert_array_equal(site.drop(backend.to_device(x), backend), site.drop(x, BACKEND))
    site = Dropout(RATES, documents=(1, 2)).attention("led.encoder.layers.0.self_attn.probs")
    probs, positions = np.ones((2, 3, 4), np.float32), np.arange(4) + 9
    ours = site.drop_probs(
        backend.to_device(probs),
        Tile(1, slice(1, 3), backend.to_device(positions[:3]), backend.to_device(positions)),
        backend,
    )
    np.testing.assert_array_equal(ours, site.drop_probs(probs, Tile(1, slice(1, 3), positions[:3], positions), BACKEND))
