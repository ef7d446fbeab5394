"""Between led_ref and the machine it runs on: whether a run fits, and what a device complains of, as errors of led_ref."""

from collections.abc import Iterator
from contextlib import contextmanager

from led_backends.contract import Backend, DeviceMemoryError
from led_ref.config import LEDConfig
from led_ref.costs.memory import plan
from led_ref.costs.operations import Workload, on_gpu
from led_ref.errors import BackendError

# An estimate that is so far off must not refuse a run that fits.
DOUBT = 0.1

LESS = (
    "Give fewer tokens, beams or documents at a time, dtype='float16', or cross_attention='folded', which keeps no keys and "
    "values of the document. `led-ref estimate` says what a run needs."
)


@contextmanager
def device_errors(backend: Backend) -> Iterator[None]:
    """While this lasts, running out of the device's memory is a BackendError that says what to lower."""
    try:
        with backend.at_work():
            yield
    except DeviceMemoryError as error:
        raise BackendError(str(error)) from error


def check_room(backend: Backend, config: LEDConfig, load: Workload, *, is_read: bool = False) -> None:
    """Refuse, before it begins, a run for which the device's memory does not suffice. The host's is not looked at.

    Args:
        backend: where it is to run.
        config: sizes of the model.
        load: what is to be run.
        is_read: the encoder has done its part already.

    Raises:
        BackendError: naming what is needed beside the weights, and what there is.
    """
    left = backend.free_memory()
    if left is None:
        return
    planned = plan(config, on_gpu(config, load))
    needed = planned.writing if is_read else max(planned.encoding, planned.writing)
    if needed * (1 - DOUBT) > left:
        raise BackendError(
            f"Reading {load.batch} x {load.tokens:,} tokens and writing {load.new_tokens:,} with {load.beams} beams needs "
            f"about {needed:,} bytes beside the weights, and {backend.describe()} has {left:,} left. {LESS}"
        )
