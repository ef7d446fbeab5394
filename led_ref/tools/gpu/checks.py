"""What `led-ref doctor --gpu` checks: a backend against the CPU, operation by operation and as a whole model.

Every function takes the backend and returns a dictionary of plain values, with `ok` where something can fail. All but those
about memory use the contract alone (led_backends/contract.py), so that they run on any backend; CuPy's module is `backend.xp`.
The tests run them on the stand-in for CuPy.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from led_backends.contract import Array, Backend, Band, HostArray
from led_backends.notices import LEDWarning
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs.operations import Workload
from led_ref.training.gradients import GradientOptions, loss_and_gradients
from led_ref.weights.keys import arrays_by_key

# Errors are counted in units of the dtype's eps, relative to the largest number of the result: a few roundings, and for
# float32 sums of some hundred products, whose order differs from machine to machine.
ALLOWED_EPS = 16.0
# A whole model in float32 against the CPU's float32: the largest difference, relative to the largest number. Each machine
# errs by about 1e-6 (docs/accuracy.md), and their errors add up. In float16 each of some seven stored results of a layer is
# off by half its eps of 1e-3; in the 12 layers of led-base these add up, as errors of either sign do, to about nine times
# that, and the largest of many numbers is allowed four times as much. Its ids may differ where two tokens score nearly alike.
ALLOWED_MODEL = {"float32": 1e-4, "float64": 1e-12, "float16": 2e-2}
# A gradient is a sum over all tokens and has come through all layers twice.
ALLOWED_GRADIENT = 1e-3
# The same in float16: a hundred roundings of 2^-11 each on the way there and back, of either sign.
ALLOWED_HALF_GRADIENT = 3e-2
HALF_SCALE = 2.0**10  # of the loss in float16 (training/loss_scale.py)

# How far a run may exceed its memory plan, which decides beforehand whether the run fits. CuPy allocates memory in pieces of
# 512 bytes, and the plan leaves out masks, ids and positions.
ALLOWED_OVER_PLAN = 1.05

BEAMS = 4

Operation = Callable[[Backend, Mapping[str, Array]], Array]


def operations() -> dict[str, Operation]:
    """Every operation of the contract on arrays of `inputs`, in the forms in which the model uses it."""

    def hidden(backend: Backend, x: Mapping[str, Array]) -> Array:
        backend.hide(x["scores"], x["seen"])
        return backend.softmax(x["scores"])

    def in_parts(backend: Backend, x: Array, for_each: Callable[[Callable[[slice], None], int], None]) -> Array:
        out: Array = backend.xp.zeros(x.shape, dtype=x.dtype)

        def copy(part: slice) -> None:
            out[part] += x[part]

        for_each(copy, len(out))
        return out

    return {
        "linear, many rows": lambda b, x: b.linear(x["rows"], x["weight"], x["bias"]),
        "linear, few rows": lambda b, x: b.linear(x["rows"][:4], x["weight"], x["bias"]),
        "linear, one row": lambda b, x: b.linear(x["rows"][:1], x["weight"], x["bias"]),
        "layer_norm": lambda b, x: b.layer_norm(x["rows"], x["norm"], x["shift"]),
        "layer_norm, update": lambda b, x: b.layer_norm(x["rows"], x["norm"], x["shift"], x["update"]),
        "layer_norm, positions": lambda b, x: b.layer_norm(x["batch"], x["norm"], x["shift"], x["update"][:7]),
        "gelu": lambda b, x: b.gelu(x["rows"]),
        "hide, softmax": hidden,
        "band_softmax": lambda b, x: b.band_softmax(x["tile"], 2, Band(5, 3, None)),
        "band_softmax, masked": lambda b, x: b.band_softmax(x["tile"], 2, Band(5, 3, x["local"])),
        "band_attend": lambda b, x: b.band_attend(x["tile"], x["tile_values"], 2, Band(5, 3, x["local"])),
        "attend, few queries": lambda b, x: b.attend(x["q"][:, :, :4], x["k"], x["v"], None),
        "attend, few queries, masked": lambda b, x: b.attend(x["q"][:, :, :4], x["k"], x["v"], x["look"][:, :4]),
        "attend, many queries": lambda b, x: b.attend(x["q"], x["k"], x["v"], x["look"]),
        "for_each_tile": lambda b, x: in_parts(b, x["q"][0], b.for_each_tile),
        "for_each_block": lambda b, x: in_parts(b, x["rows"], b.for_each_block),
    }


def inputs(dtype: str) -> dict[str, HostArray]:
    """Small arrays of odd sizes for `operations`, the same ones every time."""
    rng = np.random.default_rng(0)
    shapes = {
        "rows": (301, 96), "weight": (67, 96), "bias": (67,), "norm": (96,), "shift": (96,), "update": (301, 96),
        "batch": (3, 7, 96), "scores": (3, 11, 701), "tile": (3, 11, 2 + 19), "tile_values": (3, 2 + 19, 64),
        "q": (2, 3, 37, 64), "k": (2, 3, 701, 64), "v": (2, 3, 701, 64),
    }  # fmt: skip
    found: dict[str, HostArray] = {
        name: rng.standard_normal(shape).astype(np.float32).astype(dtype) for name, shape in shapes.items()
    }
    found["q"] /= 8  # sqrt(K)
    found["seen"] = rng.random((11, 701)) < 0.7
    found["seen"][4] = False  # a row that attends to nothing
    found["look"] = rng.random((2, 37, 701)) < 0.7
    found["look"][1, 2] = False
    found["local"] = rng.random(19) < 0.7
    return found


def check_operations(backend: Backend, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """Every operation in every dtype against NumPy in float64 on the same numbers."""
    rows = [check_operation(backend, name, dtype) for dtype in dtypes for name in operations()]
    return {"ok": all(row["ok"] for row in rows), "allowed eps": ALLOWED_EPS, "rows": rows}


def check_operation(backend: Backend, name: str, dtype: str) -> dict[str, Any]:
    """One operation in one dtype: the largest error in units of eps, relative to the largest number."""
    given, operation = inputs(dtype), operations()[name]
    exact_inputs = {key: x.astype(np.float64) if x.dtype.name == dtype else x for key, x in given.items()}
    exact = operation(NumpyBackend(), exact_inputs)
    row: dict[str, Any] = {"operation": name, "dtype": dtype, "ok": False}
    try:
        found = backend.to_host(operation(backend, {key: backend.to_device(x) for key, x in given.items()}))
    except Exception as error:  # the report names what failed and goes on
        return {**row, "error": f"{type(error).__name__}: {error}"}
    if found.shape != exact.shape or found.dtype.name != dtype:
        return {**row, "error": f"gave {found.dtype} {found.shape}, not {dtype} {exact.shape}"}
    off = np.abs(found.astype(np.float64) - exact).max() / np.abs(exact).max()
    eps = float(off / np.finfo(dtype).eps)
    return {**row, "ok": bool(eps <= ALLOWED_EPS), "eps": round(eps, 2)}


# ---- the model ----------------------------------------------------------------------------------------------------------


def documents(config: LEDConfig, tokens: int) -> dict[str, Any]:
    """A batch of two: one of `tokens` tokens, one a third shorter and padded; the first token of each is global."""
    ids = np.random.default_rng(1).integers(4, config.vocab_size, (2, tokens))
    mask = np.ones_like(ids)
    mask[1, tokens - tokens // 3 :] = 0
    ids[mask == 0] = config.pad_token_id or 0
    global_mask = np.zeros_like(ids)
    global_mask[:, 0] = 1
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": global_mask}


def search_of(new_tokens: int, beams: int = BEAMS) -> dict[str, Any]:
    """The settings of a search that generates exactly so many tokens."""
    return {"num_beams": beams, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}


def check_model(
    ours: LEDForConditionalGeneration, cpu: LEDForConditionalGeneration, tokens: int, new_tokens: int
) -> dict[str, Any]:
    """Encoder, logits and generated ids of the same weights on two backends."""
    batch, target = documents(cpu.config, tokens), [[2, 7, 11, 5], [2, 9, 4, 8]]
    states, logits, ids = [], [], []
    for model in (ours, cpu):
        encoded = model.encoder(**batch)
        out = model.forward(encoder_outputs=encoded, attention_mask=batch["attention_mask"], decoder_input_ids=target)
        states.append(model.backend.to_host(encoded.last_hidden_state)[batch["attention_mask"] == 1])
        logits.append(model.backend.to_host(out.logits))
        ids.append({w: np.asarray(model.generate(**batch, **search_of(new_tokens, w))).tolist() for w in (1, BEAMS)})
    found = {"encoder": _difference(*states), "logits": _difference(*logits)}
    allowed = ALLOWED_MODEL[ours.dtype]
    same = {f"same ids, {beams} beams": ids[0][beams] == ids[1][beams] for beams in (1, BEAMS)}
    ok = max(found.values()) <= allowed and (all(same.values()) or ours.dtype == "float16")
    return {"ok": ok, "dtype": ours.dtype, "tokens": tokens, "allowed": allowed, **found, **same}


def check_gradients(ours: LEDForConditionalGeneration, cpu: LEDForConditionalGeneration, tokens: int) -> dict[str, Any]:
    """The loss of a training batch and the gradients of the same weights on two backends; the worst gradient by name.

    Where `ours` computes in float16, the loss is scaled on the way.
    """
    is_half = ours.dtype == "float16"
    scale, allowed = (HALF_SCALE, ALLOWED_HALF_GRADIENT) if is_half else (1.0, ALLOWED_GRADIENT)
    batch = {**documents(cpu.config, tokens), "labels": [[7, 11, 5, 2], [9, 4, 2, -100]]}
    losses, gradients = [], []
    for model in (ours, cpu):
        loss_scale = scale if model is ours else 1.0
        loss, params = loss_and_gradients(model, batch, GradientOptions(loss_scale=loss_scale))
        losses.append(model.backend.to_host(loss.sums[0]))
        arrays = arrays_by_key(params, model.config)
        hosts = {key: model.backend.to_host(model.backend.rows(array)) for key, array in arrays.items()}
        gradients.append({key: array.astype(np.float64) / loss_scale for key, array in hosts.items()})
    differences = {
        key: _difference(gradients[0][key], expected)
        for key, expected in gradients[1].items()
        if expected.any() and not key.endswith(("k_proj.bias", "key.bias"))  # softmax does not see them: rounding
    }
    worst = max(differences, key=lambda key: differences[key])
    found = {"loss": _difference(*losses), "gradients": differences[worst]}
    ok = max(found.values()) <= allowed
    return {"ok": ok, "dtype": ours.dtype, "tokens": tokens, "allowed": allowed, **found, "worst": worst}


def _difference(found: HostArray, expected: HostArray) -> float:
    """The largest difference, relative to the largest number."""
    return float(f"{np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max():.3g}")


@contextmanager
def fetches(backend: Backend) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the arrays that the block copies to the host: at each of these copies the program waits for the GPU.

    Only copies through the contract are counted. The stand-in also notices other waits, such as `if x.any()`.
    """
    shapes: list[tuple[int, ...]] = []
    original = backend.to_host

    def counted(array: Array) -> HostArray:
        shapes.append(array.shape)
        return original(array)

    backend.to_host = counted  # type: ignore[method-assign]
    try:
        yield shapes
    finally:
        backend.to_host = original  # type: ignore[method-assign]


