"""Drawn cases for each kernel of kernels.cu: its launches, what they must give in float64, and how far they may be off.

A case is drawn from a seed: odd sizes, blocks of any number of warps, rows that see nothing, no global column, no mask.
What a kernel has no business to read is NaN: hidden columns, the room between two heads' keys, all outputs.

How far off is derived, not tried out. EPS = 2^-24 is one rounding in float, `unit` one rounding to the stored type, and a
sum of n numbers made in order is off by at most n EPS times the sum of their absolute values (Higham, Accuracy and
Stability of Numerical Algorithms, 4.2). expf and erfcf are allowed what CUDA's guide says of the GPU's own: 2 and 4 units
in the last place, that is 4 and 8 EPS; the CPU's are better. Terms in EPS^2 are covered by SLACK.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cuda_on_cpu import QUERIES, ROWS, SCHEDULES, TYPES, WIDTHS, Kernels

EPS = 2.0**-24
EXPF, ERFCF = 4 * EPS, 8 * EPS
TINY = 2.0**-120  # results below float's normal numbers
SLACK = 1.01
WARP = 32


@dataclass(frozen=True)
class Stored:
    """A type in which numbers are stored. unit: its rounding, relative; least: absolute, among its smallest numbers."""

    name: str
    unit: float
    least: float

    def narrow(self, x: np.ndarray) -> np.ndarray:
        """float64 to what is stored; bfloat16 as uint16, cut off: for inputs any rounding does."""
        if self.name == "__nv_bfloat16":
            return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return x.astype(np.float32 if self.name == "float" else np.float16)

    def widen(self, stored: np.ndarray) -> np.ndarray:
        """The exact value of what is stored, in float64."""
        if self.name == "__nv_bfloat16":
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float64)

    def empty(self, *shape: int) -> np.ndarray:
        """NaN in every place."""
        return self.narrow(np.full(shape, np.nan))

    def rounded(self, expected: np.ndarray, bound: np.ndarray) -> np.ndarray:
        """The bound of a float32 result, once it is stored."""
        return SLACK * (bound + self.unit * (np.abs(expected) + bound)) + self.least + TINY


STORED = {
    stored.name: stored
    for stored in (
        Stored("float", 0.0, 0.0),
        Stored("__half", 2.0**-11, 2.0**-25),
        Stored("__nv_bfloat16", 2.0**-8, 0.0),
    )
}  # a float result is stored as it is: no further rounding
assert tuple(STORED) == TYPES

Launch = tuple[str, tuple[int, ...], tuple[int, ...], list[Any]]


@dataclass
class Case:
    """launches in order; `out` is written by the last of them; expected and bound in float64, of the same shape.

    exact: where `expected` must be met to the bit.
    """

    what: str
    launches: list[Launch]
    out: np.ndarray
    stored: Stored
    expected: np.ndarray
    bound: np.ndarray
    exact: np.ndarray
    between: list[np.ndarray] = field(default_factory=list)  # written by one launch, read by another

    def run(self, kernels: Kernels) -> tuple[np.ndarray, np.ndarray]:
        """What came out, as stored, and how many bounds it is off at most. The case can be run again."""
        before = [np.copy(arg) for _, _, _, args in self.launches for arg in args if isinstance(arg, np.ndarray)]
        start = self.out.copy()
        for name, grid, block, args in self.launches:
            kernels.get_function(name)(grid, block, args)
        found = self.out.copy()
        self.out[...] = start
        for array in self.between:
            array[...] = np.nan
        after = [arg for _, _, _, args in self.launches for arg in args if isinstance(arg, np.ndarray)]
        for one, other in zip(before, after, strict=True):
            assert one.tobytes() == other.tobytes(), f"{self.what}: it wrote to an input"
        return found, self.off(found)

    def off(self, found: np.ndarray) -> np.ndarray:
        """The error in units of the bound; NaN is infinitely far off."""
        wide = self.stored.widen(found)
        off = np.abs(wide - self.expected) / self.bound
        off[self.exact & (wide != self.expected)] = np.inf
        return np.where(np.isnan(off), np.inf, off)


def blocks_for(n: int, threads: int) -> int:
    """How many blocks of that many threads take n."""
    return -(-n // threads)


def i32(*values: int) -> list[np.int32]:
    return [np.int32(value) for value in values]


def softmax_terms(scores: np.ndarray, sees: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Softmax over the last axis where `sees`; how far each score lies below the highest; the mean of that."""
    with np.errstate(invalid="ignore"):
        hidden = np.where(sees, scores, -np.inf)
        top = hidden.max(-1, keepdims=True, initial=-np.inf)
        gap = np.where(np.isfinite(hidden), top - hidden, 0.0)
        weights = np.where(np.isfinite(hidden), np.exp(-gap), 0.0)
        total = weights.sum(-1, keepdims=True)
    probs = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return probs, gap, (probs * gap).sum(-1, keepdims=True)


