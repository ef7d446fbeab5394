"""Hints at the cause of a difference: a transposed array, uncut padding, a scale applied twice, a shift by one.

    hint_at_shapes(a, b, ["B", "T", "D"])      "b holds a's numbers as a.transpose(1, 0, 2)"
    hint_at_values(a, b, ...)                  "b is a times 0.125 = 1/sqrt(64)"

A hint is a fact about the numbers (b is a, moved by one along U), tested on all of them; the reader draws the conclusion.
Arrays of more than 16 million values get no hints.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from led_backends.contract import HostArray

MOST_VALUES = 1 << 24

# Axes that can be padded.
_POSITIONS = ("T", "U", "S")

# The tolerance of "the same numbers": enough for two float32 programs, too small for coincidence.
_RTOL, _ATOL = 1e-3, 1e-5


def hint_at_names(only_in_a: Sequence[str], only_in_b: Sequence[str]) -> str:
    """The prefix that most names of one trace lack to equal names of the other; "" if none.

    Example:
        >>> hint_at_names(["led.encoder.x", "led.encoder.y", "z"], ["encoder.x", "encoder.y"])
        "2 of 2 names that only b has lack 'led.' to be a's"
    """
    for side, short, other, long in (("b", only_in_b, "a", only_in_a), ("a", only_in_a, "b", only_in_b)):
        whole, beginnings = set(short), Counter[str]()
        for name in long:
            # Every prefix that ends with a point: "led." of "led.encoder.x".
            for cut in (i + 1 for i, letter in enumerate(name) if letter == "."):
                if name[cut:] in whole:
                    beginnings[name[:cut]] += 1
        for beginning, count in beginnings.most_common(1):
            if 2 * count > len(short):
                return f"{count} of {len(short)} names that only {side} has lack {beginning!r} to be {other}'s"
    return ""


def hint_at_shapes(a: HostArray, b: HostArray, letters: Sequence[str]) -> str:
    """The operation that makes one shape of the other, if the numbers then agree; "" if none is known.

    Args:
        a: any array.
        b: an array of another shape.
        letters: the names of a's axes.
    """
    if max(a.size, b.size) > MOST_VALUES:
        return ""
    if a.size == b.size:
        for order in itertools.permutations(range(a.ndim)):
            if _same(a.transpose(order).reshape(b.shape), b):
                moved = "" if list(order) == sorted(order) else f".transpose{order}"
                shaped = "" if a.transpose(order).shape == b.shape else f".reshape{b.shape}"
                return f"b holds a's numbers, as a{moved}{shaped}"
        if sorted(a.shape) == sorted(b.shape):
            return "the axes are in another order, and the numbers differ as well"
    if a.ndim == b.ndim and a.size and b.size:
        common = tuple(slice(min(sizes)) for sizes in zip(a.shape, b.shape, strict=True))
        uneven = [i for i in range(a.ndim) if a.shape[i] != b.shape[i]]
        axes = ", ".join(f"{_axis(letters, i)} ({a.shape[i]} in a, {b.shape[i]} in b)" for i in uneven)
        if _same(a[common], b[common]):
            guess = ": padding that was not cut off?" if all(_axis(letters, i) in _POSITIONS for i in uneven) else ""
            return f"the values that both have are equal; the sizes differ along {axes}{guess}"
        return f"the sizes differ along {axes}, and so do the values that both have"
    return ""


def hint_at_values(a: HostArray, b: HostArray, letters: Sequence[str], rtol: float, atol: float) -> str:
    """The operation that makes b's numbers of a's, and the positions of the difference if they are few; "" if none.

    Two arrays of one shape, the names of their axes, and the tolerances of the comparison.
    """
    if a.size > MOST_VALUES or not a.size:
        return ""
    x, y = a.astype(np.float64), b.astype(np.float64)
    facts = [*itertools.islice(_facts(x, y, letters), 1), *_where(x, y, letters, rtol, atol)]
    return "; ".join(facts)


def _facts(x: HostArray, y: HostArray, letters: Sequence[str]) -> Iterator[str]:
    """Operations that make y of x for all values; none if the two are nearly the same."""
    if _same(x, y):
        return
    for order in itertools.permutations(range(x.ndim)):
        if list(order) != sorted(order) and x.transpose(order).shape == y.shape and _same(x.transpose(order), y):
            yield f"b is a.transpose{order}"
    for axis in range(x.ndim):
        if x.shape[axis] > 2:
            x_ahead, x_behind = np.delete(x, 0, axis), np.delete(x, -1, axis)
            y_ahead, y_behind = np.delete(y, 0, axis), np.delete(y, -1, axis)
            for late, early, direction in ((y_ahead, x_behind, "late"), (y_behind, x_ahead, "early")):
                if _same(late, early) and not _same(y_ahead, y_behind):
                    yield f"b is a, one place too {direction} along {_axis(letters, axis)}"
    counted = np.isfinite(x) & np.isfinite(y) & (x != 0)
    if counted.any():
        factor = float(np.median(y[counted] / x[counted]))
        if factor and abs(factor - 1) > _RTOL and _same(np.where(np.isfinite(x), x * factor, x), y):
            yield f"b is a times {factor:.6g}{_as_root(factor)}"
    if x.ndim > 1 and counted.sum() > x.shape[-1] and np.isfinite(x).all() and np.isfinite(y).all():
        added = (y - x).reshape(-1, x.shape[-1])
        if len(added) > 1 and np.allclose(added[:1], added, rtol=0, atol=_RTOL * float(np.abs(added).max())):
            yield f"b - a is the same vector everywhere along {_axis(letters, x.ndim - 1)}: a bias?"


def _where(x: HostArray, y: HostArray, letters: Sequence[str], rtol: float, atol: float) -> Iterator[str]:
    """The positions along an axis with differences, if they are few or contiguous, and not all."""
    differs = ~np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=True)
    for axis, size in enumerate(x.shape):
        places = np.flatnonzero(differs.any(axis=tuple(i for i in range(x.ndim) if i != axis)))
        in_a_row = len(places) > 2 and len(places) == places[-1] - places[0] + 1
        if 0 < len(places) < size and (in_a_row or len(places) <= min(8, size / 2)):
            shown = f"{places[0]} to {places[-1]}" if in_a_row else ", ".join(map(str, places))
            yield f"they differ only at {_axis(letters, axis)} = {shown}"


def _same(a: HostArray, b: HostArray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=_RTOL, atol=_ATOL, equal_nan=True))


def _as_root(factor: float) -> str:
    """The factor as the root of a whole number, if it is one: 1/sqrt(head dimension) scales attention.

    Example:
        >>> _as_root(0.125), _as_root(8.0), _as_root(0.3)
        (' = 1/sqrt(64)', ' = sqrt(64)', '')
    """
    for square, form in ((factor**-2, "1/sqrt({})"), (factor**2, "sqrt({})")):
        if factor > 0 and 1 < square < 1e6 and math.isclose(square, round(square), rel_tol=_RTOL):
            return f" = {form.format(round(square))}"
    return ""


def _axis(letters: Sequence[str], axis: int) -> str:
    return letters[axis] if axis < len(letters) else f"axis {axis}"
