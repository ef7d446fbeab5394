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
# # Global attention
#
# A window is narrow. In the bundled model a token sees R = 64 tokens to each side, and after three layers nothing from
# further than 3 × 64 tokens can have reached it. A page has several hundred. So LED lets a few chosen tokens see all, and be
# seen by all: **global tokens**. To summarize, the first one is chosen, `<s>`.
#
# This notebook follows news through a document, with and without a global token; then it computes a global row by hand, in
# two ways; then it asks what more global tokens cost and what they change.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, shares
from matplotlib.colors import LogNorm

import led_ref

led = led_ref.load(dtype="float64")
page = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
ids = led.encode(page)
T, R = len(ids), led.model.config.radii[0]
layers, H = led.model.config.encoder_layers, led.model.config.encoder_attention_heads
print(f"{T} tokens, {layers} layers, R = {R}: without a global token, news travels {layers * R} tokens")


def mask_of(positions):
    """A global mask (1, T): 1 at these positions."""
    mask_1T = np.zeros((1, T), dtype=int)
    mask_1T[0, list(positions)] = 1
    return mask_1T


# %% [markdown]
# ## How far news travels
#
# An experiment: exchange one word in the middle of the page, and see whose state moves. float64 makes the answer sharp. What
# the word cannot have reached is not changed a little, it is changed by nothing: the very same numbers were added. The word is
# the one there that the global token reads most in the first layer. (A trained global token is picky. Of many tokens it takes
# less than float64 can add.)

# %%
marks_1T = mask_of([0])
shares_HT = led.model.encoder([ids], global_attention_mask=marks_1T, output_attentions=True).global_attentions[0][
    0, :, :, 0
]
middle = T // 3 + int(shares_HT.mean(axis=0)[T // 3 : 2 * T // 3].argmax())
changed = list(ids)
changed[middle] = led.tokenizer.convert_tokens_to_ids("Ġpaper")
assert changed[middle] != ids[middle]
print(f"token {middle}: {led.tokenizer.decode(ids[middle])!r} becomes {led.tokenizer.decode(changed[middle])!r}")


def moved_by_change(global_mask):
    """How far each token's state moves after the embedding and after each layer: (layers + 1, T)."""
    before, after = (
        led.model.encoder([document], global_attention_mask=global_mask, output_hidden_states=True)
        for document in (ids, changed)
    )
    both = zip(before.hidden_states, after.hidden_states, strict=True)
    return np.array([np.sqrt(((a[0] - b[0]) ** 2).sum(axis=-1)) for a, b in both])


without, with_first = moved_by_change(mask_of([])), moved_by_change(mask_of([0]))

# %% alt="Without a global token the change spreads by 64 tokens a layer; with one it reaches every token in layer 2"
figure, axes = plt.subplots(2, 1, figsize=(9, 4.2), sharex=True)
for axis, moved, title in (
    (axes[0], without, "no global token"),
    (axes[1], with_first, "the first token is global"),
):
    wide = np.repeat(moved, [8] + [1] * (T - 1), axis=1)  # token 0 is drawn 8 tokens wide
    scale = {"norm": LogNorm(1e-8, 10), "cmap": shares(), "interpolation": "nearest"}
    extent = (-7.5, T - 0.5, layers + 0.5, -0.5)
    image = axis.imshow(np.ma.masked_equal(wide, 0), aspect="auto", extent=extent, **scale)
    axis.set(
        yticks=range(layers + 1), yticklabels=["embedding", *(f"layer {n + 1}" for n in range(layers))], title=title
    )
axes[1].set(xlabel="token")
figure.colorbar(image, ax=axes, label="how far its state moved")
plt.show()
for name, moved in (("no global token", without), ("first token global", with_first)):
    print(f"{name:19}", ", ".join(f"{(row > 0).sum():3} tokens moved" for row in moved))
assert (without[-1] > 0).sum() == 2 * layers * R + 1

# %% [markdown]
# In the first layer the change reaches the global token (the lone cell at the left edge, drawn wider than it is). In the
# second every token looks at the global token, and so the change reaches all of them. Two layers are enough to go from any
# place of a document to any other, however long it is. The price is that all of it passes through one vector, and little
# of it arrives.
#
# ## A global row, by hand
#
# What a global token takes is ordinary attention over the whole document, with one peculiarity: it has **projections of its
# own**. A layer has `query`, `key`, `value` for the window and `query_global`, `key_global`, `value_global` for these rows.
#
# ```text
# out(g)  =  Σ softmax(q'(g) · k'(j) / √K) v'(j)      over every j that is not padding
# ```
#
# With `x` the layer's input, one row for each token:

# %%
read = led.model.encoder([ids], global_attention_mask=mask_of([0]), output_attentions=True, output_hidden_states=True)
layer, x_TD = led.model.params.encoder.layers[0], read.hidden_states[0][0]
D = x_TD.shape[1]
K = D // H


def heads_of(x_XD, linear):
    """A linear map, cut into heads: (X, D) -> (H, X, K)."""
    return (x_XD @ linear.weight.T + linear.bias).reshape(len(x_XD), H, K).swapaxes(0, 1)


def softmax(scores):
    """Over the last axis."""
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def row_of_first(query, key, value):
    """What token 0 sees (H, T) and takes (D,), with these projections of every token."""
    q_H1K = heads_of(x_TD[:1], query) / math.sqrt(K)
    probs_H1T = softmax(q_H1K @ heads_of(x_TD, key).swapaxes(-1, -2))
    return probs_H1T[:, 0], (probs_H1T @ heads_of(x_TD, value)).reshape(D)


