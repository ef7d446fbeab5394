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
# # Recipes
#
# **The question.** How do I do this with led_ref, in the fewest lines?
#
# Every cell below was run when this site was built, on the small model that comes with led_ref. With a model of your
# own its name or folder goes where none stands here. The bundled model is far too small to write well: it is there so
# that everything can be tried at once and without a network.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from book_tools import BAND, GLOBAL, QUIET, WRONG, manual_page

import led_ref

# %% [markdown]
# ## Summarize a text
#
# One call. From the shell: `led-ref summarize paper.txt`.

# %%
page = manual_page()
print(led_ref.generate(page))

# %% [markdown]
# For many documents load once:

# %%
led = led_ref.load()
for text in led.generate(["tar packs files.", "gzip compresses files."], max_new_tokens=8):
    print(repr(text))

# %% [markdown]
# ## Many documents
#
# A step of the decoder reads all weights to write one id, and can as well write one for each of several documents
# with them. `batch_size` says how many at most; documents of about one length go together, as many as `batch_memory` lets
# in. The texts are the same, in the same order. [What it gains](../performance.md#many-documents):

# %%
pages = [page[start : start + 400] for start in range(0, 1600, 400)]
one_by_one = led.generate(pages, max_new_tokens=8)
print(led.generate(pages, max_new_tokens=8, batch_size=4) == one_by_one)

# %% [markdown]
# `generate_each` hands each text out when it is done, and where a document cannot be read, the error in its place:

# %%
for number, text in led.generate_each(["tar packs files.", "", "gzip compresses files."], max_new_tokens=8):
    print(number, repr(text))

# %% [markdown]
# From the shell, each text into a file of its own. A result is there whole or not at all, and nothing is overwritten. A run
# that was cut off, by Ctrl-C or by the power, goes on with `--resume`, and ends with the same files as an unbroken one.
#
# ```sh
# led-ref summarize papers/*.txt --out summaries --model DIR
# led-ref summarize papers/*.txt --out summaries --model DIR --resume
# ```
#
# `summaries/led-ref.json` says what made the results: the model by its digest, the settings, the documents by theirs. With
# another model or other settings `--resume` refuses to mix. Documents that failed are named at the end, the exit code is 1
# then, and `--resume` tries just them again.
#
# ## A hundred thousand documents, on many machines
#
# [Many documents](../many.md) has the rules. An array of jobs for Slurm needs no other program; each job makes its part, and
# a job that was killed is sent again as it is:
#
# ```sh
# #!/bin/sh
# #SBATCH --array=1-50
# #SBATCH --cpus-per-task=8
# #SBATCH --mem=8G
# #SBATCH --requeue
# . venv/bin/activate
# led-ref summarize papers.jsonl --model /shared/led-large --truncate --num-beams 4 --max-new-tokens 200 \\
#   --out /shared/summaries --resume --shard "$SLURM_ARRAY_TASK_ID/50" --threads "$SLURM_CPUS_PER_TASK" --quiet
# ```
#
# ```sh
# led-ref gather /shared/summaries --out summaries.parquet     # names the shards and documents that are missing
# ```
#
# Twelve documents, blocks of two, three jobs; one of them dies and is sent again:

# %% alt="Twelve documents in blocks of two go to three jobs; one job dies, goes on later, and all results are gathered"
from book_steps import Steps

from led_ref.pipelines.shards import Shard

DOCUMENTS, JOBS, BLOCK = 12, 3, 2
drawing = Steps(360, 262, count=6)
drawing.text(0, 12, "papers.jsonl", anchor="start")
for i in range(DOCUMENTS):
    job = next(n for n in range(JOBS) if Shard(n + 1, JOBS, BLOCK).holds(i))
    x, lane = 58 + 25 * i, 66 + 46 * job
    early = job != 1 or i < 3  # the second job dies after one document
    drawing.box(x, 20, 20, 20, QUIET, opacity=0.35)
    drawing.text(x + 10, 34, i)
    if i % BLOCK == 0:
        drawing.box(x - 2, 17, 25 * BLOCK - 1, 26, line=1.5, at=2)
    drawing.line(x + 10, 44, x + 10, lane, QUIET, opacity=0.6, at=3)
    drawing.box(x, lane, 20, 20, QUIET, opacity=0.35, at=(3, 3 if early else 4))
    drawing.box(x, lane, 20, 20, BAND, opacity=0.8, at=4 if early else 5)
    drawing.text(x + 10, lane + 14, i, at=3)
    drawing.box(x, 208, 20, 20, BAND, opacity=0.8, at=6)
    drawing.text(x + 10, 222, i, at=6)
for job in range(JOBS):
    drawing.text(0, 80 + 46 * job, f"{job + 1}/{JOBS}", anchor="start", at=3)
