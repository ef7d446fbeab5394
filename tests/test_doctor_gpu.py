"""The GPU checks (`led-ref doctor --gpu`) and measures (tests/gpu/measure.py) on the stand-in for CuPy.

Their code runs, and each check fails where something is wrong.

What a GPU says is for tests/gpu, on the day there is one.
"""

import json
import re
from functools import partial
from pathlib import Path
from unittest import mock

import measure
import numpy as np
import pytest
from build_gpu_page import report_page
from stand_in.cupy_stand_in import LEDGER, installed
from stand_in.kernel_twins import register

from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import LEDConfig
from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs.operations import Workload
from led_ref.tools.gpu import checks as gpu_checks
from led_ref.tools.gpu import report as doctor_gpu
from led_ref.tools.random_weights import random_weights
from led_ref.training.trained import in_float16, whole_weights

DOCS = Path(__file__).parent.parent / "docs"
SMALL = doctor_gpu.Size(
    LEDConfig(
        vocab_size=211,
        d_model=48,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=61,
        decoder_ffn_dim=67,
        attention_window=32,
        max_encoder_position_embeddings=600,
        max_decoder_position_embeddings=50,
    ),
    tokens=101,
    new_tokens=3,
    lengths=(47, 101),
    matrix=16,
)


@pytest.fixture(scope="module")
def backend():
    register()
    with installed():
        from led_backends.cupy_backend import CupyBackend

        return CupyBackend()  # it keeps the module; nothing else finds a GPU from here on


@pytest.fixture(scope="module")
def report(backend):
    with mock.patch.object(measure, "measure_transformers", return_value={"missing": "not asked"}):
        return measure.collect(backend, SMALL, lambda _: None)


def test_full_report_is_json(report):
    assert report["ok"], doctor_gpu.failed(report)
    assert json.loads(json.dumps(report)) == report
    assert len(report["operations"]["rows"]) == 3 * len(gpu_checks.operations())
    assert (report["waits"]["while reading"], report["waits"]["while writing"]) == (0, SMALL.new_tokens)
    assert [row["tokens"] for row in report["times"]] == 2 * list(SMALL.lengths)  # float32, then float16
    assert all(isinstance(row["encode fused ms"], float) for row in report["times"])  # SMALL's heads are 16 wide
    assert all(row["step as a graph ms"] > 0 for row in report["times"])  # a number: it was not given up
    assert 1e-4 < report["model in float16"]["encoder"] < gpu_checks.ALLOWED_MODEL["float16"] / 4
    assert all(report["speeds"][name] > 0 for name in ("memory", "to the host", "launch"))


def test_page_matches_report(report):
    page = report_page(report)
    for row in report["operations"]["rows"]:
        assert re.search(rf"^\| {re.escape(row['operation'])} \|.* {row['eps']:g} \|", page, re.MULTILINE), row
    assert "Every check passed." in page
    spoilt = {**report, "ok": False, "waits": {**report["waits"], "ok": False}}
    assert "Failed: waits." in report_page(spoilt)


def test_a_wrong_operation_is_named(backend):
    def wrong(x, *_):
        return x * np.float32(1.00001)

    with mock.patch.object(backend, "gelu", wrong):
        found = gpu_checks.check_operations(backend, ("float32",))
    assert not found["ok"]
    assert [row["operation"] for row in found["rows"] if not row["ok"]] == ["gelu"]


def test_operation_without_result_is_named(backend):
    """thinc shipped four such methods, which nothing had ever run."""
    with mock.patch.object(backend, "softmax", return_value=None):
        found = gpu_checks.check_operation(backend, "hide, softmax", "float32")
    assert not found["ok"]
    assert found["error"] == "gave object (), not float32 (3, 11, 701)"


def test_a_wrong_gradient_is_named(backend):
    make = partial(LEDForConditionalGeneration.from_state_dict, SMALL.config, random_weights(SMALL.config))
    ours, cpu = make(backend=backend), make(backend=NumpyBackend())
    half = in_float16(whole_weights(ours, ())).model
    assert gpu_checks.check_gradients(ours, cpu, SMALL.tokens)["ok"]
    assert gpu_checks.check_gradients(half, cpu, SMALL.tokens)["ok"]

    def wrong(dy, x, *_):
        return dy, dy.sum((0, 1)), dy.sum((0, 1))

    with mock.patch.object(backend, "layer_norm_backward", wrong):
        found = gpu_checks.check_gradients(ours, cpu, SMALL.tokens)
    assert (found["ok"], found["worst"] in dict(cpu.named_parameters())) == (False, True)


