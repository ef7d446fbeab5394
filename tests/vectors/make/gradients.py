"""Level 8 of the vectors: gradients of operations, of layers, of the whole loss, and a step of AdamW.

A gradient has the name of its array and `.grad`: a case of `linear_backward` gives x, weight, bias and the gradient of its
output, `y.grad`; its answer has `x.grad`, `weight.grad` and `bias.grad`. All come from the chain rule of the definition
(oracle/definition/chain_rule.py, training.py).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from led_ref.config import ACTIVATIONS
from led_ref.oracle.definition import chain_rule, training
from led_ref.oracle.definition import model as dense
from led_ref.oracle.definition.chain_rule import Node
from led_ref.oracle.vectors.format import Array, Case
from led_ref.weights.keys import FINAL_LOGITS_BIAS, entries
from make.draw import numbers, whole
from make.layers import DECODER_LAYER_DEPTH, EMBED_DEPTH, ENCODER_LAYER_DEPTH, FULL_TYPES, TINY
from make.steps import mask_of

# As the other small models, and smaller: a whole gradient is an answer. Heads are so narrow that two global tokens do not
# fold (model/global_attention.py), and one does.
LEARNER = dataclasses.replace(
    TINY,
    vocab_size=17,
    d_model=6,
    encoder_attention_heads=3,
    decoder_attention_heads=2,
    encoder_ffn_dim=5,
    decoder_ffn_dim=7,
    attention_window=(4, 8),
    max_encoder_position_embeddings=19,
    max_decoder_position_embeddings=11,
)
LEARNER_FILE = "learner.safetensors"
FORWARD_DEPTH = 2 * EMBED_DEPTH + 2 * ENCODER_LAYER_DEPTH + 2 * DECODER_LAYER_DEPTH + 1
MASKS = [("1111111111111", "1000000000000"), ("1111111110000", "0010010000000")]
NOTHING: Mapping[str, Any] = {}


@functools.cache
def learner_weights() -> Mapping[str, Array]:
    """The model's weights by checkpoint key, float32, its output projection tied."""
    weights = {}
    for entry in entries(LEARNER):
        name, is_vector = f"learner/{entry.key}", len(entry.shape) == 1 or entry.key == FINAL_LOGITS_BIAS
        if "norm" in entry.key and entry.key.endswith("weight"):
            weights[entry.key] = numbers(name, entry.shape, spread=0.2, centre=1.0)
        elif entry.key != "lm_head.weight":
            weights[entry.key] = numbers(
                name, entry.shape, spread=0.3 if is_vector else 1.3 / math.sqrt(entry.shape[1])
            )
    return weights


def cases() -> Iterator[Case]:
    """The cases of level 8."""
    yield from _operations()
    yield from _attentions()
    yield from _global_rows()
    yield from _losses()
    yield from _layers()
    yield from _whole()
    yield from _optimizer()


def _case(case: str, operation: str, inputs: Mapping[str, Array], answer: Mapping[str, Any], **more: Any) -> Case:
    """No half precision: gradients need more digits."""
    arrays = {name: np.asarray(value, np.float64) for name, value in answer.items()}
    return Case(f"L8-{case}", operation, inputs=inputs, answers=(arrays,), types=FULL_TYPES, **more)


def _through(
    case: str,
    operation: str,
    inputs: Mapping[str, Array],
    forward: Callable[[Mapping[str, Node]], Node],
    depth: int,
    **more: Any,
) -> Case:
    """The gradients of all float inputs of an operation, for a drawn gradient of its output."""
    nodes = {name: Node(array) for name, array in inputs.items() if array.dtype.kind == "f"}
    result = forward(nodes)
    given = numbers(f"L8-{case}/y.grad", result.value.shape, spread=1.0)
    return _case(
        case, f"{operation}_backward", {**inputs, "y.grad": given},
        with_suffix(chain_rule.gradients(result, nodes, given)), depth=depth, **more,
    )  # fmt: skip


def with_suffix(gradients: Mapping[str, Array]) -> dict[str, Array]:
    """x -> x.grad."""
    return {f"{name}.grad": gradient for name, gradient in gradients.items()}


# ---- operations -----------------------------------------------------------------------------------------------------


