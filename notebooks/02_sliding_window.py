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
# # The sliding window from scratch
#
# In ordinary attention every token looks at every other one. A document of T tokens then has a table of T × T
# probabilities in every head of every layer: 16,384 tokens make 268 million cells, a gigabyte in float32, for one head.
#
# LED's encoder (Longformer's, [Beltagy et al. 2020](https://arxiv.org/abs/2004.05150), section 3.1) fills in a small part
# of that table. A token looks at its neighbours, at most R to each side, and at a few **global** tokens; global tokens
# look at everything:
#
# ```text
# seen(i)  =  { j : |i - j| ≤ R }  and every global j
# out(i)   =  Σ softmax(q(i) · k(j) / √K) v(j)      over the j in seen(i), in one softmax
# ```
#
# This notebook looks at those cells in a trained model, then computes them in the two ways that must agree: the whole
# table with all other cells hidden, which is the definition, and the few cells alone, block by block, which is how
# led_ref does it. It needs nothing but the model that comes with led_ref.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, QUIET, shares
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.patches import Rectangle

import led_ref

# float64, so that two ways to the same number agree to 15 digits.
led = led_ref.load(dtype="float64")
page = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
ids = led.encode(page)
pieces = [led.tokenizer.decode([i]).replace("\n", "↵") for i in ids]

T, R = len(ids), led.model.config.radii[0]
print(page.splitlines()[3])
print()
print(f"{T} tokens: {' | '.join(pieces[:13])} ...")
print(f"each sees R = {R} tokens to each side: a window of {2 * R + 1}")

# %% [markdown]
# The page is led_ref's own manual page. Its first token is `<s>`, and that is the one made global: LED was trained to
# summarize like that, and `led_ref.generate` does it by default.
#
# ## What a trained head looks at
#
# `output_attentions=True` returns the probabilities. Nobody wants the T × T table back, so they come as a strip, in
# transformers' layout: `[B, H, T, G + 2R + 1]`, first the G global tokens, then the window with the token itself in the
# middle. What the global tokens see is a second array, `[B, H, T, G]`. Here both are put into the table where they belong.

# %%
mark_first = np.zeros((1, T), dtype=int)
mark_first[0, 0] = 1
show = {"output_attentions": True, "output_hidden_states": True}
read = led.model.encoder([ids], global_attention_mask=mark_first, **show)
strip_HTZ = read.attentions[1][0]  # the second layer's
global_HT = read.global_attentions[1][0, :, :, 0]
print("strip", strip_HTZ.shape, "  global row", global_HT.shape, "  table", (T, T))


def table_of(strip_HTZ, global_HT):
    """The whole table (H, T, T) from the strip and the global token's row; other cells are 0."""
    heads = len(strip_HTZ)
    table_HTT = np.zeros((heads, T, T))
    for i in range(1, T):
        low, high = max(0, i - R), min(T, i + R + 1)
        table_HTT[:, i, low:high] = strip_HTZ[:, i, 1 + R + low - i : 1 + R + high - i]
        table_HTT[:, i, 0] = strip_HTZ[:, i, 0]  # the global column: everybody sees token 0
    table_HTT[:, 0] = global_HT  # the global row: token 0 sees everybody
    return table_HTT


table_HTT = table_of(strip_HTZ, global_HT)
rows = table_HTT.sum(axis=-1)
print("every row of every head adds up to 1:", np.allclose(rows, 1, atol=1e-12))

# %% alt="Attention of a head: a band along the diagonal, a column at the left, a row at the top; then its corner, larger"
HEAD = 2


def show_table(axes, table_TT, title, first=8):
    """Probabilities, logarithmic; other cells stay empty. Token 0 is drawn `first` cells wide."""
    wide = np.ones(len(table_TT), dtype=int)
    wide[0] = first
    cells = np.ma.masked_equal(table_TT.repeat(wide, axis=0).repeat(wide, axis=1), 0)
    extent = (0.5 - first, len(wide) - 0.5, len(wide) - 0.5, 0.5 - first)
    scale = {"norm": LogNorm(1e-4, 1e-1), "cmap": shares(), "interpolation": "nearest"}
    image = axes.imshow(cells, extent=extent, **scale)
    axes.set(title=title, xlabel="key j: what is looked at", ylabel="query i: who looks")
    return image


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4))
show_table(left, table_HTT[HEAD], f"layer 2, head {HEAD + 1}: the whole page")
image = show_table(right, table_HTT[HEAD, :160, :160], "its upper left corner", first=3)
figure.colorbar(image, ax=[left, right], shrink=0.8, label="probability")
plt.show()

