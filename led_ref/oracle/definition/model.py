"""LED by definition: every query against every key, in float64, one document at a time. It judges the fast model.

Read it beside the paper (Beltagy et al. 2020, arXiv 2004.05150, sections 3.1 and 7). Nothing here is fast: attention is
a full n x n table in which a boolean says who may look at whom, and a batch is a loop over its documents, so that one
document cannot touch another and no padding is ever added. The weights are a plain dictionary {checkpoint key: array},
in the names that transformers 5 writes. Nothing is shared with `led_ref/model`: what both get wrong in the same way,
they got wrong twice.

Each source token has one of three kinds: 0 masked, 1 local, 2 global. Five tokens, radius 1, the first global, the last
masked; row i is what query i sees (a global query sees all that is not masked, a masked one nothing):

    >>> who_sees_whom(kinds_T=np.array([2, 1, 1, 1, 0]), radius=1).astype(int)
    array([[1, 1, 1, 1, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 1, 1, 0],
           [1, 0, 1, 1, 0],
           [0, 0, 0, 0, 0]])

It has no cache, no search, no float32 and checks no input. The dimension key is the one in `led_ref/config.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from led_ref.config import LEDConfig

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Booleans: TypeAlias = npt.NDArray[np.bool_]
Weights: TypeAlias = Mapping[str, npt.NDArray[Any]]

MASKED, LOCAL, GLOBAL = 0, 1, 2
_erf = np.frompyfunc(math.erf, 1, 1)  # exact, one number at a time


@dataclass(frozen=True)
class Encoded:
    """What the encoder gives. The attentions have transformers' layout (see `attention_layout`)."""

    hidden_states: tuple[Floats, ...]  # (B, T, D): after the embedding, then after each layer
    attentions: tuple[Floats, ...]  # (B, H, T, G + 2R + 1) of each layer
    global_attentions: tuple[Floats, ...]  # (B, H, T, G) of each layer


@dataclass(frozen=True)
class Decoded:
    """What the decoder gives."""

    hidden_states: tuple[Floats, ...]  # (B, U, D): after the embedding, then after each layer
    attentions: tuple[Floats, ...]  # (B, H, U, U) of each layer
    cross_attentions: tuple[Floats, ...]  # (B, H, U, T) of each layer
    logits: Floats  # (B, U, V)


# ---- the encoder ----------------------------------------------------------------------------------------------------


def encode(
    weights: Weights,
    config: LEDConfig,
    input_ids_BT: npt.ArrayLike | None,
    attention_mask: npt.ArrayLike | None = None,
    global_attention_mask: npt.ArrayLike | None = None,
    *,
    inputs_embeds_BTD: npt.ArrayLike | None = None,
) -> Encoded:
    """The encoder's states and attention probabilities, each document for itself.

    Args:
        weights: {checkpoint key: array}.
        config: the sizes.
        input_ids_BT: (B, T) ids; None where embeddings are given instead.
        attention_mask: (B, T) of 0 and 1; None: all 1.
        global_attention_mask: (B, T) of 0, 1 and -1 (padding); None: all 0.
        inputs_embeds_BTD: (B, T, D), taken instead of the rows of the embedding table.
    """
    tokens_BTD = _token_embeddings(weights, input_ids_BT, inputs_embeds_BTD)
    kinds_BT = token_kinds(tokens_BTD.shape[:2], attention_mask, global_attention_mask)
    most_globals = int((kinds_BT == GLOBAL).sum(axis=1).max())
    states, local_tables, global_tables = [], [], []
    for x_TD, kinds_T in zip(tokens_BTD, kinds_BT, strict=True):
        states_of_one, tables_HTT = _encode_document(weights, config, x_TD, kinds_T)
        layouts = [
            attention_layout(table_HTT, kinds_T, radius, most_globals)
            for table_HTT, radius in zip(tables_HTT, config.radii, strict=True)
        ]
        states.append(states_of_one)
        local_tables.append([local for local, _ in layouts])
        global_tables.append([global_ for _, global_ in layouts])
    return Encoded(_by_layer(states), _by_layer(local_tables), _by_layer(global_tables))


def token_kinds(
    shape_BT: tuple[int, ...], attention_mask: npt.ArrayLike | None, global_attention_mask: npt.ArrayLike | None
) -> Ints:
    """`attention_mask * (global_attention_mask + 1)`: 0 masked, 1 local, 2 global, (B, T)."""
    attention_BT = np.ones(shape_BT, np.int64) if attention_mask is None else np.asarray(attention_mask, np.int64)
    global_BT = (
        np.zeros(shape_BT, np.int64) if global_attention_mask is None else np.asarray(global_attention_mask, np.int64)
    )
    return attention_BT * (global_BT + 1)