def test_one_more_fetch_is_noticed(backend):
    model = LEDForConditionalGeneration.from_state_dict(SMALL.config, random_weights(SMALL.config), backend=backend)
    softmax = type(backend).softmax

    def curious(scores):
        probs = softmax(backend, scores)
        backend.to_host(probs[:1])
        return probs

    with mock.patch.object(backend, "softmax", curious):
        found = gpu_checks.check_waits(model, SMALL.tokens, 2)
    assert (found["ok"], found["while reading"] > 0) == (False, True)


def test_device_memory_matches_plan(backend):
    """The stand-in knows the most bytes that were there at once; ids and masks are not planned."""
    config, tokens, new = SMALL.config, 599, 8
    model = LEDForConditionalGeneration.from_state_dict(config, random_weights(config), backend=backend)
    before, LEDGER.peak_bytes = LEDGER.held_bytes, 0
    model.generate(**gpu_checks.random_ids(config, tokens), num_beams=4, max_new_tokens=new, min_new_tokens=new)
    load = planning.on_gpu(config, Workload(tokens=tokens, beams=4, new_tokens=new))
    plan = memory_plan.plan(config, load)
    assert LEDGER.peak_bytes - before == pytest.approx(plan.peak - plan.weights, rel=0.1)


def test_plan_blocks_match_backend_blocks(backend):
    from led_backends import cupy_backend

    load = planning.on_gpu(SMALL.config, Workload(tokens=599))
    assert (load.queries_per_block, load.block_rows) == (backend.queries_per_block, cupy_backend.BLOCK_ROWS)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_exit_code_2_without_gpu(command):
    code, out, err = command("doctor", "--gpu")
    assert (code, out) == (2, "")
    assert err.startswith("led-ref: no GPU answers. ")
    assert "led-ref[cuda13]" in err


def test_missing_folder_is_reported_first(command, tmp_path):
    code, _, err = command("doctor", "--gpu", "--out", tmp_path / "nowhere" / "gpu.json")
    assert code == 1
    assert "There is no folder" in err


def test_out_and_page_belong_to_gpu(command, tmp_path):
    code, _, err = command("doctor", "--out", tmp_path / "gpu.json")
    assert (code, "add --gpu" in err) == (2, True)
    code, _, err = command("doctor", "--gpu", "--page", tmp_path / "gpu.md")  # moved to tests/gpu/measure.py
    assert (code, "unrecognized arguments: --page" in err) == (2, True)


def test_doctor_makes_the_checks_of_the_whole_report(command, backend, report, monkeypatch):
    monkeypatch.setattr(doctor_gpu, "get_backend", lambda _: backend)
    monkeypatch.setattr(doctor_gpu, "FULL", SMALL)
    code, out, _ = command("doctor", "--gpu")
    assert code == 0
    assert list(json.loads(out)) == list(report)[: -len(("speeds", "times", "transformers"))]


def test_measuring_ends_as_doctor_does(capsys, tmp_path):
    assert measure.main([]) == 2
    assert "no GPU answers" in capsys.readouterr().err
    assert measure.main(["--page", str(tmp_path / "nowhere" / "gpu.md")]) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_the_report_is_written_as_json_and_as_a_page(command, backend, report, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_gpu, "get_backend", lambda _: backend)
    monkeypatch.setattr(measure, "collect", lambda *_: report)
    files = tmp_path / "gpu.json", tmp_path / "gpu.md"
    assert measure.main(["--out", str(files[0]), "--page", str(files[1])]) == 0
    assert json.loads(files[0].read_text()) == report
    assert files[1].read_text() == report_page(report)
    monkeypatch.setattr(doctor_gpu, "check", lambda *_: {**report, "ok": False, "model": {"ok": False}})
    code, out, err = command("doctor", "--gpu")
    assert (code, json.loads(out)["ok"]) == (1, False)
    assert "the model check failed" in err
