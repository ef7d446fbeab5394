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
# # Tokens
#
# **The question.** The model computes with numbers. How does a text become numbers, so that any text can, and the same
# text always becomes the same ones?
#
# It becomes a list of **ids**: row numbers of a table that the model learned. Every id stands for a **token**, a piece
# of text. One token for each word would need a table of all words, and there would always be a word that is missing.
# One for each letter would make documents very long, and chapter 1 showed what length costs. LED takes the way between:
# **byte pair encoding**.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
from book_tools import BAND, QUIET, WRONG, bundled, manual_page, planted, source

import led_ref
from led_ref.tokenizer.bpe import merge, split, to_printable

led = bundled()
ids = led.encode("The summary is written word by word.")
print(ids)
print(led.tokenizer.convert_ids_to_tokens(ids))

# %% [markdown]
# `Ġ` is how a space is written inside a token. `<s>` and `</s>` mark where the document begins and ends.
#
# ## The rule
#
# Whoever makes a vocabulary begins with single letters (bytes, to be exact), and counts which two neighbours are most
# frequent in a large text. That pair is joined into a new piece, and written down. Then the count begins again. The
# list of written-down pairs, in their order, is all there is to know. The place of a pair in the list is its **rank**.
# To tokenize a word:
#
# $$
# \begin{gathered}
# \text{join the neighbours } (a, b) \\
# \text{with the lowest } \operatorname{rank}(a, b); \\
# \text{repeat until no pair is in the list}
# \end{gathered}
# $$
#
# In code it is hardly longer:

# %%
source("led_ref.tokenizer.bpe:merge")

# %% [markdown]
# ## By hand
#
# Five pairs, in this order: `l o`, `e r`, `lo w`, `low er`, `w e`. Their ranks are 0 to 4. The word is *lowest*.

# %%
ranks = {("l", "o"): 0, ("e", "r"): 1, ("lo", "w"): 2, ("low", "er"): 3, ("w", "e"): 4}
pieces = list("lowest")
while True:
    known = {pair: ranks[pair] for pair in pairwise(pieces) if pair in ranks}
    print(f"{' '.join(pieces):12}  pairs in the list: {known or 'none'}")
    if not known:
        break
    pieces = merge(pieces, {min(known, key=known.get): 0})
assert pieces == merge(list("lowest"), ranks)

# %% [markdown]
# In the first line two pairs are in the list. (l, o) has the lower rank, so it goes first, although (w, e) is just as
# possible. In the second line (lo, w) has rank 2 and (w, e) has rank 4. In the third none is left. The word has four
# tokens.
#
# ## Bytes, so that nothing is unknown
#
# The letters that merging begins with are the bytes of UTF-8, 256 of them. Any text that a computer can store is made
# of those, so every text has tokens. So that the list of merges can be read, each byte is written as a sign that can be
# seen:

# %%
for word in (" word", " café", " 寿司", " 🙂"):
    print(f"{word!r:9} bytes {' '.join(to_printable(word)):20} tokens {led.tokenizer.tokenize(word)}")

# %% [markdown]
# A frequent word is one token. A rare one falls into pieces, at worst into its bytes.
#
# Before any merging the text is cut into words, so that no token reaches across two of them. A space belongs to the word
# behind it. Joined, the words are the text again:

# %%
print(split("It's 3 o'clock,  isn't it?"))

# %% [markdown]
# ## A picture: what a vocabulary saves
#
# The bundled model has 6,144 tokens; the LEDs that Ai2 published have 50,265. Here is how long its manual page becomes
# if only the first merges of the list are used. Without any merge there is one token for each byte.

# %% alt="A falling curve: the more merges are known, the fewer tokens the manual page has; it falls quickly at first"
vocabulary = led_ref.bundled_model() / "merges.txt"
lines = [
    line for line in vocabulary.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#version")
]
all_ranks = {tuple(line.split(" ")): place for place, line in enumerate(lines)}
words = split(manual_page())
known_merges = [0, 10, 30, 100, 300, 1000, 3000, len(all_ranks)]
lengths = []
for most in known_merges:
    some = {pair: rank for pair, rank in all_ranks.items() if rank < most}
    length_of = {word: len(merge(to_printable(word), some)) for word in set(words)}
    lengths.append(sum(length_of[word] for word in words))

