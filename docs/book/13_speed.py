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
# # Speed
#
# **The question.** Why does a summary take as long as it takes, and what would make it faster?
#
# Two things can hold a processor up: it can multiply only so fast, and it can fetch numbers from memory only so fast.
# The time of any piece of work is at least
#
# $$\text{time} \ge \max\left( \frac{\text{operations}}{P},\ \frac{\text{bytes}}{M} \right)$$
#
# with P operations and M bytes a second.
#
# Reading a document is limited by the first, writing a word by the second. This chapter counts both with
# `led_ref/costs/operations.py`, which is pure arithmetic on the sizes of a model, and then, if this site was built with a
# report of `led-ref bench`, lays the measured times beside it.

# %%
import json
from pathlib import Path

import book_tools
import matplotlib.pyplot as plt
from book_tools import BAND, GLOBAL, QUIET, WRONG, source
from build_performance import as_markdown
from IPython.display import Markdown, display

from led_ref.costs.operations import LED_BASE, Workload, encode_work, step_work, total
from led_ref.tools.bench import report as bench_report

DATA = Path(book_tools.__file__).parent / "data"

# %% [markdown]
# ## By hand
#
# A product of an (m, k) with a (k, n) matrix makes m · n numbers, each of k multiplications and k additions: 2 m k n
# operations. It reads m k + k n numbers and writes m n. Ten rows through a map of 768 by 768, and one row:

# %%
for rows in (1, 10, 4096):
    operations, numbers = 2 * rows * 768 * 768, 2 * rows * 768 + 768 * 768
    share = operations / (4 * numbers)
    print(f"{rows:5} rows: {operations:13,} operations, {4 * numbers:11,} bytes: {share:6.1f} operations for a byte")

# %% [markdown]
# One row: half an operation for each byte. A processor can do many more in the time that a byte takes to come, so it
# waits. With 4,096 rows each weight is used 4,096 times once it is there, and the processor multiplies.
#
# ## Reading: operations

# %%
source("led_ref.costs.operations:window_work")

# %% alt="Operations against length: stacked parts that rise in a line, and full attention, which bends away"
lengths = [512, 1024, 2048, 4096, 6144, 8192, 12288, 16384]
kinds = ["feed-forward", "projections", "window", "global"]
counted = {kind: [] for kind in kinds}
for tokens in lengths:
    by_name = {work.name: work.operations / 1e9 for work in encode_work(LED_BASE, Workload(tokens=tokens))}
    for kind in kinds:
        counted[kind].append(by_name[kind])
attention = LED_BASE.encoder_layers * 4 * LED_BASE.d_model
full = [
    attention * t * t / 1e9 + sum(counted[k][n] for k in ("feed-forward", "projections")) for n, t in enumerate(lengths)
]

figure, axes = plt.subplots(figsize=(7, 3.6))
axes.stackplot(lengths, *counted.values(), labels=kinds, colors=[QUIET, f"{QUIET}80", BAND, GLOBAL])
axes.plot(lengths, full, "--", color=WRONG, label="with full attention")
axes.set(xlabel="tokens", ylabel="billion operations", title="led-base reads a document (counted)")
axes.legend(loc="upper left")
plt.show()
print("tokens  window's share  with full attention, times as much")
for n in (1, 3, 5, 7):
    mine = sum(counted[kind][n] for kind in kinds)
    print(f"{lengths[n]:6,}  {counted['window'][n] / mine:13.0%}  {full[n] / mine:14.2f}")

# %% [markdown]
# Everything is linear in the length; that is LED's whole point. A smaller window would save only what the window
# takes. The rest is projections and feed-forward, which no window changes.
#
# ## Writing: bytes
#
# To write one word every matrix of the decoder is read once, for a single row per beam. And the document's keys and
# values.

# %%
source("led_ref.costs.operations:step_work")

