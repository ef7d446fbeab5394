"""The explorer's page holds the numbers of the run, as exactly as it says, and in less than 8 MB.

What is drawn from them is looked at in a browser: tests/browser/check_explorer.py.
"""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

import led_ref
from led_ref.cli.main import main
from led_ref.errors import InputError
from led_ref.generation.beam_search import beam_search
from led_ref.generation.settings.settings import GenerationSettings
from led_ref.generation.step import Hooks
from led_ref.model import intermediates
from led_ref.pipelines.loading import global_mask
from led_ref.tools.explorer.fates import search_record
from led_ref.tools.explorer.page import FOLDER, page
from led_ref.tools.explorer.record import BUDGET, Record, Recorder, Selection, record, selection_of

ROOT = Path(__file__).parent.parent
ROUNDED = {"rtol": 2.0 ** (1 / 4096) - 1 + 1e-9, "atol": 2.0**-31.9}  # half a step of the codes; what is below is 0
# exp(q . k - lse) against the model's softmax: scores reach 100, where float32 steps by 8e-6; another order of summing.
SOFTMAXES = {"rtol": 1e-4, "atol": 1e-9}
ATTENTION = "led.encoder.layers.{}.self_attn.longformer_self_attn.{}"
SHORT = Selection(layers=(0, 1), top=7, region=151)


