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
# # Searching for words
#
# **The question.** The model gives a probability to every word that could come next. Which text is the one to write?
#
# The best text would be the one whose words' probabilities multiply to the most. With V = 6,144 words and twenty
# places there are 6,144²⁰ texts, so nobody looks at all of them. Two ways to look at few:
#
# - **greedy search** writes the most probable word, again and again;
# - **beam search** keeps the W best unfinished texts, called **hypotheses**, and continues all of them.
#
# Products of many small numbers vanish, so logarithms are added instead. The score of a text is
#
# $$\text{score} = \sum_u \log p(w_u \mid w_1 \dots w_{u-1}, \text{document})$$
#
# A logarithm of a probability is never above zero, so a score only falls as a text grows.

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, QUIET, WRONG, manual_page, source
from book_trees import beam_tree

import led_ref
from led_ref.generation.beam_search import beam_search
from led_ref.generation.greedy_search import greedy_search

led = led_ref.load()

# %% [markdown]
# ## By hand
#
# A model that can be worked out on paper. It knows six words; 2 begins a text. The table says what follows what:
#
# | after | comes | with probability |
# |---|---|---:|
# | 2 | 3 | 0.6 |
# | 2 | 4 | 0.4 |
# | 3 | 0 or 1 | 0.5 each |
# | 4 | 5 | 1 |
#
# Greedy search takes 3, because 0.6 is more than 0.4, and ends at 0.6 · 0.5 = 0.3. But 4 then 5 has 0.4 · 1 = 0.4.

# %%
P = np.full((6, 6), 1e-30)
P[2, 3], P[2, 4], P[3, 0], P[3, 1], P[4, 5] = 0.6, 0.4, 0.5, 0.5, 1.0


def table_model(token_ids, parents):
    """A model that looks at the last word only: logits (N, V). `parents` says where each row came from; it needs no cache."""
    return np.log(P[token_ids[:, -1]]).astype(np.float32)


start, three_ids = np.array([[2]]), {"max_length": 3, "pad_token_id": 1}
one, two = (led_ref.GenerationSettings(num_beams=beams, **three_ids) for beams in (1, 2))
searches = {"greedy": greedy_search(table_model, start, one), "two beams": beam_search(table_model, start, two)}
for name, found in searches.items():
    text = found.sequences[0].tolist()
    probability = math.prod(P[a, b] for a, b in itertools.pairwise(text))
    print(f"{name:10} writes {text}: probability {probability:.1f}, score {math.log(probability):.3f}")

# %% [markdown]
# The search is handed nothing but such a function. It does not know what a model is:

# %%
source("led_ref.generation.greedy_search:generate_ids")

# %% [markdown]
# `step` is the model. What is about `LookupStep` belongs to prompt lookup, which takes several words from the document at a
# time; pass over it. `pick` chooses an id for each row. In greedy search it is the whole idea, one **argmax**:

# %%
source("led_ref.generation.greedy_search:best_ids", docstring=True)

# %% [markdown]
# ## A step of beam search
#
# W texts, V words each: W × V candidates, each with its text's score plus the new word's log-probability. The best go
# on. Texts that end with this word do not, and W must remain; so the code takes the best 2 W, of which at most W end here.
# At first all W texts are the same, the start alone. So the first of them begins with a score of 0 and the others with one
# that is hopeless, -10⁹: the first step takes W different words after the one start.

# %%
source("led_ref.generation.beam_search:best_candidates")

# %% [markdown]
# ## The beam tree of a real run
#
# The bundled model writes the first words about led_ref's manual page with three beams. `led_ref.trace` keeps what every
# step decided: the candidates, the text that each goes on from, and the scores. A row of the tree is a step. On each edge
# stands what the new word adds; in each node, what the text has come to, both rounded. The three texts at the left go on;
# grey ones were not good enough (the sixth and last candidate of a step is not drawn). The thick line is the text that was
# chosen in the end. ([book_trees.py](../book_trees.py) draws it.)

# %%
page = manual_page()
BEAMS, STEPS = 3, 7
recorded = led_ref.trace(
    led, page, num_beams=BEAMS, max_new_tokens=STEPS, no_repeat_ngram_size=0, early_stopping=False, only="beam.*"
)


