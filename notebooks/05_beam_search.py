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
# # Beam search
#
# The decoder gives a probability for the next token. A text's probability is the product of those of its tokens, so its
# logarithm is a sum. The best text is the one with the largest sum, but there are 6,144 × 6,144 × ... texts. Nobody looks at
# all of them.
#
# **Greedy search** takes the best token each time. **Beam search** keeps the W best beginnings, and goes on from all of them.
# This notebook begins with a world so small that all its texts can be listed, then draws the tree of a real search, with the
# arithmetic of its scores.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET

import led_ref
from led_ref.generation.beam_search import beam_search
from led_ref.generation.greedy_search import greedy_search
from led_ref.generation.settings.settings import GenerationSettings

# %% [markdown]
# ## A world of six words
#
# What may follow what, with which probability. Whatever is not listed cannot follow.

# %%
WORDS = ["<end>", "<start>", "the", "a", "cat", "dog"]
FOLLOWS = {
    "<start>": {"the": 0.55, "a": 0.45},
    "the": {"cat": 0.5, "dog": 0.5},
    "a": {"dog": 0.9, "cat": 0.1},
    "cat": {"<end>": 1.0},
    "dog": {"<end>": 1.0},
}
probability_VV = np.array([[FOLLOWS.get(word, {}).get(after, 0.0) for after in WORDS] for word in WORDS])


def all_texts(beginning=("<start>",), probability=1.0):
    """Every text and its probability."""
    if beginning[-1] == "<end>":
        yield " ".join(beginning[1:-1]), probability
    for after, p in FOLLOWS.get(beginning[-1], {}).items():
        yield from all_texts((*beginning, after), probability * p)


for text, p in sorted(all_texts(), key=lambda entry: -entry[1]):
    print(f"{p:.3f}  {text}")

# %% [markdown]
# The best text is "a dog". Greedy search cannot find it: its first word is "the", because 0.55 is more than 0.45, and from
# there it comes to 0.275 at most. With two beams both beginnings live on, and the second step decides.
#
# led_ref's searches know no model. They are given a *step function*: ids in, one row of scores for each beam out. So the
# small world can be handed to the very search that LED is run with.


# %%
def step(token_ids, parents):
    """Log-probabilities of what follows the last id of each row."""
    return np.log(np.maximum(probability_VV[token_ids[:, -1]], 1e-30))


settings = {"max_length": 5, "eos_token_id": 0, "pad_token_id": 0, "length_penalty": 0.0}
start = np.array([[WORDS.index("<start>")]])
greedy = greedy_search(step, start, GenerationSettings(**settings)).sequences[0]
print("greedy: ", " ".join(WORDS[i] for i in greedy))
for beams in (2, 3):
    found = beam_search(step, start, GenerationSettings(num_beams=beams, **settings))
    words, score = (" ".join(WORDS[i] for i in found.sequences[0]), found.sequences_scores[0])
    print(f"{beams} beams: {words}, probability {math.exp(score):.3f}")

# %% [markdown]
# ## A search on a real page
#
# Now the bundled model and its manual page, with four beams. A trace of the call has all that the search decided: in each
# step the candidates (which beam, which token, what sum), which of them go on, and which texts are finished.

# %%
led = led_ref.load()
page = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
ids = led.encode(page)
W = 4
read = led.model.encoder([ids], global_attention_mask=[[1] + [0] * (len(ids) - 1)])
options = {"num_beams": W, "num_return_sequences": W, "return_dict_in_generate": True}
trace = led_ref.trace(led.model.generate, encoder_outputs=read, input_ids=[ids], only="beam.*", **options)
found = led.model.generate([ids], encoder_outputs=read, **options)
steps = sum(name.endswith(".running.tokens") for name in trace)


def shown(i):
    """A token as it is written in the picture."""
    return led.tokenizer.decode([int(i)]).replace("\n", "↵")


for n in range(3):
    table = [trace[f"beam.step.{n}.candidates.{what}"][0] for what in ("beams", "tokens", "scores", "stops")]
    print(f"step {n}")
    for beam, token, score, stops in list(zip(*table, strict=True))[:W]:
        print(f"    beam {beam} + {shown(token)!r:10} sum {score:7.3f} {'(ends)' if stops else ''}")

# %% [markdown]
# In the first step there is one beginning, and its four best continuations become the beams. (The model was trained to
# begin with `<s>`; all others are far behind.) From then on the four beams compete: one may have two children among the best
# four, and another none. The picture begins after three steps, with what each beam has added in the fourth.

# %% alt="A tree from left to right, four places in each step: lines join each token to the one it goes on from; most die out"
grey, teal, orange = QUIET, BAND, GLOBAL
best_path = set()  # (step, beam) that lead to the text that won
for n, row in enumerate(found.beam_indices[0]):
    if row >= 0 and n:
        best_path.add((n - 1, int(row)))

FIRST = 3  # the steps before it are left out
figure, axes = plt.subplots(figsize=(9, 4.4))
for n in range(FIRST, steps):
    here = f"beam.step.{n}"
    tokens, parents, scores = (trace[f"{here}.running.{what}"][0] for what in ("tokens", "beams", "scores"))
    for w in range(W):
        if scores[w] < -1e8:
            continue
        lives = (n, w) in best_path
        colour = teal if lives else grey
        if n > FIRST:
            width = 2 if lives else 0.8
            axes.plot([n - 0.66, n - 0.34], [parents[w], w], color=colour, linewidth=width)
        axes.text(n, w, shown(tokens[w]), ha="center", va="bottom", fontsize=8, color=colour)
        axes.text(n, w + 0.04, f"{scores[w]:.2f}", ha="center", va="top", fontsize=6.5, color=colour)
    ends = trace[f"{here}.candidates.stops"][0][:W]
    for c in np.flatnonzero(ends):
        before, total = (trace[f"{here}.candidates.beams"][0][c], trace[f"{here}.candidates.scores"][0][c])
        value = total / (n + 1)
        axes.plot([n - 0.68, n - 0.45], [before, before + 0.42], color=orange, linewidth=1.2)
        axes.text(n - 0.42, before + 0.45, f"end {value:.3f}", fontsize=6.5, color=orange, va="center")
