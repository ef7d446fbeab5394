"""The peak memory of a run in bytes, computed from the sizes alone, before the run.

    plan(config, load).peak       compare it with the free memory, before a long run begins

Counted are the arrays that grow with the model, the document or the generated text; not Python itself, its libraries and
the workspace of a BLAS or of a GPU's runtime. led-base, 16,384 tokens, 4 beams, 128 new tokens:

    >>> from led_ref.costs.operations import LED_BASE
    >>> long = Workload(tokens=16384, beams=4, new_tokens=128)
    >>> for name, size in plan(LED_BASE, long).parts.items():
    ...     print(f"{size / 1e6:5.0f} MB  {name}")
      648 MB  weights
       50 MB  encoder states
      303 MB  encoder work
      604 MB  cross-attention keys and values
       28 MB  decoder cache
        3 MB  logits and search
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from led_backends.compact import stored_bytes
from led_ref.config import LEDConfig
from led_ref.costs.operations import Workload, largest_tile
from led_ref.errors import InputError
from led_ref.model.kv_cache import FIRST_CAPACITY
from led_ref.weights.keys import LM_HEAD, POSITION_TABLES, TIED, entries
from led_ref.weights.quantization.file_format import is_matrix

# Arrays of all tokens (B, T, D) that exist at the same time:
#   ENCODER_ARRAYS       in the encoder's attention, beside a layer's input: the embeddings, q, k and v by heads, the window's
#                        result and its place in the batch;
#   FEED_FORWARD_ARRAYS  in its feed-forward: the embeddings, attention's result before and after its projection, the input,
#                        the output;
#   SOURCE_ARRAYS        in the decoder, beside the document's keys and values: the result of the linear map that makes them;
#   UNCACHED_ARRAYS      in a step with use_cache=False, which computes all positions, beside their keys and values.
# tests/test_planning.py compares these counts with a real run.
ENCODER_ARRAYS, FEED_FORWARD_ARRAYS, SOURCE_ARRAYS, UNCACHED_ARRAYS = 6, 5, 1, 7

# The search works on the host in float32: the logits, their log-probabilities, and one intermediate array.
SEARCH_ARRAYS = 3


@dataclass(frozen=True)
class Plan:
    """The memory of a run, in bytes.

    Args:
        weights: of the model.
        encoding: the peak of the encoder, beside the weights.
        writing: the peak of the decoder, beside the weights.
        parts: the terms of these sums, by name.
    """

    weights: int
    encoding: int
    writing: int
    parts: Mapping[str, int]

    @property
    def peak(self) -> int:
        """The peak of the whole run."""
        return self.weights + max(self.encoding, self.writing)


def plan(config: LEDConfig, load: Workload) -> Plan:
    """The memory of a run, before it: compare `plan(...).peak` with the free memory.

    Args:
        config: sizes.
        load: the run; with 0 new tokens, the encoder alone.

    Raises:
        InputError: for more tokens than the model has positions.
    """
    for name, asked, limit in (
        ("tokens", load.tokens, config.max_encoder_position_embeddings),
        ("new tokens", load.new_tokens, config.max_decoder_position_embeddings),
    ):
        if asked > limit:
            raise InputError(f"{asked} {name} are too many: the model has {limit} positions. Ask for at most {limit}.")
    d, item = config.d_model, load.item
    states = load.batch * load.tokens * d * item
    parts = {
        "weights": weight_bytes(config, load),
        "encoder states": states,
        "encoder work": max(
            ENCODER_ARRAYS * states + _tiles(config, load), FEED_FORWARD_ARRAYS * states + _blocks(config, load)
        ),
        "cross-attention keys and values": 0 if load.folded else 2 * config.decoder_layers * states,
        "decoder cache": 2 * config.decoder_layers * load.batch * cache_slots(load) * d * item,
        "logits and search": load.rows * config.vocab_size * (item + 4 * SEARCH_ARRAYS),
    }
    encoding = parts["encoder states"] + parts["encoder work"]
    if not load.new_tokens:
        return Plan(parts["weights"], encoding, 0, parts)
    # While the last layer's keys and values are computed, the linear map's result exists beside its copy by heads.
    kept = states + parts["cross-attention keys and values"]
    making = kept + (0 if load.folded else SOURCE_ARRAYS * states)
    stepping = kept + parts["decoder cache"] + parts["logits and search"] + _step_scratch(config, load)
    return Plan(parts["weights"], encoding, max(making, stepping), parts)


def weight_bytes(config: LEDConfig, load: Workload) -> int:
    """Bytes of the weights, stored as `load.weights` says: int8 and NF4 for matrices, half precision for tables, too.

    A tied table counts once. The tiles that become numbers where they are used are not counted: at most some 4 MB for each
    thread.

    Example:
        >>> from led_ref.costs.operations import LED_BASE
        >>> kinds = (None, "bfloat16", "int8", "nf4")
        >>> [round(weight_bytes(LED_BASE, Workload(tokens=1, weights=kind)) / 1e6) for kind in kinds]
        [648, 324, 319, 270]
    """
    is_half = load.weights in ("float16", "bfloat16")
    found = 0
    for entry in entries(config):
        if entry.key == LM_HEAD and config.tie_word_embeddings:
            continue
        is_table = entry.key in (*TIED, *POSITION_TABLES)
        if load.weights is not None and (is_matrix(entry) or (is_half and is_table)):
            found += stored_bytes((entry.shape[0], entry.shape[1]), load.weights)
        else:
            found += math.prod(entry.shape) * load.item
    return found


def cache_slots(load: Workload) -> int:
    """The most slots of the KV cache that the beams of one document occupy at the same time.

    A dynamic buffer doubles when it is full, and the old one exists until its copy is done. A static one is allocated once;
    and without a cache the last step computes all positions at once.

    Example:
        >>> [cache_slots(Workload(tokens=9, new_tokens=n)) for n in (0, 1, 32, 33, 128)]
        [32, 32, 32, 96, 192]
        >>> cache_slots(Workload(tokens=9, beams=4, new_tokens=32, cache="static"))
        128
    """
    slots = load.beams * load.new_tokens
    if load.cache != "dynamic":
        return slots
    capacity = FIRST_CAPACITY
    while capacity < slots:
        capacity *= 2
    return capacity if capacity == FIRST_CAPACITY else capacity + capacity // 2


def _tiles(config: LEDConfig, load: Workload) -> int:
    """Bytes of the tiles computed at the same time, each with its keys, their transposed copy and its queries.

    Later a tile has its values and its result instead, which are smaller.
    """
    queries, reach = largest_tile(config, load)
    columns, width = reach + load.globals_, config.d_model // config.encoder_attention_heads
    return load.tiles_at_once * (queries * columns + 2 * columns * width + queries * width) * load.item


def _blocks(config: LEDConfig, load: Workload) -> int:
    """Bytes of the feed-forward's blocks computed at the same time: for each row F hidden numbers and D results."""
    rows = min(load.batch * load.tokens, load.block_rows)
    return load.blocks_at_once * rows * (config.encoder_ffn_dim + config.d_model) * load.item


def _step_scratch(config: LEDConfig, load: Workload) -> int:
    """Bytes of a step's intermediate arrays: the cross-attention scores, and without a cache the rows of all positions.

    The scores of one head for each thread; folded, of all heads at once.
    """
    heads, d = config.decoder_attention_heads, config.d_model
    if load.cache != "none":
        return (heads if load.folded else min(load.tiles_at_once, heads)) * load.beams * load.tokens * load.item
    queries = load.beams * load.new_tokens  # of one document: every position of every beam
    if load.folded:  # and the queries projected into the space of the states, (H, Q, D)
        scores = heads * queries * (load.tokens + d)
    else:
        scores = min(load.tiles_at_once, heads) * min(queries, load.queries_per_block) * load.tokens
    return (scores + UNCACHED_ARRAYS * load.batch * queries * d) * load.item + load.batch * queries * queries
