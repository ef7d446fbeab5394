"""How many files a reader walks through: the files of led_ref and led_backends whose functions run, counted by a profiler.

Each run is repeated before it is counted, so that imports and caches of the first run do not count.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import led_ref
from led_backends.numpy_backend import NumpyBackend

ROOT = Path(__file__).parent.parent
PACKAGES = {str(ROOT / "led_ref"): "led_ref", str(ROOT / "backends" / "led_backends"): "led_backends"}
TEXT = "The summary of a long document is a short text."

ENCODER_LAYER = ("led_ref/model/encoder.py", "encoder_layer")
DECODING_STEP = ("led_ref/classes/generate.py", "__call__")

# What a profiler sees: (call or return, file, name of the function).
Event = tuple[str, str, str]


@contextmanager
def profiled(events: list[Event]) -> Iterator[None]:
    """Record calls and returns of the functions of led_ref and led_backends, on this thread and on those that start."""

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event in ("call", "return") and code.co_name != "<module>":
            for folder, package in PACKAGES.items():
                if code.co_filename.startswith(folder):
                    name = package + code.co_filename[len(folder) :].replace("\\", "/")
                    events.append((event, name, code.co_name))

    before = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def events_of_second_run(run: Callable[[], Any]) -> list[Event]:
    events: list[Event] = []
    run()
    with profiled(events):
        run()
    assert events, f"no function of {ROOT} ran: another led_ref was imported, from {led_ref.__file__}"
    return events


def files_entered(events: list[Event]) -> list[str]:
    return sorted({file for event, file, _ in events if event == "call"})


def assert_at_most(limit: int, files: list[str], what: str) -> None:
    assert len(files) <= limit, "\n    ".join([f"{what} enters {len(files)} files, not {limit} at most:", *files])


def positions(events: list[Event], event: str, function: tuple[str, str]) -> list[int]:
    """The indices of a function's calls or returns."""
    found = [i for i, recorded in enumerate(events) if recorded == (event, *function)]
    assert found, f"{function[1]} of {function[0]} did not run"
    return found


@pytest.fixture(scope="module")
def led() -> led_ref.LED:
    """The bundled model, on one thread: a profiler sees all of its work."""
    return led_ref.load(backend=NumpyBackend(threads=1))


def test_files_of_an_encoder_layer(led):
    events = events_of_second_run(lambda: led.generate(TEXT, max_new_tokens=1))
    first = positions(events, "call", ENCODER_LAYER)[0]
    last = next(i for i in positions(events, "return", ENCODER_LAYER) if i > first)
    assert_at_most(7, files_entered(events[first:last]), "one encoder layer")


@pytest.mark.parametrize("beams", [1, 4])
def test_files_of_a_decoding_step(led, beams):
    """One call of the step function: from the new ids to the logits of the next."""
    new = {"min_new_tokens": 6, "max_new_tokens": 6}
    events = events_of_second_run(lambda: led.generate(TEXT, num_beams=beams, **new))
    starts, ends = (positions(events, event, DECODING_STEP) for event in ("call", "return"))
    assert len(starts) == len(ends) == 6
    for first, last in zip(starts[1:], ends[1:], strict=True):  # the first step reads the prompt
        assert_at_most(8, files_entered(events[first:last]), f"one decoding step with num_beams={beams}")


def test_files_of_generate():
    events = events_of_second_run(lambda: led_ref.generate(TEXT))
    assert_at_most(40, files_entered(events), "led_ref.generate(text)")
