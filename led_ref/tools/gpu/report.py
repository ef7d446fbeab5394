"""`led-ref doctor --gpu`: everything about a GPU in one command and one file.

It checks (checks.py), measures (measures.py), and writes one JSON report and a page made from it: docs/gpu_report.md is that
of the last run. The tests run its code on the stand-in for CuPy.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from led_backends.contract import Backend
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.pretrained import get_backend
from led_ref.config import LEDConfig
from led_ref.costs.operations import LED_BASE
from led_ref.errors import BackendError
from led_ref.oracle.traces.trace import check_target
from led_ref.tools.doctor import versions
from led_ref.tools.gpu import checks as gpu_checks
from led_ref.tools.gpu import measures as gpu_measures
from led_ref.tools.gpu.cards import table
from led_ref.tools.random_weights import random_weights
from led_ref.tools.terminal import print_json, say


@dataclass(frozen=True)
class Size:
    """How large the trial is: a model's sizes, tokens of the checks, lengths of the measurements, steps, a matrix."""

    config: LEDConfig
    tokens: int
    new_tokens: int
    lengths: tuple[int, ...]
    matrix: int


FULL = Size(LED_BASE, tokens=3001, new_tokens=20, lengths=(1024, 4096, 16384), matrix=4096)


def examine_gpu(options: argparse.Namespace) -> int:
    """Check and measure the GPU; write the report. 0: all is well; 1: a check failed; 2: no GPU answers.

    Raises:
        MissingFileError: if the folder of a report does not exist.
    """
    for file in (options.out, options.page):  # before the minutes that the rest takes
        if file is not None:
            check_target(file, overwrite=True)
    try:
        backend = get_backend("cupy")
    except BackendError as error:
        say(f"no GPU answers. {error}")
        return 2
    report = collect(backend, FULL, say)
    if options.out is None:
        print_json(report)
    else:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        say(f"wrote {options.out}")
    if options.page is not None:
        Path(options.page).write_text(page(report), encoding="utf-8")
        say(f"wrote {options.page}")
    for name in failed(report):
        say(f"the {name} check failed: the report has the numbers")
    return 0 if report["ok"] else 1


def collect(backend: Backend, size: Size, notify: Callable[[str], None]) -> dict[str, Any]:
    """The whole report.

    Args:
        backend: of the GPU.
        size: FULL, or something small to try the code.
        notify: called with a few words about each stage, since the whole takes minutes.
    """
    dtypes = tuple(getattr(backend, "compute_dtypes", ("float32", "float64")))
    gpu = gpu_measures.describe(backend)
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
    ours = gpu_checks.make_model(size.config, weights, backend)
    cpu = gpu_checks.make_model(size.config, weights, NumpyBackend())
    report["model"] = gpu_checks.check_model(ours, cpu, size.tokens, size.new_tokens)
    if "float16" in dtypes:
        half = gpu_checks.make_model(size.config, weights, backend, "float16")
        report["model in float16"] = gpu_checks.check_model(half, cpu, size.tokens, size.new_tokens)
    report["waits"] = gpu_checks.check_waits(ours, size.tokens, size.new_tokens)
    memory = [gpu_measures.check_memory(ours, tokens, size.new_tokens) for tokens in size.lengths]
    report["memory"] = {"ok": all(row["ok"] for row in memory), "rows": memory}
    notify("speeds, then reading and writing ...")
    speeds = gpu_measures.measure_speeds(backend, [name for name in dtypes if name != "float64"], size=size.matrix)
    card = gpu_measures.as_card(gpu, speeds)
    report["speeds"] = speeds
    report["times"] = gpu_measures.measure_times(ours, card, size.lengths, size.new_tokens)
    if "float16" in dtypes:
        report["times"] += gpu_measures.measure_times(half, card, size.lengths, size.new_tokens)
        del half
    del ours
    backend.xp.get_default_memory_pool().free_all_blocks()
    notify("the same in transformers, if it is there ...")
    report["transformers"] = gpu_measures.measure_transformers(size.config, weights, size.lengths, size.new_tokens)
    report["ok"] = not failed(report)
    return report


def failed(report: Mapping[str, Any]) -> list[str]:
    """The names of the checks that did not pass."""
    return [name for name, values in report.items() if isinstance(values, dict) and not values.get("ok", True)]


# ---- the page -----------------------------------------------------------------------------------------------------------


def page(report: Mapping[str, Any]) -> str:
    """docs/gpu_report.md, made from the report; one sentence if there has been no run."""
    head = "# Report of a run on a GPU\n\nMade by `led-ref doctor --gpu`; [On a GPU](gpu.md) says what it checks.\n\n"
    if not report.get("date"):
        return head + "There has been no run on a GPU yet.\n"
    gpu, speeds = report["gpu"], report["speeds"]
    parts = [
        f"{report['date']}: {gpu['name']}, {gpu['memory'] / 1e9:.1f} GB, CuPy {gpu['cupy']}, CUDA {gpu['runtime']}, "
        f"driver {gpu['driver']}. {'Every check passed.' if report['ok'] else 'Failed: ' + ', '.join(failed(report)) + '.'}",
        "## Every operation against float64",
        f"Largest error in units of the dtype's eps, relative to the largest number; allowed are "
        f"{report['operations']['allowed eps']:g}.",
        _operations_table(report["operations"]["rows"]),
        "## A whole model against the CPU",
        _values(report["model"]),
        *(_values(report[name]) for name in ("model in float16",) if name in report),
        "## Waits for the device",
        _values(report["waits"]),
        "## Memory beside the weights, 4 beams",
        table(
            "tokens | planned, MB | in use at the peak, MB | in use / planned | CuPy's pool grew by, MB",
            (
                (f"{r['tokens']:,}", _mb(r["planned"]), _mb(r["in use"]), r["in use / planned"], _mb(r["pool"]))
                for r in report["memory"]["rows"]
            ),
        ),
        "## Speeds",
        _values(
            {f"products in {dtype}, TFLOP/s": f"{peak / 1e12:.1f}" for dtype, peak in speeds["products"].items()}
            | {
                "memory, GB/s": f"{speeds['memory'] / 1e9:.0f}",
                "to the host, GB/s": f"{speeds['to the host'] / 1e9:.1f}",
            }
            | {"the shortest launch, µs": f"{1e6 * speeds['launch']:.1f}"}
        ),
        "## Times, and what the sizes and these speeds predict",
        _rows_table(report["times"]),
        "## transformers on the same device",
        report["transformers"].get("missing") or _rows_table(report["transformers"]["rows"]),
    ]
    return head + "\n\n".join(parts) + "\n"


def _operations_table(rows: list[dict[str, Any]]) -> str:
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    cells = {(row["operation"], row["dtype"]): row.get("error") or f"{row['eps']:g}" for row in rows}
    names = dict.fromkeys(row["operation"] for row in rows)
    return table(
        f"operation | {' | '.join(dtypes)}", ((name, *(cells[name, dtype] for dtype in dtypes)) for name in names)
    )


def _rows_table(rows: list[dict[str, Any]]) -> str:
    return table(" | ".join(rows[0]), (row.values() for row in rows))


def _values(values: Mapping[str, Any]) -> str:
    shown = ((name, "yes" if value is True else "no" if value is False else value) for name, value in values.items())
    return table("what | found", shown)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
