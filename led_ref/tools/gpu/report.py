"""`led-ref doctor --gpu`: every check of a GPU (checks.py) in one command and one JSON object.

tests/gpu/measure.py also measures speeds and times, and makes docs/gpu_report.md. The tests run this on the stand-in for CuPy.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from led_backends.contract import Backend
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.pretrained import get_backend
from led_ref.config import LEDConfig
from led_ref.costs.operations import LED_BASE
from led_ref.errors import BackendError
from led_ref.files.json_file import write_text
from led_ref.oracle.traces.trace import check_target
from led_ref.tools.doctor import versions
from led_ref.tools.gpu import checks as gpu_checks
from led_ref.tools.random_weights import random_weights
from led_ref.tools.terminal import print_json, reader_may_leave, say


@dataclass(frozen=True)
class Size:
    """How large the trial is: a model's sizes, tokens of the checks, lengths of the measurements, steps, a matrix."""

    config: LEDConfig
    tokens: int
    new_tokens: int
    lengths: tuple[int, ...]
    matrix: int


FULL = Size(LED_BASE, tokens=3001, new_tokens=20, lengths=(1024, 4096, 16384), matrix=4096)


def examine_gpu(options: argparse.Namespace, collect: Callable[..., dict[str, Any]] | None = None) -> int:
    """Check the GPU; write the report. 0: all is well; 1: a check failed; 2: no GPU answers.

    Args:
        options: `out`, the report's file, or None for standard output.
        collect: makes the report, if it is to hold more than `check`.

    Raises:
        MissingFileError: if the folder of the report does not exist.
    """
    if options.out is not None:
        check_target(options.out, overwrite=True)  # before the minutes that the rest takes
    try:
        backend = get_backend("cupy")
    except BackendError as error:
        say(f"no GPU answers. {error}")
        return 2
    report = (collect or check)(backend, FULL, say)
    if options.out is None:
        with reader_may_leave():
            print_json(report)
    else:
        write_text(Path(options.out), json.dumps(report, indent=1) + "\n")
        say(f"wrote {options.out}")
    for name in failed(report):
        say(f"the {name} check failed: the report has the numbers")
    return 0 if report["ok"] else 1


def check(backend: Backend, size: Size, notify: Callable[[str], None]) -> dict[str, Any]:
    """All checks.

    Args:
        backend: of the GPU.
        size: FULL, or something small to try the code.
        notify: called with a few words about each stage, since the whole takes minutes.
    """
    dtypes = backend.compute_dtypes
    gpu = describe(backend)
    notify(f"{gpu['name']}: every operation in {', '.join(dtypes)} ...")
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "ok": True,
        "gpu": gpu,
        "versions": versions(),
        "operations": gpu_checks.check_operations(backend, dtypes),
    }
    notify(f"a model of {size.config.encoder_layers} + {size.config.decoder_layers} layers on both machines ...")
    weights = random_weights(size.config)
    make = functools.partial(LEDForConditionalGeneration.from_state_dict, size.config, weights)
    ours, cpu = make(backend=backend), make(backend=NumpyBackend())
    report["model"] = gpu_checks.check_model(ours, cpu, size.tokens, size.new_tokens)
    if "float16" in dtypes:
        half = make(backend=backend, dtype="float16")
        report["model in float16"] = gpu_checks.check_model(half, cpu, size.tokens, size.new_tokens)
    report["gradients"] = gpu_checks.check_gradients(ours, cpu, size.tokens)
    report["waits"] = gpu_checks.check_waits(ours, size.tokens, size.new_tokens)
    memory = [gpu_checks.check_memory(ours, tokens, size.new_tokens) for tokens in size.lengths]
    report["memory"] = {"ok": all(row["ok"] for row in memory), "rows": memory}
    report["ok"] = not failed(report)
    return report


def failed(report: Mapping[str, Any]) -> list[str]:
    """The names of the checks that did not pass."""
    return [name for name, values in report.items() if isinstance(values, dict) and not values.get("ok", True)]


def describe(backend: Backend) -> dict[str, Any]:
    """The card, its memory, and the versions of CuPy, CUDA and the driver."""
    cupy = backend.xp
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return {
        "name": properties["name"].decode(),
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "memory": int(properties["totalGlobalMem"]),
        "free": int(runtime.memGetInfo()[0]),
        "cupy": cupy.__version__,
        "driver": _version(runtime.driverGetVersion()),
        "runtime": _version(runtime.runtimeGetVersion()),
    }


def _version(number: int) -> str:
    """As people write CUDA's versions: 13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"
