"""How fast a case could be at best: the least work that it needs, at the machine's own speeds.

    encode     its operations / the speed of products
    a step     its bytes, each read once / the speed of memory
    generate   encode + the document's keys and values + all steps
    train      three times the products of the forward pass: forward, and two products back for each. With layers computed
               again, as led_ref and gradient checkpointing do it, they are four times as many: 0.75 at best

The least work follows from the definition of LED: band, global columns and rows, no corner of any tile. What led_ref's code
does is a little more: costs/operations.py. Softmax, norms and activations are left out, and arrays that fit a cache.
"""

from typing import Any

from led_ref.config import LEDConfig
from led_ref.costs.operations import ITEM_SIZES, Work, Workload, cross_work, encode_work, source_work, tiles
from led_ref.costs.training import decoder_work
from led_ref.tools.bench.cases import Case

ITEM = ITEM_SIZES["float32"]


def least(case: Case, config: LEDConfig) -> Work | None:
    """The least work of one run of the case (of a decode case: of one step); None where it is not known.

    Folded cross-attention is chosen for its memory. What bounds its speed is neither products nor memory alone.
    """
    operations = size = 0
    if case.work == "train" and case.how == "base":
        load = Workload(tokens=case.tokens, new_tokens=case.new_tokens)
        forward = encode_operations(config, case.tokens) + decoder_work(config, load).operations
        return Work(case.name, 3 * case.documents * forward, 0, 0)
    if case.how == "folded" or case.work not in ("encode", "decode", "generate"):
        return None
    if case.work != "decode":
        operations = encode_operations(config, case.tokens)
    if case.work != "encode":
        size = step_bytes(config, case.tokens)
    if case.work == "generate":
        operations += source_work(config, Workload(tokens=case.tokens)).operations
        size *= case.new_tokens
    return Work(case.name, operations, size, 0)


def floor_seconds(work: Work, sgemm_gflop_s: float, memory_gb_s: float) -> float:
    """The time of some work on a machine of these speeds."""
    return work.operations / sgemm_gflop_s / 1e9 + work.bytes / memory_gb_s / 1e9


def encode_operations(config: LEDConfig, tokens: int, *, is_full: bool = False) -> int:
    """Operations of the encoder's matrix products on one document whose first token is global.

    Args:
        config: sizes.
        tokens: T.
        is_full: every token attends to every other one, without a window.

    Example: one token, D = 4, F = 8, R = 3: 4 * 2 * 16 for the projections, 2 * 2 * 32 for the feed-forward; the only
    token is global and attends to itself, 2 * 2 * 4.

        >>> sizes = {name: 1 for name in ("encoder_layers", "encoder_attention_heads", "decoder_attention_heads")}
        >>> encode_operations(LEDConfig(d_model=4, encoder_ffn_dim=8, attention_window=6, **sizes), 1)
        272
    """
    work = {work.name: work.operations for work in encode_work(config, Workload(tokens=tokens))}
    pairs = 0
    for radius in config.radii:
        # The global token's row and column, and the band of the others.
        pairs += tokens**2 if is_full else tokens + (tokens - 1) + band_pairs(tokens - 1, radius)
    return work["projections"] + work["feed-forward"] + 4 * pairs * config.d_model


def band_pairs(tokens: int, radius: int) -> int:
    """How many pairs (i, j) of `tokens` positions have |i - j| <= radius.

    Example:
        >>> band_pairs(5, 1), band_pairs(5, 9)
        (13, 25)
    """
    return sum(keys for _, keys in tiles(tokens, radius, 1))


def step_bytes(config: LEDConfig, tokens: int) -> int:
    """Bytes that a decoding step reads, each once however many beams there are.

    They are the decoder's matrices (without those that computed the document's keys and values), the table of logits, and
    the document's keys and values. The beams' own keys and values are left out: they are few.
    """
    d, layers = config.d_model, config.decoder_layers
    weights = layers * (6 * d**2 + 2 * d * config.decoder_ffn_dim) + config.vocab_size * d
    return ITEM * weights + cross_work(config, Workload(tokens=tokens)).bytes


def full_attention(config: LEDConfig, tokens: int) -> dict[str, int]:
    """What an encoder without a window would compute for a document and hold of one layer's attention map: H T T numbers."""
    operations = encode_operations(config, tokens, is_full=True)
    return {"tokens": tokens, "operations": operations, "bytes": ITEM * config.encoder_attention_heads * tokens**2}


def limits(case: Case, config: LEDConfig, speeds: dict[str, float], median_s: float) -> dict[str, Any]:
    """The machine's speeds during a case, the case's floor at these speeds, and the share of it that was reached."""
    work = least(case, config)
    if work is None:
        return {**speeds, "operations": None, "bytes": None, "floor_s": None, "reached": None}
    floor_s = floor_seconds(work, **speeds)
    counts = {"operations": work.operations, "bytes": work.bytes}
    return {**speeds, **counts, "floor_s": floor_s, "reached": floor_s / median_s}