def of(step, name):
    """What a step decided, of the only document."""
    return recorded[f"beam.step.{step}.{name}"][0]


# A node: (step, place among the running beams) -> word, score. Edges lead to the beam of the step before.
for n in range(3):
    print(f"step {n}")
    for word, beam, score in zip(of(n, "running.tokens"), of(n, "running.beams"), of(n, "running.scores"), strict=True):
        before = 0.0 if n == 0 else of(n - 1, "running.scores")[beam]
        print(f"  beam {beam} + {led.tokenizer.decode([word])!r:9} {before:7.3f} {score - before:+7.3f} = {score:7.3f}")

# %% alt="Row by row a tree of words and scores grows; dropped candidates are grey, the path of the chosen text is thick"
beam_tree(recorded, led.tokenizer.decode).show()
text = led.tokenizer.decode(recorded["beam.sequences"][0], skip_special_tokens=True)
print(f"written: {text}, value {recorded['beam.sequences_scores'][0, 0]:.3f}")

# %% [markdown]
# Every text begins with `</s>` (the start), and the first word is nearly always `<s>`: LED was trained so.
#
# A text that ends with `</s>` does not go on, and waits among the finished ones. In the sixth row all three texts go on
# from the first beam: the other two **die**. In the last row the length is reached, and all texts end. What the chosen one
# is worth, its value, is explained below.
#
# Every number can be followed with a finger: a node's score is its parent's plus what stands on the edge. In the code
# that is one addition, for all W × V candidates at once. The check, for all steps:

# %%
for n in range(1, STEPS):
    parent_scores = of(n - 1, "running.scores")[of(n, "candidates.beams")]
    added = recorded[f"beam.step.{n}.logprobs"][of(n, "candidates.beams"), of(n, "candidates.tokens")]
    assert np.allclose(parent_scores + added, of(n, "candidates.scores"), atol=1e-6)
print("every candidate's score is its text's score plus its word's log-probability")

# %% [markdown]
# ## The length penalty
#
# A text that has ended is put among the finished ones. But scores only fall, so the shortest text would nearly always
# win. So an ended text is worth
#
# $$\text{value} = \frac{\text{score}}{\text{words}^{\,\text{length\_penalty}}}$$
#
# With a penalty of 1 that is the mean log-probability of a word. With 0 it is the plain score. Scores are negative: a
# **positive** penalty makes long texts **better**. The name says the opposite, and has been misread often.

# %%
source("led_ref.generation.beam_search:finished_values")

# %% alt="Value against words: falling for penalty 0, level for penalty 1, rising for penalty 2"
words = np.arange(1, 41)
figure, axes = plt.subplots(figsize=(6, 3))
for penalty, color in ((0.0, WRONG), (1.0, QUIET), (2.0, BAND)):
    axes.plot(words, -0.5 * words / words**penalty, color=color, label=f"length_penalty {penalty}")
axes.set(xlabel="words", ylabel="value", ylim=(-4, 0.1), title="a text whose every word costs 0.5")
axes.legend()
plt.show()
for words_written, score in ((4, -2.0), (8, -3.6)):
    values = ", ".join(f"{score / words_written**penalty:7.3f}" for penalty in (0, 1, 2))
    print(f"{words_written} words, score {score}: values {values}   with penalties 0, 1, 2")

# %% [markdown]
# By hand, in the last two lines: without a penalty the short text wins (-2.0 is more than -3.6), with 1 the long one
# does (-0.45 is more than -0.5). On the page of the manual, with the bundled model:

# %%
for penalty in (-2.0, 1.0, 4.0):
    text = led.generate(page, num_beams=4, max_new_tokens=24, early_stopping=False, length_penalty=penalty)
    print(f"{penalty:5}  {text!r}")

# %% [markdown]
# With -2 a short text is worth more than its plain score says, with 4 a long one is.
#
# ## More beams are not always better
#
# With a beam for every text that there can be, the best is found. With fewer, one more beam may even find less. Here the
# model writes about one piece of the page after the other, until one more beam finds a text that is worth less:


