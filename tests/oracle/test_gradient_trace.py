"""Traces of gradients: complete, in the order of the way back, consistent with the intermediates, and forward untouched."""

from pathlib import Path

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.errors import InputError
from led_ref.model.ops import by_heads
from led_ref.oracle.traces.diff import diff
from led_ref.oracle.traces.step_names import describe, place
from led_ref.oracle.traces.trace import Trace, trace
from led_ref.training import loss_and_gradients
from led_ref.training.gradients import GLOBAL_MAPS
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, arrays_by_key

MODEL = LEDForConditionalGeneration.from_state_dict(CONFIG, draw_weights(CONFIG), dtype="float64")
ROOT = Path(__file__).parents[2]
NO_GRADIENT = {"attention_mask", "global_attention_mask", "input_ids", "loss"}


def batch(global_tokens):
    """Two documents of up to 23 tokens, padding in both; the last label counts in neither."""
    rng = np.random.default_rng(4)
    given = {
        "input_ids": rng.integers(3, CONFIG.vocab_size, (2, 23)),
        "attention_mask": np.ones((2, 23), np.int64),
        "global_attention_mask": np.zeros((2, 23), np.int64),
        "labels": rng.integers(3, CONFIG.vocab_size, (2, 7)),
    }
    given["attention_mask"][0, 21:] = given["attention_mask"][1, 15:] = 0
    given["global_attention_mask"][0, :global_tokens] = 1
    if global_tokens:
        given["global_attention_mask"][1, 5] = 1
    given["labels"][:, 6] = given["labels"][1, 3] = -100
    return given


# Without global tokens, with few, which fold, and with as many as a head is wide.
RUNS = {count: trace(MODEL, **batch(count), gradients=True) for count in (0, 2, 11)}


@pytest.mark.parametrize("count", RUNS)
def test_every_step_and_weight_has_a_gradient(count):
    run, forward = RUNS[count], trace(MODEL, **batch(count))
    assert list(run)[: len(forward)] == list(forward)
    assert all(np.array_equal(run[name], forward[name], equal_nan=True) for name in forward)
    steps = [name for name in forward if name.rpartition(".")[2] not in NO_GRADIENT]
    unused = () if count else GLOBAL_MAPS
    weights = {
        key: None
        for key in arrays_by_key(MODEL.params, CONFIG)
        if key not in (LM_HEAD, FINAL_LOGITS_BIAS) and not any(name in key for name in unused)
    }
    back = list(run)[len(forward) :]
    assert set(back) == {f"{name}.grad" for name in (*steps, *weights)}
    assert back == sorted(back, key=place)
    assert (back[0], back[-1]) == ("logits.grad", "led.shared.weight.grad")
    assert [name for name in back if name.removesuffix(".grad") in forward] == [f"{name}.grad" for name in steps[::-1]]
    for name in steps:
        assert run[f"{name}.grad"].shape == forward[name].shape, name
        assert run.steps[f"{name}.grad"].letters == describe(name).letters
    _, gradients = loss_and_gradients(MODEL, batch(count))
    for key, array in arrays_by_key(gradients, CONFIG).items():
        if key in weights:
            array = MODEL.backend.to_host(array)  # a trace is always NumPy's
            assert np.abs(run[f"{key}.grad"] - array).max() < 1e-13 * max(1, np.abs(array).max()), key


def product(run, name):
    """The sum of an intermediate times its gradient, of each document and head."""
    value, gradient = run[name], run[f"{name}.grad"]
    assert not gradient[~np.isfinite(value)].any()  # a hidden score
    return (np.where(np.isfinite(value), value, 0) * gradient).sum(axis=(2, 3))


