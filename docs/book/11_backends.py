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
# # Backends
#
# **The question.** The same model is to run on a processor with a few threads and on a graphics card with thousands.
# How much of the code has to know?
#
# Here, about a dozen operations. A backend is an object that the model holds and passes down. It offers an array
# namespace (`xp`) and those operations in which machines really differ: linear maps, norms, activations, softmax over
# a band, attention of a few queries. All other code is written once.
#
# There are two: NumPy on a CPU, and CuPy on a GPU. Where there is no GPU the second one's kernels are compiled by
# NVIDIA's compiler and executed on the CPU, and the model runs on a strict stand-in for CuPy. [On a GPU](../gpu.md) says
# what that shows, and when it last ran on a real one. All that is printed on this page was computed on a CPU.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, QUIET, WRONG, source

from led_backends.contract import XP_NAMES
from led_backends.numpy_backend import NumpyBackend
from led_ref.costs.operations import LED_BASE, Workload, tiles, window_work
from led_ref.model.masks import document_masks, seen_in_tile, window_blocks

print("names of the array namespace that the model may use:", ", ".join(sorted(XP_NAMES)))

# %% [markdown]
# A test reads the model's source and holds it to that list. The operations are a protocol; here is one of them, and
# how NumPy does it:

# %%
source("led_backends.contract:Backend.band_attend", docstring=True)

# %%
source("led_backends.numpy_backend:NumpyBackend.band_attend")

# %% [markdown]
# ## Tiles
#
# The sliding window is computed in tiles: Q queries in a row, and all keys that any of them can reach. Chapter 4 says
# why. How many queries are good is the machine's affair, so the backend says it. By hand, for 20 tokens, R = 3 and Q
# = 5:

# %%
backend = NumpyBackend()
(mask,) = document_masks(np.ones((1, 20), dtype=int), None)
for block in window_blocks(mask, 3, backend, queries=5):
    print(f"queries {block.start:2} ... {block.stop - 1:2} need keys {block.low:2} ... {block.high - 1:2}:", end=" ")
    print(f"{block.stop - block.start} × {block.high - block.low}")
block = window_blocks(mask, 3, backend, queries=5)[1]
print("\n".join("".join(".x"[seen] for seen in row) for row in seen_in_tile(block, backend).astype(int)))

# %% [markdown]
# The dots are computed and thrown away. Small tiles waste less: with Q = 1 nothing is wasted. But a product of one
# row is slow on every machine, because each key is fetched for a single multiplication. Large tiles use what they
# fetch Q times, and waste more. A tile inside the document has $S = Q + 2R$ keys, of which each query sees $2R + 1$:
#
# $$\text{multiplications for each key fetched} = Q, \qquad
# \text{thrown away} = 1 - \frac{2R + 1}{Q + 2R} = \frac{Q - 1}{Q + 2R}.$$
#
# In the tile above that is (5 - 1) / (5 + 6), four dots of eleven in every row. Counted for led-base, one layer of a
# document of 4,096 tokens:

# %% alt="Two curves against the number of queries in a tile, both axes logarithmic: operations rise, keys fetched fall"
sizes = (1, 4, 16, 64, 128, 256, 512, 1024)
counted = {
    queries: window_work(LED_BASE, Workload(tokens=4096, queries_per_block=queries), radius=512).operations
    for queries in sizes
}
least = counted[1]

figure, axes = plt.subplots(figsize=(6, 3.2))
axes.plot(sizes, [counted[queries] / least for queries in sizes], "o-", color=WRONG, label="operations, of the least")
fetched = [sum(keys for _, keys in tiles(4096, 512, queries)) for queries in sizes]
axes.plot(sizes, [keys / fetched[0] for keys in fetched], "s-", color=BAND, label="keys fetched, of the most")
axes.set(xscale="log", yscale="log", xlabel="Q, queries in a tile", title="what a tile's size costs")
axes.axvline(backend.queries_per_block, linestyle=":", color=QUIET)
axes.legend()
plt.show()
for queries, keys in zip(sizes, fetched, strict=True):
    more = 100 * (counted[queries] / least - 1)
    print(f"Q = {queries:5}: {more:5.1f} % more operations than needed, {keys:9,} keys fetched")