def who_sees_whom(kinds_T: Ints, radius: int) -> Booleans:
    """Row i, column j: whether query i may look at key j, (T, T). The paper's figure 2d, with masked tokens left out.

    A local query sees the local keys at most `radius` away and every global key; a global query all that is not masked.
    """
    length = len(kinds_T)
    may_look_TT = np.zeros((length, length), np.bool_)
    for i in range(length):
        for j in range(length):
            if kinds_T[i] == MASKED or kinds_T[j] == MASKED:
                continue
            is_near = abs(i - j) <= radius
            may_look_TT[i, j] = is_near or kinds_T[i] == GLOBAL or kinds_T[j] == GLOBAL
    return may_look_TT


def _encode_document(
    weights: Weights, config: LEDConfig, tokens_TD: Floats, kinds_T: Ints
) -> tuple[list[Floats], list[Floats]]:
    """States after the embedding and after each layer; the (H, T, T) attention table of each layer."""
    x_TD = _embed(weights, "led.encoder", tokens_TD)
    states, tables = [x_TD], []
    for layer, radius in enumerate(config.radii):
        name = f"led.encoder.layers.{layer}"
        may_look_TT = who_sees_whom(kinds_T, radius)
        attended_TD, table_HTT = _encoder_attention(
            weights, f"{name}.self_attn", x_TD, kinds_T, may_look_TT, config.encoder_attention_heads
        )
        x_TD = _layer_norm(weights, f"{name}.self_attn_layer_norm", x_TD + attended_TD)
        update_TD = _feed_forward(weights, name, x_TD, config.activation_function)
        x_TD = _layer_norm(weights, f"{name}.final_layer_norm", x_TD + update_TD)
        states.append(x_TD)
        tables.append(table_HTT)
    return states, tables


def _encoder_attention(
    weights: Weights, name: str, x_TD: Floats, kinds_T: Ints, may_look_TT: Booleans, heads: int
) -> tuple[Floats, Floats]:
    """Local rows through query/key/value, global rows through their `_global` twins, one output projection for both.

    The two sets of projections are section 3.1's "linear projections for global attention".
    """
    by_kind = {}
    for kind, suffix in ((LOCAL, ""), (GLOBAL, "_global")):
        q_TD, k_TD, v_TD = (
            _linear(weights, f"{name}.longformer_self_attn.{part}{suffix}", x_TD) for part in ("query", "key", "value")
        )
        by_kind[kind] = _attention(q_TD, k_TD, v_TD, may_look_TT, heads)
    (local_TD, local_HTT), (global_TD, global_HTT) = by_kind[LOCAL], by_kind[GLOBAL]

    # A masked row saw nothing in either: 0 before the output projection, so the projection's bias after it.
    is_global_T = kinds_T == GLOBAL
    attended_TD = np.where(is_global_T[:, None], global_TD, local_TD)
    table_HTT = np.where(is_global_T[None, :, None], global_HTT, local_HTT)
    return _linear(weights, f"{name}.output", attended_TD), table_HTT


def attention_layout(table_HTT: Floats, kinds_T: Ints, radius: int, most_globals: int) -> tuple[Floats, Floats]:
    """One document's full table in the layout in which transformers returns attentions.

    Returns:
        local: (H, T, G + 2R + 1). Columns 0 ... G - 1 are the document's global keys in order; column G + R + d is the
            key d after the query. A global key stands in its leading column only. Rows of global queries are 0.
        global: (H, T, G): column g is how the document's g-th global query spreads over the T keys.
        Columns of globals that this document does not have (another of its batch does) are 0.
    """
    heads, length, _ = table_HTT.shape
    local = np.zeros((heads, length, most_globals + 2 * radius + 1))
    global_ = np.zeros((heads, length, most_globals))
    global_positions = np.flatnonzero(kinds_T == GLOBAL)
    for g, position in enumerate(global_positions):
        global_[:, :, g] = table_HTT[:, position, :]
    for i in np.flatnonzero(kinds_T == LOCAL):
        local[:, i, : len(global_positions)] = table_HTT[:, i, global_positions]
        for j in np.flatnonzero(kinds_T == LOCAL):
            if abs(i - j) <= radius:
                local[:, i, most_globals + radius + (j - i)] = table_HTT[:, i, j]
    return local, global_


# ---- the decoder ----------------------------------------------------------------------------------------------------