# %% [markdown]
# A band, a column and a row (drawn wider here than the one token that they are): that is all there is. The empty part was
# not computed and then hidden; it never existed. Strong stripes inside the band are tokens that everybody in reach looks at.
#
# One row of that picture, with words. This is the token "window" in the page's sentence "Each word of the document
# looks at the words in a window around it".

# %% alt="Bars over the 129 tokens around 'window'; the highest are 'and', 'a' and 'whole'"
i = next(n for n, piece in enumerate(pieces) if piece == " window")
offsets = np.arange(-R, R + 1)
weights = strip_HTZ[HEAD, i, 1:]

figure, axes = plt.subplots(figsize=(9, 3))
axes.bar(offsets, weights, width=0.9, color=BAND)
for best in np.argsort(-weights)[:6]:
    text = pieces[i + offsets[best]].strip()
    axes.text(offsets[best], weights[best] + 0.003, text, ha="center", fontsize=9)
axes.margins(y=0.12)
axes.axvline(0, linestyle=":", color=QUIET)
axes.set(title=f"what {pieces[i]!r} looks at", xlabel="offset j - i", ylabel="probability")
plt.show()
print(f"the global token <s> gets {strip_HTZ[HEAD, i, 0]:.3f}; all 130 alike would get {1 / 130:.3f}")

# %% [markdown]
# And the other direction: the global token reads the whole page, through weights of its own. In the first layer its heads
# are choosy; these are the tokens that each gives most:

# %%
for head, seen_T in enumerate(read.global_attentions[0][0, :, :, 0]):
    best = np.argsort(-seen_T)[:5]
    looked = (f"{pieces[j].strip()!r} {seen_T[j]:.2f}" for j in best)
    print(f"head {head + 1}: ", ", ".join(looked))

# %% [markdown]
# ## The definition: the whole table, with cells hidden
#
# By hand, for the first layer: queries, keys and values are linear maps of the layer's input, cut into H heads of width
# K. All T × T scores are computed, those outside the window and the global column are set to minus infinity, and the
# softmax makes them zero. Letters after an underscore name the axes of an array; `_HTT` is heads × queries × keys.

# %%
layer = led.model.params.encoder.layers[0]
projections = (layer.query, layer.key, layer.value)
H = led.model.config.encoder_attention_heads
x_TD = read.hidden_states[0][0]  # the embeddings: what the first layer reads
K = x_TD.shape[1] // H


def heads_of(x_TD, linear):
    """A linear map, cut into heads: (T, D) -> (H, T, K)."""
    y_TD = x_TD @ linear.weight.T + linear.bias
    return y_TD.reshape(T, H, K).swapaxes(0, 1)


def attention_by_definition(may_look_TT):
    """Probabilities (H, T, T) and output (T, D) of the local tokens, from the whole table."""
    q_HTK, k_HTK, v_HTK = (heads_of(x_TD, linear) for linear in projections)
    scores_HTT = q_HTK @ k_HTK.swapaxes(-1, -2) / math.sqrt(K)
    scores_HTT[:, ~may_look_TT] = -np.inf
    probs_HTT = np.exp(scores_HTT - scores_HTT.max(axis=-1, keepdims=True))
    probs_HTT /= probs_HTT.sum(axis=-1, keepdims=True)
    return probs_HTT, (probs_HTT @ v_HTK).swapaxes(0, 1).reshape(T, H * K)


i_T1, j_T = np.arange(T)[:, None], np.arange(T)
may_look_TT = (abs(i_T1 - j_T) <= R) | (j_T == 0)
probs_HTT, out_TD = attention_by_definition(may_look_TT)
print(f"{may_look_TT.sum():,} of {T * T:,} cells are needed: {may_look_TT.mean():.0%}")

# %% [markdown]
# ## The same in blocks
#
# `led_ref/model/masks.py` cuts the queries into blocks of Q = 128 in a row. A block needs the keys from R before its first
# query to R after its last, and the global tokens: a tile of at most Q rows and Q + 2R + G columns. Only the tiles are
# computed, one after the other, so that memory and time grow with T and not with T².

# %% alt="The band with a rectangle for each block of queries; each covers its part of the band and two empty corners"
from led_ref.model.masks import document_masks, window_blocks

(mask,) = document_masks(np.ones((1, T), dtype=int), mark_first)
blocks = window_blocks(mask, R, led.model.backend)

figure, axes = plt.subplots(figsize=(6, 5.4))
grey = ListedColormap([f"{QUIET}70"])
band_TT = abs(i_T1 - j_T) <= R
axes.imshow(np.ma.masked_equal(band_TT, False), cmap=grey, interpolation="nearest")
for width, height in ((8, T + 8), (T + 8, 8)):  # the global column and row, widened
    axes.add_patch(Rectangle((-8, -8), width, height, color=grey(0), linewidth=0))
