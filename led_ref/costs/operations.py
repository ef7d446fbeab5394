r"""The cost of a run of LED, counted before anything runs: operations, bytes, launches.

Pure arithmetic on a configuration's sizes: nothing here touches an array, measures a time or depends on the machine it runs
on. The time on a machine is a division: operations / its speed of matrix products, bytes / its memory bandwidth.

    led-ref estimate     divides by this machine's speeds (tools/estimate.py)
    led-ref bench        says how near a run came to that
    docs/gpu.md          divides by two GPUs' published peaks (docs/build_gpu_page.py)

What a run needs in memory is in costs/memory.py.

An operation is one multiplication or one addition; only matrix products count, because they are nearly all of the work.
Bytes are those that the code as written moves between memory and processor, each array once for every pass over it. A
launch is one kernel that a GPU runs; on a CPU nobody counts them. A document of 4,096 tokens in led-base:

    >>> f"{total(encode_work(LED_BASE, Workload(tokens=4096))).operations / 1e9:.0f} billion operations"
    '430 billion operations'
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from led_backends.cupy_backend import BLOCK_ROWS as GPU_ROWS
from led_backends.cupy_backend import CupyBackend
from led_ref.config import LEDConfig
from led_ref.errors import InputError

# Bytes of one number.
ITEM_SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

# The variants of the KV cache.
CACHES = ("dynamic", "static", "none")

# The formats in which weights are stored smaller than they are computed with (led_backends/compact.py).
KEPT = ("float16", "bfloat16", "int8", "nf4", "nf4-double")

# The sizes of Ai2's two models (allenai/led-base-16384, allenai/led-large-16384).
LED_BASE = LEDConfig(
    encoder_layers=6, encoder_attention_heads=12, encoder_ffn_dim=3072, attention_window=(1024,) * 6,
    decoder_layers=6, decoder_attention_heads=12, decoder_ffn_dim=3072, d_model=768,
)  # fmt: skip
LED_LARGE = LEDConfig(attention_window=(1024,) * 12)

# Kernels of one operation on a GPU: a linear map is a product and a bias, for a step's few rows one kernel; attention of few
# queries is computed in parts that are then combined; a tile is keys and values side by side, the queries' copy, the keys'
# transposed copy (float16 needs neither), two products, a softmax and the copy of the result.
LINEAR, LINEAR_FEW, ATTEND, TILE = 2, 1, 2, 8
# The global rows of a layer: their projection, the folding, two products, softmax, the projection back; and a decoder layer
# in a step: eight linear maps, scaling and heads of q twice, the feed-forward's second product, GELU, three norms.
GLOBAL_ROWS, STEP_LAYER = 12, 8 * LINEAR_FEW + 2 * 2 + 1 + 1 + 3


@dataclass(frozen=True)
class Workload:
    """The sizes of a run.

    Args:
        tokens: T, of each document.
        batch: B, documents.
        beams: W, of each document.
        new_tokens: generated tokens of each beam.
        globals_: G, global tokens of each document.
        dtype: the dtype of the computation, one of ITEM_SIZES.
        queries_per_block: Q of the encoder's tiles, as in the backend.
        folded: cross_attention="folded": the document's keys and values are not stored.
        cache: of the generated prefix: "dynamic", a buffer that grows; "static", allocated once; "none", use_cache=False.
        tiles_at_once: tiles, of one head each, in memory at the same time: on a CPU one for each thread.
        block_rows: rows in a block of the feed-forward.
        blocks_at_once: such blocks in memory at the same time.
        weights: the format in which they are stored, if it is not `dtype`: one of KEPT.

    Raises:
        InputError: for an impossible number, or an unknown dtype.
    """

    tokens: int
    batch: int = 1
    beams: int = 1
    new_tokens: int = 1
    globals_: int = 1
    dtype: str = "float32"
    queries_per_block: int = 128
    folded: bool = False
    cache: str = "dynamic"
    tiles_at_once: int = 1
    block_rows: int = 256
    blocks_at_once: int = 1
    weights: str | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values, naming the field."""
        least = {"tokens": 1, "batch": 1, "beams": 1, "new_tokens": 0, "globals_": 0, "queries_per_block": 1}
        for name, minimum in {**least, "tiles_at_once": 1, "block_rows": 1, "blocks_at_once": 1}.items():
            if getattr(self, name) < minimum:
                raise InputError(f"{name.strip('_')} is {getattr(self, name)}; give at least {minimum}.")
        if self.globals_ > self.tokens:
            raise InputError(
                f"There are {self.globals_} global tokens among {self.tokens}; give at most {self.tokens}."
            )
        for name, known in (("cache", CACHES), ("dtype", ITEM_SIZES), ("weights", KEPT)):
            chosen = getattr(self, name)
            if chosen not in known and not (name == "weights" and chosen is None):
                raise InputError(f"{name} is {chosen!r}; choose among {', '.join(known)}.")

    @property
    def rows(self) -> int:
        """N, rows of the decoder."""
        return self.batch * self.beams

    @property
    def item(self) -> int:
        """Bytes of one number."""
        return ITEM_SIZES[self.dtype]


