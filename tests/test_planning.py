"""The counts of led_ref/costs (operations.py, memory.py) against what the model does: its blocks, its arrays, its weights."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import led_ref
from led_backends.compact import DoubleScales
from led_backends.numpy_backend import BLOCK_ROWS, NumpyBackend
from led_ref.classes.generate import DecodingStep
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs.operations import Workload
from led_ref.costs.training import training_plan
from led_ref.errors import InputError
from led_ref.model.dropout import Dropout, DropoutRates
from led_ref.model.kv_cache import FIRST_CAPACITY, CachePlan
from led_ref.model.masks import document_masks, window_blocks
from led_ref.training.accumulator import GradientAccumulator
from led_ref.training.gradients import GradientOptions, accumulate_gradients
from led_ref.training.parameters import trained_parameters
from led_ref.weights.keys import LM_HEAD, arrays_by_key, entries, parameter_count
from led_ref.weights.load import load_params
from led_ref.weights.stored_tensor import StoredTensor, narrow

# Large in D against everything that the plan does not count (masks, ids, one array of a row's width).
CONFIG = LEDConfig(
    vocab_size=101,
    d_model=192,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=3,
    decoder_attention_heads=3,
    encoder_ffn_dim=251,
    decoder_ffn_dim=257,
    attention_window=(32, 64),
    max_encoder_position_embeddings=4096,
    max_decoder_position_embeddings=80,
)
TOKENS = 2003


def random_model(config):
    rng = np.random.default_rng(0)
    weights = {entry.key: 0.02 * rng.standard_normal(entry.shape) for entry in entries(config) if entry.key != LM_HEAD}
    return led_ref.LEDForConditionalGeneration.from_state_dict(config, weights, backend=NumpyBackend(threads=1))


@pytest.fixture(scope="module")
def model():
    return random_model(CONFIG)


@pytest.mark.parametrize(
    "config", [CONFIG, planning.LED_BASE, planning.LED_LARGE, replace(CONFIG, tie_word_embeddings=False)]
)
def test_the_weights_are_all_counted(config):
    trained = parameter_count(config, untied_lm_head=not config.tie_word_embeddings)
    assert by_hand(config) == trained + config.vocab_size  # the logits' bias is not trained
    assert memory_plan.weight_bytes(config, Workload(tokens=1)) == 4 * by_hand(config)


def by_hand(config):
    """The number of weights as a sum of products, without the table of keys."""
    d, vocabulary = config.d_model, config.vocab_size
    linear_d, norm = d * d + d, 2 * d

    def feed_forward(inner):
        return 2 * d * inner + d + inner

    encoder = config.encoder_layers * (7 * linear_d + 2 * norm + feed_forward(config.encoder_ffn_dim))
    decoder = config.decoder_layers * (8 * linear_d + 3 * norm + feed_forward(config.decoder_ffn_dim))
    positions = (config.max_encoder_position_embeddings + config.max_decoder_position_embeddings) * d
    tables = vocabulary * d * (1 if config.tie_word_embeddings else 2) + vocabulary
    return encoder + decoder + positions + 2 * norm + tables


@pytest.mark.parametrize("kind", [None, *planning.KEPT])
def test_compact_weight_bytes(kind):
    rng, config = np.random.default_rng(0), replace(CONFIG, max_encoder_position_embeddings=83)
    drawn = {entry.key: 0.02 * rng.standard_normal(entry.shape) for entry in entries(config) if entry.key != LM_HEAD}
    stored = {"float16": "F16", "bfloat16": "BF16"}.get(kind, "F32")
    tensors = {key: StoredTensor(stored, narrow(array, stored)) for key, array in drawn.items()}
    quantize = None if stored != "F32" else kind
    params = load_params(tensors, config, backend=NumpyBackend(), quantize=quantize, keep_stored=True)
    held = sum(bytes_of(weight) for key, weight in arrays_by_key(params, config).items() if key != LM_HEAD)
    # Biases and norms in half precision become float32: they are few, and nobody would wait for them in a product.
    assert held == memory_plan.weight_bytes(config, Workload(tokens=1, weights=kind))


def bytes_of(weight):
    """Bytes of what a weight holds for itself; code books are there once for all."""
    if isinstance(weight, np.ndarray):
        return weight.nbytes
    parts = [weight, weight.absmax] if isinstance(getattr(weight, "absmax", None), DoubleScales) else [weight]
    books = ("pairs", "book")
    return sum(
        a.nbytes for part in parts for k, a in vars(part).items() if isinstance(a, np.ndarray) and k not in books
    )


@pytest.mark.parametrize("queries", [7, 128, 512])
def test_tiles_match_model(queries):
    (mask,) = document_masks(np.ones((1, TOKENS), int), None)
    for radius in CONFIG.radii:
        blocks = window_blocks(mask, radius, NumpyBackend(), queries=queries)
        assert list(planning.tiles(TOKENS, radius, queries)) == [(b.stop - b.start, b.high - b.low) for b in blocks]


def test_window_operation_count():
    load = Workload(tokens=TOKENS, globals_=2)
    pairs = sum(queries * (keys + 2) for queries, keys in planning.tiles(TOKENS, 16, 128))
    multiplications = 2 * pairs * CONFIG.d_model  # for all heads: H times K is D
    assert planning.window_work(CONFIG, load, 16).operations == 2 * multiplications


def test_a_batch_costs_its_documents():
    one, three = Workload(tokens=700, beams=2, new_tokens=9), Workload(tokens=700, batch=3, beams=2, new_tokens=9)
    for a, b in zip(planning.encode_work(CONFIG, one), planning.encode_work(CONFIG, three), strict=True):
        assert b.operations == 3 * a.operations, a.name
    for a, b in zip(planning.step_work(CONFIG, one, 4), planning.step_work(CONFIG, three, 4), strict=True):
        assert b.operations == 3 * a.operations, a.name
        assert a.bytes <= b.bytes <= 3 * a.bytes, a.name  # weights are read once for all


# What is not planned: ids, masks, one row's intermediates, Python's own objects.
SMALL_THINGS = 70_000


def held_at_most(work):
    """Bytes of arrays that the work held at its peak, beside those that were there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def planned(folded=False, **numbers):
    load = Workload(tokens=TOKENS, folded=folded, block_rows=BLOCK_ROWS, queries_per_block=128, **numbers)
    return memory_plan.plan(CONFIG, load)