def band_softmax(rng: np.random.Generator, stored: Stored) -> Case:
    """One rounding for every merge of two states (an exponential, a product, a sum): 6 EPS each, and EPS times the gap."""
    heads, queries, keys = (int(rng.integers(1, n)) for n in (4, 6, 90))
    globals_, radius, first = int(rng.integers(0, 5)), int(rng.integers(0, 40)), int(rng.integers(-3, 60))
    if rng.random() < 0.2:
        keys, globals_ = 0, int(rng.integers(1, 70))  # the softmax of whole rows
    columns, block = globals_ + keys, WARP * int(rng.integers(1, 5)) if rng.random() < 0.9 else 1024
    some_are_not = int(rng.random() < 0.6)
    is_local = rng.random(keys) < 0.7 if some_are_not else np.zeros(1, bool)
    scores = stored.narrow(rng.normal(0, rng.choice([0.1, 3.0, 30.0]), (heads, queries, columns)))
    wide = stored.widen(scores)
    wide[rng.random(wide.shape) < 0.05] = -np.inf  # hidden already
    wide[rng.random(wide.shape[:2]) < 0.1] = -np.inf  # all that they see
    key = np.arange(columns) - globals_
    sees = np.abs(first + np.arange(queries)[:, None] - key) <= radius
    if some_are_not and keys:
        sees &= np.concatenate([np.zeros(globals_, bool), is_local])
    sees = np.broadcast_to(sees | (key < 0), wide.shape)
    probs, gap, mean_gap = softmax_terms(wide, sees)
    depth = blocks_for(columns, block) + 5 + block // WARP
    bound = probs * ((gap + mean_gap + 6 * depth + 2) * EPS + EXPF)
    wide[~sees] = np.nan
    scores = stored.narrow(wide)
    args = [scores, is_local, *i32(some_are_not, queries, globals_, keys, first, radius)]
    what = (
        f"{heads} heads, {queries} queries, {globals_} + {keys} columns, first {first}, radius {radius}, block {block}"
    )
    launch = (f"band_softmax<{stored.name}>", (heads * queries,), (block,), args)
    return Case(what, [launch], scores, stored, probs, stored.rounded(probs, bound), probs == 0)


def gelu(rng: np.random.Generator, stored: Stored) -> Case:
    """erfc changes by |z| 2/sqrt(pi) exp(-z^2) / erfc(z) times what z is off, relatively: the constant and a product."""
    count = int(rng.integers(1, 700))
    numbers = stored.narrow(rng.normal(0, rng.choice([0.5, 4.0]), count))
    x = stored.widen(numbers)
    z = -x / math.sqrt(2)
    erfc = np.array([math.erfc(value) for value in z])
    expected = 0.5 * x * erfc
    steep = np.abs(z) * 2 / math.sqrt(math.pi) * np.exp(-z * z) / np.maximum(erfc, TINY)
    bound = np.abs(expected) * (2.1 * EPS * steep + ERFCF + 2 * EPS)
    launch = (f"gelu<{stored.name}>", (blocks_for(count, 256),), (256,), [numbers, np.int64(count)])
    return Case(f"{count} numbers", [launch], numbers, stored, expected, stored.rounded(expected, bound), x == 0)


