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
# # Conform your own implementation
#
# **The question.** I wrote LED in another language, or for another machine. Is it right, and if not, where is it wrong?
#
# Three tools, from the smallest piece to the whole:
#
# 1. **Vectors**: known answers, level by level, in files that any language can read. Inputs, right
#    outputs, and the largest allowed difference. They show *whether* a port is right.
# 2. **Traces**: every intermediate of a run, by name, in a file. They show *what* should have come out.
# 3. **Diff**: compares two traces. It shows *where* they differ first, and often *why*.
#
# This chapter plays it through: a port is written, it has a bug, and the three find it.

# %%
from collections import Counter
from functools import partial
from pathlib import Path

import book_tools
import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, WRONG, bundled

import led_ref
from led_ref.oracle import diff
from led_ref.oracle.vectors.format import read_suite

led = bundled()
suite = read_suite(Path(book_tools.__file__).parent.parent / "tests" / "vectors" / "v1")
cases = {case.id: case for case in suite.cases}

# %% [markdown]
# ## The vectors
#
# One file names all cases. They are ordered in levels: who has L1 right can hope for L2.

# %% alt="Bars: how many cases each level has, from L0, the tokenizer, to L8, gradients"
levels = Counter(case.level for case in suite.cases)
figure, axes = plt.subplots(figsize=(6, 2.2))
axes.bar(list(levels), list(levels.values()), color=BAND)
axes.set(ylabel="cases", title=f"{len(cases)} known answers")
plt.show()

case = cases["L2-window-plain"]
print(case.id, "asks for:", case.operation, dict(case.arguments))
print("given:   ", {name: array.shape for name, array in case.inputs.items()})
print("wanted:  ", {name: array.shape for name, array in case.answers[0].items()})
print("allowed: ", {dtype: f"{limit:.1e}" for dtype, limit in case.tolerance["out"].items()})

# %% [markdown]
# What is allowed is derived, not fitted. A type whose numbers are rounded to $u$ of themselves may lose, in a case that
# is $\text{depth}$ steps deep (a product, a softmax, a norm) and whose answers are no larger than $\text{scale}$,
#
# $$|\text{yours} - \text{answer}| \;\le\; 8\, u \cdot \text{depth} \cdot \text{scale},
# \qquad u = 2^{-53} \text{ or } 2^{-24},$$
#
# but at least $2^{-29}$, because the answers themselves are rounded. The 8: a step adds some fifty terms, whose errors
# have no common sign, so they grow like the root of their number.

# %%
scale = 2.0 ** max(0, np.ceil(np.log2(abs(case.answers[0]["out"]).max())))
for dtype, u in (("float64", 2.0**-53), ("float32", 2.0**-24)):
    limit = max(2.0**-29, 8 * u * case.depth * scale)
    print(f"{dtype}: 8 · {u:.1e} · {case.depth} · {scale:g} = {8 * u * case.depth * scale:.1e}, so {limit:.1e}")
    assert limit == case.tolerance["out"][dtype]

# %% [markdown]
# ## By hand
#
# One case by hand is enough to see how little is asked for: read the inputs, compute, compare. This is a softmax:

# %%
softmax = cases["L1-softmax-open"]
scores, right = softmax.inputs["scores"].astype("float64"), softmax.answers[0]["y"]
row = tuple([0] * (scores.ndim - 1))
probs = np.exp(scores - scores.max(axis=-1, keepdims=True))
probs /= probs.sum(axis=-1, keepdims=True)
print("a row of scores", scores[row].round(3).tolist())
print("my softmax     ", probs[row].round(4).tolist())
print("the answer     ", right[row].round(4).tolist())
print(f"all rows: at most {abs(probs - right).max():.1e} off; {softmax.tolerance['y']['float64']:.1e} is allowed")

# %% [markdown]
# ## A port with a bug
#
# Here is a window written afresh, as one would in another language. It passes for right at first sight. (`one_more` is
# 0 in the port; it is there so that it can be mended.)


# %%
def my_window(q, k, v, radius, *, one_more=0):
    """(H, T, K) three times -> (T, H K)."""
    heads, tokens, width = q.shape
    out = np.zeros((tokens, heads, width))
    for h in range(heads):
        for i in range(tokens):
            low, high = max(0, i - radius), min(tokens, i + radius + one_more)
            scores = k[h, low:high] @ q[h, i] / np.sqrt(width)
            probs = np.exp(scores - scores.max())
            out[i, h] = probs @ v[h, low:high] / probs.sum()
    return out.reshape(tokens, heads * width)


mended = partial(my_window, one_more=1)
q, k, v = (case.inputs[name].astype("float64") for name in "qkv")
right, allowed = case.answers[0]["out"], case.tolerance["out"]["float64"]
errors = {}
for name, window in (("my_window", my_window), ("mended", mended)):
    errors[name] = abs(window(q, k, v, case.arguments["radius"]) - right).max(axis=1)
    verdict = "passes" if errors[name].max() <= allowed else "FAILS"
    print(f"{name:10} is at most {errors[name].max():.1e} off; {allowed:.1e} is allowed: {verdict}")

# %% [markdown]
# Python's slices end before their end, so the last key was missing. Where a row is wrong says more than that it is:

# %% alt="Error of each row for my_window: all are wrong but the last ones"
figure, axes = plt.subplots(figsize=(6, 2.2))
axes.bar(range(len(right)), errors["my_window"], color=WRONG)
axes.set(xlabel="token", ylabel="largest error", title="which rows are wrong")
plt.show()

