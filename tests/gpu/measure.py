"""Check and measure a GPU: the checks of `led-ref doctor --gpu`, the card's speeds, and times against what they predict.

    python tests/gpu/measure.py --out docs/data/gpu_report.json --page docs/gpu_report.md

A GPU works asynchronously, so every clock here stops only after `synchronize`. The module cupy is `backend.xp`. The same
code runs on the stand-in for CuPy (tests/test_doctor_gpu.py), where the numbers mean nothing.
"""

import argparse
import importlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from led_backends.contract import Backend, HostArray
from led_backends.notices import LEDWarning
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import LEDConfig
from led_ref.costs import operations as planning
from led_ref.costs.operations import Workload
from led_ref.errors import LEDError
from led_ref.oracle.traces.trace import check_target
from led_ref.tools.gpu import report as gpu_report
from led_ref.tools.gpu.checks import BEAMS, random_ids, search_of
from led_ref.tools.random_weights import random_weights
from led_ref.tools.terminal import say

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from build_gpu_page import Card, design_seconds, report_page


def seconds(backend: Backend, work: Callable[[], Any], *, runs: int = 5) -> float:
    """The time of some work, until the device is done: the median."""
    return median_seconds(work, backend.xp.cuda.runtime.deviceSynchronize, runs)


def median_seconds(work: Callable[[], Any], synchronize: Callable[[], Any], runs: int) -> float:
    """The median time of some work, after one run that compiles and does not count."""
    times = []
    for _ in range(runs + 1):
        synchronize()
        started = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def measure_speeds(backend: Backend, dtypes: Sequence[str], *, size: int = 4096) -> dict[str, Any]:
    """Products (operations a second, by dtype), memory and copies to the host (bytes a second), and one launch (seconds).

    Args:
        backend: the GPU's.
        dtypes: of the products.
        size: rows and columns of the matrices that are multiplied; memory is measured on 8 of them.
    """
    xp = backend.xp
    numbers = backend.to_device(np.random.default_rng(0).standard_normal((size, size), dtype=np.float32))
    peak = {}
    for dtype in dtypes:
        matrix = numbers.astype(dtype)  # not zeros: they switch fewer transistors, and a card multiplies them faster
        peak[dtype] = 2 * size**3 / seconds(backend, partial(xp.matmul, matrix, matrix))
    large = xp.zeros((8, size, size), dtype="float32")
    small, launches = xp.zeros(1, dtype="float32"), 200

    def launch_often() -> None:
        for _ in range(launches):
            small.__iadd__(1)

    return {
        "products": peak,
        "memory": 2 * large.nbytes / seconds(backend, lambda: large.__imul__(1)),  # each number is read and written
        "to the host": large[0].nbytes / seconds(backend, lambda: backend.to_host(large[0])),
        "launch": seconds(backend, launch_often) / launches,
    }


def as_card(gpu: Mapping[str, Any], speeds: Mapping[str, Any]) -> Card:
    """This card with its measured figures, in the same form as the cards of docs/gpu.md with their makers' figures."""
    return Card(
        gpu["name"], dict(speeds["products"]), speeds["memory"], gpu["memory"], speeds["to the host"], "measured"
    )


