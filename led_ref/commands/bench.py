"""`led-ref bench`: how fast and how large, on this machine, measured. Each case runs in a process of its own.

The weights are random and of led-base's exact size (161,844,480 parameters), unless a model is named: speed does not
depend on what they say, as long as the search does not end early, which min_new_tokens sees to.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.commands.doctor import blas, versions
from led_ref.commands.progress import say
from led_ref.config import LEDConfig
from led_ref.errors import InputError

LED_BASE = LEDConfig(
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=12,
    decoder_attention_heads=12,
    encoder_ffn_dim=3072,
    decoder_ffn_dim=3072,
    d_model=768,
    attention_window=(1024,) * 6,
)

# name -> (what is measured, source tokens, beams, new tokens)
CASES: dict[str, tuple[str, int, int, int]] = {
    "load": ("load", 0, 0, 0),
    "encode-1k": ("encode", 1024, 0, 0),
    "encode-4k": ("encode", 4096, 0, 0),
    "encode-16k": ("encode", 16384, 0, 0),
    "generate-4k-1beam": ("generate", 4096, 1, 16),
    "generate-4k-4beams": ("generate", 4096, 4, 16),
    "generate-16k-4beams": ("generate", 16384, 4, 16),
}


def run_bench(options: argparse.Namespace) -> int:
    """Run the cases and print seconds (median, least, most) and peak memory; with --json one object."""
    if options.case is not None:
        print(json.dumps(measure(options.case, options.model, options.runs)))
        return 0
    chosen = options.only or list(CASES)
    for name in chosen:
        if name not in CASES:
            raise InputError(f"There is no case {name!r}. Choose among {', '.join(CASES)}.")
    if options.runs < 1:
        raise InputError(f"--runs is {options.runs}; give at least 1.")
    with _model_folder(options.model) as folder:
        results = []
        for name in chosen:
            if not options.quiet:
                say(f"bench {name} ...")
            command = [sys.executable, "-m", "led_ref.cli", "bench", "--case", name, "--model", str(folder)]
            done = subprocess.run([*command, "--runs", str(options.runs)], capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            results.append(json.loads(done.stdout))
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "blas": blas(),
        "cases": results,
    }
    if options.json:
        print(json.dumps(report))
        return 0
    print(f"{'case':<22} {'median':>9} {'least':>9} {'most':>9}   {'peak memory':>11}")
    for case in results:
        seconds = [f"{case[key]:8.3f}s" for key in ("median_s", "least_s", "most_s")]
        step = f"   {case['step_ms']:.0f} ms a step" if "step_ms" in case else ""
        print(f"{case['case']:<22} {' '.join(seconds)}   {case['peak_mb']:8.0f} MB{step}")
    print(json.dumps({**report["versions"], **report["blas"]}))
    return 0


def measure(name: str, folder: str, runs: int) -> dict[str, Any]:
    """One case in this process: seconds of each run, and the most memory that the process ever held."""
    from led_ref.led import LEDForConditionalGeneration

    what, length, beams, new_tokens = CASES[name]
    started = time.perf_counter()
    model = LEDForConditionalGeneration.from_pretrained(folder)
    load_s = time.perf_counter() - started
    rng = np.random.default_rng(0)
    ids = rng.integers(4, model.config.vocab_size, (1, max(length, 1)))
    mask = np.zeros_like(ids)
    mask[:, 0] = 1
    extra: dict[str, Any] = {}
    if what == "load":
        seconds = [load_s, *_timed(lambda: LEDForConditionalGeneration.from_pretrained(folder), runs - 1)]
    elif what == "encode":
        seconds = _timed(lambda: model.encoder(ids, global_attention_mask=mask), runs)
    else:
        seconds, steps = [], []
        for _ in range(runs):
            times = [time.perf_counter()]

            def tick(stage: str, done: int, total: int, times: list[float] = times) -> None:
                times.append(time.perf_counter())

            model.generate(
                ids,
                global_attention_mask=mask,
                num_beams=beams,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                progress=tick,
            )
            seconds.append(times[-1] - times[0])
            written = np.diff(times)[model.config.encoder_layers + 1 :]
            steps.append(float(np.median(written)) * 1000)
        extra["step_ms"] = round(statistics.median(steps), 1)
    peak_mb = peak_memory() / 1e6
    return {
        "case": name,
        "median_s": round(statistics.median(seconds), 4),
        "least_s": round(min(seconds), 4),
        "most_s": round(max(seconds), 4),
        "runs": len(seconds),
        "peak_mb": round(peak_mb, 1),
        **extra,
    }


def peak_memory() -> int:
    """The most memory that this process has had in use, in bytes.

    Linux counts it by program in /proc; getrusage's figure is handed on from the program that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _timed(work: Callable[[], Any], runs: int) -> list[float]:
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


@contextmanager
def _model_folder(model: str | None) -> Iterator[Path]:
    """The folder of the named model, or a temporary one with random weights of led-base's size."""
    from led_ref.weights.hub import resolve

    if model is not None:
        yield resolve(model)
        return
    with tempfile.TemporaryDirectory(prefix="led-ref-bench-") as folder:
        write_random_checkpoint(Path(folder), LED_BASE)
        yield Path(folder)


def write_random_checkpoint(folder: Path, config: LEDConfig, *, seed: int = 0) -> None:
    """A checkpoint of a configuration with normally distributed weights (deviation 0.02, norms at 1), as safetensors."""
    from led_ref.weights.keys import LM_HEAD, entries
    from led_ref.weights.safetensors_file import write_safetensors

    rng = np.random.default_rng(seed)
    tensors = {}
    for entry in entries(config):
        if entry.key == LM_HEAD:
            continue
        values = rng.standard_normal(entry.shape, dtype=np.float32) * np.float32(0.02)
        if "norm" in entry.key and entry.key.endswith(".weight"):
            values += 1
        tensors[entry.key] = ("F32", entry.shape, values)
    config.save(folder)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
