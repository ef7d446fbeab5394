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
# # Summarizing long documents
#
# This is what LED was made for: a whole paper in, its summary out. Ai2's `allenai/led-large-16384-arxiv` learnt to write
# abstracts of arXiv papers; it has 460 million parameters and is fetched from the Hub (1.8 GB). If it is on this machine
# already, this notebook uses it, and takes minutes. If not, everything is done with the small model that comes with led_ref,
# which writes one line about a manual page. The steps are the same.

# %%
import importlib.util
import re
import warnings

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, shares

import led_ref

# Where ipywidgets is missing, a library for progress bars that comes along says so.
warnings.filterwarnings("ignore", message="IProgress not found")
CHECKPOINT = "allenai/led-large-16384-arxiv"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

is_here = False
if importlib.util.find_spec("huggingface_hub"):
    from huggingface_hub import try_to_load_from_cache

    is_here = any(isinstance(try_to_load_from_cache(CHECKPOINT, name), str) for name in WEIGHTS)
led = led_ref.load(CHECKPOINT if is_here else None)
print(f"{CHECKPOINT} is {'on this machine' if is_here else 'not on this machine'}: this page was made with {led.name}")

# %% [markdown]
# To fetch it once, run `led-ref summarize paper.txt --model allenai/led-large-16384-arxiv`, or put the files into a folder and
# give its path to `led_ref.load`. [Ai2's checkpoints](../checkpoints.md) says what else there is. Two of the three are **not**
# fine-tuned and do not summarize; led_ref says so when one of them is loaded.
#
# ## How long is it?
#
# Put your own text into `document`. Here it is a manual page, for which the bundled model was made.

# %%
page = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
document = page
ids = led.encode(document)
limit = led.model.config.max_encoder_position_embeddings
print(f"{len(document.split()):,} words are {len(ids):,} tokens; the model reads at most {limit:,}")

# %% [markdown]
# A document need not be a multiple of the window, and padding is not needed. How much memory will it take?
# [`led-ref estimate`](../index.md) computes it from the sizes alone, before the run. For Ai2's models, four beams, 256 new
# tokens:

# %%
from led_ref.costs import operations as planning
from led_ref.costs import plan

print("tokens      led-base    led-large    led-large, folded")
for tokens in (1024, 4096, 16384):
    sizes = []
    for config, folded in ((planning.LED_BASE, False), (planning.LED_LARGE, False), (planning.LED_LARGE, True)):
        load = planning.Workload(tokens=tokens, beams=4, new_tokens=256, folded=folded)
        sizes.append(plan(config, load).peak / 1e9)
    print(f"{tokens:6,} {sizes[0]:10.2f} GB {sizes[1]:9.2f} GB {sizes[2]:9.2f} GB")

# %% [markdown]
# ## Write
#
# One call. The first token is global, as LED was trained; without beams and lengths of your own, the settings are those of the
# model's `generation_config.json`. What a call would work with can be asked without running it:

# %%
settings = led.model.effective_settings()
print({name: getattr(settings, name) for name in ("num_beams", "max_length", "no_repeat_ngram_size", "length_penalty")})
for text in led.generate(document, num_beams=4, num_return_sequences=3):
    print("-", text)

# %% [markdown]
# Several documents are read one at a time, so that none depends on what stands beside it:

# %%
paragraphs = [part for part in page.split("\n") if len(part) > 250]
for text in led.generate(paragraphs, num_beams=4):
    print("-", text)

# %% [markdown]
# ## Too long
#
# A document beyond the limit is refused. Nothing is cut off silently: whether the beginning is enough is for you to say.

