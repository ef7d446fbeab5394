"""Levels 1 and 2 of the vectors: single operations, and attention. All inputs are in the case; no model is needed.

What an operation computes is written above the function that makes its cases. The answers come from the very steps of
which dense.py is made.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from led_ref.config import ACTIVATIONS, LEDConfig
from led_ref.oracle.definition import model as dense
from led_ref.oracle.vectors.format import Array, Case
from make.draw import numbers, whole

_GRID: Array = (np.arange(-192, 193, 3) / 32).astype(np.float32)


def operations() -> Iterator[Case]:
    """The cases of level 1."""
    yield from _linear()
    yield from _layer_norm()
    yield from _gelu()
    yield from _other_activations()
    yield from _softmax()
    yield from _embed()
    yield from _shift()


# ---- L1 -------------------------------------------------------------------------------------------------------------


def _linear() -> Iterator[Case]:
    """`y = x weight^T + bias`: x (..., in), weight (out, in), bias (out)."""
    for name, shape, out in (("rows", (7, 13), 5), ("batch", (2, 3, 41), 11), ("one", (1, 1), 1)):
        case = f"L1-linear-{name}"
        x = numbers(f"{case}/x", shape, spread=1.0)
        weight = numbers(f"{case}/weight", (out, shape[-1]), spread=0.3)
        bias = numbers(f"{case}/bias", (out,), spread=0.3)
        y = dense._linear({"f.weight": weight, "f.bias": bias}, "f", x.astype(np.float64))
        yield Case(case, "linear", inputs={"x": x, "weight": weight, "bias": bias}, answers=({"y": y},))


def _layer_norm() -> Iterator[Case]:
    """`y = (x - mean) / sqrt(variance + 1e-5) * weight + bias` over the last axis, with the population's variance."""
    for name, shape, spread, centre, flags in (
        ("rows", (5, 13), 1.0, 0.0, ()),
        ("batch", (2, 3, 41), 1.0, 1.0, ()),
        ("narrow", (3, 7), 1 / 64, 0.0, ("eps_counts",)),  # the variance is not large beside 1e-5
        ("constant", (2, 11), 0.0, 1.5, ("eps_counts",)),
    ):
        case = f"L1-layer-norm-{name}"
        step = 1 / 4096 if name == "narrow" else 1 / 64
        x = numbers(f"{case}/x", shape, spread=spread, centre=centre, step=step)
        weight = numbers(f"{case}/weight", shape[-1:], spread=0.2, centre=1.0)
        bias = numbers(f"{case}/bias", shape[-1:], spread=0.3)
        y = dense._layer_norm({"n.weight": weight, "n.bias": bias}, "n", x.astype(np.float64))
        inputs = {"x": x, "weight": weight, "bias": bias}
        yield Case(case, "layer_norm", inputs=inputs, answers=({"y": y},), depth=2, flags=flags)


def _gelu() -> Iterator[Case]:
    """`y = x (1 + erf(x / sqrt 2)) / 2`, the exact one, not its tanh approximation."""
    for name, x in (
        ("grid", _GRID),
        ("far", np.array([-128, -40, -13, -8, 8, 13, 40, 128], np.float32)),
    ):
        y = dense._activate("gelu", x.astype(np.float64))
        flags = ("large_values",) if name == "far" else ()
        yield Case(f"L1-gelu-{name}", "gelu", inputs={"x": x}, answers=({"y": y},), flags=flags)


def _other_activations() -> Iterator[Case]:
    """`relu`, `silu` and `gelu_new` of the same grid and of numbers far out: what config.json may name in place of gelu."""
    x = np.concatenate([_GRID, np.array([-128, -40, 40, 128], np.float32)])
    for name in ACTIVATIONS[1:]:
        y = dense._activate(name, x.astype(np.float64))
        case = f"L1-{name.replace('_', '-')}"
        yield Case(case, name, inputs={"x": x}, answers=({"y": y},), flags=("large_values",))


