"""One step of a training: clip the gradients, then AdamW.

clip     f = min(1, most / (norm + 1e-6)),  norm = the root of the sum of all squares of all gradients;  g = f g
AdamW    m = b1 m + (1 - b1) g              b1 = 0.9
         v = b2 v + (1 - b2) g^2            b2 = 0.999
         w = w - a decay w - a m' / (sqrt(v') + eps)
         m' = m / (1 - b1^n),  v' = v / (1 - b2^n) in the n-th step (n = 1, 2, ...), a the learning rate, eps = 1e-8
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect

Floats = npt.NDArray[np.float64]


def clipped(gradients: Mapping[str, Floats], most: float) -> dict[str, Floats]:
    """The gradients of all parameters, shortened together so that their norm is at most `most`."""
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    factor = min(1.0, most / (norm + 1e-6))
    return {name: factor * g for name, g in gradients.items()}


def adamw(
    w: Floats, g: Floats, m: Floats, v: Floats, n: int, rate: float, decay: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    """(w, m, v) after the n-th step. The arrays that are given stay as they are."""
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    smooth, size = m / (1 - 0.9**n), np.sqrt(v / (1 - 0.999**n))
    return w - rate * decay * w - rate * smooth / (size + 1e-8), m, v


def check_all_gradients_are_one_vector(yours: Yours) -> None:
    """(3, 4) and 12 have the norm 13. Short ones stay as they are."""
    given = {"a": np.array([3.0, 4.0]), "b": np.array([[12.0]])}
    found = yours.clipped(given, 6.5)
    expect(np.asarray(found["a"]).round(5), [1.5, 2.0], "a of clipped(..., 6.5), to 5 places")
    expect(np.asarray(found["b"]).round(5), [[6.0]], "b of clipped(..., 6.5), to 5 places")
    expect(yours.clipped(given, 100.0)["a"], [3.0, 4.0], "a of clipped(..., 100)")


def check_the_first_step_is_one_rate_long(yours: Yours) -> None:
    """Whatever the gradient's size: m' / sqrt(v') = g / |g|."""
    zero = np.zeros(3)
    w, _, _ = yours.adamw(zero, np.array([1e-3, -1.0, 1e3]), zero, zero, 1, 0.5)
    expect(np.asarray(w).round(4), [-0.5, 0.5, -0.5], "the first step's weights, to 4 places")


def check_ten_steps_against_led_ref(yours: Yours) -> None:
    """The weights after ten steps with decay, from the same gradients."""
    from led_backends.numpy_backend import NumpyBackend
    from led_ref.training.optimizers import AdamW, initial_state

    rng = np.random.default_rng(18)
    backend, optimizer, ours = NumpyBackend(), AdamW(weight_decay=0.1), {"w": rng.normal(size=(4, 3))}
    state = initial_state(optimizer, ours, backend)
    w, m, v = ours["w"].copy(), np.zeros((4, 3)), np.zeros((4, 3))
    for n in range(1, 11):
        g = rng.normal(size=(4, 3))
        state = optimizer.update(ours, {"w": g}, state, 0.01 / n, backend)
        w, m, v = yours.adamw(w, g, m, v, n, 0.01 / n, 0.1)
        expect(w, ours["w"], f"the weights after step {n}")
