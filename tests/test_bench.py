"""`led-ref bench`: that it measures what it says, on a model so small that the figures mean nothing. No test here is timed."""

import copy
import importlib.util
import json
import os
import re
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from led_backends.processors import find_threads
from led_ref.classes.led import LEDModel
from led_ref.config import LEDConfig
from led_ref.costs.operations import LED_BASE, Workload, encode_work, step_work, total
from led_ref.errors import LEDError
from led_ref.tools.bench import cases as bench_cases
from led_ref.tools.bench import led_ref_side
from led_ref.tools.bench import limits as bench_limits
from led_ref.tools.bench import machine as bench_machine
from led_ref.tools.bench import plot as bench_plot
from led_ref.tools.bench import report as bench_report
from led_ref.tools.bench import run as bench_run
from led_ref.tools.bench.cases import CASES, TIMED_STEPS, UNTIMED_STEPS
from led_ref.tools.bench.run import Worker
from led_ref.tools.random_weights import write_random_checkpoint

DOCS = Path(__file__).parent.parent / "docs"

TINY = LEDConfig(
    vocab_size=43,
    d_model=6,
    max_encoder_position_embeddings=4096,
    max_decoder_position_embeddings=64,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=3,
    encoder_ffn_dim=5,
    decoder_ffn_dim=7,
    attention_window=16,
)

