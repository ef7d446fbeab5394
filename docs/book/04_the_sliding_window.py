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
# # The sliding window
#
# **The question.** Which comparisons can be left out, and how does one leave them out without first making them?
#
# What a word means is decided mostly by the words around it. So LED lets a token look at its neighbours only, at most R
# to each side. R is the **radius**. The window is $2R + 1$ wide, the token itself included:
#
# $$
# \text{seen}(i) = \{\, j : |i - j| \le R \,\}, \qquad
# \text{out}_i = \sum_{j \in \text{seen}(i)} \operatorname{softmax}_j\!\left(\frac{q_i \cdot k_j}{\sqrt{K}}\right) v_j
# $$
#
# Everything else is the attention of chapter 1. The table shrinks from $T^2$ cells to about $T(2R + 1)$. A few tokens
# are exempt from the rule; they are the next chapter's matter, and here there are none.

# The bundled model reads a sentence with R = 2. Row after row, a query (bold) meets the keys in its window. The stronger a
# cell's colour, the larger its share; each row adds up to one:

# %% alt="Words as rows and columns: a window of five cells slides down the diagonal, its cells as dark as their shares"
from dataclasses import replace

from book_steps import Steps
from book_tools import BAND, QUIET, bundled

import led_ref

led, R = bundled(), 2
config = replace(led.model.config, attention_window=(2 * R,) * led.model.config.encoder_layers)
narrow = led_ref.LEDForConditionalGeneration(config, led.model.params)
ids = led.encode("Pack the files of a folder with tar.")
shares_TZ = narrow.encoder([ids], output_attentions=True).attentions[0][0].mean(axis=0)  # of six heads; Z = 2R + 1
words = [led.tokenizer.decode([token]).strip() for token in ids]

left, top, cell = 64, 56, 26
drawing = Steps(left + cell * len(ids) + 16, top + cell * len(ids) + 6, count=len(ids))
drawing.box(left, top, cell * len(ids), cell * len(ids), line=0.5, opacity=0.5)
for i, word in enumerate(words):
    middle = cell * i + 17
    drawing.text(left - 6, top + middle, word, anchor="end", color=QUIET)
    drawing.text(left - 6, top + middle, word, anchor="end", bold=True, at=(i + 1, i + 1))
    drawing.text(left + middle, top - 6, word, anchor="start", turn=-50)
    low, high = max(0, i - R), min(len(ids), i + R + 1)
    for j in range(low, high):
        share = float(shares_TZ[i, j - i + R])
        drawing.box(left + cell * j, top + cell * i, cell, cell, BAND, opacity=0.15 + 0.85 * share, at=i + 1)
        drawing.text(left + cell * j + 13, top + cell * i + 17, f"{share:.2f}"[1:], size=9, at=i + 1)
    drawing.box(left + cell * low, top + cell * i, cell * (high - low), cell, line=2.5, at=(i + 1, i + 1))
drawing.show()

# %%
import matplotlib.pyplot as plt
import numpy as np
from book_tools import WRONG, planted, source, table_of
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from led_ref.model.masks import document_masks, seen_in_tile, window_blocks
from led_ref.model.sliding_window import sliding_window_attention

backend = led.model.backend

# %% [markdown]
# ## By hand
#
# Five tokens, R = 1, vectors of one number, $K = 1$. All queries are 1, so that a score is just the key:

# %% alt="A table of 5 by 5 cells; only the diagonal and its two neighbours hold numbers, the shares of each row"
k_T = np.log([1.0, 2, 1, 4, 1])  # e to the scores: 1, 2, 1, 4, 1
v_T = np.array([10.0, 20, 30, 40, 50])
i_T1, j_T = np.arange(5)[:, None], np.arange(5)
powers_TT = np.where(abs(i_T1 - j_T) <= 1, np.exp(k_T), 0)
probs_TT = powers_TT / powers_TT.sum(axis=1, keepdims=True)

figure, axes = plt.subplots(figsize=(4.4, 3.6))
axes.imshow(np.where(probs_TT > 0, 1.0, np.nan), cmap=ListedColormap([BAND]), alpha=0.25)
table_of(axes, np.where(probs_TT > 0, probs_TT, np.nan), digits=3)
axes.set(xlabel="key j", ylabel="query i")
plt.show()
print("out", (probs_TT @ v_T).round(3))

