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
# **The question.** Through a window a token sees its neighbours only. Who keeps the whole document in view?
#
# A few tokens, chosen beforehand, are exempt from the window. A **global** token looks at every token, and every token
# looks at it. It is a noticeboard: what it reads anywhere, everybody can read from it one layer later. For summaries
# LED makes one token global, the first, `<s>`. For questions about a document all tokens of the question would be.
#
# $$
# \text{seen}(i) = \begin{cases}
# \text{everything} & i \text{ global} \\
# \{\, j : |i - j| \le R \,\} \cup \{\, j \text{ global} \,\} & i \text{ local}
# \end{cases}
# $$
#
# A local token's shares are one softmax over both, neighbours and global tokens. A token that is global and near is
# seen once.

# %%
import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET, WRONG, bundled, manual_page, planted, source

import led_ref
from led_ref.oracle import who_sees_whom

led = bundled()
params, backend = led.model.params, led.model.backend

# %% [markdown]
# ## By hand
#
# Nine tokens, R = 1, tokens 0 and 5 global. First the small function that says who sees whom. It is the **oracle**'s:
# led_ref's second program for LED ([chapter 0](00_all_of_led.md)), which is written as the definition says and judges the
# fast one.

# %%
source("led_ref.oracle.definition.model:who_sees_whom")

# %% alt="A 9 by 9 table: a band along the diagonal; then row and column 0, and row and column 5, are filled in another colour"
from book_steps import Steps

LOCAL_TOKEN, GLOBAL_TOKEN = 1, 2
kinds_T = np.array([GLOBAL_TOKEN if t in {0, 5} else LOCAL_TOKEN for t in range(9)])
may_look_TT = who_sees_whom(kinds_T, radius=1)
is_global_T = kinds_T == GLOBAL_TOKEN

cell, corner = 30, 52
drawing = Steps(360, 366, count=5)
drawing.text(corner + 4.5 * cell, 14, "key j")
drawing.text(16, corner + 4.5 * cell, "query i", turn=-90)
for i in range(9):
    drawing.text(corner - 10, corner + cell * i + 19, i, bold=bool(is_global_T[i]))
    drawing.text(corner + cell * i + 15, corner - 8, i, bold=bool(is_global_T[i]))
    for j in range(9):
        drawing.box(corner + cell * j, corner + cell * i, cell, cell, QUIET, line=0.5)
        if may_look_TT[i, j]:
            step, color = 1, BAND
            if is_global_T[i] or is_global_T[j]:  # a row first, then the column
                step, color = min((4 if t else 2) + (t != i) for t in (i, j) if is_global_T[t]), GLOBAL
                if abs(i - j) <= 1:  # until then a neighbour like any other
                    drawing.box(corner + cell * j, corner + cell * i, cell, cell, BAND, opacity=0.45, at=(1, step - 1))
            drawing.box(corner + cell * j, corner + cell * i, cell, cell, color, opacity=0.45, at=step)
says = ["local tokens: a window", "0 is global: it sees all tokens", "0 is global: all tokens see it"]
says += ["5 is global: it sees all tokens", "5 is global: all tokens see it"]
for step, words in enumerate(says, 1):
    drawing.text(corner + 4.5 * cell, corner + 9 * cell + 24, words, size=13, at=(step, step))
drawing.show()
print("tokens that each one sees:", may_look_TT.sum(axis=1))

# %% [markdown]
# Row 3 is local: it sees 2, 3 and 4 through the window, and 0 and 5. Row 4 sees 5 as a neighbour and as a global token,
# but counts it once: 3, 4, 5 and 0. Rows 0 and 5 see all nine.
#
# With G global tokens a document has about $T(2R + 1) + 2GT$ such cells. As long as G is small this still grows with T.
#
# ## Two sets of weights
#
# A neighbour and a noticeboard are looked at for different reasons. So a layer has six projections where there were
# three: queries, keys and values for the window, and queries, keys and values for the rows of global tokens. A
# **local** token always uses the first three, also when it looks at a global token. A **global** token uses the second
# three, for itself and for everything that it looks at.

# %%
source("led_ref.model.global_attention:global_attention")

# %% [markdown]
# There are two ways to the same numbers. Keys and values for all T tokens, in a second set, cost $2TD^2$
# multiplications, and that for one row. With few global tokens one can move the matrix to the other side of the dot
# product:
#
# $$ q \cdot (W_k\, x_j) = (q\, W_k) \cdot x_j $$
#
# The left side multiplies every token with a matrix. The right side does that once, with the query. With numbers, $W_k
# = (1\ \ 3)$, $q = 0.5$ and two tokens (1, 0) and (0, 2):

# %%
x_TD, w_KD, q_K = np.array([[1.0, 0], [0, 2]]), np.array([[1.0, 3]]), np.array([0.5])
print("keys", (x_TD @ w_KD.T).ravel(), " scores", (x_TD @ w_KD.T @ q_K))
print("folded query", q_K @ w_KD, " scores", x_TD @ (q_K @ w_KD))

# %% [markdown]
# Moving a matrix to the query's side is called **folding** in led_ref. The code does it in a file of its own. A key's bias
# would add the same to all scores of a row, which softmax does not notice, so it is left out:

# %%
source("led_ref.model.folding:folded_scores")