# %% [markdown]
# The dotted line is what the NumPy backend takes: 128.
#
# ## Threads
#
# NumPy's matrix product already runs on several threads. For a large matrix that is good. For a tile it is not: the
# threads spend their time waiting for each other. So the backend sets the product to one thread and gives each of its
# own threads whole heads. The slices may come in any order and at the same time, because they write to separate
# places:

# %%
source("led_backends.numpy_backend:NumpyBackend.for_each_tile")

# %% [markdown]
# The number of threads must not change a single bit of the result. It does not, because no sum is ever split between
# two threads:

# %%
from led_ref.model.sliding_window import sliding_window_attention

q, k, v = np.random.default_rng(11).normal(size=(3, 4, 700, 32)).astype(np.float32)
(mask,) = document_masks(np.ones((1, 700), dtype=int), np.eye(1, 700, dtype=int))
results = []
for threads in (1, 2):
    machine = NumpyBackend(threads=threads)
    blocks = window_blocks(mask, 64, machine)
    results.append(sliding_window_attention(q / math.sqrt(32), k, v, mask, blocks, machine))
print("one thread and two give the same bits:", np.array_equal(*results))
assert np.array_equal(*results)

# %% [markdown]
# The size of a tile does change bits, by rounding alone: other numbers stand beside each other in a product.

# %%
machine = NumpyBackend()
by_size = [
    sliding_window_attention(q / math.sqrt(32), k, v, mask, window_blocks(mask, 64, machine, queries=queries), machine)
    for queries in (128, 37)
]
apart = abs(by_size[0] - by_size[1]).max()
print(f"tiles of 128 and of 37 queries: at most {apart:.1e} apart, in float32")
assert apart < 1e-5

# %% [markdown]
# ## What goes wrong when one thing is changed
#
# A backend must say which keys a tile hides. The mutant `corners-narrow` makes the band one key narrower in the
# corners of a tile. Everything runs, and all numbers are plausible. Here is the same mistake in the band that the
# backend is handed, and the error by token:

# %% alt="Error of each token, logarithmic: far below 1e-5 for another tile size, far above for the narrow band"
from dataclasses import replace

right = sliding_window_attention(q / math.sqrt(32), k, v, mask, window_blocks(mask, 64, machine), machine)
narrow = [replace(block, band=replace(block.band, radius=63)) for block in window_blocks(mask, 64, machine)]
wrong = sliding_window_attention(q / math.sqrt(32), k, v, mask, narrow, machine)
figure, axes = plt.subplots(figsize=(7, 2.6))
axes.semilogy(abs(wrong - right).max(axis=1)[1:200], ".", color=WRONG, label="band one key too narrow")
axes.semilogy(abs(by_size[1] - right).max(axis=1)[1:200] + 1e-9, ".", color=BAND, label="another tile size")
axes.set(xlabel="token", ylabel="largest error", title="a mistake is not rounding")
axes.legend()
plt.show()

# %% [markdown]
# What lies on the floor, at 1e-9, is equal to the bit. A mistake stands orders of magnitude above rounding. That is
# what makes it possible to test a backend: run the same tests on each, in float64 where there is one, and allow next
# to nothing.
#
# ## Exercises
#
# 1. `led-ref exercise 11`: cut a document into tiles.
# 2. With R = 512, how large may Q be if a tile may hide at most a quarter of its cells?
# 3. Write a backend of your own: take NumpyBackend, replace `gelu` with the approximation by tanh, and look how far the
#    encoder's states are from those of the right one.
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** (Q - 1) / (Q + 2R) is at most 1/4 where 3Q is at most 2R + 4 = 1,028: Q up to 342.
#
# **3.** Make a class `ByTanh(NumpyBackend)` with its own `gelu`, and a model `LEDForConditionalGeneration(config, params,
# backend=ByTanh())`. On the manual page the encoder's states move by 0.04% of their length on average and by 0.15% at most.
# No word changes, and no test in float64 would let it pass: [chapter 15](15_conform.md) shows that.
#
# </details>
