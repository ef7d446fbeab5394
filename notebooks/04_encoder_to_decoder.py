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
# # Encoder to decoder, and the KV cache
#
# The encoder has read the document: it leaves one vector for each token. The decoder writes one token after the other. For
# each it looks **back** at the generated prefix (self-attention), and **across** at the encoder's vectors (cross-attention);
# then it gives a score to every token of the vocabulary, and the best one is written.
#
# This notebook takes one such step apart, shows where in the document each written word looks, and then saves work: nearly
# all of a step was computed in the step before, and a KV cache keeps it.

# %%
import math
import time
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, QUIET, WRONG, shares
from matplotlib.colors import LogNorm

import led_ref

led = led_ref.load(dtype="float64")
model, tokenizer = led.model, led.tokenizer
page = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
ids = led.encode(page)
T = len(ids)
first = [[1] + [0] * (T - 1)]

read = model.encoder([ids], global_attention_mask=first)
e_TD = read.last_hidden_state[0]
print(f"the encoder gives {e_TD.shape[0]} vectors of {e_TD.shape[1]} numbers")

# %% [markdown]
# ## Writing, the plain way
#
# The target begins with `</s>` (id 2); LED was trained like that. Each round runs the decoder over everything written so
# far, and takes the best token of the last position. This is **greedy search**.

# %%
STEPS = 14
written = [model.config.decoder_start_token_id]
for _ in range(STEPS):
    out = model(encoder_outputs=read, decoder_input_ids=[written], use_cache=False)
    written.append(int(out.logits[0, -1].argmax()))
    if written[-1] == model.config.eos_token_id:
        break
print(" | ".join(tokenizer.decode([i]) for i in written))

# %% [markdown]
# ## Where each word looks
#
# In cross-attention the queries come from the text that is written, and the keys and values from the document:
#
# ```text
# out(u)  =  Σ softmax(q(u) · k(t) / √K) v(t)      q from the target,  k and v from the encoder, over all t
# ```
#
# There is no window here: a few queries against all T tokens are cheap. The picture has a row for each position; what it
# wrote next stands at the left. The columns are groups of eight tokens of the document.

# %% alt="A row for each written token over the document's tokens: most weight lies on a few places, others for each row"
out = model(encoder_outputs=read, decoder_input_ids=[written], output_attentions=True)
cross_HUT = out.cross_attentions[1][0]  # the last layer
rows_UT = cross_HUT.mean(axis=0)[:-1]
GROUP = 8
padded = np.pad(rows_UT, ((0, 0), (0, -T % GROUP)))
grouped = padded.reshape(len(rows_UT), -1, GROUP).sum(axis=-1)

figure, axes = plt.subplots(figsize=(9, 0.32 * len(rows_UT) + 1))
scale = {"norm": LogNorm(1e-3, 1), "cmap": shares(), "interpolation": "nearest"}
image = axes.imshow(grouped, aspect="auto", extent=(0, T, len(rows_UT), 0), **scale)
axes.set(yticks=np.arange(len(rows_UT)) + 0.5, yticklabels=[repr(tokenizer.decode([i])) for i in written[1:]])
axes.set(xlabel="token of the document", title="cross-attention of layer 2, mean of its heads")
figure.colorbar(image, label="share")
plt.show()

for u in range(min(5, len(rows_UT))):
    best = np.argsort(-rows_UT[u])[:4]
    most = ", ".join(f"{tokenizer.decode([ids[t]]).strip() or '↵'!r} {rows_UT[u, t]:.2f}" for t in best)
    print(f"writing {tokenizer.decode([written[u + 1]])!r:12} it looked most at {most}")

# %% [markdown]
# To write the page's name the model copies: it looks at that name in the document, piece by piece. The words after it come
# from less certain places, and the line is not a good one ([the card](../bundled_model.md) says what to expect).
#
# ## The same attention by hand
#
# One head's worth of arithmetic for all heads, for layer 1, from the weights. The decoder's second sublayer reads what the
# first one left; a trace has it under its checkpoint name.

# %%
trace = led_ref.trace(model, encoder_outputs=read, decoder_input_ids=[written])
name = "led.decoder.layers.0.encoder_attn"
weights = model.params.decoder.layers[0].encoder_attn
H = model.config.decoder_attention_heads
K = e_TD.shape[1] // H


def heads_of(x_XD, linear):
    """A linear map, cut into heads: (X, D) -> (H, X, K)."""
    return (x_XD @ linear.weight.T + linear.bias).reshape(len(x_XD), H, K).swapaxes(0, 1)


x_UD = trace["led.decoder.layers.0.self_attn_layer_norm.output"][0]
scores_HUT = heads_of(x_UD, weights.q_proj) @ heads_of(e_TD, weights.k_proj).swapaxes(-1, -2) / math.sqrt(K)
probs_HUT = np.exp(scores_HUT - scores_HUT.max(axis=-1, keepdims=True))
probs_HUT /= probs_HUT.sum(axis=-1, keepdims=True)
difference = abs(probs_HUT - trace[f"{name}.probs"][0]).max()
print(f"by hand against the model: at most {difference:.1e} apart")
assert difference < 1e-13

# %% [markdown]
# ## What was computed again and again
#
# The plain way ran 1 position in its first round, 2 in its second, and so on. But position u sees itself and those before it,
# never those after it. So what was computed for it does not change when more is written. Two things are worth keeping:
#
# - keys and values of **the document**: made once from the encoder's vectors, the same in every step;
# - keys and values of **what is written**: one more entry in each step.
#
# `past_key_values` holds both. With it a step runs a single position, the new one.

# %%
logits_UV, cache = [], None
for i in written:
    step = model(encoder_outputs=None if cache else read, decoder_input_ids=[[i]], past_key_values=cache)
    cache = step.past_key_values
    logits_UV.append(step.logits[0, -1])

