"""The whole model on the strict stand-in for CuPy: the same numbers as on the CPU, and no wait but one for each word.

The suites of tests/model, tests/generation and tests/oracle run on it as well: `make test` does so (tests/stand_in/running.py).
Here is what only a device has: waits, copies before products, memory that was used before.
"""

import math
from typing import Any

import numpy as np
import pytest
from small_led import CONFIG, draw_weights, small_config
from stand_in.cupy_stand_in import counting, installed, no_sync
from stand_in.kernel_twins import register
from stand_in.running import fetched

from led_backends.cupy_plain import FLOAT16_LIMIT
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import ACTIVATIONS
from led_ref.model.dropout import Dropout, DropoutRates
from led_ref.model.intermediates import Recorder
from led_ref.training import loss_and_gradients
from led_ref.training.gradients import GradientOptions
from led_ref.weights.keys import arrays_by_key

# The same formulas, other orders of summing: float64 as in tests/model; float32 some 1e-6 of numbers of size 1 to 10, two
# layers deep on each side, half precision one rounding (5e-4) of each of some 30 stored intermediates.
CLOSE = {"float64": 1e-11, "float32": 5e-5, "float16": 5e-2}
SHOW = {"output_hidden_states": True, "output_attentions": True}
LAYERS = CONFIG.encoder_layers


def model(dtype: str, *, device: bool, **changes: Any) -> LEDForConditionalGeneration:
    """The small LED, on the stand-in or on the CPU (which computes in float64 what the device does in float16)."""
    changes.setdefault("max_encoder_position_embeddings", 1201)
    config, on = small_config(**changes), {"float16": "float64"}.get(dtype, dtype)
    weights = draw_weights(config)
    if not device:
        return LEDForConditionalGeneration.from_state_dict(config, weights, dtype=on, backend=NumpyBackend(1))
    register()
    with installed():
        return LEDForConditionalGeneration.from_state_dict(config, weights, dtype=dtype, backend="cupy")


def call(batch: int = 2, length: int = 41, globals_of_first: int = 2) -> dict[str, np.ndarray]:
    """Documents with padding in the last one and another number of global tokens in each."""
    ids = np.random.default_rng(0).integers(3, CONFIG.vocab_size, (batch, length))
    mask, marks = np.ones_like(ids), np.zeros_like(ids)
    mask[-1, length - 11 :] = 0
    marks[0, :globals_of_first] = marks[1:, 5] = 1
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks}


def flat(value: Any) -> list[np.ndarray]:
    """All arrays in an output but the cache, which every machine keeps as it likes."""
    if isinstance(value, tuple):
        return [array for entry in value for array in flat(entry)]
    return [] if value is None else [np.asarray(fetched(value))]


def outputs(output: Any) -> list[np.ndarray]:
    return flat(tuple(getattr(output, name) for name in output.__dataclass_fields__ if name != "past_key_values"))


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("globals_of_first", [0, 2, 13])  # none; folded; projected (more than a head is wide)
def test_forward_matches_cpu(dtype, globals_of_first):
    given = {**call(globals_of_first=globals_of_first), "labels": np.random.default_rng(1).integers(0, 37, (2, 7))}
    given["labels"][1, 4:] = -100
    given["decoder_attention_mask"] = np.array([[1] * 7, [1, 0, 1, 1, 1, 0, 1]])
    ours, theirs = (outputs(model(dtype, device=device)(**given, **SHOW)) for device in (True, False))
    assert len(ours) == len(theirs) >= 17
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == (dtype if a.ndim or dtype != "float16" else "float32")  # the loss has the digits of float32
        np.testing.assert_allclose(a, b, rtol=0, atol=CLOSE[dtype])  # NaN of dirty memory would be seen here


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_match_cpu(dtype, dropped):
    """With dropout too: the masks are the same bits on every machine."""
    given = {**call(globals_of_first=13), "labels": np.random.default_rng(1).integers(0, 37, (2, 7))}
    given["labels"][1, 4:] = -100
    rates = DropoutRates(0.2, 0.2, 0.2) if dropped else DropoutRates()
    options = GradientOptions(Dropout(rates, seed=1, documents=(3, 4)), 0.1)
    found = []
    for device in (True, False):
        led = model(dtype, device=device, max_encoder_position_embeddings=61)
        loss, gradients = loss_and_gradients(led, given, options)
        found.append((loss, arrays_by_key(gradients, led.config)))
    (ours, arrays), (theirs, expected) = found
    assert ours.counts == theirs.counts == (11,)
    assert abs(ours.mean - theirs.mean) < CLOSE[dtype]
    assert len(arrays) == len(expected) > 90
    for key, array in expected.items():
        assert arrays[key].dtype == dtype, key
        np.testing.assert_allclose(fetched(arrays[key]), array, rtol=0, atol=CLOSE[dtype], err_msg=key)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_each_activation_is_that_of_the_cpu(dtype, activation):
    ids = np.array([[2, 5, 7]] * 2)
    ours, theirs = (
        model(dtype, device=device, activation_function=activation)(**call(), decoder_input_ids=ids).to_numpy().logits
        for device in (True, False)
    )
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE[dtype])


