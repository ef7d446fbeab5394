"""The CPU backend's backward operations: gradients of what numpy_backend.py computes, cut into pieces for its threads.

A gradient of weights is a sum over all rows of a batch. It is cut by the numbers that it gives, never by the rows that it
sums, so each is one sum in one order, whatever the number of threads. `d` before a name is the gradient of the loss with
respect to it:

    y = x @ W.T + b                 dx = dy @ W        dW = dy.T @ x        db = sum of dy over rows
    p = softmax(s)                  ds = p (dp - sum(p dp))
    y = n w + b,  n = (s - mean) r  ds = r (dn - mean(dn) - n mean(dn n)),  dn = dy w,  r = 1 / sqrt(variance + eps)
    y = x Phi(x)                    dy/dx = Phi(x) + x phi(x)               gelu; phi is the density of Phi
"""

import math
from collections.abc import Iterator

import numpy as np

from led_backends.contract import Array
from led_backends.gelu_tail import CENTRE, GELU_NEW_IS_FLAT
from led_backends.numpy_pieces import coefficients_of, exponentials, parallel_for, quietly, sigmoid, slices

# Numbers of a row of dW, or rows of dx, in a piece: some two or three pieces of a small matrix are all that there is to
# share, but each product packs its other side anew. Those of led-base's 2,048 tokens, 768 -> 3,072, took 151 ms of one core in
# pieces of 768, 158 in pieces of 384, 165 in pieces of 192.
OUTPUTS, ROWS = 384, 1024

# Numbers of a piece of what is done element by element: it has some such arrays at once, in float64 (numpy_backend.CHUNK).
NUMBERS = 1 << 15


def linear_backward(
    dy: Array, x: Array, weight_FD: Array, into: tuple[Array | None, tuple[Array, Array] | None], threads: int
) -> tuple[Array, Array, Array]:
    """The gradient of x by blocks of rows, those of weight and bias by pieces of the outputs F, all shared among threads.

    into: (dx, (dweight, dbias)) to add to; None: new ones.
    """
    dy_XF, x_XD = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
    rows, outputs = dy_XF.shape
    dx, dweights = into
    dx_XD = np.empty(x_XD.shape, x.dtype) if dx is None else dx.reshape(x_XD.shape)
    dweight_FD, dbias_F = dweights or (np.zeros(weight_FD.shape, x.dtype), np.zeros(outputs, x.dtype))
    ones_X = np.ones(rows, x.dtype)

    def compute(piece: tuple[str, slice]) -> None:
        of, part = piece
        if of == "outputs":
            dy_XP = dy_XF[:, part]
            dweight_FD[part] += dy_XP.T @ x_XD
            dbias_F[part] += ones_X @ dy_XP
        elif dx is None:
            np.matmul(dy_XF[part], weight_FD, out=dx_XD[part])
        else:
            dx_XD[part] += dy_XF[part] @ weight_FD

    pieces = [("outputs", part) for part in _at_least_two(outputs, OUTPUTS)]
    parallel_for(quietly(compute), pieces + [("rows", part) for part in _at_least_two(rows, ROWS)], threads)
    return dx_XD.reshape(x.shape), dweight_FD, dbias_F


