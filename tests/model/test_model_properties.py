"""What must be true of the model whatever the numbers are, and that it equals LED by definition (oracle/dense.py)."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_led import CONFIG, draw_weights, small_config

from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.led import LEDModel
from led_ref.config import ACTIVATIONS, LEDConfig
from led_ref.errors import InputError
from led_ref.model.kv_cache import CachePlan, GrowingBuffer
from led_ref.oracle.definition import model as dense

# Two orders of summing the same float64 numbers; states and logits are of size 1 to 10.
ROUNDING = 1e-11
GLOBAL_KEYS = ("query_global", "key_global", "value_global")
SHOW = {"output_hidden_states": True, "output_attentions": True}
WEIGHTS = draw_weights(CONFIG)
PRIMES = [1, 2, 3, 5, 7, 13, 23, 41]


@functools.cache
def led(dtype: str = "float64") -> LEDForConditionalGeneration:
    return LEDForConditionalGeneration.from_state_dict(CONFIG, WEIGHTS, dtype=dtype)


def source(batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ids and a global mask with another number of marks in each row; all tokens read."""
    rng = np.random.default_rng(seed)
    return {
        "input_ids": rng.integers(2, CONFIG.vocab_size, (batch, length)),
        "global_attention_mask": (rng.random((batch, length)) < np.linspace(0, 0.5, batch)[:, None]).astype(int),
    }


def target(batch: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (batch, length))


def arrays_of(output: Any) -> dict[str, np.ndarray]:
    """All arrays of an output, the cache's too, by field and layer."""
    found: dict[str, np.ndarray] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, GrowingBuffer):
            found[name] = value.array  # what lies behind it is room
        elif isinstance(value, tuple | list):
            for i, entry in enumerate(value):
                walk(f"{name}[{i}]", entry)
        elif hasattr(value, "__dataclass_fields__"):
            for field in value.__dataclass_fields__:
                walk(f"{name}.{field}", getattr(value, field))

    walk("", output.to_numpy())
    return found


def floats_of(output: Any) -> set[str]:
    """The types of all arrays but the cache's table of entries, which are indices."""
    return {array.dtype.name for name, array in arrays_of(output).items() if not name.endswith(".slots_BWS")}


def assert_same(ours: Any, theirs: Any, tolerance: float = ROUNDING) -> None:
    a, b = arrays_of(ours), arrays_of(theirs)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance, err_msg=name)


# ---- the model is what dense.py says -------------------------------------------------------------------------------


@st.composite
def calls(draw: st.DrawFn) -> tuple[LEDConfig, dict[str, Any], int]:
    """A configuration (windows of 2 to far beyond the input), a call with everything in it, queries in a block."""
    windows = tuple(draw(st.lists(st.sampled_from([2, 4, 6, 10, 26, 94]), min_size=1, max_size=3)))
    config = small_config(attention_window=windows, encoder_layers=len(windows), decoder_layers=draw(st.integers(0, 2)))
    length, written, batch = draw(st.sampled_from(PRIMES)), draw(st.sampled_from(PRIMES[:6])), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def mask(kind: str, columns: int) -> np.ndarray:
        """`all` or `some` are 1; `right` and `left` pad; `other` draws one of these for each row."""
        rows = []
        for _ in range(batch):
            of_row = rng.choice(["all", "some", "right", "left", "none"]) if kind == "other" else kind
            keep = int(rng.integers(1, columns + 1))
            row = {"all": np.ones(columns), "none": np.zeros(columns), "some": rng.random(columns) < 0.6}.get(of_row)
            if row is None:
                row = np.arange(columns) < keep if of_row == "right" else np.arange(columns)[::-1] < keep
            rows.append(np.asarray(row, np.int64))
        return np.stack(rows)

    kinds = st.sampled_from(["all", "some", "right", "left", "other"])
    marks = draw(st.sampled_from(["none", "some", "all", "other"]))
    call: dict[str, Any] = {
        "input_ids": rng.integers(0, config.vocab_size, (batch, length)),
        "attention_mask": mask(draw(kinds), length),
        "global_attention_mask": mask(marks, length),
        "decoder_input_ids": rng.integers(0, config.vocab_size, (batch, written)),
        "decoder_attention_mask": mask(draw(kinds), written),
        "labels": rng.integers(0, config.vocab_size, (batch, written)),
    }
    if draw(st.booleans()):
        call["global_attention_mask"][rng.random((batch, length)) < 0.1] = -1
    call["labels"][0, 1:] = -100
    config = dataclasses.replace(config, activation_function=draw(st.sampled_from(ACTIVATIONS)))
    return config, call, draw(st.sampled_from([1, 2, 3, 7, 128]))