# %%
def search(piece, beams):
    """A trace of the search, with so many beams."""
    settings = {"max_new_tokens": 12, "no_repeat_ngram_size": 0, "early_stopping": "never"}
    return led_ref.trace(led, piece, num_beams=beams, **settings, only="beam.*")


def value(recorded):
    """What the text that was chosen is worth."""
    return recorded["beam.sequences_scores"][0, 0]


tries = ((page[at : at + 150], beams) for at in range(1000, 2600, 100) for beams in range(2, 7))
piece, fewer = next(
    (piece, beams) for piece, beams in tries if value(search(piece, beams)) > value(search(piece, beams + 1)) + 0.01
)
found = {beams: search(piece, beams) for beams in (fewer, fewer + 1)}
print(f"of the piece {piece[:40]!r} ...")
for beams, recorded in found.items():
    text = led.tokenizer.decode(recorded["beam.sequences"][0], skip_special_tokens=True)
    print(f"{beams} beams: value {value(recorded):.4f}  {text}")

# %% [markdown]
# Follow the text that fewer beams find, word by word: its place among the running texts, and the score of the last of them.

# %%
best = found[fewer]["beam.sequences"][0].tolist()
end = led.tokenizer.eos_token_id
best = best[: best.index(end, 1)] if end in best[1:] else best


def places(recorded):
    """Of the best text's first 1, 2, ... words: the place among the running texts, or None; and the last one's score."""
    texts = [[]]
    for n in range(len(best) - 1):
        now = f"beam.step.{n}.running"
        parents, ids, scores = (recorded[f"{now}.{what}"][0] for what in ("beams", "tokens", "scores"))
        texts = [[*texts[parent], int(word)] for parent, word in zip(parents, ids, strict=True)]
        prefix = best[1 : n + 2]
        yield texts.index(prefix) + 1 if prefix in texts else None, scores[-1]


print(f"word      its place of {fewer}, the last one's score   its place of {fewer + 1}, the last one's score")
for n, (few, more) in enumerate(zip(places(found[fewer]), places(found[fewer + 1]), strict=True), 1):
    word = led.tokenizer.decode([best[n]])
    print(f"{n} {word!r:9} {few[0]!s:>6} {few[1]:12.2f} {more[0]!s:>25} {more[1]:12.2f}")

# %% [markdown]
# Where its place becomes None, the text is pushed out, though it would have won in the end: the additional beam had kept
# another text, whose children were worth a little more just then.

# %% [markdown]
# ## Drawing words instead
#
# A search looks for the likeliest text. People do not write the likeliest text, and where variety is wanted the next
# word is **drawn** by its probability: a word of 0.3 comes three times in ten. But 6,144 words share what is left, and
# a draw among the unlikely ones ruins a text. So filters cut them off first; each has its own idea of what is too
# unlikely. The **temperature** is no filter: it divides the logits, so above 1 it makes all probabilities more alike, and
# below 1 less. Here is what the model would write after its first words, then with a temperature, then behind four filters:

# %%
from led_ref.generation.warpers import build_warpers, probabilities

read = led.encode(page)
first = np.eye(1, len(read), dtype=int)  # the first token is global
once = led.model.encoder([read], global_attention_mask=first)
begun = led.tokenizer("led-ref - print", add_special_tokens=False)["input_ids"]
out = led.model(encoder_outputs=once, decoder_input_ids=[[2, 0, *begun]])
logits = out.logits[:, -1]
filters = {
    "no filter": {"top_k": 0},
    "temperature 2": {"top_k": 0, "temperature": 2.0},
    "top_k 5": {"top_k": 5},
    "top_p 0.7": {"top_k": 0, "top_p": 0.7},
    "min_p 0.2": {"top_k": 0, "min_p": 0.2},
    "typical_p 0.5": {"top_k": 0, "typical_p": 0.5},
}
left = {}
for name, given in filters.items():
    scores = logits
    for warper in build_warpers(led_ref.GenerationSettings(do_sample=True, **given)):
        scores = warper(np.array([[2]]), scores)
    left[name] = probabilities(scores)[0]

