"""Each backward operation against torch's autograd, in float64 and float32."""

import numpy as np
import pytest

from led_backends.cupy_plain import PlainOperations
from led_backends.numpy_backend import NumpyBackend
from led_ref.config import ACTIVATIONS

pytestmark = pytest.mark.peer

BACKENDS = {"numpy": NumpyBackend(threads=2), "plain": PlainOperations(np)}
# A few roundings of sums of some hundred numbers, of the largest.
ALLOWED = {"float64": 2e-14, "float32": 5e-6}


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture(params=ALLOWED)
def dtype(request):
    return request.param


def drawn(dtype, *shapes):
    rng = np.random.default_rng(17)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def compare(worst, dtype, operation, gradients, f, arrays, dy):
    """The gradients of arrays, given those of f's output."""
    import torch

    tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    f(*tensors).backward(torch.tensor(dy, dtype=torch.float64))
    for gradient, tensor in zip(gradients, tensors, strict=True):
        largest = float(tensor.grad.abs().max())
        worst.compare(f"{operation}, {dtype}", gradient / largest, tensor.grad.numpy() / largest, ALLOWED[dtype])


def test_linear(worst, backend, dtype):
    import torch

    x, weight, bias, dy = drawn(dtype, (3, 131, 29), (37, 29), (37,), (3, 131, 37))
    gradients = backend.linear_backward(dy, x, weight)
    compare(worst, dtype, "linear", gradients, torch.nn.functional.linear, (x, weight, bias), dy)


def test_layer_norm(worst, backend, dtype):
    import torch

    x, update, weight, bias, dy = drawn(dtype, (3, 131, 29), (3, 131, 29), (29,), (29,), (3, 131, 29))
    ds, dweight, dbias = backend.layer_norm_backward(dy, x, weight, update)

    def f(x, update, weight, bias):
        return torch.nn.functional.layer_norm(x + update, (29,), weight, bias, eps=1e-5)

    compare(worst, dtype, "layer_norm", (ds, ds, dweight, dbias), f, (x, update, weight, bias), dy)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(worst, backend, dtype, activation):
    from transformers.activations import ACT2FN

    x, dy = drawn(dtype, (131, 29), (131, 29))
    _, slope = backend.activate_with_slope(x.copy() * 3, activation)
    compare(worst, dtype, activation, [dy * slope * 3], lambda x: ACT2FN[activation](x * 3), [x], dy)


def test_attention(worst, backend, dtype):
    import torch

    q, k, v, dout = drawn(dtype, (2, 3, 131, 5), (2, 3, 139, 5), (2, 3, 139, 5), (2, 3, 131, 5))
    may_look = np.random.default_rng(1).random((2, 131, 139)) < 0.6
    gradients = backend.attend_backward(dout, q, k, v, may_look)

    def f(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, torch.tensor(may_look)[:, None], scale=1.0)

    compare(worst, dtype, "attend", gradients, f, (q, k, v), dout)


def test_rows(worst, backend, dtype):
    import torch

    table, dy = drawn(dtype, (19, 5), (131, 5))
    ids = np.random.default_rng(1).integers(0, 19, 131)
    dtable = np.zeros_like(table)
    backend.add_rows(dtable, ids, dy)
    compare(worst, dtype, "add_rows", [dtable], lambda table: table[torch.tensor(ids)], [table], dy)
