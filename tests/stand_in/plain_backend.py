"""The contract in plain array notation, on any namespace: what the model itself asks of CuPy, without a kernel.

Its operations are the contract's sentences, one after the other, with nothing done for speed. It also computes in
float64, so that the suites of tests/model and tests/oracle can run on the stand-in with the tolerances that they have.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np


class PlainBackend:
    """led_backends.contract.Backend on `xp`; `to_host` and `to_device` are CuPy's."""

    name = "plain"
    queries_per_block = 128

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def to_device(self, array: Any) -> Any:
        return self.xp.asarray(np.ascontiguousarray(array))

    def to_host(self, array: Any) -> Any:
        return self.xp.asnumpy(array)

    def linear(self, x: Any, weight: Any, bias: Any) -> Any:
        rows = self.xp.ascontiguousarray(x).reshape(-1, x.shape[-1])
        return (rows @ weight.T + bias).reshape(*x.shape[:-1], weight.shape[0])

    def layer_norm(self, x: Any, weight: Any, bias: Any, update: Any = None) -> Any:
        y = x if update is None else x + update
        centred = y - y.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred / self.xp.sqrt(variance + 1e-5) * weight + bias

    def gelu(self, x: Any) -> Any:
        # NumPy has no erf, so this one function is made on the host's side of the stand-in: it is not what is judged.
        host = x._host
        host *= np.vectorize(lambda a: 0.5 * math.erfc(-a / math.sqrt(2)), otypes=[host.dtype])(host)
        return x

    def hide(self, scores: Any, may_look: Any) -> None:
        self.xp.copyto(scores, -math.inf, where=~may_look)

    def softmax(self, scores: Any) -> Any:
        if scores.shape[-1] == 0:
            return scores
        highest = scores.max(-1, keepdims=True)
        weights = self.xp.exp(scores - self.xp.where(highest == -math.inf, 0, highest).astype(scores.dtype))
        total = weights.sum(-1, keepdims=True)
        return weights / self.xp.where(total == 0, 1, total).astype(scores.dtype)

    def band_softmax(self, scores_hQZ: Any, globals_: int, band: Any) -> Any:
        queries, keys = scores_hQZ.shape[1], scores_hQZ.shape[2] - globals_
        own = self.xp.arange(queries)[:, None] + band.first
        may_look = abs(own - self.xp.arange(keys)) <= band.radius
        if band.local_S is not None:
            may_look &= band.local_S
        self.hide(scores_hQZ[:, :, globals_:], may_look)
        return self.softmax(scores_hQZ)

    def attend(self, q_BHQK: Any, k_BHSK: Any, v_BHSK: Any, may_look_BQS: Any) -> Any:
        scores = q_BHQK @ self.xp.ascontiguousarray(k_BHSK.swapaxes(-1, -2))
        if may_look_BQS is not None:
            self.hide(scores, may_look_BQS[:, None])
        return self.softmax(scores) @ self.xp.ascontiguousarray(v_BHSK)

    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        tile(slice(0, heads))

    def for_each_block(self, work: Callable[[slice], None], rows: int) -> None:
        work(slice(0, rows))
