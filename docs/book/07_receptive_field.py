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
# # The encoder's receptive field
#
# **The question.** A token sees R neighbours to each side. The document has thousands. How does the first word ever
# learn of the last?
#
# In one layer it does not. But its neighbours have neighbours. After the first layer the state of token i is made of
# tokens up to R places away. In the second layer it mixes states that are themselves mixtures, each of R more. What a
# state can depend on after n layers is called its **receptive field**:
#
# $$\text{field}_n(i) = \{\, j : |i - j| \le R_1 + R_2 + \dots + R_n \,\}$$
#
# This holds without global tokens. Led-base has six layers of R = 512: six times 512 places to each side. A global token
# is a short cut: it sees every token in one layer, and every token sees it in the next.
#
# This chapter does not take the formula's word for it. It changes one token and looks where the numbers change.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET, WRONG, bundled, manual_page, shares, source
from matplotlib.colors import LogNorm

import led_ref

led = bundled()

# %% [markdown]
# ## By hand
#
# Seven tokens, R = 1. The table says who sees whom: row i is what token i looks at. To look through two layers means
# to look at somebody who looks at somebody. That is a matrix product. The entry (i, j) of the product counts the ways
# from j to i.

# %%
places = np.arange(7)
one_layer = (abs(places[:, None] - places) <= 1).astype(int)
two_layers = one_layer @ one_layer
print("one layer\n", one_layer, "\n\ntwo layers\n", two_layers, sep="")

# %% [markdown]
# Row 3 of the second table is 0 1 2 3 2 1 0: from token 3 to itself there are three ways (through 2, through 3,
# through 4), to tokens 2 and 4 two each, to 1 and 5 one each, to 0 and 6 none. What is not zero is the receptive
# field: 3 - 2 to 3 + 2.
#
# Here the same for 13 tokens and four layers, above without and below with a global token. A coloured state depends on what
# token 8 was; a row is a layer, and a line shows through whom it came first:

# %% alt="Layer by layer the states that depend on token 8: a wedge without, all tokens after two layers with a global token"
from book_steps import Steps

from led_ref.oracle import who_sees_whom

T, LAYERS, START, gap, high = 13, 4, 8, 25, 34
drawing = Steps(360, 372, count=LAYERS + 1)
for panel, (kind, title) in enumerate(((1, "no global token"), (2, "token 0 is global"))):
    top = 186 * panel + 36
    sees = who_sees_whom(np.array([kind] + [1] * (T - 1)), radius=1)
    reached = np.arange(T) == START
    drawing.text(33, top - 20, title, anchor="start", bold=True)
    for layer in range(LAYERS + 1):
        y = top + high * layer
        drawing.text(2, y + 4, f"{layer}", anchor="start")
        after = reached if layer == 0 else (sees & reached).any(axis=1)
        for i in range(T):
            color = GLOBAL if kind == 2 and i == 0 else BAND
            drawing.box(26 + gap * i, y - 6, 14, 12, QUIET, line=0.5)
            if after[i]:
                drawing.box(26 + gap * i, y - 6, 14, 12, color, at=layer + 1)
            for j in np.flatnonzero(sees[i] & reached) if layer and not reached[i] else ():
                shade = GLOBAL if kind == 2 and 0 in (i, j) else BAND
                drawing.line(33 + gap * j, y - high + 6, 33 + gap * i, y - 6, shade, opacity=0.7, at=layer + 1)
        reached = after
drawing.show()

# %% [markdown]
# ## The code
#
# There is nothing to show in the model that is made for this. It comes of running one layer after the other, each
# with its own radius:

# %%
source("led_ref.model.encoder:encode")

# %% [markdown]
# ## Measured by planting a value
#
# The bundled model has three layers, which is little to look at. So its trained layers are stacked twice,
# with a window of R = 16. That is no longer a model that writes well, but which state depends on which token does
# not depend on the quality of the weights. One thing is softened: the trained queries of the global token are so sharp
# that its share for most tokens is smaller than rounding, and here they are divided by ten.

# %% tags=["fold"]
R, DEPTH, T, CHANGED = 16, 6, 400, 200


def softened(linear):
    """A linear map whose output is a tenth as long."""
    return replace(linear, weight=linear.weight / 10, bias=linear.bias / 10)


def stacked(radius):
    """The bundled model with its encoder's layers stacked to six, each of this radius."""
    config = replace(led.model.config, encoder_layers=DEPTH, attention_window=(2 * radius,) * DEPTH)
    layers = tuple(
        replace(layer, query_global=softened(layer.query_global)) for layer in led.model.params.encoder.layers
    )
    encoder = replace(led.model.params.encoder, layers=layers * 2)
    return led_ref.LEDForConditionalGeneration(config, replace(led.model.params, encoder=encoder))