@given(calls())
def test_model_is_the_definition(drawn: tuple[LEDConfig, dict[str, Any], int]) -> None:
    config, call, queries = drawn
    weights = draw_weights(config)
    if queries > 2:  # an output table of its own
        weights["lm_head.weight"] = draw_weights(config, seed=1)["led.shared.weight"]
    model = LEDForConditionalGeneration.from_state_dict(config, weights, dtype="float64")
    with blocks_of(queries):
        ours = model(**call, **SHOW).to_numpy()
    mask = call["attention_mask"]
    encoded = dense.encode(weights, config, call["input_ids"], mask, call["global_attention_mask"])
    decoded = dense.decode(
        weights, config, call["decoder_input_ids"], encoded.hidden_states[-1], mask, call["decoder_attention_mask"]
    )
    has_global = bool((call["attention_mask"] * call["global_attention_mask"] == 1).any())
    assert (ours.encoder_global_attentions is not None) == has_global
    for name, found, expected in (
        ("encoder states", ours.encoder_hidden_states, encoded.hidden_states),
        ("encoder attentions", ours.encoder_attentions, encoded.attentions),
        ("global attentions", ours.encoder_global_attentions or (), encoded.global_attentions if has_global else ()),
        ("decoder states", ours.decoder_hidden_states, decoded.hidden_states),
        ("decoder attentions", ours.decoder_attentions, decoded.attentions),
        ("cross attentions", ours.cross_attentions, decoded.cross_attentions),
        ("logits", [ours.logits], [decoded.logits]),
        ("loss", [ours.loss], [dense.loss(decoded.logits, call["labels"])]),
    ):
        for layer, (a, b) in enumerate(zip(found, expected, strict=True)):
            np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING, err_msg=f"{name}, {layer}", strict=name != "loss")


# ---- what the result does not depend on ----------------------------------------------------------------------------


@contextlib.contextmanager
def blocks_of(queries: int) -> Iterator[None]:
    """Attention with that many queries in a block, and a feed-forward with as many rows."""
    with (
        mock.patch.object(NumpyBackend, "queries_per_block", queries),
        mock.patch("led_backends.numpy_backend.BLOCK_ROWS", queries),
    ):
        yield


def test_blocks_and_threads_invariance() -> None:
    call = {**source(2, 263), "decoder_input_ids": target(2, 7)}
    plain = led()(**call, **SHOW)  # 263 tokens are three blocks of 128, the last one short
    for threads in (1, 3):
        backend = NumpyBackend(threads=threads)
        model = LEDForConditionalGeneration.from_state_dict(CONFIG, WEIGHTS, dtype="float64", backend=backend)
        assert_same(model(**call, **SHOW), plain, tolerance=0)
        with blocks_of(61):
            assert_same(model(**call, **SHOW), plain)


