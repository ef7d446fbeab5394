"""What a run could not have shown: where a sentence stands the mistake passes, and where none stands it is seen."""

from dataclasses import replace

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

from led_backends import cupy_plain, numpy_backend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.oracle.traces.diff import diff
from led_ref.oracle.traces.trace import Trace, trace

LAYER_ENDS = ("*layer_norm.output", "*layernorm_embedding.output", "logits")
WIDE = 2 * max(CONFIG.radii) + 1


def run(size=0.02, tokens=WIDE, only=None, dtype="float32", globals_=1, targets=3, config=CONFIG):
    """A trace of a model whose hidden numbers are drawn from weights of this standard deviation."""
    weights = {
        name: value * (size / value.std() if ".fc1" in name else 3 if "shared" in name or "embed" in name else 1)
        for name, value in draw_weights(CONFIG).items()
    }
    model = LEDForConditionalGeneration.from_state_dict(config, weights, dtype=dtype)
    ids = np.random.default_rng(3).integers(3, CONFIG.vocab_size, (1, tokens))
    marked = (np.arange(tokens) < globals_)[None].astype(int)
    return trace(model, ids, global_attention_mask=marked, decoder_input_ids=[[2, 9, 11][:targets]], only=only)


def said(found, what):
    return [sentence for sentence in found if sentence.startswith(what)]


@pytest.mark.parametrize("tokens", [CONFIG.radii[0], WIDE - 1, WIDE])
def test_short_document_cannot_see_the_window(tokens):
    found = said(run(tokens=tokens).blind_spots(), "a wrong window")
    assert [f"{tokens} tokens are fewer than 2R + 1 = {WIDE}" in sentence for sentence in found] == [True] * (
        tokens < WIDE
    )


def test_what_is_not_there_cannot_be_seen():
    assert said(run(globals_=0).blind_spots(), "the maps of global tokens")
    assert said(run(targets=1).blind_spots(), "the decoder's causal mask")
    assert not said(run().blind_spots(), "the ")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0.002, 2.0])
def test_tanh_gelu_passes_where_it_is_said_to(size, dtype):
    ours, theirs = (
        run(size, dtype=dtype, config=replace(CONFIG, activation_function=name)) for name in ("gelu", "gelu_new")
    )
    hidden = said(ours.blind_spots(), "tanh in place of erf")
    assert diff(ours, theirs).equal == bool(hidden)
    assert bool(hidden) == (size < 1 and dtype == "float32")
    assert said(diff(ours, ours).blind_spots, "tanh in place of erf") == hidden
    if hidden:
        assert diff(ours, theirs, rtol=0, atol=0).blind_spots == ()
    ends = run(size, dtype=dtype, only=LAYER_ENDS)
    assert "layer ends can hide it" in said(ends.blind_spots(), "tanh in place of erf")[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_eps_passes_where_it_is_said_to(monkeypatch, dtype):
    first = "*layernorm_embedding.*"
    ours = run(dtype=dtype, only=first)
    for backend in (numpy_backend, cupy_plain):  # whichever these tests run on
        monkeypatch.setattr(backend, "LAYER_NORM_EPS", 1e-12)
    equal = diff(ours, run(dtype=dtype, only=first)).equal
    hidden = said(ours.blind_spots(), "an eps of 1e-12 in place of 1e-05 in LayerNorms: the smallest variance is")
    assert (equal, len(hidden)) == ((True, 1) if dtype == "float32" else (False, 0))
    assert "the variances that they read are not here" in said(run(only=LAYER_ENDS).blind_spots(), "an eps")[0]


def test_relu_is_not_asked_about_gelu():
    relu = run(config=replace(CONFIG, activation_function="relu"))
    assert not said(relu.blind_spots(), "tanh")


def test_window_is_kept_in_the_file(tmp_path):
    short = run(tokens=5, only="*.fc1.output")
    short.save(tmp_path / "a.safetensors")
    again = Trace.load(tmp_path / "a.safetensors")
    assert again.radii == CONFIG.radii
    assert again.blind_spots() == short.blind_spots() != ()
    assert "cannot show    a wrong window: 5 tokens" in str(diff(dict(again), again))
