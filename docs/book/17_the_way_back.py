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
# # The way back
#
# **The question.** A model has millions of weights and one loss. Which way, and how much, should each weight move so that the
# loss falls?
#
# The **gradient** says it: one number for each weight, how fast the loss rises with that weight. A second question makes it
# computable: how fast does the loss rise with each *intermediate*? If that is known behind an operation, a few lines give
# it in front of the operation. So one walks through the model backwards, operation after operation. This is the **backward
# pass**. led_ref writes it by hand, each function below its forward, in the same file.
#
# `dx` is the gradient of the loss with respect to `x`, and has its shape.
#
# The bundled model reads the page's first 80 tokens. The loss is of one word of the target alone, and its gradient flows back.
# The stronger a colour, the longer the gradient of that state (yellow: the global token):

# %% alt="Row by row the gradient goes back from one word: to the words before it, then to all tokens of the page"
import numpy as np
from book_steps import Steps
from book_tools import BAND, GLOBAL, bundled, manual_page

import led_ref

led, line = bundled(), "summarize long documents, on the command line"
page_ids, target = led.encode(manual_page())[:80], led.tokenizer(line)["input_ids"]
asked = 6  # the loss of this word alone; the others are masked
labels = [token if u == asked else -100 for u, token in enumerate(target)]
first = [[1] + [0] * (len(page_ids) - 1)]
back = led_ref.trace(led.model, [page_ids], global_attention_mask=first, labels=[labels], gradients=True)
places = {
    "loss of one word": None,
    "after decoder layer 2": "led.decoder.layers.1.final_layer_norm.output",
    "after decoder layer 1": "led.decoder.layers.0.final_layer_norm.output",
    "words of the target, embedded": "led.decoder.layernorm_embedding.output",
    "encoder states": "led.encoder.layers.1.final_layer_norm.output",
    "after encoder layer 1": "led.encoder.layers.0.final_layer_norm.output",
    "tokens of the page, embedded": "led.encoder.layernorm_embedding.output",
}
drawing = Steps(360, 46 * len(places) + 6, count=len(places))
for step, (title, name) in enumerate(places.items(), 1):
    y = 46 * (step - 1) + 14
    drawing.text(0, y, title, anchor="start", at=step)
    lengths = np.eye(1, len(target), asked)[0] if name is None else np.linalg.norm(back[f"{name}.grad"][0], axis=-1)
    width = 360 / len(lengths)
    for i, length in enumerate(lengths / lengths.max()):
        color = GLOBAL if len(lengths) == len(page_ids) and i == 0 else BAND
        drawing.box(width * i, y + 5, width - 0.5, 18, opacity=0.08, at=step)
        drawing.box(width * i, y + 5, width - 0.5, 18, color, opacity=float(length) ** 0.5, at=step)
drawing.show()

# %% [markdown]
# In the decoder it reaches the word itself and those before it, through causal self-attention; none that comes later. Through
# cross-attention it reaches every token of the page, and most of all a few.

# %%
import matplotlib.pyplot as plt
from book_tools import QUIET, WRONG, source

from led_backends.numpy_backend import NumpyBackend
from led_ref.training.gradients import loss_and_gradients
from led_ref.training.parameters import trainable_copy

model, backend = trainable_copy(led.model), NumpyBackend()  # loaded weights cannot be changed, those of a copy can
rng = np.random.default_rng(0)

# %% [markdown]
# ## How to check a gradient
#
# Move one weight a little up and a little down, and look at the loss: the **central difference**
# $\big(L(w + h) - L(w - h)\big) / 2h$. It needs two whole forward passes for one weight, so nobody trains with it. But it
# shares no line with the backward pass, so it can judge it.