def test_batch_and_padding_invariance() -> None:
    call, lengths, ids = source(3, 41), (41, 13, 23), target(3, 5)
    # What stands in the padding must not matter: other ids, and global marks among them.
    mask = (np.arange(41) < np.array(lengths)[:, None]).astype(int)
    batch = led()(**call, attention_mask=mask, decoder_input_ids=ids, **SHOW).to_numpy()
    for b, length in enumerate(lengths):
        alone = {k: v[b : b + 1, :length] for k, v in call.items()}
        single = led()(**alone, decoder_input_ids=ids[b : b + 1], **SHOW).to_numpy()
        np.testing.assert_allclose(batch.logits[b], single.logits[0], rtol=0, atol=ROUNDING)
        for a, c in zip(batch.encoder_hidden_states, single.encoder_hidden_states, strict=True):
            np.testing.assert_allclose(a[b, :length], c[0], rtol=0, atol=ROUNDING)
        for a, c in zip(batch.cross_attentions, single.cross_attentions, strict=True):
            np.testing.assert_allclose(a[b, ..., :length], c[0], rtol=0, atol=ROUNDING)
            assert not a[b, ..., length:].any()


def test_padding_mask_beats_global_mask() -> None:
    ids, holes = source(1, 23)["input_ids"], np.ones((1, 23), int)
    holes[0, [0, 5, 6, 22]] = 0
    marks = np.zeros((1, 23), int)
    marks[0, 11] = 1
    plain = led().encoder(ids, attention_mask=holes, global_attention_mask=marks, **SHOW)
    marked = np.where(holes == 0, 1, marks)
    assert_same(led().encoder(ids, attention_mask=holes, global_attention_mask=marked, **SHOW), plain, tolerance=0)
    minus_one = np.where(holes == 0, -1, marks)  # how a tokenizer pads this mask: enough by itself
    assert_same(led().encoder(ids, global_attention_mask=minus_one, **SHOW), plain, tolerance=0)


# ---- what global attention is --------------------------------------------------------------------------------------


def swapped_weights() -> dict[str, np.ndarray]:
    """The global projections where the local ones belong, and the reverse."""
    swapped = {}
    for key in WEIGHTS:
        other = key
        for part in ("query", "key", "value"):
            other = other.replace(f".{part}.", f".{part}_was_local.").replace(f".{part}_global.", f".{part}.")
            other = other.replace(f".{part}_was_local.", f".{part}_global.")
        swapped[key] = WEIGHTS[other]
    return swapped


@pytest.mark.parametrize("window", [46, 9000])
def test_all_global_tokens_is_full_attention(window: int) -> None:
    ids = source(2, 23)["input_ids"]
    everywhere = led().encoder(ids, global_attention_mask=np.ones_like(ids)).to_numpy().last_hidden_state
    wide = small_config(attention_window=window)  # R >= T: everybody sees everybody
    full = LEDForConditionalGeneration.from_state_dict(wide, swapped_weights(), dtype="float64")
    np.testing.assert_allclose(full.encoder(ids).to_numpy().last_hidden_state, everywhere, rtol=0, atol=ROUNDING)


def test_no_global_token_skips_global_attention() -> None:
    ids, other = source(2, 23)["input_ids"], draw_weights(CONFIG, seed=1)
    weights = {k: other[k] if any(part in k for part in GLOBAL_KEYS) else v for k, v in WEIGHTS.items()}
    model = LEDForConditionalGeneration.from_state_dict(CONFIG, weights, dtype="float64")
    plain = led().encoder(ids, **SHOW)
    assert_same(model.encoder(ids, **SHOW), plain, tolerance=0)
    assert_same(model.encoder(ids, global_attention_mask=np.zeros_like(ids), **SHOW), plain, tolerance=0)
    marks = np.eye(2, 23, dtype=int)
    assert not np.allclose(model.encoder(ids, global_attention_mask=marks).last_hidden_state, plain.last_hidden_state)


