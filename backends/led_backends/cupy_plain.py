"""The contract's arithmetic in array notation alone: what the kernels of kernels.cu are checked against.

Every operation here is the shortest true statement of what it does that NumPy and CuPy both understand. CupyBackend is
made on top of it: where a kernel of ours does not apply (float64, a row too wide for a warp's registers), this is what
runs. With `xp` NumPy it runs on any machine, which is how the tests compare.

Numbers stored in half precision are computed with in float32 and rounded once, at the end of an operation.
What is not here: memory transfers, kernels, any thought of speed (each line is a trip through memory).
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from led_backends.compact import CompactWeight, rows_of
from led_backends.contract import Array, Band, HostArray, Weight
from led_backends.gelu_tail import CENTRE, GELU_NEW_IS_FLAT, tail_coefficients

LAYER_NORM_EPS = 1e-5

FLOAT16_LIMIT = 64512  # 65504 - 1000 as float16 rounds it: transformers clamps to it what overflowed

# Scores that `attend` makes at a time, at most: 256 MiB of float32. With many queries to many keys they would be the
# largest array of all, and nobody needs them at once.
SCORES_AT_A_TIME = 1 << 26

# Rows that `add_rows` sums at a time: a product of (ids, rows) zeros and ones.
IDS_AT_A_TIME = 2048

# Numbers of a CompactWeight that are there as numbers at a time: 32 MiB of float32, enough to fill a GPU with their product.
NUMBERS_AT_A_TIME = 1 << 23


class PlainOperations:
    """The operations of the contract that compute, over any array namespace.

    Args:
        xp: numpy or cupy.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        """`x @ weight.T + bias`, all leading axes of x taken together as rows of one product.

        A product of two matrices takes the transposed one as it lies; only one of more axes would copy it first.
        A CompactWeight becomes numbers a tile of rows at a time (see NUMBERS_AT_A_TIME).
        """
        rows = x.reshape(-1, x.shape[-1])
        y: Array
        if isinstance(weight, CompactWeight):
            y = self.xp.empty((len(rows), len(weight)), x.dtype)
            step = max(1, NUMBERS_AT_A_TIME // weight.shape[1])
            for start in range(0, len(weight), step):
                share = slice(start, min(start + step, len(weight)))
                tile, scales = weight.tile(share)
                part = rows @ tile.T
                y[:, share] = part if scales is None else part * scales
        else:
            y = rows @ rows_of(weight).T
        y += bias
        return y.reshape(*x.shape[:-1], weight.shape[0])

    def linears(self, x: Array, maps: Sequence[tuple[Weight, Array]]) -> list[Array]:
        """`linear` for each (weight, bias)."""
        return [self.linear(x, weight, bias) for weight, bias in maps]

    def rows(self, weight: Weight, which: slice | Array | None = None) -> Array:
        """Rows of a weight as numbers."""
        return rows_of(weight, which)

    def layer_norm(self, x: Array, weight: Array, bias: Array, update: Array | None = None) -> Array:
        """`(y - mean) / sqrt(variance + 1e-5) * weight + bias` of y = x (+ update), rounded once."""
        y = self._wide(x) if update is None else self._wide(x) + self._wide(update)
        centred = y - y.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        normal = centred / self.xp.sqrt(variance + LAYER_NORM_EPS)
        return self._like(normal * self._wide(weight) + self._wide(bias), x)

    def gelu(self, x: Array) -> Array:
        """`max(x, 0) - |x| Phi(-|x|)`, in place (gelu_tail.py says why this form)."""
        y = self._wide(x)
        tail, _ = self._normal_tail(y)
        x[...] = self.xp.maximum(y, 0) - self.xp.abs(y) * tail
        return x

    def _normal_tail(self, y: Array) -> tuple[Array, Array]:
        """`Phi(-a)` and `exp(-a**2 / 2)` for a = |y|: the normal distribution's tail, `exp(-a**2 / 2) R(s)`."""
        a = self.xp.abs(y)
        s = (a - CENTRE) / (a + CENTRE)
        coefficients = tail_coefficients(y.dtype.name)
        ratio = self.xp.full_like(s, coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            ratio = ratio * s + coefficient
        power: Array = self.xp.exp(a * a * -0.5)
        return ratio * power, power

    def relu(self, x: Array) -> Array:
        """`max(x, 0)`, in place."""
        return cast(Array, self.xp.maximum(x, 0, out=x))

    def silu(self, x: Array) -> Array:
        """`x sigmoid(x)`, in place."""
        y = self._wide(x)
        x[...] = y * self._sigmoid(y)
        return x

    def gelu_new(self, x: Array) -> Array:
        """`x sigmoid(2 u)`, in place, since `(1 + tanh(u)) / 2 = sigmoid(2 u)` (numpy_pieces.py)."""
        y = self._wide(x)
        inner = self.xp.clip(y, -GELU_NEW_IS_FLAT, GELU_NEW_IS_FLAT)
        x[...] = y * self._sigmoid(2 * math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3))
        return x

    def _sigmoid(self, z: Array) -> Array:
        """`1 / (1 + exp(-z))`; exp is given negative numbers only, so it cannot overflow."""
        power = self.xp.exp(-self.xp.abs(z))
        quotient: Array = self.xp.where(z < 0, power, 1) / (1 + power)
        return quotient

    def clamp_overflow(self, x: Array) -> Array:
        """Whether a document overflowed is a number on the device, so no host waits for it: its limit is inf or 64512."""
        if x.dtype.char != "e":
            return x
        xp, of_document = self.xp, tuple(range(1, x.ndim))
        is_finite_B = xp.isfinite(x).all(of_document, keepdims=True)
        limit_B = xp.where(is_finite_B, math.inf, FLOAT16_LIMIT).astype(x.dtype)
        below = xp.minimum(x, limit_B)  # which keeps NaN; CuPy's clip may not
        return cast(Array, xp.maximum(below, -limit_B, out=below))

    def split_heads(self, x_BTD: Array, heads: int, queries: int = 0) -> Array:
        """Dense, for however many queries."""
        batch, length, d_model = x_BTD.shape
        x_BTHK = x_BTD.reshape(batch, length, heads, d_model // heads)
        x_BHTK: Array = self.xp.ascontiguousarray(x_BTHK.swapaxes(1, 2))
        return x_BHTK

    def hide(self, scores: Array, may_look: Array) -> None:
        """Minus infinity where `may_look` is False, in place."""
        self.xp.copyto(scores, -math.inf, where=~may_look)

    def softmax(self, scores: Array) -> Array:
        """Softmax over the last axis; a row that may look at nothing becomes zeros."""
        if not scores.shape[-1]:
            return scores  # CuPy knows no highest of nothing
        xp, wide = self.xp, self._wide(scores)
        highest = wide.max(-1, keepdims=True)
        weights = xp.exp(wide - xp.where(highest == -math.inf, 0, highest))  # exp(-inf - 0) = 0 in such a row
        total = weights.sum(-1, keepdims=True)
        return self._like(weights / xp.where(total == 0, 1, total), scores)

    def scores(self, q_hQK: Array, k_hZK: Array) -> Array:
        """`q @ k.T` for each head."""
        return self._products(q_hQK, k_hZK.swapaxes(-1, -2))

    def band_softmax(self, scores_hQZ: Array, globals_: int, band: Band) -> Array:
        """`hide` what the band does not show, then `softmax`."""
        scores_hQS = scores_hQZ[:, :, globals_:]
        queries, keys = scores_hQS.shape[1:]
        distance_QS = band.first + self.xp.arange(queries)[:, None] - self.xp.arange(keys)
        may_look_QS = abs(distance_QS) <= band.radius
        self.hide(scores_hQS, may_look_QS if band.local_S is None else may_look_QS & band.local_S)
        return self.softmax(scores_hQZ)

    def band_attend(self, scores_hQZ: Array, v_hZK: Array, globals_: int, band: Band) -> Array:
        """`band_softmax(scores) @ v`."""
        return self._products(self.band_softmax(scores_hQZ, globals_, band), v_hZK)

    def window_attend(
        self, q_HTK: Array, k_HTK: Array, v_HTK: Array, globals_G: Array, local_T: HostArray, radius: int
    ) -> Array | None:
        """Tile by tile."""
        return None

    def attend(self, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None) -> Array:
        """Scores, softmax, weighted sum, for blocks of queries (see SCORES_AT_A_TIME)."""
        xp = self.xp
        documents, heads, queries, _ = q_BHQK.shape
        out_BHQK: Array = xp.empty(q_BHQK.shape, q_BHQK.dtype)
        # CuPy copies what is not dense for every product: better once, here.
        k_BHKS, v_BHSK = xp.ascontiguousarray(k_BHSK.swapaxes(-1, -2)), xp.ascontiguousarray(v_BHSK)
        step = max(1, SCORES_AT_A_TIME // max(1, documents * heads * k_BHSK.shape[2]))
        for start in range(0, queries, step):
            block = slice(start, start + step)
            scores_BHQS = self._products(q_BHQK[:, :, block], k_BHKS)
            if may_look_BQS is not None:
                rows = block if may_look_BQS.shape[1] > 1 else slice(None)
                self.hide(scores_BHQS, may_look_BQS[:, None, rows])
            out_BHQK[:, :, block] = self._products(self.softmax(scores_BHQS), v_BHSK)
        return out_BHQK

    # ---- backward ------------------------------------------------------------------------------------------------------

    def linear_backward(
        self, dy: Array, x: Array, weight: Weight, into: tuple[Array, Array] | None = None, dx: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """`dy @ weight`, `dy.T @ x`, `sum of dy`, all leading axes taken together as rows."""
        dy_XF, x_XD = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        more_XD = dy_XF @ rows_of(weight)
        dweight, dbias = dy_XF.T @ x_XD, self._like(self._wide(dy_XF).sum(0), dy)
        if into is not None:
            into[0][...] += dweight
            into[1][...] += dbias
            dweight, dbias = into
        if dx is None:
            return more_XD.reshape(x.shape), dweight, dbias
        dx += more_XD.reshape(x.shape)
        return dx, dweight, dbias

    def layer_norm_backward(
        self, dy: Array, x: Array, weight: Array, update: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """`r (dn - mean(dn) - n mean(dn n))` with n the normalised row, `dn = dy weight`, `r = 1 / sqrt(variance + eps)`."""
        y = self._wide(x) if update is None else self._wide(x) + self._wide(update)
        centred = y - y.mean(-1, keepdims=True)
        scale = 1 / self.xp.sqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPS)
        normal, dy_wide, over = centred * scale, self._wide(dy), tuple(range(x.ndim - 1))
        dnormal = dy_wide * self._wide(weight)
        ds = scale * (dnormal - dnormal.mean(-1, keepdims=True) - normal * (dnormal * normal).mean(-1, keepdims=True))
        return self._like(ds, x), self._like((dy_wide * normal).sum(over), x), self._like(dy_wide.sum(over), x)

    def activate_with_slope(self, x: Array, activation: str) -> tuple[Array, Array]:
        """The slope first, then the activation over x."""
        xp, y = self.xp, self._wide(x)
        if activation == "relu":
            slope = xp.where(y > 0, y.dtype.type(1), y.dtype.type(0))
        elif activation == "silu":
            sigmoid = self._sigmoid(y)
            slope = sigmoid * (1 + y * (1 - sigmoid))
        elif activation == "gelu_new":
            z, twice = xp.clip(y, -GELU_NEW_IS_FLAT, GELU_NEW_IS_FLAT), 2 * math.sqrt(2 / math.pi)
            sigmoid = self._sigmoid(twice * (z + 0.044715 * z**3))
            slope = sigmoid * (1 + z * (1 - sigmoid) * (twice * (1 + 3 * 0.044715 * z * z)))
        else:
            tail, power = self._normal_tail(y)
            slope = xp.where(y < 0, tail, 1 - tail) + y * power * (1 / math.sqrt(2 * math.pi))
        slope = self._like(slope, x)
        return cast(Array, getattr(self, activation)(x)), slope

    def softmax_backward(self, dprobs: Array, probs: Array) -> Array:
        """`p (dp - sum(p dp))`."""
        dp, p = self._wide(dprobs), self._wide(probs)
        return self._like(p * (dp - (p * dp).sum(-1, keepdims=True)), dprobs)

    def attend_backward(
        self, dout_BHQK: Array, q_BHQK: Array, k_BHSK: Array, v_BHSK: Array, may_look_BQS: Array | None
    ) -> tuple[Array, Array, Array]:
        """For blocks of queries (see SCORES_AT_A_TIME), in order."""
        xp, products = self.xp, self._products
        documents, heads, queries, _ = q_BHQK.shape
        dq_BHQK: Array = xp.empty(q_BHQK.shape, q_BHQK.dtype)
        dk_BHSK, dv_BHSK = (xp.zeros(x.shape, x.dtype) for x in (k_BHSK, v_BHSK))
        step = max(1, SCORES_AT_A_TIME // max(1, documents * heads * k_BHSK.shape[2]))
        for start in range(0, queries, step):
            block = slice(start, start + step)
            q, dout = q_BHQK[:, :, block], dout_BHQK[:, :, block]
            scores_BHQS = products(q, k_BHSK.swapaxes(-1, -2))
            if may_look_BQS is not None:
                rows = block if may_look_BQS.shape[1] > 1 else slice(None)
                self.hide(scores_BHQS, may_look_BQS[:, None, rows])
            probs_BHQS = self.softmax(scores_BHQS)
            dv_BHSK += products(probs_BHQS.swapaxes(-1, -2), dout)
            dscores_BHQS = self.softmax_backward(products(dout, v_BHSK.swapaxes(-1, -2)), probs_BHQS)
            dq_BHQK[:, :, block] = products(dscores_BHQS, k_BHSK)
            dk_BHSK += products(dscores_BHQS.swapaxes(-1, -2), q)
        return dq_BHQK, dk_BHSK, dv_BHSK

    def add_rows(self, table: Array, ids: HostArray, rows: Array) -> None:
        """Each id's rows are summed by a product with zeros and ones: no atomic additions, whose order would be chance."""
        for start in range(0, len(ids), IDS_AT_A_TIME):
            part = slice(start, start + IDS_AT_A_TIME)
            unique_U = np.unique(ids[part])
            is_of_UX = self.xp.asarray(unique_U[:, None] == ids[None, part]).astype(rows.dtype)
            table[self.xp.asarray(unique_U)] += is_of_UX @ rows[part]

    def _products(self, a: Array, b: Array) -> Array:
        """`a @ b` of stacks of matrices."""
        product: Array = a @ b
        return product

    def _wide(self, x: Array) -> Array:
        """The same numbers in the precision to compute in: float64 as it is, all else in float32."""
        return x if x.dtype.name in ("float32", "float64") else x.astype("float32")

    def _like(self, computed: Array, x: Array) -> Array:
        """Rounded to how x is stored."""
        return computed.astype(x.dtype, copy=False)
