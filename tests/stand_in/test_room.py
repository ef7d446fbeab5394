"""A run that does not fit the device is refused before it begins; one that fits is not."""

import numpy as np
import pytest
from stand_in.cupy_stand_in import installed
from stand_in.kernel_twins import register

import led_ref
from led_ref.costs.memory import plan
from led_ref.costs.operations import Workload, on_gpu
from led_ref.errors import BackendError

IDS = np.full((2, 300), 5)


@pytest.fixture
def model():
    register()
    with installed():
        import cupy

        yield led_ref.load(backend="cupy").model
        cupy.get_default_memory_pool().set_limit(0)


def leave(size):
    """So many bytes from now on."""
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.set_limit(pool.used_bytes() + size)


def test_memory_plan_precedes_encoding_and_decoding(model, monkeypatch):
    calls = []
    monkeypatch.setattr("led_ref.classes.led.encode", lambda *a, **k: calls.append(a) or 1 / 0)
    leave(100_000)
    with pytest.raises(
        BackendError, match=r"Reading 2 x 300 tokens.*bytes beside the weights, and CuPy.* left.*float16"
    ):
        model.encoder(IDS)
    with pytest.raises(BackendError, match=r"writing 7 with 3 beams needs about"):
        model.generate(IDS, num_beams=3, max_new_tokens=7)
    assert not calls
    leave(200_000_000)
    with pytest.raises(ZeroDivisionError):
        model.generate(IDS, num_beams=3, max_new_tokens=7)


def test_free_memory_for_decoding_folded_and_not(model):
    read = model.encoder(IDS)
    call = {"encoder_outputs": read, "max_new_tokens": 4, "num_beams": 2}
    written = model.generate(**call)
    loads = [Workload(300, 2, 2, 4, folded=folded) for folded in (False, True)]
    cached, folded = (plan(model.config, on_gpu(model.config, load)) for load in loads)
    assert folded.writing < 0.6 * cached.writing < 0.6 * cached.encoding
    leave(int(0.8 * cached.writing))
    with pytest.raises(BackendError, match="writing 4 with 2 beams"):
        model.generate(**call)
    assert np.array_equal(model.generate(**call, cross_attention="folded"), written)
    leave(int(1.1 * cached.writing))
    assert np.array_equal(model.generate(**call), written)
