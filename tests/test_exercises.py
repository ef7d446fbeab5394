"""The exercises: every solution passes its checks, what is handed out fails them all, and the command says what it did."""

import re
from pathlib import Path

import pytest

from led_ref.cli.main import main
from led_ref.errors import InputError
from led_ref.tools.exercises.handout import TO_WRITE, exercises, handout, run_checks, solutions

ROOT = Path(__file__).parent.parent
ALL = exercises()

# A mistake for each exercise, in its own solution; one check at least must say so.
MISTAKES = {
    1: ("reach * (reach + 1)", "2 * reach"),
    2: ("i += 2 if found else 1", "i += 1"),
    3: ("positions[: len(ids)]", "positions[1 : len(ids) + 1]"),
    4: ("i + radius + 1)", "i + radius)"),
    5: ("& real & real[:, None]", "& real[:, None]"),
    6: ("norm(x + hidden @ fc2[0].T + fc2[1])", "x + norm(hidden @ fc2[0].T + fc2[1])"),
    7: ("len(radii) >= 2", "len(radii) >= 1"),
    8: ("stored + w", "stored"),
    9: ("scores[:, None] + logprobs", "logprobs"),
    10: ("8 + size + start : 8 + size + stop", "start:stop"),
    11: ("min(tokens, stop + radius)", "stop + radius"),
    12: (
        "not bool((abs(a[name] - b[name]) <= atol + rtol * abs(b[name])).all())",
        "bool((abs(a[name] - b[name]) > atol + rtol * abs(b[name])).any())",
    ),
    13: ("documents * tokens", "documents * beams * tokens"),
    17: ("(p * dp).sum(axis=-1, keepdims=True)", "dp.sum(axis=-1, keepdims=True)"),
    18: ("(1 - 0.999**n)", "(1 - 0.999 ** (n - 1 or 1))"),
}


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.path.stem)
def test_solutions_pass_and_handouts_fail(one, tmp_path):
    solved, given, wrong = tmp_path / "solved.py", tmp_path / "given.py", tmp_path / "wrong.py"
    given.write_text(handout(one.solved))
    solved.write_text(handout(one.solved) + "\n\n" + solutions(one.solved))
    right, planted = MISTAKES[one.number]
    assert one.solved.count(right) == 1
    wrong.write_text(solved.read_text().replace(right, planted).replace("    del beams", "    pass"))

    assert [outcome.failure for outcome in run_checks(one, solved) if outcome.failure] == []
    failures = {outcome.failure for outcome in run_checks(one, given)}
    assert failures == {"not written yet"}
    said = [outcome.failure for outcome in run_checks(one, wrong) if outcome.failure]
    assert said
    assert "not written yet" not in said


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.path.stem)
def test_handout_has_task_without_solution(one):
    text = handout(one.solved)
    assert one.title in text
    assert "check_" not in text
    assert "led_ref" not in text.partition('"""\n')[2].partition('"""')[2]
    assert len(re.findall(r"^def ", text, re.MULTILINE)) == text.count(TO_WRITE) >= 1


def test_command_keeps_the_readers_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise", "1"]) == 1
    (file,) = tmp_path.iterdir()
    assert file.name == "exercise_01_cells.py"
    assert capsys.readouterr().out.count("not written yet") == 3
    file.write_text("def full_cells(tokens):\n    return tokens\n")
    assert main(["exercise", "1"]) == 1
    said = capsys.readouterr()
    assert "full_cells(5) is 5, and should be 25" in said.out
    assert "no attribute 'window_cells'" in said.out
    assert file.read_text().startswith("def full_cells(tokens):\n    return tokens\n")
    assert main(["exercise", "1", "--solution"]) == 0
    file.write_text(capsys.readouterr().out)
    assert main(["exercise", "1"]) == 0
    assert "solved" in capsys.readouterr().err


def test_invalid_values_are_named(tmp_path, capsys):
    assert main(["exercise", "99"]) == 1
    assert "no exercise 99. Choose among 1, 2, 3" in capsys.readouterr().err
    assert main(["exercise", "1", "--folder", str(tmp_path / "none")]) == 1
    assert "Give another --folder" in capsys.readouterr().err
    (tmp_path / "exercise_01_cells.py").write_text("x = 1\ny = (\n")
    assert main(["exercise", "1", "--folder", str(tmp_path)]) == 1
    assert re.search(r"exercise_01_cells.py does not run: SyntaxError.*\(line 2\)", capsys.readouterr().err)
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=r"does not run: ZeroDivisionError.*\(line 1\)"):
        list(run_checks(ALL[0], tmp_path / "bad.py"))


def test_the_list_names_every_exercise(capsys):
    assert main(["exercise"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in listed] == [one.number for one in ALL] == [*range(1, 14), 17, 18]


def test_chapters_name_existing_exercises_and_mutants():
    """A chapter's first exercise is the one of its number; a mutant that it shows is in the lists."""
    planted = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "mutants").glob("planted_*.py"))
    chapters = sorted((ROOT / "docs" / "book").glob("[0-9]*.py"))
    assert chapters
    for path in chapters:
        text = path.read_text(encoding="utf-8").replace("\n# ", " ")
        numbers = {int(number) for number in re.findall(r"`led-ref exercise (\d+)`", text)}
        own = {int(path.stem[:2])} & {one.number for one in ALL}
        assert own <= numbers <= {one.number for one in ALL}, path.name
        for name in re.findall(r"mutant\S* `([\w-]+)`", text):
            assert f'"{name}"' in planted, f"{path.name} shows {name}"