page = manual_page()
ids = np.array([led.encode(page)[:T]])
other = ids.copy()
other[0, CHANGED] = led.tokenizer(" zebra", add_special_tokens=False)["input_ids"][0]


def changes(model, first_is_global):
    """How far each token's state moves in each layer when one token is another: (layers + 1, T)."""
    mark = np.zeros_like(ids)
    mark[0, 0] = first_is_global
    states = [
        model.encoder(each, global_attention_mask=mark, output_hidden_states=True).hidden_states
        for each in (ids, other)
    ]
    return np.array([abs(a[0] - b[0]).max(axis=1) for a, b in zip(*states, strict=True)])


without, with_global = (changes(stacked(R), first_is_global) for first_is_global in (False, True))
print("layer  changed tokens  the formula says")
for n, moved_T in enumerate(without):
    first, *_, last = np.flatnonzero(moved_T) if n else (CHANGED, CHANGED)
    print(f"{n:5}  {first:5} - {last:3}      {CHANGED - n * R:5} - {CHANGED + n * R}")
    assert (first, last) == (CHANGED - n * R, CHANGED + n * R)

# %% [markdown]
# Not nearly: exactly. A state outside the field keeps every bit. Here are all of them. A column is a token, a row is a
# layer, a stronger colour has moved further, and what is empty has not moved at all.


# %% alt="Layers against tokens: a wedge that widens; beside it the same with a global token, which reaches all"
def show_changes(axes, moved, title):
    """Layers downwards, tokens to the right; no colour where nothing moved."""
    cells = np.ma.masked_equal(moved, 0)
    image = axes.imshow(cells, aspect="auto", norm=LogNorm(1e-6, 1), cmap=shares(), interpolation="nearest")
    axes.set(title=title, xlabel="token", yticks=range(DEPTH + 1))
    axes.set_ylabel("after layer")
    return image


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
show_changes(left, without, f"token {CHANGED} is changed, no global token")
image = show_changes(right, with_global, "the same, token 0 is global")
right.set_ylabel("")
figure.colorbar(image, ax=[left, right], label="largest change")
plt.show()

# %% [markdown]
# On the right the whole row lights up after the second layer. In the first layer the global token saw token 200; in
# the second every token saw the global token. From there on no token is out of reach, though what comes that way has
# gone through one single state of width D, with everything else that the global token had to carry.

# %%
for n, (alone, helped) in enumerate(zip(without, with_global, strict=True)):
    counts = np.count_nonzero(alone), np.count_nonzero(helped)
    print(f"after layer {n}: {counts[0]:3} tokens have moved, with a global token {counts[1]:3}")
assert np.count_nonzero(with_global[1]) == 2 * R + 2  # the window, and the global token
assert np.count_nonzero(with_global[2]) == T

# %% [markdown]
# ## What goes wrong when one thing is changed
#
# `attention_window` in a checkpoint's config.json is the whole width, 2R, and not R. In allenai's own code the number
# of that name is R. Who mixes them up gets a model that runs, writes text, and sees twice as far as it was trained
# to. The mutant `total-for-radius` does that. The receptive field shows it at a glance:

# %% alt="Tokens reached after each layer: a line, and one twice as steep for the mistake"
mistaken = changes(stacked(2 * R), first_is_global=False)
figure, axes = plt.subplots(figsize=(6, 3))
for moved, name, color in ((without, "radius 16", BAND), (mistaken, "the whole width 32 taken for the radius", WRONG)):
    reached = np.count_nonzero(moved, axis=1)
    axes.plot(reached, marker="o", color=color, label=name)
    print(f"{name}: {reached.tolist()}")
axes.set(xlabel="after layer", ylabel="tokens that have moved", title="how far one token reaches")
axes.legend()
plt.show()

# %% [markdown]
# ## Exercises
#
# 1. `led-ref exercise 7`: work out the first and the last token that a state depends on, from the radii of the layers.
# 2. In the picture on the right, why has the change of the far tokens about the same size everywhere? (One state
#    carries it.)
# 3. Led-base has six layers of R = 512. How long may a document be so that the states of its first and its last token
#    depend on each other without a global one? And so that some token in the middle depends on both?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** All of it came through the state of the one global token, and each far token takes in the same change of that
# state.
#
# **3.** Six layers reach 6 · 512 = 3,072 places. The first and the last token are T - 1 apart: T is at most 3,073. A
# token in the middle needs to reach half of it to each side: at most 6,145.
#
# </details>
#
# The field says on what a state can depend, not on what it does. The notebook
# [The sliding window](../notebooks/02_sliding_window.md) shows what trained heads do look at.