# %% [markdown]
# Row 1 sees the keys 0, 1 and 2, whose powers are 1, 2 and 1, together 4. The shares are 1/4, 2/4 and 1/4, and what
# comes out is (10 + 2 · 20 + 30) / 4 = 20. Row 0 has no neighbour on its left: it sees two keys, and its shares still
# add up to one.
#
# In these lines the whole table was made, and what lies outside the band set to zero. That is right and saves nothing. For
# a long document the cells outside must not be computed in the first place. How does one arrange that?
#
# ## Blocks
#
# A computer multiplies matrices fast, and single rows slowly. A loop over tokens would do the right thing, slowly. So
# the queries are taken in **blocks** of Q in a row. Between them, the Q queries of a block reach the keys from R before
# the first to R after the last: at most $S = Q + 2R$. One product of Q × S cells, a **tile**, holds all their scores.

# %%
source("led_ref.model.masks:window_blocks")

# %% [markdown]
# `low` and `high` say which keys belong to the queries from `start` to `stop`. `local_T` is False for padding and for
# global tokens, which have no window; here it is True for all tokens.
#
# For 20 tokens, R = 3 and blocks of 5 these are the tiles. A tile is a bit larger than what is needed: two corners of
# it lie outside the band. They are hidden by the softmax.

# %% alt="A 20 by 20 table with a band along the diagonal, covered by four rectangles; inside each two corners are not band"
T, R = 20, 3
(mask,) = document_masks(np.ones((1, T), dtype=int), None)
blocks = window_blocks(mask, R, backend, queries=5)
i_T1, j_T = np.arange(T)[:, None], np.arange(T)
band_TT = abs(i_T1 - j_T) <= R


def draw_tiles(axes, blocks, band_TT):
    """The band, and each block's tile as a rectangle."""
    axes.imshow(np.where(band_TT, 1.0, np.nan), cmap=ListedColormap([BAND]), alpha=0.3)
    for block in blocks:
        width, height = block.high - block.low, block.stop - block.start
        axes.add_patch(Rectangle((block.low - 0.5, block.start - 0.5), width, height, fill=False, edgecolor=BAND, lw=2))
    ticks = range(0, T, 5)
    axes.set(xlabel="key j", ylabel="query i", xlim=(-0.7, T - 0.3), ylim=(T - 0.3, -0.7), xticks=ticks, yticks=ticks)


figure, axes = plt.subplots(figsize=(4.6, 4.4))
draw_tiles(axes, blocks, band_TT)
plt.show()
for block in blocks:
    print(f"queries {block.start:2} - {block.stop - 1:2}   keys {block.low:2} - {block.high - 1:2}")
cells = sum((block.stop - block.start) * (block.high - block.low) for block in blocks)
print(f"in tiles {cells} cells, in the band {band_TT.sum()}, in the whole table {T * T}")

# %% [markdown]
# Within the second tile, row by row:

# %%
print("\n".join("".join(" #"[seen] for seen in row) for row in seen_in_tile(blocks[1], backend).astype(int)))

# %% [markdown]
# ## The code
#
# This is the whole of it, the function that runs when the model reads. The global keys in it are empty here; with
# them it is the same function.

# %%
source("led_ref.model.sliding_window:sliding_window_attention")

# %% [markdown]
# Read it with the letters: `h` is a slice of the heads, of which `for_each_tile` hands some to each thread.
#
# `q_HTK[h, block.start : block.stop]` has Q rows, `k_hZK` has Z, which is S and the G global tokens that `with_globals`
# puts in front. Queries times keys gives the tile `scores_hQZ`. Mask and softmax are the backend's work, because machines
# differ there ([chapter 11](11_backends.md)). On a CPU:

# %%
source("led_backends.numpy_backend:NumpyBackend.band_attend")

# %%
source("led_backends.numpy_backend:NumpyBackend._hide_outside")

# %% [markdown]
# A hidden score is minus infinity. `exponentials` puts $e^{s}$ in the place of each score s, so 0 where it was hidden, and
# returns the sum of each row. The row is multiplied with the values first and divided by its sum afterwards: the same
# softmax, with K divisions in place of G + S. That gives the Q rows of the result. A document may have any length: the last
# block is just shorter.
#
# Does it give what the whole table gives? Random queries, keys and values of 300 tokens, one head of width 16, R = 37:

# %%
T, R = 300, 37
generator = np.random.default_rng(4)
q_TK, k_TK, v_TK = (generator.normal(size=(T, 16)) for _ in range(3))
q_TK /= 4  # √K: the function expects queries that are divided already
(mask,) = document_masks(np.ones((1, T), dtype=int), None)


def by_definition(may_look_TT):
    """The whole table, everything else hidden."""
    scores_TT = np.where(may_look_TT, q_TK @ k_TK.T, -np.inf)
    powers_TT = np.exp(scores_TT - scores_TT.max(axis=1, keepdims=True))
    return powers_TT / powers_TT.sum(axis=1, keepdims=True) @ v_TK