def test_encoder_memory_matches_plan():
    """In attention, or, where the feed-forward is wide, there."""
    ids = np.full((1, TOKENS), 5)
    mask = np.zeros_like(ids)
    mask[:, 0] = 1
    for config in (CONFIG, replace(CONFIG, encoder_ffn_dim=2111)):
        encoder = random_model(config).encoder
        held = held_at_most(lambda read=encoder: read(ids, global_attention_mask=mask))
        load = Workload(tokens=TOKENS, new_tokens=0, block_rows=BLOCK_ROWS, queries_per_block=128)
        assert held == pytest.approx(memory_plan.plan(config, load).encoding, rel=0.05)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(("beams", "new_tokens"), [(1, 5), (3, 23)])
@pytest.mark.parametrize("cache", planning.CACHES)
def test_decoder_memory_matches_plan(model, beams, new_tokens, folded, cache):
    states = np.random.default_rng(0).standard_normal((1, TOKENS, CONFIG.d_model), np.float32)
    read = LEDEncoderBaseModelOutput(last_hidden_state=states)

    def write():
        capacity = {"dynamic": FIRST_CAPACITY, "static": beams * new_tokens, "none": 0}[cache]
        memory = [model.led.source_memory(read, CachePlan(beams, folded, capacity))]
        step = DecodingStep(model.led, memory.pop(), None, use_cache=cache != "none")
        for i in range(new_tokens):
            step(np.full((beams, 1), 7), None if i == 0 else np.arange(beams)[::-1])

    plan = planned(folded=folded, beams=beams, new_tokens=new_tokens, cache=cache)
    assert held_at_most(write) == pytest.approx(plan.writing - plan.parts["encoder states"], rel=0.05, abs=SMALL_THINGS)


@pytest.mark.parametrize("inner", [251, 2111])
def test_training_memory_matches_plan(inner):
    """The peak is in the encoder's attention, or, where the feed-forward is wide, there."""
    config = replace(CONFIG, encoder_ffn_dim=inner, attention_window=64)
    led = random_model(config)
    ids, labels = np.full((1, TOKENS), 5), np.full((1, 79), 5)
    batch = {"input_ids": ids, "labels": labels, "global_attention_mask": np.eye(1, TOKENS, dtype=int)}
    options = GradientOptions(dropout=Dropout(DropoutRates.of(config), 0, 0, (0,)))
    add = GradientAccumulator(trained_parameters(led), led.backend).add
    held = held_at_most(lambda: accumulate_gradients(led, batch, add, options))
    plan = training_plan(config, Workload(tokens=TOKENS, new_tokens=79), "adafactor")
    assert held == pytest.approx(plan.peak - plan.parts["weights"] - plan.parts["moments of adafactor"], rel=0.08)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"tokens": 4097}, "4097 tokens are too many: the model has 4096 positions"),
        ({"tokens": 5, "new_tokens": 81}, "81 new tokens are too many: the model has 80"),
        ({"tokens": 0}, "tokens is 0; give at least 1"),
        ({"tokens": 5, "globals_": 6}, "6 global tokens among 5; give at most 5"),
        ({"tokens": 5, "cache": "offloaded"}, "cache is 'offloaded'; choose among dynamic, static, none"),
        ({"tokens": 5, "dtype": "int8"}, "dtype is 'int8'; choose among float64"),
        ({"tokens": 5, "weights": "int4"}, "weights is 'int4'; choose among float16"),
    ],
)
def test_invalid_arguments_are_refused(numbers, message):
    with pytest.raises(InputError, match=message):
        memory_plan.plan(CONFIG, Workload(**numbers))
