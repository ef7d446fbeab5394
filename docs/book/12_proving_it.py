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
# # Proving it
#
# **The question.** A program that computes attention wrongly still prints numbers, and often still writes text. How
# does one come to trust it?
#
# Three things work together here:
#
# 1. **An oracle.** LED written a second time, as plainly as possible: every query against every key, float64, loops.
#    It shares no code with the model that it judges, so a mistake must be made twice in the same way to slip through.
# 2. **Mutation testing.** A test that has never failed has shown nothing. So copies of led_ref with one mistake each,
#    **mutants**, are made, and the tests must notice each one by a wrong value.
# 3. **An error table.** Where both programs are right they still differ by rounding. How much, is measured layer by
#    layer.

# %%
import json
from pathlib import Path

import book_tools
import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET, WRONG, bundled, manual_page, source

import led_ref
from led_ref.oracle.definition import model as dense

led = bundled()
DATA = Path(book_tools.__file__).parent / "data"

# %% [markdown]
# ## The oracle
#
# Who sees whom, in the oracle. No blocks, no bands: a table of truth values.

# %%
source("led_ref.oracle.definition.model:who_sees_whom")

# %%
source("led_ref.oracle.definition.model:_attention")

# %% [markdown]
# By hand: a query that sees two keys, whose scores are ln 3 and 0, gives them 3/4 and 1/4.

# %%
q, k, v = np.array([[1.0]]), np.array([[np.log(3)], [0.0]]), np.array([[8.0], [4.0]])
out, probs = dense._attention(q, k, v, np.array([[True, True]]), heads=1)
print("probabilities", probs.ravel().tolist(), "  out", out.item(), "= 8 · 3/4 + 4 · 1/4")

# %% [markdown]
# On the bundled model's page, in float64, the fast model and the oracle:

# %%
from led_ref.weights.find_files import read_tensors

ids = led.encode(manual_page())
first = np.eye(1, len(ids), dtype=int)
weights = {name: tensor.to_numpy("float64") for name, tensor in read_tensors(led_ref.bundled_model()).items()}
fast = led.model.encoder([ids], global_attention_mask=first, output_hidden_states=True).hidden_states
slow = dense.encode(weights, led.model.config, [ids], global_attention_mask=first).hidden_states
for n, (a, b) in enumerate(zip(fast, slow, strict=True)):
    print(f"after layer {n}: at most {abs(a - b).max():.1e} apart, largest state {abs(b).max():.1f}")
    assert abs(a - b).max() < 1e-11

# %% [markdown]
# ## Mutation testing
#
# A mutant is a copy of led_ref with one mistake that somebody could make in one line. Two judges are asked
# about it. A **property test** draws sizes, weights and masks at random and compares the fast model with the oracle. The
# **conformance vectors** are known answers in files ([chapter 15](15_conform.md)). Only a wrong **value** counts: a crash
# would say that something is broken, not that a number is wrong. These are the figures of a real run;
# `tests/mutants/run.py` makes them.

# %% alt="A square for each mutant: all are noticed by the properties; the vectors notice nearly all that they are asked for"
matrix = json.loads((DATA / "kill_matrix.json").read_text(encoding="utf-8"))
bugs = matrix["matrix"]
print(f"run on {matrix['date']} at {matrix['commit']} ({matrix['machine']})")
for judge, name in (("properties", "the property tests"), ("vectors", "the vectors")):
    asked = [bug[judge]["verdict"] for bug in bugs if bug[judge]["verdict"] != "none"]
    print(f"{name} noticed {asked.count('killed')} of the {len(asked)} that they were asked about")

