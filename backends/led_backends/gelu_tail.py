"""The one special function of LED: GELU needs the normal distribution's tail, which NumPy does not have.

    gelu(x) = x * Phi(x),   Phi(x) = (1 + erf(x / sqrt 2)) / 2

Computed literally, `1 + erf` cancels for negative x and leaves float32 with an error of 1e-6. The same function without
any cancellation, with a = |x|:

    gelu(x) = max(x, 0) - a * Phi(-a),   Phi(-a) = exp(-a^2 / 2) * R(s),   s = (a - 2.6) / (a + 2.6)

R is smooth and s runs through [-1, 1) as a runs through [0, infinity), so a polynomial in s fits R everywhere: degree 6
gives float32 all it can hold (error 2.4e-7 at x = 5.0, half a unit in the last place; PyTorch's: 1.2e-6), degree 27
float64 (4.4e-16); both for |x| <= 8, beyond which gelu(x) is x or 0 to the last place. The coefficients are not copied
from a table: they are fitted here, once, to `math.erfc`, most closely where an error of R would be seen most in gelu(x).
"""

import functools
import math

import numpy as np
from numpy.polynomial import chebyshev

CENTRE = 2.6
GELU_NEW_IS_FLAT = 100  # beyond it gelu_new(x) is x or 0 to the last place, and x^3 may overflow
DEGREES = {"float32": 6, "float64": 27}
POINTS = 400  # where R is known to the fit
LEAST_WEIGHT = 1e-5  # of a point at which a * exp(-a^2 / 2), and with it R's part in gelu(x), is next to nothing


@functools.cache
def tail_coefficients(dtype_name: str) -> tuple[float, ...]:
    """Coefficients of R(s), lowest power first, for "float32" or "float64".

    Example:
        >>> coefficients = tail_coefficients("float32")
        >>> a = 1.0
        >>> s = (a - CENTRE) / (a + CENTRE)
        >>> tail = math.exp(-a * a / 2) * sum(c * s**n for n, c in enumerate(coefficients))
        >>> f"{tail:.5f}"  # Phi(-1): 15.866% of a normal distribution lies below -1
        '0.15866'
    """
    s = chebyshev.chebpts1(POINTS)
    a = CENTRE * (1 + s) / (1 - s)
    weight = np.maximum(a * np.exp(-(np.minimum(a, 30) ** 2) / 2), LEAST_WEIGHT)
    fitted = chebyshev.chebfit(s, np.array([_scaled_tail(each) for each in a.tolist()]), DEGREES[dtype_name], w=weight)
    return tuple(float(c) for c in chebyshev.cheb2poly(fitted))


def _scaled_tail(a: float) -> float:
    """R at a: `Phi(-a) * exp(a^2 / 2)`, from erfc where both factors are in range, else from Laplace's continued fraction."""
    if a < 20:
        return 0.5 * math.erfc(a / math.sqrt(2)) * math.exp(a * a / 2)
    fraction = 0.0
    for n in range(40, 0, -1):
        fraction = n / (a + fraction)
    return 1 / (math.sqrt(2 * math.pi) * (a + fraction))