def _map(case: str, shape: tuple[int, ...], out: int, **x: float) -> dict[str, Array]:
    """x, and weight and bias of what reads it."""
    name = f"L8-{case}"
    weight = (out, shape[-1]) if out else shape[-1:]
    return {
        "x": numbers(f"{name}/x", shape, **{"spread": 1.0, **x}),
        "weight": numbers(f"{name}/weight", weight, spread=0.3 if out else 0.2, centre=0.0 if out else 1.0),
        "bias": numbers(f"{name}/bias", (out or shape[-1],), spread=0.3),
    }


def _named(name: str, nodes: Mapping[str, Node]) -> dict[str, Node]:
    return {f"{name}.weight": nodes["weight"], f"{name}.bias": nodes["bias"]}


def _operations() -> Iterator[Case]:
    for name, shape, out in (("rows", (7, 13), 5), ("one", (1, 1), 1)):
        inputs = _map(f"linear-{name}", shape, out)
        yield _through(f"linear-{name}", "linear", inputs, lambda n: training.linear(_named("f", n), "f", n["x"]), 1)
    for name, shape, x, flags in (
        ("rows", (5, 13), {}, ()),
        ("narrow", (3, 7), {"spread": 1 / 64, "step": 1 / 4096}, ("eps_counts",)),
    ):
        inputs = _map(f"layer-norm-{name}", shape, 0, **x)
        depth = 4 if not flags else 4 * 64  # 1 / sqrt(variance + eps) is that large
        yield _through(
            f"layer-norm-{name}", "layer_norm", inputs, lambda n: training.layer_norm(_named("n", n), "n", n["x"]),
            depth, flags=flags,
        )  # fmt: skip
    x = np.concatenate([np.arange(-192, 193, 12) / 32, [-128, -40, -8, 8, 40, 128]]).astype(np.float32)
    for activation in ACTIVATIONS:
        depth = 8 if activation == "gelu_new" else 4  # its slope is a polynomial times a share that all but vanishes
        yield _through(
            activation.replace("_", "-"), activation, {"x": x},
            lambda n, activation=activation: training.activate(activation, n["x"]), depth, flags=("large_values",),
        )  # fmt: skip
    for name, centre, step, flags in (("masked", 0, 1 / 64, ("padding",)), ("large", 800, 4, ("large_values",))):
        spread = 1.0 if centre == 0 else 4.0
        scores = numbers(f"L8-softmax-{name}/scores", (7, 13), spread=spread, centre=centre, step=step)
        may_look = whole(f"L8-softmax-{name}/may_look", (7, 13), 0, 3).clip(0, 1)
        may_look[:, 3] = 1
        yield _through(
            f"softmax-{name}", "softmax", {"scores": scores, "may_look": may_look},
            lambda n, seen=may_look == 1: training.softmax(n["scores"], seen), 3, flags=flags,
        )  # fmt: skip
    case = "L8-embed"
    ids = np.array([5, 16, 5, 0, 1, 1, 5])  # a word three times, the pad id twice
    embedding = {
        "ids": ids,
        "table": numbers(f"{case}/table", (17, 13), spread=0.5),
        "positions": numbers(f"{case}/positions", (11, 13), spread=0.4),
        "weight": numbers(f"{case}/weight", (13,), spread=0.2, centre=1.0),
        "bias": numbers(f"{case}/bias", (13,), spread=0.3),
    }
    arguments = {"pad_token_id": 1}
    yield _through("embed", "embed", embedding, _embedded(ids), 5, arguments=arguments, flags=("repeated_ids",))


def _embedded(ids_T: Array) -> Callable[[Mapping[str, Node]], Node]:
    def forward(nodes: Mapping[str, Node]) -> Node:
        weights = {"s.embed_positions.weight": nodes["positions"], **_named("s.layernorm_embedding", nodes)}
        return training.embed(weights, "s", training.look_up(nodes["table"], ids_T, 1))

    return forward


# ---- attention ------------------------------------------------------------------------------------------------------