def decode(
    weights: Weights,
    config: LEDConfig,
    decoder_input_ids_BU: npt.ArrayLike | None,
    encoder_states_BTD: npt.ArrayLike,
    attention_mask: npt.ArrayLike | None = None,
    decoder_attention_mask: npt.ArrayLike | None = None,
    *,
    inputs_embeds_BUD: npt.ArrayLike | None = None,
) -> Decoded:
    """The decoder's states, attention probabilities and logits, each document for itself, without a cache.

    Args:
        weights: as in `encode`.
        config: as in `encode`.
        decoder_input_ids_BU: (B, U) ids; None where embeddings are given instead.
        encoder_states_BTD: (B, T, D), the encoder's last states.
        attention_mask: (B, T): which source positions the cross-attention sees; None: all. The global mask has no say.
        decoder_attention_mask: (B, U) of 0 and 1, on top of the causal mask; None: all 1.
        inputs_embeds_BUD: (B, U, D), taken instead of the rows of the embedding table.

    A query that may look at nothing (a masked start) has attention output 0 before the output projection.
    """
    tokens_BUD = _token_embeddings(weights, decoder_input_ids_BU, inputs_embeds_BUD)
    encoder_states_BTD = np.asarray(encoder_states_BTD, np.float64)
    source_BT = np.ones(encoder_states_BTD.shape[:2]) if attention_mask is None else np.asarray(attention_mask)
    target_BU = np.ones(tokens_BUD.shape[:2]) if decoder_attention_mask is None else np.asarray(decoder_attention_mask)
    states, self_tables, cross_tables = [], [], []
    for b in range(len(tokens_BUD)):
        seen_T, seen_U = source_BT[b] == 1, target_BU[b] == 1
        of_one = _decode_document(weights, config, tokens_BUD[b], encoder_states_BTD[b], seen_T, seen_U)
        states.append(of_one[0])
        self_tables.append(of_one[1])
        cross_tables.append(of_one[2])
    hidden_states = _by_layer(states)
    output_VD = _weight(weights, "lm_head.weight" if "lm_head.weight" in weights else "led.shared.weight")
    bias_V = _weight(weights, "final_logits_bias")[0] if "final_logits_bias" in weights else 0.0
    logits_BUV = hidden_states[-1] @ output_VD.T + bias_V
    return Decoded(hidden_states, _by_layer(self_tables), _by_layer(cross_tables), logits_BUV)


def _decode_document(
    weights: Weights, config: LEDConfig, tokens_UD: Floats, source_TD: Floats, seen_T: Booleans, seen_U: Booleans
) -> tuple[list[Floats], list[Floats], list[Floats]]:
    """States after the embedding and after each layer; the (H, U, U) and (H, U, T) attention tables of each layer."""
    x_UD = _embed(weights, "led.decoder", tokens_UD)
    length = len(x_UD)
    causal_UU = np.array([[j <= i and seen_U[j] for j in range(length)] for i in range(length)])
    source_UT = np.tile(seen_T, (length, 1))
    heads = config.decoder_attention_heads
    states, self_tables, cross_tables = [x_UD], [], []
    for layer in range(config.decoder_layers):
        name = f"led.decoder.layers.{layer}"
        attended_UD, table_HUU = _decoder_attention(weights, f"{name}.self_attn", x_UD, x_UD, causal_UU, heads)
        x_UD = _layer_norm(weights, f"{name}.self_attn_layer_norm", x_UD + attended_UD)
        attended_UD, table_HUT = _decoder_attention(weights, f"{name}.encoder_attn", x_UD, source_TD, source_UT, heads)
        x_UD = _layer_norm(weights, f"{name}.encoder_attn_layer_norm", x_UD + attended_UD)
        update_UD = _feed_forward(weights, name, x_UD, config.activation_function)
        x_UD = _layer_norm(weights, f"{name}.final_layer_norm", x_UD + update_UD)
        states.append(x_UD)
        self_tables.append(table_HUU)
        cross_tables.append(table_HUT)
    return states, self_tables, cross_tables


def _decoder_attention(
    weights: Weights, name: str, x_UD: Floats, read_SD: Floats, may_look_US: Booleans, heads: int
) -> tuple[Floats, Floats]:
    """Queries from the target, keys and values from what is read: the target itself or the encoder's states."""
    q_UD = _linear(weights, f"{name}.q_proj", x_UD)
    k_SD = _linear(weights, f"{name}.k_proj", read_SD)
    v_SD = _linear(weights, f"{name}.v_proj", read_SD)
    attended_UD, table_HUS = _attention(q_UD, k_SD, v_SD, may_look_US, heads)
    return _linear(weights, f"{name}.out_proj", attended_UD), table_HUS


def decoder_ids_from_labels(labels_BU: npt.ArrayLike, config: LEDConfig) -> Ints:
    """The labels one place to the right behind the start id; -100 becomes the pad id. (B, U) -> (B, U)."""
    labels = np.asarray(labels_BU, np.int64)
    start_B1 = np.full((len(labels), 1), config.decoder_start_token_id)
    shifted = np.concatenate([start_B1, labels[:, :-1]], axis=1)
    shifted[shifted == -100] = config.pad_token_id
    return shifted


