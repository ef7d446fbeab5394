"""What a run will take in memory and time on this machine, before it begins: `led-ref estimate`.

Memory is arithmetic (costs/memory.py) and what this process itself holds already: Python, NumPy, its BLAS. Time is the
counted work (costs/operations.py) divided by how fast this machine does such work, which is measured for about two seconds:
a large product, a tile of attention, GELU, LayerNorm, a search, reading from memory, and a tiny model with as many layers and
rows, whose time is Python's alone. No weights are loaded, none need be here.
"""

import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from led_backends.contract import Band
from led_backends.numpy_backend import BLOCK_ROWS, NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs import training as training_costs
from led_ref.costs.operations import Workload
from led_ref.errors import InputError, MissingFileError
from led_ref.generation.beam_search import best_candidates, start_beams
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import log_softmax
from led_ref.tools.bench.machine import resident_memory
from led_ref.tools.bench.machine import seconds as seconds_of
from led_ref.tools.random_weights import random_weights
from led_ref.training.room import machine_memory, room, what_to_lower
from led_ref.training.settings import TrainingArguments

SIZES = {"led-base": planning.LED_BASE, "led-large": planning.LED_LARGE}
ASSUMES = (
    "the file of weights is in the dtype that is computed in, and read by mmap, whole",
    BUSY := "other programs use this machine's processors during the run as they did just now",
    "every new token is written: no text ends early",
    "a real step takes half to twice as long as this one: memory and caches are shared",
)
ASSUMES_TRAINING = (
    "every document and target is as long as these; writing checkpoints and validation are not counted",
    BUSY,
    "dropout and the decoder's norms take no time",
)
ASSUMES_MANY = "all documents are as long, and are computed one batch after the other; files and loading take no time"
ASSUMES_DENSE = "weights are used as fast as if they were not kept smaller: they are slower (docs/precision.md)"


