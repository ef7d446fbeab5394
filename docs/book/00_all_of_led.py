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
# # All of LED on one page, slowly
#
# **The question.** What does LED compute, from the ids of a document to the next word of its summary?
#
# led_ref has two programs that compute LED. `led_ref/oracle/definition/model.py` is the **definition**: the whole model in
# one file of some 350 lines, every loop written out, in float64. `led_ref/model/` is the same, fast. This chapter runs the
# definition on an LED so small that all of its numbers fit on the page. The later chapters explain each step, and how it
# becomes fast.
#
# LED is an **encoder** and a **decoder**. The encoder turns a document into one vector for each token. The decoder
# writes a text, one token at a time: it reads the tokens that it has already written (the **generated prefix**) and the
# encoder's vectors, and scores every word of the vocabulary as the next one.
#
# <figure class="drawing">
# <object type="image/svg+xml" data="../../assets/led.svg" aria-label="LED as a whole">LED as a whole</object>
# <figcaption>Each box leads to its chapter, each name of a function to its code. Numbers are chapters.</figcaption>
# </figure>

# %%
import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, WRONG, shares, source, table_of
from matplotlib.colors import ListedColormap

import led_ref
from led_ref.oracle.definition import model as definition
from led_ref.weights.keys import entries

np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# ## A tiny LED
#
# The vocabulary has 10 words. A vector has D = 4 numbers; attention has H = 2 heads with K = 2 numbers each. Encoder and
# decoder have one layer each. The window is 2 wide, so the radius is R = 1: a token sees one neighbour on each side.
# The weights are random numbers with one digit after the point (of a seed with which the text below comes to an end). So the
# model is not trained, and its text means nothing; but every step is computed as in a trained one.

# %%
WORDS = ["<s>", "<pad>", "</s>", "cats", "dogs", "birds", "chase", "see", "and", "sing"]
config = led_ref.LEDConfig(
    vocab_size=len(WORDS),
    d_model=4,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=6,
    decoder_ffn_dim=6,
    attention_window=(2,),
    max_encoder_position_embeddings=16,
    max_decoder_position_embeddings=8,
)
generator = np.random.default_rng(2244)


def tiny_weight(entry):
    """One-digit random numbers; norms begin as in an untrained model, with weight 1 and bias 0."""
    if "norm" in entry.key:
        return np.ones(entry.shape) if entry.key.endswith("weight") else np.zeros(entry.shape)
    spread = 1.0 if "embed" in entry.key or "shared" in entry.key else 0.5
    return (spread * generator.normal(size=entry.shape)).round(1)


weights = {entry.key: tiny_weight(entry) for entry in entries(config) if entry.key != "lm_head.weight"}
print(f"{len(weights)} tensors, {sum(array.size for array in weights.values())} numbers; some of them:")
for key in list(weights)[:6]:
    print(f"  {key:72} {weights[key].shape}")

# %% [markdown]
# The names are those of the checkpoints on the Hub ([chapter 10](10_checkpoints.md)). `lm_head.weight` is left out,
# because LED uses the embedding table a second time in its place.
#
# The document is `<s> cats chase birds </s>`, and one `<pad>` behind it, as in a batch with a longer document. The
# **attention mask** is 0 at the padding. The **global attention mask** is 1 at the first token: it sees all tokens and
# all tokens see it.

# %%
document = ["<s>", "cats", "chase", "birds", "</s>", "<pad>"]
ids = [WORDS.index(word) for word in document]
attention_mask = [1, 1, 1, 1, 1, 0]
global_attention_mask = [1, 0, 0, 0, 0, 0]
T = len(ids)
print("ids", ids)

# %% [markdown]
# ## Step 1: embeddings
#
# Each id selects one row of the embedding table. The row of its position is added, so that the model knows the order.
# A **LayerNorm** brings the sum to mean 0 and variance 1.

# %%
source("led_ref.oracle.definition.model:_embed")

# %%
source("led_ref.oracle.definition.model:_layer_norm")

# %%
tokens_TD = weights["led.shared.weight"][ids]
positions_TD = weights["led.encoder.embed_positions.weight"][:T]
x_TD = definition._embed(weights, "led.encoder", tokens_TD)
print("token 1, cats:   ", tokens_TD[1])
print("position 1:      ", positions_TD[1])
print("sum:             ", tokens_TD[1] + positions_TD[1])
print("after LayerNorm: ", x_TD[1])

# %%
total = tokens_TD[1] + positions_TD[1]
print(
    f"check: mean {total.mean():.3f}, variance {total.var():.3f};", (total - total.mean()) / np.sqrt(total.var() + 1e-5)
)