drawing.box(58 + 25 * 3 - 3, 66 + 46 - 3, 26, 26, WRONG, line=2, at=(4, 4))
drawing.text(0, 222, "gathered", anchor="start", at=6)
for step, words in enumerate(
    (
        "documents, sorted by name",
        "blocks: batches are formed inside of one",
        "each job takes every third block",
        "job 2/3 dies while it writes document 3" if Shard(2, JOBS, BLOCK).holds(3) else "",
        "sent again with --resume, it makes what is missing",
        "led-ref gather: every result once, in order",
    ),
    1,
):
    drawing.text(0, 252, words, size=13, anchor="start", at=(step, step))
drawing.show()

# %% [markdown]
# A Dask cluster deals blocks out as workers become free, so that no machine waits for the slowest. The scheduler on one
# machine, a worker with one thread for each part of a processor, or for each GPU, on the others, and the client anywhere that
# sees the documents:
#
# ```sh
# dask scheduler                                                       # prints its address
# OMP_NUM_THREADS=4 dask worker tcp://node1:8786 --nworkers 2 --nthreads 1 --memory-limit 0
# CUDA_VISIBLE_DEVICES=0 dask worker tcp://node1:8786 --nthreads 1     # with led-ref[cuda13]; one for each GPU
# led-ref summarize papers.jsonl --model /shared/led-large --out summaries --scheduler tcp://node1:8786
# ```
#
# What a million papers cost, on paper: 8,192 tokens each, 200 tokens written with 4 beams, float32. The rows of a CPU are what
# `led-ref estimate` said on two cores of a Xeon (2026-11-29), that of a GPU was computed by hand:
#
# ```sh
# led-ref estimate led-large --tokens 8192 --beams 4 --new-tokens 200 --threads 1 --documents 1000000
# led-ref estimate led-base --tokens 8192 --beams 4 --new-tokens 200 --threads 2 --batch 8 --documents 1000000
# ```
#
# | | reading | writing | a document | a million |
# |---|---|---|---|---|
# | led-large, one thread | 33 s | 48 s | 81 s | 22,500 hours of a processor |
# | led-base, two threads | 15 s | 21 s | 36 s | 20,300 hours of a processor |
# | led-base, two threads, batches of 8 | 11 s | 16 s | 28 s | 15,300 hours of a processor |
# | led-large on an H100 | 0.05 s | 1.7 s | 1.7 s | 480 hours of a GPU |
#
# What `estimate` assumes, it prints: all documents are as long, and are computed one batch after the other; no text ends
# early; files and loading take no time; other programs use the processors as they did while it measured; a real step takes
# half to twice as long as its own. On the GPU reading is 3.25 TFLOP ([counted](../gpu.md)), and a step of writing is its 279
# launches of 30 microseconds, which were measured with led-base alone; a batch shares them, so `--batch-size 8` may take a
# few times less. None of it has been run.
#
# ## A model for papers
#
# With Ai2's model that was taught to write abstracts (it has to be fetched; it was not run where this site was built):
#
# ```python
# led = led_ref.load("allenai/led-large-16384-arxiv", notice=print)
# print(led.generate(open("paper.txt").read(), num_beams=4, max_new_tokens=256))
# ```
#
# ## See and change what steers the search
#
# What a call works with comes from the call, else from the model's files, else it is a default. It can be printed:

# %%
settings = led.model.effective_settings(num_beams=2, max_new_tokens=12).to_dict()
print(
    {
        name: settings[name]
        for name in ("num_beams", "max_length", "no_repeat_ngram_size", "early_stopping", "length_penalty")
    }
)
for beams, penalty in ((1, 1.0), (4, 1.0), (4, 3.0)):
    text = led.generate(page, num_beams=beams, length_penalty=penalty, max_new_tokens=16)
    print(f"{beams} beams, length_penalty {penalty}: {text}")

# %% [markdown]
# All texts that were found, with their values: `led-ref generate page.txt --set num_return_sequences=4`.
#
# ## Long documents
#
# A document that is longer than the model reads is refused, and the message says both lengths. To read its beginning
# only, say so:

# %%
long_text = page * 30
try:
    led.generate(long_text)
except led_ref.InputError as error:
    print(error)
print(len(led.encode(long_text, truncation=True)), "tokens are read with truncation=True")

# %% [markdown]
# Which tokens see everything is `global_attention`: "first" by default, because LED was trained so. For a
# question in front of a document one would mark the question:

# %%
question = "How do I list an archive? "
tokens = len(led.tokenizer(question, add_special_tokens=False)["input_ids"])
print("global:", list(range(1 + tokens)))
print(led.generate(question + page, global_attention=list(range(1 + tokens)), max_new_tokens=12))

