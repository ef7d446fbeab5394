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
# same in all of led_ref. This page puts the key, which stands at the top of `led_ref/config.py`, beside real sizes. To look
# a letter up, the [table](../layout.md#dimension-key) is quicker.

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