# %%
line = "summarize long documents, on the command line"
batch = {"input_ids": [led.encode(manual_page())[:80]], "labels": [led.tokenizer(line)["input_ids"]]}
loss, gradients = loss_and_gradients(model, batch)
weight = model.params.encoder.layers[0].fc1.weight
h, place = 1e-5, (3, 7)
kept = weight[place].item()
weight[place] = kept + h
above = float(model(**batch).loss)
weight[place] = kept - h
below = float(model(**batch).loss)
weight[place] = kept
difference = (above - below) / (2 * h)
print(f"loss {loss.mean:.4f}; gradient of one weight of fc1: {gradients.encoder.layers[0].fc1.weight[place]:.9f}")
print(f"central difference:                              {difference:.9f}")
assert abs(gradients.encoder.layers[0].fc1.weight[place] - difference) < 1e-8

# %% [markdown]
# ## A linear map
#
# $y = x W^\top + b$. A number of x takes part in every output of its row, by the weights: $dx = dy\, W$. A weight takes part
# in one output of every row: $dW = dy^\top x$, summed over all rows. The bias takes part with a factor of 1: $db = \sum dy$.

# %%
source("led_ref.model.ops:linear_backward")

# %%
x, w, dy = rng.normal(size=(5, 3)), rng.normal(size=(2, 3)), rng.normal(size=(5, 2))
dx, dw, db = backend.linear_backward(dy, x, w)
print("dx:", dx.shape, " dW:", dw.shape, " db:", db.shape)
assert np.allclose(dw, sum(np.outer(dy[row], x[row]) for row in range(5)))  # a sum of one product for each row

# %% [markdown]
# ## Softmax
#
# $p = \operatorname{softmax}(s)$. If one score rises, its probability rises and all others fall, since they add up to one:
#
# $$ ds = p \odot \Big(dp - \sum_j p_j\, dp_j\Big) $$
#
# The bracket says: what counts is how much *more* a probability is wanted than the others on average. So the gradients of a
# row of scores add up to 0, and something that is added to all scores of a row, such as what a key's bias gives, has no
# gradient at all.

# %%
scores = rng.normal(size=(1, 6))
probs = backend.softmax(scores.copy())
dscores = backend.softmax_backward(rng.normal(size=(1, 6)), probs)
print(dscores.round(3), "sum:", f"{dscores.sum():.1e}")

# %% [markdown]
# ## LayerNorm and gelu
#
# LayerNorm takes mean and length out of a row. No gradient comes back along these two directions: moving a whole row up, or
# making it longer, changes nothing behind the norm.

# %%
source("led_ref.model.ops:add_and_norm_backward")

# %% alt="The slope of gelu: 0 far left, a dip below 0 near -1.4, rising through one half at 0 to a little above 1, then 1"
x = np.linspace(-4, 4, 161)
_, slope = backend.activate_with_slope(x.copy(), "gelu")
figure, axes = plt.subplots(figsize=(6, 2.6))
axes.plot(x, slope, color=BAND, label="slope of gelu")
axes.plot(x, (x > 0).astype(float), ":", color=QUIET, label="slope of max(x, 0)")
axes.set(xlabel="x")
axes.legend()
plt.show()

# %% [markdown]
# ## The sliding window
#
# A query meets its keys in one tile, so a tile has all that its softmax needs. The backward pass computes the probabilities
# of a tile again from q and k: nothing of the T x T matrix, and no probability, is ever kept.

# %%
source("led_ref.model.sliding_window:sliding_window_attention_backward")

# %% [markdown]
# Two neighbouring tiles share keys. Each adds its part to `dk` and `dv`, in one order, so that no bit depends on the number of
# threads. Forgetting that `+` is the classic mistake: the last tile would win. Here is how much of the gradient of the keys
# it would lose:

# %% alt="Bars of how long the gradient of each key is, for the sum and for the last tile alone, which is lower"
from led_ref.model.dropout import NOTHING_DROPPED
from led_ref.model.masks import document_masks, window_blocks
from led_ref.model.sliding_window import Window, sliding_window_attention_backward

