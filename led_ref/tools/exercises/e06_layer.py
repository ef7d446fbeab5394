"""The second half of a layer: feed-forward, residual connection and norm.

    gelu(x)   =  x * Phi(x),  Phi(x) = (1 + erf(x / sqrt 2)) / 2        the exact one, not an approximation with tanh
    layer(x)  =  LayerNorm(x + fc2(gelu(fc1(x))))                       fc(x) = x @ weight.T + bias

x + ... is the residual connection. The sum comes before the norm: LED is "post-norm". `norm` is given to you as a function.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect

Floats = npt.NDArray[np.float64]


def gelu(x: Floats) -> Floats:
    """Of every number of x. math.erf takes one number; np.vectorize makes it take an array."""
    erf = np.vectorize(math.erf)
    y: Floats = x * (1 + erf(x / math.sqrt(2))) / 2
    return y


def feed_forward_half(
    x: Floats, fc1: tuple[Floats, Floats], fc2: tuple[Floats, Floats], norm: Callable[[Floats], Floats]
) -> Floats:
    """(T, D) -> (T, D). fc1 and fc2 are pairs (weight, bias)."""
    hidden = gelu(x @ fc1[0].T + fc1[1])
    return norm(x + hidden @ fc2[0].T + fc2[1])


def check_gelu_by_what_it_must_be(yours: Yours) -> None:
    """gelu(x) - gelu(-x) = x, and far from zero it is x or 0."""
    x = np.array([0.0, 0.5, 1.0, 3.0, 40.0])
    expect(np.asarray(yours.gelu(x)) - np.asarray(yours.gelu(-x)), x, "gelu(x) - gelu(-x)")
    expect(yours.gelu(np.array([40.0, -40.0])), [40.0, 0.0], "gelu([40, -40])")
    expect(yours.gelu(np.array([1.0])), [(1 + math.erf(math.sqrt(0.5))) / 2], "gelu([1])")


def check_the_sum_comes_before_the_norm(yours: Yours) -> None:
    """With a feed-forward that gives zero, what comes out is norm(x)."""
    x, zero = np.array([[1.0, 4.0]]), (np.zeros((2, 2)), np.zeros(2))
    expect(yours.feed_forward_half(x, zero, zero, lambda y: y * 10), [[10.0, 40.0]], "a layer that adds nothing")


def check_the_bundled_model(yours: Yours) -> None:
    """The end of the first layer of the bundled model."""
    from led_ref.api import load
    from led_ref.oracle.traces.trace import trace

    led = load(dtype="float64")
    layer = led.model.params.encoder.layers[0]
    traced = trace(led.model.encoder, [[0, 41, 97, 5, 2]], layer=0)
    x = traced["led.encoder.layers.0.self_attn_layer_norm.output"][0]
    wanted = traced["led.encoder.layers.0.final_layer_norm.output"][0]

    def norm(y: Floats) -> Floats:
        return led.model.backend.layer_norm(y, layer.final_layer_norm.weight, layer.final_layer_norm.bias)

    found = yours.feed_forward_half(x, (layer.fc1.weight, layer.fc1.bias), (layer.fc2.weight, layer.fc2.bias), norm)
    expect(found, wanted, "feed_forward_half of the first layer")
