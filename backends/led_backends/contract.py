"""What a backend must be able to do: the few operations in which the machines really differ.

A backend is an object that the model holds and passes down. There is no current backend, no global and no environment
variable. Everything else the model does with arrays goes through `xp`, and only through the names in `XP_NAMES`,
which NumPy and CuPy share with the same meaning; a test holds the model to that list.

This package never imports led_ref.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

# An array of the backend: numpy.ndarray here, cupy.ndarray on a GPU. Type checkers see NumPy's class for both.
Array: TypeAlias = npt.NDArray[Any]
HostArray: TypeAlias = npt.NDArray[Any]

# The names of the array namespace that model/ may use.
XP_NAMES = frozenset(
    {
        "arange",
        "asarray",
        "ascontiguousarray",
        "concatenate",
        "empty",
        "exp",
        "inf",
        "log",
        "matmul",
        "stack",
        "zeros",
    }
)


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

    def layer_norm(self, x: Array, weight: Array, bias: Array, update: Array | None = None) -> Array:
        """`(y - mean) / sqrt(variance + 1e-5) * weight + bias` over the last axis of y = x (+ update); population variance.

        `update` broadcasts against x. That both are taken in one pass saves a trip through memory and a rounding.
        """
        ...

    def gelu(self, x: Array) -> Array:
        """`x * (1 + erf(x / sqrt 2)) / 2`. May overwrite x."""
        ...

    def hide(self, scores: Array, may_look: Array) -> None:
        """Set scores to minus infinity, in place, where `may_look` is False. `may_look` broadcasts against scores."""
        ...

    def softmax(self, scores: Array) -> Array:
        """Softmax over the last axis; hidden scores become 0, and so does a row that is hidden as a whole.

        May overwrite scores.
        """
        ...

    def for_each_tile(self, tile: Callable[[slice], None], heads: int) -> None:
        """Call `tile(slice)` so that the slices cover range(heads), in whatever grain and order suits the machine.

        The calls write to separate places and may run at the same time.
        """
        ...