# %% [markdown]
# The bundled summarizer was not taught to answer, so the text is no answer. What the marks do is the point.
#
# ## Answer a question, label a text
#
# `led_ref.answer` and `led_ref.classify` want a model that was trained for it. [One for each](../bundled_answerer.md) comes
# with led_ref, and is taken where no model is named; fine-tuned ones of your own are named by folder, as ever. Both are
# LEDs with another head. To see what a head adds, here are two whose heads are **random numbers**, drawn on the spot on
# top of the bundled summarizer: what they say means nothing, how they are asked is the point.

# %% tags=["fold"]
from dataclasses import replace

import numpy as np

from led_ref.model.params import ClassificationHeadParams, Linear

rng = np.random.default_rng(0)


def drawn(out: int, into: int) -> Linear:
    return Linear(0.1 * rng.standard_normal((out, into), np.float32), np.zeros(out, np.float32))


config = replace(led.model.config, extra={**led.model.config.extra, "id2label": {"0": "dull", "1": "useful"}})
width = config.d_model
pointing = replace(led.model.params, qa_outputs=drawn(2, width))
judging = replace(led.model.params, classification_head=ClassificationHeadParams(drawn(width, width), drawn(2, width)))

answerer = led_ref.QuestionAnswerer(led_ref.LEDForQuestionAnswering(config, pointing), led.tokenizer, "random")
context = "tar packs files into an archive. gzip compresses one file at a time."
print("positions of the decoder:", answerer.model.longest_document)
for found in answerer.answer("What does tar do?", context, top_k=3, max_answer_len=4):
    print(
        f"{found.score:.5f}  {found.start:>2}-{found.end:<2}  {found.answer!r}",
        context[found.start : found.end] == found.answer,
    )

classifier = led_ref.Classifier(led_ref.LEDForSequenceClassification(config, judging), led.tokenizer, "random")
print(classifier.classify(context))

# %% [markdown]
# Encoder and decoder both read the text, so it may be as long as the shorter of their two position tables: 1,024 tokens
# for the sizes that Ai2 published. All tokens of the question are global, and `<s>`. From the shell:
# `led-ref answer "What does tar do?" page.txt --top-k 3`, `led-ref classify page.txt`, with `--model DIR` for your own.
# A model without such a head is refused, and the error says what it is:

# %%
try:
    led_ref.answer("What does tar do?", context, led_ref.bundled_model())
except led_ref.LEDError as error:
    print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## Know the cost before
#
# `led-ref estimate led-base --tokens 16384 --beams 4` measures this machine's speed for a second and divides. The
# memory needs no measuring: it is counted from the sizes.

# %% alt="Two stacked bars of memory by part; the folded one has no keys and values of the document"
from led_ref.costs import LED_BASE, Workload, plan

figure, axes = plt.subplots(figsize=(8, 2.4))
colors = [QUIET, f"{QUIET}90", f"{QUIET}40", BAND, GLOBAL, WRONG]
for place, way in enumerate(("cached", "folded")):
    plans = plan(LED_BASE, Workload(tokens=16384, beams=4, new_tokens=128, folded=way == "folded"))
    print(
        f"{way}: at most {plans.peak / 1e6:,.0f} MB at once;",
        ", ".join(f"{n} {s / 1e6:.0f}" for n, s in plans.parts.items()),
    )
    left = 0.0
    for (name, size), color in zip(plans.parts.items(), colors, strict=False):
        axes.barh(place, size / 1e6, left=left, color=color, label=name if place == 0 else None)
        left += size / 1e6