# %% [markdown]
# [Chapter 3](03_embeddings_and_positions.md) is about this step.
#
# ## Step 2: who sees whom
#
# Each token has one of three kinds: masked (0), local (1) or global (2). From the kinds and the radius follows the
# encoder's **attention mask** as a table: row i says which keys query i sees.

# %%
source("led_ref.oracle.definition.model:token_kinds")

# %%
source("led_ref.oracle.definition.model:who_sees_whom")

# %% alt="A table of 6 by 6 cells: filled are the first row and column and a band of three cells; the padding is empty"
kinds_T = definition.token_kinds((1, T), [attention_mask], [global_attention_mask])[0]
may_look_TT = definition.who_sees_whom(kinds_T, radius=1)
figure, axes = plt.subplots(figsize=(4.4, 3.6))
axes.imshow(np.where(may_look_TT, 1.0, np.nan), cmap=ListedColormap([BAND]), alpha=0.4)
table_of(axes, np.where(may_look_TT, 1.0, np.nan), rows=document, columns=document)
axes.set(xlabel="key", ylabel="query")
plt.show()
print("kinds", kinds_T)

# %% [markdown]
# The band along the diagonal is the **sliding window**. The first row and the first column belong to the global token. The
# padding sees nothing and is not seen. In a document of 16,384 tokens nearly all of this table is empty; the fast model never
# makes it ([chapter 4](04_the_sliding_window.md), [chapter 5](05_global_attention.md)).
#
# ## Step 3: attention in the encoder
#
# A linear map makes a query, a key and a value of each token. The scores are dot products of queries with keys, divided by
# √K. **Softmax** turns the scores of each row into shares that add up to 1, over the keys that the row sees. The
# result is the sum of the values, weighted with the shares. Each head does this with its own K columns.

# %%
source("led_ref.oracle.definition.model:_attention")

# %% [markdown]
# In numbers, for the query of token 2, "chase", in the first head. It sees `<s>`, because that is global, and its
# neighbours "cats" and "birds", and itself:

# %%
at = "led.encoder.layers.0.self_attn"
q_TD, k_TD, v_TD = (
    definition._linear(weights, f"{at}.longformer_self_attn.{part}", x_TD) for part in ("query", "key", "value")
)
head, i = slice(0, 2), 2
scores_T = q_TD[i, head] @ k_TD[:, head].T / np.sqrt(2)
out_TD, probs_HTT = definition._attention(q_TD, k_TD, v_TD, may_look_TT, heads=2)
print("query of chase        ", q_TD[i, head])
for j, word in enumerate(document):
    seen = f"share {probs_HTT[0, i, j]:.3f}" if may_look_TT[i, j] else "not seen"
    print(f"key of {word:8} {k_TD[j, head]!s:18} score {scores_T[j]:7.3f}   {seen:14} value {v_TD[j, head]}")
print("sum of share × value  ", out_TD[i, head])

# %% [markdown]
# The shares of all rows are the **attention map** of this head, and `output_attentions=True` returns it.
#
# LED has one particularity: rows of global tokens use linear maps of their own, `query_global`, `key_global` and
# `value_global`. At the end one linear map, `output`, mixes the heads.

# %%
source("led_ref.oracle.definition.model:_encoder_attention")

# %% alt="Two attention maps of 6 by 6 numbers, one for each head; each row of a token that is not padding adds up to 1"
attended_TD, table_HTT = definition._encoder_attention(weights, at, x_TD, kinds_T, may_look_TT, heads=2)
figure, all_axes = plt.subplots(1, 2, figsize=(9.6, 3.6))
for h, axes in enumerate(all_axes):
    cells_TT = np.where(may_look_TT, table_HTT[h], np.nan)
    axes.imshow(cells_TT, vmin=0, vmax=1, cmap=shares())
    table_of(axes, cells_TT, rows=document, columns=document, digits=2)
    axes.set_title(f"head {h + 1}", pad=12)
plt.show()

# %% [markdown]
# ## Step 4: residual, norm, feed-forward
#
# What attention gives is added to what was there before. This is the **residual** connection. A LayerNorm follows. Then the
# **feed-forward** works on each token by itself: a linear map to F numbers, the function gelu, a linear map back to D.
# Its result is added too, and normalised. That is one encoder layer; led-base has six, led-large twelve.

# %%
source("led_ref.oracle.definition.model:_feed_forward")

# %%
source("led_ref.oracle.definition.model:_encode_document")