@dataclass(frozen=True)
class Work:
    """One kind of work in a layer or step: its operations, bytes moved, and launches."""

    name: str
    operations: int
    bytes: int
    launches: int


def total(work: Iterable[Work], name: str = "total") -> Work:
    """The sum of several kinds of work.

    Example:
        >>> total([Work("a", 1, 2, 3), Work("b", 10, 20, 30)])
        Work(name='total', operations=11, bytes=22, launches=33)
    """
    pieces = list(work)
    return Work(name, sum(w.operations for w in pieces), sum(w.bytes for w in pieces), sum(w.launches for w in pieces))


# ---- the encoder --------------------------------------------------------------------------------------------------------


def encode_work(config: LEDConfig, load: Workload) -> list[Work]:
    """The encoder's work: one Work for each kind, over all layers and documents, and the embeddings."""
    rows, d, item = load.batch * load.tokens, config.d_model, load.item
    by_name: dict[str, list[Work]] = {}
    for radius in config.radii:
        for work in encoder_layer_work(config, load, radius):
            by_name.setdefault(work.name, []).append(work)
    # One pass gathers rows of the table, one adds the positions and normalizes.
    embeddings = Work("embeddings", 0, rows * d * item * 4, 2)
    return [embeddings, *(total(works, name) for name, works in by_name.items())]


def encoder_layer_work(config: LEDConfig, load: Workload, radius: int) -> list[Work]:
    """One encoder layer's work on all documents, by kind."""
    rows, d, item = load.batch * load.tokens, config.d_model, load.item
    return [
        # Four linear maps; q is scaled; q, k and v are copied into heads.
        products("projections", rows, [(d, d)] * 4, item, launches=4 * LINEAR + 1 + 3, passes=2 * rows * d * 4 * item),
        window_work(config, load, radius),
        global_work(config, load),
        feed_forward_work(rows, d, config.encoder_ffn_dim, load),
        Work("norms", 0, 2 * 3 * rows * d * item, 2),  # each reads x and update and writes y
    ]


def window_work(config: LEDConfig, load: Workload, radius: int) -> Work:
    """The tiles of one layer: scores, softmax, weighted sum, for all heads and documents.

    The first product writes the scores of a tile, the softmax reads and writes them, the second product reads them.
    A GPU's batched product needs dense operands, so a tile's queries, keys and values are copied first.
    """
    heads, d, scores, copied, blocks = config.encoder_attention_heads, config.d_model, 0, 0, 0
    for queries, keys in tiles(load.tokens, radius, load.queries_per_block):
        scores += queries * (keys + load.globals_)
        copied += queries + 2 * keys
        blocks += 1
    moved = 4 * heads * scores + 2 * d * copied + 2 * d * load.tokens
    launches = blocks * TILE + 4  # and: the result's array, global keys and values, global rows to zero
    return Work("window", 4 * d * scores * load.batch, moved * load.item * load.batch, launches * load.batch)


def tiles(tokens: int, radius: int, queries_per_block: int) -> Iterator[tuple[int, int]]:
    """(queries, keys in reach) of each block of a document (model/masks.py).

    Example:
        >>> list(tiles(20, radius=3, queries_per_block=5))
        [(5, 8), (5, 11), (5, 11), (5, 8)]
    """
    for start in range(0, tokens, queries_per_block):
        stop = min(start + queries_per_block, tokens)
        yield stop - start, min(tokens, stop + radius) - max(0, start - radius)


def largest_tile(config: LEDConfig, load: Workload) -> tuple[int, int]:
    """(queries, keys in reach) of the largest tile: in the middle of a long document, or all of a short one."""
    return max(
        tiles(load.tokens, max(config.radii, default=0), load.queries_per_block), key=lambda tile: tile[0] * tile[1]
    )