apart = abs(np.array(logits_UV) - out.logits[0]).max()
U = len(written)
print(f"positions run: {U * (U + 1) // 2} without the cache, {U} with it")
print(f"logits of all {U} positions, with and without: at most {apart:.1e} apart")
assert apart < 1e-11

# %% [markdown]
# The saving grows with the text. Time for one more token, measured on the machine that built this page, in float32:

# %% alt="Milliseconds for a step against tokens of the prefix: without a cache it rises, with one it stays flat and low"
fast = led_ref.load().model
states = fast.encoder([ids], global_attention_mask=first)
lengths = [1, 28, 56, 84, 112]
text = (written * 16)[: max(lengths) + 1]
pasts = {n: fast(encoder_outputs=states, decoder_input_ids=[text[:n]]).past_key_values for n in lengths}


def again(n):
    """One more token, from nothing."""
    fast(encoder_outputs=states, decoder_input_ids=[text[: n + 1]], use_cache=False)


def goes_on(n):
    """One more token, from the cache."""
    fast(decoder_input_ids=[[text[n]]], past_key_values=pasts[n])


def milliseconds(work, n):
    """How long it takes once."""
    started = time.perf_counter()
    work(n)
    return 1000 * (time.perf_counter() - started)


def fastest(work):
    """Of 12 rounds, or as many as fit into two seconds: what else the machine does makes a run slower, never faster."""
    rounds = []
    while len(rounds) < 12 and np.sum(rounds) < 2000:
        rounds.append([milliseconds(work, n) for n in lengths])
    return np.min(rounds, axis=0)


plain, cached = fastest(again), fastest(goes_on)
figure, axes = plt.subplots(figsize=(8, 3.2))
axes.plot(lengths, plain, "o-", color=QUIET, label="everything again")
axes.plot(lengths, cached, "o-", color=BAND, label="with the cache")
axes.set(xlabel="tokens of the generated prefix", ylabel="ms for one more", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# A good part of the upper curve is there from the start: without the cache the document's keys and values are made anew in
# every step, 2 × 2 layers × T rows of them.
#
# ## What it holds
#
# The document's share grows with the document, the text's share with the text. In beam search four texts grow beside each
# other, but they belong to one document, so led_ref keeps its keys and values once. For led-base's sizes:

# %%
print("document tokens   kept once   a copy for each of 4 beams")
for tokens in (1024, 4096, 16384):
    numbers = 2 * 6 * tokens * 768  # keys and values of 6 layers, D = 768
    print(f"{tokens:15,} {4 * numbers / 1e6:8,.0f} MB {4 * 4 * numbers / 1e6:19,.0f} MB")

# %% [markdown]
# When a beam is dropped and another one is continued twice, the cache must follow: row n goes on from what row `parents[n]`
# wrote. No key is moved for that. A table says which slots of the buffer belong to which row, and its rows are exchanged.

# %%
from led_ref.model.kv_cache import CachePlan

three = model.led.source_memory(read, CachePlan(3))
print("slots of three hypotheses before a word:        ", three.slots_BWS.tolist())
three = three.grown(three.layers, new=1)
print("after one word each:                            ", three.slots_BWS.tolist())
three = three.reorder(np.array([2, 2, 0])).grown(three.layers, new=1)
print("rows go on from 2, 2 and 0, one more word each: ", three.slots_BWS.tolist())

# %% [markdown]
# Both of the first two hypotheses go on from slot 2; slot 1 belongs to none any more.
#
# ## What a mistake looks like
#
# The decoder adds a position to each token. With a cache a step sees only one token, and it is easy to give it position 0
# each time. This cell makes that mistake, for as long as it runs:

# %%
from led_ref.model import decoder as decoder_file

right = decoder_file.add_positions


def always_from_zero(*arguments, first=0, **others):
    """As add_positions, but it forgets the length of the prefix."""
    return right(*arguments, first=0, **others)


def write_greedily():
    """What `generate` writes with one beam."""
    (row,) = model.generate(encoder_outputs=read, num_beams=1, max_new_tokens=STEPS, no_repeat_ngram_size=0)
    return " | ".join(tokenizer.decode([i]) for i in row)


print("right:", write_greedily())
with patch.object(decoder_file, "add_positions", always_from_zero):
    print("wrong:", write_greedily())
    wrong, cache = [], None
    for i in written:
        step = model(encoder_outputs=None if cache else read, decoder_input_ids=[[i]], past_key_values=cache)
        cache = step.past_key_values
        wrong.append(step.logits[0, -1])

# %% alt="Difference of the logits by position: rounding for the right cache; for the wrong one large from position 1 on"
figure, axes = plt.subplots(figsize=(8, 3))
for logits, label, colour in ((logits_UV, "the cache", BAND), (wrong, "positions from 0", WRONG)):
    by_position = abs(np.array(logits) - out.logits[0]).max(axis=-1)
    axes.semilogy(np.maximum(by_position, 1e-16), "o-", color=colour, label=label)
axes.set(xlabel="position", ylabel="largest difference", title="logits, step by step against all at once")
axes.legend()
plt.show()

# %% [markdown]
# The first step is right, because position 0 is right there. That is why a test of a cache needs more than one step, and
# why "cached equals uncached" is asked of every model in led_ref's tests.
#
# ## To try
#
# 1. `model.generate(..., cross_attention="folded")` keeps neither keys nor values of the document, just the encoder's
#    vectors. Does it write the same? What does it cost, and when is it worth it? (`led_ref/model/folding.py`)
# 2. Give the decoder two tokens at a time with `past_key_values`. What must the mask between these two look like?
# 3. In the picture of the words, look at single heads (`cross_HUT[0]`, ...). Is one of them copying?
