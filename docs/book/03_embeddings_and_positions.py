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
# # Embeddings and positions
#
# **The question.** An id is a row number. Which vector does a token become, and how does the model know where in the
# document it stands?
#
# Two tables answer that. One has a row for each token of the vocabulary: what it is. The other has a row for each
# place: where it is. The rows are added, and the sum is brought to a common size by a **LayerNorm**:
#
# $$
# x_t = \operatorname{LayerNorm}\!\big(E[\text{id}_t] + P[t]\big), \qquad
# \operatorname{LayerNorm}(y) = \frac{y - \operatorname{mean}(y)}{\sqrt{\operatorname{variance}(y) + 10^{-5}}} \cdot w + b
# $$
#
# $E$ has V rows (the vocabulary), $P$ has one for each place up to the longest document, 16,384 in LED. Both have D
# columns. Places count from 0. The weights $w$ and biases $b$ are learned, one of each for every column.

# %%
import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, QUIET, WRONG, bundled, manual_page, planted, source

from led_ref.model.ops import embed_tokens

led = bundled()
params, backend = led.model.params, led.model.backend
print("E", params.shared.shape, "  P", params.encoder.embed_positions.shape)

# %% [markdown]
# ## By hand
#
# A vocabulary of three tokens, vectors of width 2, and the text 2, 0. With $w = 1$ and $b = 0$:

# %%
E_VD = np.array([[1.0, 0], [0, 5], [2, 2]])
P_PD = np.array([[0.0, 2], [1, 0], [0, 0]])
ids = [2, 0]
y_TD = E_VD[ids] + P_PD[: len(ids)]
mean_T1, variance_T1 = y_TD.mean(axis=1, keepdims=True), y_TD.var(axis=1, keepdims=True)
x_TD = (y_TD - mean_T1) / np.sqrt(variance_T1 + 1e-5)
for t, row in enumerate(y_TD):
    where = f"place {t}: {E_VD[ids[t]]} + {P_PD[t]} = {row}"
    print(f"{where}, mean {mean_T1[t, 0]}, variance {variance_T1[t, 0]} -> {x_TD[t].round(7)}")

# %% [markdown]
# Place 0 holds token 2: (2, 2) + (0, 2) = (2, 4). The mean is 3, the distances from it are -1 and 1, the mean of their
# squares is 1. So the result is nearly (-1, 1), a little less for the 10⁻⁵, which is there so that nothing is ever
# divided by zero.
#
# ## The code
#
# Fetching rows, then adding and normalising. `add_and_norm` is what closes every step of a layer, too; [chapter
# 6](06_a_layer.md) has more of it.

# %%
source("led_ref.model.ops:embed_tokens")

# %%
source("led_ref.model.ops:add_positions")

# %% [markdown]
# Some models multiply E with √D first. LED does not. Some count the places of padding, or none of them; LED counts all
# places from the first token on, whatever the mask says.
#
# ## A picture: what the table of tokens knows
#
# The model got no list of tokens that are alike. It learned rows that make its predictions good, and tokens that are used
# alike came to have rows that point the same way. The cosine says how much two rows do: 1 the same direction, 0 nothing
# in common.

# %% alt="For four tokens, the six tokens whose rows point most nearly the same way, with their cosines as bars"
rows_VD = params.shared - params.shared.mean(axis=0)
rows_VD = rows_VD / np.linalg.norm(rows_VD, axis=1, keepdims=True)
asked = [" file", " read", " error", " directory"]
figure, all_axes = plt.subplots(1, 4, figsize=(9, 2.4))
for axes, word in zip(all_axes, asked, strict=True):
    (i,) = led.tokenizer(word, add_special_tokens=False)["input_ids"]
    cosines_V = rows_VD @ rows_VD[i]
    best = [j for j in np.argsort(-cosines_V) if j != i][:6]
    axes.barh(range(6), cosines_V[best], color=BAND, alpha=0.5)
    for y, j in enumerate(best):
        axes.text(0.01, y, repr(led.tokenizer.decode([j])), va="center", fontsize=8)
    axes.set(
        title=repr(word),
        xlim=(0, 1),
        ylim=(5.6, -0.6),
        xticks=(0, 0.5, 1),
        xticklabels=("0", "0.5", "1"),
        yticks=[],
        xlabel="cosine",
    )
plt.show()

# %% [markdown]
# And the table of places. Its rows were learned as well. They began as sines and cosines of the place, slow and fast ones, as
# in the paper that Transformers come from. Here is how much the row of place 200 has in common with those around it, and
# with all places of a page:

# %% alt="The cosine of the position row 200 with the rows 0 to 1023: 1 at 200 itself, and how it is elsewhere"
places_PD = params.encoder.embed_positions[:1024]
places_PD = places_PD - places_PD.mean(axis=0)
places_PD = places_PD / np.linalg.norm(places_PD, axis=1, keepdims=True)
cosines_P = places_PD @ places_PD[200]
figure, axes = plt.subplots(figsize=(8, 2.4))
axes.plot(cosines_P, color=BAND, linewidth=0.8)
axes.axvline(200, linestyle=":", color=QUIET)
axes.set(xlabel="place", ylabel="cosine with place 200")
plt.show()
beside = cosines_P[[199, 201]].mean()
print(f"beside it: {beside:.2f}; on average over all other places: {np.delete(cosines_P, 200).mean():.2f}")
all_PP = places_PD @ places_PD.T
for apart in (1, 3, 5, 8, 12, 20):
    print(f"two places {apart:2} apart, on average over all: {np.diagonal(all_PP, apart).mean():.2f}")

# %% [markdown]
# Near places have more in common than far ones, but only a dozen places wide: a short ruler. BART's and LED's tables began as
# random numbers, with no likeness between neighbours: labels. That one place lies near another then has to be found out by
# the layers that come.

# %% [markdown]
# ## Without positions, order is nothing
#
# Attention by itself does not know places: it compares vectors, wherever they stand. Take the positions away, and a
# sentence and the same words in another order would be the same set of vectors. Here is the bundled model's embedding
# of both:

# %%
there = embed_tokens(
    np.array([led.tokenizer(" dog bites man", add_special_tokens=False)["input_ids"]]), params.shared, backend
)[0]
back = there[::-1]
print("the same vectors, sorted, without positions:", np.array_equal(np.sort(there, axis=0), np.sort(back, axis=0)))
places = params.encoder.embed_positions[: len(there)]
print("with positions:", np.array_equal(np.sort(there + places, axis=0), np.sort(back + places, axis=0)))

# %% [markdown]
# ## What goes wrong: positions that begin at 2
#
# BART, which LED was made from, keeps two rows in front of its table that it never uses, and so begins with row 2. Who
# takes BART's code for LED takes that along. It is a [mutant](../mutation_testing.md) here, `positions-plus-two`. This
# is what it does to the first 300 tokens of the manual page, after the embedding and after the encoder:

# %% alt="Two curves over the tokens: how far each state is from the right one, after the embedding and after the encoder"
from unittest import mock

ids_BT = np.array([led.encode(manual_page())[:300]])
right = led.model.encoder(ids_BT, output_hidden_states=True).hidden_states
bug = planted("positions-plus-two")
with mock.patch("led_ref.model.encoder.add_positions", bug.add_positions):
    wrong = led.model.encoder(ids_BT, output_hidden_states=True).hidden_states

figure, axes = plt.subplots(figsize=(8, 2.8))
for layer, strength in ((-1, 0.4), (0, 1)):
    off_T = np.linalg.norm(wrong[layer][0] - right[layer][0], axis=1) / np.linalg.norm(right[layer][0], axis=1)
    name = "after the embedding" if layer == 0 else "after the encoder"
    axes.plot(off_T, color=WRONG, alpha=strength, label=name, linewidth=1)
    print(f"{name}: off by {off_T.mean():.0%} of a state's length on average")
axes.set(xlabel="token", ylabel="how far off", ylim=(0, None))
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
plt.show()

# %% [markdown]
# All tokens moved two places: every state is wrong, and none looks wrong. There are still rows for all of them, so
# nothing fails, up to the last two places of the longest document.
#
# ## Exercises
#
# 1. `led-ref exercise 3` hands out this chapter's formula to write, with checks.
# 2. By hand: the text 0, 2 with the tables above. Does x for token 2 stay the same? Should it?
# 3. What does LayerNorm make of a row whose numbers are all equal?
# 4. LED has places for 16,384 tokens; its tables began as 16 copies of BART's 1,024. What would the second picture look like
#    for those?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** y is (1, 0) + (0, 2) = (1, 2) and (2, 2) + (1, 0) = (3, 2). So token 2 becomes nearly (1, -1); at place 0 it
# was (-1, 1). It should change: the sum says what the token is and where it stands.
#
# **3.** All distances from the mean are 0, so b is left: zeros, if b is 0.
#
# **4.** A cosine of 1 at place 200, and again at 200 + 1,024, 200 + 2,048 and so on: 16 times in all.
#
# </details>
