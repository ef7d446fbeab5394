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
# # Checkpoints
#
# **The question.** A model is a program and some hundred arrays of numbers. How do the numbers get from a file to the
# places where the program needs them, and how does one notice that one of them went to the wrong place?
#
# The answer of led_ref is one table. Each line says: this field of ours is filled by that key of the file, and must
# have this shape. What is missing, left over or of another shape is listed, and nothing is filled in.
#
# The first of the bundled model's two files, and one tensor on its way:

# %% alt="A file as a bar, to scale. Its header says where a tensor lies, and a table says which field it fills"
import json

from book_steps import Steps
from book_tools import BAND, QUIET, bundled

import led_ref
from led_ref.weights.keys import entries

folder = led_ref.bundled_model()
content = (folder / "model-00001-of-00002.safetensors").read_bytes()
length = int.from_bytes(content[:8], "little")
header = json.loads(content[8 : 8 + length])
entry = next(entry for entry in entries(bundled().model.config) if entry.field == "encoder.layers.0.query.weight")
start, end = header[entry.key]["data_offsets"]


def place(offset):
    """Where on the bar a tensor's byte lies: its offset is counted from the end of the header."""
    return 360 * (8 + length + offset) / len(content)


drawing = Steps(360, 268, count=4)
drawing.text(0, 12, f"all {len(content):,} bytes of the file, to scale", anchor="start")
for part, first in (
    ("decoder", "led.decoder."),
    ("positions", "led.encoder.embed_positions"),
    ("encoder", "led.encoder.lay"),
):
    offsets = [tensor["data_offsets"] for key, tensor in header.items() if key.startswith(first)]
    low, high = place(min(offsets)[0]), place(max(offsets)[1])
    drawing.box(low, 20, high - low - 1, 30, QUIET, opacity=0.3)
    drawing.text((low + high) / 2, 39, part)
drawing.line(0, 52, 0, 82, QUIET, at=1)
drawing.box(1, 82, 96, 40, line=1, at=1)
drawing.text(49, 98, "8 bytes", at=1)
drawing.text(49, 114, f"{content[:3].hex(' ')} ... = {length:,}", size=9, at=1)
drawing.line(0, 52, 103, 82, QUIET, at=2)
drawing.box(101, 82, 258, 40, line=1, at=2)
drawing.text(108, 98, f"{length:,} bytes of JSON: {len(header) - 1} tensors", anchor="start", at=2)
drawing.text(108, 114, f"F16, shape {list(entry.shape)}, bytes {start:,} to {end:,}", size=9, anchor="start", at=2)
drawing.text(1, 142, entry.key, size=9, anchor="start", at=2)
drawing.box(place(start), 17, place(end) - place(start), 36, BAND, at=3)
drawing.line(place(start) + 0.7, 54, 300, 82, BAND, width=1.5, at=3)
size = " · ".join(map(str, entry.shape))
drawing.text(1, 166, f"{end - start:,} bytes: {size} numbers of 2 bytes", anchor="start", at=3)
drawing.box(1, 184, 76, 76, BAND, opacity=0.6, at=4)
drawing.text(88, 212, "encoder.layers[0].query.weight", anchor="start", bold=True, at=4)
drawing.text(88, 232, "the table says that the key fills this field,", size=10, anchor="start", at=4)
drawing.text(88, 246, f"and that its shape must be D D, here {entry.shape}", size=10, anchor="start", at=4)
drawing.show()

# %%
import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from book_tools import GLOBAL, source

from led_ref.costs import LED_BASE, LED_LARGE
from led_ref.weights.keys import parameter_count

print(sorted(path.name for path in folder.iterdir() if path.is_file()))

# %% [markdown]
# ## A file by hand
#
# Safetensors is as simple as a format can be: eight bytes that say how long the header is, the header in JSON, and
# then the numbers, one tensor behind the other.
#
# ```text
# | 8 bytes: n | n bytes of JSON: name -> dtype, shape, from where to where | numbers |
# ```

# %%
header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
text = json.dumps(header).encode()
file = len(text).to_bytes(8, "little") + text + np.array([1.5, -2.0], "<f4").tobytes()
print(len(file), "bytes:", file[:8], file[8:40], "...", file[-8:])

