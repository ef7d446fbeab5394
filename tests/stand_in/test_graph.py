"""A decoding step as a graph: the ids and logits of the ordinary step, one wait a step, and given up where it is not that.

The first half is the stand-in's own: it refuses what CuPy refuses while capturing, and shows what a graph does not keep alive.
"""

import gc
import logging
from typing import Any

import numpy as np
import pytest
from small_led import draw_weights, small_config
from stand_in.cupy_stand_in import counting, installed
from stand_in.graphs import RaceError
from stand_in.kernel_twins import register
from stand_in.surface import NotModelledError
from stand_in.test_model_on_stand_in import call

from led_backends.contract import CaptureError
from led_backends.cupy_backend import CupyBackend
from led_backends.notices import LEDWarning
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.generate import DecodingStep
from led_ref.classes.step_graph import StepGraph
from led_ref.model.intermediates import Recorder
from led_ref.tools.gpu.checks import check_graph


@pytest.fixture
def cp():
    with installed() as module:
        yield module


@pytest.fixture
def backend():
    register()
    with installed():
        yield CupyBackend(graphs=True)


# ---- the stand-in ----------------------------------------------------------------------------------------------------

REFUSED = {
    "a product": (NotImplementedError, "cuBLAS", lambda cp, x: x @ x),
    "a copy to the host": (RuntimeError, "D2H", lambda cp, x: x.get()),
    "a question": (RuntimeError, "D2H", lambda cp, x: bool(x.sum() > 0)),
    "a copy from the host": (RuntimeError, "H2D", lambda cp, x: cp.asarray(np.ones(3))),
    "waiting": (RuntimeError, "CaptureUnsupported", lambda cp, x: cp.cuda.get_current_stream().synchronize()),
}


@pytest.mark.parametrize(("kind", "words", "work"), REFUSED.values(), ids=REFUSED)
def test_capturing_refuses_what_cupy_refuses(cp, backend, kind, words, work):
    x = cp.ones((3, 3), "float32")
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(kind, match=words):
            work(cp, x)
        if words == "CaptureUnsupported":
            with pytest.raises(RuntimeError, match="Invalidated"):
                stream.end_capture()
        else:
            stream.end_capture()
    with pytest.raises(CaptureError, match=words):
        backend.captured(lambda: work(cp, x))
    assert not backend._stream.is_capturing()
    assert not backend._captures
    cp.asarray(np.ones(3)).get()  # all is as before


def test_default_stream_cannot_be_captured(cp):
    with pytest.raises(RuntimeError, match="default"):
        cp.cuda.get_current_stream().begin_capture()


def test_replay_computes_anew_and_capturing_computes_nothing(cp, backend):
    x, total, table = cp.asarray(np.arange(3.0)), cp.zeros(3), cp.asarray(np.arange(10.0) ** 2)
    which, calls = cp.asarray(np.array([1, 2, 3])), cp.zeros(1)

    def work():
        calls.__iadd__(1)
        y = table[which] * 2
        y -= x
        total[...] = y
        total[which[:1]] = x.sum()
        return cp.where(y > 7, y, 0).reshape(3, 1)

    replay = backend.captured(work)
    assert calls.get() == 1  # as it is, before it is captured
    for numbers, at in (([1.0, 1.0, 1.0], [1, 2, 3]), ([10.0, 0.0, 2.0], [0, 5, 4])):
        x[...] = cp.asarray(np.array(numbers))
        which[...] = cp.asarray(np.array(at))
        found = replay()
        y = np.array(at) ** 2 * 2.0 - numbers
        np.testing.assert_array_equal(found.get()[:, 0], np.where(y > 7, y, 0))
        y[at[0]] = sum(numbers)
        np.testing.assert_array_equal(total.get(), y)
    assert calls.get() == 3
    assert replay() is found


