"""The memory of a run, before it: what LED holds at its peak, in bytes, from the sizes alone.

    plan(config, load).peak       compare it with what is free, before a long run begins

Counted are arrays that grow with the model, the document or the text; not Python itself, its libraries and what a BLAS or
a GPU's runtime keeps for its own use. led-base, 16,384 tokens, 4 beams, 128 new tokens:

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

from collections.abc import Mapping
from dataclasses import dataclass

from led_backends.compact import stored_bytes
from led_ref.config import LEDConfig
from led_ref.costs.operations import Workload, largest_tile
from led_ref.errors import InputError

# Arrays of all tokens (B, T, D) that the encoder holds at its peak beside a layer's input: the embeddings, q, k and v by
# heads, the window's result and its place in the batch; and in its feed-forward: the embeddings, attention's result before
# and after its projection, what goes in and what comes out. And what the decoder holds beside keys and values while it makes
# them: a linear map's result. And what a step holds of all positions, if it computes all of them (use_cache=False), beside
# their keys and values. tests/test_planning.py holds these counts to a real run.
ENCODER_ARRAYS, FEED_FORWARD_ARRAYS, SOURCE_ARRAYS, UNCACHED_ARRAYS = 6, 5, 1, 7
# Entries that a document's store of its texts' keys has room for at first; then it doubles (model/cache.py).
FIRST_ROOM = 32

# Search works on the host in float32: the logits as they arrive, their log-probabilities, and one array on the way there.
SEARCH_ARRAYS = 3


@dataclass(frozen=True)
class Plan:
    """What must be in memory.

    Args:
        weights: bytes of the model.
        encoding: the most that the encoder needs beside them.
        writing: the most that the decoder needs beside them.
        parts: what these are made of, in bytes, by name.
    """

    weights: int
    encoding: int
    writing: int
    parts: Mapping[str, int]

    @property
    def peak(self) -> int:
        """The most that is in memory at once, in bytes."""
        return self.weights + max(self.encoding, self.writing)


def plan(config: LEDConfig, load: Workload) -> Plan:
    """The memory of a run, before it: compare `plan(...).peak` with what is free.

    Args:
        config: sizes.
        load: what is to be run; with 0 new tokens, reading alone.

    Raises:
        InputError: for more tokens than the model has positions.
    """
    check(config, load)
    d, item = config.d_model, load.item
    states = load.batch * load.tokens * d * item
    parts = {
        "weights": weight_bytes(config, load),
        "encoder states": states,
        "encoder work": max(
            ENCODER_ARRAYS * states + _tiles(config, load), FEED_FORWARD_ARRAYS * states + _blocks(config, load)
        ),
        "cross-attention keys and values": 0 if load.folded else 2 * config.decoder_layers * states,
        "decoder cache": 2 * config.decoder_layers * load.batch * room(load) * d * item,
        "logits and search": load.rows * config.vocab_size * (item + 4 * SEARCH_ARRAYS),
    }
    encoding = parts["encoder states"] + parts["encoder work"]
    if not load.new_tokens:
        return Plan(parts["weights"], encoding, 0, parts)
    # While the last layer's keys and values are made, the linear map's result is there beside its copy by heads.
    kept = states + parts["cross-attention keys and values"]
    making = kept + (0 if load.folded else SOURCE_ARRAYS * states)
    stepping = kept + parts["decoder cache"] + parts["logits and search"] + _step_scratch(config, load)
    return Plan(parts["weights"], encoding, max(making, stepping), parts)


def parameters(config: LEDConfig) -> int:
    """How many numbers the weights are, the bias of the logits included: a tied table once.

    Example:
        >>> parameters(LEDConfig(attention_window=1024))  # led-large
        459851865
    """
    d, vocabulary = config.d_model, config.vocab_size
    linear_d, norm = d * d + d, 2 * d

    def feed_forward(inner: int) -> int:
        return 2 * d * inner + d + inner

    encoder = config.encoder_layers * (7 * linear_d + 2 * norm + feed_forward(config.encoder_ffn_dim))
    decoder = config.decoder_layers * (8 * linear_d + 3 * norm + feed_forward(config.decoder_ffn_dim))
    positions = (config.max_encoder_position_embeddings + config.max_decoder_position_embeddings) * d
    tables = vocabulary * d * (1 if config.tie_word_embeddings else 2) + vocabulary
    return encoder + decoder + positions + 2 * norm + tables


def weight_bytes(config: LEDConfig, load: Workload) -> int:
    """Bytes of the weights, kept as `load.weights` says: matrices alone in int8 or NF4, tables too in half precision.

    What a tile of them becomes where it is used is not counted: at most some 4 MB for each thread.

    Example:
        >>> from led_ref.costs.operations import LED_BASE
        >>> kinds = (None, "bfloat16", "int8", "nf4")
        >>> [round(weight_bytes(LED_BASE, Workload(tokens=1, weights=kind)) / 1e6) for kind in kinds]
        [648, 324, 319, 270]
    """
    if load.weights is None:
        return parameters(config) * load.item
    kept = _matrices(config)
    if load.weights in ("float16", "bfloat16"):
        kept += _tables(config)
    numbers = sum(rows * columns for rows, columns in kept)
    return sum(stored_bytes(shape, load.weights) for shape in kept) + (parameters(config) - numbers) * load.item


def _matrices(config: LEDConfig) -> list[tuple[int, int]]:
    """The shapes of all linear maps' matrices."""
    d = config.d_model
    found = []
    for layers, of_width, inner in (
        (config.encoder_layers, 7, config.encoder_ffn_dim),
        (config.decoder_layers, 8, config.decoder_ffn_dim),
    ):
        found += layers * ([(d, d)] * of_width + [(inner, d), (d, inner)])
    return found


