# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # CPU and GPU
#
# The model's files (`led_ref/model/`) hold no word about machines. The differences between machines are behind one small
# contract: a softmax over a tile, a LayerNorm, GELU, a linear map, how tiles are spread. One backend does this with NumPy on a
# CPU, another with CuPy on an NVIDIA GPU. [On a GPU](../gpu.md) says when it last ran on one; nothing on this page did.
#
# This notebook records which operations the model calls, measures where a CPU's time goes, and works out on paper what
# a GPU would have to do.

# %% tags=["machine"]
import time
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, QUIET, WRONG
from threadpoolctl import threadpool_limits

import led_backends
import led_ref
from led_backends.numpy_backend import NumpyBackend

page = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
tokenizer = led_ref.load().tokenizer
print(led_backends.get("numpy").describe())
operations = [name for name in dir(led_backends.Backend) if not name.startswith("_")]
print("the contract:", ", ".join(operations))

# %% [markdown]
# ## A recorder around the backend
#
# The model receives its backend as an argument. So it can receive another one. This one computes nothing by itself: it
# passes each call on to NumPy, and records how long it took, without the calls inside it. led_ref's own recorder of
# intermediates (`led_ref/model/intermediates.py`) works in the same way.


# %% tags=["machine"]
class Watched:
    """A backend that records how often each operation is called, and the seconds that it takes by itself."""

    def __init__(self, inner):
        self.inner, self.calls, self.seconds, self.inside = (inner, Counter(), Counter(), [0.0])

    def __getattr__(self, name):
        """What the other backend has, with a watch around it if it can be called."""
        value = getattr(self.inner, name)
        if not callable(value):
            return value

        def watched(*arguments, **options):
            started = time.perf_counter()
            self.inside.append(0.0)
            result = value(*arguments, **options)
            took, within = time.perf_counter() - started, self.inside.pop()
            self.inside[-1] += took
            self.calls[name] += 1
            self.seconds[name] += took - within
            return result

        return watched


long_ids = (tokenizer(page).input_ids * 23)[:16384]


def read(model, tokens):
    """The encoder over so many tokens, the first one global."""
    return model.encoder([long_ids[:tokens]], global_attention_mask=[[1] + [0] * (tokens - 1)]).last_hidden_state


watched = Watched(NumpyBackend(threads=1))
model = led_ref.load(backend=watched).model
read(model, 512)  # the first run pays for what is set up once
watched.calls.clear(), watched.seconds.clear()
with threadpool_limits(1):
    started = time.perf_counter()
    read(model, 2048)
    whole = time.perf_counter() - started
print(f"2,048 tokens, one thread: {whole:.2f} s")
for name, seconds in watched.seconds.most_common(6):
    print(f"    {name:15} {watched.calls[name]:5} calls {seconds:7.3f} s  {seconds / whole:4.0%}")

# %% [markdown]
# `for_each_tile` by itself is what happens inside a tile between the calls: the two products of attention, queries with keys
# and probabilities with values. Everything that is not in this table is NumPy's own indexing and adding.
#
# ## Twice the document, twice the time
#
# The same for documents of several lengths, beside two counts: the multiplications and additions of the window as it is
# computed, and those of a whole T × T table, by which attention without a window would grow.
# (`led_ref/costs/operations.py` counts; `led-ref estimate` predicts what a long run will need.)

# %% alt="Seconds against tokens: measured points, the window's line, and the whole table's, steeper" tags=["machine"]
from led_ref.costs import operations as planning

config = model.config
lengths = [256, 512, 1024, 2048, 4096]


def encoder_operations(tokens, *, radius=None):
    """Operations of the encoder; with a radius of the whole document, those of ordinary attention."""
    load = planning.Workload(tokens=tokens)
    layers = [planning.encoder_layer_work(config, load, radius or r) for r in config.radii]
    return sum(work.operations for layer in layers for work in layer)


def fastest(works, rounds=3):
    """Processor seconds of each work, the fastest of some rounds: other programs make a run slower, never faster.

    Where a round takes more than five seconds, one is enough.
    """
    seconds = []
    with threadpool_limits(1):  # the BLAS too
        while len(seconds) < rounds * len(works) and sum(seconds) < 5:
            for work in works:
                started = time.process_time()
                work()
                seconds.append(time.process_time() - started)
    return np.reshape(seconds, (-1, len(works))).min(axis=0)


plain = led_ref.load(backend=NumpyBackend(threads=1)).model
measured = fastest([lambda n=n: read(plain, n) for n in lengths])
window = np.array([encoder_operations(n) for n in lengths], dtype=float)
whole_table = np.array([encoder_operations(n, radius=n) for n in lengths], dtype=float)
speed = (window / measured).max()

figure, axes = plt.subplots(figsize=(8, 3.6))
axes.loglog(lengths, measured, "o", color=BAND, label="measured, one thread")
axes.loglog(lengths, window / speed, "-", color=BAND, label="operations of the window, at the best speed seen")
axes.loglog(lengths, whole_table / speed, "--", color=WRONG, label="operations of the whole table, at that speed")
axes.set(xlabel="tokens", ylabel="seconds", xticks=lengths, xticklabels=[f"{n:,}" for n in lengths])
axes.minorticks_off()
axes.legend()
plt.show()
for n, seconds, count in zip(lengths, measured, window, strict=True):
    billions = count / 1e9
    print(f"{n:6,} tokens: {seconds:6.3f} s, {billions:6.2f} billion operations, ", end="")
    print(f"{billions / seconds:5.1f} billion a second")