# name: (T, R, attention mask, global mask, flags), as in make/steps.py.
_WINDOWS: Mapping[str, tuple[int, int, str | None, str | None, tuple[str, ...]]] = {
    "plain": (17, 2, None, None, ("global_none", "n_not_multiple")),
    "holes": (17, 3, "11011101000011101", None, ("padding", "global_none", "n_not_multiple")),
    "globals": (19, 3, "1111111111111110000", "1000110000100010000", ("padding", "global_in_window")),
    "all-global-but-one": (7, 2, None, "1110111", ("global_all",)),
    "wide": (7, 11, None, "1000000", ("n_lt_window",)),
    "far-apart": (137, 5, None, "1" + 135 * "0" + "1", ("long", "n_not_multiple")),
    "large-scores": (13, 2, None, "1" + 12 * "0", ("large_values",)),
}


def _attentions() -> Iterator[Case]:
    for name, (length, radius, seen, marks, flags) in _WINDOWS.items():
        heads, width = (1, 3) if length > 100 else (2, 5)
        step = 1 / 8 if name == "large-scores" else 1 / 64
        shape = (heads, length, width)
        qkv = {part: numbers(f"L8-window-{name}/{part}", shape, spread=64 * step, step=step) for part in "qkv"}
        masks = {"attention_mask": mask_of(seen, length, 1), "global_attention_mask": mask_of(marks, length, 0)}
        kinds_T = dense.token_kinds((1, length), masks["attention_mask"][None], masks["global_attention_mask"][None])[0]
        may_look_TT = dense.who_sees_whom(kinds_T, radius)
        may_look_TT[kinds_T != dense.LOCAL] = False
        depth = 8 if step == 1 / 64 else 8 * 64  # rounding errors of scores are those of their size
        yield _through(
            f"window-{name}", "window", {**qkv, **masks}, _attended(may_look_TT), depth,
            arguments={"radius": radius}, flags=flags,
        )  # fmt: skip
    masked = np.ones((5, 11), np.int64)
    masked[:, 7:] = 0
    for name, may_look, flags in (
        ("causal", np.tril(np.ones((7, 7), np.int64)), ("causal",)),
        ("cross-padded", masked, ("padding",)),
    ):
        queries, keys = may_look.shape
        shapes = {"q": (3, queries, 5), "k": (3, keys, 5), "v": (3, keys, 5)}
        qkv = {part: numbers(f"L8-full-{name}/{part}", shape, spread=1.0) for part, shape in shapes.items()}
        inputs = {**qkv, "may_look": may_look}
        yield _through(f"full-{name}", "full", inputs, _attended(may_look == 1), 8, flags=flags)


def _attended(may_look: Array) -> Callable[[Mapping[str, Node]], Node]:
    """Heads side by side: (T, H K)."""

    def forward(nodes: Mapping[str, Node]) -> Node:
        heads = len(nodes["q"].value)
        return chain_rule.side_by_side(
            [training.attention(*(nodes[part][h] for part in "qkv"), may_look, 1) for h in range(heads)]
        )

    return forward


def _global_rows() -> Iterator[Case]:
    """`global_rows`: what the global tokens of a document take from all that is not masked, (G, D)."""
    for name, seen, marks, flags in (
        ("one", "1111111111111", "0010000000000", ()),
        ("many", "1111111110000", "1010010100000", ("padding",)),
        ("one-dropped", "1111111110000", "1000000000000", ("padding", "dropped")),
        ("many-dropped", "1111111111111", "1001100000000", ("dropped",)),
    ):
        case, length, width, heads = f"global-rows-{name}", 13, 6, 2
        inputs = {"x": numbers(f"L8-{case}/x", (length, width), spread=1.0)}
        for part in ("query_global", "key_global", "value_global"):
            inputs[f"{part}.weight"] = numbers(f"L8-{case}/{part}.weight", (width, width), spread=0.5)
            inputs[f"{part}.bias"] = numbers(f"L8-{case}/{part}.bias", (width,), spread=0.3)
        masks = {"attention_mask": mask_of(seen, length, 1), "global_attention_mask": mask_of(marks, length, 0)}
        arguments: dict[str, Any] = {"heads": heads}
        factor_HTT = None
        if "dropped" in flags:
            kept = _kept(f"L8-{case}/global_probs.kept", (heads, length, length))
            masks["global_probs.kept"], arguments["attention_dropout"] = kept, 0.25
            factor_HTT = kept / 0.75
        forward = _rows_of_globals(masks, heads, factor_HTT)
        yield _through(case, "global_rows", {**inputs, **masks}, forward, 10, arguments=arguments, flags=flags)


