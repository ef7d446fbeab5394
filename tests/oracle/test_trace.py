"""Traces: what is told is in the table and true, tracing changes nothing, files give back what was recorded."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_led import CONFIG, draw_weights

import led_ref
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.cli.steps import all_steps
from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.oracle.traces.step_names import STEPS, fold, place
from led_ref.oracle.traces.trace import Trace, trace
from led_ref.weights.safetensors_file import read_header

ROOT = Path(__file__).parent.parent.parent
MODEL = LEDForConditionalGeneration.from_state_dict(CONFIG, draw_weights(CONFIG), dtype="float64")
SELF = "led.encoder.layers.1.self_attn.longformer_self_attn"
# The same float64 numbers by another formula; they are of size 1 to 100.
ROUNDING = 1e-11


def document(globals_of_first: int = 2) -> dict[str, np.ndarray]:
    """Two documents of up to 23 tokens, padding in one, another number of global tokens in each."""
    rng = np.random.default_rng(7)
    inputs = {
        "input_ids": rng.integers(3, CONFIG.vocab_size, (2, 23)),
        "attention_mask": np.ones((2, 23), np.int64),
        "global_attention_mask": np.zeros((2, 23), np.int64),
    }
    inputs["attention_mask"][1, 19:] = 0
    inputs["global_attention_mask"][0, :globals_of_first] = inputs["global_attention_mask"][1, 5] = 1
    return inputs


def forward(globals_of_first: int = 2) -> Trace:
    labels = np.random.default_rng(8).integers(3, CONFIG.vocab_size, (2, 7))
    mask = np.ones((2, 7), np.int64)
    mask[0, 5:] = 0
    return trace(MODEL, **document(globals_of_first), labels=labels, decoder_attention_mask=mask)


def writing(beams: int, **options: object) -> Trace:
    settings = {"num_beams": beams, "max_new_tokens": 5, "num_return_sequences": beams, "no_repeat_ngram_size": 2}
    return trace(MODEL.generate, **document(), **settings, **options)


FORWARD = forward()
RUNS = {"forward": FORWARD, "projected": forward(globals_of_first=13), "greedy": writing(1), "beams": writing(3)}
RUNS["sample"] = writing(1, do_sample=True, seed=5)


# ---- the table ------------------------------------------------------------------------------------------------------


def test_steps_match_the_table():
    steps = list(all_steps(MODEL))
    assert steps[: len(STEPS)] == list(STEPS)
    back = steps[len(STEPS) :]
    batch = {"input_ids": [[0, 5, 2]], "global_attention_mask": [[1, 0, 0]], "labels": [[5, 2]]}
    assert back == [*dict.fromkeys(fold(name) for name in trace(MODEL, **batch, gradients=True, only="*.grad"))]
    assert {"logits.grad", "led.encoder.layers.i.fc1.output.grad", "led.encoder.layers.i.fc1.weight.grad"} < {*back}
    assert {fold(name) for run in RUNS.values() for name in run} == set(STEPS)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_step_table_in_computing_order(run):
    assert sorted(run, key=place) == list(run)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_letters_name_the_axes(run):
    fixed = {"B": 2, "T": 23, "D": CONFIG.d_model, "V": CONFIG.vocab_size}
    for step in run.steps.values():
        letters = step.letters.split()
        assert len(letters) == step.value.ndim, step.name
        sizes = dict(zip(letters, step.value.shape, strict=True))
        assert {k: size for k, size in sizes.items() if k in fixed} == {k: fixed[k] for k in sizes if k in fixed}, (
            step.name
        )
        if {"H", "K"} <= sizes.keys():
            assert sizes["H"] * sizes["K"] == CONFIG.d_model, step.name
        if "S" in sizes:
            assert sizes["S"] <= 5 if "step.0.logits" in run else sizes["S"] == 7


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_the_source_is_the_line_of_the_formula(run):
    """A module's output has the line that names the module; others a line that computes, or hands an input on."""
    operations = (
        "backend.attend(",
        "backend.softmax(",
        "backend.for_each_",
        "linears(",
        "lm_logits(",
        "cross_entropy(",
        "record(",
        "recorder(",
    )
    for step in run.steps.values():
        file, line = step.source.split(":")
        text = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        *_, module, role = ("", *step.name.split("."))
        named = role in ("input", "output") and f".{module}" in text
        assert (
            named or any(operation in text for operation in operations) or "linear(" in text or "add_and_norm(" in text
        ), (
            step.name,
            step.source,
            text,
        )


# ---- what is told is true -------------------------------------------------------------------------------------------


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Rows that see nothing become zeros."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.exp(scores - np.where(np.isinf(scores), -1e300, scores).max(axis, keepdims=True))
        return np.nan_to_num(weights / weights.sum(axis, keepdims=True))