# %%
layer = "led.encoder.layers.0"
middle_TD = definition._layer_norm(weights, f"{layer}.self_attn_layer_norm", x_TD + attended_TD)
update_TD = definition._feed_forward(weights, layer, middle_TD, config.activation_function)
states_TD = definition._layer_norm(weights, f"{layer}.final_layer_norm", middle_TD + update_TD)
print("chase, embedded             ", x_TD[2])
print("  what attention adds       ", attended_TD[2])
print("  sum, after LayerNorm      ", middle_TD[2])
print("  what the feed-forward adds", update_TD[2])
print("  sum, after LayerNorm      ", states_TD[2])

encoded = definition.encode(weights, config, [ids], [attention_mask], [global_attention_mask])
assert np.array_equal(encoded.hidden_states[-1][0], states_TD)
print("\nall states of the document\n", states_TD, sep="")

# %% [markdown]
# `encode` does all of the above, for each document of a batch, and gives the same numbers. [Chapter 6](06_a_layer.md) is
# about the layer.
#
# ## Step 5: the decoder
#
# The decoder begins with the id of `</s>`. Its layer has attention twice:
#
# - **self-attention** over the prefix. A **causal mask** hides what comes later: position u sees 0 to u.
# - **cross-attention** from the written tokens to the encoder's states. The **padding mask** hides the padding.
#
# A residual and a LayerNorm follow each of them, and the feed-forward.

# %%
source("led_ref.oracle.definition.model:_decode_document")

# %% [markdown]
# Suppose that `</s> dogs sing` is already written. Each of the three positions gets a vector, and the vector gets a score
# for each word. A score is the dot product of the vector with the word's row of the embedding table. These scores are the
# **logits**:

# %% alt="A causal self-attention map, a triangle of 3 rows; a cross-attention map, its last column empty"
states_BTD = encoded.hidden_states[-1]
written = ["</s>", "dogs", "sing"]
decoded = definition.decode(weights, config, [[WORDS.index(word) for word in written]], states_BTD, [attention_mask])
figure, all_axes = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=(1, 2))
maps = ((decoded.attentions[0][0, 0], written), (decoded.cross_attentions[0][0, 0], document))
for axes, (probs_US, columns), title in zip(all_axes, maps, ("self-attention", "cross-attention"), strict=True):
    cells_US = np.where(probs_US > 0, probs_US, np.nan)
    axes.imshow(cells_US, vmin=0, vmax=1, cmap=shares())
    table_of(axes, cells_US, rows=written, columns=columns, digits=2)
    axes.set_title(f"{title}, head 1", pad=12)
plt.show()
print("logits after", " ".join(written))
for word, logit in zip(WORDS, decoded.logits[0, -1], strict=True):
    print(f"  {word:6} {logit:7.3f}")

# %% [markdown]
# Row u of the logits depends only on the ids up to u. So one call scores all positions of a text that is known. Training does
# that: it gives the decoder the right text, shifted by one place, whatever the model would have written. This is
# called **teacher forcing**. `labels=` in led_ref's `forward` does the same.
#
# ## Step 6: a greedy step, and again
#
# To write a text, take the word with the highest logit, append it, and run the decoder again. A model that reads its own
# output in this way is **autoregressive**; always taking the highest is **greedy search**. It ends with `</s>` or at a
# maximal length.

# %%
prefix = [config.decoder_start_token_id]
while len(prefix) < 7 and (len(prefix) == 1 or prefix[-1] != config.eos_token_id):
    logits_V = definition.decode(weights, config, [prefix], states_BTD, [attention_mask]).logits[0, -1]
    best = int(logits_V.argmax())
    print(f"{' '.join(WORDS[i] for i in prefix):34} -> {WORDS[best]:6} (logit {logits_V[best]:.3f})")
    prefix.append(best)

# %% [markdown]
# The loop computes the old positions anew in each step. The fast model keeps their keys and values in a **KV cache**
# ([chapter 8](08_decoder_and_cache.md)). It also knows better searches than the greedy one
# ([chapter 9](09_searching_for_words.md)).
#
# ## The fast model gives the same numbers
#
# The same weights, in led_ref's own classes:

# %% tags=["fold"]
led = led_ref.LEDForConditionalGeneration.from_state_dict(config, weights, dtype="float64")
masks = {"attention_mask": [attention_mask], "global_attention_mask": [global_attention_mask]}
fast = led([ids], **masks, decoder_input_ids=[prefix], output_hidden_states=True, output_attentions=True)
slow = definition.decode(weights, config, [prefix], states_BTD, [attention_mask])
real_T = np.flatnonzero(attention_mask)  # the states of padding mean nothing, and nothing reads them
pairs = {
    "encoder states": (fast.encoder_last_hidden_state[:, real_T], states_BTD[:, real_T]),
    "encoder attention maps": (fast.encoder_attentions[0], encoded.attentions[0]),
    "decoder states": (fast.decoder_hidden_states[-1], slow.hidden_states[-1]),
    "cross-attention maps": (fast.cross_attentions[0], slow.cross_attentions[0]),
    "logits": (fast.logits, slow.logits),
}
for name, (ours, defined) in pairs.items():
    print(f"{name:24} {ours.shape!s:14} at most {abs(ours - defined).max():.1e} apart")
    assert abs(ours - defined).max() < 1e-12

ids_of_search = led.generate([ids], **masks, num_beams=1, max_length=7)[0]
print("generate writes", [WORDS[i] for i in ids_of_search])
assert list(ids_of_search) == prefix

# %% [markdown]
# Where to find each step in the two programs:
#
# | step | definition | fast, in `led_ref/model/` | chapter |
# |---|---|---|---|
# | embeddings | `_embed` | `ops.py` | [3](03_embeddings_and_positions.md) |
# | who sees whom | `token_kinds`, `who_sees_whom` | `masks.py` | [4](04_the_sliding_window.md) |
# | encoder attention, local | `_attention`, `_encoder_attention` | `sliding_window.py` | [4](04_the_sliding_window.md) |
# | encoder attention, global | the same | `global_attention.py` | [5](05_global_attention.md) |
# | a layer | `_encode_document` | `encoder.py` | [6](06_a_layer.md) |
# | the decoder | `_decode_document` | `decoder.py`, with a KV cache: `kv_cache.py` | [8](08_decoder_and_cache.md) |
# | logits and loss | `decode`, `loss` | `decoder.py`, `losses.py` | [8](08_decoder_and_cache.md) |
# | the search | `led_ref/oracle/definition/search.py` | `led_ref/generation/` | [9](09_searching_for_words.md) |
#
# ## What goes wrong: no attention mask
#
# Leave out the attention mask. Nothing fails: the padding becomes a token like the others, its neighbour sees it, the
# global token sees it, and so does every decoder position.

# %% alt="A bar for each token: how far its state moves without the mask; cats, chase and birds stay"
wrong = definition.encode(weights, config, [ids], None, [global_attention_mask])
moved_T = abs(wrong.hidden_states[-1][0] - states_TD).max(axis=-1)
figure, axes = plt.subplots(figsize=(6, 2.4))
axes.bar(range(T), moved_T, color=WRONG)
axes.set(xticks=range(T), xticklabels=document, ylabel="largest change")
plt.show()
wrong_V = definition.decode(weights, config, [prefix[:1]], wrong.hidden_states[-1]).logits[0, -1]
right_V = definition.decode(weights, config, [prefix[:1]], states_BTD, [attention_mask]).logits[0, -1]
print(f"the first word's logits move by up to {abs(wrong_V - right_V).max():.3f}")
print("words that did not move:", [word for word, change in zip(document, moved_T, strict=True) if change == 0])

# %% [markdown]
# "cats", "chase" and "birds" do not see the padding: their states keep every bit. In a second layer they would move too, by
# way of the global token, which saw it in the first ([chapter 7](07_receptive_field.md)). led_ref refuses pad ids
# without a mask for this reason.
#
# ## Exercises
#
# 1. Which row of the attention mask changes if "birds" becomes global too? Which column? Draw it before you try.
# 2. In the table of "chase", add up share × value by hand.
# 3. Set the radius to 5 and make no token global. Which model is this?
# 4. Open `led_ref/oracle/definition/model.py` and read it from top to bottom. Every function in it has been on this page, or is
#    called by one that has.
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **1.** The row of "birds" fills, since a global token sees every token; and its column, since every token sees it.
# The column of `<pad>` stays empty.
#
# **2.** First number: 0.007 · (-0.623) + 0.080 · 0.287 + 0.213 · (-0.036) + 0.700 · (-0.316) = -0.210; second: 0.007 ·
# 0.183 + 0.080 · (-2.524) + 0.213 · 0.732 + 0.700 · 0.020 = -0.031. The table has -0.211 and -0.029: its shares were not
# rounded.
#
# **3.** No token of six is further than 5 from another, so each sees all but the padding: full attention, as in
# BART's encoder.
#
# **4.** Look for what this page has not shown: `_linear` (a matrix product and a bias), `encode` and `decode` (a loop over
# documents, one over layers) and `loss`.
#
# </details>
