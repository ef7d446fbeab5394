"""The backward pass of one encoder layer, for drawn documents: derivatives along drawn directions, and where they are zero."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from led_backends.numpy_backend import NumpyBackend
from led_ref.config import ACTIVATIONS
from led_ref.model.dropout import NO_DROPOUT, Dropout, DropoutRates
from led_ref.model.encoder import LayerSeeing, encoder_layer, encoder_layer_backward, encoder_layer_with_dropout
from led_ref.model.masks import document_masks, encoder_masks
from led_ref.model.ops import scale_and_split
from led_ref.model.params import EncoderLayerParams, LayerNorm, Linear
from led_ref.model.sliding_window import sliding_window_attention_backward

SOME = settings(max_examples=max(1, settings().max_examples // 2))
RATES = DropoutRates(0.2, 0.3, 0.2)
MASKED, LOCAL, GLOBAL = range(3)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with mock.patch.object(NumpyBackend, "queries_per_block", 5), mock.patch("led_ref.model.ops.FEED_FORWARD_ROWS", 7):
        yield


def pairs_of(params):
    """The linear maps and norms of a layer, by name."""
    fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return {name: pair for name, pair in fields.items() if not isinstance(pair, str)}


def moved(params, direction, step):
    """The weights, a step further along a direction."""
    pairs = {
        name: type(pair)(
            pair.weight + step * getattr(direction, name).weight, pair.bias + step * getattr(direction, name).bias
        )
        for name, pair in pairs_of(params).items()
    }
    return dataclasses.replace(params, **pairs)


def draw_layer(rng, d_model, ffn, activation, spread=0.4):
    def linear(out, into):
        return Linear(rng.normal(size=(out, into)) * spread, rng.normal(size=out) * spread)

    def norm():
        return LayerNorm(rng.normal(size=d_model) * spread + 1, rng.normal(size=d_model) * spread)

    maps = [linear(d_model, d_model) for _ in range(7)]
    return EncoderLayerParams(*maps, norm(), linear(ffn, d_model), activation, linear(d_model, ffn), norm())


@st.composite
def layers(draw):
    """A layer, and what the tokens of one to three documents are. No relu: at 0 it has no derivative to compare with."""
    heads, width, batch = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([5, 7])), draw(st.integers(1, 3))
    length = draw(st.sampled_from([1, 3, 7, 13, 19]))
    kinds = draw(st.sampled_from([(LOCAL,), (LOCAL, LOCAL, LOCAL, GLOBAL, MASKED), (GLOBAL,), (LOCAL, GLOBAL)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds_BT = rng.choice(kinds, (batch, length))
    marks_BT = None if kinds == (LOCAL,) else (kinds_BT == GLOBAL).astype(int)
    documents = document_masks((kinds_BT != MASKED).astype(int), marks_BT)
    dropped = draw(st.booleans())
    dropout = Dropout(RATES, seed=3, documents=range(batch)) if dropped else NO_DROPOUT
    masks = encoder_masks(documents, [draw(st.sampled_from([1, 2, 5, 23]))], NumpyBackend(1))[0]
    seeing = LayerSeeing(heads, masks, dropout.at("led.encoder.layers.0"))
    params = draw_layer(rng, heads * width, 11, draw(st.sampled_from([name for name in ACTIVATIONS if name != "relu"])))
    return params, seeing, rng.normal(size=(2, batch, length, heads * width)), rng


@SOME
@given(layers())
def test_layer_along_drawn_directions(layer):
    """`(loss(step) - loss(-step)) / 2 step = sum(gradient * direction)`, of x, and of each linear map and norm."""
    params, seeing, (x, dy), rng = layer
    backend = NumpyBackend(1)
    before = x.copy(), dy.copy()
    dx, gradients = encoder_layer_backward(dy, x, params, seeing, backend)
    np.testing.assert_array_equal((x, dy), before)
    assert dx.shape == x.shape

    def slope(of_x, direction):
        losses = [
            (dy * encoder_layer_with_dropout(x + step * of_x, moved(params, direction, step), seeing, backend)).sum()
            for step in (2e-6, -2e-6)
        ]
        return (losses[0] - losses[1]) / 4e-6

    nothing = moved(params, params, -1.0)
    directions = [(rng.normal(size=x.shape), nothing)]
    directions += [
        (
            np.zeros_like(x),
            dataclasses.replace(
                nothing, **{name: type(pair)(*(rng.normal(size=a.shape) for a in (pair.weight, pair.bias)))}
            ),
        )
        for name, pair in pairs_of(params).items()
    ]
    for of_x, direction in directions:
        parts = [(dx * of_x).sum()]
        for name, pair in pairs_of(direction).items():
            gradient = getattr(gradients, name)
            assert gradient.weight.shape == pair.weight.shape
            parts += [(gradient.weight * pair.weight).sum(), (gradient.bias * pair.bias).sum()]
        assert abs(slope(of_x, direction) - sum(parts)) < 1e-6 * max(1, *map(abs, parts))


def test_layer_in_training_is_the_layer_in_inference():
    """Without dropout: bit for bit."""
    rng, kinds_BT = np.random.default_rng(2), np.array([[2, 1, 1, 1, 1, 0, 0], [1, 1, 2, 2, 1, 1, 1]])
    masks = encoder_masks(document_masks((kinds_BT > 0) + 0, (kinds_BT == GLOBAL) + 0), [2], NumpyBackend(1))[0]
    params, x = draw_layer(rng, 6, 11, "gelu"), rng.normal(size=(2, 7, 6))
    for seeing in (LayerSeeing(2, masks, NO_DROPOUT), LayerSeeing(2, masks, Dropout(documents=(0, 1)))):
        ours = encoder_layer_with_dropout(x, params, seeing, NumpyBackend(1))
        np.testing.assert_array_equal(ours, encoder_layer(x, params, 2, masks, NumpyBackend(1)))


def test_dropout_does_not_depend_on_blocks():
    """Nor do gradients, but for rounding; the window's probabilities and those of global rows have masks of their own."""
    rng, kinds_BT = np.random.default_rng(2), np.array([[2, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 2, 1, 1, 1, 1, 1, 1]])
    params, (x, dy) = draw_layer(rng, 10, 11, "gelu"), rng.normal(size=(2, 2, 9, 10))
    documents = document_masks((kinds_BT > 0) + 0, (kinds_BT == GLOBAL) + 0)
    found = []
    for queries in (2, 5, 128):
        with mock.patch.object(NumpyBackend, "queries_per_block", queries):
            masks = encoder_masks(documents, [2], NumpyBackend(1))[0]
        seeing = LayerSeeing(2, masks, Dropout(RATES, documents=(5, 6)).at("led.encoder.layers.1"))
        found.append(encoder_layer_backward(dy, x, params, seeing, NumpyBackend(1))[0])
        assert seeing.window(0).dropped.keys != seeing.global_rows(0).dropped.keys
    np.testing.assert_allclose(found[0], found[2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[1], found[2], rtol=0, atol=1e-12)


@SOME
@given(layers())
def test_what_has_no_gradient(layer):
    """A query of a masked or a global token, a masked token's key and value; global maps without a global token."""
    params, seeing, (x, dout), _ = layer
    backend = NumpyBackend(1)
    qkv_BHTK = [
        scale_and_split(x @ map_.weight.T, seeing.heads, backend) for map_ in (params.query, params.key, params.value)
    ]
    for b, mask in enumerate(seeing.masks.documents):
        dq, dk, dv = sliding_window_attention_backward(
            dout[b], *(x_BHTK[b] for x_BHTK in qkv_BHTK), seeing.window(b), backend
        )
        assert not dq[~mask.local_T].any()
        assert not dk[~mask.unmasked_T].any()
        assert not dv[~mask.unmasked_T].any()
        if not seeing.dropout.rates.attention_dropout and mask.local_T.any():
            assert dv[mask.unmasked_T].any(-1).sum() >= mask.local_T.sum()  # each local token sees itself
    _, gradients = encoder_layer_backward(dout, x, params, seeing, backend)
    is_there = any(len(mask.global_positions_G) for mask in seeing.masks.documents)
    for pair in (gradients.query_global, gradients.key_global, gradients.value_global):
        assert is_there or not pair.weight.any()
        assert is_there or not pair.bias.any()
    assert gradients.value_global.bias.any() == is_there
    assert not gradients.key.bias.any()
    assert not gradients.key_global.bias.any()