def heads(x: np.ndarray, count: int) -> np.ndarray:
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("run", ["forward", "projected"])
def test_encoder_equations_of_recorded_values(run):
    t, H = RUNS[run], CONFIG.encoder_attention_heads
    assert (len(t[f"{SELF}.global_q"][0, 0]) < 10) == (run == "forward")  # both ways of global_attention.py
    same(t[f"{SELF}.q"], heads(t[f"{SELF}.query.output"], H) / math.sqrt(10))  # told before it is overwritten
    same(t[f"{SELF}.k"], heads(t[f"{SELF}.key.output"], H))
    same(t[f"{SELF}.probs"], softmax(t[f"{SELF}.scores"]))
    same(t[f"{SELF}.global_q"][0], (heads(t[f"{SELF}.query_global.output"], H) / math.sqrt(10))[0])
    scores = heads(t[f"{SELF}.key_global.output"], H) @ t[f"{SELF}.global_q"].swapaxes(-1, -2)
    seen = np.broadcast_to(document()["attention_mask"][:, None, :, None] == 1, scores.shape).copy()
    seen[1, :, :, 1:] = False  # the second document has one global token: what is beyond it is filler
    same(t[f"{SELF}.global_scores"], np.where(seen, scores, -np.inf))
    same(t[f"{SELF}.global_probs"], softmax(np.where(seen, scores, -np.inf), axis=-2))
    rows = t[f"{SELF}.global_probs"].swapaxes(-1, -2) @ heads(t[f"{SELF}.value_global.output"], H)
    same(t[f"{SELF}.output"][0, 0], rows[0, :, 0].reshape(-1))
    same(t[f"{SELF}.output"][1, 5], rows[1, :, 0].reshape(-1))
    assert not t[f"{SELF}.output"][1, 19:].any()

    i = "led.encoder.layers.1"
    same(
        t[f"{i}.self_attn_layer_norm.input"],
        t["led.encoder.layers.0.final_layer_norm.output"] + t[f"{i}.self_attn.output.output"],
    )
    gelu = [y * (1 + math.erf(y / math.sqrt(2))) / 2 for y in t[f"{i}.fc1.output"].ravel()]
    same(t[f"{i}.activation_fn.output"].ravel(), np.array(gelu))
    same(t[f"{i}.final_layer_norm.input"], t[f"{i}.self_attn_layer_norm.output"] + t[f"{i}.fc2.output"])


def test_local_probabilities_reproduce_local_rows():
    """Column g < G is global token g; column G + R + (j - i) is key j of query i."""
    t, R = FORWARD, CONFIG.radii[1]
    probs, v, b, i = t[f"{SELF}.probs"], t[f"{SELF}.v"], 0, 11
    band = probs[b, :, i, 2:, None] * v[b, :, i - R : i + R + 1]
    row = band.sum(1) + (probs[b, :, i, :2, None] * v[b, :, :2]).sum(1)
    same(t[f"{SELF}.output"][b, i], row.reshape(-1))