def on_gpu(config: LEDConfig, load: Workload) -> Workload:
    """The workload as the CuPy backend cuts it (docs/gpu.md says why): tiles of all heads at once, large blocks of rows."""
    return replace(
        load,
        queries_per_block=CupyBackend.queries_per_block,
        tiles_at_once=config.encoder_attention_heads,
        block_rows=GPU_ROWS,
        blocks_at_once=1,
    )


def global_work(config: LEDConfig, load: Workload) -> Work:
    """The global tokens' own rows in one layer, in the cheaper variant (model/global_attention.py has both, and the rule)."""
    tokens, d, g, item = load.tokens, config.d_model, load.globals_, load.item
    heads = config.encoder_attention_heads
    if not g:
        return Work("global", 0, 0, 0)
    if g < d // heads:  # folded: 2 products of (H G, D) with (D, T)
        operations = 4 * heads * g * tokens * d + 6 * g * d * d
        moved = 2 * tokens * d + 4 * heads * g * tokens + 3 * d * d
    else:
        operations = 4 * tokens * d * d + 4 * g * tokens * d + 2 * g * d * d
        moved = 8 * tokens * d + 4 * heads * g * tokens + 3 * d * d
    return Work("global", operations * load.batch, moved * item * load.batch, GLOBAL_ROWS * load.batch)


def feed_forward_work(rows: int, width: int, inner: int, load: Workload) -> Work:
    """`fc2(gelu(fc1(x)))` of some rows: the hidden numbers are written, activated in place and read again."""
    shapes = [(width, inner), (inner, width)]
    return products(
        "feed-forward", rows, shapes, load.item, launches=2 * LINEAR + 1, passes=2 * rows * inner * load.item
    )


def products(name: str, rows: int, shapes: list[tuple[int, int]], item: int, *, launches: int, passes: int) -> Work:
    """Linear maps of `rows` rows: each reads its weights and input and writes its output; its bias is one more pass.

    `shapes` holds (in, out) of each map; `passes` are the bytes of other passes over the results.
    """
    operations = sum(2 * rows * wide * out for wide, out in shapes)
    moved = sum(wide * out + rows * (wide + 3 * out) for wide, out in shapes)
    return Work(name, operations, moved * item + passes, launches)


# ---- the decoder --------------------------------------------------------------------------------------------------------


def source_work(config: LEDConfig, load: Workload) -> Work:
    """Keys and values of the document for all decoder layers, computed once before the first step; none if folded."""
    rows, d = load.batch * load.tokens, config.d_model
    if load.folded:
        return Work("keys and values", 0, 0, 0)
    layers = config.decoder_layers
    shapes = [(d, d)] * 2 * layers
    return products(
        "keys and values", rows, shapes, load.item, launches=layers * (2 * LINEAR + 2), passes=4 * layers * rows * d * load.item
    )  # fmt: skip


def step_work(config: LEDConfig, load: Workload, prefix: int) -> list[Work]:
    """One decoding step: one new position for each of N rows, after a generated prefix of that many positions.

    The beams of a document share one KV cache: W times as many slots, read once for all of them.
    """
    n, d, inner, item, layers = load.rows, config.d_model, config.decoder_ffn_dim, load.item, config.decoder_layers
    # q, k, v and out of self-attention, q and out of cross-attention; folding applies its k and v to the queries.
    shapes = [(d, d)] * (8 if load.folded else 6) + [(d, inner), (inner, d)]
    maps = products(
        "weights", n, shapes * layers, item, launches=layers * STEP_LAYER, passes=layers * n * 12 * d * item
    )
    slots = n * (prefix + 1)
    return [
        maps,
        # Every beam multiplies with all slots of its document, and a mask hides those of the other beams.
        Work("own past", layers * 4 * load.beams * slots * d, layers * 2 * slots * d * item, layers * (ATTEND + 2)),
        cross_work(config, load),
        products("logits", n, [(d, config.vocab_size)], item, launches=LINEAR_FEW + 2, passes=0),
    ]


def cross_work(config: LEDConfig, load: Workload) -> Work:
    """Cross-attention in one step, all layers: keys and values (or, folded, states) are read once for all beams."""
    n, d, layers = load.rows, config.d_model, config.decoder_layers
    operations = 4 * n * load.tokens * d * (config.decoder_attention_heads if load.folded else 1)
    moved = 2 * load.batch * load.tokens * d + 4 * n * config.decoder_attention_heads * load.tokens * load.folded
    return Work("document", layers * operations, layers * moved * load.item, layers * ATTEND)
