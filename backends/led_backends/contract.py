"""What a backend must be able to do: the few operations in which the machines really differ.

A backend is an object that the model holds and passes down. There is no current backend, no global and no environment
variable. Everything else the model does with arrays goes through `xp`, and only through the names in `XP_NAMES`,
which NumPy and CuPy share with the same meaning; a test holds the model to that list.

This package never imports led_ref.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

# An array of the backend: numpy.ndarray here, cupy.ndarray on a GPU. Type checkers see NumPy's class for both.
Array: TypeAlias = npt.NDArray[Any]
HostArray: TypeAlias = npt.NDArray[Any]

# The names of the array namespace that model/ may use.
XP_NAMES = frozenset({
    "arange",
    "ascontiguousarray",
    "concatenate",
    "empty",
    "isfinite",
    "zeros",
})  # fmt: skip


class BackendUnavailableError(ImportError):
    """The backend cannot run on this machine, and the message says what would make it."""


class Backend(Protocol):
    """The operations. Every array argument and result lives on the backend's device and keeps its dtype."""

    name: str
    xp: Any

    def to_device(self, array: HostArray) -> Array:
        """The same values on the device, contiguous, same dtype."""
        ...

    def to_host(self, array: Array) -> HostArray:
        """The same values as a NumPy array. On a GPU this waits for the device."""
        ...

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        """`x @ weight.T + bias`: x (..., in), weight (out, in), bias (out,) -> (..., out)."""
        ...

    def layer_norm(self, x: Array, weight: Array, bias: Array) -> Array:
        """`(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the last axis; population variance."""
        ...

    def gelu(self, x: Array) -> Array:
        """`x * (1 + erf(x / sqrt 2)) / 2`. May overwrite x."""
        ...

    def softmax(self, scores: Array, may_look: Array | None) -> Array:
        """Softmax over the last axis of the scores whose `may_look` is True; 0 elsewhere. Overwrites scores.

        A row that may look at nothing becomes all zeros. `may_look` broadcasts against scores; None: look at all.
        """
        ...

    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        """Call `tile(slice)` so that the slices cover range(heads), in whatever grain and order suits the machine.

        The calls write to separate places and may run at the same time.
        """
        ...


def is_integer_dtype(dtype: np.dtype[Any]) -> bool:
    """Whether the dtype holds whole numbers (booleans do not count)."""
    return np.issubdtype(dtype, np.integer)


COMPUTE_DTYPES: Sequence[str] = ("float32", "float64")
