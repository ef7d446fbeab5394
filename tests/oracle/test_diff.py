"""Diffs: where two traces part, what is said of it, and that planted bugs are found where they were planted."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

import led_ref
from led_ref.errors import InputError
from led_ref.oracle.traces.diff import compare, diff
from led_ref.oracle.traces.diff_hints import hint_at_shapes, hint_at_values
from led_ref.oracle.traces.trace import Trace

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)
ATTENTION = "led.decoder.layers.0.self_attn"


def numbers(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


# ---- one step -------------------------------------------------------------------------------------------------------


def test_errors_are_counted_and_placed():
    a = numbers(3, 5, 7)
    b = a.astype(np.float64)
    b[1, 4, 2] += 0.5
    b[2, 0, 6] -= 0.25
    found = compare("x", a, b)
    assert (found.equal, found.beyond, found.worst) == (False, 2, (1, 4, 2))
    assert found.max_error == pytest.approx(0.5)
    assert found.mean_error == pytest.approx(0.75 / 105)
    assert found.values == (float(a[1, 4, 2]), pytest.approx(float(a[1, 4, 2]) + 0.5))
    assert found.dtypes == ("float32", "float64")


def test_tolerance_is_atol_plus_rtol_b():
    a, b = np.array([1.0, 100.0]), np.array([1.1, 110.0])
    assert compare("x", a, b, rtol=0, atol=10).equal
    assert compare("x", a, b, rtol=0, atol=9.9).worst == (1,)
    assert compare("x", a, b, rtol=0.0910, atol=0).equal  # 10 <= 0.091 * 110, but not <= 0.091 * 100
    assert not compare("x", b, a, rtol=0.0910, atol=0).equal
    assert compare("x", a.astype(np.float32), a * (1 + 5e-5)).equal
    assert not compare("x", a, a * (1 + 5e-5)).equal  # by the coarser type: here both are float64
    large = np.array([3e4, 1e-3, -3e4], np.float32)  # what is left of a sum of large numbers
    assert compare("x", large, large + np.array([0, 0.1, 0], np.float32)).equal
    assert not compare("x", large[1:2], large[1:2] + np.float32(0.1)).equal


def test_values_are_compared_piece_by_piece(monkeypatch):
    monkeypatch.setattr("led_ref.oracle.traces.diff._AT_ONCE", 4)
    a = numbers(3, 7)
    b = a.copy()
    b[1, 6] += 2
    b[2, 5] += 1
    whole = compare("x", a, b)
    assert (whole.beyond, whole.worst, whole.max_error) == (2, (1, 6), pytest.approx(2))
    assert whole.mean_error == pytest.approx(3 / 21)


def test_integers_must_be_the_same():
    assert compare("x", np.array([3, 4]), np.array([3, 4], np.int32)).equal
    found = compare("x", np.array([3, 4]), np.array([3, 5]), rtol=1, atol=1)
    assert (found.equal, found.worst, found.values) == (False, (1,), (4.0, 5.0))


def test_nan_and_infinity():
    a = np.array([np.nan, 1.0, np.inf, -np.inf, 2.0])
    assert compare("x", a, a.copy()).nans == (0, 0, 1)
    assert compare("x", a, a.copy()).equal
    found = compare("x", a, np.array([np.nan, np.nan, np.inf, 5.0, 2.0]))
    assert (found.equal, found.beyond, found.max_error, found.nans) == (False, 2, math.inf, (0, 1, 1))
    assert found.mean_error == 0  # of those that are finite
    assert not compare("x", np.array([1.0]), np.array([np.inf])).equal
    assert not compare("x", np.array([np.inf]), np.array([-np.inf])).equal


def test_large_negative_score_masks_too():
    ours, theirs = np.array([0.5, -np.inf], np.float32), np.array([0.5, np.finfo(np.float32).min], np.float32)
    for name in (f"{ATTENTION}.scores", "led.encoder.layers.0.self_attn.longformer_self_attn.global_scores"):
        assert compare(name, ours, theirs).equal
        assert compare(name, theirs, ours).equal
        assert not compare(name, ours, np.array([0.5, -50], np.float32)).equal
    assert not compare("beam.step.0.scores", ours, theirs).equal


def test_an_empty_array_equals_itself():
    assert compare("x", numbers(0, 3), numbers(0, 3)).equal


# ---- two traces -----------------------------------------------------------------------------------------------------


def small_trace() -> dict[str, np.ndarray]:
    return {
        "led.encoder.embed_tokens.output": numbers(2, 5, 6),
        "led.encoder.layers.0.fc1.output": numbers(2, 5, 11),
        "led.encoder.layers.1.fc1.output": numbers(2, 5, 11),
        "logits": numbers(2, 3, 13),
    }


def test_first_difference_in_computing_order():
    a = small_trace()
    b = {name: value + (0.1 if "fc1" in name else 0) for name, value in reversed(a.items())}
    del b["logits"]
    b["extra"] = numbers(2)
    found = diff(a, b)
    assert found.first.name == "led.encoder.layers.0.fc1.output"
    assert found.equal_before == ("led.encoder.embed_tokens.output",)
    assert (found.only_in_a, found.only_in_b) == (("logits",), ("extra",))
    assert list(found.by_layer()) == ["led.encoder", "led.encoder.layers.0", "led.encoder.layers.1"]
    text = str(found)
    for shown in (
        "1 of 3 steps",
        "part at        led.encoder.layers.0.fc1.output",
        "max error 0.1,",
        "W1 x + b1",
        "B = ",
    ):
        assert shown in text
    assert "only in b       1 steps: extra" in text


def test_names_of_one_side_are_no_difference():
    a = small_trace()
    found = diff(a, {"logits": a["logits"]})
    assert (found.equal, found.first, len(found.only_in_a)) == (True, None, 3)
    assert str(found).startswith(
        "compared       1 of 4 a has, 1 of 1 b has: the names that both have\nequal          the 1 step that"
    )
    assert found.mostly_unmatched
    assert not diff(a, dict([*a.items()][:2])).mostly_unmatched  # half is not less than half
    assert not str(diff(a, a)).startswith("compared")


def test_incomparable_traces():
    with pytest.raises(
        InputError, match=r"no name in common: a has 1 names \(x\), b has 4 names .*\.\.\.\).*led-ref steps"
    ):
        diff({"x": numbers(1)}, small_trace())
    with pytest.raises(InputError, match=r"a role\. 4 of 4 names that only b has lack 'my\.' to be a's\."):
        diff({f"my.{name}": value for name, value in small_trace().items()}, small_trace())
    with pytest.raises(InputError, match=r"rtol is -1"):
        diff(small_trace(), small_trace(), rtol=-1)
    with pytest.raises(InputError, match=r"atol is nan"):
        diff(small_trace(), small_trace(), atol=math.nan)


# ---- hints ----------------------------------------------------------------------------------------------------------

X = numbers(2, 5, 7)
LETTERS = ["B", "T", "D"]


@pytest.mark.parametrize(
    ("a", "b", "hint"),
    [
        (X, X.transpose(1, 0, 2), "as a.transpose(1, 0, 2)"),
        (X, X.swapaxes(1, 2), "as a.transpose(0, 2, 1)"),
        (X, X.reshape(10, 7), "as a.reshape(10, 7)"),
        (numbers(2, 3, 5, 4), None, "as a.transpose(0, 2, 1, 3).reshape(2, 5, 12)"),  # heads side by side
        (X, np.pad(X, ((0, 0), (0, 3), (0, 0))), "differ along T (5 in a, 8 in b): padding that was not cut off?"),
        (X, X[:1], "differ along B (2 in a, 1 in b)$"),
        (X, X[:, :4] + 1, "differ along T (5 in a, 4 in b), and so do the values"),
        (X, X.swapaxes(1, 2) + 1, "the axes are in another order, and the numbers differ as well"),
        (X, numbers(3), ""),
    ],
)
def test_hints_at_shapes(a, b, hint):
    b = a.transpose(0, 2, 1, 3).reshape(2, 5, 12) if b is None else b
    found = hint_at_shapes(a, b, LETTERS) + "$"
    assert (hint in found) if hint else found == "$"


def changed(array: np.ndarray, at: object, by: float) -> np.ndarray:
    array = array.copy()
    array[at] += by
    return array


SQUARE = numbers(2, 5, 5)


@pytest.mark.parametrize(
    ("a", "b", "hint"),
    [
        (X, X / 8, "b is a times 0.125 = 1/sqrt(64)"),
        (X, -X, "b is a times -1"),
        (X, np.roll(X, 1, axis=1), "b is a, one place too late along T"),
        (X, np.roll(X, -1, axis=2), "b is a, one place too early along D"),
        (SQUARE, SQUARE.swapaxes(1, 2), "b is a.transpose(0, 2, 1)"),
        (X, X + numbers(7), "b - a is the same vector everywhere along D: a bias?"),
        (X, changed(X, (1, slice(0, 5), 3), 1), "they differ only at B = 1; they differ only at D = 3"),
        (
            np.full((3, 40), 1.0),
            changed(np.full((3, 40), 1.0), (2, slice(10, 30)), 1),
            "B = 2; they differ only at T = 10 to 29",
        ),
        (np.ones((2, 5, 7)), np.full((2, 5, 7), 1 + 3e-6), ""),  # rounding looks like nothing
        (X, numbers(2, 5, 7), ""),
    ],
)
def test_hints_at_values(a, b, hint):
    found = hint_at_values(a, b.astype(np.float32), LETTERS, 1e-4, 1e-5)
    assert (hint in found) if hint else found == ""


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """a, an equal b without metadata, and a c that is different, none of them ours."""
    a = small_trace()
    save_file(a, tmp_path / "a.safetensors")
    save_file({name: value * np.float32(1 + 1e-6) for name, value in a.items()}, tmp_path / "b.safetensors")
    c = {**a, "led.encoder.layers.1.fc1.output": np.full((2, 5, 11), np.nan, np.float32)}
    save_file(c, tmp_path / "c.safetensors")
    return [str(tmp_path / f"{x}.safetensors") for x in "abc"]


def test_led_ref_diff(command, files):
    a, b, c = files
    code, out, _ = command("diff", a, b)
    assert (code, "all 4 steps" in out) == (0, True)
    code, out, _ = command("diff", a, b, "--rtol", "0", "--atol", "0")
    assert (code, "0 of 4 steps" in out) == (1, True)
    code, out, _ = command("diff", a, c)
    assert (code, "NaN: 0 in a alone, 110 in b alone, 0 in both" in out) == (1, True)
    code, out, _ = command("diff", a, c, "--json")
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (code, found["equal"], found["first"]["name"]) == (1, False, "led.encoder.layers.1.fc1.output")
    assert found["first"]["max_error"] == "inf"
    assert found["equal_before"] == ["led.encoder.embed_tokens.output", "led.encoder.layers.0.fc1.output"]


def test_unmatched_names_are_not_equal(command, files, tmp_path):
    a, theirs = small_trace(), tmp_path / "theirs.safetensors"
    ours = files[0]
    save_file({name.removeprefix("led."): value for name, value in a.items()}, theirs)
    for one, other, lack in (
        (ours, theirs, "only b has lack 'led.' to be a's"),
        (theirs, ours, "only a has lack 'led.' to be b's"),
    ):
        code, out, err = command("diff", one, other, "--rtol", "1", "--atol", "9")
        assert (code, out.splitlines()[0]) == (2, "compared       1 of 4 that each has: the names that both have")
        for text in (out, err):
            assert f"3 of 3 names that {lack}" in text
        assert "1 of 4 steps of a and of 4 of b were compared" in err
    found = json.loads(command("diff", ours, theirs, "--json")[1])
    assert found["mostly_unmatched"] is True
    save_file({"logits": a["logits"] + 1}, theirs)
    assert command("diff", ours, theirs)[0] == 1  # a difference is one, however little was compared


def test_a_port_may_write_a_few_of_our_names(command, bundled, tmp_path):
    """As docs/traces.md says: first the ends of layers."""
    theirs = tmp_path / "theirs.safetensors"
    page_trace = led_ref.trace(bundled.model, [[0, 5, 6, 2]], decoder_input_ids=[[2]])
    ends = [name for name in page_trace if name.endswith(("layer_norm.output", "layernorm_embedding.output", "logits"))]
    page_trace.save(ours := tmp_path / "ours.safetensors")
    assert 8 < len(ends) < len(page_trace) / 4
    save_file({name: page_trace[name] for name in ends}, theirs)
    for pair in ((ours, theirs), (theirs, ours)):
        assert command("diff", *pair)[0] == 0
    inputs = [name for name in page_trace if name.endswith(("input_ids", "attention_mask"))]
    save_file({name: page_trace[name] for name in inputs}, theirs)
    code, _, err = command("diff", ours, theirs)
    assert (code, "too few to call the two equal" in err) == (2, True)


def test_exit_code_2_for_incomparable_files(command, files, tmp_path):
    a = files[0]
    (tmp_path / "torn.safetensors").write_bytes(Path(a).read_bytes()[:-5])
    save_file({"x": numbers(1)}, tmp_path / "other.safetensors")
    for b, found in (("nowhere", "no file"), ("torn", "sound"), ("other", "no name in common")):
        code, out, err = command("diff", a, tmp_path / f"{b}.safetensors")
        assert (code, out, found in err) == (2, "", True), err


def test_plot_needs_matplotlib_and_keeps_files(command, files, tmp_path, monkeypatch):
    a, _, c = files
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = command("diff", a, c, "--plot", tmp_path / "e.png")
    assert (code, "pip install 'led-ref[plot]'" in err) == (2, True)
    (tmp_path / "mine.png").write_text("mine")
    code, _, err = command("diff", a, c, "--plot", tmp_path / "mine.png")
    assert (code, "is there already" in err, (tmp_path / "mine.png").read_text()) == (2, True, "mine")


def test_plot_shows_every_step(command, files, tmp_path, monkeypatch):
    """matplotlib itself is not among what the tests need: a stand-in notes what is drawn."""
    drawn = {}

    class Axes:
        def __getattr__(self, name):
            return lambda *a, **k: drawn.setdefault(name, (a, k))

    class Figure:
        def __init__(self, **_):
            pass

        def subplots(self):
            return Axes()

        def savefig(self, path, **_):
            path.write_text("picture")

    figure = ModuleType("matplotlib.figure")
    figure.Figure = Figure
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", figure)
    a, _, c = files
    code, _, _ = command("diff", a, c, "--plot", tmp_path / "e.png")
    assert (code, (tmp_path / "e.png").read_text()) == (1, "picture")
    (_, heights), marks = drawn["scatter"]
    assert len(heights) == len(marks["color"]) == 4
    assert heights[2] > 1e2 * heights[0]
    assert drawn["set_xticks"][0] == ([0, 1, 2, 3], ["encoder", "encoder 0", "encoder 1", "logits"])
    assert not [path for path in tmp_path.iterdir() if "unfinished" in path.name]


# ---- planted bugs ---------------------------------------------------------------------------------------------------

MODEL = "led_ref/model"
LOCAL = "led.encoder.layers.0.self_attn.longformer_self_attn"
# (what, file, source, planted there instead, the step that must be found)
PLANTED = [
    ("eps", "led_backends/numpy_backend.py", "LAYER_NORM_EPS = 1e-5", "LAYER_NORM_EPS = 1e-3",
     "led.encoder.layernorm_embedding.output"),
    ("positions + 2", f"{MODEL}/ops.py", "slice(first, first + x_BTD.shape[1])",
     "slice(first + 2, first + 2 + x_BTD.shape[1])", "led.encoder.embed_positions.output"),
    ("scaled by K", f"{MODEL}/ops.py", "type(1 / math.sqrt(q_BTD.shape[-1] // heads))",
     "type(1 / (q_BTD.shape[-1] // heads))", f"{LOCAL}.q"),
    ("a narrower band", "led_backends/numpy_pieces.py", "columns.stop)) <= radius", "columns.stop)) < radius",
     f"{LOCAL}.output"),
    ("global values left out", f"{MODEL}/sliding_window.py", "v_hZK = with_globals(v_HGK[h], v_HTK[h], block, backend)",
     "v_hZK = with_globals(0 * v_HGK[h], v_HTK[h], block, backend)", f"{LOCAL}.output"),
    ("padding not zeroed", f"{MODEL}/sliding_window.py", "out_THK[backend.to_device((~mask.local_T).nonzero()[0])] = 0", "pass",
     f"{LOCAL}.output"),
    ("global queries with local weights", f"{MODEL}/global_attention.py", "(x_TD[positions_G], params.query_global",
     "(x_TD[positions_G], params.query", f"{LOCAL}.query_global.output"),
    ("global tokens see padding", f"{MODEL}/global_attention.py",
     "None if mask.unmasked_T.all() else backend.to_device(mask.unmasked_T)", "None", f"{LOCAL}.global_scores"),
    ("tanh GELU", f"{MODEL}/ops.py", "hidden_XF = activation(hidden_XF)",
     "import numpy as np; y = hidden_XF; "
     "hidden_XF = y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))) / 2",
     "led.encoder.layers.0.activation_fn.output"),
    ("the mask late by one", f"{MODEL}/decoder.py", "<= positions - new + u)",
     "<= positions - new + u + 1)", f"step.0.{ATTENTION}.scores"),
    ("cross-attention sees padding", f"{MODEL}/decoder.py", "return backend.to_device(attention_mask_BT == 1)[:, None]",
     "return None", "step.0.led.decoder.layers.0.encoder_attn.scores"),
    ("the cache's length late by one", f"{MODEL}/decoder.py", "first=cache.length)",
     "first=max(cache.length - 1, 0))", "step.1.led.decoder.embed_positions.output"),
    ("the cache not reordered", f"{MODEL}/kv_cache.py", "[document_B1, parents_BW % beams]", "",
     f"step.*.{ATTENTION}.k"),
    ("no bias on logits", f"{MODEL}/decoder.py", "params.final_logits_bias[0]", "params.final_logits_bias[0] * 0",
     "step.0.logits"),
    ("n-grams longer by one", "led_ref/generation/processors.py", "size=settings.no_repeat_ngram_size)",
     "size=settings.no_repeat_ngram_size + 1)", "beam.step.*.scores"),
    ("length penalty upside down", "led_ref/generation/beam_search.py", "np.float32(generated**settings.length_penalty)",
     "np.float32(generated**-settings.length_penalty)", "beam.step.*.finished.scores"),
]  # fmt: skip

# Runs one generation with each copy of the package, in one process: NumPy is imported once.
PROGRAM = """
import sys
import numpy as np