def layer_norm(rng: np.random.Generator, stored: Stored) -> Case:
    """`off` is how far y - mean is off; the variance is a sum of its squares; scale its root's inverse: half its error."""
    rows, width = int(rng.integers(1, 11)), int(rng.choice([rng.integers(1, 100), rng.integers(100, 1025), 1024]))
    update_rows = int(rng.choice([0, rows, rng.integers(1, rows + 1)]))
    block = WARP * int(rng.integers(1, 5))
    shift, spread = rng.choice([0.0, 5.0]), rng.choice([1e-3, 1.0, 20.0])
    x, update = (stored.narrow(rng.normal(shift, spread, (n, width))) for n in (rows, max(update_rows, 1)))
    if not update_rows:
        update = stored.empty(1)
    weight, bias = (stored.narrow(rng.normal(1, 0.5, width)) for _ in range(2))
    y = stored.widen(x)
    added = EPS if update_rows else 0.0
    if update_rows:
        y = y + stored.widen(update)[np.arange(rows) % update_rows]
    w, b = stored.widen(weight), stored.widen(bias)
    d = y - y.mean(-1, keepdims=True)
    variance = (d * d).mean(-1, keepdims=True)
    scale = 1 / np.sqrt(variance + 1e-5)
    expected = d * scale * w + b
    adds = blocks_for(width, WARP) + 5
    off = (adds + 1 + added / EPS) * EPS * np.abs(y).mean(-1, keepdims=True) + added * np.abs(y) + EPS * np.abs(d)
    variance_off = (2 * np.abs(d) * off + off * off).mean(-1, keepdims=True) + (adds + 2) * EPS * variance
    scale_off = 0.5 * (variance_off * scale**2 + 2 * EPS) + 2 * EPS  # 1e-5f and the sum: 2; the root and the inverse: 2
    scale_off /= np.maximum(1 - variance_off * scale**2, 0.5)  # if it is not small against 1
    bound = np.abs(w) * scale * off + np.abs(d * scale * w) * (scale_off + 2 * EPS) + EPS * np.abs(expected)
    out = stored.empty(rows, width)
    launch = (
        f"layer_norm<{stored.name}>",
        (blocks_for(rows, block // WARP),),
        (block,),
        [x, update, weight, bias, out, *i32(rows, width, update_rows)],
    )
    what = f"{rows} rows of {width}, {update_rows} update rows, block {block}"
    exact = np.zeros(out.shape, bool)
    return Case(what, [launch], out, stored, expected, stored.rounded(expected, bound), exact)


def linear_few(rng: np.random.Generator, stored: Stored) -> Case:
    """Each product is rounded, then added in a lane's turn, in the five steps of a warp, and to the bias."""
    most = int(rng.choice(ROWS))
    rows = int(rng.integers(1, most + 1))
    width, outputs = int(rng.choice([rng.integers(1, 40), rng.integers(40, 400)])), int(rng.integers(1, 40))
    block = WARP * int(rng.integers(1, 9))
    x, weight, bias = (
        stored.narrow(rng.normal(rng.choice([0.0, 2.0]), 1, shape))
        for shape in ((rows, width), (outputs, width), outputs)
    )
    wide = [stored.widen(array) for array in (x, weight, bias)]
    expected = wide[0] @ wide[1].T + wide[2]
    size = np.abs(wide[0]) @ np.abs(wide[1]).T + np.abs(wide[2])
    bound = (blocks_for(width, WARP) + 1 + 5 + 1) * EPS * size
    out = stored.empty(rows, outputs)
    launch = (
        f"linear_few<{stored.name}, {most}>",
        (blocks_for(outputs * WARP, block),),
        (block,),
        [x, weight, bias, out, *i32(rows, width, outputs)],
    )
    what = f"{rows} of {most} rows, {width} to {outputs}, block {block}"
    return Case(what, [launch], out, stored, expected, stored.rounded(expected, bound), np.zeros(out.shape, bool))


CHUNK, LANES = 256, 8


def attend(rng: np.random.Generator, stored: Stored) -> Case:
    """Both kernels, one after the other. The score is off by its dot product's roundings; as an exponent that is relative.

    Numerator and denominator are sums over the keys of a weight (times a value); each term's relative error is its
    score's, EPS times its gap, and the roundings of the sums that it is in.
    """
    documents, heads_each, queries = (*(int(n) for n in rng.integers(1, 3, 2)), int(rng.choice(QUERIES)))
    positions = int(rng.choice([rng.integers(1, 30), rng.integers(30, 280), rng.integers(280, 800)]))
    width, heads = int(rng.choice([1, 5, 16, 37, 64, 128])), documents * heads_each
    room = [positions * width + int(n) for n in rng.integers(0, 40, 2)]  # from one head to the next
    q = stored.narrow(rng.normal(0, rng.choice([0.3, 3.0]), (heads, queries, width)) / math.sqrt(width))
    stores = [stored.empty((heads - 1) * n + positions * width) for n in room]
    keys, values = [np.stack([store[h * n :][: positions * width] for h in range(heads)]).reshape(heads, positions, width)
                    for store, n in zip(stores, room, strict=True)]  # fmt: skip
    keys[...], values[...] = (
        stored.narrow(rng.normal(shift, 1, keys.shape)) for shift in (0.0, rng.choice([0.0, 3.0]))
    )
    for store, n, filled in zip(stores, room, (keys, values), strict=True):
        for h in range(heads):
            store[h * n :][: positions * width] = filled[h].ravel()
    masked = int(rng.random() < 0.7)
    shape = (documents if rng.random() < 0.5 else 1, queries if rng.random() < 0.5 else 1, positions)
    look = rng.random(shape) < rng.choice([0.02, 0.7]) if masked else np.zeros(1, bool)
    if masked and rng.random() < 0.4:
        look[0, 0] = False  # sees nothing
    looks = np.broadcast_to(look, (documents, queries, positions)) if masked else np.ones((documents, queries, 1), bool)
    sees = np.repeat(looks, heads_each, 0)
    strides = [np.int64(n) for n in (shape[1] * positions * (shape[0] > 1), positions * (shape[1] > 1))]

    expected, bound = attention(stored.widen(q), stored.widen(keys), stored.widen(values), sees)
    chunks = blocks_for(positions, CHUNK)
    state = [np.full((heads, chunks, queries), np.nan, np.float32) for _ in range(2)]
    state.append(np.full((heads, chunks, queries, width), np.nan, np.float32))
    out = stored.empty(documents, queries, heads_each, width)
    sizes = [*i32(masked, heads_each, positions, width), *(np.int64(n) for n in room), *strides]
    name = f"attend_chunk<{stored.name}, {queries}>"
    launches: list[Launch] = [
        (name, (heads * chunks,), (CHUNK,), [q, *stores, look, *state, *sizes]),
        (f"attend_combine<{stored.name}>", (blocks_for(out.size, 256),), (256,),
         [*state, out, *i32(heads * queries, chunks, queries, heads_each, width)]),
    ]  # fmt: skip
    what = f"{documents} x {heads_each} heads, {queries} queries, {positions} positions, width {width}, "
    what += f"mask {shape}" if masked else "no mask"
    exact = np.broadcast_to(~sees.any(-1, keepdims=True), expected.shape)
    bound = stored.rounded(expected, bound)
    by_query = [np.swapaxes(x.reshape(documents, heads_each, queries, width), 1, 2) for x in (expected, bound, exact)]
    return Case(what, launches, out, stored, *by_query, state)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, sees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """softmax(q k) v in float64, and how far a float32 result of the two kernels may be off."""
    positions, width = k.shape[1:]
    chunks, teams = blocks_for(positions, CHUNK), CHUNK // width
    scores, size = q @ k.swapaxes(-1, -2), np.abs(q) @ np.abs(k).swapaxes(-1, -2)
    probs, gap, _ = softmax_terms(scores, np.broadcast_to(sees, scores.shape))
    weight_off = (blocks_for(width, LANES) + 4) * EPS * size + EPS * gap + EXPF
    merges = chunks * (EXPF + 2 * EPS)
    above = weight_off + (blocks_for(min(positions, CHUNK), teams) + teams + 1) * EPS + merges
    below = (probs * (weight_off + (CHUNK // WARP + 5) * EPS + merges)).sum(-1, keepdims=True)
    bound = (probs * above) @ np.abs(v) + (below + 2 * EPS) * (probs @ np.abs(v))
    return probs @ v, bound


BLOCK, THREADS = 64, 128  # queries to a block of window_attend, and its threads


def window_attend(rng: np.random.Generator, stored: Stored) -> Case:
    """As `attend`, but each tile of keys is merged with those before; weights are stored in T before they meet the values.

    A weight rounded to T is off by `unit`, or by `least` if it is among the smallest; the highest one is 1.
    """
    heads, tokens, width = int(rng.integers(1, 3)), int(rng.integers(1, 150)), int(rng.choice(WIDTHS, p=[0.8, 0.2]))
    radius, globals_ = int(rng.integers(0, 40)), int(rng.choice([0, 1, rng.integers(1, 70)]))
    is_local = rng.random(tokens) < rng.choice([0.02, 0.7, 1.0])
    distance = np.abs(np.arange(tokens)[:, None] - np.arange(tokens))
    sees = np.concatenate([np.ones((tokens, globals_), bool), (distance <= radius) & is_local], 1) & is_local[:, None]
    sees = np.broadcast_to(sees, (heads, *sees.shape))

    scale, shift = rng.choice([0.3, 3.0]) / math.sqrt(width), rng.choice([0.0, 3.0])
    room = [tokens * width + 16 * int(n) for n in rng.integers(0, 3, 3)]  # to the next head; rows begin at 16 bytes
    stores, wide = [stored.empty((heads - 1) * n + tokens * width) for n in room], []
    for store, n, (middle, spread) in zip(stores, room, ((0, scale), (0, 1), (shift, 1)), strict=True):
        numbers = stored.narrow(rng.normal(middle, spread, (heads, tokens, width)))
        for h in range(heads):
            store[h * n :][: tokens * width] = numbers[h].ravel()
        wide.append(stored.widen(numbers))
    of_globals = [stored.narrow(rng.normal(middle, 1, (heads, globals_ or 1, width))) for middle in (0, shift)]
    q = wide[0]
    k, v = (np.concatenate([stored.widen(g)[:, :globals_], x], 1) for g, x in zip(of_globals, wide[1:], strict=True))

    scores, size = q @ k.swapaxes(-1, -2), np.abs(q) @ np.abs(k).swapaxes(-1, -2)
    probs, gap, _ = softmax_terms(scores, sees)
    at_a_time = 16 if stored.name == "float" else 64
    tiles = blocks_for(globals_, at_a_time) + blocks_for(min(tokens, BLOCK + 2 * radius), at_a_time)
    weight_off = (width + 1) * EPS * size + EPS * gap + EXPF + tiles * (EXPF + 2 * EPS)
    adds = (tiles * at_a_time + 2) * EPS
    below = (probs * weight_off).sum(-1, keepdims=True) + adds
    bound = (probs * (weight_off + adds + stored.unit)) @ np.abs(v) + (below + 3 * EPS) * (probs @ np.abs(v))
    bound += stored.least * (sees @ np.abs(v))
    out = stored.empty(tokens, heads, width)
    args = [*stores, *of_globals, is_local, out, *i32(heads, tokens, globals_, radius), *(np.int64(n) for n in room)]
    launch = (f"window_attend<{stored.name}, {width}>", (heads * blocks_for(tokens, BLOCK),), (THREADS,), args)
    what = f"{heads} heads, {tokens} tokens, {globals_} globals, width {width}, radius {radius}"
    found = probs @ v
    exact = np.broadcast_to(~sees.any(-1, keepdims=True), found.shape)
    by_token = [np.swapaxes(x, 0, 1) for x in (found, stored.rounded(found, bound), exact)]
    return Case(what, [launch], out, stored, *by_token)


DRAW: dict[str, Callable[[np.random.Generator, Stored], Case]] = {
    "band_softmax": band_softmax,
    "gelu": gelu,
    "layer_norm": layer_norm,
    "linear_few": linear_few,
    "attend": attend,
    "window_attend": window_attend,
}


def cases(kernel: str, stored: str, count: int) -> Iterator[Case]:
    """The first `count` cases: the same ones each time."""
    for seed in range(count):
        yield DRAW[kernel](np.random.default_rng([seed, *kernel.encode(), *stored.encode()]), STORED[stored])


def judge(kernels: Kernels, case: Case, seed: int) -> float:
    """Run a case in every schedule; how many bounds it is off at most. AssertionError if that is more than one, or
    if the result hangs on the schedule, or if the kernel does what is not allowed.
    """
    worst, results = 0.0, []
    for order in SCHEDULES:
        # Reversed, arrays begin where forbidden memory ends; else they end where it begins.
        with kernels.schedule(order, seed=seed, at_end=order != "reversed"):
            found, off = case.run(kernels)
        place = tuple(int(n) for n in np.unravel_index(off.argmax(), off.shape))
        assert off.max() <= 1, f"{order}: {off.max():.3g} bounds off at {place}; {case.what}"
        results.append(found.tobytes())
        worst = max(worst, off.max())
    assert len(set(results)) == 1, f"the result hangs on the schedule; {case.what}"
    return worst
