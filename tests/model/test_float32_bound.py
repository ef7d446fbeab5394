"""Every step of a float32 model is as close to the truth as rounding allows.

A tap hears each intermediate. What a step was given is taken as it is; the step is done again in float64, with a bound of
how far float32 can be from that. The bounds are the textbook's (Higham, Accuracy and Stability of Numerical Algorithms,
chapter 3): with u = 2**-24, a sum of n products is off by at most gamma(n) = n u / (1 - n u) times the sum of their
magnitudes, in whatever order they are added. They are 1e-7 to 1e-5 here, and no tolerance is chosen by hand.

From end to end no such bound says anything: passed on as if all errors had one sign, it has grown beyond the states
themselves after one layer. test_model_properties.py holds the whole model to 5e-5, as measured.
"""

import math

import numpy as np
from small_led import CONFIG, draw_weights

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.model.intermediates import Recorder

U = 2.0**-24
# Weights that float32 holds exactly: what is bounded is the arithmetic.
WEIGHTS = {key: array.astype(np.float32).astype(np.float64) for key, array in draw_weights(CONFIG).items()}
Bounded = tuple[np.ndarray, np.ndarray]  # a value, and how far float32 can be from it


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


def linear(x: np.ndarray, name: str) -> Bounded:
    weight, bias = WEIGHTS[f"{name}.weight"], WEIGHTS[f"{name}.bias"]
    return x @ weight.T + bias, gamma(weight.shape[1] + 1) * (abs(x) @ abs(weight).T + abs(bias))


def add(x: np.ndarray, y: np.ndarray) -> Bounded:
    return x + y, U * abs(x + y)


def layer_norm(x: np.ndarray, name: str) -> Bounded:
    """What is normalised may be a rounded sum, and its mean off; that moves the deviation, too; then ten more roundings."""
    weight, bias, width = WEIGHTS[f"{name}.weight"], WEIGHTS[f"{name}.bias"], x.shape[-1]
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    moved = U * abs(x) + gamma(width + 1) * abs(x).mean(-1, keepdims=True)
    unit, deviation_moved = centred / deviation, np.sqrt((moved**2).mean(-1, keepdims=True))
    off = (moved + abs(unit) * deviation_moved) / deviation + gamma(width + 10) * abs(unit)
    return unit * weight + bias, abs(weight) * off + gamma(2) * (abs(weight * unit) + abs(bias))


def gelu(x: np.ndarray) -> Bounded:
    """The polynomial's ten terms, the exponential, and the difference of two numbers that are no larger than |x|."""
    phi = np.vectorize(lambda a: 0.5 * math.erfc(-a / math.sqrt(2)))
    return x * phi(x), gamma(16) * abs(x)


def attention(q_QK: np.ndarray, k_SK: np.ndarray, v_SK: np.ndarray, may_look: np.ndarray) -> Bounded:
    """One head. Scores that are off by e, all of them, change a probability p by at most p (exp(2 e) - 1)."""
    scores = np.where(may_look, q_QK @ k_SK.T, -np.inf)
    highest = scores.max(-1, keepdims=True)
    off = gamma(q_QK.shape[1]) * (abs(q_QK) @ abs(k_SK).T) + U * np.where(may_look, highest - scores, 0)
    probs = np.exp(scores - highest)
    probs /= probs.sum(-1, keepdims=True)
    worst = np.where(may_look, off, 0).max(-1, keepdims=True)
    probs_off = probs * (np.expm1(2 * worst) + gamma(len(k_SK) + 8))
    return probs @ v_SK, probs_off @ abs(v_SK) + gamma(len(k_SK)) * (probs @ abs(v_SK))


