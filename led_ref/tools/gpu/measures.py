"""What `led-ref doctor --gpu` measures: the card's speeds, memory against the plan, and times against what they predict.

A GPU works asynchronously, so every clock here stops only after `synchronize`. The module cupy is `backend.xp`. The same
code runs on the stand-in for CuPy, where the numbers mean nothing.
"""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from led_backends.contract import Backend, HostArray
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs.operations import Workload
from led_ref.tools.gpu.cards import Card, design_seconds
from led_ref.tools.gpu.checks import BEAMS, search_of

# How far a run may exceed its memory plan, which decides beforehand whether the run fits. CuPy allocates memory in pieces of
# 512 bytes, and the plan leaves out masks, ids and positions.
ALLOWED_OVER_PLAN = 1.05


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


def random_ids(config: LEDConfig, tokens: int) -> dict[str, Any]:
    """One document with its first token global."""
    ids = np.random.default_rng(2).integers(4, config.vocab_size, (1, tokens))
    return {"input_ids": ids, "global_attention_mask": (np.arange(tokens) == 0).astype(np.int64)[None]}


@contextmanager
def most_in_use(backend: Backend) -> Iterator[list[int]]:
    """The most bytes of the device that the block's arrays have in use at a time: a list of one number, kept up to date.

    CuPy's pool holds more than that: freed memory, and memory that it cannot use again because of fragmentation.
    """
    peak, in_use = [0], dict[int, int]()

    hook: Any = backend.xp.cuda.MemoryHook

    class PeakHook(hook):  # type: ignore[misc]
        name = "most_in_use"

        def malloc_postprocess(self, *, mem_size: int, pmem_id: int, **_: Any) -> None:
            in_use[pmem_id] = mem_size
            peak[0] = max(peak[0], sum(in_use.values()))

        def free_postprocess(self, *, pmem_id: int, **_: Any) -> None:
            in_use.pop(pmem_id, None)  # allocated before the block: not counted

    with PeakHook():
        yield peak


def check_memory(model: LEDForConditionalGeneration, tokens: int, new_tokens: int) -> dict[str, Any]:
    """The memory that a generation of 4 beams has in use beside the weights, at most, against the plan; and CuPy's pool."""
    backend, config = model.backend, model.config
    load = Workload(tokens=tokens, beams=BEAMS, new_tokens=new_tokens, dtype=model.dtype)
    plan = memory_plan.plan(config, planning.on_gpu(config, load))
    pool = backend.xp.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()  # some of it is free, but fragmented by the weights
    with most_in_use(backend) as peak:
        model.generate(**random_ids(config, tokens), **search_of(new_tokens))
    planned = plan.peak - plan.weights
    return {
        "ok": peak[0] <= ALLOWED_OVER_PLAN * planned,
        "tokens": tokens,
        "planned": planned,
        "in use": peak[0],
        "in use / planned": round(peak[0] / planned, 3),
        "pool": int(pool.total_bytes() - before),
    }


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
                "encode ms": _ms(reading), "encode on paper ms": _ms(read_s), "encode waits for": read_by,
                "step ms": _ms(step), "step on paper ms": _ms(step_s), "step waits for": step_by,
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
