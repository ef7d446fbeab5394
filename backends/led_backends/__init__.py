"""The machines that led_ref runs on, behind one small contract (contract.py). This package never imports led_ref.

get("numpy")  the CPU (numpy_backend.py)
get("cupy")   an NVIDIA GPU (cupy_backend.py); run on one kind so far, an H100
get("auto")   the GPU where CuPy is installed and one answers, else the CPU; the backend's `name` says which it is
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec

from led_backends.contract import Array, Backend, BackendUnavailableError, DeviceMemoryError, HostArray, NoDeviceError
from led_backends.notices import warn

__all__ = ["Backend", "BackendUnavailableError", "DeviceMemoryError", "get", "to_host"]

NAMES = ("auto", "numpy", "cupy")


def get(name: str = "auto", *, notice: Callable[[str], None] | None = None) -> Backend:
    """The backend of that name.

    "auto" costs no import of CuPy where it is not installed. Where it is installed but no GPU answers, "auto" is the CPU,
    and `get("cupy")` says why. A GPU that is there and cannot be used is a notice, too.

    Args:
        name: "auto", "numpy" or "cupy".
        notice: called with a sentence for the user; None: it is a warning (notices.py).

    Raises:
        BackendUnavailableError: if there is none of that name, or it cannot run here.
    """
    if name not in NAMES:
        raise BackendUnavailableError(f"There is no backend {name!r}. Known: {', '.join(NAMES)}.")
    if name == "cupy" or (name == "auto" and ("cupy" in sys.modules or find_spec("cupy"))):
        from led_backends.cupy_backend import CupyBackend

        try:
            return CupyBackend()
        except BackendUnavailableError as error:
            if name == "cupy":
                raise
            if not isinstance(error, NoDeviceError):
                (notice or warn)(f"Computing on the CPU, because the GPU cannot be used. {error}")
    from led_backends.numpy_backend import NumpyBackend

    return NumpyBackend()


def to_host(array: Array) -> HostArray:
    """The same values as a NumPy array, whatever the device of the array; a NumPy array itself is returned as it is."""
    return array.get() if hasattr(array, "get") else array  # cupy.ndarray.get copies from the device
