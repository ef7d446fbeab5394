"""`led-ref vectors`: programs of every kind that are asked, reports, and what is said of wrong usage."""

import json
import re
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from led_backends.numpy_backend import NumpyBackend
from led_ref.oracle.vectors.judge import FAILED, PASSED, SKIPPED
from led_ref.oracle.vectors.mistakes import RIGHT, TABLE, likely_mistakes

HERE = Path(__file__).parent
FOLDER = HERE.parent / "vectors" / "v1"
PROGRAM = [sys.executable, str(HERE / "vectors_programs.py"), "{in}", "{out}"]


def check_program(command, *words, more=()):
    line = shlex.join([*PROGRAM, *words])
    code, out, _ = command("vectors", "check", FOLDER, "--level", "L1", "L5", "--cmd", line, "--json", *more)
    report = json.loads(out)
    return code, {case["id"]: case for case in report["cases"]}, report


def test_program_capabilities(command):
    code, cases, report = check_program(command)
    assert code == 0
    passed = {name for name, case in cases.items() if case["status"] == PASSED}
    assert passed == {
        "L1-linear-rows",
        "L1-linear-batch",
        "L1-linear-one",
        "L1-shift-2-1",
        "L1-shift-0-3",
        "L5-refused-no-beams",
    }
    assert {case["status"] for case in cases.values()} == {PASSED, SKIPPED}
    assert cases["L1-gelu-far"]["reason"] == "cannot gelu"
    assert report["levels"]["L1"] == {"passed": 5, "failed": 0, "skipped": 14}


@pytest.mark.parametrize(
    ("what", "reason"),
    [("crash", "code 1.*no such luck"), ("hang", r"did not end within 1\.5 s"), ("nonsense", "cannot be read")],
)
def test_bad_program_fails_one_case_only(command, what, reason):
    code, cases, _ = check_program(command, what, "L1-linear-batch", more=("--timeout", "1.5"))
    assert code == 1
    assert [name for name, case in cases.items() if case["status"] == FAILED] == ["L1-linear-batch"]
    assert re.search(reason, cases["L1-linear-batch"]["reason"])
    assert cases["L1-shift-2-1"]["status"] == PASSED


def test_hanging_program_times_out(command, tmp_path):
    marks = tmp_path / "calls"
    program = f"import sys; open({str(marks)!r}, 'a').write('x'); sys.exit(3)"
    line = shlex.join([sys.executable, "-c", program, "{in}", "{out}"])
    code, out, err = command("vectors", "check", FOLDER, "--level", "L2", "--cmd", line)
    assert code == 1
    assert "L2-window-plain and 31 more: the program ended with code 3" in out
    assert "32 of 32 cases failed" in err
    assert marks.read_text() == "xxx"


def test_led_ref_is_such_a_program(command, tmp_path):
    line = shlex.join([sys.executable, "-m", "led_ref.cli.main", "vectors", "answer", "--in", "{in}", "--out", "{out}"])
    junit = tmp_path / "vectors.xml"
    code, out, _ = command(
        "vectors", "check", FOLDER, "--dtype", "float32", "--cmd", line, "--level", "L0", "L1", "L6", "--junit", junit
    )
    assert code == 0
    assert [row.split()[0] for row in out.splitlines()] == ["L0", "L1", "L6"]
    suites = ElementTree.parse(junit).getroot()
    assert [(s.get("name"), s.get("failures")) for s in suites] == [
        ("L0 tokenizer", "0"),
        ("L1 operations", "0"),
        ("L6 the bundled model", "0"),
    ]


def test_failures_are_shown_with_their_flags(command, tmp_path):
    """In words, as JSON and as JUnit, whose text may hold no control characters."""
    program = "import sys; sys.stdout.write('\\x1b[31mno\\x00'); sys.exit(1)"
    line, junit = shlex.join([sys.executable, "-c", program, "{in}", "{out}"]), tmp_path / "vectors.xml"
    code, out, _ = command("vectors", "check", FOLDER, "--level", "L1", "--cmd", line, "--junit", junit)
    assert code == 1
    assert "flags of those that failed: all_masked_row, eps_counts, ignored_labels, large_values, padding" in out
    failures = ElementTree.parse(junit).getroot().findall(".//failure")
    assert len(failures) == 19
    assert "flags: eps_counts" in (failures[5].text or "")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_mistake_with_just_these_failures_is_named(command, monkeypatch, dtype):
    monkeypatch.setattr(NumpyBackend, "gelu", NumpyBackend.gelu_new)
    code, out, _ = command("vectors", "check", FOLDER, "--dtype", dtype)
    assert code == 1
    assert "likely mistake: just these cases fail with this one in led_ref:" in out
    assert "    GELU is the approximation with tanh. (tanh-gelu)" in out


def test_near_mistakes_and_none():
    table = json.loads(TABLE.read_text("utf-8"))
    (row,) = [mistake["row"] for mistake in table["mistakes"] if mistake["name"] == "pre-norm"]
    failed = {case: letter != RIGHT for case, letter in zip(table["cases"], row, strict=True)}
    assert [found.name for found in likely_mistakes(failed, "float64").found] == ["pre-norm"]
    also = next(case for case, is_failed in failed.items() if not is_failed)
    near = likely_mistakes({**failed, also: True}, "float64")
    assert (near.exact, near.found[0].name) == (False, "pre-norm")
    assert "nearly these cases fail with" in next(near.lines())
    assert likely_mistakes(dict.fromkeys(failed, True), "float64").found == ()
    assert likely_mistakes(dict.fromkeys(failed, False), "float64").found == ()


def test_a_coarse_type_hides_small_mistakes():
    """What fails in float64 alone is expected to pass in float32."""
    table = json.loads(TABLE.read_text("utf-8"))
    (row,) = [mistake["row"] for mistake in table["mistakes"] if mistake["name"] == "eps-outside-the-root"]
    failed = {case: letter in "shb" for case, letter in zip(table["cases"], row, strict=True)}
    assert 0 < sum(failed.values()) < len(row) - row.count(RIGHT)
    assert [found.name for found in likely_mistakes(failed, "float32").found] == ["eps-outside-the-root"]
    assert not likely_mistakes(failed, "float64").exact


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "nowhere"], "no file nowhere.index.json. Name a folder of vectors"),
        (["check", FOLDER, "--level", "L9"], "no level 'L9'. Choose among L0"),
        (["check", FOLDER, "--cmd", "prog {in}"], "does not have {out}"),
        (["check", FOLDER, "--cmd", "prog '{in} {out}"], "Close the quotes"),
        (["check", FOLDER, "--cmd", "no-such-program {in} {out}"], "'no-such-program', which is not found"),
        (["check", FOLDER, "--timeout", "0"], "--timeout is 0; give a number of seconds above 0"),
        (["check", FOLDER, "--dtype", "float16"], "computes in float32 or float64"),
        (["check", FOLDER, "--level", "L1", "--junit", "nowhere/a.xml"], "could not be written"),
        (["write", FOLDER / "index.json"], "is a file; name a folder"),
    ],
)
def test_bad_usage_is_explained(command, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("vectors", *arguments)
    assert code == 1
    assert re.search(said, err), err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_index_is_no_crash(tmp_path, command):
    for text, said in (
        ("{", "not JSON"),
        ("[]", "holds a JSON list, not an object"),
        ('{"format": "led-vectors/9"}', "led-vectors/9"),
    ):
        (tmp_path / "index.json").write_text(text)
        code, _, err = command("vectors", "check", tmp_path)
        assert code == 1
        assert said in err
