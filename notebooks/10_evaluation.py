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
# # Evaluation
#
# How good is a model? Let it write about documents that it has never seen, and compare with what people wrote:
# **evaluation**. The documents here come with Python: many modules of its library begin with a description whose
# first line says what the module is for. The first line is the reference, the rest is the document. The bundled model
# was trained on manual pages and RFCs, which are other kinds of text, so expect little; the point is how to see that. At the
# end are the lines for arXiv's papers and Ai2's model.
#
# Cells marked "not in a browser" need the library `rouge_score`, or the files of Python's own library.

# %%
import ast
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from book_tools import BAND, GLOBAL, QUIET

import led_ref
from led_ref.tools.evaluation.copied import copied_runs
from led_ref.tools.evaluation.scores import Bootstrap, answer_scores, confusions, label_scores, rouge

folder = Path(tempfile.mkdtemp())


# %% tags=["native"]
def description(name):
    """The text at the beginning of a module of Python's library, without running the module; or None."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return None
    return ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8")))


documents = []
for name in sorted(sys.stdlib_module_names):
    if name.startswith("_") or name in ("antigravity", "this"):
        continue
    first, _, rest = (description(name) or "").partition("\n\n")
    if "\n" not in first and len(rest.split()) >= 40:
        documents.append({"text": rest, "summary": first, "name": name})
documents = documents[:32]
(folder / "modules.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents), encoding="utf-8")
print(f"{len(documents)} documents; one of them, {documents[1]['name']}:")
print(documents[1]["text"][:300], "...")
print("->", documents[1]["summary"])

# %% [markdown]
# ## The scores
#
# **ROUGE-1** counts common words, **ROUGE-2** common pairs of neighbours, **ROUGE-L** the longest common subsequence.
# Each is an F-measure, in percent. Beside the model stand two baselines that anybody can have without a model: the
# first words of the document, and the module's name.

# %% tags=["native"]
found = led_ref.evaluate(
    folder / "modules.jsonl", baselines=["lead", "copy name"], truncate=True, html=folder / "page.html", batch_size=8
)
print("\n".join(found.lines()[:9]))

# %% alt="Bars with error bars: ROUGE-1, ROUGE-2 and ROUGE-L of the model and of the two baselines" tags=["native"]
rows = {"bundled model": found.report["scores"], **found.report["baselines"]}
names = ["rouge1", "rouge2", "rougeL"]
figure, axes = plt.subplots(figsize=(8, 3.2))
for row, (label, scores) in enumerate(rows.items()):
    values = np.array([[scores[name][part] for name in names] for part in ("value", "low", "high")])
    places = np.arange(len(names)) + 0.25 * row
    errors = [values[0] - values[1], values[2] - values[0]]
    axes.bar(places, values[0], 0.22, yerr=errors, capsize=3, label=label, color=(BAND, QUIET, GLOBAL)[row])
axes.set(xticks=np.arange(len(names)) + 0.25, xticklabels=["ROUGE-1", "ROUGE-2", "ROUGE-L"], ylabel="percent")
axes.legend()
plt.show()

# %% [markdown]
# A model below a baseline has learned nothing that helps here. Without the baselines one might take its score for a
# beginning.
#
# ## What an interval says
#
# Other documents would have given another score. The **bootstrap** imitates that: it draws as many documents as there
# are, with replacement, a thousand times. 95% of the means so found lie inside the interval. It shrinks with the
# square root of the number of documents, so four times as many halve it.

# %% alt="The interval of the lead baseline's ROUGE-L narrows as more documents are scored" tags=["native"]
lead = next(name for name in rows if name.startswith("lead"))
words = int(lead.split()[1])
leads = [" ".join(each["text"].split()[:words]) for each in documents]
each_lead = rouge([[each["summary"]] for each in documents], leads, stemmer=False, sentences="split")["rougeL"]
counts = [4, 8, 16, len(documents)]
intervals = [Bootstrap().mean(each_lead[:count]) for count in counts]
figure, axes = plt.subplots(figsize=(8, 2.6))
axes.fill_between(counts, [one.low for one in intervals], [one.high for one in intervals], alpha=0.3, color=QUIET)
axes.plot(counts, [one.value for one in intervals], "o-", color=QUIET)
axes.set(xlabel="documents", ylabel="ROUGE-L, percent", ylim=(0, None))
plt.show()

# %% [markdown]
# ## One line or three
#
# **ROUGE-Lsum** compares sentence by sentence, and takes lines for sentences. The two texts below have the same
# sentences in another order. On one line each, ROUGE-Lsum does not see the sentences, and gives ROUGE-L. That is why
# `evaluate` leaves it out where references have several sentences on one line, and why `sentences="split"` is printed
# with its rule.

# %% tags=["native"]
reference = "The window is narrow. Global tokens see everything. Memory grows with the length."
written = "Memory grows with the length. The window is narrow. Global tokens see everything."
for label, form in (("on one line", str), ("a sentence a line", lambda text: text.replace(". ", ".\n"))):
    from rouge_score.rouge_scorer import RougeScorer

    scores = RougeScorer(["rougeL", "rougeLsum"]).score(form(reference), form(written))
    print(f"{label:18}", {name: round(100 * score.fmeasure, 1) for name, score in scores.items()})
found_split = rouge([[reference]], [written], stemmer=False, sentences="split")
print(f"{'sentences=split':18}", {name: round(float(found_split[name][0]), 1) for name in ("rougeL", "rougeLsum")})

# %% [markdown]
# The stemmer matters, too: it cuts endings off, so that `files` is `file`.

# %% tags=["native"]
for stemmer in (False, True):
    score = rouge([["print the files"]], ["prints a file"], stemmer=stemmer, sentences="lines")["rouge1"][0]
    print(f"stemmer {stemmer!s:5}  ROUGE-1 {score:.1f}")

# %% [markdown]
# ## The worst and the best
#
# Read cases before you believe a mean. `html=` has written a page with the ten worst and the ten best; here are three
# of each.

# %% tags=["native"]
name, values = found.each
order = np.argsort(values, kind="stable")
for i in [*order[:3], *order[-3:]]:
    print(f"{values[i]:5.1f}  {documents[i]['summary']!r}\n       {found.written[i]!r}")
print((folder / "page.html").stat().st_size, "bytes of HTML")

# %% [markdown]
# What a model **copies** is easy to see: runs of at least three words that stand in the document, too.

# %%
text = "It reads a document. The window of a token is 512 tokens wide, and it moves along."
runs, origins, share = copied_runs("LED says that the window of a token is 512 tokens wide.", text)
print([text[slice(*run)] for run in origins], f"{share:.0%} of the words")

# %% [markdown]
# ## Answers and labels
#
# Answers are compared as **SQuAD** does: small letters, no punctuation, no articles. Exact match is all or nothing,
# F1 counts common words, and of several right answers the best one counts. A question without an answer is right if
# nothing is answered.

# %%
right = [["the Longformer"], ["16,384 tokens", "16,384"], [], ["Ai2"]]
answers = ["Longformer.", "up to 16,384 tokens", "", "in 2020"]
for label, score in answer_scores(right, answers, Bootstrap()).items():
    print(f"{label:24} {score}")

# %% [markdown]
# For labels **accuracy** is the share that is right. **Macro F1** is the mean over labels, so a rare label weighs as
# much as a frequent one: a model that always gives the frequent label has a good accuracy and a poor macro F1.

# %%
labels = ["news"] * 9 + ["law"]
for label, given in (("always news", ["news"] * 10), ("one mistake", ["news"] * 8 + ["law"] * 2)):
    scores = label_scores(labels, given, Bootstrap())
    print(
        f"{label:12} accuracy {scores['accuracy'].value:.0f}, macro F1 {scores['macro_f1'].value:.0f}",
        confusions(labels, given),
    )

# %% [markdown]
# ## To try
#
# 1. Fine-tune the bundled model on half of the modules ([Fine-tuning](09_fine_tuning.md)) and evaluate on the other half.
#    Does it pass the baselines? By more than the interval?
# 2. Score the baseline `lead 30`. Which of the three measures rises, and why does precision pay for it?
# 3. Write the references with a sentence a line, and look where ROUGE-L and ROUGE-Lsum part.
#
# ## The lines that change for arXiv
#
# The notebook of transformers evaluates Ai2's LED-large on papers of arXiv. The papers are fetched by the `datasets` library
# (`scientific_papers`, `arxiv`), and are not part of led_ref; write them as lines with `article` and `abstract`. Then:
#
# ```python
# led_ref.evaluate(
#     "arxiv.jsonl",
#     "allenai/led-large-16384-arxiv",
#     text_field="article",
#     target_field="abstract",
#     truncate=True,  # the notebook cuts at 16,384 tokens; here the number of cut papers is in the report
#     sentences="split",
#     baselines=["lead"],
#     compare="arxiv",  # the paper's row beside yours
#     out="arxiv-scores",  # a night on a CPU: resume=True goes on
# )
# ```
#
# | step of that notebook | here |
# |---|---|
# | `generate_answer` with a global mask on `<s>` | how documents are read; nothing to set |
# | `dataset.map(..., batch_size=4)` | `batch_size=4`, documents of like length together |
# | `rouge.compute(..., rouge_types=["rouge2"])` | all four, with intervals; stemmer and sentences are in the report |
#
# These lines have not been run here: neither the papers nor that checkpoint were at hand.