@pytest.fixture(scope="module")
def run():
    """The record of a page of 307 tokens, two of them global, a plan that leaves much out; and the trace of the same run."""
    led = led_ref.load()
    ids = led.encode((led_ref.bundled_model() / "led-ref.1.txt").read_text())[:307]
    mask = global_mask([0, 41], len(ids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("led_ref.tools.explorer.record.selection_of", lambda *sizes: SHORT)
        made = record(led, ids, mask, title="a page", num_beams=3)
    traced = led_ref.trace(
        led.model.generate,
        [ids],
        attention_mask=[[1] * len(ids)],
        global_attention_mask=[mask],
        num_beams=3,
        only=["led.encoder.layers.*", "beam.*"],
    )
    return made, traced


def codes(array):
    return np.where(array == 65535, 0.0, 2.0 ** (-array.astype(float) / 2048))


@pytest.mark.parametrize("layer", [0, 1])
def test_queries_keys_weights_match_trace(run, layer):
    made, traced = run
    mine = {name.split(".")[1]: array for name, array in made.arrays.items() if name.startswith(f"{layer}.")}
    theirs = {
        role: traced[ATTENTION.format(layer, role)][0] for role in ("q", "k", "probs", "global_probs", "global_q")
    }
    n, g = SHORT.region, 2
    for role in ("q", "k"):
        np.testing.assert_array_equal(mine[role], theirs[role][:, :n])
    np.testing.assert_array_equal(mine["globalQ"], theirs["global_q"])

    probs, rows = theirs["probs"], theirs["global_probs"].swapaxes(-1, -2)
    np.testing.assert_allclose(codes(mine["columns"]), probs[:, :, :g], **ROUNDED)
    np.testing.assert_allclose(codes(mine["rows"]), rows, **ROUNDED)
    i = np.arange(3, n - 64)  # those whose whole window is in the region
    for j in (i, i - 2, i + 31):
        i_, j_ = i[(j != 41) & (i != 41)], j[(j != 41) & (i != 41)]
        scores = (mine["q"][:, i_] * mine["k"][:, j_]).sum(-1)
        np.testing.assert_allclose(
            np.exp(scores - mine["lse"][:, i_]), probs[:, i_, g + 64 + (j_ - i_)[0]], **SOFTMAXES
        )
    in_column = (mine["q"][:, i_] * mine["globalK"][:, 1:2]).sum(-1)
    np.testing.assert_allclose(np.exp(in_column - mine["lse"][:, i_]), probs[:, i_, 1], **SOFTMAXES)
    in_row = mine["globalQ"] @ mine["keyGlobal"].swapaxes(-1, -2) - mine["globalLse"][:, :, None]
    np.testing.assert_allclose(np.exp(in_row), rows[:, :, :n], **SOFTMAXES)


@pytest.mark.parametrize("layer", [0, 1])
def test_kept_weights_are_window_maxima(run, layer):
    made, traced = run
    window = traced[ATTENTION.format(layer, "probs")][0][:, :, 2:]
    kept = codes(made.arrays[f"{layer}.topCodes"])
    np.testing.assert_allclose(kept, -np.sort(-window, axis=-1)[:, :, : SHORT.top], **ROUNDED)
    columns = made.arrays[f"{layer}.topOffsets"].astype(int) + 64
    np.testing.assert_allclose(kept, np.take_along_axis(window, columns, axis=-1), **ROUNDED)


def test_recorded_search_matches_run(run):
    made, traced = run
    steps = made.words["search"]["steps"]
    assert len(steps) > 3
    for number, step in enumerate(steps):
        told = {role: traced[f"beam.step.{number}.{role}"][0] for role in ("candidates.tokens", "candidates.beams")}
        assert [one["token"] for one in step["candidates"]] == told["candidates.tokens"].tolist()
        assert [one["sum"] for one in step["candidates"]] == traced[f"beam.step.{number}.candidates.scores"][0].tolist()
        logprobs = traced[f"beam.step.{number}.logprobs"][told["candidates.beams"], told["candidates.tokens"]]
        assert [one["logprob"] for one in step["candidates"]] == logprobs.tolist()
        for one in step["candidates"]:
            if one["fate"] != "impossible":
                assert one["sum"] == pytest.approx(one["before"] + one["processed"], rel=1e-6)
            if one["fate"] == "goes on":
                assert step["running"][one["becomes"]]["token"] == one["token"]
    assert steps[-1]["finished"][0]["text"] == made.words["text"]


def test_hypothesis_fates_match_next_state():
    """Random searches, in which every kind of fate happens."""
    seen = set()
    for seed in range(40):
        draw = np.random.default_rng(seed)
        settings = GenerationSettings(
            num_beams=3,
            max_length=7,
            pad_token_id=1,
            eos_token_id=2,
            early_stopping=bool(seed % 2),
            length_penalty=seed % 3,
        )
        recorder = Recorder(SHORT, np.asarray, np.array([0]), 4, (64, 64))
        logits = draw.normal(size=(8, 11, 11)).astype(np.float32) * 3
        logits[:, :, 2] += seed % 5
        if seed % 7 == 0:  # fewer ids than candidates at the first step, where only one beam counts
            logits[:, :, 4:] = -np.inf
        calls = iter(range(8))
        beam_search(
            lambda ids, parents, logits=logits, calls=calls: logits[next(calls)][ids[:, -1]],
            np.array([[0]]),
            settings,
            Hooks(record=intermediates.Recorder(recorder.keep, recorder.wants)),
        )
        told = search_record(recorder.steps, settings, lambda ids, skip=False: " ".join(map(str, ids)))
        for number, (step, state) in enumerate(zip(told["steps"], recorder.steps.values(), strict=True)):
            fates = [one["fate"] for one in step["candidates"]]
            seen |= set(fates)
            running = state["running.scores"][0]
            assert fates.count("goes on") == (running > -5e8).sum()
            for rank, one in enumerate(step["candidates"]):
                kept = (state["finished.ids"][0][:, number + 1] == one["token"]) & (
                    np.float32(one["value"] or 0) == state["finished.scores"][0]
                )
                too_low = one["stops"] and rank >= 3 and one["fate"] != "impossible"
                assert (one["fate"] == "ends too low") == too_low
                assert (one["fate"] == "finished") == (bool(kept.any()) and one["stops"] and rank < 3), (
                    seed,
                    number,
                    one,
                )
    assert seen == {"goes on", "pushed out", "impossible", "finished", "ends too low", "beaten at the end"}


@pytest.mark.parametrize(
    ("length", "heads", "width", "globals_", "layers"),
    [(16_384, 4, 32, 1, 2), (16_384, 12, 64, 1, 6), (16_384, 16, 64, 1, 12), (5, 4, 32, 0, 2), (4_001, 4, 32, 7, 2)],
)
def test_a_plan_keeps_to_its_budget(length, heads, width, globals_, layers):
    plan = selection_of(length, heads, width, globals_, layers)
    for_a_token = 4 * heads * (globals_ + plan.top)
    assert len(plan.layers) * (length * for_a_token + plan.region * heads * (3 * width + 1) * 4) <= BUDGET
    assert plan.layers[-1] == layers - 1
    assert plan.top >= 2
    assert 0 < plan.region <= length


def test_more_global_tokens_than_fit_are_refused():
    with pytest.raises(InputError, match=r"^64 global tokens of 16384 .*Name fewer .*shorter document"):
        selection_of(16_384, 4, 32, 64, 2)


def test_page_size_of_16384_tokens(run):
    words = {**run[0].words, "tokens": [" 'a-long\u00e4'"] * 16_384}
    words["search"] = {**words["search"], "steps": words["search"]["steps"][:1] * 64}
    noise = np.random.default_rng(0).integers(0, 65535, BUDGET // 2, dtype=np.uint16)
    assert 7e6 < len(page(Record(words, {"0.noise": noise})).encode()) < 8e6


def test_the_page_is_whole_and_alone(run):
    made = run[0]
    odd = Record({**made.words, "title": "</script><script>alert(1)</script>", "text": "{{ ARRAYS }}"}, made.arrays)
    html = page(odd)
    blocks = dict(re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', html, re.DOTALL))
    assert json.loads(blocks["record"]) == json.loads(json.dumps(odd.words))
    arrays = json.loads(blocks["arrays"])
    assert set(arrays) == set(made.arrays)
    for name, stored in arrays.items():
        back = np.frombuffer(base64.b64decode(stored["base64"]), dtype=stored["dtype"]).reshape(stored["shape"])
        np.testing.assert_array_equal(back, made.arrays[name])
    outside = re.findall(r"""(?:src|href)="(?!#|data:)[^"]*|url\([^)]*|https?://[^"')\s]*|@import|fetch\(""", html)
    assert set(outside) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert html.count("<script") == 3


def test_page_code_size():
    files = [path for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js"}]
    assert sum(path.stat().st_size for path in files) < 60_000
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 400 for path in files)


def test_command_writes_page_without_overwriting(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("page.txt").write_text("Pack files with tar.", encoding="utf-8")
    assert main(["explore", "page.txt", "--quiet", "--num-beams", "1", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("page.html: ")
    assert '"beams":4' in Path("page.html").read_text(encoding="utf-8")  # one beam has no branches
    assert main(["explore", "page.txt", "--quiet"]) == 1
    assert "page.html is there already" in capsys.readouterr().err
