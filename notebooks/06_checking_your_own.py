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
# # Checking your own implementation
#
# You wrote LED in Rust, in C or in your own Python. It runs, and it writes something. Is it right? A text that reads well
# proves little: a model with a window one token too narrow also writes sentences.
#
# led_ref helps in two ways. A **trace** has every intermediate of a run, so that the first operation that differs can be
# named. **Vectors** are questions with known answers, in files that any language reads. This notebook plays it through: it
# writes an encoder, with two mistakes in it, and finds both.

# %%
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, WRONG

import led_ref
from led_ref.oracle import diff
from led_ref.weights.find_files import read_tensors

led = led_ref.load(dtype="float64")
page = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
ids = led.encode(page)[:300]
T, first = len(ids), [[1] + [0] * 299]
weights = {name: tensor.to_numpy("float64") for name, tensor in read_tensors(led_ref.bundled_model()).items()}
print(f"{len(weights)} tensors, such as {next(name for name in weights if 'query_global' in name)}")

# %% [markdown]
# ## Your encoder
#
# Here it is: an encoder in forty lines, straight from [what LED computes](../semantics.md), with whole tables and no thought
# of speed. It writes down each intermediate under the name of the module that makes it. Two lines of it are wrong. Can you see
# which?

# %%
H, R = 6, 64


def linear(name, x):
    """A linear map by its name."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(name, x):
    """Mean 0 and variance 1 over the last axis; then weight and bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def softmax(scores):
    """Over the last axis."""
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gelu(x):
    """The popular approximation by tanh."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def may_look(length, radius):
    """Row i, column j: whether token i sees token j through the window, or because j is the first."""
    distance = abs(np.arange(length)[:, None] - np.arange(length))
    return (distance < radius) | (np.arange(length) == 0)


def attention(name, x_TD, seen_TT, wrote):
    """Windowed attention of all tokens, then the global row of the first."""

    def heads(part):
        y_TD = linear(f"{name}.{part}", x_TD[:1] if part == "query_global" else x_TD)
        wrote[f"{name}.{part}.output"] = y_TD[None]
        return y_TD.reshape(len(y_TD), H, -1).swapaxes(0, 1)

    out_THK = np.empty((len(x_TD), H, x_TD.shape[1] // H))
    for suffix, rows, seen in (("", slice(None), seen_TT), ("_global", slice(0, 1), True)):
        q, k, v = (heads(part + suffix) for part in ("query", "key", "value"))
        scores_HTT = q / math.sqrt(q.shape[-1]) @ k.swapaxes(-1, -2)
        probs_HTT = softmax(np.where(seen, scores_HTT, -np.inf))
        out_THK[rows] = (probs_HTT @ v).swapaxes(0, 1)[rows]
    return out_THK.reshape(x_TD.shape)


def encoder(ids, window=may_look, activation=gelu):
    """All intermediates, by name."""
    wrote, name = {}, "led.encoder"
    x = weights["led.shared.weight"][ids] + weights[f"{name}.embed_positions.weight"][: len(ids)]
    x = wrote[f"{name}.layernorm_embedding.output"] = layer_norm(f"{name}.layernorm_embedding", x)
    for n in range(3):
        name = f"led.encoder.layers.{n}"
        attended = attention(f"{name}.self_attn.longformer_self_attn", x, window(len(ids), R), wrote)
        update = wrote[f"{name}.self_attn.output.output"] = linear(f"{name}.self_attn.output", attended)
        x = wrote[f"{name}.self_attn_layer_norm.output"] = layer_norm(f"{name}.self_attn_layer_norm", x + update)
        inner = wrote[f"{name}.fc1.output"] = linear(f"{name}.fc1", x)
        inner = wrote[f"{name}.activation_fn.output"] = activation(inner)
        update = wrote[f"{name}.fc2.output"] = linear(f"{name}.fc2", inner)
        x = wrote[f"{name}.final_layer_norm.output"] = layer_norm(f"{name}.final_layer_norm", x + update)
    return {key: value if value.ndim == 3 else value[None] for key, value in wrote.items()}


# %% [markdown]
# ## The wrong question
#
# Compare the ends of both. They are near each other, and the nearest thing to a verdict is a shrug: is that rounding, or not?

# %%
yours = encoder(ids)
read = led.model.encoder([ids], global_attention_mask=first)
end = abs(yours["led.encoder.layers.2.final_layer_norm.output"] - read.last_hidden_state)
largest = abs(read.last_hidden_state).max()
print(f"mean difference {end.mean():.4f}, largest {end.max():.2f}; states are up to {largest:.1f}")

# %% [markdown]
# ## The right question: where first?
#
# led_ref records its intermediates under the same names. `diff` compares them in the order of computation and names the
# first that differs. All later ones were computed from different numbers and prove nothing.

# %%
ours = led_ref.trace(led.model.encoder, [ids], global_attention_mask=first)
found = diff(yours, ours)
print(found.first.name)
print(f"equal before it: {len(found.equal_before)} steps, the last is {found.equal_before[-1]}")
print(f"largest difference {found.first.max_error:.3g} at {found.first.worst}, hint: {found.hint or 'none'}")

# %% [markdown]
# Queries, keys and values are right, and the output of the attention is not: the fault lies between them. `worst` says where
# the difference is largest. Which rows are wrong at all?

# %% alt="Left, error by token: nearly all are far off. Right, with the window mended: all at rounding"
name = "led.encoder.layers.0.self_attn.output.output"


def error_by_token(mine):
    """The largest difference in each row of the first layer's attention."""
    return np.maximum(abs(mine[name] - ours[name])[0].max(axis=-1), 1e-17)


