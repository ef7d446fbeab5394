"""`led-ref bench --against transformers`: both sides measured in turns, the same work on both. Nothing here is timed."""

import json

import pytest

from led_ref.config import LEDConfig
from led_ref.tools.bench import cases as bench_cases
from led_ref.tools.bench import transformers_side as bench_transformers
from led_ref.tools.bench.cases import CASES
from led_ref.tools.random_weights import write_random_checkpoint

pytestmark = pytest.mark.peer

TINY = LEDConfig(
    vocab_size=43,
    d_model=12,
    max_encoder_position_embeddings=16384,
    max_decoder_position_embeddings=64,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=3,
    encoder_ffn_dim=5,
    decoder_ffn_dim=7,
    attention_window=16,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tiny")
    write_random_checkpoint(made, TINY)
    return made


@pytest.fixture(autouse=True)
def _one_thread_afterwards():
    """A bench takes all threads, the other comparisons one."""
    yield
    import torch

    torch.set_num_threads(1)


def test_both_libraries_are_measured(command, folder):
    names = ["start-help", "decode-16k-4beams", "decode-16k-4beams-folded"]
    arguments = ["--model", folder, "--runs", 1, "--json", "--quiet", "--against", "transformers", "--only", *names]
    code, out, err = command("bench", *arguments)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["versions"]["transformers"].startswith("5.23")
    start, cached, folded = report["cases"]
    assert (start["transformers"], start["ratio"]) == (None, None)
    theirs, ours = cached["transformers"], cached["led_ref"]
    assert theirs["threads"] == report["blas"]["threads of led_ref"]
    assert theirs["peak_mb"] > 100  # torch is in there
    assert cached["ratio"]["time"] == ours["median_s"] / theirs["median_s"]
    assert cached["ratio"]["memory"] == ours["peak_mb"] / theirs["peak_mb"]
    assert folded["transformers"] == theirs  # it has one cross-attention, so its figures serve for both
    assert folded["ratio"]["time"] == folded["led_ref"]["median_s"] / theirs["median_s"]


@pytest.mark.parametrize("name", ["load", "tokenize-rust", "encode-1k", "generate-1k-4beams", "decode-4k-1beam"])
def test_transformers_runs_every_task(folder, monkeypatch, name):
    monkeypatch.setattr(bench_cases, "TEXT_LENGTH", 2000)
    prepared = bench_transformers.prepare(CASES[name], folder)
    assert prepared.run()["seconds"] > 0
    assert prepared.run()["seconds"] > 0
    assert prepared.taken()["peak"] > 0


def test_both_sides_do_the_same_work(folder, monkeypatch):
    """As many steps, of as many beams, on states of the same shape; and as many tokens of the same text."""
    import transformers

    from led_ref.tools.bench import led_ref_side

    counted = []
    real = bench_cases.step_seconds
    monkeypatch.setattr(bench_cases, "step_seconds", lambda ticks: counted.append(len(ticks)) or real(ticks))
    seen = []
    forward = transformers.models.led.modeling_led.LEDDecoder.forward

    def watched(self, input_ids=None, encoder_hidden_states=None, **options):
        seen.append((tuple(input_ids.shape), tuple(encoder_hidden_states.shape)))
        return forward(self, input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, **options)

    case = CASES["decode-4k-4beams"]
    led_ref_side.prepare(case, folder).run()
    prepared = bench_transformers.prepare(case, folder)
    monkeypatch.setattr(transformers.models.led.modeling_led.LEDDecoder, "forward", watched)
    prepared.run()
    assert counted == [case.new_tokens] * 2
    assert seen == [((4, 1), (4, 4096, 12))] * case.new_tokens
    facts = [side.prepare(CASES["tokenize-rust"], folder).facts for side in (led_ref_side, bench_transformers)]
    assert facts[0]["tokens"] == facts[1]["tokens"]
