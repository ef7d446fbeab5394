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
# # The decoder, cross-attention and the KV cache
#
# **The question.** The encoder has read the document. How is a word written, and why does the tenth word not cost ten times
# the first?
#
# The decoder writes one token after the other, and reads its own output: it is **autoregressive**. For each token it looks
# in two directions:
#
# - **self-attention**, back at the generated prefix: a **causal mask** lets each position see itself and those before it;
# - **cross-attention**, across at the document: every position sees all states of the encoder, but those that the
#   **padding mask** hides.
#
# Both are the attention of chapter 1, over everything that may be seen. They differ in where keys and values come from:
#
# $$\text{self: } q(x_u) \cdot k(x_s),\ s \le u \qquad\qquad \text{cross: } q(x_u) \cdot k(e_j),\ \text{all } j$$
#
# Here x are the states of the generated prefix, e those of the document.

# %%
import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, QUIET, bundled, manual_page, shares, source

from led_ref.costs.operations import LED_BASE, Workload, cross_work, source_work
from led_ref.model import DecoderCache

led = bundled()

# %% [markdown]
# ## What the decoder looks at
#
# The bundled model writes a line about led_ref's manual page. Then the decoder gets the whole line in one forward pass, as
# in training, where it reads the right text and not its own (**teacher forcing**). That gives the **attention maps** of
# all its words: a row for each written token, a column for each token of the page.

# %%
page = manual_page()
ids = led.encode(page)
first = np.zeros((1, len(ids)), dtype=int)
first[0, 0] = 1
written = led.model.generate([ids], global_attention_mask=first, num_beams=1, max_new_tokens=12)
words = [led.tokenizer.decode([i]) for i in written[0]]
print(led.tokenizer.decode(written[0], skip_special_tokens=True))

seen = led.model([ids], global_attention_mask=first, decoder_input_ids=written, output_attentions=True)
cross_HUT, own_HUU = seen.cross_attentions[-1][0], seen.decoder_attentions[-1][0]
print("cross-attention", cross_HUT.shape, "  self-attention", own_HUU.shape)

# %% alt="Self-attention of the written words, a triangle; cross-attention to the page, a few bright cells in a row"
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1, 2.4), sharey=True)
look = {"aspect": "auto", "interpolation": "nearest", "cmap": shares(), "vmin": 0, "vmax": 1}
left.imshow(np.ma.masked_equal(own_HUU.mean(axis=0), 0), **look)
left.set(title="back at itself", xlabel="key", yticks=range(len(words)), yticklabels=words)
left.set_xticks(range(len(words)), words, rotation=90)
right.imshow(cross_HUT.mean(axis=0)[:, :120] ** 0.5, **look)
right.set(title="across at the document (its first 120 tokens)", xlabel="token of the page")
plt.show()

for u in range(1, 6):
    best = np.argsort(-cross_HUT.mean(axis=0)[u])[:3]
    print(f"after {words[u]!r} it looks at", ", ".join(repr(led.tokenizer.decode([ids[j]])) for j in best))

# %% [markdown]
# The first row is `</s>`: that is the id with which LED begins to write. The left map is empty above the diagonal: the
# causal mask hides the words that are not written yet. The diagonal itself is filled: a position sees itself.
#
# ## A layer of the decoder
#
# It is the layer of [chapter 6](06_a_layer.md) with one more part. First the written tokens exchange what they know, then
# each takes from the document, then each works on what it has. After each of the three, the input is added and a LayerNorm
# follows.
#
# <figure class="drawing">
# <object type="image/svg+xml" data="../../assets/layers.svg" aria-label="The layers of encoder and decoder">
# A layer of the encoder and a layer of the decoder</object>
# <figcaption>Left what you know from chapter 6, right the decoder's layer. Yellow: the residual connections.</figcaption>
# </figure>

# %%
source("led_ref.model.decoder:decoder_layer")

# %% [markdown]
# N counts rows: each document has W of them, one for each of the texts that are tried at once ([chapter
# 9](09_searching_for_words.md)). `memory` is the KV cache, which the next section explains. Both kinds of attention take
# queries from the written tokens. The keys of the first come from them, too; those of the second come from the encoder's
# states, and were computed once:

# %%
source("led_ref.model.decoder:self_attention")

# %%
source("led_ref.model.decoder:cross_attention")

# %% [markdown]
# After the last layer every position has a state of D numbers. Its dot product with each row of the embedding table, plus a
# bias, is the **logit** of that word. One table serves at both ends, so this last map, the **language modelling head**, is
# called **tied**:

# %%
source("led_ref.model.decoder:lm_logits")

