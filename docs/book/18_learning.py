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
# # Learning
#
# **The question.** The last chapter gave each weight a gradient. How does a model learn from it?
#
# The gradient says where the loss rises, so a weight goes a little the other way. How far, how the way of a weight is made
# smooth, and how the length of the steps changes during a training: that is the optimizer and the schedule.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET, WRONG, bundled, source

import led_ref
from led_backends.numpy_backend import NumpyBackend
from led_ref.training.optimizers import AdamW, initial_state
from led_ref.training.schedules import Schedule

backend = NumpyBackend()

# %% [markdown]
# ## AdamW
#
# A plain step $w \leftarrow w - a\,g$ is as long as the gradient. In a narrow valley that is too far across and too little
# along. Adam keeps two running means for each weight, of its gradient (m) and of its square (v), and goes $m / \sqrt v$:
# about one learning rate a step, whatever the gradient's size. The first steps are corrected for means that began at 0. The W
# of AdamW: weights also shrink a little by themselves (**decay**), apart from the gradient.

# %%
source("led_ref.training.optimizers:AdamW.update")

# %% [markdown]
# On a valley that is 50 times as steep across as along:

# %% alt="Two ways down a long narrow valley: plain steps jump from side to side, AdamW goes along it"
steepness = np.array([1.0, 50.0])
ways = {"plain steps": [np.array([-4.0, 0.5])], "AdamW": [np.array([-4.0, 0.5])]}
optimizer, weights = AdamW(), {"w": np.array([-4.0, 0.5])}
state = initial_state(optimizer, weights, backend)
for _ in range(60):
    plain = ways["plain steps"][-1]
    ways["plain steps"].append(plain - 0.038 * steepness * plain)
    gradient = {"w": steepness * weights["w"]}
    state = optimizer.update(weights, gradient, state, 0.15, backend)
    ways["AdamW"].append(weights["w"].copy())
figure, axes = plt.subplots(figsize=(7, 2.8))
along, across = np.meshgrid(np.linspace(-4.5, 1, 120), np.linspace(-0.8, 0.8, 80))
axes.contour(along, across, along**2 + 50 * across**2, levels=12, colors=QUIET, linewidths=0.4)
for (name, way), color in zip(ways.items(), (WRONG, BAND), strict=True):
    axes.plot(*np.array(way).T, ".-", color=color, label=name, markersize=3, linewidth=0.8)
axes.legend()
plt.show()

# %% [markdown]
# ## The schedule
#
# Adam's means know nothing at first, so many recipes begin with small steps (**warm-up**). Towards the end small steps let a
# model settle. The learning rate is a pure function of the step: a run that is resumed needs no memory of it.

# %% alt="Four curves of learning rate over 100 steps, each rising for the first 10"
figure, axes = plt.subplots(figsize=(7, 2.6))
for kind, color in (("linear", BAND), ("cosine", GLOBAL), ("constant", QUIET), ("inverse_sqrt", WRONG)):
    schedule = Schedule(kind, 10, 100)
    axes.plot([schedule.rate(step, 5e-5) for step in range(100)], color=color, label=kind)
axes.set(xlabel="step", ylabel="learning rate")
axes.legend()
plt.show()

# %% [markdown]
# ## Dropout
#
# In training, some numbers of each update are set to zero, so that no token comes to rely on one number of one other. A
# layer is computed twice (forward, and again on the way back), and must drop the same numbers both times. So the mask is not
# drawn: it is a hash of seed, step, place, document and position.

# %%
source("led_ref.model.dropout:Site.drop_probs")

# %% [markdown]
# ## A training
#
# Eight texts, eight summaries, a small model. `led_ref.train` does what `led-ref train` does.

# %%
subjects = ["tar", "grep", "sort", "find", "diff", "make", "sed", "awk"]
verbs = ["packs", "searches", "orders", "seeks", "compares", "builds", "edits", "scans"]
folder = Path(tempfile.mkdtemp())
lines = [
    f'{{"text": "The page of {s}. This command {v} files, as its options say.", "summary": "{s} {v} files"}}'
    for s, v in zip(subjects, verbs, strict=True)
]
(folder / "pages.jsonl").write_text("\n".join(lines), encoding="utf-8")
bundled("float32").save_pretrained(folder / "start")
curve = []
result = led_ref.train(
    folder / "pages.jsonl",
    model=folder / "start",
    out=folder / "out",
    max_steps=30,
    per_device_train_batch_size=8,
    learning_rate=1e-3,
    on_log=lambda line: curve.append(line),
)
print(f"{result.steps} steps; the loss of the last is {curve[-1]['loss']:.3f}")

# %% alt="The loss falls from about 6 to below 1 in 30 steps; beside it the length of the gradient"
figure, axes = plt.subplots(figsize=(7, 2.6))
axes.plot([line["loss"] for line in curve], color=BAND, label="loss")
axes.plot([line["grad_norm"] for line in curve], ":", color=QUIET, label="length of the gradient")
axes.set(xlabel="step", yscale="log")
axes.legend()
plt.show()
trained = led_ref.load(folder / "out")
for subject in ("grep", "make"):
    text = f"The page of {subject}. This command {verbs[subjects.index(subject)]} files, as its options say."
    print(f"{subject}: {trained.generate(text, num_beams=1, max_new_tokens=12)!r}")
assert curve[-1]["loss"] < curve[0]["loss"] / 2

# %% [markdown]
# It has learned the eight by heart. That is a test of the machinery, not of the model: on a text that it has not seen it would
# say something like one of the eight. A training is judged by **held-out** documents (`--validate`).
#
# ## What checkpointing costs
#
# Forward, the backward pass and a second forward: four passes of products in place of three. What it saves is memory: of a
# layer nothing is kept but its input. For led-base at 16,384 tokens:

# %%
tokens, d_model, d_ffn, layers = 16384, 768, 3072, 6
kept = tokens * d_model * 4
whole = tokens * (9 * d_model + 2 * d_ffn) * 4  # q, k, v, attended, two updates, two norms, the input; fc1 and gelu
print(f"the input of each layer: {layers * kept / 2**20:,.0f} MiB")
print(f"all that the backward pass of each reads: {layers * whole / 2**20:,.0f} MiB")

# %% [markdown]
# ## Exercises
#
# 1. `led-ref exercise 18`: clip the gradients and take a step of AdamW.
# 2. Set `learning_rate=1` above. What does the loss do, and why is no step refused?
# 3. AdamW's first step has the same length for a gradient of 0.001 and of 1,000. Show it, and say why.
# 4. Why is there no decay on biases and norms?
# 5. Resume: train 15 steps, then `resume=True` to 30. Are the weights those of one run, bit for bit?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** It rises from 8 to 408 in seven steps, and comes down to 45 as the schedule lowers the rate. A step of AdamW is
# about as long as the learning rate, whatever the gradient: each weight moves by 1, where weights of this model are about
# 0.1. All numbers stay finite, so every step is taken. A step whose loss or gradient is not finite would not be: the log
# would say so, and the weights would stay as they are.
#
# **3.** After the first step, the mean of the gradients and the root of the mean of their squares, both corrected for
# their start at zero, are g and |g|. Their quotient is 1 or -1, so the step is as long as the learning rate.
#
# **4.** Decay pulls towards 0. For a matrix that means a simpler map; a norm's weight of 0 would switch its column
# off, and a bias is too few numbers to learn anything by heart.
#
# **5.** Yes. Dropout's masks and the order of documents are functions of the seed and the step, and the moments are
# in the checkpoint.
#
# </details>
