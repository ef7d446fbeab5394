"""All the steps of LED in one table: what each named intermediate is, its shape, and its place in the order of work.

    fold("step.3.led.decoder.layers.1.fc1.output")   "led.decoder.layers.i.fc1.output", which is a row of the table:
    describe(...)                                    Described("fc1(x) = W1 x + b1", "N U F")

A name is a checkpoint's module path and a role. `output` is what a forward hook on that module sees in PyTorch, `input`
what a forward pre-hook sees; the other roles lie between modules, where no hook reaches. The decoder of a generation
works once for each id it writes: its names, and the logits, then begin with `step.0`, `step.1`, ...

Shapes are letters of the dimension key (config.py), one for each axis, with three sums: `G+2R+1` columns of a window, `S`
target positions so far, `C` candidates. Two are shown in another form than the model
computes, so that everyone can compare them: `key_global` and `global_scores` below.

This file holds words only; `test_trace.py` holds that a trace has the same names in the same order.
"""

import re
from typing import NamedTuple


class Described(NamedTuple):
    """What a step is: the equation, and a letter for each axis."""

    equation: str
    letters: str


# The function that config.json names; all released LEDs have gelu.
_ACTIVATION = "activation(y); gelu(y) = y (1 + erf(y / sqrt(2))) / 2 unless config.json names relu, silu or gelu_new"
# What a LayerNorm reads, and what it gives.
_NORMALISED = "(x - mean) / sqrt(var + 1e-5) * weight + bias"

_ENCODER_INPUT = {
    "led.encoder.attention_mask": ("1 for a token, 0 for padding", "B T"),
    "led.encoder.global_attention_mask": ("1 for a global token, 0 for a local one, -1 for padding", "B T"),
    "led.encoder.input_ids": ("the documents", "B T"),
    "led.encoder.embed_tokens.output": ("E[id]", "B T D"),
    "led.encoder.embed_positions.output": ("P[0], P[1], ..., P[T - 1]", "T D"),
    "led.encoder.layernorm_embedding.input": ("E[id_t] + P[t]", "B T D"),
    "led.encoder.layernorm_embedding.output": (_NORMALISED, "B T D"),
}

_ENCODER_LAYER = {
    "self_attn.longformer_self_attn.query.output": ("Wq x + bq", "B T D"),
    "self_attn.longformer_self_attn.q": ("(Wq x + bq) / sqrt(K), cut into heads", "B H T K"),
    "self_attn.longformer_self_attn.key.output": ("Wk x + bk", "B T D"),
    "self_attn.longformer_self_attn.k": ("Wk x + bk, cut into heads", "B H T K"),
    "self_attn.longformer_self_attn.value.output": ("Wv x + bv", "B T D"),
    "self_attn.longformer_self_attn.v": ("Wv x + bv, cut into heads", "B H T K"),
    "self_attn.longformer_self_attn.scores": (
        "q_i . k_j: first every global j, then j = i - R ... i + R; -inf where i may not look, and for rows i not local",
        "B H T G+2R+1",
    ),
    "self_attn.longformer_self_attn.probs": ("softmax(scores); 0 for rows that are not local", "B H T G+2R+1"),
    # Shown for comparison: with few global tokens the model never makes these two (model/global_attention.py).
    "self_attn.longformer_self_attn.key_global.output": ("Wk' x + bk'", "B T D"),
    "self_attn.longformer_self_attn.value_global.output": ("Wv' x + bv'", "B T D"),
    "self_attn.longformer_self_attn.query_global.output": ("Wq' x_g + bq' of the global tokens g", "B G D"),
    "self_attn.longformer_self_attn.global_q": ("(Wq' x_g + bq') / sqrt(K), cut into heads", "B H G K"),
    # With q . bk', which the model leaves out where softmax does not see it.
    "self_attn.longformer_self_attn.global_scores": ("q'_g . k'_j over all j; -inf where j is padding", "B H T G"),
    "self_attn.longformer_self_attn.global_probs": ("softmax(global_scores) over j, the axis T", "B H T G"),
    "self_attn.longformer_self_attn.output": (
        "sum_j probs_ij v_j; rows of global tokens: sum_j global_probs_jg v'_j; rows of padding: 0",
        "B T D",
    ),
    "self_attn.output.output": ("Wo a + bo, a the attention's output", "B T D"),
    "self_attn_layer_norm.input": ("x + (Wo a + bo)", "B T D"),
    "self_attn_layer_norm.output": (_NORMALISED, "B T D"),
    "fc1.output": ("W1 x + b1", "B T F"),
    "activation_fn.output": (_ACTIVATION, "B T F"),
    "fc2.output": ("W2 activation(W1 x + b1) + b2", "B T D"),
    "final_layer_norm.input": ("x + fc2(activation(fc1(x)))", "B T D"),
    "final_layer_norm.output": (_NORMALISED, "B T D"),
}

