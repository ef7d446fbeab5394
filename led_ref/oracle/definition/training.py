"""Training by definition: LED's loss with dropout, its gradient for every weight, and a step of AdamW.

The model is that of model.py, written again with numbers that know what they were computed from (chain_rule.py), and with
the places where numbers are dropped. `test_definition_gradients.py` holds the two to the same loss, and the gradients to
central differences. One document at a time, every query against every key, in float64.

Dropout is given, not drawn: `factors` maps a site to what its numbers are multiplied by, 0 where one is dropped and 1 / (1 - p)
where it is kept. The sites are those of led_ref/model/dropout.py: (T, D) for states, (T, F) behind the activation function
(`fc1`), (H, T, S) for attention probabilities (`self_attn.probs`, `self_attn.global_probs`, `encoder_attn.probs`).

    >>> w, m, v = adamw(np.array([1.0]), np.array([0.5]), np.zeros(1), np.zeros(1), 1, rate=0.1)
    >>> round(float(w[0]), 6), round(float(m[0]), 6), round(float(v[0]), 6)
    (0.9, 0.05, 0.00025)
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from led_ref.config import LEDConfig
from led_ref.oracle.definition import chain_rule as chain
from led_ref.oracle.definition.chain_rule import Node
from led_ref.oracle.definition.model import (
    GLOBAL,
    LOCAL,
    MASKED,
    Booleans,
    Floats,
    Ints,
    Weights,
    decoder_ids_from_labels,
    token_kinds,
    who_sees_whom,
)

Nodes = Mapping[str, Node]
Factors = Mapping[str, npt.NDArray[np.float64]]
NOTHING_DROPPED: Factors = {}


def loss_and_gradients(
    weights: Weights,
    config: LEDConfig,
    input_ids_BT: npt.ArrayLike,
    labels_BU: npt.ArrayLike,
    attention_mask: npt.ArrayLike | None = None,
    global_attention_mask: npt.ArrayLike | None = None,
    *,
    label_smoothing: float = 0.0,
    factors: Factors = NOTHING_DROPPED,
) -> tuple[float, dict[str, Floats]]:
    """The loss that LEDForConditionalGeneration is trained with (teacher forcing), and the gradient of each weight.

    Args:
        weights: {checkpoint key: array}. `final_logits_bias` is a buffer and has no gradient.
        config: the sizes.
        input_ids_BT: (B, T).
        labels_BU: (B, U), -100 where the loss ignores it.
        attention_mask: as in model.encode.
        global_attention_mask: as in model.encode.
        label_smoothing: e: `(1 - e) nll + e (log sum exp(logits) - mean(logits))`, the mean over labels that are not -100.
        factors: of dropout, by site, with an axis for the documents in front.
    """
    nodes = {key: Node(weight) for key, weight in weights.items()}
    ids_BT, labels = np.asarray(input_ids_BT), np.asarray(labels_BU)
    kinds_BT = token_kinds(ids_BT.shape, attention_mask, global_attention_mask)
    decoder_ids_BU = decoder_ids_from_labels(labels, config)
    costs = Node(0.0)
    for b in range(len(ids_BT)):
        dropped = {site: factor[b] for site, factor in factors.items()}
        states_TD = encode_document(nodes, config, ids_BT[b], kinds_BT[b], dropped)
        logits_UV = decode_document(nodes, config, decoder_ids_BU[b], states_TD, kinds_BT[b] != MASKED, dropped)
        costs = costs + cost(logits_UV, labels[b], label_smoothing)
    loss = costs * (1 / (labels != -100).sum())
    trained = {key: node for key, node in nodes.items() if key != "final_logits_bias"}
    return float(loss.value), chain.gradients(loss, trained)


def encode_document(weights: Nodes, config: LEDConfig, ids_T: Ints, kinds_T: Ints, factors: Factors) -> Node:
    """The encoder's last states of one document, (T, D)."""
    x_TD = embed(weights, "led.encoder", look_up(weights["led.shared.weight"], ids_T, config.pad_token_id))
    x_TD = drop(x_TD, "led.encoder.layernorm_embedding", factors)
    for layer in range(config.encoder_layers):
        x_TD = encoder_layer(weights, config, layer, x_TD, kinds_T, factors)
    return x_TD