@pytest.mark.parametrize("module", ["self_attn", "encoder_attn"])
def test_decoder_equations_of_recorded_values(module):
    a = f"led.decoder.layers.1.{module}"
    for t, at in ((FORWARD, ""), (RUNS["beams"], "step.3.")):
        same(t[f"{at}{a}.q"], heads(t[f"{at}{a}.q_proj.output"], 5) / math.sqrt(6))
        k, v = (t[f"{at if module == 'self_attn' else ''}{a}.{role}"] for role in "kv")
        k, v = (np.repeat(x, len(t[f"{at}{a}.q"]) // len(x), axis=0) for x in (k, v))
        scores, told = t[f"{at}{a}.q"] @ k.swapaxes(-1, -2), t[f"{at}{a}.scores"]
        same(np.where(np.isinf(told), -np.inf, scores), told)
        same(t[f"{at}{a}.probs"], softmax(told))
        attended = (t[f"{at}{a}.probs"] @ v).swapaxes(1, 2)
        same(t[f"{at}{a}.out_proj.input"], attended.reshape(t[f"{at}{a}.out_proj.input"].shape))
    assert np.isinf(FORWARD[f"{a}.scores"]).any()


def test_cache_equals_previous_steps():
    t, a = RUNS["greedy"], "led.decoder.layers.0.self_attn"
    made = [heads(t[f"step.{n}.{a}.k_proj.output"], 5) for n in range(4)]
    same(t[f"step.3.{a}.k"], np.concatenate(made, axis=2))


def test_beam_tree_leads_to_the_result():
    t = RUNS["beams"]
    steps = 1 + max(int(name.split(".")[2]) for name in t if name.startswith("beam.step"))
    for document_ in range(2):
        texts = {(0,): ((), 0.0), (1,): ((), -1e9), (2,): ((), -1e9)}
        running, finished = [texts[w,] for w in range(3)], []
        for n in range(steps):
            at = f"beam.step.{n}"
            grown = []
            for what in ("candidates", "running"):
                rows = zip(*(t[f"{at}.{what}.{x}"][document_] for x in ("beams", "tokens", "scores")), strict=True)
                grown.append([((*running[beam][0], int(token)), float(score)) for beam, token, score in rows])
            for text, score in grown[0]:
                parent = next(s for ids, s in running if ids == text[:-1])
                step_scores = t[f"{at}.scores"].reshape(2, 3, -1)[document_]
                beam = [ids for ids, _ in running].index(text[:-1])
                assert score == pytest.approx(parent + step_scores[beam, text[-1]], rel=1e-6)
            stops = t[f"{at}.candidates.stops"][document_]
            finished += [
                (score / (n + 1), text) for (text, score), stop in zip(grown[0][:3], stops, strict=False) if stop
            ]
            running = grown[1]
        best_score, best = max(finished)
        assert tuple(t["beam.sequences"][3 * document_][1 : 1 + len(best)]) == best
        assert t["beam.sequences_scores"][document_, 0] == pytest.approx(best_score, rel=1e-6)


# ---- tracing changes nothing, and costs nothing where nobody listens ------------------------------------------------


def test_traced_run_equals_untraced():
    labels = np.random.default_rng(8).integers(3, CONFIG.vocab_size, (2, 7))
    t = trace(MODEL, **document(), labels=labels, only=["logits", "loss"])
    out = MODEL(**document(), labels=labels).to_numpy()
    assert np.array_equal(t["logits"], out.logits)
    assert t["loss"] == out.loss
    found = MODEL.generate(**document(), num_beams=3, max_new_tokens=5, num_return_sequences=3, no_repeat_ngram_size=2)
    assert np.array_equal(RUNS["beams"]["beam.sequences"], found)


def test_values_are_read_only_copies():
    first, second = forward(), forward()
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)
    with pytest.raises(ValueError, match="read-only"):
        first["logits"][...] = 0
    shared = MODEL.backend.to_host(MODEL.params.shared)
    assert not any(np.shares_memory(first[name], shared) for name in first)


def test_without_a_recorder_there_are_no_hooks(monkeypatch):
    """The arithmetic names no recorder, and without one no backend is wrapped."""
    for name in ("encoder", "decoder", "attention", "sliding_window", "global_attention", "folding", "ops", "kv_cache"):
        text = (ROOT / "led_ref" / "model" / f"{name}.py").read_text(encoding="utf-8")
        assert not re.search("record|intermediates", text), name
    used = []
    for name in ("led.recording_encoder", "led.recording_decoder", "generate.recording_decoder"):
        monkeypatch.setattr(f"led_ref.classes.{name}", lambda *a: used.append(a))
    MODEL.generate(**document(), max_new_tokens=2)
    assert used == []


def test_search_without_recorder_records_nothing(monkeypatch):
    recorded = []
    monkeypatch.setattr("led_ref.classes.generate.search", lambda *a, record, **k: recorded.append(record) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        MODEL.generate(**document(), max_new_tokens=2)
    assert recorded == [None]


# ---- choosing -------------------------------------------------------------------------------------------------------


def test_only_and_layer_choose():
    whole = list(FORWARD)
    labels = [[5, 6], [7, 8]]
    for only, kept in (
        ("*.probs", [n for n in whole if n.endswith(".probs")]),
        ("encoder_attn.?", [n for n in whole if n.endswith(("encoder_attn.q", "encoder_attn.k", "encoder_attn.v"))]),
        ("fc1", [n for n in whole if "fc1" in n]),
        (["logits", "*.fc2.output"], [n for n in whole if n == "logits" or n.endswith("fc2.output")]),
    ):
        t = trace(MODEL, **document(), labels=labels, only=only)
        assert list(t) == kept
        assert len(kept) > 1
        in_layer = trace(MODEL, **document(), labels=labels, only=only, layer=1)
        assert list(in_layer) == [n for n in kept if ".layers.1." in n]


def test_trace_of_text_generation(bundled):
    t = trace(bundled, "Pack files with tar.", num_beams=2, max_new_tokens=4, global_attention=[0, 2], only="*s")
    assert bundled.tokenizer.decode(t["beam.sequences"][0], skip_special_tokens=True).strip() == bundled.generate(
        "Pack files with tar.", num_beams=2, max_new_tokens=4, global_attention=[0, 2]
    )
    assert led_ref.trace is trace


def test_untraceable_inputs(bundled):
    for other in (print, dict, 5, MODEL.state_dict):
        with pytest.raises(InputError, match=r"model is .*; it takes a model, one of its methods"):
            trace(other)
    with pytest.raises(InputError, match=r"one document.*list was given.*model.generate"):
        trace(bundled, ["a", "b"])
    with pytest.raises(
        InputError, match=r"only='attention_probs' and layer=None leave none of the \d+ steps .*led-ref steps"
    ):
        trace(MODEL.encoder, document()["input_ids"], only="attention_probs")
    with pytest.raises(InputError, match=r"layer=2 leave none"):
        trace(MODEL.encoder, document()["input_ids"], layer=2)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_the_trace(tmp_path):
    for name, run in RUNS.items():
        path = run.save(tmp_path / f"{name}.safetensors")
        read = Trace.load(path)
        assert list(read) == list(run)
        for step, found in zip(run.steps.values(), read.steps.values(), strict=True):
            assert (found.name, found.equation, found.letters, found.source) == (
                step.name, step.equation, step.letters, step.source,
            )  # fmt: skip
            assert found.value.dtype == step.value.dtype
            assert np.array_equal(found.value, step.value, equal_nan=True)
    metadata = read_header(path).metadata
    assert [step["name"] for step in json.loads(metadata["steps"])] == list(run)


def test_foreign_traces_in_computing_order(tmp_path):
    mixed = [
        "logits",
        "unknown",
        "led.encoder.layers.10.fc1.output",
        "led.encoder.layers.9.fc2.output",
        "step.0.logits",
    ]
    save_file({name: np.arange(3, dtype=np.float16) for name in mixed}, tmp_path / "theirs.safetensors")
    read = Trace.load(tmp_path / "theirs.safetensors")
    assert list(read) == [mixed[3], mixed[2], mixed[0], mixed[4], mixed[1]]
    assert read.steps["logits"].equation == STEPS["logits"].equation
    assert read["logits"].dtype == np.float32


def test_no_overwriting_by_default(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"t.safetensors is there already.*--overwrite"):
        FORWARD.save(path)
    assert path.read_text() == "mine"
    FORWARD.save(path, overwrite=True)
    assert len(Trace.load(path)) == len(FORWARD)
    with pytest.raises(MissingFileError, match="no folder"):
        FORWARD.save(tmp_path / "nowhere" / "t.safetensors")
    assert [found.name for found in tmp_path.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"led_ref.trace": "9", "steps": "[]"}, r"version '9'.*version 1"),
        ({"led_ref.trace": "1"}, "does not list"),
        ({"led_ref.trace": "1", "steps": "[["}, "does not list"),
        ({"led_ref.trace": "1", "steps": "{}"}, "does not list"),
        ({"led_ref.trace": "1", "steps": '[{"name": "other", "equation": "", "letters": "", "source": ""}]'}, "does not list"),
        ({"led_ref.trace": "1", "steps": '[{"name": "logits", "equation": 3, "letters": "", "source": ""}]'}, "does not list"),
    ],
)  # fmt: skip
def test_invalid_trace_files(tmp_path, metadata, found):
    save_file({"logits": np.zeros(3, np.float32)}, tmp_path / "t.safetensors", metadata)
    with pytest.raises(CheckpointError, match=found):
        Trace.load(tmp_path / "t.safetensors")