def _rows_of_globals(
    masks: Mapping[str, Array], heads: int, factor_HTT: Array | None
) -> Callable[[Mapping[str, Node]], Node]:
    globals_G = np.flatnonzero(masks["attention_mask"] * masks["global_attention_mask"])
    may_look_GT = np.tile(masks["attention_mask"] == 1, (len(globals_G), 1))

    def forward(nodes: Mapping[str, Node]) -> Node:
        q_TD, k_TD, v_TD = (training.linear(nodes, f"{part}_global", nodes["x"]) for part in ("query", "key", "value"))
        factor_HGT = None if factor_HTT is None else factor_HTT[:, globals_G]
        return training.attention(q_TD[globals_G], k_TD, v_TD, may_look_GT, heads, factor_HGT)

    return forward


def _kept(name: str, shape: tuple[int, ...]) -> Array:
    """1 where a number is kept, of four three."""
    return (whole(name, shape, 0, 4) > 0).astype(np.int64)


# ---- the loss -------------------------------------------------------------------------------------------------------


def _losses() -> Iterator[Case]:
    """`loss_backward`: the loss, and the gradient of the logits."""
    labels = np.array([[3, 0, 6, 2], [5, -100, 1, -100]])
    for name, spread, smoothing, flags in (
        ("ignored", 1.0, 0.0, ("ignored_labels",)),
        ("smoothing", 1.0, 0.125, ("ignored_labels", "smoothing")),
        ("large", 64.0, 0.125, ("ignored_labels", "smoothing", "large_values")),
    ):
        logits = numbers(f"L8-loss-{name}/logits", (2, 4, 7), spread=spread, step=spread / 64)
        node = Node(logits)
        terms = [training.cost(node[b], labels[b], smoothing) for b in range(2)]
        loss = (terms[0] + terms[1]) * (1 / (labels != -100).sum())
        answer = {"loss": loss.value, **with_suffix(chain_rule.gradients(loss, {"logits": node}))}
        yield _case(f"loss-{name}", "loss_backward", {"logits": logits, "labels": labels}, answer,
                    arguments={"label_smoothing": smoothing}, depth=3, flags=flags)  # fmt: skip


# ---- layers ---------------------------------------------------------------------------------------------------------


