"""`pytest --backend stand-in` or `--backend cupy`: the suites, as they are, with the model on the stand-in or on a GPU.

What a test compares with np.testing it looks at from the host: only there is an array fetched for it. Everything between
the call of the model and what it returns is as strict as ever.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np

import led_backends

# What is about the CPU, and makes its own NumpyBackend or counts NumPy's roundings.
OF_THE_CPU = (
    "test_float32_bound.py::",  # bounds that come from rows in float64, which a GPU's are not
    "test_blocks_and_threads_invariance",
    "test_model_computes_in_its_dtype",
    "test_mutant_is_located",  # some are planted in the NumPy backend
    "oracle/test_vectors",  # led_ref's answers to them are the CPU's; the device's: test_vectors_on_stand_in.py
)
COMPARISONS = ("assert_allclose", "assert_array_equal")


@contextmanager
def on_the_stand_in() -> Iterator[None]:
    """Meanwhile, whoever asks for a backend by name, or for none, gets one on the stand-in."""
    from stand_in.cupy_stand_in import installed
    from stand_in.kernel_twins import register

    register()
    with installed(), on_cupy():  # "auto" finds a GPU now
        yield


@contextmanager
def on_cupy() -> Iterator[None]:
    """Meanwhile, whoever asks for a backend by name, or for none, gets one on the GPU.

    Raises:
        BackendUnavailableError: where none answers, so that nothing seems to have run on it.
    """
    led_backends.get("cupy")
    with ExitStack() as stack:
        # So small that the tests' documents have several blocks, the last one shorter.
        stack.enter_context(mock.patch("led_backends.cupy_backend.CupyBackend.queries_per_block", 11))
        stack.enter_context(mock.patch("led_backends.cupy_backend.BLOCK_ROWS", 13))
        for name in COMPARISONS:
            stack.enter_context(mock.patch.object(np.testing, name, _fetching(getattr(np.testing, name))))
        yield


def fetched(value: Any) -> Any:
    """On the host, whatever it was."""
    from stand_in.cupy_stand_in import ndarray

    real = getattr(sys.modules.get("cupy"), "ndarray", ndarray)
    if isinstance(value, ndarray | real):
        return value.get()
    return type(value)(fetched(entry) for entry in value) if isinstance(value, list | tuple) else value


def _fetching(compare: Any) -> Any:
    def with_fetched(actual: Any, desired: Any, *args: Any, **kwargs: Any) -> None:
        compare(fetched(actual), fetched(desired), *args, **kwargs)

    return with_fetched