def test_memory_not_kept_alive_shows(cp, backend):
    """A graph whose memory another may have by now; the backend's keeps it."""
    x, stream = cp.ones(3), cp.cuda.Stream(non_blocking=True)
    cp.cuda.get_current_stream().synchronize()
    with stream:
        stream.begin_capture()
        found = (x + 1) * 2
        graph = stream.end_capture()
    for name, error in (("upload", NotModelledError), ("update", AttributeError)):
        with pytest.raises(error, match=name):
            getattr(graph, name)
    gc.collect()
    graph.launch()
    assert np.isnan(found.get()).all()
    assert backend.captured(lambda: (x + 1) * 2)().get().tolist() == [4, 4, 4]


def test_two_streams_without_waiting_are_a_race(cp):
    x, stream = cp.ones(3), cp.cuda.Stream(non_blocking=True)
    with stream, pytest.raises(RaceError, match="synchronize"):
        x + 1
    cp.cuda.get_current_stream().synchronize()
    with stream:
        x + 1


# ---- a search with graphs and without ----------------------------------------------------------------------------------


def model(backend: Any, dtype: str = "float32") -> LEDForConditionalGeneration:
    config = small_config(max_decoder_position_embeddings=41)
    return LEDForConditionalGeneration.from_state_dict(config, draw_weights(config), dtype=dtype, backend=backend)


@pytest.fixture
def graphs(monkeypatch):
    """The StepGraphs of a test's searches; the first has six slots, so that several are made."""
    made: list[StepGraph] = []
    real = StepGraph.__init__

    def noted(self: StepGraph, *args: Any) -> None:
        real(self, *args)
        made.append(self)

    monkeypatch.setattr(StepGraph, "__init__", noted)
    monkeypatch.setattr("led_ref.classes.step_graph.FIRST_SLOTS", 6)
    monkeypatch.setattr("led_ref.classes.generate.FIRST_CAPACITY", 2)
    return made


WANTED = {"return_dict_in_generate": True, "output_logits": True, "eos_token_id": None, "no_repeat_ngram_size": 2}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 20},
    "a prompt": {"max_new_tokens": 9, "decoder_input_ids": [[2, 4, 9], [2, 3, 3]]},
    "sampled": {"max_new_tokens": 9, "do_sample": True, "seed": 3},
    "beams": {"max_new_tokens": 20, "num_beams": 4, "num_return_sequences": 2},
    "more rows than few": {"max_new_tokens": 4, "num_beams": 9},
    "static cache": {"max_new_tokens": 9, "num_beams": 4, "cache_implementation": "static"},
}
# Of 6, 12, 24 slots and so on; a static cache has them all from the first. An id takes a slot for each row, the last one none.
CAPTURES = {"greedy": 3, "a prompt": 2, "sampled": 2, "beams": 4, "more rows than few": 2, "static cache": 1}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_graph_gives_the_ids_and_logits_of_the_ordinary_step(backend, graphs, name, dtype):
    """Documents of unequal lengths (call). Rounding in float32 moves a logit by some 1e-6 of the largest."""
    ours = model(backend, dtype).generate(**call(), **SEARCHES[name], **WANTED)
    theirs = model(CupyBackend(), dtype).generate(**call(), **SEARCHES[name], **WANTED)
    assert ours.sequences.tolist() == theirs.sequences.tolist()
    for a, b in zip(ours.logits, theirs.logits, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=(3e-5 if dtype == "float32" else 3e-2))
    (graph,) = graphs
    assert graph.captures == CAPTURES[name]


def test_one_wait_and_one_launch_a_step(backend, graphs, monkeypatch):
    monkeypatch.setattr("led_ref.classes.step_graph.FIRST_SLOTS", 256)
    writer = model(backend)
    encoded = writer.encoder(**call())
    with counting() as counts:
        writer.generate(encoder_outputs=encoded, num_beams=4, max_new_tokens=12, eos_token_id=None)
    waits, launches = counts.syncs, counts.launches
    assert waits.count("get") == 12 + 1  # the step computed both ways
    assert launches.count("graph") == 11
    assert launches[launches.index("graph") :] == ["graph"] * 11
    assert [wait for wait in waits if wait != "get"] == ["Stream.synchronize"] * 2


