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
# # A layer
#
# **The question.** Attention lets tokens exchange what they know. What else happens in a layer, and how do the parts
# fit together?
#
# Two things happen to every token. It takes from others (attention), then it works on what it has (the
# **feed-forward**). After each of the two the result is added to what was there before, and brought to a common size:
#
# $$
# \begin{aligned}
# x &\leftarrow \operatorname{LayerNorm}\big(x + \text{output}(\text{attention}(x))\big) \\
# x &\leftarrow \operatorname{LayerNorm}\big(x + \text{fc}_2(\operatorname{gelu}(\text{fc}_1(x)))\big)
# \end{aligned}
# $$
#
# <figure class="drawing">
# <object type="image/svg+xml" data="../../assets/layers.svg" aria-label="The layers of encoder and decoder">
# A layer of the encoder and a layer of the decoder</object>
# <figcaption>Yellow: the residual connections. The decoder's layer has a third part,
# cross-attention; <a href="../08_decoder_and_cache/">chapter 8</a> is about it.</figcaption>
# </figure>
#
# Here output, fc₁ and fc₂ are linear maps: a matrix product and a bias. fc₁ goes from D to F numbers (768 from 192 here,
# 3,072 from 768 in led-base), fc₂ back to D. Adding to what was there is called a **residual connection**: a layer
# makes a change, not a new vector.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET, WRONG, bundled, manual_page, planted, source

import led_ref
from led_ref.model.ops import feed_forward, linear

led = bundled()
params, backend = led.model.params, led.model.backend
layer = params.encoder.layers[0]

# %% [markdown]
# ## Heads
#
# One attention per layer would let a token look for one thing. So the D columns are cut into H shares of $K = D / H$,
# and each share, a **head**, has attention of its own. By hand: two tokens, D = 4, H = 2:

# %%
x_TD = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
x_HTK = x_TD.reshape(2, 2, 2).swapaxes(0, 1)  # (T, H, K), then (H, T, K)
print("head 1:", x_HTK[0].tolist(), " head 2:", x_HTK[1].tolist())
print("merged again:", x_HTK.swapaxes(0, 1).reshape(2, 4).tolist())

# %% [markdown]
# Head 1 has the first two columns of both tokens, head 2 the others. The results of the heads are put side by side
# again, and the map called output mixes them.
#
# ## The feed-forward
#
# It takes each token by itself. Between the two maps stands **gelu**, which lets positive numbers through and holds
# negative ones back. Without it, two linear maps in a row would be no more than one.
#
# $$ \operatorname{gelu}(x) = x\, \Phi(x), \qquad \Phi(x) = \tfrac12\Big(1 + \operatorname{erf}\frac{x}{\sqrt 2}\Big) $$
#
# $\Phi(x)$ is the share of a normal distribution that lies below x.

# %% alt="The curve of gelu: near 0 left of -3, a dip to -0.17 near -0.75, then rising to the diagonal; relu beside it"
x = np.linspace(-4, 3, 281)
gelu = np.array([each * (1 + math.erf(each / math.sqrt(2))) / 2 for each in x])
figure, axes = plt.subplots(figsize=(6, 2.8))
axes.plot(x, np.maximum(x, 0), ":", color=QUIET, label="max(x, 0)")
axes.plot(x, gelu, color=BAND, label="gelu(x)")
axes.set(xlabel="x")
axes.legend()
plt.show()
assert abs(backend.gelu(x.copy()) - gelu).max() < 1e-12
print("gelu of -1, 0, 1:", backend.gelu(np.array([-1.0, 0, 1])).round(4))

# %% [markdown]
# By hand: $\Phi(1) = 0.8413$, so gelu(1) = 0.8413, and gelu(-1) = -1 · (1 - 0.8413) = -0.1587.
#
# ## The code
#
# The layer:

# %%
source("led_ref.model.encoder:encoder_layer")

# %% [markdown]
# its attention, in which you will find the last two chapters:

# %%
source("led_ref.model.encoder:longformer_self_attention")

# %% [markdown]
# its feed-forward, in blocks of rows, so that the F numbers of all tokens are never there at once (at 16,384 tokens of
# led-base they would be 192 MiB):

# %%
source("led_ref.model.ops:feed_forward")

# %% [markdown]
# and what closes both halves:

# %%
source("led_ref.model.ops:add_and_norm")

# %% [markdown]
# ## One token's way through
#
# `led_ref.trace` runs the model and keeps every intermediate, with its equation. This is layer 1 of the bundled model,
# reading one line (long equations are cut here; [the whole list](../traces.md) has them):

# %%
trace = led_ref.trace(led.model.encoder, [led.encode("Pack files with tar.")], only="led.encoder.layers.0.*")
for name, step in trace.steps.items():
    short = name.removeprefix("led.encoder.layers.0.").removeprefix("self_attn.longformer_")
    print(f"{short:32} {step.letters:12} {step.value.shape!s:16} {step.equation[:48]}")

# %% [markdown]
# Check the last steps yourself, from the numbers before them:

