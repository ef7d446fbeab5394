"""What a run will take in memory and time on this machine, before it begins: `led-ref estimate`.

Memory is arithmetic (costs/memory.py) and what this process itself holds already: Python, NumPy, its BLAS. Time is the
counted work (costs/operations.py) divided by how fast this machine does such work, which is measured for about a second:
a large product, a tile of attention, GELU, LayerNorm, and reading from memory. No weights are loaded, none need be here.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.contract import Band
from led_backends.numpy_backend import BLOCK_ROWS, NumpyBackend
from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs import training as training_costs
from led_ref.costs.operations import Workload
from led_ref.errors import InputError, MissingFileError
from led_ref.generation.step import log_softmax
from led_ref.tools.bench.machine import resident_memory
from led_ref.tools.bench.machine import seconds as seconds_of
from led_ref.training.room import machine_memory, room, what_to_lower
from led_ref.training.settings import TrainingArguments

SIZES = {"led-base": planning.LED_BASE, "led-large": planning.LED_LARGE}
ASSUMES = (
    "the file of weights is in the dtype that is computed in, and read by mmap, whole",
    "nothing else uses this machine's processors, now and then",
    "every new token is written: no text ends early",
    "a step of the decoder is its linear maps, its attention and its search: a real one takes up to twice as long",
)
ASSUMES_TRAINING = (
    "every document and target is as long as these; writing checkpoints and validation are not counted",
    "nothing else uses this machine's processors, now and then",
    "dropout and the decoder's norms take no time",
)
ASSUMES_DENSE = "weights are used as fast as if they were not kept smaller: they are slower (docs/precision.md)"


def estimate(model: str, config: LEDConfig, load: Workload, *, backend: str) -> dict[str, Any]:
    """Memory in bytes and, on a CPU, time in seconds: JSON-ready.

    Args:
        model: its name in the report.
        config: its sizes.
        load: what is to be run, as the backend divides it.
        backend: "numpy" or "cupy".
    """
    memory = memory_plan.plan(config, load)
    report: dict[str, Any] = {"model": model, "backend": backend, "dtype": load.dtype}
    if backend == "numpy":
        speeds = measure_speeds(config, load)
        report["seconds"] = {name: round(value, 3) for name, value in seconds(config, load, speeds).items()}
        report["speeds"] = {name: float(f"{value:.4g}") for name, value in speeds.items()}
        report["assumes"] = [*ASSUMES, *([ASSUMES_DENSE] if load.weights else [])]
    process = resident_memory() if backend == "numpy" else 0
    report["memory"] = {
        **memory.parts,
        **({"Python, NumPy and BLAS": process} if process else {}),
        "most while reading": process + memory.weights + memory.encoding,
        "most while writing": process + memory.weights + memory.writing if load.new_tokens else 0,
        "peak": process + memory.peak,
    }
    return report


def estimate_training(model: str, config: LEDConfig, load: Workload, args: TrainingArguments) -> dict[str, Any]:
    """A step of training on a CPU: memory in bytes, and time in seconds; what is free, and what to lower if that is less.

    Args:
        model: its name in the report.
        config: its sizes.
        load: batch documents of that many tokens, each with a target of `new_tokens`, as the backend divides it.
        args: the settings of the training.
    """
    memory, process, machine = room(config, args, load), resident_memory(), machine_memory()
    free = None if machine is None else machine.free
    speeds = measure_speeds(config, load)
    forward = seconds(config, replace(load, new_tokens=0), speeds)["encoder"]
    forward += load.batch * decoder_seconds(config, load, speeds)
    passes = 3 * (memory.parts["weights"] + memory.parts["gradients"] + memory.parts[f"moments of {args.optim}"])
    times = {
        "loss and gradients": (training_costs.PASSES - args.keep_activations) * forward,
        "optimizer": passes / speeds["bytes from memory"],  # read, changed, written
    }
    peak = process + memory.peak
    report = {
        "model": model,
        "backend": "numpy",
        "dtype": load.dtype,
        "memory": {**memory.parts, "Python, NumPy and BLAS": process, "peak": peak},
        "free": free,
        "seconds": {name: round(value, 3) for name, value in {**times, "a step": sum(times.values())}.items()},
        "speeds": {name: float(f"{value:.4g}") for name, value in speeds.items()},
        "assumes": list(ASSUMES_TRAINING),
    }
    if free is not None and peak > free:
        report["lower"] = what_to_lower(config, args, load, free)
    return report


def decoder_seconds(config: LEDConfig, load: Workload, speeds: Mapping[str, float]) -> float:
    """The decoder's forward pass over a whole target, which products decide."""
    return training_costs.decoder_work(config, replace(load, batch=1)).operations / speeds["operations of a product"]


def find_config(model: str) -> LEDConfig:
    """The sizes of a model: of a folder, a config.json, one of SIZES, or a Hub name (only its config.json is fetched).

    Raises:
        MissingFileError: if there is none of these.
        ConfigError: if it is no LED's.
    """
    if model in SIZES:
        return SIZES[model]
    path = Path(model).expanduser()
    if not path.exists() and model.count("/") == 1 and model[0] not in "./~":
        path = _fetch_config(model)
    return LEDConfig.from_pretrained(path)