# %% [markdown]
# ## Why a KV cache
#
# To write word 10, the keys and values of words 1 to 9 are needed. They were computed when those words were written,
# and they have not changed, because no earlier position sees a later one. So they are kept, in the **KV cache**. The
# document's keys and values are kept as well: the encoder's states are the same for every word. Computing in parts
# gives the same as computing at once:

# %%
whole = led.model([ids], decoder_input_ids=written).logits
step = led.model.encoder([ids])
one_by_one = [led.model(encoder_outputs=step, decoder_input_ids=written[:, : u + 1]).logits[0, -1] for u in range(4)]
apart = max(abs(whole[0, u] - one_by_one[u]).max() for u in range(4))
print(f"the logits of the first four positions, alone and with what follows: at most {apart:.1e} apart")
assert apart < 1e-11

# %% [markdown]
# This is what the cache holds:

# %%
source("led_ref.model.kv_cache:DecoderCache")

# %% [markdown]
# ## One buffer for a document, and a table
#
# With W beams, W hypotheses about one document grow at once (the next chapter says what for). After each word the
# beams may change places: a good hypothesis is continued twice, a bad one dies. The usual way is to copy the whole cache of
# the one that is continued. That is W times all layers' keys and values, moved at every word.
#
# Here nothing moves. The W hypotheses of a document append to one buffer, and a table says which **slots** of the buffer
# belong to which beam. By hand, with three beams and three words. First each writes a word: slots 0, 1 and 2. Then "go on
# from [1, 1, 0]" means: the new beams 0 and 1 both continue the old beam 1, and the new beam 2 continues the old beam 0.


# %%
def show_table(cache):
    """Each beam's own slots, in order."""
    for beam, entries in enumerate(cache.slots_BWS[0].tolist()):
        print(f"  beam {beam}: {entries}")
    print(f"  {cache.used} slots of the buffer are in use")


cache = DecoderCache((), slots_BWS=np.zeros((1, 3, 0), np.int64), used=0, source_shape=(1, len(ids)))
history, says = [], []
for parents in ([0, 0, 0], [1, 1, 0], [0, 2, 0]):
    cache = cache.reorder(np.array(parents)).grown((), new=1)
    history.append(cache.slots_BWS)
    says.append("each beam writes into a slot of its own" if len(history) == 1 else f"the beams go on from {parents}")
    print(f"the beams go on from {parents}, and each writes a word:")
    show_table(cache)

# %% [markdown]
# Row 0 ends as [1, 3, 6]: its words are in the slots 1, 3 and 6. Slots that are in no row belong to abandoned hypotheses.
# Attention takes every query to all slots of the document, and a mask made of this table hides those of the other beams:

# %%
source("led_ref.model.decoder:causal_mask")

# %% [markdown]
# That looks like waste: W queries multiply with W times as many keys. But reading memory limits a step of the decoder,
# not multiplying (chapter 13), and each slot is read once for all beams.
#
# When the buffer is full it moves to one of twice the **capacity**. With `cache_implementation="static"` it is
# allocated once, for `max_length`, and never moves; `use_cache=False` keeps no keys and values of the prefix and computes
# all of its positions in every step. The words are the same each time.

# %% alt="The buffer fills word after word: nine slots as columns, three beams as rows; in the end each row has three cells"
from book_steps import Steps

from led_ref.model.decoder import causal_mask

cell, left, top = 30, 70, 40
drawing = Steps(360, 176, count=len(history))
drawing.text(left + 4.5 * cell, 12, "slot of the buffer")
for step, slots_BWS in enumerate(history, 1):
    seen_QE = causal_mask(slots_BWS, np.ones_like(slots_BWS, bool), new=1)[0]
    for slot in range(3 * step - 3, 3 * step):
        drawing.text(left + cell * slot + 15, top - 8, slot, at=step)
        drawing.box(left + cell * slot, top, cell, 3 * cell, QUIET, opacity=0.15, at=step)
    for beam, slot in zip(*seen_QE.nonzero(), strict=True):
        place = (left + cell * slot, top + cell * beam, cell, cell)
        drawing.box(*place, BAND, opacity=0.9 if slot >= 3 * step - 3 else 0.45, at=(step, step))
    drawing.text(left, top + 3 * cell + 26, f"word {step}: {says[step - 1]}", anchor="start", at=(step, step))
for beam in range(3):
    drawing.text(left - 8, top + cell * beam + 19, f"beam {beam}", anchor="end")
drawing.show()
print(seen_QE.astype(int))