def _tables(config: LEDConfig) -> list[tuple[int, int]]:
    """The shapes of embeddings, positions and an output projection of its own."""
    lengths = [config.max_encoder_position_embeddings, config.max_decoder_position_embeddings]
    lengths += [config.vocab_size] * (1 if config.tie_word_embeddings else 2)
    return [(length, config.d_model) for length in lengths]


def room(load: Workload) -> int:
    """Entries that are in memory at most for what the texts of one document are.

    A dynamic store doubles when it is full, and the old one is there yet. A static one is taken once; and without a cache
    the last step makes all entries at once.

    Example:
        >>> [room(Workload(tokens=9, new_tokens=n)) for n in (0, 1, 32, 33, 128)]
        [32, 32, 32, 96, 192]
        >>> room(Workload(tokens=9, beams=4, new_tokens=32, cache="static"))
        128
    """
    entries = load.beams * load.new_tokens
    if load.cache != "dynamic":
        return entries
    held = FIRST_ROOM
    while held < entries:
        held *= 2
    return held if held == FIRST_ROOM else held + held // 2


def _tiles(config: LEDConfig, load: Workload) -> int:
    """Bytes of the tiles in work at a time, each with its keys twice (as they are, and turned) and its queries.

    Or, afterwards, with its values and its result, which is less.
    """
    queries, reach = largest_tile(config, load)
    columns, width = reach + load.globals_, config.d_model // config.encoder_attention_heads
    return load.tiles_at_once * (queries * columns + 2 * columns * width + queries * width) * load.item


def _blocks(config: LEDConfig, load: Workload) -> int:
    """Bytes of the feed-forward's blocks in work at a time: the F numbers of each row, and the D that they become."""
    rows = min(load.batch * load.tokens, load.block_rows)
    return load.blocks_at_once * rows * (config.encoder_ffn_dim + config.d_model) * load.item


def _step_scratch(config: LEDConfig, load: Workload) -> int:
    """Bytes of what is in work in a step: scores of the document, and without a cache the rows of all positions.

    The scores are those of one head for each thread; folded, of all heads at once.
    """
    heads, d = config.decoder_attention_heads, config.d_model
    if load.cache != "none":
        return (heads if load.folded else min(load.tiles_at_once, heads)) * load.beams * load.tokens * load.item
    queries = load.beams * load.new_tokens  # of a document: every position of every text
    if load.folded:  # and the queries brought to the states, (H, Q, D)
        scores = heads * queries * (load.tokens + d)
    else:
        scores = min(load.tiles_at_once, heads) * min(queries, load.queries_per_block) * load.tokens
    return (scores + UNCACHED_ARRAYS * load.batch * queries * d) * load.item + load.batch * queries * queries


def check(config: LEDConfig, load: Workload) -> None:
    """Refuse a workload that the model has no positions for.

    Raises:
        InputError: naming the limit.
    """
    for name, asked, limit in (
        ("tokens", load.tokens, config.max_encoder_position_embeddings),
        ("new tokens", load.new_tokens, config.max_decoder_position_embeddings),
    ):
        if asked > limit:
            raise InputError(f"{asked} {name} are too many: the model has {limit} positions. Ask for at most {limit}.")