figure, axes = plt.subplots(figsize=(7, 3.2))
axes.plot(range(len(known_merges)), lengths, "o-", color=BAND)
for x, length in enumerate(lengths):
    axes.annotate(f"{length:,}", (x, length), xytext=(4, 6), textcoords="offset points", fontsize=8)
axes.axhline(len(words), linestyle=":", color=QUIET)
axes.text(0, len(words), "one for each word", va="bottom", fontsize=8)
axes.set(xlabel="merges known", ylabel="tokens of the manual page", ylim=(0, None))
axes.set_xticks(range(len(known_merges)), [f"{most:,}" for most in known_merges])
plt.show()
assert lengths[-1] + 2 == len(led.encode(manual_page()))  # and <s>, </s>

# %% [markdown]
# The last point is what the model reads: the count of led_ref's own tokenizer, less `<s>` and `</s>`.
#
# ## What goes wrong: merging in another order
#
# A tokenizer that joins from left to right, whatever the rank, looks right. Its tokens still spell the text. It is one
# of the [mutants](../mutation_testing.md) that the tests must kill, `merge-left-to-right`. Here it is
# at work on three words of the page. Above, in green, are the right tokens; below, in red, those of the bug:

# %% alt="Two rows of boxes for each of three words: the right tokens above, the tokens of the mutant below"
wrong_merge = planted("merge-left-to-right").merge
changed = [
    word
    for word in dict.fromkeys(words)
    if merge(to_printable(word), all_ranks) != wrong_merge(to_printable(word), all_ranks)
]
shown = sorted(changed, key=lambda word: -words.count(word))[:3]

figure, all_axes = plt.subplots(len(shown), 1, figsize=(7, 1.1 * len(shown)))
for axes, word in zip(all_axes, shown, strict=True):
    for y, (way, color) in enumerate(((merge, BAND), (wrong_merge, WRONG))):
        x = 0
        for piece in way(to_printable(word), all_ranks):
            axes.add_patch(plt.Rectangle((x + 0.05, y + 0.1), len(piece) - 0.1, 0.8, facecolor=color, alpha=0.3))
            axes.text(x + len(piece) / 2, y + 0.5, piece, ha="center", va="center", family="monospace", fontsize=9)
            x += len(piece)
    axes.set(xlim=(-0.2, 18), ylim=(2, 0))
    axes.set_axis_off()
plt.show()
share = sum(word in set(changed) for word in words) / len(words)
print(f"{len(changed)} of {len(set(words))} different words, {share:.0%} of the page, get other tokens")

# %% [markdown]
# The text can still be put together again from either row. But the model learned what the tokens of the upper row mean,
# in the company that they keep. It has seen the lower ones in other places, and reads something else. No error is
# raised; the summary just gets worse. So the tests compare ids, not texts.
#
# ## Exercises
#
# 1. `led-ref exercise 2` hands out the merging to write yourself, with checks.
# 2. By hand: which tokens does *lower* have, with the five pairs above?
# 3. `led_ref.tokenizer.bpe` has a second function, `merge_long`. It gives the same as `merge`. Why is it there?
# 4. The [notebook on tokens](../notebooks/01_tokens.md) builds the whole tokenizer from two files. Change its pattern so that
#    the space stays with the word before it. How many tokens does the page have then, and why would that not work with
#    this model?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** One token. (l, o) goes first, then (e, r), then (lo, w), then (low, er): *lower*.
#
# **3.** `merge` looks at all pairs again after every merge, so a word of n letters takes time in proportion to n².
# `merge_long` keeps the pairs in a heap: n log n. Few words are long, but a line without a space may be.
#
# **4.** 1,306 in place of 738: no merge of the list ends with a space, so words stay in smaller pieces. The model learned rows
# for pieces with the space *before* the word; the new ones have no ids, or ids that mean another thing.
#
# </details>