# %%
for beams in (1, 4):
    for tokens in (4096, 16384):
        works = step_work(LED_BASE, Workload(tokens=tokens, beams=beams), prefix=64)
        parts = ", ".join(f"{work.name} {work.bytes / 1e6:.0f}" for work in works)
        print(f"{beams} beams, {tokens:6,} tokens: {total(works).bytes / 1e6:6.0f} MB a word ({parts})")

# %% [markdown]
# Four beams read about as much as one, because they share the document's keys and the weights. That is what the cache
# of chapter 8 is for.
#
# ## The model's own account
#
# The same counts for a run: document, keys and values, words. And how many operations each byte gives to do; a
# processor that can do, say, twenty in the time of one byte is waiting for memory below twenty, and multiplying above.

# %% alt="Operations for a byte: reading far above, writing at about one"
cases = {
    "read 4,096 tokens": total(encode_work(LED_BASE, Workload(tokens=4096))),
    "a word, 1 beam": total(step_work(LED_BASE, Workload(tokens=4096), prefix=64)),
    "a word, 4 beams": total(step_work(LED_BASE, Workload(tokens=4096, beams=4), prefix=64)),
}
figure, axes = plt.subplots(figsize=(6, 2))
axes.barh(list(cases), [work.operations / work.bytes for work in cases.values()], color=[BAND, GLOBAL, GLOBAL])
axes.set(xscale="log", xlabel="operations for a byte")
axes.invert_yaxis()
plt.show()
for name, work in cases.items():
    operations, share = work.operations / 1e9, work.operations / work.bytes
    print(f"{name:18} {operations:7.2f} billion operations, {work.bytes / 1e6:8.0f} MB, {share:6.1f} for a byte")

# %% [markdown]
# ## Measured
#
# `led-ref bench` measures it on your machine; `led-ref estimate` predicts it before a run.

# %%
if (DATA / "performance.json").exists():
    report = json.loads((DATA / "performance.json").read_text(encoding="utf-8"))
    for condition in bench_report.conditions(report):
        print(condition)
    display(Markdown(as_markdown(report)))
else:
    print("This site was built without a report of led-ref bench: no time is shown, only what was counted.")

# %% [markdown]
# ## What goes wrong when one thing is changed
#
# A KV cache for every beam instead of one for the document computes the same numbers. No test of values notices it. The
# count does: bytes a word with led-base, four beams, and a copy of the document's keys and values for each.

# %% alt="Megabytes for a word against beams: nearly level with one KV cache, steep with one for each beam"
beams = [1, 2, 4, 8]
shared, copied = [], []
for number in beams:
    works = {work.name: work.bytes for work in step_work(LED_BASE, Workload(tokens=16384, beams=number), prefix=64)}
    shared.append(sum(works.values()) / 1e6)
    copied.append((sum(works.values()) + (number - 1) * works["document"]) / 1e6)
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(beams, copied, "o-", color=WRONG, label="a copy for each beam")
axes.plot(beams, shared, "o-", color=BAND, label="one KV cache for the document")
axes.set(xlabel="beams", ylabel="MB read for a word", ylim=(0, None), title="led-base, 16,384 tokens (counted)")
axes.legend()
plt.show()
print("one cache:", [round(mb) for mb in shared], " copies:", [round(mb) for mb in copied], "MB")

# %% [markdown]
# ## Exercises
#
# 1. `led-ref exercise 13`: count the bytes of a step.
# 2. At what length does full attention take twice the operations of the window, with led-base's sizes?
# 3. `led-ref estimate led-base --tokens 16384 --beams 4` on your machine: which part takes most of the time?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** A token costs a layer 2 (4D² + 2DF) = 14.2 million operations in linear maps, and 4 D in attention for each
# key that it sees. With 2R + 1 keys that is 17.3 million together. Full attention has T keys: 34.6 million at about
# 6,700 tokens. Attention alone is twice as much at 2 (2R + 1) = 2,050 tokens already.
#
# **3.** The encoder, in most cases. On two cores of the machine where this was written: 27 s for reading, 3 s for the
# document's keys and values, 21 s for 128 steps, 51 s together. With more new tokens the steps overtake the reading: after
# about 190.
#
# </details>
