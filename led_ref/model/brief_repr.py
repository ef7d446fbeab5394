"""A short repr for what holds arrays: names, dtypes and shapes in place of numbers."""

from dataclasses import fields
from typing import Any

# Characters of a repr, at most: what fits on a screen.
MOST = 1000


class BriefRepr:
    """Gives a dataclass a repr such as `Linear(weight=float32 (768, 768), bias=float32 (768,))`.

    The dataclass has to say `repr=False`, else it makes its own. Fields that are None are left out.
    """

    def __repr__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)  # type: ignore[arg-type]
        text = f"{type(self).__name__}({', '.join(f'{name}={brief(value)}' for name, value in shown if value is not None)})"
        return text if len(text) <= MOST else f"{text[: MOST - 5]} ...)"


def brief(value: Any) -> str:
    """An array's dtype and shape, the first of several values and their number; else the repr.

    Example:
        >>> import numpy as np
        >>> brief((np.zeros((2, 3)), np.zeros(4)))
        '2 x [float64 (2, 3), ...]'
    """
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        shape = tuple(value.shape)
        return repr(value) if shape == () else f"{value.dtype} {shape}"
    if isinstance(value, dict) and len(value) > 9:
        return f"{len(value)} names"
    if isinstance(value, tuple | list) and len(value) > 1 and not isinstance(value[0], int | float | str):
        return f"{len(value)} x [{brief(value[0])}, ...]"
    return repr(value)