# %% [markdown]
# The last rows are right: there the document's end cuts the window in any case. A picture like this is often the whole
# diagnosis: wrong everywhere but at one end, look at that end of the band.
#
# ## The whole list, for a program
#
# A program in any language is asked like this:
#
# ```sh
# led-ref vectors check tests/vectors/v1 --cmd 'my-led --in {in} --out {out}' --dtype float32 --level L1 L2
# ```
#
# It finds the questions in one folder and writes its answers into another. [Vectors](../vectors.md) has the format;
# `check.c` and `check.mjs` beside the vectors are small programs without Python that do so.
#
# ## Traces: where does a whole model part?
#
# When the pieces are right and the whole is not, lay traces beside each other. Led_ref records one with `led-ref
# trace paper.txt --out ours.safetensors`; the port runs on the ids in that file and writes its own arrays under the
# same names. Here the port forgets the bias of the values in the second layer:

# %%
from dataclasses import replace

ids = led.encode("Pack the files of a folder with tar and compress them with gzip.")
ours = led_ref.trace(led.model, [ids], decoder_input_ids=[[2]])

layers = list(led.model.params.encoder.layers)
layers[1] = replace(layers[1], value=replace(layers[1].value, bias=0 * layers[1].value.bias))
params = replace(led.model.params, encoder=replace(led.model.params.encoder, layers=tuple(layers)))
port = led_ref.LEDForConditionalGeneration(led.model.config, params)
theirs = led_ref.trace(port, [ids], decoder_input_ids=[[2]])

found = diff(ours, theirs)
print(f"{len(found.equal_before)} arrays are equal before they part at\n{found.first.name}\nhint: {found.hint}")


# %% alt="Difference of each array in the order of work: none, then a jump, and different from there on"
def apart(a, b):
    """The largest difference of what is finite: hidden scores are minus infinity in both."""
    finite = np.isfinite(a) & np.isfinite(b)
    return abs(np.asarray(a, float)[finite] - np.asarray(b, float)[finite]).max()


errors = [apart(ours[name], theirs[name]) for name in ours]
figure, axes = plt.subplots(figsize=(8, 2.6))
axes.semilogy(np.maximum(errors, 1e-17), ".", color=BAND)
at = list(ours).index(found.first.name)
axes.axvline(at, color=WRONG, linestyle=":")
axes.text(at + 1, 1e-8, " they part here", color=WRONG)
axes.set(xlabel="array, in the order of work", ylabel="largest difference")
plt.show()

# %% [markdown]
# What lies on the floor is equal to the bit. Right of the line some arrays still are: the keys and queries beside the
# values, and what the decoder does before it looks at the document. All the others were computed from other numbers
# and prove nothing. So mend the first place, and run again. The command is `led-ref diff ours.safetensors
# theirs.safetensors --plot errors.png`.
#
# ## What goes wrong when one thing is changed
#
# Comparing in float32 with a generous tolerance lets small mistakes pass. The same port, with GELU's approximation by
# tanh in place of the exact one. How far is it off, at the places where one might look?

# %%
from unittest.mock import patch

from led_backends.numpy_backend import NumpyBackend


def by_tanh(self, x):
    """The approximation."""
    return x * (0.5 + 0.5 * np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


with patch.object(NumpyBackend, "gelu", by_tanh):
    theirs = led_ref.trace(led.model, [ids], decoder_input_ids=[[2]])
for name in ("led.encoder.layers.0.activation_fn.output", "led.encoder.layers.1.final_layer_norm.output", "logits"):
    print(f"{name:45} {apart(ours[name], theirs[name]):.1e} off; the largest number is {abs(ours[name]).max():.1f}")
x = np.linspace(-4, 4, 801)
exact = led.model.backend.gelu(x.copy())
print(f"GELU itself, between -4 and 4: at most {abs(exact - by_tanh(None, x)).max():.1e} off")

# %% [markdown]
# A tolerance of 1e-2 on the logits would not have seen it. A test of GELU alone, in float64, cannot miss it. Test small
# things strictly, and from the bottom.
#
# ## In which order
#
# 1. L1: linear maps, LayerNorm, GELU, softmax.
# 2. L2: the window without globals, then with them, then with padding.
# 3. L3 and L4: layers, logits, the loss, decoding in parts.
# 4. L5: the searches. They need no model.
# 5. L0, the tokenizer, whenever you like.
# 6. L6: all of it on trained weights.
#
# ## Exercises
#
# 1. Put the bug of a colleague into `my_window` (forget the scale, say) and look at the picture of the rows. How
#    does it differ?
# 2. `led-ref vectors check tests/vectors/v1 --level L1` in a checkout: check led_ref itself.
# 3. Write L1's operations in the language you like best, and check them with `--cmd`.
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **1.** Without the scale all rows are wrong, by 0.2 to 0.9: no end of the document is spared, because every row has a
# softmax. A mistake at an end of the window spares the rows that have no such end; a mistake in the numbers spares none.
#
# **2.** `L1  operations  19 passed`, and the exit code is 0.
#
# **3.** Begin with `linear` and `softmax`: every other level needs them. Then LayerNorm: the variance is divided by D, not
# by D - 1, and eps stands under the root. GELU needs erf, not its approximation. `L1-softmax-hidden-row` asks for zeros
# where a row sees nothing. `check.c` beside the vectors reads and writes the files without a library.
#
# </details>
