"""The sliding window in one kernel: the model's numbers with it and without, what it spares, and when it is not trusted."""

import pickle

import numpy as np
import pytest
from small_led import draw_weights, small_config
from stand_in import kernel_twins
from stand_in.cupy_stand_in import counting, installed, no_sync
from stand_in.raw_kernels import register_twin
from stand_in.test_model_on_stand_in import call, fetched

from led_backends.cupy_backend import CupyBackend
from led_backends.cupy_window import CLOSE, by_definition
from led_backends.notices import LEDWarning
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.model.masks import DocumentMask, window_blocks
from led_ref.model.sliding_window import sliding_window_attention

HEADS, WIDTH = 2, 16
CONFIG = small_config(d_model=HEADS * WIDTH, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS)
BATCH = call(batch=2, length=41)


@pytest.fixture
def device():
    kernel_twins.register()
    with installed():
        yield
    kernel_twins.register()  # in place of whatever was planted


def states(backend, dtype="float32"):
    """The encoder's last states, how often each kernel was launched, and the model."""
    weights = draw_weights(CONFIG)
    led = LEDForConditionalGeneration.from_state_dict(CONFIG, weights, dtype=dtype, backend=backend)
    with counting() as counts:
        found = np.asarray(fetched(led.encoder(**BATCH).last_hidden_state))
    launches = [name.split("<")[0] for name in counts.launches]
    return found, {name: launches.count(name) for name in ("window_attend", "band_softmax")}, led


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_same_states_in_one_launch_a_document(device, dtype):
    fused, launches, led = states(CupyBackend(fused=True), dtype)
    exact, *_ = states(NumpyBackend(1), "float64")
    np.testing.assert_allclose(fused, exact, rtol=0, atol={"float32": 5e-5, "float16": 5e-2}[dtype])
    of_globals = launches["band_softmax"]  # the rows of global tokens have a softmax of their own
    _, without, _ = states(CupyBackend(), dtype)
    assert launches["window_attend"] == CONFIG.encoder_layers * len(BATCH["input_ids"])
    assert without == {"window_attend": 0, "band_softmax": launches["window_attend"] + of_globals}
    with no_sync():  # it is compared in the first call only
        led.encoder(**BATCH)


def test_float64_and_other_widths_take_tiles(device):
    assert states(CupyBackend(fused=True), "float64")[1]["window_attend"] == 0
    backend = CupyBackend(fused=True)
    x = backend.to_device(np.ones((2, 5, 13), "float32"))
    assert backend.window_attend(x, x, x, backend.to_device(np.array([0])), np.arange(5) > 0, 2) is None


@pytest.mark.parametrize("planted", [lambda out: 1.0002 * out, lambda out: out * np.nan], ids=["a little off", "NaN"])
def test_kernel_that_differs_is_left_with_one_warning(device, planted):
    def wrong(launch, *arguments):
        kernel_twins.window_attend(launch, *arguments)
        arguments[6][...] = planted(arguments[6])

    register_twin("window_attend", wrong, strided=("q", "k", "v"))
    with pytest.warns(LEDWarning, match=r"first result in float32 is off by .* fused=True") as warned:
        found, launches, _ = states(CupyBackend(fused=True))
    assert len(warned) == 1
    assert launches["window_attend"] == 1
    np.testing.assert_array_equal(found, states(CupyBackend())[0])


def test_definition_is_what_the_tiles_compute():
    rng = np.random.default_rng(3)
    q, k, v = rng.normal(size=(3, HEADS, 97, 7))
    local_T = rng.random(97) < 0.8
    local_T[[0, 31]], globals_G, judge = False, np.array([0, 31]), NumpyBackend(1)
    for globals_ in (globals_G, globals_G[:0]):
        mask = DocumentMask(local_T, local_T, globals_)
        expected = sliding_window_attention(q, k, v, mask, window_blocks(mask, 5, judge, queries=11), judge)
        found = by_definition(q, k, v, globals_, local_T, 5, np.arange(97))
        np.testing.assert_allclose(found.swapaxes(0, 1).reshape(97, -1), expected, rtol=0, atol=1e-12)
    assert set(CLOSE) == {"f", "e"}


def test_fused_goes_with_the_backend_to_other_processes(device):
    assert pickle.loads(pickle.dumps(CupyBackend(fused=True))).fused