_TARGET = {"led.decoder.input_ids": ("the target's ids that are new now, the start id first", "N U")}

# Made once for a document, before the first target position.
_DOCUMENT_MEMORY = {
    "encoder_attn.k_proj.output": ("Wk e + bk, e the encoder's last states", "B T D"),
    "encoder_attn.k": ("Wk e + bk, cut into heads", "B H T K"),
    "encoder_attn.v_proj.output": ("Wv e + bv", "B T D"),
    "encoder_attn.v": ("Wv e + bv, cut into heads", "B H T K"),
}

_DECODER_INPUT = {
    "led.decoder.attention_mask": ("1 for a target token, 0 for padding; all positions so far", "N S"),
    "led.decoder.embed_tokens.output": ("E[id]", "N U D"),
    "led.decoder.embed_positions.output": ("P[u] of the new positions u", "U D"),
    "led.decoder.layernorm_embedding.input": ("E[id_u] + P[u]", "N U D"),
    "led.decoder.layernorm_embedding.output": (_NORMALISED, "N U D"),
}

_DECODER_LAYER = {
    "self_attn.k_proj.output": ("Wk x + bk", "N U D"),
    "self_attn.v_proj.output": ("Wv x + bv", "N U D"),
    "self_attn.k": ("what the cache has, then Wk x + bk, cut into heads", "N H S K"),
    "self_attn.v": ("what the cache has, then Wv x + bv, cut into heads", "N H S K"),
    "self_attn.q_proj.output": ("Wq x + bq", "N U D"),
    "self_attn.q": ("(Wq x + bq) / sqrt(K), cut into heads", "N H U K"),
    "self_attn.scores": ("q_u . k_s; -inf for s after u and for padding", "N H U S"),
    "self_attn.probs": ("softmax(scores)", "N H U S"),
    "self_attn.out_proj.input": ("sum_s probs_us v_s, heads side by side", "N U D"),
    "self_attn.out_proj.output": ("Wo a + bo", "N U D"),
    "self_attn_layer_norm.input": ("x + (Wo a + bo)", "N U D"),
    "self_attn_layer_norm.output": (_NORMALISED, "N U D"),
    "encoder_attn.q_proj.output": ("Wq x + bq", "N U D"),
    "encoder_attn.q": ("(Wq x + bq) / sqrt(K), cut into heads", "N H U K"),
    "encoder_attn.scores": ("q_u . k_t; -inf where the document is padding", "N H U T"),
    "encoder_attn.probs": ("softmax(scores)", "N H U T"),
    "encoder_attn.out_proj.input": ("sum_t probs_ut v_t, heads side by side", "N U D"),
    "encoder_attn.out_proj.output": ("Wo a + bo", "N U D"),
    "encoder_attn_layer_norm.input": ("x + (Wo a + bo)", "N U D"),
    "encoder_attn_layer_norm.output": (_NORMALISED, "N U D"),
    "fc1.output": ("W1 x + b1", "N U F"),
    "activation_fn.output": (_ACTIVATION, "N U F"),
    "fc2.output": ("W2 activation(W1 x + b1) + b2", "N U D"),
    "final_layer_norm.input": ("x + fc2(activation(fc1(x)))", "N U D"),
    "final_layer_norm.output": (_NORMALISED, "N U D"),
}

_HEAD = {
    "logits": ("E x + final_logits_bias; in a generation, of the last position", "N U V"),
    "loss": ("mean of -log softmax(logits)[label] over the labels that are not -100", ""),
}

_GREEDY_STEP = {
    "greedy.step.n.scores": ("processors(logits)", "N V"),
    "greedy.step.n.tokens": ("argmax(scores), the lower id of equal ones; pad in rows that have ended", "N"),
    "greedy.step.n.is_running": ("whether the row has not ended", "N"),
}

_SAMPLE_STEP = {
    "sample.step.n.scores": ("processors(logits), what is unlikely cut off", "N V"),
    "sample.step.n.tokens": ("drawn from softmax(scores); pad in rows that have ended", "N"),
    "sample.step.n.is_running": ("whether the row has not ended", "N"),
}

_BEAM_STEP = {
    "beam.step.n.logprobs": ("log softmax(logits)", "N V"),
    "beam.step.n.scores": ("processors(logprobs)", "N V"),
    "beam.step.n.candidates.scores": ("running score + scores: the C best continuations of a document", "B C"),
    "beam.step.n.candidates.tokens": ("the id that each adds", "B C"),
    "beam.step.n.candidates.beams": ("the running beam of the step before that each goes on from", "B C"),
    "beam.step.n.candidates.stops": ("whether the text ends with it", "B C"),
    "beam.step.n.running.scores": ("sums of log-probabilities of the W best that do not stop", "B W"),
    "beam.step.n.running.tokens": ("the id that each added", "B W"),
    "beam.step.n.running.beams": ("the running beam of the step before that each goes on from", "B W"),
    "beam.step.n.finished.scores": ("sum of log-probabilities / length**length_penalty, the W best so far", "B W"),
    "beam.step.n.finished.ids": ("their texts, filled up to max_length", "B W L"),
    "beam.step.n.finished.is_finished": ("False: the slot is still empty", "B W"),
    "beam.step.n.is_open": ("whether the document can still get a better text", "B"),
}

