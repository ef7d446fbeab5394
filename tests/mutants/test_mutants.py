"""The planted bugs fit today's source, and planting one really is noticed. (All of them: run.py, minutes.)"""

import json
from pathlib import Path

import pytest
import run
from mistakes import row_of
from mutants import ROOT, Mutant, all_mutants
from verdict import is_about_a_value

from led_ref.oracle.vectors.mistakes import TABLE

MUTANTS = all_mutants()


def test_mutant_count_and_unique_names() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
    assert all(mutant.what.endswith(".") for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies_and_compiles(mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    planted = mutant.apply(text)
    assert planted != text
    compile(planted, mutant.file, "exec")


def test_outdated_list_is_reported() -> None:
    with pytest.raises(ValueError, match=r"occurs 0 times in backends/.*up to date"):
        MUTANTS[0].apply("nothing of the kind")


@pytest.mark.parametrize(
    "name", ["global-query-local-weights", "forced-eos-one-late", "one-separator", "adafactor-one-step-ahead"]
)
def test_one_mutant_per_area_is_killed(name) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    found = run.try_mutant(mutant, ["properties"])["properties"]
    assert found["verdict"] == "killed", found
    assert Path(found["by"].split("::")[0]).as_posix() in (run.PROPERTIES.get(mutant.area) or run.OF_TRAINING)


@pytest.mark.parametrize("name", ["pre-norm", "closed-opens-again", "never-hopes-against-the-penalty"])
def test_the_vectors_tell_these_too(name) -> None:
    """The last two are told by one case each, and only as it is drawn now: whoever draws it anew sees it here."""
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    found = run.try_mutant(mutant, ["vectors"])["vectors"]
    assert found["verdict"] == "killed", found


def test_table_of_vectors_check_has_these_mutants() -> None:
    """One row is made anew; all of them: mistakes.py."""
    table = json.loads(TABLE.read_text("utf-8"))
    rows = {mistake["name"]: mistake["row"] for mistake in table["mistakes"]}
    assert set(rows) <= {mutant.name for mutant in MUTANTS}
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == "norm-without-its-mean"]
    found = row_of(mutant, ROOT)
    assert "".join(found[case] for case in table["cases"]) == rows[mutant.name]


def test_only_a_wrong_value_counts() -> None:
    wrong, crash = AssertionError("1 is not 2"), ZeroDivisionError()
    assert is_about_a_value(wrong)
    assert is_about_a_value(ExceptionGroup("several failures", [crash, ExceptionGroup("more", [wrong])]))
    assert not is_about_a_value(crash)
    assert not is_about_a_value(ExceptionGroup("several failures", [crash, crash]))


def test_a_crash_is_not_a_kill(monkeypatch) -> None:
    monkeypatch.setattr(run, "PROPERTIES", {"search": ["tests/generation/test_search_properties.py"]})
    source = "best_N: Ids = scores_NV.argmax(axis=-1)"
    broken = Mutant("x", "led_ref/generation/greedy_search.py", source, "next_B = 1 // 0", "It breaks.", "search")
    found = run.try_mutant(broken, ["properties"])["properties"]
    assert found["verdict"] == "crash"
    assert "ZeroDivisionError" in found["by"]
