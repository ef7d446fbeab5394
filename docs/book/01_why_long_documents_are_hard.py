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
# # Why long documents are hard
#
# **The question.** A transformer reads a page without trouble. Why can it not simply read a book?
#
# Because every word is compared with every other word. Twice the words, four times the comparisons. This chapter does one
# such comparison by hand, then counts them, then takes the time. The program whose code stands in this book is led_ref;
# LED, the model that it computes, comes in two sizes, led-base and led-large.
#
# ## Attention, once, by hand
#
# A **token** is a piece of text, a short word or a part of a longer one; the next chapter makes them. Inside the model
# a token is a row of numbers, a vector. Attention makes three new vectors of each token's vector $x$, each by a matrix
# product:
#
# - the **query** $q$: what this token looks for;
# - the **key** $k$: by what it can be found;
# - the **value** $v$: what it gives to whoever finds it.
#
# Token $i$ compares its query with the key of every token $j$. The comparison is a dot product: large where the two
# point the same way. The scores become shares that add up to one, and the shares weigh the values:
#
# $$
# s_{ij} = \frac{q_i \cdot k_j}{\sqrt{K}}, \qquad
# p_{ij} = \frac{e^{s_{ij}}}{\sum_{j'} e^{s_{ij'}}}, \qquad
# \text{out}_i = \sum_j p_{ij}\, v_j
# $$
#
# $K$ is the length of a query. Longer vectors have larger dot products; dividing by $\sqrt{K}$ takes that out again.
# The middle formula is called **softmax**. Here are three tokens with vectors of length $K = 4$, so that $\sqrt{K} =
# 2$:

# %%
import math
import time

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET, WRONG, bundled, manual_page, table_of
from matplotlib.colors import ListedColormap
from threadpoolctl import threadpool_limits

q_TK = np.array([[2.0, 0, 0, 0], [0, 2, 0, 0], [1, 1, 0, 0]])
k_TK = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
v_TK = np.array([[10.0, 0, 0, 0], [0, 10, 0, 0], [0, 0, 10, 0]])

scores_TT = q_TK @ k_TK.T / math.sqrt(4)
powers_TT = np.exp(scores_TT)
probs_TT = powers_TT / powers_TT.sum(axis=1, keepdims=True)
print("scores\n", scores_TT, sep="")
print("e to the scores\n", powers_TT.round(3), sep="")
print("shares\n", probs_TT.round(3), sep="")
print("out\n", (probs_TT @ v_TK).round(2), sep="")

# %% [markdown]
# Check the first row. The query is (2, 0, 0, 0). Its dot products with the three keys are 2, 0 and 2, halved 1, 0 and
# 1. Then $e^1 = 2.718$, $e^0 = 1$, $e^1 = 2.718$, together 6.437. The shares are 0.422, 0.155 and 0.422, and the first
# number that comes out is 0.422 · 10.
#
# The letters after an underscore name the axes of an array. `q_TK` has one row for each of T tokens and K columns,
# `scores_TT` has T rows and T columns. All code of led_ref is written so; the [key to the
# letters](../layout.md#dimension-key) is short.
#
# ## The table
#
# The shares are a table: one row for each token that looks, one column for each token that is looked at. This is what
# grows.

# %% alt="Three tables of 4 by 4, 8 by 8 and 16 by 16 cells, drawn at the same cell size"
figure, all_axes = plt.subplots(1, 3, figsize=(8, 4.2), width_ratios=[4, 8, 16])
for axes, T in zip(all_axes, (4, 8, 16), strict=True):
    cells_TT = np.zeros((T, T))
    axes.imshow(cells_TT, cmap=ListedColormap([BAND]), alpha=0.25)
    table_of(axes, cells_TT, rows=[""] * T, columns=[""] * T)
    axes.set_title(f"{T} tokens, {T * T} cells", pad=12)
plt.show()

# %% [markdown]
# A cell costs K multiplications for the score and K more for its share of the value. A layer has H such tables side by
# side, its **heads** ([chapter 6](06_a_layer.md)), each with queries, keys and values of its own. So one layer takes
#
# $$ 2 \cdot T^2 \cdot H \cdot K = 2\,T^2 D \quad\text{multiplications,} $$
#
# and each head has $T^2$ numbers to keep. $D = H K$ is the width of the model. What the layer does with each token by
# itself grows only with $T$: four maps of $D \times D$ (query, key, value, and one for the result) and two of
# $D \times F$, the feed-forward of [chapter 6](06_a_layer.md). [The drawing](00_all_of_led.md) of
# chapter 0 shows where all of this stands in LED. With the sizes of led-base, $D = 768$ and $F = 3072$:

# %%
D, F = 768, 3072
print("     T   for each token alone   for the table    the table, one head, float32")
for T in (512, 1024, 4096, 16384):
    alone = T * (4 * D * D + 2 * D * F)
    table = 2 * T * T * D
    print(f"{T:6,}   {alone / 1e9:14.1f} × 10⁹  {table / 1e9:9.1f} × 10⁹   {4 * T * T / 2**20:12,.0f} MiB")

# %% [markdown]
# At 512 tokens the table is a small part of the work. At 16,384 it is most of it, and one head's table alone takes a
# gigabyte.
#
# ## Measured
#
# Counting is one thing, a clock another. Here is one head of width 64, in NumPy, on the machine that built this page.
# Beside the whole table it runs LED's way, which the coming chapters explain: a token looks only at its 64 neighbours
# to each side. The code that is timed is the model's own; [chapter 4](04_the_sliding_window.md) shows and explains it.

