"""Between led_ref and the machine it runs on: what a device complains of, said as an error of led_ref."""

from collections.abc import Iterator
from contextlib import contextmanager

from led_backends.contract import Backend, DeviceMemoryError
from led_ref.errors import BackendError


@contextmanager
def device_errors(backend: Backend) -> Iterator[None]:
    """While this lasts, running out of the device's memory is a BackendError that says what to lower."""
    try:
        with backend.memory_errors():
            yield
    except DeviceMemoryError as error:
        raise BackendError(str(error)) from error