@pytest.mark.parametrize("count", RUNS)
def test_gradients_within_attention(count):
    """Scores are linear in q and in k, what comes out in probs and in v: so x dx is the same for both (Euler)."""
    run = RUNS[count]
    for layer in range(2):
        encoder = f"led.encoder.layers.{layer}.self_attn.longformer_self_attn"
        decoder = [f"led.decoder.layers.{layer}.{module}" for module in ("self_attn", "encoder_attn")]
        for attention in (encoder, *decoder):
            scores, probs = product(run, f"{attention}.scores"), product(run, f"{attention}.probs")
            assert np.abs(scores).min() > 1e-9
            for name, expected in (("q", scores), ("k", scores), ("v", probs)):
                assert np.allclose(product(run, f"{attention}.{name}"), expected, rtol=1e-9, atol=1e-13), (
                    attention,
                    name,
                )
            softmaxed(run, f"{attention}.probs", f"{attention}.scores", axis=-1)
        if count:
            heads = CONFIG.encoder_attention_heads
            scores, probs = product(run, f"{encoder}.global_scores"), product(run, f"{encoder}.global_probs")
            assert np.allclose(product(run, f"{encoder}.global_q"), scores, rtol=1e-9, atol=1e-13)
            for name, expected in (("key_global", scores), ("value_global", probs)):
                x, dx = (by_heads(run[f"{encoder}.{name}.output{part}"], heads) for part in ("", ".grad"))
                assert np.allclose((x * dx).sum(axis=(2, 3)), expected, rtol=1e-9, atol=1e-13), name
            softmaxed(run, f"{encoder}.global_probs", f"{encoder}.global_scores", axis=2)


def softmaxed(run, probs, scores, axis):
    p, dp, ds = run[probs], run[f"{probs}.grad"], run[f"{scores}.grad"]
    assert np.allclose(ds, p * (dp - (p * dp).sum(axis=axis, keepdims=True)), rtol=1e-9, atol=1e-15)
    assert not dp[p == 0].any()


def test_first_wrong_gradient_is_found():
    run = RUNS[2]
    wrong = dict(run)
    for name in ("led.encoder.layers.1.fc1.weight.grad", "led.encoder.layers.0.fc1.output.grad"):
        wrong[name] = run[name] * 1.001
    found = diff(run, wrong)
    assert found.first.name == "led.encoder.layers.1.fc1.weight.grad"
    assert "led.encoder.layers.1 back" in str(found)
    tiny = {name: value * 1e-12 for name, value in run.items() if name.endswith(".grad")}
    assert diff(tiny, tiny).equal
    assert not diff(tiny, {name: wrong[name] * 1e-12 for name in tiny}).equal


def test_gradient_trace_from_a_file(tmp_path):
    run = trace(MODEL, **batch(2), gradients=True, only="*.grad", layer=1)
    assert {name.split(".")[-1] for name in run} == {"grad"}
    read = Trace.load(run.save(tmp_path / "t.safetensors"))
    assert list(read) == list(run)
    assert read.steps[next(iter(read))].source.startswith("led_ref/model/ops.py:")


def test_the_source_of_a_gradient_is_a_line_that_goes_back():
    """In a backward function, or where the gradients of a layer's weights are handed on."""
    for name, step in RUNS[2].steps.items():
        if name.endswith(".grad"):
            file, _, line = step.source.partition(":")
            lines = (ROOT / file).read_text(encoding="utf-8").splitlines()[: int(line)]
            function = next(text for text in reversed(lines) if text.lstrip().startswith("def "))
            assert "backward" in function or "_hand_on" in function or "def head_gradients" in function, (
                name,
                function,
            )


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        (MODEL.generate, {"input_ids": [[5, 6]]}, "generate has no loss"),
        (MODEL.led, {"input_ids": [[5, 6]], "decoder_input_ids": [[2]]}, "LEDModel has no loss"),
        (MODEL, {"input_ids": [[5, 6]], "decoder_input_ids": [[2]]}, "no labels"),
        (MODEL, {"input_ids": [[5, 6]], "labels": [[5]], "decoder_attention_mask": [[1]]}, "no decoder_attention_mask"),
    ],
)
def test_no_gradients_without_a_loss(model, given, said):
    with pytest.raises(InputError, match=said):
        trace(model, gradients=True, **given)


def test_led_ref_trace_gradients(command, tmp_path):
    page, summary, out = tmp_path / "page.txt", tmp_path / "summary.txt", tmp_path / "t.safetensors"
    page.write_text("tar packs files.")
    summary.write_text("pack files")
    code, _, _ = command("trace", page, "--target", summary, "--gradients", "--out", out, "--only", "fc1*.grad")
    assert (code, len(Trace.load(out)) % 3) == (0, 0)
    assert command("diff", out, out)[0] == 0
    code, _, err = command("trace", page, "--gradients", "--out", tmp_path / "u.safetensors")
    assert (code, "add --target FILE" in err) == (2, True)
    code, _, err = command("trace", page, "--target", summary, "--generate", "--out", tmp_path / "u.safetensors")
    assert (code, "leave out --generate or --target" in err) == (2, True)
