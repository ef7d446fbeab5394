"""The memory of the device: refuse a run that does not fit, and turn the device's out-of-memory errors into BackendError."""

from collections.abc import Iterator
from contextlib import contextmanager

from led_backends.contract import Backend, DeviceMemoryError
from led_ref.config import LEDConfig
from led_ref.costs.memory import plan
from led_ref.costs.operations import Workload, on_gpu
from led_ref.errors import BackendError

# The plan may be wrong by this part: it must not refuse a run that fits.
DOUBT = 0.1

LESS = (
    "Give fewer tokens, beams or documents at a time, dtype='float16', or cross_attention='folded', which keeps no keys and "
    "values of the document. `led-ref estimate` says what a run needs."
)


@contextmanager
def device_errors(backend: Backend) -> Iterator[None]:
    """Within this context, an out-of-memory error of the device becomes a BackendError that says what to lower."""
    try:
        with backend.at_work():
            yield
    except DeviceMemoryError as error:
        raise BackendError(str(error)) from error


def check_free_memory(backend: Backend, config: LEDConfig, load: Workload, *, is_read: bool = False) -> None:
    """Refuse a run that needs more than the device's free memory, before it begins. The host's memory is not checked.

    Args:
        backend: the device of the run.
        config: sizes of the model.
        load: sizes of the run.
        is_read: whether the encoder has run already.

    Raises:
        BackendError: naming the bytes needed beside the weights, and the free bytes.
    """
    free = backend.free_memory()
    if free is None:
        return
    planned = plan(config, on_gpu(config, load))
    needed = planned.writing if is_read else max(planned.encoding, planned.writing)
    if needed * (1 - DOUBT) > free:
        raise BackendError(
            f"Reading {load.batch} x {load.tokens:,} tokens and writing {load.new_tokens:,} with {load.beams} beams needs "
            f"about {needed:,} bytes beside the weights, and {backend.describe()} has {free:,} left. {LESS}"
        )
