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
# # The letters
#
# **The question.** What does `scores_hQZ` mean?
#
# An array's name ends with one letter for each of its axes, in their order: h heads, Q queries, Z columns. The letters mean the
# same in all of led_ref:

# %% alt="The name scores_hQZ above a block of numbers: a sheet for each head, a row for each query, a column for each key"
from book_steps import Steps
from book_tools import BAND, GLOBAL, QUIET, WRONG

h, Q, G, S, CELL = 2, 4, 1, 6, 28
left, top, behind = 96, 84, 20  # of the sheet in front, and how far the other is behind it
drawing = Steps(360, 258, count=6)
drawing.text(170, 28, "scores_", size=22, anchor="end")
for n, letter in enumerate("hQZ"):
    drawing.text((178, 194, 209)[n], 28, letter, size=22)
    drawing.text((178, 194, 209)[n], 28, letter, size=22, color=BAND, bold=True, at=(n + 2, n + 2))
for sheet in reversed(range(h)):
    x, y = left + behind * sheet, top - behind * sheet
    drawing.box(x, y, CELL * (G + S), CELL * Q, "var(--md-default-bg-color, white)")
    for row in range(Q):
        for column in range(G + S):
            color, at = (GLOBAL if column < G else BAND), (x + CELL * column, y + CELL * row, CELL, CELL)
            drawing.box(*at, color, opacity=0.3 if sheet else 0.45, at=4)
            drawing.box(*at, QUIET, line=0.8)
    drawing.box(x, y, CELL * (G + S), CELL * Q, line=2.5, opacity=0.9, at=(2, 2))
drawing.text(left + CELL * (G + S) + behind + 6, top + 20, "h = 2", anchor="start", bold=True, at=2)
for row in range(Q):
    drawing.text(left - 8, top + CELL * row + 18, f"query {row}", anchor="end", at=3)
drawing.text(left + CELL / 2, top + CELL * Q + 16, "G", bold=True, at=4)
drawing.text(left + CELL * (G + S / 2), top + CELL * Q + 16, "S keys in reach", at=4)
drawing.box(left + CELL * 4, top + CELL * 2, CELL, CELL, WRONG, line=3, at=(5, 5))
for step, words in enumerate(
    (
        "an array of numbers with three axes",
        "h: a sheet for each head",
        "Q: a row for each query of the block",
        "Z = G + S: a column for each key, the global ones first",
        "scores_hQZ[0, 2, 4]: query 2 with the fourth key in reach",
        "q_hQK @ k_hZK.swapaxes(-1, -2): K meets K, and hQZ remains",
    ),
    1,
):
    drawing.text(180, 244, words, size=12, at=(step, step))
drawing.show()

# %% [markdown]
# This page puts the key, which stands at the top of `led_ref/config.py`, beside real sizes. To look a letter up, the
# [table](../layout.md#dimension-key) is quicker.

# %%
import numpy as np
from book_tools import bundled

import led_ref
from led_ref import config

print(config.__doc__.partition("Dimension key")[2].partition(":\n\n")[2].partition("\n\n`attention_window`")[0])

# %% [markdown]
# The sizes of a model are in its configuration. Here are the bundled model's, and those that an LED has where its
# configuration says nothing, which are transformers' defaults:

# %%
small, default = bundled().model.config, led_ref.LEDConfig()
print("     bundled   default")
for letter, size in {
    "V": lambda c: c.vocab_size,
    "D": lambda c: c.d_model,
    "H": lambda c: c.encoder_attention_heads,
    "K": lambda c: c.d_model // c.encoder_attention_heads,
    "F": lambda c: c.encoder_ffn_dim,
    "R": lambda c: c.radii[0],
}.items():
    print(f"{letter}  {size(small):10,}{size(default):10,}")

# %% [markdown]
# ## Reading a product
#
# Where two arrays are multiplied, the letters next to the `@` agree, and what remains is the result. Keys with their last two
# axes swapped are KT:

# %%
H, T, K = 2, 5, 3
q_HTK, k_HTK, v_HTK = np.ones((H, T, K)), np.ones((H, T, K)), np.ones((H, T, K))
scores_HTT = q_HTK @ k_HTK.swapaxes(-1, -2)  # TK @ KT
out_HTK = scores_HTT @ v_HTK  # TT @ TK
print(scores_HTT.shape, out_HTK.shape)

# %% [markdown]
# The sizes here are 2, 5 and 3, different primes. In tests they always are: then no product with swapped axes can pass by
# accident.
#
# ## What goes wrong: a square
#
# With K = T the swapped product has a shape that fits as well, and nothing complains:

# %%
square_TK = np.arange(9.0).reshape(3, 3)
print("right, swapped:\n", square_TK @ square_TK.T, "\nwrong, forgotten:\n", square_TK @ square_TK, sep="")

# %% [markdown]
# ## Exercises
#
# 1. What are the axes of `tile_HQZ`, and how long is each in the second block of the fourth chapter's picture?
# 2. `x_THK.reshape(T, H * K)` puts heads side by side. What does `x_HTK.reshape(T, H * K)` do? Try it with small numbers.
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **1.** Heads H, queries of the block Q, and Z = G + S: the global tokens' keys, then the S keys in reach, at most Q
# + 2R.
#
# **2.** It takes the numbers as they lie: row 0 gets the first H tokens of head 0. The shape is right, and every
# number is in the wrong place. Swap the axes first.
#
# </details>