with tempfile.TemporaryDirectory() as scratch:
    from led_ref.weights.safetensors_file import read_safetensors

    path = Path(scratch) / "a.safetensors"
    path.write_bytes(file)
    print(read_safetensors(path)["a"].to_numpy("float32"))

# %% [markdown]
# The reader maps the file into memory and looks at it there; nothing is copied until a number is needed. It trusts
# nothing: every offset is checked against the file's size, and tensors must cover the file without gaps and overlaps.
# The older format, `pytorch_model.bin`, is another thing. It is a program that builds tensors, and who runs a
# stranger's program should know it. led_ref reads it with a small machine that can build lists and tensors and
# nothing else.

# %%
source("led_ref.weights.keys:entries")

# %% [markdown]
# ## What is in a model
#
# The parameters of led-base by part, counted from the shapes that the configuration demands:

# %% alt="Bars of led-base's and led-large's parameters by part; encoder and decoder have the most"
PARTS = {
    "table of words": lambda key: key == "led.shared.weight",
    "positions": lambda key: "embed_positions" in key,
    "encoder, for global tokens alone": lambda key: "_global." in key,
    "encoder, the rest": lambda key: key.startswith("led.encoder."),
    "decoder": lambda key: key.startswith("led.decoder."),
}


def parameters_by_part(config):
    """How many numbers each part has; every key belongs to the first part that claims it."""
    sizes = dict.fromkeys(PARTS, 0)
    for entry in entries(config):
        part = next((name for name, claims in PARTS.items() if claims(entry.key)), None)
        if part is not None:  # lm_head is the table of words once more; final_logits_bias is no trained weight
            sizes[part] += math.prod(entry.shape)
    assert sum(sizes.values()) == parameter_count(config)
    return sizes


figure, axes = plt.subplots(figsize=(7, 2.8))
for shift, (name, config, color) in enumerate((("led-base", LED_BASE, BAND), ("led-large", LED_LARGE, GLOBAL))):
    sizes = parameters_by_part(config)
    print(
        f"{name}: {parameter_count(config):,} parameters;",
        ", ".join(f"{part} {size:,}" for part, size in sizes.items()),
    )
    axes.barh(
        np.arange(len(sizes)) + 0.4 * shift, np.array(list(sizes.values())) / 1e6, height=0.38, color=color, label=name
    )
axes.set(yticks=np.arange(len(PARTS)) + 0.2, yticklabels=PARTS, xlabel="million parameters")
axes.invert_yaxis()
axes.legend()
plt.show()

# %% [markdown]
# A global token has query, key and value projections of its own in every encoder layer. They are trained weights like
# the others, and they are used by as little as one token of a document.
#
# ## Numbers that need fewer bytes
#
# A checkpoint may hold float16 or bfloat16: two bytes a number. float16 keeps eleven significant bits and ends at
# 65,504; bfloat16 keeps eight and reaches as far as float32. They are widened to float32 when they are loaded, which
# changes nothing: every float16 is a float32.
#
# The sixteen bits of a float16 are a sign $s$, five bits of exponent $e$ and ten of mantissa $m$, and they mean
#
# $$x = (-1)^s \cdot 2^{\,e - 15} \cdot \left(1 + \frac{m}{2^{10}}\right), \qquad 0 < e < 31.$$
#
# The 1 in front is not stored; that makes eleven bits of ten. With $e = 0$ it is missing, for numbers near zero;
# $e = 31$ is infinity, or not a number. A bfloat16 has eight bits of exponent, like float32, and seven of mantissa. By
# hand, a third:

# %%
bits = f"{int(np.float16(1 / 3).view(np.uint16)):016b}"
sign, exponent, mantissa = int(bits[0], 2), int(bits[1:6], 2), int(bits[6:], 2)
by_hand = (-1) ** sign * 2.0 ** (exponent - 15) * (1 + mantissa / 2**10)
print(f"{bits[0]} {bits[1:6]} {bits[6:]}: 2^({exponent} - 15) (1 + {mantissa} / 1024) = {by_hand:.9f}")
assert by_hand == np.float16(1 / 3)

