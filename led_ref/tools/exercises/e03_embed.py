"""From ids to embeddings: a row of the table, a position, and a norm.

The embedding of the token at position t is row `id` of the embedding table plus row `t` of the position table (the first
token has position 0), and that sum goes through a LayerNorm: subtract its mean, divide by the square root of its
variance plus 1e-5, multiply by a weight and add a bias.

    [1, 3]   mean 2, variance 1   ->   [-1, 1]   (nearly: the 1e-5)
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect

Floats = npt.NDArray[np.float64]


def layer_norm(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Of each row of x (T, D). The variance is the mean of the squared distances, divided by D and not by D - 1."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    y: Floats = centred / np.sqrt(variance + 1e-5) * weight + bias
    return y


def embed(ids: Sequence[int], table: Floats, positions: Floats, weight: Floats, bias: Floats) -> Floats:
    """(T, D) of T ids."""
    return layer_norm(table[np.asarray(ids)] + positions[: len(ids)], weight, bias)


def check_two_numbers_by_hand(yours: Yours) -> None:
    """[1, 3] and [5, 5]."""
    found = yours.layer_norm(np.array([[1.0, 3.0], [5.0, 5.0]]), np.array([2.0, 2.0]), np.array([0.0, 1.0]))
    one = 2 / np.sqrt(1 + 1e-5)
    expect(found, [[-one, one + 1], [0.0, 1.0]], "layer_norm([[1, 3], [5, 5]], [2, 2], [0, 1])")


def check_the_same_word_twice(yours: Yours) -> None:
    """One id at two positions has two embeddings: that is the purpose of position embeddings."""
    rng = np.random.default_rng(3)
    table, positions = rng.normal(size=(5, 7)), rng.normal(size=(11, 7))
    found = np.asarray(yours.embed([4, 4], table, positions, np.ones(7), np.zeros(7)))
    expect(bool(np.allclose(found[0], found[1])), False, "whether both embeddings of embed([4, 4], ...) are the same")


def check_the_bundled_model(yours: Yours) -> None:
    """The first array that the bundled model computes for six ids."""
    from led_ref.api import load

    led = load(dtype="float64")
    ids, encoder = [0, 41, 97, 41, 5, 2], led.model.params.encoder
    states, norm = led.model.encoder([ids], output_hidden_states=True).hidden_states, encoder.layernorm_embedding
    assert states is not None
    found = yours.embed(ids, led.model.params.shared, encoder.embed_positions, norm.weight, norm.bias)
    expect(found, states[0][0], "embed(ids, ...)")
