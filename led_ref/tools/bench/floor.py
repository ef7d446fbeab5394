"""How fast a case could be at best: what must be computed and read, whatever the code, at the machine's own speeds.

    encode     its operations / the speed of products
    a step     its bytes, each read once / the speed of memory
    generate   encode + the document's keys and values + all steps

This counts the definition of LED: band, global columns and rows, no corner of any tile. costs/operations.py counts what
the code does, which is more. One multiplication or one addition is an operation, float32 has 4 bytes; softmax, norms and
activations are left out, as are arrays that fit a cache.
"""

from dataclasses import dataclass
from typing import Any

from led_ref.config import LEDConfig
from led_ref.costs.operations import Workload, encode_work
from led_ref.tools.bench.cases import Case

ITEM = 4


@dataclass(frozen=True)
class Least:
    """What a case cannot do without: operations of matrix products, and bytes read where products are too few to count."""

    operations: int = 0
    bytes: int = 0

    def seconds(self, sgemm_gflop_s: float, memory_gb_s: float) -> float:
        """The time that a machine of these speeds needs for it."""
        return self.operations / sgemm_gflop_s / 1e9 + self.bytes / memory_gb_s / 1e9


def least(case: Case, config: LEDConfig) -> Least | None:
    """The least that a run of the case (of a decode case: a step) does; None where nobody can say.

    Folded cross-attention is chosen for its memory. What bounds its speed is neither products nor memory alone.
    """
    if case.how == "folded":
        return None
    if case.work == "encode":
        return Least(operations=encode_operations(config, case.tokens))
    if case.work == "decode":
        return Least(bytes=step_bytes(config, case.tokens))
    if case.work == "generate":
        source = 4 * config.decoder_layers * case.tokens * config.d_model**2
        operations = encode_operations(config, case.tokens) + source
        return Least(operations, bytes=case.new_tokens * step_bytes(config, case.tokens))
    return None


def encode_operations(config: LEDConfig, tokens: int, *, is_full: bool = False) -> int:
    """Operations of the encoder's matrix products on one document whose first token is global.

    Args:
        config: sizes.
        tokens: T.
        is_full: every token sees every other one, as if there were no window.

    Example: one token, D = 4, F = 8, R = 3: 4 * 2 * 16 for the projections, 2 * 2 * 32 for the feed-forward; the only
    token is global and sees itself, 2 * 2 * 4.

        >>> sizes = {name: 1 for name in ("encoder_layers", "encoder_attention_heads", "decoder_attention_heads")}
        >>> encode_operations(LEDConfig(d_model=4, encoder_ffn_dim=8, attention_window=6, **sizes), 1)
        272
    """
    counted = encode_work(config, Workload(tokens))
    linear_maps = sum(work.operations for work in counted if work.name in ("projections", "feed-forward"))
    if is_full:
        pairs = config.encoder_layers * tokens**2
    else:  # the global token's row and column, and the band of the others
        pairs = sum(tokens + (tokens - 1) + band_pairs(tokens - 1, radius) for radius in config.radii)
    return linear_maps + 4 * config.d_model * pairs


def band_pairs(tokens: int, radius: int) -> int:
    """How many pairs (i, j) of `tokens` positions have |i - j| <= radius.

    Example:
        >>> band_pairs(5, 1), band_pairs(5, 9)
        (13, 25)
    """
    reach = max(0, min(radius, tokens - 1))
    return tokens + 2 * sum(tokens - distance for distance in range(1, reach + 1))


def step_bytes(config: LEDConfig, tokens: int) -> int:
    """Bytes that a decoding step reads, each once however many beams there are.

    They are the decoder's matrices (those that make the document's keys and values are not needed any more), the table of
    logits, and the document's keys and values. What the beams have written themselves is left out: it is little.
    """
    d, layers = config.d_model, config.decoder_layers
    weights = layers * (6 * d**2 + 2 * d * config.decoder_ffn_dim) + config.vocab_size * d
    return ITEM * (weights + 2 * layers * tokens * d)


def full_attention_memory(config: LEDConfig, tokens: int) -> int:
    """Bytes of one layer's table of attention in which every token sees every other one: H T T numbers, alone."""
    return ITEM * config.encoder_attention_heads * tokens**2


def limits(case: Case, config: LEDConfig, speeds: dict[str, float], median_s: float) -> dict[str, Any]:
    """The speeds with which a case was measured, its floor by them, and which part of the limit it reached."""
    found: dict[str, Any] = dict(speeds)
    needed = least(case, config)
    if needed is None:
        return {**found, "operations": None, "bytes": None, "floor_s": None, "reached": None}
    floor_s = needed.seconds(**speeds)
    return {
        **found,
        "operations": needed.operations,
        "bytes": needed.bytes,
        "floor_s": floor_s,
        "reached": floor_s / median_s,
    }