for n, block in enumerate(blocks):
    width, height = block.high - block.low, block.stop - block.start
    corner = (block.low - 0.5, block.start - 0.5)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=BAND, lw=1.8))
    size = f"{height} × {width}"
    if n == 0:
        axes.text(block.high - 5, block.start + 5, size, ha="right", va="top", fontsize=8)
    else:
        axes.text(block.low + 5, block.stop - 5, size, ha="left", va="bottom", fontsize=8)
axes.set(xlim=(-8, T), ylim=(T, -8), xlabel="key j", ylabel="query i")
axes.set_title("one tile for each block of queries")
plt.show()


def cells_in(blocks):
    """Cells of all tiles, the global column's included."""
    return sum((block.stop - block.start) * (1 + block.high - block.low) for block in blocks)


in_tiles = cells_in(blocks)
print(f"{len(blocks)} tiles hold {in_tiles:,} cells, {in_tiles / T**2:.0%} of the whole table")

# %% [markdown]
# ## They agree
#
# First against the table by hand, for this layer; then the whole encoder against `led_ref/oracle/definition/model.py`, LED by
# definition in float64, which shares no code with the model. Both differences are rounding: sums of the same numbers in
# another order.

# %%
from led_ref.model.sliding_window import sliding_window_attention

q_HTK, k_HTK, v_HTK = (heads_of(x_TD, linear) for linear in projections)
q_HTK /= math.sqrt(K)
windowed_TD = sliding_window_attention(q_HTK, k_HTK, v_HTK, mask, blocks, led.model.backend)

local = slice(1, T)  # row 0 is the global token's: it is computed elsewhere
by_blocks = abs(windowed_TD[local] - out_TD[local]).max()
print(f"one layer, blocks against the table by hand: at most {by_blocks:.1e} apart")
assert by_blocks < 1e-13

first_layer_HTT = table_of(read.attentions[0][0], read.global_attentions[0][0, :, :, 0])
assert abs(first_layer_HTT[:, local] - probs_HTT[:, local]).max() < 1e-13

# %%
from led_ref.oracle.definition import model as dense
from led_ref.weights.find_files import read_tensors

stored = read_tensors(led_ref.bundled_model())
weights = {name: tensor.to_numpy("float64") for name, tensor in stored.items()}
by_oracle = dense.encode(weights, led.model.config, [ids], global_attention_mask=mark_first)
whole = abs(read.last_hidden_state - by_oracle.hidden_states[-1]).max()
largest = abs(read.last_hidden_state).max()
print(f"the whole encoder against the oracle: at most {whole:.1e} apart; largest state {largest:.1f}")
assert whole < 1e-11

# %% [markdown]
# What would a mistake look like? A window that is one token too narrow, or a global column that was forgotten, still gives
# numbers that look like attention. The difference gives it away: it is some twelve orders of magnitude above rounding. That is
# why the tests compare in float64 and allow next to nothing.

# %%
for mistake, cells_TT in (
    ("window one token too narrow", (abs(i_T1 - j_T) < R) | (j_T == 0)),
    ("global column forgotten", abs(i_T1 - j_T) <= R),
):
    _, wrong_TD = attention_by_definition(cells_TT)
    print(f"{mistake}: {abs(wrong_TD[local] - out_TD[local]).max():.1e} apart")

# %% [markdown]
# ## What it saves
#
# Cells that one head computes with led-base's sizes, R = 512 and one global token. Twice the document is twice the work;
# a document shorter than the window gains nothing.

# %%
print("     T        whole table          tiles")
for length in (512, 1024, 2048, 4096, 8192, 16384):
    everything, first = np.ones((1, length), dtype=int), np.eye(1, length, dtype=int)
    (mask_of_length,) = document_masks(everything, first)
    cells = cells_in(window_blocks(mask_of_length, 512, led.model.backend))
    print(f"{length:6,}  {length**2:14,}  {cells:14,}   {cells / length**2:4.0%}")

# %% [markdown]
# ## To try
#
# 1. Make `may_look_TT` one-sided: a token sees the R before it and none after. How far does the output move, and which
#    tokens does it not concern?
# 2. Read the page with blocks of 32 queries: `window_blocks(mask, R, led.model.backend, queries=32)`. How many cells do the
#    tiles hold then, and why does led_ref not cut finer still?
# 3. What is the strip's row of the last token? Which of its columns are zero, and why?