def by_blocks(using=backend, queries=None):
    """The model's function."""
    blocks = window_blocks(mask, R, using, queries=queries)
    return sliding_window_attention(q_TK[None], k_TK[None], v_TK[None], mask, blocks, using)


i_T1, j_T = np.arange(T)[:, None], np.arange(T)
definition_TK = by_definition(abs(i_T1 - j_T) <= R)
for queries in (1, 50, 128, 300):
    apart = abs(by_blocks(queries=queries) - definition_TK).max()
    print(f"blocks of {queries:3}: at most {apart:.1e} apart")
    assert apart < 1e-13

# %% [markdown]
# The difference is rounding: the same numbers, added in another order. Larger blocks are larger products, and fewer of
# them, but their corners are larger, too. For each of Q queries a tile has $Q + 2R$ cells where $2R + 1$ are needed:

# %% alt="Cells in tiles, in proportion to those needed, over the block size, for three radii; the curves rise"
figure, axes = plt.subplots(figsize=(7, 3))
sizes = np.array([1, 8, 32, 64, 128, 256, 512])
for radius, style in ((64, ":"), (256, "--"), (512, "-")):
    axes.plot(sizes, (sizes + 2 * radius) / (2 * radius + 1), style, marker="o", color=BAND, label=f"R = {radius}")
axes.axvline(backend.queries_per_block, color=QUIET, linewidth=0.8)
axes.set(
    xlabel="Q, queries in a block (the line: what this backend takes)", ylabel="cells / cells needed", ylim=(0.9, None)
)
axes.legend()
plt.show()

# %% [markdown]
# What a trained model looks at inside its window is in the [notebook](../notebooks/02_sliding_window.md), with a real
# page.
#
# ## What goes wrong: a window of the wrong size
#
# `attention_window` in a checkpoint's file is the whole width without the token itself, 2R: 1,024 in LED, so R = 512. In
# the code that LED's authors published, the number of that name is R itself. Who takes the one for the other gets a window
# twice too wide, or half as wide. And who writes < for ≤ loses one key at the end. The numbers that come out look like any
# others. Here is each row's error for three mistakes; the first is `band-left-short`, one of the
# [mutants](../mutation_testing.md): copies of led_ref with one mistake each, by which its tests are tested. It is run as it
# stands there:

# %% alt="Error of each of 300 rows for three mistakes: near 0.1 to 1, where rounding would be near 1e-16"
from unittest import mock

with mock.patch("led_backends.numpy_backend.band_corners", planted("band-left-short").band_corners):
    one_short_TK = by_blocks()
mistakes = {
    "one key short on the left": one_short_TK,
    "total width taken for R": by_definition(abs(i_T1 - j_T) <= 2 * R),
    "half of R": by_definition(abs(i_T1 - j_T) <= R // 2),
}
figure, axes = plt.subplots(figsize=(8, 3))
for (name, wrong_TK), style in zip(mistakes.items(), ("-", "--", ":"), strict=True):
    errors_T = abs(wrong_TK - definition_TK).max(axis=1)
    axes.semilogy(errors_T + 1e-17, style, color=WRONG, linewidth=1, label=name)
    print(f"{name}: {(errors_T > 1e-12).sum()} of {T} rows wrong, by up to {errors_T.max():.2f}")
axes.semilogy(abs(by_blocks() - definition_TK).max(axis=1) + 1e-17, color=BAND, linewidth=1, label="right: rounding")
axes.set(xlabel="row", ylabel="largest error (+ 10⁻¹⁷)")
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=8)
plt.show()

# %% [markdown]
# The key that is lost at the end of the window has a large share in some rows and next to none in others. Rounding stays at
# 10⁻¹⁵ everywhere. So the tests compare in float64, and look at the worst row: there, no such mistake passes for rounding.
#
# ## Exercises
#
# 1. `led-ref exercise 4` hands out this chapter's formula to write, with checks. `led-ref exercise 11` is about the tiles.
# 2. By hand: with R = 2 in the first table, what comes out of row 2?
# 3. Without the first and last R rows, which share of a tile's cells lies outside the band? Find the formula, check it with the
#    tiles of the picture, and with Q = 128, R = 512.
# 4. After one layer the state of a token depends on R places to each side. After two?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** Row 2 sees all five keys. The shares are 1, 2, 1, 4, 1 ninths, so the result is (10 + 40 + 30 + 160 + 50) / 9
# = 32.22.
#
# **3.** A tile has Q (Q + 2R) cells, and each query sees 2R + 1 of its Q + 2R keys. The share outside is (Q - 1) / (Q
# + 2R): 11% with Q = 128 and R = 512.
#
# **4.** On 2R places to each side: R of its own window, and R of the windows of those. [Chapter
# 7](07_receptive_field.md) measures it.
#
# </details>