@pytest.mark.parametrize("changes", [{}, {"encoder_attention_heads": 5, "attention_window": 94}], ids=["band", "wide"])
@pytest.mark.parametrize("documents", [1, 3])
def test_encoder_never_synchronizes(documents, changes):
    reader = model("float32", device=True, **changes)
    with no_sync(), counting() as counts:
        out = reader.encoder(**call(documents, 1100))
    assert counts.syncs == []
    assert {name.partition("<")[0] for name in counts.launches} == {"layer_norm", "gelu", "band_softmax", "linear_few"}
    expected = model("float32", device=False, **changes).encoder(**call(documents, 1100)).last_hidden_state
    np.testing.assert_allclose(out.last_hidden_state.get(), expected, rtol=0, atol=CLOSE["float32"])


def test_float16_states_that_overflow_are_clamped_on_the_device():
    """As torch.clamp does, which keeps NaN; a document that holds finite numbers only stays as it is."""
    reader = model("float16", device=True)
    reader.params.encoder.layers[-1].final_layer_norm.weight[0] = 65504  # times normal numbers: some become infinite
    with no_sync():
        states = reader.encoder(**call()).last_hidden_state
    assert states.dtype == np.float16
    assert abs(fetched(states)).max() == FLOAT16_LIMIT

    backend = reader.backend
    x = np.array([[1, 65000, -65500], [np.inf, 65000, -65500], [-np.inf, np.nan, 3]], np.float16)[:, None]
    clamped = backend.to_host(backend.clamp_overflow(backend.to_device(x)))
    limit = float(np.float16(65504 - 1000))
    expected = [[1, 65000, -65500], [limit, limit, -limit], [-limit, np.nan, 3]]
    np.testing.assert_array_equal(clamped, np.array(expected, np.float16)[:, None], strict=True)


@pytest.mark.parametrize(("beams", "prompt"), [(1, 1), (3, 1), (3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_synchronization_per_token_and_cpu_ids(beams, prompt, dtype):
    settings = {"num_beams": beams, "max_new_tokens": 6, "eos_token_id": None, "pad_token_id": None}
    settings["decoder_input_ids"] = np.full((2, prompt), 2)
    writer = model(dtype, device=True)
    encoded = writer.encoder(**call())
    with counting() as counts:
        ids = writer.generate(encoder_outputs=encoded, attention_mask=call()["attention_mask"], **settings)
    assert counts.syncs == ["get"] * 6
    assert ids.tolist() == model(dtype, device=False).generate(**call(), **settings).tolist()


def test_encoder_outputs_from_the_host():
    writer, settings = model("float32", device=True), {"num_beams": 2, "max_new_tokens": 4}
    mask = call()["attention_mask"]
    encoded = writer.encoder(**call())
    expected = writer.generate(encoder_outputs=encoded, attention_mask=mask, **settings)
    found = writer.generate(encoder_outputs=encoded.to_numpy(), attention_mask=mask, **settings)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("way", ["cached", "folded"])
def test_cross_attention_variants_agree(way):
    settings = {"num_beams": 3, "max_new_tokens": 6}
    found = model("float32", device=True).generate(**call(), **settings, cross_attention=way)
    assert found.tolist() == model("float32", device=False).generate(**call(), **settings).tolist()


def test_tile_products_copy_two_operands():
    """CuPy copies what is not dense for a product of more than two axes (docs/gpu.md).

    For each tile these are its queries, cut out of the document's, and the keys, which lie the other way round; the
    values are dense. They are K / Z and K / Q of the tile's scores, and stay that small as documents grow.
    """
    reader, length = model("float32", device=True), 1100
    with counting() as counts:
        reader.encoder(**call(1, length, globals_of_first=1))
    tiles = LAYERS * math.ceil(length / reader.backend.queries_per_block)
    folding = LAYERS  # the global row's own product with values, small
    assert len(counts.copies) <= 2 * tiles + folding
    scores = sum(1 for name in counts.launches if name.startswith("band_softmax"))
    assert scores == tiles + LAYERS  # and one row of the whole document in each layer


def test_trace_matches_cpu():
    heard: list[dict[str, np.ndarray]] = []
    for device in (True, False):
        found: dict[str, np.ndarray] = {}
        tap = Recorder(lambda name, value, found=found: found.update({name: np.array(fetched(value))}))
        model("float64", device=device)(**call(), decoder_input_ids=np.array([[2, 5, 7]] * 2), recorder=tap)
        heard.append(found)
    assert list(heard[0]) == list(heard[1])
    for name, value in heard[0].items():
        np.testing.assert_allclose(value, heard[1][name], rtol=0, atol=CLOSE["float64"], err_msg=name)