axes.set(yticks=(0, 1), yticklabels=("cached", "folded"), xlabel="MB, all parts (not all at once)")
axes.invert_yaxis()
axes.legend(ncols=2, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# When the document's keys and values are too much, `cross_attention="folded"` does without them: the same text, less
# memory, more time for a word.

# %%
print(led.generate(page, cross_attention="folded", max_new_tokens=16) == led.generate(page, max_new_tokens=16))

# %% [markdown]
# ## Convert a checkpoint
#
# `led-ref convert SRC DST` reads any form (`.bin`, safetensors, shards, allenai's own), writes one safetensors file
# with the names of transformers 5, and reads it back and compares every tensor. Here the bundled model, as float16,
# into a new folder:

# %%
from led_ref.weights.convert import convert

with tempfile.TemporaryDirectory() as scratch:
    convert(led_ref.bundled_model(), Path(scratch) / "half", dtype="float16")
    print(sorted(path.name for path in (Path(scratch) / "half").iterdir()))
    print(led_ref.generate(page, Path(scratch) / "half"))

# %% [markdown]
# ## Keep the weights smaller
#
# `quantize="int8"` rounds the matrices of all linear maps to 8 bits, `"nf4"` to 4. They stay so in memory, and become numbers
# a tile at a time inside a product. `led-ref convert SRC DST --quantize int8` writes such a folder. Embeddings, positions and
# norms stay as they are; in the bundled model they are nearly half of all numbers, so its file shrinks little:

# %%
from led_ref.weights import quantizable
from led_ref.weights.find_files import read_tensors

sizes = {key: tensor.data.size for key, tensor in read_tensors(led_ref.bundled_model()).items()}
rounded = sum(sizes[key] for key in quantizable(led.model.config))
print(f"{rounded:,} of {sum(sizes.values()):,} numbers are in those matrices")
before = led.generate(page, max_new_tokens=24)
print(repr(before))
with tempfile.TemporaryDirectory() as scratch:
    for dtype, kind in (("float32", None), ("float32", "int8"), ("float32", "nf4")):
        folder = Path(scratch) / (kind or dtype)
        convert(led_ref.bundled_model(), folder, dtype=dtype, quantize=kind)
        text = led_ref.generate(page, folder, max_new_tokens=24)
        size = (folder / "model.safetensors").stat().st_size
        print(f"{folder.name:<8} {size / 1e6:5.1f} MB  {'the same text' if text == before else repr(text)}")

# %% [markdown]
# A model this small has little to spare: one rounding may already change the words. On how many of 40 pages it does, and what
# it costs in memory, speed and accuracy at led-base's size: [Precision and size](../precision.md).
#
# ## Make a checkpoint
#
# From a BART, `led-ref convert --from-bart facebook/bart-base my-led` makes the LED that Ai2 began theirs with: what is
# missing is copied from what BART has ([how](../checkpoints.md#from-a-bart)). A loaded model is saved with
# `save_pretrained`. `add_tokens` gives a tokenizer more tokens, `resize_token_embeddings` returns a model with rows for
# them:

# %%
with tempfile.TemporaryDirectory() as scratch:
    tokenizer = led_ref.LEDTokenizer.from_pretrained(led_ref.bundled_model())
    print(tokenizer.add_tokens(["<doc-sep>"], special_tokens=True), tokenizer.encode("<doc-sep>"))
    larger = led.model.resize_token_embeddings(len(tokenizer))
    larger.save_pretrained(Path(scratch) / "larger", others=tokenizer.save_pretrained)
    print(sorted(path.name for path in (Path(scratch) / "larger").iterdir()))
    print(led_ref.generate(page, Path(scratch) / "larger") == led.generate(page))

# %% [markdown]
# ## Look inside
#
# A trace keeps every intermediate of a run, under the name that the checkpoint has for the place:

# %%
recorded = led_ref.trace(led, "Pack files with tar.", max_new_tokens=4, only="led.encoder.layers.0.*")
step = recorded.steps["led.encoder.layers.0.fc1.output"]
print(len(recorded), "arrays; one of them:", step.name, step.value.shape, "=", step.equation, "at", step.source)

# %% [markdown]
# ## On a GPU
#
# `led_ref.load(backend="cupy")`, or `--backend cupy`. `led-ref doctor --gpu` checks it on your machine.
# [On a GPU](../gpu.md) says on which one it last ran, and what was found.
#
# ## What goes wrong when one thing is changed
#
# A mistake in a call is an error that names what was found and what to do. A misspelt setting is not dropped:

# %%
for mistake in (
    {"num_beam": 4},
    {"global_attention": "frist"},
    {"num_beams": 2, "num_return_sequences": 4},
    {"global_attention": [0, 99999]},
):
    try:
        led.generate(page, **mistake)
    except led_ref.LEDError as error:
        print(f"{mistake}\n   {type(error).__name__}: {error}\n")

# %% [markdown]
# ## Exercises
#
# 1. Summarize a file of your own with one beam and with eight. Is the text of the higher value the better one?
# 2. Mark all tokens global (`global_attention="all"`) and time it against "first". Chapter 13 says what to expect.
# 3. Convert a model to bfloat16 and compare the logits of both on one document.
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **1.** Not in general. The value is the model's own: the mean log-probability of a word. On the manual page one beam finds
# -0.567 ("A document is a text file of up to 16384 tokens"), eight find -0.361 ("convert long documents and writes a short
# summary of each"). A higher value says that the model holds the text for more likely. Whether it is better, only a reader
# or a measure beside a reference can say ([evaluation](../evaluation.md)).
#
# **2.** Time the reading (`led.model.encoder`), because the texts differ, and with them the number of steps. The page of
# 784 tokens takes 50 ms with one global token and 73 ms with 784, on two cores with other work beside it: its window of
# 129 tokens is small, but so is the page. The longer the document, the larger the difference: it grows with T², as full
# attention does.
#
# **3.** `convert(SRC, DST, dtype="bfloat16")`, then load both folders. On the page the logits of the first two positions
# differ by 0.05 at most, where the largest is 14.4: bfloat16 keeps 8 bits, so a weight moves by up to 0.4%. The text stays
# the same here; where two words are nearly equal it may change.
#
# </details>