axes.set(xlim=(FIRST - 0.5, steps - 0.5), xticks=range(FIRST, steps), xlabel="step")
axes.set(ylim=(W - 0.2, -0.6), yticks=range(W), ylabel="beam, best first")
axes.set(title="the search: sums of log-probabilities; in orange, texts that end")
plt.show()
for row, score in zip(found.sequences, found.sequences_scores, strict=True):
    print(f"{score:7.3f}  {led.tokenizer.decode(row, skip_special_tokens=True)}")

# %% [markdown]
# ## The arithmetic of a score
#
# A sum of logarithms gets lower with each token, so of two equally good texts the shorter would win. A finished text's score
# is therefore divided by its length to some power:
#
# ```text
# score  =  Σ log p(token)  /  length ** length_penalty         length: all written tokens, the end too, not the start
# ```
#
# For the winner, token by token, from the model itself (the whole text at once, no search):

# %%
best = [int(i) for i in found.sequences[0] if i != led.model.config.pad_token_id]
logits_UV = led.model(encoder_outputs=read, decoder_input_ids=[best[:-1]]).logits[0].astype("float64")
shifted_UV = logits_UV - logits_UV.max(axis=-1, keepdims=True)
logprobs_UV = shifted_UV - np.log(np.exp(shifted_UV).sum(axis=-1, keepdims=True))
each = [logprobs_UV[u, i] for u, i in enumerate(best[1:])]
for i, logprob in zip(best[1:], each, strict=True):
    print(f"{shown(i)!r:12} p = {math.exp(logprob):.3f}   log p = {logprob:7.3f}")
mean, claimed = sum(each) / len(each), found.sequences_scores[0]
print(f"sum {sum(each):.4f} / {len(each)} tokens = {mean:.4f}; the search said {claimed:.4f}")
assert abs(mean - claimed) < 1e-4

# %% [markdown]
# `length_penalty` is a misleading name: the higher it is, the more it **lifts** long texts. 0 compares plain sums, 1 means.
# And a wider beam finds texts that are more probable, which need not be better ones.

# %%
for beams in (1, 2, 4, 8, 16):
    wide = led.model.generate(
        [ids], encoder_outputs=read, num_beams=beams, return_dict_in_generate=True, early_stopping=beams > 1
    )
    score = "" if beams == 1 else f"{wide.sequences_scores[0]:7.3f}"
    print(f"{beams:2} beams {score:8} {led.tokenizer.decode(wide.sequences[0], skip_special_tokens=True)}")
print()
for penalty in (0.0, 1.0, 2.0):
    text = led.generate(page, num_beams=4, length_penalty=penalty, early_stopping=False)
    print(f"length_penalty {penalty}: {text}")

# %% [markdown]
# ## What a mistake looks like
#
# When beams change places, the KV cache of their prefixes must change places with them. If the new parents are ignored, beam
# 0 goes on with the past of what is now beam 2. Shapes fit, nothing fails, and the text is still a text. The mistake is
# made here by a step function that forgets `parents`:

# %%
from led_ref.classes.generate import DecodingStep
from led_ref.generation.search import make_prompt, search
from led_ref.model.kv_cache import CachePlan


def search_with(step):
    """The same search with another step function: its four best texts."""
    resolved = led.model.effective_settings(num_beams=W, num_return_sequences=W)
    prompt = make_prompt(None, documents=1, start_token_id=led.model.config.decoder_start_token_id)
    return search(step, prompt, resolved, source_ids=np.array([ids]))


def new_step():
    """The model, with the document read and nothing written."""
    return DecodingStep(led.model.led, led.model.led.source_memory(read, CachePlan(W)), None)


def read_as_a_whole(sequence):
    """The mean log-probability that the model gives a text when it sees all of it at once."""
    text = [int(i) for i in sequence if i != led.model.config.pad_token_id]
    return -float(led.model(encoder_outputs=read, labels=[text[1:]]).loss)


right = search_with(new_step())
model_step = new_step()
wrong = search_with(lambda token_ids, parents: model_step(token_ids, None if parents is None else np.arange(W)))
for name, result in (("right", right), ("parents ignored", wrong)):
    print(f"{name}\n claims  as a whole")
    for sequence, claimed in zip(result.sequences, result.sequences_scores, strict=True):
        text = led.tokenizer.decode(sequence, skip_special_tokens=True)
        print(f"{claimed:7.3f}  {read_as_a_whole(sequence):10.3f}  {text}")

# %% [markdown]
# A text can come out right by luck: where its beam stayed in its place all along. The scores of the others show it. The score
# that a search claims must be the score of its text, computed again without any cache. led_ref's tests compare whole
# searches with `led_ref/oracle/definition/search.py`, which keeps plain lists and no cache at all.
#
# ## To try
#
# 1. Change one number of the small world so that two beams fail as well. How many are needed then?
# 2. The picture shows sums; the orange numbers are means. Find a step where a text ends with a better mean than the best
#    running one has, and say why the search did not stop there. (`early_stopping` in `led_ref/generation/settings/settings.py`)
# 3. Search with 64 beams. Is the line better? Is its score?
