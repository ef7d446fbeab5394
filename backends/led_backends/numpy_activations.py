"""The activation functions on NumPy, each overwriting one cache-sized piece of an array, in the array's dtype.

    relu(x)      max(x, 0)
    silu(x)      x sigmoid(x),       sigmoid(z) = 1 / (1 + exp(-z))
    gelu(x)      max(x, 0) - |x| Phi(-|x|)                           gelu_tail.py says why this form
    gelu_new(x)  x sigmoid(2 u),     u = sqrt(2 / pi) (x + 0.044715 x^3)

gelu_new is usually written x (1 + tanh(u)) / 2, and (1 + tanh(u)) / 2 = sigmoid(2 u). The sum cancels for negative u and
loses its digits in float32, the sigmoid does not.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from led_backends.contract import Array
from led_backends.gelu_tail import CENTRE, GELU_NEW_IS_FLAT, tail_coefficients


def relu_in_place(x: Array) -> None:
    """`max(x, 0)`."""
    np.maximum(x, 0, out=x)


def silu_in_place(x: Array) -> None:
    """`x sigmoid(x)`."""
    x *= _sigmoid(x)


def gelu_new_in_place(x: Array) -> None:
    """`x sigmoid(2 u)`."""
    z = np.clip(x, -GELU_NEW_IS_FLAT, GELU_NEW_IS_FLAT)
    z *= 1 + 0.044715 * z * z
    z *= 2 * math.sqrt(2 / math.pi)
    x *= _sigmoid(z)


def gelu_in_place(x: Array) -> None:
    """`max(x, 0) - |x| Phi(-|x|)`."""
    number, coefficients = x.dtype.type, _coefficients(x.dtype)
    a = np.abs(x)
    s, tail = a - number(CENTRE), a + number(CENTRE)
    s /= tail
    np.multiply(s, coefficients[-1], out=tail)  # R(s) by Horner's rule
    for coefficient in coefficients[-2:0:-1]:
        tail += coefficient
        tail *= s
    tail += coefficients[0]
    tail *= a  # |x| Phi(-|x|), its exponential last
    np.multiply(a, a, out=s)
    s *= number(-0.5)
    tail *= np.exp(s, out=s)
    x += a  # max(x, 0) = (x + |x|) / 2 without rounding, and faster than NumPy's maximum of an array and a number
    x *= number(0.5)
    x -= tail


@lru_cache(maxsize=2)
def _coefficients(dtype: np.dtype[Any]) -> list[Any]:
    """The polynomial of gelu_tail.py, as numbers of a dtype."""
    return [dtype.type(c) for c in tail_coefficients(dtype.name)]


def _sigmoid(z: Array) -> Array:
    """`1 / (1 + exp(-z))`. exp is given negative numbers only, so it cannot overflow."""
    power = np.exp(-np.abs(z))
    quotient: Array = np.where(z < 0, power, z.dtype.type(1))
    power += 1
    quotient /= power
    return quotient
