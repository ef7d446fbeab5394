"""The operations that encoder and decoder share: linear maps, heads, residual and LayerNorm, feed-forward, embeddings.

Every function takes arrays and a backend and returns arrays; nothing here remembers anything. The operations that a
backend computes (led_backends/contract.py), for one row [1, 2, 3]:

    softmax      exp(x) / sum exp(x)                          [0.09, 0.24, 0.67]: positive, adds up to one
    layer_norm   (x - mean) / sqrt(variance + 1e-5) * w + b   [-1.22, 0, 1.22]: with weights w = 1 and biases b = 0
    gelu         x * Phi(x), Phi: the normal distribution     [0.84, 1.95, 2.996]: almost x, and almost 0 for -x
                 (or relu, silu, gelu_new: whichever activation config.json names)
    linear       x @ weight.T + bias                          each output a weighted sum of all inputs

A head is a share of K = D / H columns, the head dimension, with attention of its own.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from led_backends.contract import Array, Backend, HostArray, Weight
from led_ref.model.dropout import Dropout, Site
from led_ref.model.params import DecoderLayerParams, EncoderLayerParams, LayerNorm, Linear

Pair = TypeVar("Pair", Linear, LayerNorm)

# Rows of a feed-forward that go back through it at a time: enough for a fast product, few enough for F numbers of each.
FEED_FORWARD_ROWS = 2048


def linear(x: Array, params: Linear, backend: Backend) -> Array:
    """`x @ weight.T + bias`: (..., in) -> (..., out)."""
    return backend.linear(x, params.weight, params.bias)


def linear_backward(
    dy: Array,
    x: Array,
    params: Linear,
    backend: Backend,
    dx: Array | None = None,
    dparams: Linear | None = None,
) -> tuple[Array, Linear]:
    """`dx = dy @ weight`, `dweight = dy.T @ x`, `dbias = sum of dy` over all leading axes.

    Gradients add up where x goes through several maps, or more rows go through the same one: `dx` and `dparams`, if given,
    are added to, in place, and returned.
    """
    into = None if dparams is None else (backend.rows(dparams.weight), dparams.bias)
    dx, dweight, dbias = backend.linear_backward(dy, x, params.weight, into, dx)
    return dx, Linear(dweight, dbias)


def zeros_like(params: Pair, backend: Backend) -> Pair:
    """Gradients of weight and bias to add to."""
    xp, dtype = backend.xp, params.bias.dtype
    return type(params)(xp.zeros(params.weight.shape, dtype=dtype), xp.zeros(params.bias.shape, dtype=dtype))


def add_gradients(total: Pair, more: Pair) -> None:
    """`total += more`, in place: gradients of parts of a batch are added up."""
    for name in ("weight", "bias"):
        array: Array = getattr(total, name)
        array += getattr(more, name)


def add_and_norm(x: Array, update: Array, params: LayerNorm, backend: Backend) -> Array:
    """`LayerNorm(x + update)`: the residual connection that closes every sublayer of LED (post-norm, as in BART)."""
    return backend.layer_norm(x, params.weight, params.bias, update)


def add_and_norm_backward(
    dy: Array, x: Array, update: Array, params: LayerNorm, backend: Backend
) -> tuple[Array, LayerNorm]:
    """The gradient of `x + update`, which is that of x and that of update, and the norm's own.

    A LayerNorm takes mean and length out of a row, so no gradient comes back along these two directions:
    `ds = (dn - mean(dn) - n mean(dn n)) / sqrt(variance + eps)`, with the normalised row n and `dn = dy weight`.
    """
    ds, dweight, dbias = backend.layer_norm_backward(dy, x, params.weight, update)
    return ds, LayerNorm(dweight, dbias)


def by_heads(x_BTD: Array, heads: int) -> Array:
    """(B, T, D) -> (B, H, T, K): the same numbers in the same places, seen head by head."""
    batch, length, width = x_BTD.shape
    x_BHTK: Array = x_BTD.reshape(batch, length, heads, width // heads).swapaxes(1, 2)
    return x_BHTK


def scale_and_split(q_BTD: Array, heads: int, backend: Backend) -> Array:
    """Queries `q / sqrt(K)`, split into heads: (B, T, D) -> (B, H, T, K). The scale comes after the bias. Overwrites q."""
    q_BTD *= q_BTD.dtype.type(1 / math.sqrt(q_BTD.shape[-1] // heads))
    return backend.split_heads(q_BTD, heads)


def feed_forward(x_BTD: Array, layer: EncoderLayerParams | DecoderLayerParams, backend: Backend) -> Array:
    """`fc2(activation(fc1(x)))`: (B, T, D) -> (B, T, F) -> (B, T, D), each position by itself.

    So it is computed in blocks of positions, and the F numbers of all positions never exist at the same time.
    """
    x_XD = x_BTD.reshape(-1, x_BTD.shape[-1])
    update_XD = backend.xp.empty(x_XD.shape, dtype=x_XD.dtype)
    activation = getattr(backend, layer.activation)  # gelu, relu, silu or gelu_new

    def compute(block: slice) -> None:
        hidden_XF = linear(x_XD[block], layer.fc1, backend)
        hidden_XF = activation(hidden_XF)
        update_XD[block] = linear(hidden_XF, layer.fc2, backend)

    backend.for_each_block(compute, len(x_XD))
    update_BTD: Array = update_XD.reshape(x_BTD.shape)
    return update_BTD


@dataclass(frozen=True)
class FedForward:
    """What the feed-forward of a block of positions computed on its way, and its backward pass reads."""

    hidden_XF: Array  # what fc2 read
    slope_XF: Array | None  # of the activation; None: only forward asked
    update_XD: Array  # fc2's output after dropout


def feed_forward_sublayer(
    x_BTD: Array,
    layer: EncoderLayerParams | DecoderLayerParams,
    dropout: Dropout,
    backend: Backend,
    kept: list[FedForward] | None = None,
) -> Array:
    """`LayerNorm(x + dropout(fc2(dropout(activation(fc1(x))))))`, in training: (B, T, D) -> (B, T, D).

    In the blocks of the backward pass: what is computed again, or was added to `kept`, has the same bits.
    """
    x_XD = x_BTD.reshape(-1, x_BTD.shape[-1])
    y_XD = backend.xp.empty(x_XD.shape, dtype=x_XD.dtype)
    fed_forward = _FeedForward(x_BTD, layer, dropout, backend)
    for block in fed_forward.blocks():
        of = fed_forward(x_XD[block], block, with_slope=kept is not None)
        y_XD[block] = add_and_norm(x_XD[block], of.update_XD, layer.final_layer_norm, backend)
        if kept is not None:
            kept.append(of)
    y_BTD: Array = y_XD.reshape(x_BTD.shape)
    return y_BTD


def feed_forward_sublayer_backward(
    dy_BTD: Array,
    x_BTD: Array,
    layer: EncoderLayerParams | DecoderLayerParams,
    dropout: Dropout,
    backend: Backend,
    kept: Sequence[FedForward] = (),
) -> tuple[Array, Linear, Linear, LayerNorm]:
    """The gradients of x, (B, T, D), of fc1, of fc2, and of final_layer_norm.

    Forward and backward of a block of positions, then those of the next: so what is computed again is computed once, and the
    F numbers of all positions never exist at the same time (unless they were kept). The blocks come in order, since each adds
    to the gradients of the weights.
    """
    x_XD, dy_XD = x_BTD.reshape(-1, x_BTD.shape[-1]), dy_BTD.reshape(-1, x_BTD.shape[-1])
    dx_XD = backend.xp.empty(x_XD.shape, dtype=x_XD.dtype)
    fed_forward = _FeedForward(x_BTD, layer, dropout, backend)
    dfc1, dfc2 = zeros_like(layer.fc1, backend), zeros_like(layer.fc2, backend)
    dnorm = zeros_like(layer.final_layer_norm, backend)
    for n, block in enumerate(fed_forward.blocks()):
        of = kept[n] if kept else fed_forward(x_XD[block], block, with_slope=True)
        assert of.slope_XF is not None

        dsum_XD, more = add_and_norm_backward(dy_XD[block], x_XD[block], of.update_XD, layer.final_layer_norm, backend)
        add_gradients(dnorm, more)
        dupdate_XD = fed_forward.drop_fc2(dsum_XD, block)
        dhidden_XF, _ = linear_backward(dupdate_XD, of.hidden_XF, layer.fc2, backend, dparams=dfc2)
        dhidden_XF = fed_forward.drop_fc1(dhidden_XF, block)
        _multiply(dhidden_XF, of.slope_XF, backend)
        dx_XD[block], _ = linear_backward(dhidden_XF, x_XD[block], layer.fc1, backend, dx=dsum_XD, dparams=dfc1)
        del of, dhidden_XF  # before the next block is made
    dx_BTD: Array = dx_XD.reshape(x_BTD.shape)
    return dx_BTD, dfc1, dfc2, dnorm


def _multiply(x_XF: Array, y_XF: Array, backend: Backend) -> None:
    """`x *= y`, in place, over threads."""

    def compute(rows: slice) -> None:
        x_XF[rows] *= y_XF[rows]

    backend.for_each_block(compute, len(x_XF))


class _FeedForward:
    """The feed-forward of a layer in training, block by block of the rows of (B, T, D)."""

    def __init__(
        self, x_BTD: Array, layer: EncoderLayerParams | DecoderLayerParams, dropout: Dropout, backend: Backend
    ) -> None:
        self.rows, self.layer, self.backend = x_BTD.shape[0] * x_BTD.shape[1], layer, backend
        self.drop_fc1 = _Dropped(dropout.activation("fc1"), x_BTD, backend)
        self.drop_fc2 = _Dropped(dropout.hidden("fc2"), x_BTD, backend)

    def blocks(self) -> Iterator[slice]:
        """Of FEED_FORWARD_ROWS rows, the last one shorter."""
        for start in range(0, self.rows, FEED_FORWARD_ROWS):
            yield slice(start, min(start + FEED_FORWARD_ROWS, self.rows))

    def __call__(self, x_XD: Array, block: slice, *, with_slope: bool) -> FedForward:
        hidden_XF, slope_XF = linear(x_XD, self.layer.fc1, self.backend), None
        if with_slope:
            hidden_XF, slope_XF = self.backend.activate_with_slope(hidden_XF, self.layer.activation)
        else:
            hidden_XF = getattr(self.backend, self.layer.activation)(hidden_XF)
        hidden_XF = self.drop_fc1(hidden_XF, block)
        return FedForward(hidden_XF, slope_XF, self.drop_fc2(linear(hidden_XF, self.layer.fc2, self.backend), block))


class _Dropped:
    """The dropout of a site, block by block of the rows of (B, T, F)."""

    def __init__(self, site: Site, x_BTD: Array, backend: Backend) -> None:
        self.site, self.backend = site, backend
        self.states_X = site.states(x_BTD.shape[0], x_BTD.shape[1], backend)

    def __call__(self, hidden_XF: Array, block: slice) -> Array:
        return self.site.drop_rows(hidden_XF, self.states_X, block, self.backend)


def embed_tokens(ids_BT: HostArray, shared_VD: Weight, backend: Backend) -> Array:
    """Row `id` of the embedding table for every token: (B, T) -> (B, T, D). The ids are validated before."""
    return backend.rows(shared_VD, backend.to_device(ids_BT))


def add_positions(x_BTD: Array, positions_PD: Weight, norm: LayerNorm, backend: Backend, *, first: int = 0) -> Array:
    """`LayerNorm(x + P[first], x + P[first + 1], ...)`: positions count from 0 and ignore the mask. No sqrt(D) scale."""
    positions_TD = backend.rows(positions_PD, slice(first, first + x_BTD.shape[1]))
    return add_and_norm(x_BTD, positions_TD, norm, backend)


def add_positions_backward(
    dy_BTD: Array, x_BTD: Array, positions_PD: Weight, norm: LayerNorm, backend: Backend
) -> tuple[Array, Array, LayerNorm]:
    """The gradients of x, (B, T, D), of the first T positions, (T, D), and of the norm.

    A position is added to the token of every document, and so sums the gradients of all, the first document's first.
    """
    positions_TD = backend.rows(positions_PD, slice(0, x_BTD.shape[1]))
    dx_BTD, dnorm = add_and_norm_backward(dy_BTD, x_BTD, positions_TD, norm, backend)
    dpositions_TD: Array = dx_BTD.sum(0)
    return dx_BTD, dpositions_TD, dnorm


def embed_tokens_backward(
    dx_BTD: Array, ids_BT: HostArray, pad_token_id: int | None, dshared_VD: Array, backend: Backend
) -> None:
    """Add each token's gradient to the row of its id, in place: a word that occurs twice learns from both places.

    The pad id's row learns nothing from being looked up (PyTorch's padding_idx), only as a word of the output projection.
    """
    ids_X = ids_BT.reshape(-1)
    looked_up = (ids_X != pad_token_id).nonzero()[0]
    rows_XD = dx_BTD.reshape(-1, dx_BTD.shape[-1])[backend.to_device(looked_up)]
    backend.add_rows(dshared_VD, ids_X[looked_up], rows_XD)