def _softmax() -> Iterator[Case]:
    """`y = softmax(scores)` over the last axis among the places where may_look is 1; 0 elsewhere."""
    for name, step, flags in (("open", 1 / 64, ()), ("masked", 1 / 64, ("padding",)), ("large", 4, ("large_values",))):
        case = f"L1-softmax-{name}"
        scores = numbers(f"{case}/scores", (7, 13), spread=64 * step, step=step)
        may_look = np.ones((7, 13), np.int64) if name == "open" else whole(f"{case}/may_look", (7, 13), 0, 3).clip(0, 1)
        may_look[:, 3] = 1
        y = dense._softmax(scores.astype(np.float64), may_look == 1)
        inputs = {"scores": scores, "may_look": may_look}
        yield Case(case, "softmax", inputs=inputs, answers=({"y": y},), flags=flags)
    scores = numbers("L1-softmax-hidden-row/scores", (3, 5), spread=1.0)
    may_look = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]])
    y = dense._softmax(scores.astype(np.float64), may_look == 1)
    even = y.copy()
    even[1] = 1 / 5
    yield Case(
        "L1-softmax-hidden-row",
        "softmax",
        result="acceptable",
        inputs={"scores": scores, "may_look": may_look},
        answers=({"y": y}, {"y": even}),
        flags=("all_masked_row",),
        comment="A row that may look at nothing is zero here; transformers spreads it evenly over all.",
    )


def _embed() -> Iterator[Case]:
    """`y[t] = LayerNorm(table[ids[t]] + positions[t])`: no scale, and positions count from 0."""
    case, side = "L1-embed", "led.encoder"
    inputs: dict[str, Array] = {
        "ids": whole(f"{case}/ids", (7,), 0, 17),
        "table": numbers(f"{case}/table", (17, 13), spread=0.5),
        "positions": numbers(f"{case}/positions", (11, 13), spread=0.4),
        "weight": numbers(f"{case}/weight", (13,), spread=0.2, centre=1.0),
        "bias": numbers(f"{case}/bias", (13,), spread=0.3),
    }
    weights = {
        f"{side}.embed_positions.weight": inputs["positions"],
        f"{side}.layernorm_embedding.weight": inputs["weight"],
        f"{side}.layernorm_embedding.bias": inputs["bias"],
    }
    y = dense._embed(weights, side, inputs["table"].astype(np.float64)[inputs["ids"]])
    yield Case(case, "embed", inputs=inputs, answers=({"y": y},), depth=2)


def _shift() -> Iterator[Case]:
    """`decoder_input_ids = [start] + labels[:-1]`, with -100 become pad."""
    labels = np.array([[8, 9, -100, 4, 2, -100, -100], [5, 6, 7, 8, 9, 10, 2]])
    for start, pad in ((2, 1), (0, 3)):
        config = LEDConfig(decoder_start_token_id=start, pad_token_id=pad)
        answer = {"decoder_input_ids": dense.decoder_ids_from_labels(labels, config)}
        arguments = {"decoder_start_token_id": start, "pad_token_id": pad}
        flags = ("ignored_labels",)
        yield Case(
            f"L1-shift-{start}-{pad}",
            "shift",
            inputs={"labels": labels},
            arguments=arguments,
            answers=(answer,),
            flags=flags,
        )


# ---- L2 -------------------------------------------------------------------------------------------------------------

# name: (T, R, attention mask, global mask, flags). A mask is a text of one digit for each token, None for ones (or zeros);
# in the global mask "-" is -1.
_WINDOWS: Mapping[str, tuple[int, int, str | None, str | None, tuple[str, ...]]] = {
    "plain": (23, 2, None, None, ("global_none", "n_not_multiple")),
    "radius-1": (11, 1, None, None, ("global_none", "n_not_multiple")),
    "one-token": (1, 3, None, None, ("global_none", "n_lt_window")),
    "wide": (7, 11, None, None, ("global_none", "n_lt_window")),
    "whole-multiple": (24, 3, None, None, ("global_none",)),
    "padding": (17, 3, "11111111111000000", None, ("padding", "global_none", "n_not_multiple")),
    "padding-left": (17, 3, "00000011111111111", None, ("padding", "global_none", "n_not_multiple")),
    "holes": (17, 3, "11011101000011101", None, ("padding", "global_none", "n_not_multiple")),
    "global-first": (23, 2, None, "1" + 22 * "0", ("n_not_multiple",)),
    "globals-near": (19, 3, None, "0000110000000000001", ("global_in_window", "n_not_multiple")),
    "globals-and-padding": (19, 2, "1111111111111110000", "1000001000010000000", ("padding", "global_in_window")),
    "global-on-padding": (19, 2, "1111111111111110000", "1000000000000000100", ("padding", "global_on_pad")),
    "global-mask-padded": (13, 2, None, "1000000000---", ("padding", "global_on_pad")),
    "all-global": (7, 2, None, "1111111", ("global_all",)),
    "all-global-but-one": (7, 1, None, "1110111", ("global_all",)),
    "far-apart": (137, 5, None, "1" + 136 * "0", ("long", "n_not_multiple")),
    "far-apart-padded": (131, 8, 120 * "1" + 11 * "0", None, ("long", "padding", "global_none")),
    "large-scores": (13, 2, None, "1" + 12 * "0", ("large_values",)),
}