def estimate(
    model: str, config: LEDConfig, load: Workload, *, backend: str, documents: int | None = None
) -> dict[str, Any]:
    """Memory in bytes and, on a CPU, time in seconds: JSON-ready.

    Args:
        model: its name in the report.
        config: its sizes.
        load: what is to be run, as the backend divides it.
        backend: "numpy" or "cupy".
        documents: on a CPU also the hours for so many.
    """
    memory = memory_plan.plan(config, load)
    report: dict[str, Any] = {"model": model, "backend": backend, "dtype": load.dtype}
    if backend == "numpy":
        speeds = measure_speeds(config, load)
        times = seconds(config, load, speeds)
        report["seconds"] = {name: round(value, 3) for name, value in times.items()}
        if documents is not None:
            hours = -(-documents // load.batch) * times["together"] / 3600
            report["hours"] = {"this machine": round(hours, 1), "one processor": round(hours * load.blocks_at_once, 1)}
        report["speeds"] = {name: float(f"{value:.4g}") for name, value in speeds.items()}
        many = [] if documents is None else [ASSUMES_MANY]
        report["assumes"] = [*ASSUMES, *many, *([ASSUMES_DENSE] if load.weights else [])]
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


def divided_for(backend: str, config: LEDConfig, load: Workload, threads: int | None = None) -> Workload:
    """The workload as a backend divides it; on a CPU: one tile and one block of rows for each thread.

    Args:
        backend: "numpy" or "cupy".
        config: the model's sizes.
        load: what is to be run.
        threads: of a CPU; None: as many as a run would take.

    Raises:
        InputError: for a dtype in which the CPU does not compute.
    """
    if backend == "cupy":
        return planning.on_gpu(config, load)
    if load.dtype not in ("float32", "float64"):
        raise InputError(f"dtype is {load.dtype!r}; the CPU computes in float32 or float64. Choose one of them.")
    cpu = NumpyBackend(threads)
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
        source = planning.source_work(config, load)
        making = source.operations / speeds["operations of a product"] + source.bytes / speeds["bytes from memory"]
        step = step_seconds(config, load, speeds)
        found |= {"keys and values": making, "a step": step, "all steps": load.new_tokens * step}
    return {**found, "together": sum(value for name, value in found.items() if name != "a step")}


def step_seconds(config: LEDConfig, load: Workload, speeds: Mapping[str, float]) -> float:
    """One step in the middle of the text: what N rows compute, and what Python does around it.

    Linear maps, attention to the document and to the own past, GELU, LayerNorm, and the search over N rows of scores.
    """
    n, layers = load.rows, config.decoder_layers
    found = n * config.vocab_size / speeds["scores of a search"] + 1 / speeds["steps of Python alone"]
    found += layers * n * config.decoder_ffn_dim / speeds["GELU"]
    found += (3 * layers + 1) * n * config.d_model / speeds["LayerNorm"]
    for work in planning.step_work(config, load, load.new_tokens // 2):
        if work.name == "document" and not load.folded:
            found += layers * n * config.decoder_attention_heads * load.tokens / speeds["scores of a step"]
        elif work.name in ("weights", "logits"):
            found += work.operations / speeds["operations of a step"]
        else:
            found += max(work.bytes / speeds["bytes from memory"], work.operations / speeds["operations of a product"])
    return found


def measure_speeds(config: LEDConfig, load: Workload) -> dict[str, float]:
    """What this machine does in a second, with the threads of `load`: of each speed the median of a few tries.

    The tries of all speeds go in turns, so that what else runs here slows each of them alike; a run has to share, too.
    """
    backend, dtype = NumpyBackend(load.blocks_at_once), np.dtype(load.dtype)
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

    # A step: maps of its rows, whose weights are read anew, and attention of one document's beams.
    few, wide, no_bias = x[: min(load.rows, len(x))], np.ones((8 * inner, d), dtype), np.zeros(8 * inner, dtype)
    steps = config.decoder_attention_heads
    q_BHWK = np.ones((1, steps, load.beams, d // steps), dtype)
    k_BHTK = backend.split_heads(np.ones((1, load.tokens, d), dtype), steps, queries=load.beams)
    sees_B1T = np.ones((1, 1, load.tokens), bool) if load.batch > 1 else None  # documents of unequal lengths
    searched, search = _search_of(config, load, rng)
    large = np.ones(1 << 25, np.float32)
    pieces = np.array_split(large, 4 * backend.threads)
    with ThreadPoolExecutor(backend.threads) as pool:
        works: dict[str, tuple[int, Callable[[], Any]]] = {
            "operations of a product": (2 * 1024 * d * inner, lambda: backend.linear(x, weight, bias)),
            "scores of a tile": (heads * queries * reach, lambda: backend.for_each_tile(tile, heads)),
            "GELU": (hidden.size, lambda: backend.gelu(hidden)),
            "LayerNorm": (x.size, lambda: backend.layer_norm(x, weight[0], weight[0], x)),
            "operations of a step": (2 * len(few) * wide.size, lambda: backend.linear(few, wide, no_bias)),
            "scores of a step": (
                steps * load.beams * load.tokens,
                lambda: backend.attend(q_BHWK, k_BHTK, k_BHTK, sees_B1T),
            ),
            "scores of a search": (searched, search),
            "bytes from memory": (large.nbytes, lambda: list(pool.map(np.max, pieces))),
        }
        times = in_turns({name: work for name, (_, work) in works.items()})
    speeds = {name: amount / times[name] for name, (amount, _) in works.items()}
    return {**speeds, "steps of Python alone": 1 / python_seconds(config, load, backend) if load.new_tokens else 1.0}


def _search_of(config: LEDConfig, load: Workload, rng: np.random.Generator) -> tuple[int, Callable[[], Any]]:
    """A step of the search over at most 32 rows: how many scores it looks at, and what it does."""
    beams = min(load.beams, 32)
    documents = max(1, min(load.batch, 32 // beams))
    scores_NV = rng.random((documents * beams, config.vocab_size), dtype=np.float32)
    if load.beams == 1:
        return scores_NV.size, lambda: (scores_NV.max(axis=-1), scores_NV.argmax(axis=-1))
    settings = GenerationConfig(num_beams=beams, max_length=2, pad_token_id=1, eos_token_id=2)
    start = start_beams(np.ones((documents, 1), np.int64), settings)
    # Later than at the start, when all beams have a score.
    later = replace(start, running=replace(start.running, scores_BX=np.zeros((documents, beams), np.float32)))

    def search() -> None:
        scores_NV.max(axis=-1)
        best_candidates(later, log_softmax(scores_NV), settings)

    return scores_NV.size, search


def python_seconds(config: LEDConfig, load: Workload, backend: NumpyBackend) -> float:
    """A step of a model whose arrays are next to nothing, with the layers, heads, documents and beams of this one.

    What is left is Python's: its calls, of which each document has its own. More than 32 documents count as so many times 32.
    """
    documents, new = min(load.batch, 32), 6
    tiny = LEDConfig(
        vocab_size=2 * load.beams + 8, d_model=config.decoder_attention_heads, encoder_layers=0, attention_window=(),
        decoder_layers=config.decoder_layers, decoder_attention_heads=config.decoder_attention_heads,
        encoder_attention_heads=1, encoder_ffn_dim=1, decoder_ffn_dim=1,
        max_encoder_position_embeddings=4, max_decoder_position_embeddings=new + 1,
    )  # fmt: skip
    model = LEDForConditionalGeneration.from_state_dict(tiny, random_weights(tiny), backend=backend)
    states_BTD = np.zeros((documents, 4, tiny.d_model), np.float32)
    times: list[float] = []
    model.generate(
        encoder_outputs=LEDEncoderBaseModelOutput(states_BTD),
        num_beams=load.beams,
        max_new_tokens=new,
        min_new_tokens=new,
        progress=lambda *_: times.append(perf_counter()),
    )
    return statistics.median(after - before for before, after in pairwise(times)) * load.batch / documents


def in_turns(works: Mapping[str, Callable[[], Any]], *, at_least: float = 1.2) -> dict[str, float]:
    """The median time of each, after one round that does not count: at least 3 rounds, and that many seconds in all."""
    rounds: list[list[float]] = []
    for work in works.values():
        work()
    while len(rounds) < 3 or sum(map(sum, rounds)) < at_least:
        rounds.append([seconds_of(work) for work in works.values()])
    return {name: statistics.median(times) for name, times in zip(works, zip(*rounds, strict=True), strict=True)}
