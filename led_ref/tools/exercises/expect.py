"""How the checks compare, and how they report a difference."""

from typing import Any

import numpy as np

Yours = Any  # the reader's file, as a module


def expect(found: Any, wanted: Any, what: str) -> None:
    """Nothing, if `found` equals `wanted`: whole numbers, lists and truth values exactly, floats to a relative 1e-9.

    Raises:
        AssertionError: naming `what`, and both values (of large arrays, the first place where they differ).

    Example:
        >>> expect([1, 2], [1, 3], "twice(1)")
        Traceback (most recent call last):
        AssertionError: twice(1) is [1, 2], and should be [1, 3].
    """
    if found is None:
        raise AssertionError(f"{what} is None: is a `return` missing?")
    try:
        a, b = np.asarray(found), np.asarray(wanted)
    except ValueError:
        raise AssertionError(f"{what} is {found!r}, and should be {wanted!r}.") from None
    if a.shape != b.shape:
        raise AssertionError(f"{what} has the shape {a.shape}, and should have {b.shape}: {_short(wanted)}.")
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        same = np.isclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)
    else:
        same = np.asarray(a == b)
    if same.all():
        return
    if a.size <= 24:
        raise AssertionError(f"{what} is {_short(found)}, and should be {_short(wanted)}.")
    place = tuple(int(i) for i in np.argwhere(~same)[0])
    raise AssertionError(f"{what} at {list(place)} is {a[place]}, and should be {b[place]}.")


def _short(value: Any) -> str:
    """A value as Python writes it, arrays as lists."""
    return repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)[:300]