def _fetch_config(name: str) -> Path:
    """The config.json of a model on the Hub, alone."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json"))
    except Exception as error:  # whatever the library's HTTP client raises without a connection
        raise MissingFileError(
            f"There is no folder {name!r}, and its config.json could not be fetched from the Hub ({type(error).__name__}). "
            f"Name a folder, a config.json, or one of {', '.join(SIZES)}."
        ) from error


def divided_for(backend: str, config: LEDConfig, load: Workload) -> Workload:
    """The workload as a backend divides it; on a CPU: one tile and one block of rows for each thread.

    Raises:
        InputError: for a dtype in which the CPU does not compute.
    """
    if backend == "cupy":
        return planning.on_gpu(config, load)
    if load.dtype not in ("float32", "float64"):
        raise InputError(f"dtype is {load.dtype!r}; the CPU computes in float32 or float64. Choose one of them.")
    cpu = NumpyBackend()
    return replace(
        load,
        queries_per_block=cpu.queries_per_block,
        tiles_at_once=min(cpu.threads, config.encoder_attention_heads),
        block_rows=BLOCK_ROWS,
        blocks_at_once=cpu.threads,
    )


# ---- time ---------------------------------------------------------------------------------------------------------------


def seconds(config: LEDConfig, load: Workload, speeds: Mapping[str, float]) -> dict[str, float]:
    """The time of each part of a run at these speeds, and their sum."""
    rows = load.batch * load.tokens
    encode = 0.0
    for work in planning.encode_work(config, load):
        if work.name == "window":  # per score, since products this small do not reach the speed of large ones
            width = config.d_model // config.encoder_attention_heads
            encode += work.operations / (4 * width) / speeds["scores of a tile"]
        else:
            encode += work.operations / speeds["operations of a product"]
    encode += config.encoder_layers * rows * config.encoder_ffn_dim / speeds["GELU"]
    encode += (2 * config.encoder_layers + 1) * rows * config.d_model / speeds["LayerNorm"]
    found = {"encoder": encode}
    if load.new_tokens:
        source = planning.source_work(config, load).operations / speeds["operations of a product"]
        step = step_seconds(config, load, speeds)
        found |= {"keys and values": source, "a step": step, "all steps": load.new_tokens * step}
    return {**found, "together": sum(value for name, value in found.items() if name != "a step")}


def step_seconds(config: LEDConfig, load: Workload, speeds: Mapping[str, float]) -> float:
    """One step in the middle of the text: linear maps of N rows, attention, and the search over N rows of scores."""
    found = load.rows * config.vocab_size / speeds["scores of a search"]
    for work in planning.step_work(config, load, load.new_tokens // 2):
        if work.name == "document" and not load.folded:
            scores = load.rows * config.decoder_attention_heads * load.tokens * config.decoder_layers
            found += scores / speeds["scores of a step"]
        elif work.name in ("weights", "logits"):
            found += work.operations / speeds["operations of a step"]
        else:
            found += max(work.bytes / speeds["bytes from memory"], work.operations / speeds["operations of a product"])
    return found


def measure_speeds(config: LEDConfig, load: Workload) -> dict[str, float]:
    """What this machine does in a second: each speed is the best of a few tries of a few hundredths of a second."""
    backend, dtype = NumpyBackend(), np.dtype(load.dtype)
    d, inner, heads = config.d_model, config.encoder_ffn_dim, config.encoder_attention_heads
    rng = np.random.default_rng(0)
    x, weight = rng.random((1024, d), dtype=np.float32).astype(dtype), np.ones((inner, d), dtype)
    bias, hidden = np.zeros(inner, dtype), rng.random((1024, inner), dtype=np.float32).astype(dtype)
    queries, reach = planning.largest_tile(config, load)
    q_HQK = rng.random((heads, queries, d // heads), dtype=np.float32).astype(dtype)
    k_HSK = rng.random((heads, reach, d // heads), dtype=np.float32).astype(dtype)
    radius = max(config.radii, default=1)

    def tile(h: slice) -> None:
        scores_hQS = q_HQK[h] @ k_HSK[h].swapaxes(-1, -2)
        backend.band_softmax(scores_hQS, 0, Band(min(radius, reach - queries), radius, None)) @ k_HSK[h]

    # A step: maps of its rows, whose weights are read anew; attention of one document's beams; one row of scores for each.
    few, wide = x[: min(load.rows, len(x))], np.ones((8 * inner, d), dtype)
    steps = config.decoder_attention_heads
    q_BHWK = np.ones((1, steps, load.beams, d // steps), dtype)
    k_BHTK = np.ones((1, steps, load.tokens, d // steps), dtype)
    scores_NV = rng.random((min(load.rows, 32), config.vocab_size), dtype=np.float32)

    def search() -> None:
        np.partition(log_softmax(scores_NV).reshape(-1), -2 * load.beams)

    large = np.ones(1 << 25, np.float32)
    pieces = np.array_split(large, 4 * backend.threads)
    with ThreadPoolExecutor(backend.threads) as pool:
        return {
            "operations of a product": 2 * 1024 * d * inner / best(lambda: backend.linear(x, weight, bias)),
            "scores of a tile": heads * queries * reach / best(lambda: backend.for_each_tile(tile, heads)),
            "GELU": hidden.size / best(lambda: backend.gelu(hidden)),
            "LayerNorm": x.size / best(lambda: backend.layer_norm(x, weight[0], weight[0], x)),
            "operations of a step": 2
            * len(few)
            * wide.size
            / best(lambda: backend.linear(few, wide, np.zeros(8 * inner, dtype))),
            "scores of a step": q_BHWK.size
            // (d // steps)
            * load.tokens
            / best(lambda: backend.attend(q_BHWK, k_BHTK, k_BHTK, None)),
            "scores of a search": scores_NV.size / best(search),
            "bytes from memory": large.nbytes / best(lambda: list(pool.map(np.max, pieces))),
        }


def best(work: Callable[[], Any], *, at_least: float = 0.15) -> float:
    """The time of some work when nothing disturbs it: the least of the tries, after one that does not count."""
    work()
    times: list[float] = []
    while sum(times) < at_least or len(times) < 3:
        times.append(seconds_of(work))
    return min(times)