def loss(logits_BUV: Floats, labels_BU: npt.ArrayLike) -> float:
    """Mean of `log sum exp(logits) - logits[label]` over the labels that are not -100; NaN where there is none."""
    costs = []
    for logits_UV, labels_U in zip(logits_BUV, np.asarray(labels_BU), strict=True):
        for logits_V, label in zip(logits_UV, labels_U, strict=True):
            if label != -100:
                peak = logits_V.max()
                costs.append(peak + math.log(np.exp(logits_V - peak).sum()) - logits_V[label])
    return math.fsum(costs) / len(costs) if costs else math.nan


# ---- the parts that both have ---------------------------------------------------------------------------------------


def _attention(q_QD: Floats, k_SD: Floats, v_SD: Floats, may_look_QS: Booleans, heads: int) -> tuple[Floats, Floats]:
    """`softmax(q k / sqrt(K)) v` in each head, over the keys that may be looked at: (Q, D), and the table (H, Q, S)."""
    width = q_QD.shape[1] // heads
    attended_QD = np.zeros_like(q_QD)
    table_HQS = np.zeros((heads, *may_look_QS.shape))
    for h in range(heads):
        head = slice(h * width, (h + 1) * width)
        scores_QS = q_QD[:, head] @ k_SD[:, head].T / math.sqrt(width)
        table_HQS[h] = _softmax(scores_QS, may_look_QS)
        attended_QD[:, head] = table_HQS[h] @ v_SD[:, head]
    return attended_QD, table_HQS


def _softmax(scores_QS: Floats, may_look_QS: Booleans) -> Floats:
    """Over each row's visible keys; 0 at the others. A row that sees nothing is 0 throughout."""
    probabilities_QS = np.zeros_like(scores_QS)
    for row, scores_S, visible_S in zip(probabilities_QS, scores_QS, may_look_QS, strict=True):
        if visible_S.any():
            powers = np.exp(scores_S[visible_S] - scores_S[visible_S].max())
            row[visible_S] = powers / powers.sum()
    return probabilities_QS


def _token_embeddings(weights: Weights, ids: npt.ArrayLike | None, embeds: npt.ArrayLike | None) -> Floats:
    """Rows of the one table that encoder, decoder and output share, unless embeddings are given."""
    return np.asarray(embeds, np.float64) if ids is None else _weight(weights, "led.shared.weight")[np.asarray(ids)]


def _embed(weights: Weights, side: str, tokens_TD: Floats) -> Floats:
    """`LayerNorm(token + position)`: positions 0, 1, 2, ... whatever is masked."""
    positions_TD = _weight(weights, f"{side}.embed_positions.weight")[: len(tokens_TD)]
    return _layer_norm(weights, f"{side}.layernorm_embedding", tokens_TD + positions_TD)


def _feed_forward(weights: Weights, name: str, x_TD: Floats, activation: str) -> Floats:
    """`W2 activation(W1 x)`: each token by itself."""
    x_TF = _activate(activation, _linear(weights, f"{name}.fc1", x_TD))
    return _linear(weights, f"{name}.fc2", x_TF)


def _activate(activation: str, x: Floats) -> Floats:
    """The function that config.json names, number by number. Released LEDs have gelu."""
    if activation == "relu":
        share = (x > 0).astype(np.float64)
    elif activation == "silu":
        share = 1 / (1 + np.exp(-x))
    elif activation == "gelu_new":  # an approximation of gelu
        share = (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    else:
        share = (1 + np.asarray(_erf(x / math.sqrt(2)), np.float64)) / 2
    return x * share


def _linear(weights: Weights, name: str, x: Floats) -> Floats:
    """`x W^T + b`; the checkpoint's W is (out, in)."""
    return x @ _weight(weights, f"{name}.weight").T + _weight(weights, f"{name}.bias")


def _layer_norm(weights: Weights, name: str, x: Floats) -> Floats:
    """`(x - mean) / sqrt(variance + 1e-5) * weight + bias`, over the last axis; the population's variance."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    unit: Floats = (x - mean) / np.sqrt(variance + 1e-5)
    return unit * _weight(weights, f"{name}.weight") + _weight(weights, f"{name}.bias")


def _weight(weights: Weights, key: str) -> Floats:
    return np.asarray(weights[key], np.float64)


def _by_layer(documents: list[list[Floats]]) -> tuple[Floats, ...]:
    """[document][layer] arrays -> one array per layer, with the batch in front."""
    return tuple(np.stack(of_layer) for of_layer in zip(*documents, strict=True))
