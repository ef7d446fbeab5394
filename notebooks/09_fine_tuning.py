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
# # Fine-tuning
#
# A trained model writes as its training documents were summarized. To make it write otherwise, show it some documents
# with the summaries you want: **fine-tuning**. Here the bundled model, which writes `name - what it does` about a manual
# page, learns another form, `use name to ...`, from 64 short pages. It takes under two minutes on two cores, and we look at
# what changes: the loss, the texts, and the weights themselves. At the end are the lines to change for PubMed.

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET, shares

import led_ref

folder = Path(tempfile.mkdtemp())
start = led_ref.bundled_model()

# %% [markdown]
# ## The documents
#
# One document a line, with its summary: JSON Lines. The names are invented. Half of the things that a page can be about are
# held out: no training page has them, so a good score on them cannot come from learning by heart.

# %%
verbs = {"packs": "pack", "sorts": "sort", "prints": "print", "copies": "copy"}
things = ["archives", "mail", "images", "records"]
others = ["tables", "logs", "fonts", "keys"]
names = ["fox", "lamp", "river", "stone", "cloud", "bell", "apple", "wolf"]


def page(name, verb, thing):
    """A short page, and the line that we want to be written about it."""
    text = (
        f"SYNOPSIS {name} [OPTION]... [FILE]... DESCRIPTION {name} {verb} {thing}. With no FILE, or when FILE is -, it reads "
        f"standard input. OPTIONS -v says what {name} does. -q makes it quiet. EXIT STATUS 0 if all {thing} were read."
    )
    return {"text": text, "summary": f"use {name} to {verbs[verb]} {thing}"}


def write(path, pages):
    """One page a line."""
    path.write_text("".join(json.dumps(each) + "\n" for each in pages), encoding="utf-8")


rng = np.random.default_rng(9)
train_pages = [page(rng.choice(names), verb, thing) for verb in verbs for thing in things for _ in range(4)]
heldout_pages = [page(rng.choice(names), verb, thing) for verb in verbs for thing in others]
write(folder / "train.jsonl", train_pages)
write(folder / "heldout.jsonl", heldout_pages)
print(train_pages[0]["text"])
print("->", train_pages[0]["summary"])

# %% [markdown]
# ## Before
#
# The right line has a probability, token by token, under the model as it comes. It is low where the form is new.

# %%
before = led_ref.load(start)


def written(led, pages):
    """What a model writes about each page."""
    return led.generate([each["text"] for each in pages], num_beams=1, max_new_tokens=24)


for each, text in zip(heldout_pages[:4], written(before, heldout_pages[:4]), strict=True):
    print(f"{each['summary']:24} {text!r}")

# %% [markdown]
# ## The training
#
# `led_ref.train` is what `led-ref train` calls. It reads and checks all documents first. `validate` names held-out documents:
# the model of the best held-out loss is kept, and the last one beside it.

# %%
curve = []
trained = led_ref.train(
    folder / "train.jsonl",
    model=start,
    out=folder / "tuned",
    validate=folder / "heldout.jsonl",
    learning_rate=6e-4,
    num_train_epochs=5,
    per_device_train_batch_size=8,
    warmup_steps=4,
    seed=9,
    on_log=curve.append,
)
print(f"{trained.steps} steps")

# %% alt="The loss on training documents and on held-out ones falls from 8 to almost 0 in 40 steps"
steps = [line for line in curve if "loss" in line]
checks = [line for line in curve if "eval_loss" in line]
figure, axes = plt.subplots(figsize=(8, 3))
axes.plot([line["step"] for line in steps], [line["loss"] for line in steps], color=BAND, label="training")
axes.plot(
    [line["step"] for line in checks], [line["eval_loss"] for line in checks], "o-", color=GLOBAL, label="held out"
)
axes.set(xlabel="step", ylabel="loss, nats a token")
axes.legend()
plt.show()

# %% [markdown]
# ## After

# %%
after = led_ref.load(folder / "tuned")
right = 0
for each, text in zip(heldout_pages, written(after, heldout_pages), strict=True):
    right += text == each["summary"]
    print(f"{each['summary']:24} {text!r}")
print(f"{right} of {len(heldout_pages)} held-out pages have exactly the right line")

# %% [markdown]
# ## What became likely
#
# The probability of each token of one held-out line, given those before it, before and after.