def may_look_mended(length, radius):
    """Mended: a token sees the neighbour at distance R too."""
    distance = abs(np.arange(length)[:, None] - np.arange(length))
    return (distance <= radius) | (np.arange(length) == 0)


mended = encoder(ids, may_look_mended)
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axis, run, title in ((axes[0], yours, "distance < R"), (axes[1], mended, "distance <= R")):
    axis.semilogy(error_by_token(run), ".", markersize=3, color=WRONG if run is yours else BAND)
    axis.set(title=title, xlabel="token")
axes[0].set(ylabel="largest difference")
plt.show()
print("wrong rows before mending:", int((error_by_token(yours) > 1e-10).sum()), "of", T)

# %% [markdown]
# Nearly every row is wrong, but the first is not: that one is the global token's, and it has no window. (A few others look so
# hard at a near token that a far one counts nothing.) So the window was one token too narrow on both sides. (The config's
# `attention_window` 128 is 2R; a token sees R to each side **and** itself.) Again:

# %%
found = diff(mended, ours)
print(found.first.name)
print(f"equal before it: {len(found.equal_before)} steps, the last is {found.equal_before[-1]}")
print(f"largest difference {found.first.max_error:.3g}, hint: {found.hint or 'none'}")

# %% [markdown]
# The second mistake is smaller than the first, and would have drowned in it. The linear map before is equal, its activation is
# not. LED's GELU is the exact one, with the error function; the one by tanh differs in the fourth digit.

# %%
exact_erf = np.frompyfunc(math.erf, 1, 1)


def exact_gelu(x):
    """Exact: x Φ(x)."""
    return 0.5 * x * (1 + exact_erf(x / math.sqrt(2)).astype(float))


right = encoder(ids, may_look_mended, exact_gelu)
found = diff(right, ours)
print(
    found.equal,
    f"{len(found.compared)} steps compared, the largest difference is {max(s.max_error for s in found.compared):.1e}",
)
assert found.equal

# %% alt="Error of each step in the order of work: three versions, with both mistakes, with one, and with none: rounding"
figure, axes = plt.subplots(figsize=(9, 3.6))
versions = (
    (yours, "both mistakes", WRONG),
    (mended, "window mended", GLOBAL),
    (right, "both mended", BAND),
)
for run, label, colour in versions:
    steps = diff(run, ours).compared
    axes.semilogy([max(step.max_error, 1e-17) for step in steps], "o-", markersize=4, color=colour, label=label)
short = [step.name.removeprefix("led.encoder.").replace("longformer_self_attn.", "") for step in steps]
axes.set_xticks(range(len(short)), short, rotation=90, fontsize=6)
axes.set(ylabel="largest difference")
axes.legend()
plt.show()

# %% [markdown]
# That is the shape to look for: flat at rounding, then a step up. The foot of the step is the mistake. What follows goes up and
# down (the one dip is a step that concerns the first token alone) and says nothing.
#
# In another language: write your intermediates as a safetensors file with these names (`led-ref steps` lists all of them),
# and let the command line do the rest.
#
# ```sh
# led-ref trace page.txt --dtype float64 --out ours.safetensors
# led-ref diff ours.safetensors yours.safetensors
# ```
#
# ## Vectors: known answers
#
# Traces need a model and a run. Vectors need neither: small inputs, the answers in float64, and how far off one may be. They
# lie in the repository, in `tests/vectors/v1`; here the window cases of level 2 are put to a window of our own.

# %%
from led_ref.oracle.vectors.format import Answer, read_suite
from led_ref.oracle.vectors.judge import judge

folder = Path(led_ref.__file__).parent.parent / "tests" / "vectors" / "v1"
cases = [case for case in read_suite(folder, levels=["L2"]).cases if case.operation == "window"]


def my_window(case, narrow=0):
    """A window by whole tables, which knows masks and global tokens; `narrow` plants the first mistake again."""
    q, k, v = (case.inputs[name].astype(float) for name in ("q", "k", "v"))
    length, radius = q.shape[1], case.arguments["radius"]
    seen = np.asarray(case.inputs.get("attention_mask", np.ones(length))) == 1
    marks = np.asarray(case.inputs.get("global_attention_mask", np.zeros(length)))
    seen, is_global = seen & (marks != -1), seen & (marks == 1)
    near = abs(np.arange(length)[:, None] - np.arange(length)) <= radius - narrow
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    scores = np.where(seen & (near | is_global), scores, -1e300)
    out = (softmax(scores) @ v).swapaxes(0, 1).reshape(length, -1)
    out[~seen | is_global] = 0
    return Answer(outputs={"out": out})


for label, narrow in (("right", 0), ("one token too narrow", 1)):
    verdicts = [judge(case, my_window(case, narrow), "float64") for case in cases]
    passed = sum(verdict.status == "passed" for verdict in verdicts)
    print(f"{label}: {passed} of {len(cases)} cases pass")
    for verdict in verdicts:
        if verdict.status != "passed":
            print(f"    {verdict.case.id}: {verdict.reason}")
            break

# %% [markdown]
# A program in any language answers the same cases through files: `led-ref vectors check tests/vectors/v1 --cmd '...'`; see
# [Vectors](../vectors.md). Level by level, from the tokenizer to a whole model that writes.
#
# ## To try
#
# 1. Plant a third mistake, such as dividing by K instead of √K, or a LayerNorm whose epsilon is 1e-12. Which step is named?
#    How large must a mistake be to be seen in float64? In float32?
# 2. Leave `_global` out, so that the first row uses the window's weights. Which step does `diff` name, and what is the
#    first picture then?
# 3. Which of the 184 cases would your program refuse, and should it? (Those with the result "invalid".)
