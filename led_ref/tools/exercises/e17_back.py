"""The way back through attention.

One head, N queries over M keys. Forward, with the softmax row by row:

    p = softmax(q k.T)        (N, M)
    y = p v                   (N, K)

`dy` is the gradient of the loss with respect to y, and has its shape. From it come the gradients of q, k and v. First the
softmax alone: of a row p with the gradient dp, the scores' gradient is p * (dp - sum(p * dp)).
"""

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect

Floats = npt.NDArray[np.float64]


def softmax_backward(dp: Floats, p: Floats) -> Floats:
    """The gradient of the scores, (N, M), from that of their softmax, and the softmax itself."""
    ds: Floats = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
    return ds


def attention_backward(dy: Floats, q: Floats, k: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """(dq, dk, dv). The probabilities are not given: compute them again."""
    scores = q @ k.T
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    ds = softmax_backward(dy @ v.T, p)
    return ds @ k, ds.T @ q, p.T @ dy


def check_a_softmax_of_two(yours: Yours) -> None:
    """Probabilities of 1/2 each: a gradient that is the same for both changes nothing, since they sum to 1."""
    half = np.array([[0.5, 0.5]])
    expect(yours.softmax_backward(np.array([[3.0, 3.0]]), half), [[0.0, 0.0]], "softmax_backward of an equal gradient")
    expect(yours.softmax_backward(np.array([[1.0, 0.0]]), half), [[0.25, -0.25]], "softmax_backward([[1, 0]])")


def check_a_central_difference(yours: Yours) -> None:
    """The gradient of sum(dy * y), number by number: (loss(x + h) - loss(x - h)) / 2h."""
    rng = np.random.default_rng(17)
    dy, q, k, v = (rng.normal(size=size) for size in ((3, 2), (3, 2), (5, 2), (5, 2)))

    def loss() -> float:
        p = np.exp(q @ k.T)
        return float((dy * (p / p.sum(axis=-1, keepdims=True) @ v)).sum())

    for name, x, found in zip("qkv", (q, k, v), yours.attention_backward(dy, q, k, v), strict=True):
        slopes = np.zeros(x.shape)
        for place in np.ndindex(*x.shape):
            at, h = x[place], 1e-5
            x[place] = at + h
            up = loss()
            x[place] = at - h
            slopes[place] = (up - loss()) / (2 * h)
            x[place] = at
        off = np.abs(np.asarray(found) - slopes).max()
        assert off < 1e-8, f"d{name} differs from a central difference by {off:.1e}"


def check_large_scores(yours: Yours) -> None:
    """Scores of some thousands: subtract a row's maximum before the exponential. Against led_ref's own."""
    from led_backends.numpy_backend import NumpyBackend

    rng = np.random.default_rng(71)
    dy, q, k, v = (40 * rng.normal(size=(7, 3)) for _ in range(4))
    wanted = NumpyBackend().attend_backward(dy[None, None], q[None, None], k[None, None], v[None, None], None)
    for name, ours, found in zip("qkv", wanted, yours.attention_backward(dy, q, k, v), strict=True):
        expect(found, ours[0, 0], f"d{name} of attention_backward")
