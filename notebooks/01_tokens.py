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
# A model computes with numbers, so a text must become numbers first. One number for each word does not work: there is no
# list of all words. One number for each letter works, but a page would be thousands of positions long, and LED pays for
# each. LED takes the way between, **byte-level BPE**: frequent words are one token, rare words are several pieces, and since
# every byte has a token too, no text is ever unknown.
#
# Here the tokenizer is built from two files, in about twenty lines, and then compared with the one that runs.

# %%
import json
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND
from matplotlib.patches import FancyBboxPatch

import led_ref
from led_ref.tokenizer.bpe import from_printable, split, to_printable

led = led_ref.load()
folder = led_ref.bundled_model()
page = (folder / "led-ref.1.txt").read_text(encoding="utf-8")

sentence = "The summary is written word by word."
ids = led.encode(sentence)
print(ids)
print([led.tokenizer.decode([i]) for i in ids])

# %% [markdown]
# The first and the last id are `<s>` and `</s>`: the encoder wants to see where a document begins and ends. A space belongs
# to the word after it, so `" word"` and `"word"` are two different tokens.
#
# ## First: words
#
# The text is cut into words by a pattern: letters, digits or signs, each with one space before them if there is one. Joined,
# the words are the text again; nothing is lost, not even two spaces in a row.

# %%
words = split("It's 3 o'clock,  isn't it?")
print(words)
assert "".join(words) == "It's 3 o'clock,  isn't it?"

# %% [markdown]
# ## Then: bytes
#
# A word is written in UTF-8, and each of its 1 to 4 bytes per character becomes one printable sign. The space is shown as
# `Ġ`. These 256 signs are the alphabet; anything that a computer can store as text is spelled in it.

# %%
for word in (" word", " café", " 寿司", "🙂"):
    signs = to_printable(word)
    print(f"{word!r:9} {len(word)} characters, {len(signs)} bytes: {' '.join(signs)}")

# %% [markdown]
# ## Then: merges
#
# `merges.txt` is a list of pairs. Whoever made it began with single bytes, and wrote down again and again which pair of
# neighbours was most frequent in a large text. To tokenize is to repeat that: **of all neighbours in the word that are in
# the list, join the pair that stands first in it.** Stop when no pair is left.

# %%
merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
pairs = [tuple(line.split(" ")) for line in merges if line and not line.startswith("#version")]
rank = {pair: place for place, pair in enumerate(pairs)}
print(f"{len(pairs):,} pairs; the first ten: {'  '.join('+'.join(pair) for pair in pairs[:10])}")


def join_by_rank(word):
    """Each state of a word, from its bytes to its tokens."""
    pieces = list(to_printable(word))
    states = [pieces]
    while True:
        found = [(rank[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in rank]
        if not found:
            return states
        _, i = min(found)
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
        states.append(pieces)


# %% alt="Two ladders of boxes: the letters of 'summarized' and of 'tokenizer' grow together, one merge in each row"
def draw_ladder(axes, word):
    """One row for each state; the piece that is new is filled."""
    states = join_by_rank(word)
    before = []
    for row, pieces in enumerate(states):
        x = 0
        fresh = next((p for p in pieces if pieces.count(p) > before.count(p)), None) if before else None
        for piece in pieces:
            box = {"boxstyle": "round,pad=0,rounding_size=0.15", "edgecolor": BAND, "linewidth": 1}
            fill = f"{BAND}66" if piece == fresh else "none"
            axes.add_patch(FancyBboxPatch((x + 0.08, row + 0.12), len(piece) - 0.16, 0.76, facecolor=fill, **box))
            axes.text(x + len(piece) / 2, row + 0.5, piece, ha="center", va="center", family="monospace", fontsize=9)
            x += len(piece)
        if fresh:
            place = rank[next(pair for pair in pairwise(before) if "".join(pair) == fresh)]
            axes.text(x + 0.3, row + 0.5, f"pair no. {place + 1:,}", va="center", fontsize=8)
        before = pieces
    axes.set(xlim=(0, len(to_printable(word)) + 4.5), ylim=(len(states), 0), title=repr(word))
    axes.set_axis_off()


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
draw_ladder(left, " summarized")
draw_ladder(right, " tokenizer")
plt.show()

# %% [markdown]
# Read it from the top: the number at the right is the place of the pair that was joined there. The order of the list
# decides, not the order of the letters. A frequent word ends as one piece; a rare one keeps several.
#
# ## Then: ids
#
# `vocab.json` has a number for each piece. That is the whole tokenizer. Does it give what led_ref gives, on the manual page
# that comes with the model?

# %%
vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))