def test_cache_after_graphs_goes_on_without(backend, graphs):
    """What the graph wrote is the KV cache of the ordinary step."""
    writer, plain = model(backend), model(CupyBackend())
    ids = [
        led.generate(**call(), max_new_tokens=9, return_dict_in_generate=True, eos_token_id=None)
        for led in (writer, plain)
    ]
    next_ids = ids[0].sequences[:, -1:]
    logits = [
        led(
            decoder_input_ids=next_ids,
            past_key_values=out.past_key_values,
            encoder_outputs=led.encoder(**call()),
            attention_mask=call()["attention_mask"],
        ).logits.get()
        for led, out in zip((writer, plain), ids, strict=True)
    ]
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=3e-5)
    assert graphs[0].captures > 1


REASONS = {
    "folded": ({"cross_attention": "folded"}, "float32", "cuBLAS"),
    "17 beams": ({"num_beams": 17}, "float32", "cuBLAS"),
    "float64": ({}, "float64", "cuBLAS"),
}


@pytest.mark.parametrize(("settings", "dtype", "words"), REASONS.values(), ids=REASONS)
def test_what_cannot_be_captured_is_written_as_always(backend, graphs, settings, dtype, words):
    given = {"max_new_tokens": 7, "eos_token_id": None, **settings}
    with pytest.warns(LEDWarning, match=f"without a CUDA graph.*{words}") as warned:
        ids = model(backend, dtype).generate(**call(), **given)
    assert len([w for w in warned if w.category is LEDWarning]) == 1
    assert ids.tolist() == model(CupyBackend(), dtype).generate(**call(), **given).tolist()


def test_planted_difference_is_noticed_once(backend, graphs, monkeypatch, caplog):
    real = CupyBackend.captured

    def wrong(self, work):
        def off():
            logits_NV = work()
            logits_NV[1, 3] += 0.01
            return logits_NV

        return real(self, off)

    monkeypatch.setattr(CupyBackend, "captured", wrong)
    given = {"max_new_tokens": 20, "num_beams": 4, "eos_token_id": None}
    with caplog.at_level(logging.WARNING), pytest.warns(LEDWarning, match="logits differ by"):
        ids = model(backend).generate(**call(), **given)
    assert len(caplog.records) == 1
    assert graphs[0].captures == 1
    assert ids.tolist() == model(CupyBackend()).generate(**call(), **given).tolist()


def test_check_for_a_gpu(backend, graphs):
    """What tests/gpu/on_gpu.py asks of a real one."""
    captured, plain = model(backend), model(CupyBackend())
    assert check_graph(captured, plain, 17, 4)["ok"]
    assert sum(graph.captures for graph in graphs) > 2
    captured.params.decoder.layers[0].fc1.bias[0] += 50
    assert not check_graph(captured, plain, 17, 4)["ok"]
    found = check_graph(*(model(on, "float64") for on in (backend, CupyBackend())), 17, 2)
    assert found["same ids, 4 beams"]
    assert "cuBLAS" in found["given up"][0]
    assert not found["ok"]


def test_nothing_is_captured_unless_asked(backend, graphs):
    assert not CupyBackend().graphs
    assert not NumpyBackend(1).graphs
    model(CupyBackend()).generate(**call(), max_new_tokens=3)
    led = model(backend)
    led.generate(**call(), max_new_tokens=3, use_cache=False)
    led.generate(**call(), max_new_tokens=3, recorder=Recorder(lambda *_: None))
    led.generate(**call(), max_new_tokens=3, return_dict_in_generate=True, output_hidden_states=True)
    assert graphs == []
    assert DecodingStep.graph is None


def test_static_step_without_graphs_is_the_same(graphs):
    """On a CPU `captured` is the work itself: the arithmetic of the static step, alone."""
    cpu = NumpyBackend(1)
    expected = model(cpu, "float64").generate(**call(), **SEARCHES["beams"], **WANTED)
    cpu.graphs = True
    found = model(cpu, "float64").generate(**call(), **SEARCHES["beams"], **WANTED)
    assert found.sequences.tolist() == expected.sequences.tolist()
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)  # the search's are float32
    assert graphs[0].captures > 1