# ---- decoding, dtypes, entry points --------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5, 6, 7, 8), (5, 6, 8), (3,)])
def test_cached_equals_uncached_decoding(cuts: tuple[int, ...]) -> None:
    call, ids = source(2, 13), target(2, 11)
    mask = np.ones((2, 11), int)
    mask[1, [0, 4]] = 0
    encoded = led().encoder(**call)
    whole = led()(encoder_outputs=encoded, decoder_input_ids=ids, decoder_attention_mask=mask, **SHOW).to_numpy()
    past = None
    for start, stop in itertools.pairwise((0, *cuts, 11)):
        step = {
            "encoder_outputs": encoded,
            "decoder_input_ids": ids[:, start:stop],
            "decoder_attention_mask": mask[:, :stop],
            "past_key_values": past,
            "use_cache": True,
        }
        output = led()(**step, **SHOW).to_numpy()
        assert_same(led()(**step, **SHOW), output, tolerance=0)  # the cache that was handed in is as it was
        np.testing.assert_allclose(output.logits, whole.logits[:, start:stop], rtol=0, atol=ROUNDING)
        for a, b in zip(output.decoder_attentions, whole.decoder_attentions, strict=True):
            np.testing.assert_allclose(a, b[:, :, start:stop, :stop], rtol=0, atol=ROUNDING)
        past = output.past_key_values


class DtypeWatch(NumpyBackend):
    """NumPy's backend, which sees to it that no operation meets an array of floats of another dtype."""

    expected: str

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("linear", "layer_norm", "gelu", "softmax", "hide"):
            return found

        def watched(*arguments: np.ndarray) -> Any:
            result = found(*arguments)
            for array in (*arguments, result):
                assert array is None or array.dtype in (self.expected, bool), f"{name}: {array.dtype}"
            return result

        return watched


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mask_dtype", [np.int64, np.float64, bool])
def test_model_computes_in_its_dtype(dtype: str, mask_dtype: type) -> None:
    backend = DtypeWatch(threads=1)
    backend.expected = dtype
    call, ids = source(2, 13), target(2, 5)
    call["attention_mask"] = (np.arange(13) < [[13], [7]]).astype(mask_dtype)
    with_embeds = {**call, "inputs_embeds": WEIGHTS["led.shared.weight"][call["input_ids"]]}  # float64 always
    del with_embeds["input_ids"]
    for kind, inputs in itertools.product((LEDForConditionalGeneration, LEDModel), (call, with_embeds)):
        model = kind.from_state_dict(CONFIG, WEIGHTS, dtype=dtype, backend=backend)
        labels = {"labels": ids} if kind is LEDForConditionalGeneration else {}
        for output in (model(**inputs, decoder_input_ids=ids, **labels, **SHOW), model.encoder(**inputs, **SHOW)):
            assert floats_of(output) == {dtype}
        cached = model(**inputs, decoder_input_ids=ids, use_cache=True)
        assert floats_of(cached) == {dtype}


def test_float32_is_float64_rounded() -> None:
    call = {**source(2, 41), "decoder_input_ids": target(2, 7)}
    # Some 1e-7 of states and logits of size 1 to 10, two layers deep on each side.
    np.testing.assert_allclose(led("float32")(**call).logits, led()(**call).logits, rtol=0, atol=5e-5)


def test_input_variants_are_equivalent() -> None:
    """Lists or arrays; ids or their embeddings; all at once, or the encoder first; the model bare or with its head."""
    call, ids = source(2, 13), target(2, 5)
    call["attention_mask"] = (np.arange(13) < [[13], [7]]).astype(int)
    plain = led()(**call, decoder_input_ids=ids, **SHOW)
    as_lists = {k: v.tolist() for k, v in call.items()}
    assert_same(led()(**as_lists, decoder_input_ids=ids.tolist(), **SHOW), plain, tolerance=0)

    table, masks_only = WEIGHTS["led.shared.weight"], {k: v for k, v in call.items() if k != "input_ids"}
    embeds = {"inputs_embeds": table[call["input_ids"]], "decoder_inputs_embeds": table[ids]}
    assert_same(led()(**masks_only, **embeds, **SHOW), plain, tolerance=0)

    encoded = led().encoder(**call, **SHOW)
    first = led()(encoder_outputs=encoded, attention_mask=call["attention_mask"], decoder_input_ids=ids, **SHOW)
    assert_same(first, plain, tolerance=0)

    bare = LEDModel.from_state_dict(CONFIG, WEIGHTS, dtype="float64")(**call, decoder_input_ids=ids)
    np.testing.assert_array_equal(bare.last_hidden_state, plain.decoder_hidden_states[-1])

    labels = np.array([[5, 6, -100, 8, 2], [9, 2, -100, -100, -100]])
    taught = led()(**call, labels=labels)
    shifted = np.array([[2, 5, 6, 1, 8], [2, 9, 2, 1, 1]])
    np.testing.assert_array_equal(taught.logits, led()(**call, decoder_input_ids=shifted).logits)