# %% tags=["fold", "machine"]
from led_ref.model.masks import document_masks, window_blocks
from led_ref.model.sliding_window import sliding_window_attention

backend = bundled().model.backend
generator = np.random.default_rng(0)


def whole_table(q_TK, k_TK, v_TK):
    """Every token looks at every token."""
    scores_TT = q_TK @ k_TK.T
    np.exp(scores_TT - scores_TT.max(axis=1, keepdims=True), out=scores_TT)
    return scores_TT @ v_TK / scores_TT.sum(axis=1, keepdims=True)


def least_time(work):
    """The least of seven runs, in milliseconds: what disturbs a run can only make it longer. Two seconds are enough."""
    times = []
    with threadpool_limits(1):  # one processor, and its own time: what else runs on this machine does not count
        while len(times) < 7 and sum(times) < 2:
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
    return 1000 * min(times)


def milliseconds(T, R=64):
    """One head, both ways: (whole table, window)."""
    q_TK, k_TK, v_TK = (generator.normal(size=(T, 64)).astype(np.float32) for _ in range(3))
    (mask,) = document_masks(np.ones((1, T), dtype=int), None)
    blocks = window_blocks(mask, R, backend)
    window = least_time(lambda: sliding_window_attention(q_TK[None], k_TK[None], v_TK[None], mask, blocks, backend))
    return least_time(lambda: whole_table(q_TK, k_TK, v_TK)), window


lengths = [256, 512, 1024, 2048, 4096]
times = np.array([milliseconds(T) for T in lengths])
for T, (whole, window) in zip(lengths, times, strict=True):
    print(f"{T:5,} tokens   whole table {whole:8.2f} ms   window {window:6.2f} ms")

# %% alt="Time over length, both axes logarithmic: the curve of the whole table rises twice as steeply as that of the window"
figure, axes = plt.subplots(figsize=(7, 3.6))
axes.loglog(lengths, times[:, 0], "o-", color=WRONG, label="every token looks at every token")
axes.loglog(lengths, times[:, 1], "o-", color=BAND, label="64 neighbours to each side")
for power, start in ((2, times[-1, 0]), (1, times[-1, 1])):
    axes.loglog(lengths, [start * (T / lengths[-1]) ** power for T in lengths], ":", color=QUIET)
axes.set(xlabel="tokens", ylabel="milliseconds, one head", xticks=lengths, xticklabels=lengths)
axes.minorticks_off()
axes.legend()
plt.show()

# %% [markdown]
# The dotted lines are exact proportions: to T² for the upper one, to T for the lower one. Where a curve lies off its
# line, something other than multiplying took the time.
#
# ## What goes wrong: just cut the document
#
# The usual way out was to read the beginning only. BART, the model that LED was made from, reads 1,024 tokens. How much
# of a document is that? Here for led_ref's own manual page, and for the 14,500 tokens that nine in ten of the papers on
# arXiv stay below ([Beltagy et al. 2020](https://arxiv.org/abs/2004.05150)).

# %% alt="Two bars, the manual page and a long paper; the part that a model with 1,024 tokens reads is coloured"
page_tokens = len(bundled().encode(manual_page()))
documents = {"led_ref's manual page": page_tokens, "a long paper": 14_500}
figure, axes = plt.subplots(figsize=(8, 1.8))
for y, T in enumerate(documents.values()):
    axes.barh(y, T, color=QUIET, alpha=0.3)
    axes.barh(y, min(T, 1024), color=GLOBAL)
    axes.text(T, y, f"  {min(T, 1024) / T:.0%} read of {T:,}", va="center", fontsize=9)
axes.set(yticks=range(len(documents)), yticklabels=documents, xlabel="tokens", xlim=(0, 19_000))
plt.show()

# %% [markdown]
# A summary of such a paper cannot say what its second half found. LED reads 16,384 tokens. It keeps the short
# comparisons and drops most of the long ones, and the next chapters show what it keeps so that little is lost:
# [a window](04_the_sliding_window.md) around each token, and [a few tokens](05_global_attention.md) that see everything.
#
# ## Exercises
#
# 1. `led-ref exercise 1` hands out a small program to write, counting cells, with checks.
# 2. A table of 16,384 tokens in float32 takes 1,024 MiB for one head. How much do all 12 heads of one layer take? Would your
#    computer hold it?
# 3. In the worked example, make all numbers of the last query ten times as large. Which way do its shares go? Dot products
#    grow with K, too: what does dividing by $\sqrt{K}$ do against that?
# 4. With R neighbours to each side there are about $T(2R + 1)$ cells. From which T on is that less than half of $T^2$, for
#    R = 512?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** 12 × 1,024 MiB = 12 GiB, for one layer.
#
# **3.** Its scores are 5, 5 and 10 in place of 0.5, 0.5 and 1, so 0.987 of its share goes to the last key, where 0.452
# went. A dot product of K random numbers grows with √K; divided by √K, scores stay of one size however wide a head is.
#
# **4.** $T(2R + 1) < T^2 / 2$ where T is more than 2 (2R + 1): from 2,051 tokens on.
#
# </details>