# %% [markdown]
# And three numbers in all three types:

# %%
x = np.array([1 / 3, 1000 / 3, 70000.0], dtype=np.float32)
with np.errstate(over="ignore"):
    half = x.astype(np.float16).astype(np.float32)
brain = (x.view(np.uint32) + 0x7FFF + ((x.view(np.uint32) >> 16) & 1) & 0xFFFF0000).view(
    np.float32
)  # to nearest, ties to even
for name, values in (("float32", x), ("float16", half), ("bfloat16", brain)):
    print(f"{name:9}", "  ".join(f"{value:12.6f}" for value in values))

# %% [markdown]
# ## One table under four names
#
# The table of words is used three times: to embed the document, to embed what is written, and to turn the last state
# into scores of words. Files name it up to four times. It is stored once if it is one table, and led_ref compares the
# copies bit for bit where a file has several; if `lm_head.weight` is another table, it is used as one.

# %%
source("led_ref.weights.load:settle_tied_tables")

# %% [markdown]
# ## What goes wrong when one thing is changed
#
# Three ways to break a checkpoint, and what is said. The worst is the fourth: a file in which all shapes are right
# and two tensors are exchanged. No loader can see that.

# %% tags=["fold"]
from led_ref.weights.find_files import read_tensors
from led_ref.weights.safetensors_file import write_safetensors
from led_ref.weights.stored_tensor import StoredTensor

KEY = "led.encoder.layers.0.self_attn.longformer_self_attn.key.weight"
QUERY = KEY.replace("key", "query")


def broken(change):
    """The bundled model with its tensors changed: what loading it says, and what it then writes."""
    tensors = {name: tensor.to_numpy("float32") for name, tensor in read_tensors(folder).items()}
    change(tensors)
    with tempfile.TemporaryDirectory() as scratch:
        for path in folder.iterdir():
            if path.suffix in (".json", ".txt"):
                (Path(scratch) / path.name).write_bytes(path.read_bytes())
        write_safetensors(
            Path(scratch) / "model.safetensors", {n: StoredTensor("F32", a) for n, a in tensors.items()}, {}
        )
        try:
            led = led_ref.load(scratch)
        except led_ref.LEDError as error:
            return str(error).replace(scratch, "FOLDER")
        return "loaded; writes: " + led.generate(
            (folder / "led-ref.1.txt").read_text(encoding="utf-8"), max_new_tokens=16
        )


def exchange(tensors):
    """Two tensors of the same shape change places."""
    tensors[KEY], tensors[QUERY] = tensors[QUERY], tensors[KEY]


def turn(tensors):
    """A matrix the wrong way round, which shows only where it is not square."""
    name = "led.encoder.layers.0.fc1.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)


for what, change in (
    ("a tensor is missing", lambda tensors: tensors.pop(KEY)),
    ("a matrix is transposed", turn),
    ("a number is not finite", lambda tensors: tensors[KEY].__setitem__((3, 5), np.nan)),
    ("query and key are exchanged", exchange),
):
    print(f"{what}:\n  {broken(change)}\n")

# %% [markdown]
# The last one loads. Scores are q · k, so with both exchanged every token looks at those that would have looked at
# it. To find such a thing one needs numbers that are known to be right: for the real led-base, `led-ref doctor
# --checkpoint DIR` compares eighteen of them, and for any port there are the vectors of chapter 15.
#
# ## Exercises
#
# 1. `led-ref exercise 10`: read a safetensors header without any library.
# 2. With query and key exchanged, biases included: what happens to the table of scores before the softmax?
# 3. Which parameters of led-base does a document without a global token never use?
#
# <details class="answers" markdown><summary>Answers</summary>
#
# **2.** The score of i and j becomes $k_i \cdot q_j$, which was the score of j and i: the table is transposed.
#
# **3.** `query_global`, `key_global` and `value_global` of all layers: 6 · 3 · (768² + 768) = 10,630,656 numbers.
#
# </details>
#
# How to get Ai2's models: [Ai2's checkpoints](../checkpoints.md).