# %%
x_BTD = trace["led.encoder.layers.0.self_attn_layer_norm.output"]
hidden_BTF = linear(x_BTD, layer.fc1, backend)
update_BTD = linear(backend.gelu(hidden_BTF), layer.fc2, backend)
y_BTD = x_BTD + update_BTD
centred_BTD = y_BTD - y_BTD.mean(axis=-1, keepdims=True)
deviation_BT1 = np.sqrt((centred_BTD**2).mean(axis=-1, keepdims=True) + 1e-5)
norm = layer.final_layer_norm
by_hand_BTD = centred_BTD / deviation_BT1 * norm.weight + norm.bias
apart = abs(by_hand_BTD - trace["led.encoder.layers.0.final_layer_norm.output"]).max()
print(f"at most {apart:.1e} apart")
assert np.allclose(update_BTD, feed_forward(x_BTD, layer, backend), atol=1e-12)

# %% [markdown]
# ## A picture: how much each half changes
#
# For every token of the manual page: the length of what each half adds, in proportion to the length of what it is added
# to.

# %% alt="Histograms for each layer: how large the change by attention and by the feed-forward is, in proportion"
page_ids = led.encode(manual_page())
steps = led_ref.trace(led.model.encoder, [page_ids])


def change(layer_number, update, before):
    """Length of the update over the length of what it is added to, of each token."""
    at = f"led.encoder.layers.{layer_number}"
    start = steps[
        "led.encoder.layernorm_embedding.output"
        if layer_number == 0
        else f"led.encoder.layers.{layer_number - 1}.final_layer_norm.output"
    ]
    base = start if before == "start" else steps[f"{at}.self_attn_layer_norm.output"]
    return (np.linalg.norm(steps[f"{at}.{update}"], axis=-1) / np.linalg.norm(base, axis=-1)).ravel()


figure, all_axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for number, axes in enumerate(all_axes):
    parts = {
        "attention": (change(number, "self_attn.output.output", "start"), BAND),
        "feed-forward": (change(number, "fc2.output", "middle"), GLOBAL),
    }
    for name, (shares_T, color) in parts.items():
        axes.hist(shares_T, bins=np.geomspace(0.1, 100, 50), color=color, alpha=0.6, label=name)
        print(f"layer {number + 1}, {name}: {np.median(shares_T):.2f} (the median)")
    axes.set(title=f"layer {number + 1}", xlabel="length of the change / length of x", xscale="log")
    axes.legend()
all_axes[0].set(ylabel="tokens")
plt.show()

# %% [markdown]
# In the first layer attention changes a token by about twice its length: there each token fetches what stands beside it, and
# the norm brings the sum back to size. After that each half changes a token by a fraction of its length.
#
# ## What goes wrong: the norm in another place
#
# Many models, GPT-2 among them, normalise before each half and add afterwards ("pre-norm"). LED does as BART: it adds,
# then normalises ("post-norm"). The [mutant](../mutation_testing.md) `pre-norm` takes the sum out of the norm. Every
# function still fits every other one:

# %% alt="The lengths of all states after each step, for the right model about constant, for the mutant growing"
from unittest import mock

from led_ref.model import encoder, ops

right = led.model.encoder([page_ids], output_hidden_states=True).hidden_states
bug = planted("pre-norm")
with (
    mock.patch.object(encoder, "add_and_norm", bug.add_and_norm),
    mock.patch.object(ops, "add_and_norm", bug.add_and_norm),
):
    wrong = led.model.encoder([page_ids], output_hidden_states=True).hidden_states

figure, axes = plt.subplots(figsize=(7, 2.8))
for name, states, color in (("LED", right, BAND), ("norm before the sum", wrong, WRONG)):
    lengths = [np.linalg.norm(state, axis=-1).ravel() for state in states]
    axes.errorbar(
        range(len(states)),
        [row.mean() for row in lengths],
        [row.std() for row in lengths],
        color=color,
        capsize=3,
        label=name,
    )
    print(f"{name}: " + ", ".join(f"{row.mean():.1f}" for row in lengths))
axes.set(ylabel="length of a state, and its spread", ylim=(0, None))
axes.set_xticks(range(len(right)), ["embedding", *(f"layer {n}" for n in range(1, len(right)))])
axes.legend()
plt.show()

# %% [markdown]
# The shapes are right and nothing is infinite, and every number is wrong. What finds such a mistake is a comparison of
# each step with somebody else's: `led-ref diff` names the first one that differs. The page on [traces](../traces.md)
# shows how.
#
# ## Exercises
#
# 1. `led-ref exercise 6` hands out the second half of a layer to write, with checks.
# 2. How many numbers does one encoder layer of led-base have (D = 768, F = 3072)? Remember the global projections, the biases
#    and the norms. `led-ref inspect` counts for the bundled model.
# 3. Leave gelu out. Which single matrix does the same as fc₁ and fc₂ then?
# 4. What does a layer do to a token if all its weights and biases are 0, but those of the norms are as they are?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** Query, key, value, those three again for global tokens, and output: 7 (768² + 768) = 4,134,144. fc₁ has 768 ·
# 3,072 + 3,072 = 2,362,368, fc₂ 3,072 · 768 + 768 = 2,360,064, the two norms 4 · 768 = 3,072. Together 8,859,648.
#
# **3.** $W_2 W_1$, a matrix of D × D, with the bias $W_2 b_1 + b_2$. The F columns in between would be for nothing.
#
# **4.** Both updates are 0, so x goes through the two LayerNorms and nothing else.
#
# </details>
