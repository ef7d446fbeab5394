"""The machines that led_ref runs on, behind one small contract (contract.py). This package never imports led_ref.

get("numpy")  the CPU (numpy_backend.py)
get("auto")   the fastest one that answers here; today that is always the CPU
"""

from led_backends.contract import Backend, BackendUnavailableError

__all__ = ["Backend", "BackendUnavailableError", "get"]

NAMES = ("auto", "numpy")


def get(name: str = "auto") -> Backend:
    """The backend of that name.

    Raises:
        BackendUnavailableError: if there is none of that name, or it cannot run here.
    """
    if name in ("auto", "numpy"):
        from led_backends.numpy_backend import NumpyBackend

        return NumpyBackend()
    if name == "cupy":
        raise BackendUnavailableError(
            "The CuPy backend is not part of this version; it has never run on a GPU. Use backend='numpy' or 'auto'."
        )
    raise BackendUnavailableError(f"There is no backend {name!r}. Known: {', '.join(NAMES)}.")