WIDE = 27
figure, axes = plt.subplots(1, 2, figsize=(9, 1.9))
for panel, judge in zip(axes, ("properties", "vectors"), strict=True):
    for n, bug in enumerate(bugs):
        edge = {"killed": BAND, "survived": WRONG, "none": QUIET}[bug[judge]["verdict"]]
        panel.plot(n % WIDE, -(n // WIDE), "s", ms=7, color=BAND if edge == BAND else "none", markeredgecolor=edge)
    panel.set_title(f"noticed by the {judge}")
    panel.axis("off")
    panel.margins(0.05, 0.2)
plt.show()

# %% [markdown]
# The red squares are mutants that survive the vectors, on purpose: LED leaves open what comes out there, and a conformance
# test must not ask for more than LED says, or the mistake cannot be seen with what the vectors have. The grey ones are
# mistakes of training ([chapter 17](17_the_way_back.md)): this run asked the property tests alone about them.

# %%
for bug in bugs:
    if bug["vectors"]["verdict"] == "survived":
        print(f"{bug['name']}: {bug['what']}\n    {bug['accepted']}\n")

# %% [markdown]
# The tests run one after the other, up to the first that fails. Which one was it, how often? That says what to write first
# for a program of one's own.

# %%
from collections import Counter

by_test = Counter(bug["properties"]["by"].partition("::test_")[2].replace("_", " ") for bug in bugs)
for name, count in by_test.most_common(6):
    print(f"{count:4}  {name}")

# %% [markdown]
# ## A bug, seen from the inside
#
# The mistake `scaled-twice`: queries divided by √K twice. A model with it runs, and its numbers look healthy. Two traces
# show where the programs part. Here the second is the first with that one array changed:

# %%
from led_ref.oracle import diff

ours = led_ref.trace(led.model, [ids[:40]], decoder_input_ids=[[2]], only="led.encoder.layers.0.*")
name = "led.encoder.layers.0.self_attn.longformer_self_attn.q"
theirs = {**ours, name: ours[name] / 32**0.5}
found = diff(ours, theirs)
print(f"equal before: {len(found.equal_before)} arrays\nfirst different: {found.first.name}\nhint: {found.hint}")

# %% [markdown]
# ## How large may rounding be?
#
# Let fl(x) be what a computer gets for x. A float32 keeps 24 bits, so every product and every sum is off by at most $u =
# 2^{-24}$ of itself. A dot product of $n$ numbers has $n$ of each, one behind the other. All of it together ([Higham
# 2002](https://doi.org/10.1137/1.9780898718027), chapter 3), in whatever order one adds:
#
# $$\left|\operatorname{fl}(q \cdot k) - q \cdot k\right| \;\le\; \gamma_n \sum_{d=1}^{n} |q_d\, k_d|,
# \qquad \gamma_n = \frac{n u}{1 - n u}.$$
#
# A value outside of that is not rounded, it is wrong. `tests/model/test_float32_bound.py` holds every step of the model to
# such a bound. For a score of led-base, 64 numbers long:

# %% tags=["machine"]
n, u = 64, 2.0**-24
q_NK, k_NK = np.random.default_rng(12).normal(size=(2, 1000, n)).astype(np.float32)
products_NK = q_NK.astype(np.float64) * k_NK  # exact: 24 bits times 24 fit into a float64
off = abs(np.einsum("nk,nk->n", q_NK, k_NK) - products_NK.sum(axis=1))
allowed = n * u / (1 - n * u) * abs(products_NK).sum(axis=1)
print(f"1,000 scores: off by at most {off.max():.1e}; the bound is {allowed.min():.1e} at least")
print(f"the worst uses {(off / allowed).max():.1%} of what it may: rounding goes up and down, and cancels")
assert (off <= allowed).all()

# %% [markdown]
# ## The error table
#
# Two right programs differ by rounding: they add the same numbers in another order. So the question is not whether
# they are equal but whether the difference is rounding's. A random model of led-base's size was run on 4,096 tokens
# in float32, by led_ref and by transformers, and both compared with the oracle. From [the accuracy
# page's](../accuracy.md) run:

# %% alt="Error after each layer, logarithmic: two curves of float32 close together, one of float64 far below"
report = json.loads((DATA / "error_by_layer.json").read_text(encoding="utf-8"))
places = [row["place"] for row in report["rows"]]
figure, axes = plt.subplots(figsize=(8.5, 3.4))
for who, color in (("transformers float32", QUIET), ("led_ref float32", BAND), ("led_ref float64", GLOBAL)):
    axes.semilogy([row[who]["rms"] for row in report["rows"]], "o-", color=color, label=who)
axes.set_xticks(range(len(places)), places, rotation=60, ha="right", fontsize=8)
axes.set(ylabel="root mean square error", title=f"{report['tokens']:,} tokens, against the oracle")
axes.legend()
plt.show()

worst = max(report["rows"], key=lambda row: row["led_ref float32"]["rms"])
print(f"largest of led_ref in float32: {worst['led_ref float32']['rms']:.1e}, at {worst['place']}")
print(
    "led_ref's error is at most transformers' in",
    sum(row["led_ref float32"]["rms"] <= row["transformers float32"]["rms"] for row in report["rows"]),
    "of",
    len(places),
    "places",
)

# %% [markdown]
# This is why the tests compare in float64, where rounding is between 10⁻¹⁵ and 10⁻¹³: a mistake that is hardly larger than
# float32's rounding stands far above that. A test should also choose numbers on which a mistake shows. Take an eps of
# LayerNorm that is another model's, 1e-12 in place of 1e-5. It is added to the variance, so where the variance is near one,
# little happens, and a tolerance of 1e-4 lets it pass:

# %%
state = fast[1][0]
mean, variance = state.mean(axis=-1, keepdims=True), state.var(axis=-1, keepdims=True)
small = 0.001 * state  # as a layer that adds little
spread = 0.001**2 * variance
right, wrong = (0.001 * (state - mean) / np.sqrt(spread + eps) for eps in (1e-5, 1e-12))
usual, other = ((state - mean) / np.sqrt(variance + eps) for eps in (1e-5, 1e-12))
print(f"LayerNorm of large numbers, eps 1e-12 for 1e-5: {abs(usual - other).max():.1e} apart")
print(f"LayerNorm of small numbers, the same mistake:   {abs(right - wrong).max():.1e} apart")

# %% [markdown]
# On small numbers nobody can miss it. The vectors have a case of small numbers for this, `L1-layer-norm-narrow`.
#
# ## Exercises
#
# 1. `led-ref exercise 12`: find the first place where two programs part.
# 2. `python tests/mutants/run.py --only pre-norm` in a checkout: run one mutant and watch the tests find it.
# 3. Think of a mistake that is not in [the list](../mutation_testing.md). Which test would notice it?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** The tests run on led_ref as it is first and must pass. Then they run on the mutant, and the line says which test
# noticed it by a wrong value: `properties killed (test_model_is_the_definition); vectors killed (L1-embed)`. The mutant
# adds the residual after the LayerNorm. Embeddings are closed by `add_and_norm`, too, so already the vectors' first level,
# L1, finds it.
#
# **3.** An example: query and key of a layer exchanged. Every shape fits, and only the numbers are others.
# `L3-encoder-layer` of the vectors has other answers then, and so has `test_model_is_the_definition`. If no test notices
# your mistake, you have found a gap: write the test first, then put the mistake on the list.
#
# </details>