def encode(text, pieces_of=lambda word: join_by_rank(word)[-1]):
    """Text to ids, as built above."""
    pieces = [piece for word in split(text) for piece in pieces_of(word)]
    return [vocabulary["<s>"], *(vocabulary[piece] for piece in pieces), vocabulary["</s>"]]


by_hand = encode(page)
assert by_hand == led.encode(page)
print(f"{len(page):,} characters, {len(split(page)):,} words, {len(by_hand):,} tokens: equal to led_ref's")

# %% [markdown]
# And back again is simpler still: join the pieces, and read their signs as bytes. A token need not be a whole character, so
# only the whole sequence is sure to be readable.

# %%
piece_of = {i: piece for piece, i in vocabulary.items()}
assert b"".join(from_printable(piece_of[i]) for i in by_hand[1:-1]).decode() == page

sushi = led.tokenizer("寿司", add_special_tokens=False).input_ids
print(f"寿司 is {len(sushi)} tokens; the first alone is {led.tokenizer.decode(sushi[:1])!r}")
print(f"all together they are {led.tokenizer.decode(sushi)!r}")

# %% [markdown]
# ## What a page costs
#
# Time and memory of LED grow with the number of tokens. The vocabulary was made from manual pages, so on such a page most
# words are one token; text of another kind, or another language, costs more for the same number of letters.

# %% alt="Left, how many words take 1, 2, 3 and more tokens: most take 1. Right, characters per token for six kinds of text"
samples = {
    "this page": page,
    "English": "She walked down to the river, sat under the old willow and waited for the boat.",
    "Python": "def mean(values):\n    return sum(values) / len(values)\n",
    "digits": "3.14159265358979323846264338327950288419716939937510",
    "German": "Die Katze sitzt seit gestern auf dem warmen Dach und schläft.",
    "Japanese": "吾輩は猫である。名前はまだ無い。",
}
each = [len(join_by_rank(word)[-1]) for word in split(page)]
density = {name: len(text) / (len(encode(text)) - 2) for name, text in samples.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.bar(*np.unique(each, return_counts=True), color=BAND)
left.set(title="words of the page", xlabel="tokens in the word", ylabel="words")
right.barh(list(density)[::-1], list(density.values())[::-1], color=BAND)
right.set(title="characters for one token", xlim=(0, None))
plt.show()
for name, value in density.items():
    print(f"{value:5.2f} characters a token: {name}")

# %% [markdown]
# ## What a mistake looks like
#
# Suppose somebody joins pairs from left to right, whichever comes first in the **word** instead of in the list. Decoding
# cannot notice: the pieces still spell the text. But the model was never trained on these pieces.


# %%
def join_left_to_right(word):
    """Wrong: takes the leftmost pair that is in the list, not the one that is first in the list."""
    pieces = list(to_printable(word))
    while True:
        i = next((i for i, pair in enumerate(pairwise(pieces)) if pair in rank), None)
        if i is None:
            return pieces
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


wrong = encode(page, join_left_to_right)
assert led.tokenizer.decode(wrong, skip_special_tokens=True) == page  # the round trip is blind to it
other = [word for word in dict.fromkeys(split(page)) if join_left_to_right(word) != join_by_rank(word)[-1]]
print(f"{len(wrong):,} tokens instead of {len(by_hand):,}; {len(other)} different words are cut otherwise, such as")
for word in other[:4]:
    print(f"  {word!r:15} {'|'.join(join_by_rank(word)[-1]):20} became {'|'.join(join_left_to_right(word))}")


def line(document):
    """What the model writes about a document given as ids."""
    first = [[1] + [0] * (len(document) - 1)]
    (written,) = led.model.generate([document], global_attention_mask=first)
    return led.tokenizer.decode(written, skip_special_tokens=True)


print()
print("from the right tokens:", line(by_hand))
print("from the wrong tokens:", line(wrong))

# %% [markdown]
# That is why a tokenizer is tested by its ids and never by the round trip alone. led_ref's are compared with those of the
# `tokenizers` library and, one character at a time, with `led_ref/oracle/definition/tokenizer.py`.
#
# ## To try
#
# 1. Which word of the page has the most pieces? What would have to be in `merges.txt` for it to have one less?
# 2. `join_by_rank` looks at every pair before every merge. How does its time grow with the length of a word?
#    `led_ref/tokenizer/bpe.py` has a second function for long words; what does it do instead?
# 3. Take away the space: how do the ids of `"word"` and `" word"` differ, and which of the two stands at the very beginning
#    of a document?