# %% [markdown]
# ## How large a tile?
#
# A block of Q queries computes Q × (Q + 2R) cells, of which Q × (2R + 1) are in the band. Large blocks waste cells in the
# corners; small ones make small products, at which no machine is good. The best lies between, and where depends on the
# machine and on R. In the bundled model R is 64, so that of a block of 128 queries half the cells are wasted; at led-base's
# R = 512 it is a ninth. NumPy's backend takes 128.

# %% alt="Left, seconds against queries in a block. Right, the share of cells outside the band, from a tenth to eight tenths"
sizes = [16, 32, 64, 128, 256, 512]
R = config.radii[0]


def read_in_blocks(size):
    """The encoder over 1,024 tokens, so many queries in a block."""
    plain.backend.queries_per_block = size
    read(plain, 1024)


by_size = fastest([lambda size=size: read_in_blocks(size) for size in sizes])
del plain.backend.queries_per_block  # back to the class's own
in_band = sum(keys for _, keys in planning.tiles(1024, R, 1))
in_tiles = [sum(queries * keys for queries, keys in planning.tiles(1024, R, size)) for size in sizes]
waste = [1 - in_band / cells for cells in in_tiles]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.semilogx(sizes, by_size, "o-", color=BAND, base=2)
left.set(
    xlabel="queries in a block", ylabel="seconds for 1,024 tokens", ylim=(0, None), xticks=sizes, xticklabels=sizes
)
right.semilogx(sizes, waste, "o-", color=QUIET, base=2)
right.set(xlabel="queries in a block", ylabel="cells outside the band", ylim=(0, 1), xticks=sizes, xticklabels=sizes)
plt.show()

# %% [markdown]
# ## Another machine, the same numbers
#
# What a tile's size, the number of threads or another machine may change is the order of sums, and so the last digit. It is
# the first question to a backend: how far from float64 is it?

# %%
exact = read(led_ref.load(dtype="float64").model, 1024)
for threads in (1, 2):
    for size in (32, 128, 512):
        backend = NumpyBackend(threads=threads)
        backend.queries_per_block = size
        found = read(led_ref.load(backend=backend).model, 1024)
        error = np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean())
        print(f"float32, {threads} thread{'s' * (threads > 1)}, blocks of {size:3}: {error:.1e} from float64")

# %% [markdown]
# A mistake stands out against that. Here is a backend whose softmax forgets the corners of a tile, so that the first query of
# a block sees more to the right than the last one:


# %%
class WithoutCorners(NumpyBackend):
    """Wrong: what is in the tile is seen, in the band or not."""

    def band_attend(self, scores_hQZ, v_hZK, globals_, band):
        """As if the whole tile were seen."""
        return self.softmax(scores_hQZ) @ v_hZK


found = read(led_ref.load(backend=WithoutCorners()).model, 1024)
print(f"without the corners: {np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()):.1e} from float64")

# %% [markdown]
# ## A GPU
#
# `backend="cupy"` asks for one. Where there is none, it says what is missing:

# %%
try:
    print(led_backends.get("cupy").describe())
except led_backends.BackendUnavailableError as error:
    print(error)

# %% [markdown]
# What is known of a GPU here is arithmetic. Two published figures decide: how many operations a card does in a second, and how
# many bytes it reads. A step of work takes at least as long as the slower of the two. For led-base reading 16,384 tokens in
# float32:

# %%
from build_gpu_page import CARDS, floor_seconds  # docs/build_gpu_page.py has the makers' figures

config, load = planning.LED_BASE, planning.Workload(tokens=16384)
load = planning.on_gpu(config, load)
print("work           operations      bytes  launches " + "".join(f"  {card.name:>10}" for card in CARDS))
for work in planning.encode_work(config, load):
    times = "".join(f"  {1000 * floor_seconds(work, card, 'float32'):7.1f} ms" for card in CARDS)
    print(f"{work.name:13} {work.operations / 1e9:8,.0f} G {work.bytes / 1e9:8.1f} G {work.launches:9,} {times}")

# %% [markdown]
# The rows differ in kind. Projections and feed-forward are products: they want operations. Norms do next to none: they want
# bytes. The window is both, as long as its scores travel through memory. That is why a GPU wants larger blocks than a CPU
# (each costs launches), and why the kernels of our own fuse what would otherwise read the same bytes twice.
#
# [On a GPU](../gpu.md) has this for two models, two types and five lengths, says how far the kernels are tested without a GPU
# (compiled for four kinds of card, executed thread by thread on a CPU), and what to run on the day there is one.
#
# ## To try
#
# 1. Watch a decoding step with `Watched` in place of the encoder. Which operation takes most of it, and what does it read?
# 2. Give the encoder 64 global tokens. Which row of the first table grows?
# 3. Write a backend that keeps all numbers in float16 between operations (round each result with `.astype`). How far from
#    float64 is it, and in which operation is the error made?