def attention() -> Iterator[Case]:
    """The cases of level 2 that need no model: what local tokens see, and full attention under a mask.

    `window`: q, k, v (H, T, K), attention_mask and global_attention_mask (T); argument radius. Local row i of `out`
    (T, H K; heads side by side) is `sum_j softmax_j(q_i k_j / sqrt K) v_j` over the local j with |i - j| <= radius and over
    all global j, each once. Rows of masked and of global tokens are 0.
    """
    for name, (length, radius, seen, marks, flags) in _WINDOWS.items():
        case = f"L2-window-{name}"
        heads, width = (1, 3) if length > 100 else (2, 5)
        step = 1 / 4 if name == "large-scores" else 1 / 64
        qkv = {part: numbers(f"{case}/{part}", (heads, length, width), spread=64 * step, step=step) for part in "qkv"}
        masks = {"attention_mask": mask_of(seen, length, 1), "global_attention_mask": mask_of(marks, length, 0)}
        out = window_by_definition(qkv, masks["attention_mask"], masks["global_attention_mask"], radius)
        depth = 3 if step == 1 / 64 else 3 * 256  # rounding errors of scores are those of their size
        inputs = {**qkv, **masks}
        yield Case(
            case,
            "window",
            inputs=inputs,
            arguments={"radius": radius},
            answers=({"out": out},),
            depth=depth,
            flags=flags,
        )
    yield from _full()


def mask_of(digits: str | None, length: int, otherwise: int) -> Array:
    """A mask from its digits; "-" is -1.

    Example:
        >>> mask_of("10-", 3, 1).tolist()
        [1, 0, -1]
    """
    if digits is None:
        return np.full(length, otherwise, np.int64)
    return np.array([-1 if digit == "-" else int(digit) for digit in digits], np.int64)


def window_by_definition(qkv: Mapping[str, Array], seen_T: Array, marks_T: Array, radius: int) -> Array:
    """The full table with all but local rows blank."""
    kinds_T = dense.token_kinds((1, len(seen_T)), seen_T[None], marks_T[None])[0]
    may_look_TT = dense.who_sees_whom(kinds_T, radius)
    may_look_TT[kinds_T != dense.LOCAL] = False
    return _side_by_side(qkv, may_look_TT)


def _full() -> Iterator[Case]:
    """`full`: q (H, U, K), k and v (H, S, K), may_look (U, S). `out` (U, H K), heads side by side."""
    masked = np.ones((5, 11), np.int64)
    masked[:, 7:] = 0
    causal = np.tril(np.ones((7, 7), np.int64))
    hidden = causal.copy()
    hidden[:, :2] = 0  # the first two queries may look at nothing
    for name, may_look, flags in (
        ("causal", causal, ("causal",)),
        ("cross", np.ones((5, 11), np.int64), ()),
        ("cross-padded", masked, ("padding",)),
        ("causal-later", np.tril(np.ones((3, 8), np.int64), 5), ("causal", "cache")),
        ("causal-hidden", hidden, ("causal", "padding", "all_masked_row")),
    ):
        case = f"L2-full-{name}"
        queries, keys = may_look.shape
        shapes = {"q": (3, queries, 5), "k": (3, keys, 5), "v": (3, keys, 5)}
        qkv = {part: numbers(f"{case}/{part}", shape, spread=1.0) for part, shape in shapes.items()}
        answers: tuple[dict[str, Array], ...] = ({"out": _side_by_side(qkv, may_look == 1)},)
        more: dict[str, Any] = {}
        if "all_masked_row" in flags:
            sees_nothing = ~may_look.any(axis=1)
            even = answers[0]["out"].copy()
            even[sees_nothing] = qkv["v"].astype(np.float64).mean(axis=1).reshape(-1)
            answers = (*answers, {"out": even})
            more = {
                "result": "acceptable",
                "comment": "Who may look at nothing takes nothing; transformers takes the mean of all values.",
            }
        yield Case(case, "full", inputs={**qkv, "may_look": may_look}, answers=answers, depth=3, flags=flags, **more)


def _side_by_side(qkv: Mapping[str, Array], may_look: Array) -> Array:
    """The definition's attention takes and gives heads side by side: (H, T, K) -> (T, H K)."""
    q, k, v = (qkv[part].astype(np.float64).swapaxes(0, 1).reshape(qkv[part].shape[1], -1) for part in "qkv")
    out, _ = dense._attention(q, k, v, may_look, len(qkv["q"]))
    return out