def _at_least_two(total: int, most: int) -> Iterator[slice]:
    """Pieces that some threads can share. The cut depends on the shape alone, and so does every bit."""
    return slices(total, max(1, min(-(-total // 2), most)))


def layer_norm_backward(
    dy: Array, x: Array, weight_D: Array, update: Array | None, eps: float, threads: int
) -> tuple[Array, Array, Array]:
    """In float64 within a row, as forward. Sums over rows: one for each piece of rows, then the pieces in order."""
    width = x.shape[-1]
    dy_XD, x_XD = dy.reshape(-1, width), x.reshape(-1, width)
    update_XD = None if update is None else np.broadcast_to(update, x.shape).reshape(-1, width)
    ds_XD = np.empty(x_XD.shape, x.dtype)
    parts = list(slices(len(x_XD), max(1, NUMBERS // width)))
    sums_P2D = np.zeros((len(parts), 2, width))

    def compute(piece: int) -> None:
        part = parts[piece]
        if update_XD is None:
            normal_RD = x_XD[part].astype(np.float64)
        else:
            normal_RD = np.add(x_XD[part], update_XD[part], dtype=np.float64)
        normal_RD -= np.add.reduce(normal_RD, -1, keepdims=True) / width
        variance_R1 = np.einsum("rd,rd->r", normal_RD, normal_RD)[:, None] / width
        scale_R1 = 1 / np.sqrt(variance_R1 + eps)
        normal_RD *= scale_R1
        dn_RD = dy_XD[part].astype(np.float64)
        np.einsum("rd,rd->d", dn_RD, normal_RD, out=sums_P2D[piece, 0])
        np.add.reduce(dn_RD, 0, out=sums_P2D[piece, 1])
        dn_RD *= weight_D
        mean_R1 = np.add.reduce(dn_RD, -1, keepdims=True) / width
        normal_RD *= np.einsum("rd,rd->r", dn_RD, normal_RD)[:, None] / width
        dn_RD -= mean_R1
        dn_RD -= normal_RD
        dn_RD *= scale_R1
        ds_XD[part] = dn_RD

    parallel_for(compute, range(len(parts)), threads, products=False)
    dweight_D, dbias_D = sums_P2D.sum(0).astype(x.dtype)
    return ds_XD.reshape(x.shape), dweight_D, dbias_D


def attend_backward(
    dout_BHQK: Array,
    qkv: tuple[Array, Array, Array],
    may_look_BQS: Array | None,
    queries_per_block: int,
    threads: int,
) -> tuple[Array, Array, Array]:
    """Heads at the same time; the blocks of queries of a head in order, since each adds to the gradients of all its keys."""
    q_BHQK, k_BHSK, v_BHSK = qkv
    batch, heads, queries, _ = q_BHQK.shape
    if may_look_BQS is not None:
        may_look_BQS = np.broadcast_to(may_look_BQS, (batch, queries, k_BHSK.shape[2]))
    dq_BHQK, dk_BHSK, dv_BHSK = (np.zeros(x.shape, x.dtype) for x in qkv)

    def one_head(head: tuple[int, int]) -> None:
        k_SK, v_SK = k_BHSK[head], v_BHSK[head]
        for block in slices(queries, queries_per_block):
            q_QK, dout_QK = q_BHQK[head][block], dout_BHQK[head][block]
            probs_QS = q_QK @ k_SK.T
            if may_look_BQS is not None:
                np.copyto(probs_QS, -np.inf, where=~may_look_BQS[head[0], block])
            probs_QS /= exponentials(probs_QS)
            dv_BHSK[head] += probs_QS.T @ dout_QK
            dscores_QS = softmax_backward(dout_QK @ v_SK.T, probs_QS)
            dq_BHQK[head][block] = dscores_QS @ k_SK
            dk_BHSK[head] += dscores_QS.T @ q_QK

    parallel_for(quietly(one_head), [(b, h) for b in range(batch) for h in range(heads)], threads)
    return dq_BHQK, dk_BHSK, dv_BHSK


def softmax_backward(dprobs: Array, probs: Array) -> Array:
    """`p (dp - sum(p dp))`, over dprobs. A row of zeros gets zeros."""
    dprobs -= np.einsum("...s,...s->...", dprobs, probs)[..., None]
    dprobs *= probs
    return dprobs


def add_rows(table_VD: Array, ids_X: Array, rows_XD: Array) -> None:
    """The rows of each id are summed in their order (a stable sort brings them together), then added."""
    if not len(ids_X):
        return
    order_X = np.argsort(ids_X, kind="stable")
    sorted_X = ids_X[order_X]
    starts_U = np.flatnonzero(np.concatenate([[True], sorted_X[1:] != sorted_X[:-1]]))
    table_VD[sorted_X[starts_U]] += np.add.reduceat(rows_XD[order_X], starts_U, axis=0)


# ---- activations: x becomes activation(x), and the slope is returned ---------------------------------------------------


def activate_with_slope(x: Array, activation: str, threads: int) -> tuple[Array, Array]:
    """In place, one cache-sized piece at a time."""
    slope = np.empty_like(x)
    flat, slopes, of_piece = x.reshape(-1), slope.reshape(-1), WITH_SLOPE[activation]

    def compute(piece: slice) -> None:
        of_piece(flat[piece], slopes[piece])

    parallel_for(compute, list(slices(len(flat), NUMBERS)), threads, products=False)
    return x, slope


def relu_with_slope(x: Array, slope: Array) -> None:
    """1 where x > 0, else 0."""
    np.greater(x, 0, out=slope, casting="unsafe")
    np.maximum(x, 0, out=x)


def silu_with_slope(x: Array, slope: Array) -> None:
    """`sigmoid(x) (1 + x (1 - sigmoid(x)))`."""
    share = sigmoid(x)
    slope[...] = share * (1 + x * (1 - share))
    x *= share


def gelu_new_with_slope(x: Array, slope: Array) -> None:
    """`sigmoid(2u) + x sigmoid(2u) (1 - sigmoid(2u)) 2 du/dx`, with `du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x**2)`."""
    z = np.clip(x, -GELU_NEW_IS_FLAT, GELU_NEW_IS_FLAT)
    twice = 2 * math.sqrt(2 / math.pi)
    share = sigmoid(z * (1 + 0.044715 * z * z) * twice)
    slope[...] = share * (1 + z * (1 - share) * (twice * (1 + 3 * 0.044715 * z * z)))
    x *= share


def gelu_with_slope(x: Array, slope: Array) -> None:
    """`Phi(x) + x phi(x)`, with both from one exponential: `Phi(-a) = exp(-a**2 / 2) R(s)` (gelu_tail.py), a = |x|."""
    number, coefficients = x.dtype.type, coefficients_of(x.dtype)
    a = np.abs(x)
    s, tail = a - number(CENTRE), a + number(CENTRE)
    s /= tail
    np.multiply(s, coefficients[-1], out=tail)  # R(s) by Horner's rule
    for coefficient in coefficients[-2:0:-1]:
        tail += coefficient
        tail *= s
    tail += coefficients[0]
    power = np.multiply(a, a, out=s)
    power *= number(-0.5)
    np.exp(power, out=power)
    np.multiply(tail, power, out=slope)  # Phi(-a)
    np.subtract(number(0.5), slope, out=slope)
    np.copysign(slope, x, out=slope)  # Phi(x) - 1/2 is an odd function
    slope += number(0.5)
    tail *= a  # from here to x in the order of gelu_in_place, so that both give the same bits
    tail *= power
    power *= x
    power *= number(1 / math.sqrt(2 * math.pi))
    slope += power  # Phi(x) + x phi(x)
    x += a
    x *= number(0.5)
    x -= tail


WITH_SLOPE = {
    "gelu": gelu_with_slope,
    "relu": relu_with_slope,
    "silu": silu_with_slope,
    "gelu_new": gelu_new_with_slope,
}