# %%
very_long = document * (1 + limit // len(ids))
try:
    led.generate(very_long)
except led_ref.InputError as error:
    print(error)
print()
print(f"its beginning: {len(led.encode(very_long, truncation=True)):,} tokens")

# %% [markdown]
# ## Does the rest of the document help?
#
# Reading more takes longer; is it worth it? There is a way to ask the model itself. Take a line that a person wrote about the
# document, and let the model say how likely it is, after the first 12 tokens of the document, the first 20, and so on. The
# more it has understood, the less the line surprises it.

# %% alt="Mean log-probability of the right line against the number of tokens read, and below it each of its words by itself"
reference = "led-ref - summarize long documents"
labels = led.tokenizer(reference).input_ids
lengths = [n for n in (12, 20, 40, 60, 80, 120, 160, 240, 320, 480, 640) if n < 0.8 * len(ids)] + [len(ids)]


def surprise(source, first=1):
    """log p of each token of the reference, after a document given as ids."""
    mask = [[first] + [0] * (len(source) - 1)]
    out = led.model([source], global_attention_mask=mask, labels=[labels])
    logits_UV = out.logits[0].astype("float64")
    shifted_UV = logits_UV - logits_UV.max(axis=-1, keepdims=True)
    logprobs_UV = shifted_UV - np.log(np.exp(shifted_UV).sum(axis=-1, keepdims=True))
    return np.array([logprobs_UV[u, i] for u, i in enumerate(labels)])


curves_NU = np.array([surprise([*ids[: n - 1], ids[-1]]) for n in lengths])
figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 5.2), sharex=True, height_ratios=(1, 1.4))
upper.plot(lengths, curves_NU.mean(axis=1), "o-", color=BAND)
upper.set(ylabel="mean log p", title=f"how likely the model finds {reference!r}")
image = lower.pcolormesh(
    [*lengths, lengths[-1] * 1.1], np.arange(len(labels) + 1), np.exp(curves_NU.T), cmap=shares(), vmin=0, vmax=1
)
pieces = [led.tokenizer.decode([i]) for i in labels]
lower.set(yticks=np.arange(len(labels)) + 0.5, yticklabels=map(repr, pieces), ylim=(len(labels), 0))
lower.set(xlabel="tokens read", xscale="log", xticks=lengths, xticklabels=lengths)
lower.minorticks_off()
figure.colorbar(image, ax=lower, label="p")
plt.show()

# %% [markdown]
# The name is read off the first lines. For the words after it the small model has little use of the whole page; it never knew
# such a program. A model that was taught on long documents can be asked the same. On arXiv, LED's paper reports better
# summaries from 16,384 tokens than from 4,096 (ROUGE-1 46.63 and 44.40, its Table 11).
#
# ## How good is it?
#
# Summaries are mostly scored by ROUGE: words (ROUGE-1) or the longest common subsequence (ROUGE-L) that a summary shares with
# one by a person. A few lines are enough to see what is counted:


# %%
def words_of(text):
    """Lower case, letters and digits."""
    return re.findall(r"[a-z0-9]+", text.lower())


def common_subsequence(a, b):
    """Length of the longest sequence of words that both have in this order."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b):
            row[j + 1], before = ((before + 1 if x == y else max(row[j], row[j + 1])), row[j + 1])
    return row[-1]


def rouge_l(summary, reference):
    """F1 of the longest common subsequence."""
    a, b = words_of(summary), words_of(reference)
    common = common_subsequence(a, b)
    return 0.0 if not common else 2 * common / (len(a) + len(b))


assert common_subsequence(["a", "b", "c", "d"], ["b", "x", "d"]) == 2
for text in (led.generate(document), "led-ref - summarize long texts", "documents long summarize - led-ref"):
    print(f"ROUGE-L {rouge_l(text, reference):.3f}  {text}")

# %% [markdown]
# The last one has every word of the right line and gets less than half: order counts. Beware when you compare with published
# figures. ROUGE-L of a summary of many sentences is usually worked out sentence by sentence (`rougeLsum`, which wants a line
# break after each); over the whole text at once the same summaries can score far lower. (One case on arXiv that was reported:
# 27.5 in place of 41.8, in issue 12 of allenai/PRIMER.)
#
# ## What a mistake looks like
#
# Programs that call LED have lost its global mask more than once, and for long nobody noticed: the model runs without, and
# its line looks like a line. How much does it matter here?

# %%
for name, first in (("first token global", 1), ("global mask lost", 0)):
    print(f"{name:20} mean log p of the right line {surprise(ids, first).mean():7.3f}")
for choice in ("first", "none"):
    print(f"global_attention={choice!r:8} {led.generate(document, global_attention=choice)}")

# %% [markdown]
# With the bundled model on its own page: the numbers move a little, and the line by two words. A test that looks at the text
# would never find out. That is why `led_ref.generate` sets the mask by itself, why a test watches that it does, and why
# implementations are compared by their numbers ([the notebook on that](06_checking_your_own.md)).
#
# ## To try
#
# 1. Read a paper of your own with Ai2's checkpoint: `led.generate(text, num_beams=4, max_new_tokens=256)`. How much of the
#    time is reading, how much writing? (`progress=` is called for both.)
# 2. Split a long document into halves and summarize each. What is lost, compared with reading it whole?
# 3. `cross_attention="folded"` saves memory for a long document. Does the text change? Why not?