def check_waits(model: LEDForConditionalGeneration, tokens: int, new_tokens: int) -> dict[str, Any]:
    """How often a run waits for the device: never in the encoder, once in each decoding step."""
    batch = documents(model.config, tokens)
    with fetches(model.backend) as while_reading:
        encoded = model.encoder(**batch)
    with fetches(model.backend) as while_writing:
        model.generate(encoder_outputs=encoded, attention_mask=batch["attention_mask"], **search_of(new_tokens))
    ok = not while_reading and len(while_writing) <= new_tokens
    return {"ok": ok, "while reading": len(while_reading), "while writing": len(while_writing), "steps": new_tokens}


def check_graph(
    captured: LEDForConditionalGeneration, plain: LEDForConditionalGeneration, tokens: int, new_tokens: int
) -> dict[str, Any]:
    """Generated ids with steps captured as graphs and without, of the same weights; a graph that is given up is no success."""
    batch, same = documents(plain.config, tokens), {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", LEDWarning)
        for beams in (1, BEAMS):
            ours, theirs = (
                np.asarray(model.generate(**batch, **search_of(new_tokens, beams))) for model in (captured, plain)
            )
            same[f"same ids, {beams} beams"] = ours.tolist() == theirs.tolist()
    given_up = [str(warning.message) for warning in warned if issubclass(warning.category, LEDWarning)]
    return {"ok": all(same.values()) and not given_up, "dtype": plain.dtype, **same, "given up": given_up}


# ---- memory ---------------------------------------------------------------------------------------------------------------


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