probs_HT, out_D = row_of_first(layer.query_global, layer.key_global, layer.value_global)
difference = abs(probs_HT - read.global_attentions[0][0, :, :, 0]).max()
print(f"probabilities, by hand against the model: at most {difference:.1e} apart")
assert difference < 1e-13

# %% [markdown]
# ## The same, without keys and values
#
# That projected all T tokens twice to serve **one** query: 2 T D² multiplications. The matrices can change sides instead:
#
# ```text
# q · (Wk x + bk)   =   (q Wk) · x + q · bk         the second term is the same for every token: softmax drops it
# Σ p (Wv x + bv)   =   Wv (Σ p x) + bv             because the p add up to one
# ```
#
# Now the tokens are used as they are, and the matrices meet one row. led_ref does this as long as there are fewer global
# tokens than a head is wide (`led_ref/model/folding.py`).

# %%
Wk_HKD, Wv_HKD = (p.weight.reshape(H, K, D) for p in (layer.key_global, layer.value_global))
q_H1K = heads_of(x_TD[:1], layer.query_global) / math.sqrt(K)
folded_H1D = q_H1K @ Wk_HKD
folded_probs_H1T = softmax(folded_H1D @ x_TD.T)
mixed_H1D = folded_probs_H1T @ x_TD
folded_out_D = (mixed_H1D @ Wv_HKD.swapaxes(-1, -2)).reshape(D) + layer.value_global.bias

apart = abs(folded_probs_H1T[:, 0] - probs_HT).max(), abs(folded_out_D - out_D).max()
print(f"probabilities {apart[0]:.1e} apart, output {apart[1]:.1e}")
assert apart[1] < 1e-13

print()
print("multiplications of one layer at led-base's size (D = 768, 12 heads of 64), 16,384 tokens:")
base_T, base_D, base_H = 16384, 768, 12
for G in (1, 8, 64):
    print(f"  {G:2} global: projecting {2 * base_T * base_D**2:14,}, folding {2 * G * base_H * base_T * base_D:14,}")

# %% [markdown]
# With one global token folding is 64 times less work; with 64, the width of a head, both are equal, and from there on
# projecting is cheaper. That is the rule in the code.
#
# ## What the global token reads

# %% alt="Four curves over the page's tokens, one for each head of layer 1: each has some tall peaks, at different words"
pieces = [led.tokenizer.decode([i]).strip() for i in ids]
figure, axes = plt.subplots(H, 1, figsize=(9, 5), sharex=True)
for head, axis in enumerate(axes):
    axis.fill_between(range(T), probs_HT[head], step="mid", color=BAND)
    for j in np.argsort(-probs_HT[head])[:5]:
        axis.text(j, probs_HT[head, j], pieces[j] or "↵", fontsize=8, ha="center", va="bottom")
    axis.set(ylabel=f"head {head + 1}", yticks=[], ylim=(0, 1.35 * probs_HT[head].max()))
axes[0].set(title="what <s> looks at in layer 1")
axes[-1].set(xlabel="token")
plt.show()

# %% [markdown]
# ## How many, and which
#
# `global_attention` says which tokens: `"first"` (what LED was trained with), `"none"`, `"all"`, a list of positions, or a
# mask. The model runs with any of them. What it writes may or may not change; it was trained with the first one alone, so
# the other choices are outside of its training.

# %%
headings = [i + 1 for i, piece in enumerate(pieces[1:]) if piece in ("SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES")]
for name, choice in (("first", "first"), ("none", "none"), ("headings too", [0, *headings]), ("all", "all")):
    print(f"{name:13} {led.generate(page, global_attention=choice)}")

# %% [markdown]
# "All" is full attention, with the global weights in every row. It can be checked without any window at all: this is what
# makes it a good test of an implementation.

# %%
everywhere = led.model.encoder([ids], global_attention_mask=mask_of(range(T)), output_attentions=True)
scores_HTT = heads_of(x_TD, layer.query_global) @ heads_of(x_TD, layer.key_global).swapaxes(-1, -2) / math.sqrt(K)
apart = abs(softmax(scores_HTT) - everywhere.global_attentions[0][0].swapaxes(-1, -2)).max()
print(f"all global, first layer, against full attention: at most {apart:.1e} apart")
assert apart < 1e-13

# %% [markdown]
# ## What a mistake looks like
#
# A popular one: the rows of global tokens are computed with the window's own `query`, `key` and `value`. The shapes fit, the
# probabilities add up to one, nothing complains. The paper begins training with two equal sets of weights (section 3.1), so
# with an untrained model nobody could see it. With a trained one:

# %%
wrong_HT, wrong_D = row_of_first(layer.query, layer.key, layer.value)
print(f"output of <s>: {abs(wrong_D - out_D).max():.2f} apart, where its largest number is {abs(out_D).max():.2f}")
for head in range(H):
    right, wrong = ([pieces[j] or "↵" for j in np.argsort(-row[head])[:4]] for row in (probs_HT, wrong_HT))
    print(f"head {head + 1} should read {', '.join(right):45} and reads {', '.join(wrong)}")

# %% [markdown]
# ## To try
#
# 1. Which is the smallest number of layers with which news crosses a document of 16,384 tokens at R = 512, without a global
#    token? With one?
# 2. Put the changed word next to the first token. What is different in the upper picture, and what is not?
# 3. Make `</s>` global in place of `<s>`. Does the model write something else? Why would it?