# %% alt="Bars: each token of the right line is more likely after the training than before"
example = heldout_pages[1]
labels = after.tokenizer(example["summary"]).input_ids


def likelihood(led):
    """p of each token of the right line."""
    ids = led.encode(example["text"])
    logits = led.model([ids], global_attention_mask=[[1] + [0] * (len(ids) - 1)], labels=[labels]).logits[0]
    probs = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (probs / probs.sum(axis=-1, keepdims=True))[np.arange(len(labels)), labels]


pieces = [repr(after.tokenizer.decode([i])) for i in labels]
figure, axes = plt.subplots(figsize=(8, 3))
places = np.arange(len(labels))
axes.bar(places - 0.2, likelihood(before), 0.4, color=QUIET, label="before")
axes.bar(places + 0.2, likelihood(after), 0.4, color=BAND, label="after")
axes.set(xticks=places, xticklabels=pieces, ylabel="p")
axes.tick_params(axis="x", rotation=60)
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
plt.show()

# %% [markdown]
# ## Which weights moved
#
# The length of the change of each matrix, over the length of the matrix. Every weight has moved only a little: the model
# knew how to find a name and a purpose; it learned how to write them down.

# %% alt="A table of bars: the relative change of the weight matrices, by layer of encoder and decoder"
old, new = before.model.state_dict(), after.model.state_dict()
moved = {
    key: float(np.linalg.norm(new[key] - old[key]) / np.linalg.norm(old[key]))
    for key in new
    if new[key].ndim == 2 and np.linalg.norm(old[key])
}
layers = [key for key in moved if ".layers." in key]
columns = sorted({key.split(".", 4)[4].removesuffix(".weight") for key in layers})
rows = sorted({".".join(key.split(".")[1:4]) for key in layers}, key=lambda row: (row.split(".")[0] != "encoder", row))
table = np.full((len(rows), len(columns)), np.nan)
for key in layers:
    table[rows.index(".".join(key.split(".")[1:4])), columns.index(key.split(".", 4)[4].removesuffix(".weight"))] = (
        moved[key]
    )
figure, axes = plt.subplots(figsize=(9, 4))
image = axes.imshow(table, cmap=shares(), aspect="auto")
axes.set(xticks=range(len(columns)), yticks=range(len(rows)), yticklabels=rows)
axes.set_xticklabels([column.replace("longformer_self_attn.", "") for column in columns], rotation=70, ha="right")
figure.colorbar(image, ax=axes, label="relative change")
plt.show()
print(f"the embedding table: {moved['led.shared.weight']:.4f}")

# %% [markdown]
# ## To try
#
# 1. Halve the training pages (`range(2)`). How many held-out lines are right now, and where does their loss stop falling?
# 2. Train with `lora_rank=4` and `learning_rate=3e-3`. Which maps move, and by how much?
# 3. Freeze the encoder (`freeze=("encoder",)`). Does it still learn the form? The right words?
#
# ## The lines that change for PubMed
#
# The notebook of transformers fine-tunes led-base on papers of PubMed. Its settings have a name here. Its documents are fetched
# by the `datasets` library (`scientific_papers`, `pubmed`), and are not part of led_ref; write them as lines with `article` and
# `abstract`. Then:
#
# ```python
# led_ref.train(
#     "pubmed.jsonl",
#     model="allenai/led-base-16384",
#     out="led-pubmed",
#     recipe="pubmed-notebook",  # 250 papers of 8,192 tokens, 512 of the abstract; 2 x 4 a step; one epoch at 5e-5
#     text_field="article",
#     target_field="abstract",
#     validate="pubmed-heldout.jsonl",
# )
# led_ref.load("led-pubmed").generate(paper)  # 2 beams, at least 100 tokens, as the recipe says
# ```
#
# | step of that notebook | here |
# |---|---|
# | `process_data_to_model_inputs`: ids, masks, labels | the same; too long is refused, or cut with `truncate` |
# | `global_attention_mask[0][0] = 1`, in rows that are one and the same list | `<s>` of every document is global |
# | `gradient_checkpointing=True, use_cache=False` | how the backward pass is written; nothing to set |
# | `fp16=True` | float32 on a CPU |
# | `Seq2SeqTrainer.train()` | the same steps, to the order of the documents |
#
# On a CPU that is a training for a night. `led-ref train --optimizer adafactor` and `--lora-rank 8` take less memory. These
# lines have not been run here: neither the papers nor that checkpoint were at hand.