def measure_times(
    model: LEDForConditionalGeneration, card: Card, lengths: Sequence[int], new_tokens: int
) -> list[dict[str, Any]]:
    """The times of the encoder and of one step of 4 beams, beside those that this card's measured speeds predict."""
    backend, config, rows = model.backend, model.config, []
    for tokens in lengths:
        batch = random_ids(config, tokens)
        load = planning.on_gpu(config, Workload(tokens=tokens, beams=BEAMS, dtype=model.dtype))
        reading = seconds(backend, partial(model.encoder, **batch), runs=3)
        encoded = model.encoder(**batch)
        step = step_seconds(model, encoded, new_tokens)
        read_s, read_by = design_seconds(planning.encode_work(config, load), card, model.dtype)
        step_s, step_by = design_seconds(planning.step_work(config, load, new_tokens // 2), card, model.dtype)
        rows.append(
            {
                "tokens": tokens, "dtype": model.dtype,
                "encode ms": _ms(reading), "encode fused ms": encode_fused(model, batch),
                "encode on paper ms": _ms(read_s), "encode waits for": read_by,
                "step ms": _ms(step), "step as a graph ms": step_as_graph(model, encoded, new_tokens),
                "step on paper ms": _ms(step_s), "step waits for": step_by,
            }
        )  # fmt: skip
    return rows


def step_seconds(model: LEDForConditionalGeneration, encoded: Any, new_tokens: int) -> float:
    """One decoding step of 4 beams, the search on the host included: the median of a generation's steps."""
    times = [time.perf_counter()]

    def tick(*_: Any) -> None:
        times.append(time.perf_counter())

    model.generate(encoder_outputs=encoded, progress=tick, **search_of(new_tokens))
    return float(median(np.diff(times)[1:] if len(times) > 2 else np.diff(times)))


def encode_fused(model: LEDForConditionalGeneration, batch: Mapping[str, Any]) -> float | str:
    """The encoder in milliseconds with each document's window in one kernel; or that the kernel is not trusted."""
    model.backend.fused = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", LEDWarning)
            model.encoder(**batch)  # compiled and compared
            return _ms(seconds(model.backend, partial(model.encoder, **batch), runs=3))
    except LEDWarning:
        return "not trusted"
    finally:
        model.backend.fused = False


def step_as_graph(model: LEDForConditionalGeneration, encoded: Any, new_tokens: int) -> float | str:
    """`step_seconds` in milliseconds, with steps captured as graphs; or that graphs are given up."""
    model.backend.graphs = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", LEDWarning)
            return _ms(step_seconds(model, encoded, new_tokens))
    except LEDWarning:
        return "given up"
    finally:
        model.backend.graphs = False


def measure_transformers(
    config: LEDConfig, weights: Mapping[str, HostArray], lengths: Sequence[int], new_tokens: int, device: str = "cuda"
) -> dict[str, Any]:
    """The same weights, documents and settings in transformers' LED on the same device, float32 without TF32.

    Returns:
        `rows` with "encode ms" and "step ms" (a generation's time without its reading, by its steps), or `missing`, why not.
    """
    try:
        torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        return {"missing": f"{error}: install led-ref[peer] and a torch with CUDA to compare with it"}
    if device == "cuda" and not torch.cuda.is_available():
        return {"missing": f"torch {torch.__version__} finds no CUDA: install one that does to compare with it"}
    with torch.inference_mode():
        model = transformers.LEDForConditionalGeneration(transformers.LEDConfig(**config.to_dict()))
        model.train(False)
        model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()}, strict=False)
        model.to(device)
        settings = {**search_of(new_tokens), "do_sample": False}
        rows = []
        for tokens in lengths:
            batch = {name: torch.from_numpy(values).to(device) for name, values in random_ids(config, tokens).items()}
            wait = torch.cuda.synchronize if device == "cuda" else lambda: None
            reading = median_seconds(partial(model.led.encoder, **batch), wait, 2)
            whole = median_seconds(partial(model.generate, **batch, **settings), wait, 2)
            step = (whole - reading) / new_tokens
            rows.append({"tokens": tokens, "encode ms": _ms(reading), "step ms": _ms(step)})
    return {"torch": torch.__version__, "transformers": transformers.__version__, "rows": rows}


def _ms(value: float) -> float:
    return float(f"{1e3 * value:.4g}")


# ---- the command --------------------------------------------------------------------------------------------------------


def collect(backend: Backend, size: gpu_report.Size, notify: Callable[[str], None]) -> dict[str, Any]:
    """The checks' report (led_ref/tools/gpu/report.py, with its arguments), and in it what is measured."""
    report = gpu_report.check(backend, size, notify)
    notify("speeds, then reading and writing ...")
    dtypes = [dtype for dtype in backend.compute_dtypes if dtype != "float64"]
    speeds = report["speeds"] = measure_speeds(backend, dtypes, size=size.matrix)
    card, weights = as_card(report["gpu"], speeds), random_weights(size.config)
    report["times"] = []
    for dtype in dtypes:
        model = LEDForConditionalGeneration.from_state_dict(size.config, weights, backend=backend, dtype=dtype)
        report["times"] += measure_times(model, card, size.lengths, size.new_tokens)
        del model
    backend.xp.get_default_memory_pool().free_all_blocks()
    notify("the same in transformers, if it is there ...")
    report["transformers"] = measure_transformers(size.config, weights, size.lengths, size.new_tokens)
    return report


def main(arguments: Sequence[str]) -> int:
    """Check, measure, and write the report and its page; exit codes as those of `led-ref doctor --gpu`."""
    parser = argparse.ArgumentParser(description="Check and measure a GPU; takes minutes.")
    parser.add_argument("--out", metavar="JSON", help="write the report there, not to standard output")
    parser.add_argument("--page", metavar="MD", help="write the report as a page, too")
    options = parser.parse_args(arguments)

    def collect_and_write(*given: Any) -> dict[str, Any]:
        report = collect(*given)
        if options.page is not None:
            Path(options.page).write_text(report_page(report), encoding="utf-8")
            say(f"wrote {options.page}")
        return report

    try:
        if options.page is not None:
            check_target(options.page, overwrite=True)
        return gpu_report.examine_gpu(options, collect_and_write)
    except LEDError as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