class Heard:
    """All intermediates of one float32 run, of its first document, in float64."""

    def __init__(self) -> None:
        self.values: dict[str, np.ndarray] = {}
        model = LEDForConditionalGeneration.from_state_dict(CONFIG, WEIGHTS, dtype="float32")
        rng = np.random.default_rng(0)
        ids, written = rng.integers(2, CONFIG.vocab_size, (1, 41)), rng.integers(0, CONFIG.vocab_size, (1, 7))
        model(ids, decoder_input_ids=written, recorder=Recorder(self.hear))
        self.checked = 0

    def hear(self, name: str, value: np.ndarray) -> None:
        assert np.asarray(value).dtype in (np.float32, np.int64), name
        self.values[name] = np.array(value, np.float64)[0] if np.ndim(value) else np.array(value)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def check(self, name: str, bounded: Bounded) -> None:
        """What the model says under that name is no further off than it may be."""
        value, bound = bounded
        off = abs(self.values[name] - value)
        assert (off <= bound).all(), f"{name}: {(off / bound).max():.2f} times its bound"
        assert bound.max() < 1e-4, f"{name}: a bound of {bound.max()} says nothing"
        self.checked += 1

    def check_heads(self, output: str, module: str, projections: tuple[str, str, str], may_look: np.ndarray) -> None:
        """The scale, rounded itself, rounds each query once more; keys and values are cut into heads as they are."""
        q, k, v = (self.values[f"{module}.{part}"] for part in "qkv")
        for part, projection, scale in zip("qkv", projections, (math.sqrt(q.shape[-1]), 1, 1), strict=True):
            rows = self.values[f"{module}.{projection}.output"]
            exact = rows.reshape(len(rows), len(q), -1).swapaxes(0, 1) / scale
            self.check(f"{module}.{part}", (exact, gamma(2) * abs(exact)))
        heads = [attention(q[h], k[h], v[h], may_look) for h in range(len(q))]
        value, bound = (np.concatenate(parts, axis=-1) for parts in zip(*heads, strict=True))
        self.check(f"{module}.{output}", (value, bound))

    def check_sum_and_norm(self, x: str, update: str, norm: str) -> str:
        self.check(f"{norm}.input", add(self[x], self[update]))
        self.check(f"{norm}.output", layer_norm(self[x] + self[update], norm))
        return f"{norm}.output"

    def check_feed_forward(self, layer: str, x: str) -> str:
        self.check(f"{layer}.fc1.output", linear(self[x], f"{layer}.fc1"))
        self.check(f"{layer}.activation_fn.output", gelu(self[f"{layer}.fc1.output"]))
        self.check(f"{layer}.fc2.output", linear(self[f"{layer}.activation_fn.output"], f"{layer}.fc2"))
        return self.check_sum_and_norm(x, f"{layer}.fc2.output", f"{layer}.final_layer_norm")


def test_float32_rounding_bound_of_every_step() -> None:
    heard = Heard()
    norm = "led.encoder.layernorm_embedding"
    heard.check(f"{norm}.output", layer_norm(heard[f"{norm}.input"], norm))
    x = f"{norm}.output"
    for i, radius in enumerate(CONFIG.radii):
        layer = f"led.encoder.layers.{i}"
        module = f"{layer}.self_attn.longformer_self_attn"
        for part in ("query", "key", "value"):
            heard.check(f"{module}.{part}.output", linear(heard[x], f"{module}.{part}"))
        near = abs(np.arange(41)[:, None] - np.arange(41)) <= radius
        heard.check_heads("output", module, ("query", "key", "value"), near)
        heard.check(f"{layer}.self_attn.output.output", linear(heard[f"{module}.output"], f"{layer}.self_attn.output"))
        x = heard.check_sum_and_norm(x, f"{layer}.self_attn.output.output", f"{layer}.self_attn_layer_norm")
        x = heard.check_feed_forward(layer, x)
    read, norm = x, "led.decoder.layernorm_embedding"
    heard.check(f"{norm}.output", layer_norm(heard[f"{norm}.input"], norm))
    x = f"{norm}.output"
    for i in range(CONFIG.decoder_layers):
        layer = f"led.decoder.layers.{i}"
        for name, source, may_look in (
            ("self_attn", x, np.tri(7, dtype=bool)),
            ("encoder_attn", read, np.ones((7, 41), bool)),
        ):
            module = f"{layer}.{name}"
            for part, given in (("q_proj", x), ("k_proj", source), ("v_proj", source)):
                heard.check(f"{module}.{part}.output", linear(heard[given], f"{module}.{part}"))
            heard.check_heads("out_proj.input", module, ("q_proj", "k_proj", "v_proj"), may_look)
            heard.check(f"{module}.out_proj.output", linear(heard[f"{module}.out_proj.input"], f"{module}.out_proj"))
            x = heard.check_sum_and_norm(x, f"{module}.out_proj.output", f"{module}_layer_norm")
        x = heard.check_feed_forward(layer, x)
    table, bias = WEIGHTS["led.shared.weight"], WEIGHTS["final_logits_bias"][0]
    magnitude = abs(heard[x]) @ abs(table).T + abs(bias)
    heard.check("logits", (heard[x] @ table.T + bias, gamma(CONFIG.d_model + 1) * magnitude))
    assert heard.checked == 2 + 2 * (3 + 3 + 1 + 1 + 2 + 5) + 2 * (2 * (3 + 3 + 1 + 1 + 2) + 5) + 1