length, radius = 48, 8
(mask,) = document_masks(np.ones((1, length), int), None)
q, k, v, dout = rng.normal(size=(4, 1, length, 4))
blocks = window_blocks(mask, radius, backend, queries=8)
whole = sliding_window_attention_backward(dout[0], q, k, v, Window(mask, blocks, NOTHING_DROPPED, 0), backend)[1]
last = np.zeros_like(whole)
for block in blocks:
    part = sliding_window_attention_backward(dout[0], q, k, v, Window(mask, [block], NOTHING_DROPPED, 0), backend)[1]
    last[block.low : block.high] = part[block.low : block.high]  # "=" where "+=" belongs
figure, axes = plt.subplots(figsize=(7, 2.6))
axes.bar(range(length), np.linalg.norm(whole, axis=1), color=BAND, label="all tiles")
axes.bar(range(length), np.linalg.norm(last, axis=1), color=WRONG, width=0.4, label="the last tile alone")
axes.set(xlabel="key", ylabel="length of its gradient")
axes.legend()
plt.show()

# %% [markdown]
# ## A whole layer
#
# The layer is computed again from its input, and its intermediates live in local variables while the function goes up line by
# line. So a model keeps just the input of each layer: this is **gradient checkpointing**, one layer a checkpoint. It costs
# one more forward pass, and it is what makes 16,384 tokens fit.

# %%
source("led_ref.model.encoder:encoder_layer_backward")

# %% [markdown]
# ## How far a gradient reaches
#
# The loss is about the summary. Which words of the page would change it most? The length of the gradient of each token's
# embedding shows it, and a few of them stand out. The global token `<s>` (yellow) counts little here: this model copies
# words more than it sums up.

# %% alt="The length of the gradient at each of 80 tokens of a page, highest at a few of them, low at the first, global token"
from led_ref.model.ops import embed_tokens

ids = np.array(batch["input_ids"])
marks = np.zeros_like(ids)
marks[0, 0] = 1
embeds = embed_tokens(ids, model.params.shared, model.backend)
labels = batch["labels"]


def loss_at(embeds_BTD):
    out = model(inputs_embeds=embeds_BTD, global_attention_mask=marks, labels=labels)
    return float(out.loss)


directions = rng.normal(size=(6, embeds.shape[-1]))
slopes_T = np.zeros(ids.shape[1])
for t in range(0, ids.shape[1], 4):
    for direction in directions:
        moved = embeds.copy()
        moved[0, t] += 1e-4 * direction
        up = loss_at(moved)
        moved[0, t] -= 2e-4 * direction
        slopes_T[t] += ((up - loss_at(moved)) / 2e-4) ** 2 / len(directions)
figure, axes = plt.subplots(figsize=(7, 2.4))
axes.bar(range(0, ids.shape[1], 4), np.sqrt(slopes_T[::4]), width=3, color=[GLOBAL, *[BAND] * 19])
axes.set(xlabel="token", ylabel="slope of the loss")
plt.show()

# %% [markdown]
# ## Proven against somebody else
#
# `make peer` compares every gradient with PyTorch's autograd on transformers' LED, in float64, on 60 random configurations and
# three heads, and on 30 more with the same dropout masks on both sides. A relative difference of 1e-10 is allowed.
#
# ## Exercises
#
# 1. `led-ref exercise 17`: the gradients of attention, by hand, checked by a difference.
# 2. The key's bias has a gradient of exactly 0. Show it with a central difference.
# 3. Double all rows of `dy` of a linear map. What happens to dx, dW, db?
# 4. In the picture of the tiles, which keys lose least? Why these?
# 5. Why does the pad token's row of the embedding table get a gradient although it is never looked up?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** Take a number of that bias up and down by h: the two losses are equal to rounding. The bias adds the same
# number, q · b, to the scores of all keys, and softmax ignores what all have in common.
#
# **3.** All three double: the way back is linear in `dy`.
#
# **4.** The last ones. Key 47 is seen by the queries 39 to 47, and of these only 39 is outside of the last tile, so one
# part of nine is lost. Key 16 is seen by the queries 8 to 24, and the last tile that reaches it has just one of them, 24.
#
# **5.** The table is also the matrix of the logits. Each place of the target gives the pad token a probability, and
# the loss pushes it down.
#
# </details>