# %% [markdown]
# ## The document's keys and values, or none
#
# All beams look at the same document, so its keys and values are stored once for any number of beams. Counted for
# led-base at 16,384 tokens in float32:

# %%
load = Workload(tokens=16384, beams=4)
kept = 2 * LED_BASE.decoder_layers * load.tokens * LED_BASE.d_model * 4
states = load.tokens * LED_BASE.d_model * 4
print(f"keys and values of the document, all layers:  {kept / 2**20:6,.0f} MiB")
print(f"if each of 4 beams had its own:               {4 * kept / 2**20:6,.0f} MiB")
print(f"the encoder's states alone:                   {states / 2**20:6,.0f} MiB")

# %% [markdown]
# The last line is what `cross_attention="folded"` keeps. A key is a linear map of a state, and a matrix can be moved
# to the other side of a product:
#
# $$q \cdot (W_k e_j + b_k) = (W_k^\top q) \cdot e_j + q \cdot b_k$$
#
# The last term is the same for every j, and softmax ignores what is the same for all. The values fold likewise,
# because the probabilities add up to one. So the projections are applied to the few queries, and not to the many
# tokens:

# %%
source("led_ref.model.folding:folded_attention")

# %% [markdown]
# It costs more arithmetic for each word, because the folded queries are D wide and not K, and it saves the memory of keys
# and values:

# %%
for folded in (False, True):
    load = Workload(tokens=16384, beams=4, folded=folded)
    once, each = source_work(LED_BASE, load).operations, cross_work(LED_BASE, load).operations
    name = "folded" if folded else "cached"
    print(
        f"{name}: {once / 1e9:6.1f} billion operations before the first word, {each / 1e9:5.2f} billion for each word"
    )

texts = {way: led.generate(page, cross_attention=way, max_new_tokens=16) for way in ("cached", "folded")}
print(texts["folded"])
assert texts["cached"] == texts["folded"]

# %% [markdown]
# ## What goes wrong when one thing is changed
#
# The mutant `cache-reorder-forgotten` leaves the table as it was when beams change places. Nothing crashes.
# Every text goes on with the past of another one, and what is written still looks like a text:

# %%
from unittest.mock import patch

right = led.generate(page, num_beams=4, max_new_tokens=20)
with patch.object(DecoderCache, "reorder", lambda self, parents: self):
    wrong = led.generate(page, num_beams=4, max_new_tokens=20)
print("with the table:", right)
print("without it:    ", wrong)

# %% [markdown]
# A test that only looks whether text comes out would pass. The test that finds the mistake gives each hypothesis to the
# model again, without cache or search, and compares the scores, here the mean log-probability of a word. What counts is
# that both columns agree. The mutant's texts happen to get good scores from the model: no beam search finds the best text
# for sure, and one that does not know the scores of its texts may come upon a better one. Here is that test, in a few
# lines:


# %% tags=["fold"]
def score_again(sequence):
    """The mean log-probability of a written text, by one forward pass without cache or search."""
    target = sequence[sequence != led.model.config.to_dict()["pad_token_id"]][None]
    logits = led.model([ids], global_attention_mask=first, decoder_input_ids=target).logits[0, :-1]
    logprobs = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    return logprobs[np.arange(len(logprobs)), target[0, 1:]].mean()


free = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 20, "no_repeat_ngram_size": 0}
free["return_dict_in_generate"] = True
found = led.model.generate([ids], global_attention_mask=first, **free)
with patch.object(DecoderCache, "reorder", lambda self, parents: self):
    mistaken = led.model.generate([ids], global_attention_mask=first, **free)
gaps = []
for name, result in (("right", found), ("mutant", mistaken)):
    print(f"{name}:")
    again = [score_again(sequence) for sequence in result.sequences]
    for score, alone in zip(result.sequences_scores, again, strict=True):
        print(f"  the search says {score:8.4f}, the model alone {alone:8.4f}")
    gaps.append(abs(result.sequences_scores - again).max())
assert gaps[0] < 1e-5 < 1e-3 < gaps[1]

# %% [markdown]
# ## Exercises
#
# 1. `led-ref exercise 8`: write the table, `reorder` and `grow`.
# 2. Which slots does no beam see in the picture of the buffer? Why are they not taken out?
# 3. Folding costs H times the multiplications for a word. For how many written words does it still multiply less in
#    all? Take the numbers printed above.
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** Slots 2 and 4: what was written there belongs to hypotheses that were abandoned. To take them out, the keys
# and values of all layers behind them would have to move, at every word. Hiding them costs one number of the mask.
#
# **3.** 231.9 / (14.50 - 1.21) = 17.4: for at most 17 words.
#
# </details>