# %% [markdown]
# ## A picture: what `<s>` reads
#
# The manual page, through the bundled model. In its first layer, each of the six heads of the global token `<s>`
# has one unit of attention to give to the tokens of the page. Each gives nearly all of it to a single one:

# %% alt="Six strips, one for each head: how much attention the global token gives to each token of the page"
ids_BT = np.array([led.encode(manual_page())])
T = ids_BT.shape[1]
first = np.zeros_like(ids_BT)
first[0, 0] = 1
read = led.model.encoder(ids_BT, global_attention_mask=first, output_attentions=True)
shares_HT = read.global_attentions[0][0, :, :, 0]
figure, all_axes = plt.subplots(len(shares_HT), 1, figsize=(8, 6), sharex=True)
for head, (axes, shares_T) in enumerate(zip(all_axes, shares_HT, strict=True), 1):
    axes.fill_between(range(T), shares_T, color=GLOBAL, linewidth=0.6)
    best = int(shares_T.argmax())
    word = led.tokenizer.decode([ids_BT[0, best]])
    axes.annotate(
        f"{word!r} {shares_T[best]:.2f}", (best, shares_T[best]), fontsize=8, xytext=(4, -6), textcoords="offset points"
    )
    axes.set(ylabel=f"head {head}", ylim=(0, None), xlim=(0, T))
all_axes[-1].set(xlabel="token")
plt.show()

# %% [markdown]
# And the other direction: how much of its attention does each local token give to `<s>`? The model's R is 64. So a token
# sees 129 tokens through its window, and `<s>`: an even share would be 1/130.

# %% alt="For each layer, the share that each local token gives the global one, averaged over heads, with the even share"
figure, axes = plt.subplots(figsize=(8, 2.6))
for layer, strength in ((0, 0.3), (1, 0.6), (2, 1)):
    to_global_T = read.attentions[layer][0, :, 1:, 0].mean(axis=0)
    axes.plot(range(1, T), to_global_T, color=GLOBAL, alpha=strength, linewidth=1, label=f"layer {layer + 1}")
    print(f"layer {layer + 1}: {to_global_T.mean():.3f} on average, even would be {1 / 130:.3f}")
axes.axhline(1 / 130, color=QUIET, linewidth=0.8)
axes.set(xlabel="token", ylabel="share for <s>", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# ## What goes wrong: the global mask gets lost
#
# This has happened to many: a program takes the mask, and does not hand it on. For more than a year the generation of
# the best-known library did ([transformers, pull request
# 17112](https://github.com/huggingface/transformers/pull/17112)). A [mutant](../mutation_testing.md) does half of it:
# with `global-column-dropped`, local tokens do not see the global ones. Here is how far the encoder's states move in
# both cases:

# %% alt="Two curves over the tokens, how far each state moves without any global token, and without the global column"
from unittest import mock

right_TD = read.last_hidden_state[0]
lost_TD = led.model.encoder(ids_BT).last_hidden_state[0]
bug = planted("global-column-dropped")
with mock.patch("led_ref.model.encoder.sliding_window_attention", bug.sliding_window_attention):
    dropped_TD = led.model.encoder(ids_BT, global_attention_mask=first).last_hidden_state[0]

figure, axes = plt.subplots(figsize=(8, 2.8))
for name, wrong_TD, color in (("no global token", lost_TD, WRONG), ("column dropped", dropped_TD, GLOBAL)):
    off_T = np.linalg.norm(wrong_TD - right_TD, axis=1) / np.linalg.norm(right_TD, axis=1)
    axes.semilogy(off_T, color=color, alpha=0.8, linewidth=1, label=name)
    print(f"{name}: states are off by {off_T.mean():.1%} of their length on average, at worst by {off_T.max():.0%}")
axes.set(xlabel="token", ylabel="how far off", ylim=(1e-4, 10))
axes.legend()
plt.show()

# %%
for way in ("first", "none"):
    print(f"{way:6}", led_ref.generate(manual_page(), global_attention=way))

# %% [markdown]
# Nothing fails. The state of `<s>` itself is quite another; most of the others move by a per cent or so, because this small
# model leans little on its global token. The text gets two words more, and nobody who sees it alone would suspect a
# mistake; nor does one know what the next document loses, or the next model. So in led_ref the first token is global unless
# you say otherwise, and a test holds that `generate` hands the mask on.
#
# ## Exercises
#
# 1. `led-ref exercise 5` hands out the table of who sees whom to write, padding included, with checks.
# 2. How many cells does the table above have filled? Find the formula for any T, R and G, when no global token lies in
#    another's window.
# 3. Make every token global. Which attention is that, and with which of the two sets of weights?
# 4. Folding costs $2GHTD$ multiplications for G global tokens, projecting $2TD^2$. For which G is folding the cheaper way? The
#    file `led_ref/model/global_attention.py` has the rule.
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** The band has $T(2R + 1) - R(R + 1)$ cells. G rows and G columns have $2GT - G^2$. A global token that has c
# keys in its window, itself counted, is in both with 2c - 1 cells; take these away once for each global token. Above: 25 +
# 32, less 3 for token 0 (c = 2) and 5 for token 5 (c = 3): 49.
#
# **3.** Full attention, of every token with every token, by the global set of weights (`query_global`, `key_global`,
# `value_global`).
#
# **4.** Where G H < D, so for fewer than D / H = K global tokens: 64 in led-base.
#
# </details>