sys.path.append(sys.argv[1])  # small_led
for copy in sys.argv[2:]:
    for name in [name for name in sys.modules if name.split(".")[0] in ("led_ref", "led_backends", "small_led")]:
        del sys.modules[name]
    sys.path.insert(0, copy)
    import led_ref
    from small_led import CONFIG, draw_weights

    assert led_ref.__file__.startswith(copy)
    model = led_ref.LEDForConditionalGeneration.from_state_dict(CONFIG, draw_weights(CONFIG))
    mask, marks = np.ones((2, 23), int), np.zeros((2, 23), int)
    mask[1, 19:] = 0
    marks[0, :2] = marks[1, 5] = 1
    ids = np.random.default_rng(7).integers(3, 37, (2, 23))
    led_ref.trace(
        model.generate, ids, attention_mask=mask, global_attention_mask=marks, decoder_input_ids=[[2, 5, 9], [2, 7, 11]],
        num_beams=3, max_new_tokens=9, length_penalty=1.7, no_repeat_ngram_size=2,
    ).save(f"{copy}/trace.safetensors")
    sys.path.remove(copy)
"""


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """The trace of the package as it is, and one for each bug planted in a copy of it."""
    folders = []
    for name, file, source, planted, _ in [("none", f"{MODEL}/ops.py", "", "", ""), *PLANTED]:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(ROOT / "led_ref", folder / "led_ref", ignore=shutil.ignore_patterns("bundled", "__pycache__"))
        shutil.copytree(ROOT / "backends" / "led_backends", folder / "led_backends")
        text = (folder / file).read_text(encoding="utf-8")
        assert not source or text.count(source) == 1, f"{name}: {source!r} is not in {file} once; plant it anew"
        (folder / file).write_text(text.replace(source, planted) if source else text, encoding="utf-8")
        folders.append(str(folder))
    program = [sys.executable, "-c", PROGRAM, str(ROOT / "tests" / "model"), *folders]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=folders[0])
    assert done.returncode == 0, done.stderr
    return [f"{folder}/trace.safetensors" for folder in folders]


@pytest.mark.parametrize("number", range(len(PLANTED)), ids=[row[0] for row in PLANTED])
def test_mutant_is_located(command, traces, number):
    *_, expected = PLANTED[number]
    code, out, _ = command("diff", traces[0], traces[1 + number], "--json")
    found = json.loads(out)
    assert code == 1
    before, star, after = expected.partition("*")  # the step number at which it shows depends on the text
    first = found["first"]["name"]
    assert (first.startswith(before) and first.endswith(after)) if star else first == expected


def test_same_run_is_bit_equal(command, traces):
    assert command("diff", traces[0], traces[0], "--rtol", "0", "--atol", "0")[0] == 0
    assert len(Trace.load(traces[0])) > 500
