"""`led-ref doctor`: what works on this machine, and whether a copy of Ai2's led-base gives the published numbers."""

import argparse
import hashlib
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.notices import inform
from led_ref.errors import CheckpointError, LEDError
from led_ref.tools.terminal import print_json, print_values, reader_may_leave, say

# What allenai/led-base-16384 gives for 512 times these eight ids, and 128 times the same for the decoder, no global
# token: the corner [0, :3, :3] of LEDModel's last hidden state and of the logits, as transformers' own slow tests state
# them (tests/models/led, tolerance 1e-4 there).
KNOWN_IDS = (0, 31414, 232, 328, 740, 1140, 12695, 69)
KNOWN_STATES = ((2.3050, 2.8279, 0.6531), (-1.8457, -0.1455, -3.5661), (-1.0186, 0.4586, -2.2043))
KNOWN_LOGITS = ((33.6507, 6.4572, 16.8089), (5.8739, -2.4238, 11.2902), (-3.2139, -4.3149, 4.2783))
KNOWN_TOLERANCE = 1e-3


def examine(options: argparse.Namespace) -> int:
    """Print the report, for people or as JSON. 0 if everything that was checked works, else 1."""
    report: dict[str, Any] = {
        "versions": versions(),
        "blas": blas(options.threads),
        "backends": backends(options.threads),
        "bundled": check_bundled(options.threads),
    }
    if options.checkpoint is not None:
        try:
            report["checkpoint"] = check_checkpoint(options.checkpoint, options.threads)
        except LEDError as error:
            report["checkpoint"] = {"ok": False, "folder": options.checkpoint, "error": str(error)}
    with reader_may_leave():
        if options.json:
            print_json(report)
        else:
            for section, values in report.items():
                print(section)
                # The reason of a failed check is printed once, below, on standard error.
                print_values({name: value for name, value in values.items() if name != "error"}, indent=2)
    failed = [section for section, values in report.items() if not values.get("ok", True)]
    for section in failed:
        say(f"the {section} check failed: {_why(report[section])}")
    return 1 if failed else 0


def _why(values: dict[str, Any]) -> str:
    """The reason of a failed check, in a sentence."""
    reason = values.get("error")
    return reason or ", ".join(f"{name} {value}" for name, value in values.items() if name != "ok")


def versions(*others: str) -> dict[str, str]:
    """Versions of Python, of the libraries that led_ref may use, and of others."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in ("led-ref", "numpy", "tokenizers", "safetensors", "huggingface_hub", "tqdm", "threadpoolctl", *others):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def blas(asked: int | None = None) -> dict[str, Any]:
    """NumPy's BLAS, its kernel, and the number of threads with the rule that decided it."""
    from led_backends.processors import Threads, default_threads

    threads = Threads(asked, f"--threads {asked}") if asked else default_threads()
    found: dict[str, Any] = {"threads of led_ref": threads.number, "decided by": threads.rule}
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        found["blas"] = "unknown: threadpoolctl is not installed"
        return found
    for library in threadpool_info():
        if library["user_api"] == "blas":
            kernel = library.get("architecture", "unknown kernel")
            found["blas"] = (
                f"{library['internal_api']} {library['version']}, {kernel}, {library['num_threads']} threads"
            )
    if core := os.environ.get("OPENBLAS_CORETYPE"):
        found["OPENBLAS_CORETYPE"] = f"{core} (set on this machine: products may be slower than they could be)"
    return found


def _cpu(threads: int | None) -> Any:
    """What `backend` of a load is: "auto", or the CPU with so many threads."""
    from led_backends.numpy_backend import NumpyBackend

    return NumpyBackend(threads) if threads else "auto"


def backends(threads: int | None = None) -> dict[str, str]:
    """Which backends can run here, on what, and which of them "auto" takes."""
    from led_ref.classes.pretrained import get_backend

    found = {}
    for name in ("numpy", "cupy"):
        try:
            backend = get_backend(_cpu(threads) if threads and name == "numpy" else name)
            found[name] = f"works: {backend.describe()}" if hasattr(backend, "describe") else "works"
        except LEDError as error:
            found[name] = f"no: {error}"
    found["auto"] = f"takes {get_backend('auto', notice=inform).name}"
    return found


def check_bundled(threads: int | None = None) -> dict[str, Any]:
    """Whether the bundled models are whole (their files' sha256), and the one that summarizes writes."""
    from led_ref.api import bundled_model, load
    from led_ref.pipelines.loading import BUNDLED

    folder = bundled_model()
    started = time.perf_counter()
    try:
        for one in map(bundled_model, BUNDLED):
            for line in (one / "SHA256SUMS").read_text(encoding="ascii").splitlines():
                expected, name = line.split()
                found = hashlib.sha256((one / name).read_bytes()).hexdigest()
                if found != expected:
                    path = (one / name).relative_to(folder)
                    error = f"{path} has sha256 {found[:12]}..., not {expected[:12]}...: install led-ref again"
                    return {"ok": False, "files": "changed", "error": error}
        line = str(
            load(notice=inform, backend=_cpu(threads)).generate((folder / "led-ref.1.txt").read_text(encoding="utf-8"))
        )
    except (LEDError, OSError) as error:
        return {"ok": False, "error": f"{error}: install led-ref again"}
    return {
        "ok": bool(line),
        "files": "as published",
        "wrote": line,
        "seconds": round(time.perf_counter() - started, 2),
    }


def check_checkpoint(folder: str, threads: int | None = None) -> dict[str, Any]:
    """Whether a folder with led-base-16384's weights gives the published numbers within 1e-3.

    Args:
        folder: holds config.json and the weights.
        threads: of the CPU; None: as `led_ref.load` chooses.

    Returns:
        `ok`, and the largest difference of the states and of the logits.

    Raises:
        LEDError: if it cannot be loaded.
        CheckpointError: if its vocabulary or its positions are too few for the known inputs.
    """
    from led_ref.classes.conditional_generation import LEDForConditionalGeneration
    from led_ref.model.decoder import lm_logits

    model = LEDForConditionalGeneration.from_pretrained(Path(folder), notice=inform, backend=_cpu(threads))
    config = model.config
    source, target = 512 * KNOWN_IDS, 128 * KNOWN_IDS
    limits = (config.vocab_size, config.max_encoder_position_embeddings, config.max_decoder_position_embeddings)
    needed = (max(KNOWN_IDS) + 1, len(source), len(target))
    if any(limit < need for limit, need in zip(limits, needed, strict=True)):
        raise CheckpointError(
            f"{folder} has a vocabulary of {limits[0]} and {limits[1]} and {limits[2]} positions, but the known numbers need "
            f"{needed[0]}, {needed[1]} and {needed[2]}: they are those of allenai/led-base-16384. Name a folder that holds it."
        )
    started = time.perf_counter()
    out = model.led([source], decoder_input_ids=[target])
    states = model.backend.to_host(out.last_hidden_state)[0, :3, :3]
    logits = model.backend.to_host(lm_logits(out.last_hidden_state[:, :3], model.params, model.backend))[0, :, :3]
    worst_states = float(np.abs(states - np.array(KNOWN_STATES)).max())
    worst_logits = float(np.abs(logits - np.array(KNOWN_LOGITS)).max())
    return {
        "ok": max(worst_states, worst_logits) <= KNOWN_TOLERANCE,
        "folder": folder,
        "states differ by": worst_states,
        "logits differ by": worst_logits,
        "allowed": KNOWN_TOLERANCE,
        "seconds": round(time.perf_counter() - started, 1),
    }