def test_cache_can_be_reused_and_reordered() -> None:
    """Texts that go on from one past do not disturb each other, however often, and in whatever order."""
    model, ids = led(), target(4, 7)  # two documents of two texts each
    encoded = model.encoder(**source(2, 13))

    def go_on(past: Any, part: np.ndarray) -> Any:
        return model(encoder_outputs=encoded, decoder_input_ids=part, past_key_values=past)

    whole = go_on(None, ids).logits
    past = go_on(None, ids[:, :3]).past_key_values
    first, second = go_on(past, ids[:, 3:5]), go_on(past, ids[::-1][:, 3:5])
    np.testing.assert_allclose(first.logits, whole[:, 3:5], rtol=0, atol=ROUNDING)
    again = go_on(first.past_key_values, ids[:, 5:])
    np.testing.assert_allclose(again.logits, whole[:, 5:], rtol=0, atol=ROUNDING)
    parents = np.array([1, 0, 3, 3])
    mixed = np.concatenate([ids[parents, :3], ids[::-1][parents, 3:5], ids[:, 5:]], axis=1)
    found = go_on(second.past_key_values.reorder(parents), ids[:, 5:]).logits
    np.testing.assert_allclose(found, go_on(None, mixed).logits[:, 5:], rtol=0, atol=ROUNDING)
    with pytest.raises(InputError, match=r"Rows \[2, 0, 3, 3\].*same document"):
        second.past_key_values.reorder(np.array([2, 0, 3, 3]))


def test_folded_equals_cached_cross_attention() -> None:
    """The same logits without keys and values, for several texts of a document, and with padding in a document."""
    model, ids = led(), target(4, 5)
    encoded, mask = model.encoder(**source(2, 13)), (np.arange(13) < [[13], [7]]).astype(int)
    plain = model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=ids)
    cache = model.led.source_memory(encoded, CachePlan(4, folded=True))
    assert all(layer.cross_k_BHTK is None and layer.cross_v_BHTK is None for layer in cache.layers)
    for cut in (0, 3):
        past, logits = cache, []
        for part in np.split(ids, [cut] if cut else [], axis=1):
            out = model(attention_mask=mask, past_key_values=past, decoder_input_ids=part)
            past, logits = out.past_key_values, [*logits, out.logits]
        np.testing.assert_allclose(np.concatenate(logits, 1), plain.logits, rtol=0, atol=ROUNDING)


def test_generated_texts_are_batch_invariant() -> None:
    """Two texts to each of two documents, in one call and one step at a time, against one text with one document."""
    model, ids = led(), target(4, 5)
    read = source(2, 13)
    together = model(**read, decoder_input_ids=ids).to_numpy().logits
    stepwise = model(**read, decoder_input_ids=ids[:, :4])
    last = model(past_key_values=stepwise.past_key_values, decoder_input_ids=ids[:, 4:]).to_numpy().logits
    for n in range(4):
        alone = {name: rows[n // 2 : n // 2 + 1] for name, rows in read.items()}
        expected = model(**alone, decoder_input_ids=ids[n : n + 1]).to_numpy().logits[0]
        np.testing.assert_allclose(together[n], expected, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(last[n], expected[4:], rtol=0, atol=ROUNDING)