SIDE = {"median_s", "least_s", "most_s", "runs_s", "peak_mb", "above_mb"}
SPEED = {"sgemm_gflop_s": 100.0, "memory_gb_s": 10.0}
# Every key of a report, by where it is.
KEYS = {
    "": {"schema", "date", "machine", "steering", "versions", "blas", "model", "runs", "against", "full_attention", "cases"},
    "case": {"case", "work", "how", "tokens", "beams", "new_tokens", "per", "led_ref", "transformers", "ratio", "limit"},
    "limit": set(SPEED) | {"operations", "bytes", "floor_s", "reached"},
    "full_attention": {"tokens", "operations", "bytes"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model."""
    made = tmp_path_factory.mktemp("tiny")
    write_random_checkpoint(made, TINY)
    return made


def report_of(sides=(), **changed):
    """A made-up report of two encode cases and a decode case; whoever is in `sides` took 4 times as long as led_ref."""
    ours = bench_report.figures([2.0, 1.0, 6.0], {"peak": 800e6, "above": 50e6}, {})
    theirs = bench_report.figures([8.0, 4.0, 24.0], {"peak": 1600e6, "above": 400e6}, {"threads": 2})
    cases = []
    for name in ("encode-1k", "encode-4k", "decode-4k-4beams"):
        case = CASES[name]
        other = theirs if sides else None
        cases.append({
            "case": name, "work": case.work, "how": case.how, "tokens": case.tokens, "beams": case.beams,
            "new_tokens": case.new_tokens, "per": "step" if case.work == "decode" else "run", "led_ref": ours,
            "transformers": other, "ratio": bench_report.ratio(ours, other),
            "limit": bench_limits.limits(case, LED_BASE, SPEED, ours["median_s"]),
        })  # fmt: skip
    return {
        "schema": 1, "date": "2001-02-03", "machine": {"processor": "abacus", "processors": 2, "system": "x"},
        "steering": {}, "versions": {"numpy": "2"}, "blas": {"blas": "fingers", "threads of led_ref": 2}, "model": "beads",
        "runs": 3, "against": "transformers" if sides else None, "cases": cases,
        "full_attention": [{"tokens": t, "operations": 10**12 * t, "bytes": 10**6 * t} for t in (1024, 4096)],
        **changed,
    }  # fmt: skip


class QuickWorker(Worker):
    """Knows the machine's speeds without measuring them, which takes half a second each time."""

    def run(self):
        return SPEED if self.who == "machine" else super().run()


# ---- the command ----------------------------------------------------------------------------------------------------


def test_every_task_is_measured_and_reported(command, folder, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr("led_ref.tools.bench.run.Worker", QuickWorker)
    names = ["start-import", "load", "tokenize-rust", "encode-1k", "decode-4k-4beams", "generate-1k-4beams"]
    code, out, err = command("bench", "--model", folder, "--runs", 2, "--json", "--only", *names)
    report = json.loads(out)
    assert (code, err.splitlines()[-1]) == (0, "led-ref: bench generate-1k-4beams ...")
    assert set(report) == KEYS[""]
    assert (report["model"], report["runs"], report["steering"]) == (folder.name, 2, {"OPENBLAS_CORETYPE": "Haswell"})
    assert [case["case"] for case in report["cases"]] == names
    assert all(set(entry) == KEYS["full_attention"] for entry in report["full_attention"])
    for case in report["cases"]:
        ours, limit = case["led_ref"], case["limit"]
        assert (set(case), set(ours), set(limit)) == (KEYS["case"], SIDE, KEYS["limit"])
        assert len(ours["runs_s"]) == 2
        assert 0 < ours["least_s"] <= ours["median_s"] <= ours["most_s"]
        assert ours["peak_mb"] > 5
        assert {name: limit[name] for name in SPEED} == SPEED
        has_floor = case["work"] in ("encode", "decode", "generate")
        assert (limit["reached"] is not None) == has_floor
        if has_floor:
            assert limit["reached"] == pytest.approx(limit["floor_s"] / ours["median_s"])
            assert limit["reached"] > 0
    assert report["cases"][2]["tokens"] > 10_000  # of the text that was tokenized


def test_table_names_blas_settings(command, folder, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    code, out, err = command("bench", "--model", folder, "--quick", "--quiet", "--only", "start-help")
    assert (code, err) == (0, "")
    assert out.startswith("case")
    assert "OPENBLAS_NUM_THREADS=1 is set on this machine" in out
    assert "medians of 1 runs" in out
    assert re.search(r"products [1-9]\d* to \d+ billion operations a second, reading memory [1-9]\d* to", out)


def test_measurement_is_validated_first(command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_run, "write_random_checkpoint", lambda *_: pytest.fail("a model was made"))
    (tmp_path / "mine.png").write_text("mine")
    figure = ModuleType("matplotlib.figure")
    figure.Figure = dict
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", figure)
    for arguments, found in (
        (["--only", "encode-3k"], "no case 'encode-3k'"),
        (["--runs", "0"], "--runs is 0; give at least 1"),
        (["--plot", tmp_path / "mine.png"], "is there already"),
        (["--plot", tmp_path / "a.xls"], "Name it .png, .svg or .pdf"),
        (["--plot", tmp_path / "none" / "a.png"], "There is no folder"),
        (["--plot", tmp_path / "a.png", "--only", "load"], "--only encode-1k encode-4k"),
        (["--model", folder, "--only", "encode-16k"], "too few for encode-16k. Choose shorter cases"),
        (["--model", folder, "--only", "generate-16k-4beams"], "4096 positions to read and 64 to write"),
    ):
        code, out, err = command("bench", "--quiet", *arguments)
        assert (code, out, found in err) == (1, "", True), err
    monkeypatch.delitem(sys.modules, "matplotlib.figure")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = command("bench", "--plot", tmp_path / "a.png")
    assert (code, "pip install 'led-ref[plot]'" in err) == (1, True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = command("bench", "--against", "transformers")
    assert (code, "torch is not installed. To compare: pip install 'led-ref[peer]'" in err) == (1, True)


def test_failed_process_is_quoted(tmp_path):
    with pytest.raises(LEDError, match=r"led_ref did not come through the case 'encode-1k'. MissingFile.*no_model"):
        Worker("led_ref", "encode-1k", tmp_path / "no_model").__enter__()


def test_killed_process_is_reported(folder):
    with Worker("led_ref", "start-help", folder) as worker:
        worker._process.kill()
        with pytest.raises(LEDError, match=r"the case 'start-help': exit code -9, 'it said nothing'. -9 most often"):
            worker.run()


# ---- what is measured -----------------------------------------------------------------------------------------------


def test_step_time_is_a_median_after_warm_up():
    # The first holds the document's keys and values; the timed ones last 1, 2, ... TIMED_STEPS seconds.
    lengths = [1000] * (UNTIMED_STEPS - 1) + list(range(1, TIMED_STEPS + 1))
    ticks = [float(tick) for tick in np.cumsum([0, *lengths])]
    assert len(ticks) == UNTIMED_STEPS + TIMED_STEPS
    assert bench_cases.step_seconds(ticks) == (TIMED_STEPS + 1) / 2


def test_memory_above_the_start():
    before = np.ones(40_000_000 // 8)
    watch = bench_machine.MemoryWatch()
    if watch.start is None:  # nobody counts it here (not Linux): then it is not reported
        assert watch.above() is None
        return
    np.ones(80_000_000 // 8)
    assert 75e6 < watch.above() < 100e6
    assert watch.peak() > watch.above() + before.nbytes


def test_quick_cases_cover_every_task():
    quick = [case for case in CASES.values() if case.is_quick]
    assert {case.work for case in quick} == {case.work for case in CASES.values()}
    assert max(case.tokens for case in quick) == 4096


# ---- floors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "radius"), [(1, 3), (7, 2), (11, 10), (11, 30), (13, 1)])
def test_band_pairs_count(tokens, radius):
    pairs = sum(abs(i - j) <= radius for i, j in product(range(tokens), repeat=2))
    assert bench_limits.band_pairs(tokens, radius) == pairs


def test_floor_is_slightly_below_the_plan():
    """costs/operations.py counts what the code does: tiles with their corners, and small arrays that pass through memory."""
    for tokens in (1024, 16384):
        planned = total(encode_work(LED_BASE, Workload(tokens=tokens))).operations
        assert 0.93 * planned < bench_limits.encode_operations(LED_BASE, tokens) < planned
        planned = total(step_work(LED_BASE, Workload(tokens=tokens, beams=4), 1)).bytes
        assert 0.93 * planned < bench_limits.step_bytes(LED_BASE, tokens) < planned


def test_step_bytes_count_each_array_once():
    d, f = TINY.d_model, TINY.decoder_ffn_dim
    assert bench_limits.step_bytes(TINY, 100) == 4 * (6 * d * d + 2 * d * f + 43 * d + 2 * 100 * d)


def test_generate_bytes_are_encoder_and_steps():
    case = CASES["generate-16k-4beams"]
    least = bench_limits.least(case, LED_BASE)
    keys_and_values = 6 * 2 * (2 * 16384 * 768 * 768)
    assert least.operations == bench_limits.encode_operations(LED_BASE, 16384) + keys_and_values
    assert least.bytes == 128 * bench_limits.step_bytes(LED_BASE, 16384)
    assert bench_limits.floor_seconds(least, sgemm_gflop_s=200.0, memory_gb_s=20.0) == pytest.approx(
        least.operations / 200e9 + least.bytes / 20e9
    )


# ---- tables and pictures --------------------------------------------------------------------------------------------


def test_training_is_three_forward_passes():
    """Of 4,096 tokens, the encoder's products are all but a fifth; the small model's sizes are other than the case's."""
    least = bench_limits.least(CASES["train-4k"], LED_BASE)
    assert 3.0 < least.operations / bench_limits.encode_operations(LED_BASE, 4096) < 3.7
    assert bench_limits.least(CASES["train-small"], LED_BASE) is None


def test_a_row_holds_both_sides_and_their_ratio():
    cells = bench_report.row(report_of({"transformers"})["cases"][2], is_compared=True)
    reached = bench_limits.step_bytes(LED_BASE, 4096) / 10e9 / 2
    assert cells == [
        "decode-4k-4beams", "2.00 s a step", "1.00 s to 6.00 s", f"{reached:.2f}", "800", "50",
        "8.00 s a step", "4.00 s to 24.0 s", "1,600", "0.25", "0.50",
    ]  # fmt: skip
    assert len(cells) == len(bench_report.columns(report_of({"transformers"})))


def test_unknown_value_is_not_a_number():
    report = report_of()
    report["cases"][0]["led_ref"] = {**report["cases"][0]["led_ref"], "above_mb": None}
    report["cases"][0]["limit"]["reached"] = None
    line = page_builder().as_markdown(report).splitlines()[2]
    assert line == "| encode-1k | 2.00 s | 1.00 s to 6.00 s | · | 800 | · |"


def test_plot_has_measured_and_counted_curves():
    curves = bench_plot.curves(report_of({"transformers"}))
    assert curves["led_ref"] == [(1024, 2.0, 50.0), (4096, 2.0, 50.0)]
    assert curves["transformers"] == [(1024, 8.0, 400.0), (4096, 8.0, 400.0)]
    assert curves["full attention at best, counted"] == [(1024, 10.24e3, 1024.0), (4096, 40.96e3, 4096.0)]


def test_plot_axes_and_completeness(tmp_path, monkeypatch):
    """matplotlib itself is not among what the tests need: a stand-in notes what is drawn."""
    drawn = []

    class Axes:
        def __getattr__(self, name):
            return lambda *given, **named: drawn.append((name, *given))

    class Figure:
        def __init__(self, *_):
            pass

        def subplots(self, *_):
            return [Axes(), Axes()]

        def savefig(self, path, **_):
            path.write_text("picture")
            if not (tmp_path / "a.svg").exists():
                return
            raise OSError("disk full")

    monkeypatch.setattr(bench_plot, "new_figure", Figure)
    bench_plot.save(report_of(), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == "picture"
    assert [call[1] for call in drawn if call[0] in ("set_xscale", "set_yscale")] == ["log"] * 4
    lines = [call[1:3] for call in drawn if call[0] == "plot"]
    lengths = [1024, 4096]
    assert lines[0] == (lengths, [2.0, 2.0])
    assert lines[1] == ([], [])  # transformers was not there
    assert lines[3] == (lengths, [50.0, 50.0])
    assert lines[5] == (lengths, [1024.0, 4096.0])
    with pytest.raises(OSError, match="disk full"):
        bench_plot.save(report_of(), tmp_path / "a.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


# ---- the page -------------------------------------------------------------------------------------------------------


def test_page_matches_measurements():
    """docs/performance.md is docs/performance.md.in with the figures of the two files of JSON, or they are not there."""
    build, words = page_builder(), (DOCS / "performance.md.in").read_text(encoding="utf-8")
    made_up_batches = {
        "date": "2001-02-04",
        "machine": {"processor": "abacus", "processors": 3},
        "rows": [{"tokens": 1000, "beams": 5, "step_ms": {"1": 70, "4": 120}}],
    }
    made_up = build.page(report_of({"transformers"}), made_up_batches, words)
    assert "| 1,000 | 5 | 70 ms | 30 ms |" in made_up
    assert "2001-02-04, 3 processors of abacus" in made_up
    assert "| decode-4k-4beams | 2.00 s a step | 1.00 s to 6.00 s |" in made_up
    assert "- 2001-02-03: abacus, 2 processors" in made_up
    assert "{{" not in made_up
    assert build.PAGE.exists() == build.DATA.exists() == build.BATCHES.exists()
    if build.PAGE.exists():
        report = json.loads(build.DATA.read_text(encoding="utf-8"))
        assert set(report) == KEYS[""]
        assert build.PAGE.read_text(encoding="utf-8") == build.page(
            report, json.loads(build.BATCHES.read_text(encoding="utf-8")), words
        )


def test_remeasured_cases_replace_old_ones():
    build, report = page_builder(), report_of({"transformers"})
    again = copy.deepcopy(report)
    again["runs"], again["cases"] = report["runs"] + 4, again["cases"][1:2]
    name, sides = again["cases"][0]["case"], again["cases"][0]["led_ref"]
    sides["runs_s"], sides["median_s"] = [5.0] * again["runs"], 5.0
    merged = build.with_cases_of(report, again)
    assert [case["case"] for case in merged["cases"]] == [case["case"] for case in report["cases"]]
    assert merged["cases"][1] == again["cases"][0]
    assert merged["cases"][0] == report["cases"][0]
    assert f"medians of {report['runs']} runs, of {again['runs']} runs: {name};" in "".join(
        bench_report.conditions(merged)
    )
    for name, value in (("date", "2001-02-09"), ("machine", {}), ("runs", report["runs"])):
        with pytest.raises(SystemExit, match="later report"):
            build.with_cases_of(report, {**again, name: value})


def page_builder():
    """docs/build_performance.py as a module."""
    spec = importlib.util.spec_from_file_location("build_performance", DOCS / "build_performance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_folded_cases_are_folded(folder, monkeypatch):
    folded = []
    memory = LEDModel.source_memory

    def watched(self, *arguments, **options):
        folded.append(arguments[1].folded)
        return memory(self, *arguments, **options)

    monkeypatch.setattr(LEDModel, "source_memory", watched)
    for name in ("decode-16k-4beams", "decode-16k-4beams-folded", "generate-16k-4beams-folded"):
        case = replace(CASES[name], tokens=64, new_tokens=UNTIMED_STEPS + TIMED_STEPS)
        folded.clear()
        led_ref_side.prepare(case, folder).run()
        assert folded[-1] == name.endswith("folded")


def test_readme_matches_measurements():
    report = json.loads((DOCS / "data" / "performance.json").read_text(encoding="utf-8"))
    cases = {case["case"]: case for case in report["cases"]}
    section = (DOCS.parent / "README.md").read_text(encoding="utf-8").partition("## How fast, how large")[2]
    section = section.partition("\n## ")[0]
    assert report["date"] in section
    assert f"medians of {report['runs']} runs" in section
    rows = [line for line in section.splitlines() if line.startswith("| ") and "_ref |" not in line]
    names = ("encode-16k", "decode-16k-4beams", "decode-4k-1beam", "generate-16k-4beams", "generate-16k-4beams-folded")
    for name, row in zip(names, rows, strict=True):
        case, cells = cases[name], [cell.strip() for cell in row.strip("|").split("|")]
        for side, cell in zip(("led_ref", "transformers"), cells[1:3], strict=True):
            time, _, memory = cell.partition(", ")
            assert time == bench_report.duration(case[side]["median_s"]), name
            assert memory in ("", f"{case[side]['peak_mb']:,.0f} MB"), name
        assert cells[3:] == [f"{case['ratio']['time']:.2f}", f"{case['ratio']['memory']:.2f}"], name


def test_threads_of_both_sides(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with bench_run._threads(3):  # and so is every process that is started here
        assert find_threads() == (3, "OMP_NUM_THREADS=3")
    assert (os.environ["MKL_NUM_THREADS"], os.environ.get("OMP_NUM_THREADS")) == ("1", None)
    with bench_run._threads(None):
        assert find_threads() == (1, "MKL_NUM_THREADS=1")