def masks_of(rows: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """Both masks of a batch from digits."""
    seen, marks = zip(*rows, strict=True)
    return {
        "attention_mask": np.stack([mask_of(row, len(row), 1) for row in seen]),
        "global_attention_mask": np.stack([mask_of(row, len(row), 0) for row in marks]),
    }


def _layers() -> Iterator[Case]:
    """`encoder_layer_backward` and `decoder_layer_backward`: of the input, of the states read, and of the layer's weights."""
    for name, rows, flags in (
        ("mixed-globals", MASKS, ("batch", "padding", "globals_vary")),
        ("no-global", [(seen, 13 * "0") for seen, _ in MASKS], ("batch", "padding", "global_none")),
        ("all-global", [("11111111111", 11 * "1")], ("global_all",)),
    ):
        case, masks = f"encoder-layer-{name}", masks_of(rows)
        kinds = dense.token_kinds(masks["attention_mask"].shape, *masks.values())
        x = numbers(f"L8-{case}/x", (*kinds.shape, LEARNER.d_model), spread=1.0)

        def encoded(b: int, nodes: Mapping[str, Node], weights: Mapping[str, Node], kinds: Array = kinds) -> Node:
            return training.encoder_layer(weights, LEARNER, 1, nodes["x"], kinds[b], {})

        yield _layer_case(case, "encoder_layer", {"x": x}, masks, encoded, 2 * ENCODER_LAYER_DEPTH, flags)
    case, seen = "decoder-layer", masks_of(MASKS)["attention_mask"]
    read = {
        "x": numbers(f"L8-{case}/x", (2, 7, LEARNER.d_model), spread=1.0),
        "states": numbers(f"L8-{case}/states", (2, 13, LEARNER.d_model), spread=1.0),
    }

    def decoded(b: int, nodes: Mapping[str, Node], weights: Mapping[str, Node]) -> Node:
        return training.decoder_layer(weights, LEARNER, 1, nodes["x"], nodes["states"], seen[b] == 1, {})

    flags = ("batch", "padding", "causal")
    yield _layer_case(case, "decoder_layer", read, {"attention_mask": seen}, decoded, 2 * DECODER_LAYER_DEPTH, flags)


def _layer_case(
    case: str,
    operation: str,
    read: Mapping[str, Array],
    masks: Mapping[str, Array],
    forward: Callable[[int, Mapping[str, Node], Mapping[str, Node]], Node],
    depth: int,
    flags: tuple[str, ...],
) -> Case:
    """Document after document; the gradients of the weights are their sums."""
    given = numbers(f"L8-{case}/y.grad", read["x"].shape, spread=1.0)
    prefix = f"led.{operation.split('_')[0]}.layers.1."
    weights = {key: w for key, w in learner_weights().items() if key.startswith(prefix)}
    of_documents = []
    for b in range(len(given)):
        nodes = {name: Node(array[b]) for name, array in read.items()}
        weight_nodes = {key: Node(w) for key, w in weights.items()}
        result = forward(b, nodes, weight_nodes)
        of_documents.append(chain_rule.gradients(result, {**nodes, **weight_nodes}, given[b]))
    answer = {name: np.stack([of[name] for of in of_documents]) for name in read}
    answer |= {key: sum(of[key] for of in of_documents) for key in weights}
    return _case(
        case, f"{operation}_backward", {**read, "y.grad": given, **masks}, with_suffix(answer),
        model="learner", arguments={"layer": 1}, depth=depth, flags=flags,
    )  # fmt: skip


# ---- the whole loss, and a step -------------------------------------------------------------------------------------


def _batch(case: str) -> dict[str, Array]:
    """Two documents, one shorter, each with other global tokens; targets of unequal lengths."""
    masks = masks_of(MASKS)
    drawn = whole(f"L8-{case}/input_ids", (2, 13), 4, LEARNER.vocab_size)
    labels = whole(f"L8-{case}/labels", (2, 10), 4, LEARNER.vocab_size)
    labels[1, 5:] = -100
    labels[0, 3] = -100
    return {"input_ids": np.where(masks["attention_mask"] == 1, drawn, 1), **masks, "labels": labels}


BATCH_FLAGS = ("batch", "padding", "globals_vary", "ignored_labels")
RATES = {"dropout": 0.25, "attention_dropout": 0.25, "activation_dropout": 0.25}


def _whole() -> Iterator[Case]:
    """`gradients`: the loss, and the gradient of every weight but the buffer final_logits_bias."""
    for name, arguments, flags in (
        ("plain", {}, ()),
        ("smoothing", {"label_smoothing": 0.125}, ("smoothing",)),
        ("dropout", {"label_smoothing": 0.125, **RATES}, ("smoothing", "dropped")),
        ("relu", {"activation_function": "relu"}, ("other_activation",)),
    ):
        case = f"gradients-{name}"
        inputs = _batch(case)
        if "dropped" in flags:
            inputs |= {f"{site}.kept": _kept(f"L8-{case}/{site}.kept", shape) for site, shape in sites().items()}
        loss, found = gradients_by_definition(inputs, arguments)
        yield _case(case, "gradients", inputs, {"loss": loss, **with_suffix(found)}, model="learner",
                    arguments=arguments, depth=2 * FORWARD_DEPTH, flags=(*BATCH_FLAGS, *flags))  # fmt: skip


def gradients_by_definition(
    inputs: Mapping[str, Array], arguments: Mapping[str, Any]
) -> tuple[float, dict[str, Array]]:
    """The loss of a case and the gradients, by checkpoint key."""
    config = dataclasses.replace(LEARNER, activation_function=arguments.get("activation_function", "gelu"))
    factors = {name.removesuffix(".kept"): kept / 0.75 for name, kept in inputs.items() if name.endswith(".kept")}
    return training.loss_and_gradients(
        learner_weights(), config, inputs["input_ids"], inputs["labels"], inputs["attention_mask"],
        inputs["global_attention_mask"], label_smoothing=arguments.get("label_smoothing", 0.0), factors=factors,
    )  # fmt: skip


def sites() -> dict[str, tuple[int, ...]]:
    """Every site of dropout in `_batch`, with the shape of its mask."""
    states, target = (2, 13, LEARNER.d_model), (2, 10, LEARNER.d_model)
    found: dict[str, tuple[int, ...]] = {"led.encoder.layernorm_embedding": states}
    heads = LEARNER.encoder_attention_heads
    for i in range(2):
        found |= {f"led.encoder.layers.{i}.{site}": shape for site, shape in (
            ("self_attn.probs", (2, heads, 13, 13)), ("self_attn.global_probs", (2, heads, 13, 13)),
            ("self_attn.output", states), ("fc1", (2, 13, LEARNER.encoder_ffn_dim)), ("fc2", states),
        )}  # fmt: skip
    found["led.decoder.layernorm_embedding"] = target
    heads = LEARNER.decoder_attention_heads
    for i in range(2):
        found |= {f"led.decoder.layers.{i}.{site}": shape for site, shape in (
            ("self_attn.probs", (2, heads, 10, 10)), ("self_attn.out_proj", target),
            ("encoder_attn.probs", (2, heads, 10, 13)), ("encoder_attn.out_proj", target),
            ("fc1", (2, 10, LEARNER.decoder_ffn_dim)), ("fc2", target),
        )}  # fmt: skip
    return found


# A large eps: where a gradient is nothing but rounding (a key's bias), the first step would be its sign otherwise.
SETTINGS = {"learning_rate": 2**-5, "weight_decay": 0.125, "adam_beta1": 0.875, "adam_beta2": 0.96875}
SETTINGS["adam_epsilon"] = 2**-8


def _optimizer() -> Iterator[Case]:
    """`adamw`: weights and moments after the n-th step. `training_step`: gradients, clipping, and the first step."""
    case, arguments = "adamw", {**SETTINGS, "step": 3}
    inputs: dict[str, Array] = {}
    for name, shape in (("fc1.weight", (3, 5)), ("fc1.bias", (3,)), ("final_layer_norm.weight", (5,))):
        inputs[name] = numbers(f"L8-{case}/{name}", shape, spread=0.5)
        inputs[f"{name}.grad"] = numbers(f"L8-{case}/{name}.grad", shape, spread=0.5)
        inputs[f"{name}.exp_avg"] = numbers(f"L8-{case}/{name}.exp_avg", shape, spread=0.5)
        inputs[f"{name}.exp_avg_sq"] = np.abs(numbers(f"L8-{case}/{name}.exp_avg_sq", shape, spread=0.5))
    answer: dict[str, Any] = {}
    for name in ("fc1.weight", "fc1.bias", "final_layer_norm.weight"):
        parts = [inputs[name + part].astype(np.float64) for part in ("", ".grad", ".exp_avg", ".exp_avg_sq")]
        after = _adamw(name, *parts, step=3)
        answer |= dict(zip((name, f"{name}.exp_avg", f"{name}.exp_avg_sq"), after, strict=True))
    yield _case(case, "adamw", inputs, answer, arguments=arguments, depth=3)

    for case, max_norm, flags in (("step", 2.0**-2, ("smoothing",)), ("step-unclipped", 2.0**10, ())):
        arguments = {**SETTINGS, "max_grad_norm": max_norm} | ({"label_smoothing": 0.125} if flags else {})
        inputs = _batch(case)
        loss, gradients = gradients_by_definition(inputs, arguments)
        norm = math.sqrt(math.fsum(math.fsum((g * g).reshape(-1)) for g in gradients.values()))
        assert (norm > max_norm) == (case == "step"), norm
        answer = {"loss": loss, "grad_norm": norm}
        for key, g in training.clipped(gradients, max_norm).items():
            w = learner_weights()[key].astype(np.float64)
            answer[key] = _adamw(key, w, g, np.zeros_like(w), np.zeros_like(w), step=1)[0]
        yield _case(case, "training_step", inputs, answer, model="learner", arguments=arguments,
                    depth=2 * FORWARD_DEPTH, flags=(*BATCH_FLAGS, *flags))  # fmt: skip


def _adamw(name: str, *parts: Array, step: int) -> tuple[Array, ...]:
    """Biases and LayerNorms do not decay."""
    betas = SETTINGS["adam_beta1"], SETTINGS["adam_beta2"]
    decay = 0.0 if name.endswith(".bias") or "norm" in name else SETTINGS["weight_decay"]
    rate, eps = SETTINGS["learning_rate"], SETTINGS["adam_epsilon"]
    return training.adamw(*parts, step, rate=rate, betas=betas, eps=eps, decay=decay)