def decode_document(
    weights: Nodes, config: LEDConfig, ids_U: Ints, states_TD: Node, seen_T: Booleans, factors: Factors
) -> Node:
    """The logits of one target, (U, V)."""
    x_UD = embed(weights, "led.decoder", look_up(weights["led.shared.weight"], ids_U, config.pad_token_id))
    x_UD = drop(x_UD, "led.decoder.layernorm_embedding", factors)
    for layer in range(config.decoder_layers):
        x_UD = decoder_layer(weights, config, layer, x_UD, states_TD, seen_T, factors)
    table_VD = weights["lm_head.weight" if "lm_head.weight" in weights else "led.shared.weight"]
    bias_V: Floats = weights["final_logits_bias"].value[0]
    logits_UV: Node = x_UD @ table_VD.T + bias_V
    return logits_UV


def cost(logits_UV: Node, labels_U: Ints, smoothing: float) -> Node:
    """The sum of the losses of the labels that are not -100."""
    counted = np.flatnonzero(labels_U != -100)
    logits_XV = logits_UV[counted]
    peak_X1 = logits_XV.value.max(axis=1, keepdims=True)  # a constant: it cancels out
    log_total_X1 = chain.log(chain.total(chain.exp(logits_XV - peak_X1), 1)) + peak_X1
    label_X = logits_XV[np.arange(len(counted)), labels_U[counted]]
    nll = chain.total(log_total_X1) - chain.total(label_X)
    uniform = chain.total(log_total_X1 - chain.mean(logits_XV))
    return nll * (1 - smoothing) + uniform * smoothing


# ---- layers -------------------------------------------------------------------------------------------------------------


def encoder_layer(weights: Nodes, config: LEDConfig, layer: int, x_TD: Node, kinds_T: Ints, factors: Factors) -> Node:
    """One encoder layer of one document: (T, D) -> (T, D)."""
    name, heads = f"led.encoder.layers.{layer}", config.encoder_attention_heads
    may_look_TT = who_sees_whom(kinds_T, config.radii[layer])
    attended_TD = Node(np.zeros(x_TD.value.shape))
    for kind, suffix, site in ((LOCAL, "", "probs"), (GLOBAL, "_global", "global_probs")):
        q_TD, k_TD, v_TD = (
            linear(weights, f"{name}.self_attn.longformer_self_attn.{part}{suffix}", x_TD)
            for part in ("query", "key", "value")
        )
        rows_TT = may_look_TT & (kinds_T == kind)[:, None]  # rows of another kind see nothing here, and are 0
        factor_HTT = factors.get(f"{name}.self_attn.{site}")
        attended_TD = attended_TD + attention(q_TD, k_TD, v_TD, rows_TT, heads, factor_HTT)
    update_TD = drop(linear(weights, f"{name}.self_attn.output", attended_TD), f"{name}.self_attn.output", factors)
    x_TD = layer_norm(weights, f"{name}.self_attn_layer_norm", x_TD + update_TD)
    return feed_forward(weights, config, name, x_TD, factors)


def decoder_layer(
    weights: Nodes, config: LEDConfig, layer: int, x_UD: Node, states_TD: Node, seen_T: Booleans, factors: Factors
) -> Node:
    """One decoder layer of one target, all positions at once: (U, D) -> (U, D)."""
    name, heads, length = f"led.decoder.layers.{layer}", config.decoder_attention_heads, len(x_UD.value)
    causal_UU = np.tril(np.ones((length, length), np.bool_))
    for module, may_look_US in (("self_attn", causal_UU), ("encoder_attn", np.tile(seen_T, (length, 1)))):
        read_SD = x_UD if module == "self_attn" else states_TD
        q_UD = linear(weights, f"{name}.{module}.q_proj", x_UD)
        k_SD, v_SD = (linear(weights, f"{name}.{module}.{part}_proj", read_SD) for part in "kv")
        attended_UD = attention(q_UD, k_SD, v_SD, may_look_US, heads, factors.get(f"{name}.{module}.probs"))
        update_UD = linear(weights, f"{name}.{module}.out_proj", attended_UD)
        update_UD = drop(update_UD, f"{name}.{module}.out_proj", factors)
        x_UD = layer_norm(weights, f"{name}.{module}_layer_norm", x_UD + update_UD)
    return feed_forward(weights, config, name, x_UD, factors)


def feed_forward(weights: Nodes, config: LEDConfig, name: str, x_TD: Node, factors: Factors) -> Node:
    """`LayerNorm(x + W2 activation(W1 x))`."""
    x_TF = activate(config.activation_function, linear(weights, f"{name}.fc1", x_TD))
    update_TD = linear(weights, f"{name}.fc2", drop(x_TF, f"{name}.fc1", factors))
    return layer_norm(weights, f"{name}.final_layer_norm", x_TD + drop(update_TD, f"{name}.fc2", factors))


# ---- operations ---------------------------------------------------------------------------------------------------------