# Rows of the results: num_return_sequences of each document.
_RESULT = {
    "greedy.sequences": ("what was written, prompt first", "N U"),
    "sample.sequences": ("what was drawn, prompt first", "N U"),
    "beam.sequences": ("the best finished texts, prompt first", "N U"),
    "beam.sequences_scores": ("their scores", "B W"),
}


def _in_layers(path: str, rows: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return {f"{path}.layers.i.{name}": row for name, row in rows.items()}


# In the order of work. Within a section, one layer follows the other.
_SECTIONS = (
    _ENCODER_INPUT, _in_layers("led.encoder", _ENCODER_LAYER),
    _TARGET, _in_layers("led.decoder", _DOCUMENT_MEMORY), _DECODER_INPUT, _in_layers("led.decoder", _DECODER_LAYER),
    _HEAD, _GREEDY_STEP, _SAMPLE_STEP, _BEAM_STEP, _RESULT,
)  # fmt: skip

# Every step's folded name and what it is, in the order of work.
STEPS: dict[str, Described] = {name: Described(*row) for section in _SECTIONS for name, row in section.items()}

# A gradient has the name of its intermediate, or of its weight, and this.
GRADIENT = ".grad"

_PLACES = {name: (s, r) for s, section in enumerate(_SECTIONS) for r, name in enumerate(section)}
_AFTER_ALL = 1 << 62
_WAY_BACK = 1 << 61


def fold(name: str) -> str:
    """The name with layer numbers as `i` and step numbers as `n`, without the decoder's `step.n`: a row of `STEPS`.

    Example:
        >>> fold("step.3.led.decoder.layers.1.fc1.output"), fold("beam.step.12.running.beams")
        ('led.decoder.layers.i.fc1.output', 'beam.step.n.running.beams')
    """
    name = re.sub(r"(^|\.)layers\.\d+(?=\.|$)", r"\1layers.i", name)
    name = re.sub(r"(^|\.)step\.\d+(?=\.|$)", r"\1step.n", name)
    return name.removeprefix("step.n.")


def describe(name: str) -> Described:
    """What a step is; empty words for a name that the table does not have.

    Example:
        >>> describe("led.encoder.layers.0.fc1.output.grad")
        Described(equation='d loss / d (W1 x + b1)', letters='B T F')
    """
    if not name.endswith(GRADIENT):
        return STEPS.get(fold(name), Described("", ""))
    of = name.removesuffix(GRADIENT)
    if fold(of) in STEPS:
        equation, letters = STEPS[fold(of)]
        return Described(f"d loss / d ({equation})", letters)
    return Described(f"d loss / d {of.rpartition('.')[2]}", "")


def place(name: str) -> tuple[int, int, int, int]:
    """A key that sorts names in the order of work; names that the table does not have come last.

    Example:
        >>> sorted(["logits", "led.encoder.layers.1.fc2.output", "led.encoder.layers.0.q", "step.0.logits"], key=place)
        ['led.encoder.layers.1.fc2.output', 'logits', 'step.0.logits', 'led.encoder.layers.0.q']
    """
    if name.endswith(GRADIENT):
        return _place_of_gradient(name.removesuffix(GRADIENT))
    folded = fold(name)
    if folded not in _PLACES:
        return _AFTER_ALL, 0, 0, 0
    section, row = _PLACES[folded]
    step = layer_or_step(name, "step")
    if step is None:
        step = -1 if folded not in _RESULT else _AFTER_ALL - 1
    layer = layer_or_step(name, "layers")
    return step, section, -1 if layer is None else layer, row


def _place_of_gradient(name: str) -> tuple[int, int, int, int]:
    """On the way back, the forward order turned round; a weight behind the output of its module.

    Heads of other classes come first, and the embedding table last: its gradient is a sum over all of its uses.
    """
    if name == "led.shared.weight":
        return _WAY_BACK + 1, 0, 0, 0
    module, _, part = name.rpartition(".")
    behind = {"weight": 1, "bias": 2}.get(part, 0)
    of = ("logits" if module == "lm_head" else f"{module}.output") if behind else name
    if fold(of) not in _PLACES:
        return (_AFTER_ALL if name.startswith("led.") else _WAY_BACK - 1), 0, 0, 0
    _, section, layer, row = place(of)
    return _WAY_BACK, -section, -layer, -3 * row + behind


def layer_or_step(name: str, what: str) -> int | None:
    """The number behind `layers` or `step` in a name, if there is one."""
    found = re.search(rf"(?:^|\.){what}\.(\d+)(?:\.|$)", name)
    return None if found is None else int(found[1])