# ---- the command line -----------------------------------------------------------------------------------------------


def test_led_ref_trace(command, tmp_path, manual_page):
    page, out = tmp_path / "page.txt", tmp_path / "t.safetensors"
    page.write_text(manual_page[:200])
    code, printed, _ = command(
        "trace", page, "--out", out, "--only", "*.probs", "--only", "logits", "--dtype", "float64"
    )
    t = Trace.load(out)
    assert (code, len(t), t["logits"].dtype, t["logits"].shape[1]) == (0, 8, np.float64, 1)
    assert printed.startswith(f"{out}: 8 steps of ")
    code, _, err = command("trace", page, "--out", out)
    assert (code, "is there already" in err) == (1, True)
    code, printed, _ = command(
        "trace", page, "--out", out, "--overwrite", "--generate", "--num-beams", 2, "--max-new-tokens", 3, "--json"
    )
    t = Trace.load(out)
    assert (code, json.loads(printed)["steps"], t["beam.step.2.running.tokens"].shape) == (0, len(t), (1, 2))
    code, _, err = command("trace", page, "--out", tmp_path / "u.safetensors", "--num-beams", 2)
    assert (code, "add --generate" in err) == (2, True)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["page.txt", "t.safetensors"]


def test_led_ref_steps(command):
    code, printed, _ = command("steps", "--json")
    steps = json.loads(printed)["steps"]
    assert (code, [step["name"] for step in steps]) == (0, list(all_steps(MODEL)))
    assert all(step["equation"] and step["source"] for step in steps)
    code, printed, _ = command("steps")
    assert (code, len(printed.splitlines())) == (0, len(steps))