def drop(x: Node, site: str, factors: Factors) -> Node:
    """X times the site's factors, if it has some."""
    return x * factors[site] if site in factors else x


def attention(
    q_QD: Node, k_SD: Node, v_SD: Node, may_look_QS: Booleans, heads: int, factor_HQS: Floats | None = None
) -> Node:
    """`softmax(q k / sqrt(K)) v` in each head, over the keys that may be looked at: (Q, D)."""
    width = q_QD.value.shape[1] // heads
    outs = []
    for h in range(heads):
        q_QK, k_SK, v_SK = (x[:, h * width : (h + 1) * width] for x in (q_QD, k_SD, v_SD))
        table_QS = softmax((q_QK @ k_SK.T) * (1 / math.sqrt(width)), may_look_QS)
        outs.append((table_QS if factor_HQS is None else table_QS * factor_HQS[h]) @ v_SK)
    return chain.side_by_side(outs)


def softmax(scores_QS: Node, may_look_QS: Booleans) -> Node:
    """Over each row's visible keys; 0 at the others, and throughout in a row that sees nothing."""
    lowest = scores_QS.value.min(initial=0.0)
    peak_Q1 = np.where(may_look_QS, scores_QS.value, lowest).max(axis=1, keepdims=True)  # a constant: it cancels out
    powers_QS = chain.exp(chain.where(may_look_QS, scores_QS - peak_Q1, 0.0)) * may_look_QS.astype(np.float64)
    sees_nothing_Q1 = (~may_look_QS.any(axis=1, keepdims=True)).astype(np.float64)
    return powers_QS / (chain.total(powers_QS, 1) + sees_nothing_Q1)


def activate(activation: str, x: Node) -> Node:
    """gelu, relu, silu or gelu_new. The slope of relu at 0 is 0."""
    if activation == "relu":
        return chain.where(x.value > 0, x, 0.0)
    if activation == "silu":
        return x * (chain.tanh(x * 0.5) + 1.0) * 0.5  # 1 / (1 + exp(-x)), which would overflow
    if activation == "gelu_new":
        return x * (chain.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1.0) * 0.5
    return x * (chain.erf(x * (1 / math.sqrt(2))) + 1.0) * 0.5


def linear(weights: Nodes, name: str, x: Node) -> Node:
    """`x W^T + b`; the checkpoint's W is (out, in)."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(weights: Nodes, name: str, x: Node) -> Node:
    """`(x - mean) / sqrt(variance + 1e-5) * weight + bias`, over the last axis; the population's variance."""
    centred = x - chain.mean(x)
    unit = centred * chain.power(chain.mean(centred * centred) + 1e-5, -0.5)
    return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def embed(weights: Nodes, side: str, tokens_TD: Node) -> Node:
    """`LayerNorm(token + position)`."""
    positions_TD = weights[f"{side}.embed_positions.weight"][: len(tokens_TD.value)]
    return layer_norm(weights, f"{side}.layernorm_embedding", tokens_TD + positions_TD)


def look_up(table_VD: Node, ids_T: Ints, pad_token_id: int | None) -> Node:
    """The rows of these ids, (T, D). The pad id's row gets no gradient from here (PyTorch's padding_idx)."""
    is_trained_T1 = (ids_T != pad_token_id)[:, None]
    rows_TD = table_VD[ids_T]
    return chain.where(is_trained_T1, rows_TD, rows_TD.value)


# ---- a step of the optimizer --------------------------------------------------------------------------------------------


def clipped(gradients: Mapping[str, Floats], max_norm: float) -> dict[str, Floats]:
    """All gradients times `min(1, max_norm / (norm + 1e-6))`, the norm being that of all of them as one vector."""
    norm = math.sqrt(math.fsum(math.fsum((g * g).reshape(-1)) for g in gradients.values()))
    return {key: g * min(1.0, max_norm / (norm + 1e-6)) for key, g in gradients.items()}


def adamw(
    w: Floats,
    g: Floats,
    m: Floats,
    v: Floats,
    step: int,
    *,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.0,
) -> tuple[Floats, Floats, Floats]:
    """One weight's n-th step: the weight and both moments after it.

    Args:
        w: the weight.
        g: its gradient.
        m: the first moment before the step.
        v: the second moment before the step.
        step: n, from 1.
        rate: the learning rate.
        betas: b1, b2.
        eps: added to the root of the second moment.
        decay: weight decay; 0 for a bias and a LayerNorm.
    """
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    unbiased_m, unbiased_v = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return w - rate * decay * w - rate * unbiased_m / (np.sqrt(unbiased_v) + eps), m, v