# %% alt="Six panels of the twelve likeliest words: each filter leaves another number of bars, and they add up to one"
likeliest = np.argsort(-left["no filter"])[:12]
figure, panels = plt.subplots(2, 3, figsize=(10, 5), sharex=True, sharey=True)
for panel, (name, probs) in zip(panels.flat, left.items(), strict=True):
    panel.bar(range(12), left["no filter"][likeliest], color=QUIET)
    panel.bar(range(12), probs[likeliest], color=BAND, width=0.5)
    panel.set_title(f"{name}: {np.count_nonzero(probs):,} words")
    panel.set_xticks(range(12), [led.tokenizer.decode([word]).strip() for word in likeliest], rotation=60, ha="right")
figure.suptitle("wide: before the filter; narrow: what is drawn from")
plt.show()

# %% [markdown]
# What a filter leaves keeps its proportions and adds up to 1 again. `top_k` asks how many, `top_p` how much of the whole,
# `min_p` how much beside the best; `typical_p` takes those whose surprise is near the mean, and may leave out the best.
# A filter of each kind is a few lines:

# %%
source("led_ref.generation.warpers:top_p")

# %% [markdown]
# Drawn texts, three of each; "hot" ones with a temperature of 3 from the 50 likeliest words, the default `top_k`. The same
# seed draws the same text again, on every machine and in any batch, because each text has random numbers of its own:

# %%
drawing = {"num_beams": 1, "do_sample": True, "max_new_tokens": 12, "num_return_sequences": 3}
for name, given in (
    ("all words", {"top_k": 0}),
    ("top_p 0.7", {"top_k": 0, "top_p": 0.7}),
    ("hot", {"temperature": 3.0}),
):
    ids = led.model.generate(encoder_outputs=once, seed=1, **drawing, **given)
    again = led.model.generate(encoder_outputs=once, seed=1, **drawing, **given)
    assert np.array_equal(ids, again)
    for text in led.tokenizer.batch_decode(ids.tolist(), skip_special_tokens=True):
        print(f"{name:10} {text.strip()}")

# %% [markdown]
# ## What goes wrong when one thing is changed
#
# The mutant `all-beams-begin` gives all W copies of the start a score of 0, and not only the first. Then all beams write
# the same text, and beam search is greedy search that takes W times as long:

# %% tags=["fold"]
from unittest.mock import patch

from led_ref.generation import beam_search as beam_module

begin = beam_module.start_beams


def all_begin(prompt_ids, settings):
    """The mutant: every beam starts with a score of 0."""
    from dataclasses import replace

    beams = begin(prompt_ids, settings)
    running = replace(beams.running, scores_BX=np.zeros_like(beams.running.scores_BX))
    return replace(beams, running=running)


several = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 16, "no_repeat_ngram_size": 0}
several["return_dict_in_generate"] = True
right = led.model.generate(encoder_outputs=once, **several)
with patch.object(beam_module, "start_beams", all_begin):
    wrong = led.model.generate(encoder_outputs=once, **several)
for name, found in (("right", right), ("mutant", wrong)):
    print(name)
    for sequence, value in zip(found.sequences, found.sequences_scores, strict=True):
        print(f"  {value:7.4f}  {led.tokenizer.decode(sequence, skip_special_tokens=True)}")

# %% [markdown]
# ## Exercises
#
# 1. `led-ref exercise 9`: the best candidates of a step, and the value of a text.
# 2. In the picture, find a text that was ahead and fell behind. On which edge did it lose?
# 3. In the table at the top, what does beam search with W = 2 find if 2 is followed by 3 with 0.9?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** In the sixth row ' A' is ahead with -3.94, and ' convert' second with -4.06. The best word after the first costs
# about 2.3, the one after the other 0.6: with -6.28 against -4.68 they change places.
#
# **3.** After 3 come 0 and 1 with 0.9 · 0.5 = 0.45 each; 4 and 5 have 0.1 · 1 = 0.1. Both searches write 2, 3, 0:
# this time the likeliest first word was right.
#
# </details>
