"""The three models that come with led_ref: their files, what they answer offline, and the demo."""

import hashlib
import json
import re
import shutil

import pytest

import led_ref
from led_ref.bundled.forms import as_trained, place_in_original
from led_ref.cli.demo import DOCUMENT, QUESTION
from led_ref.errors import InputError
from led_ref.pipelines.loading import BUNDLED
from led_ref.tools import doctor

MEGABYTES = 24  # of models in the wheel, at most


def test_folders_are_whole_and_small():
    files = []
    for task in BUNDLED:
        folder = led_ref.bundled_model(task)
        listed = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
        assert {"config.json", "vocab.json", "merges.txt"} < set(listed)
        for name, expected in listed.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, (task, name)
            files.append(folder / name)
        assert (folder / "MODEL_CARD.md").exists()
    assert max(path.stat().st_size for path in files) < 10e6
    assert sum(path.stat().st_size for path in files) <= MEGABYTES * 1e6


def test_other_tasks_have_no_model():
    with pytest.raises(InputError, match=r"no bundled model for 'translation'.*summarization, question-answering"):
        led_ref.bundled_model("translation")


def test_doctor_names_the_file_that_changed(monkeypatch, tmp_path):
    whole, copy = led_ref.bundled_model, shutil.copytree(led_ref.bundled_model(), tmp_path / "bundled")
    monkeypatch.setattr("led_ref.api.bundled_model", lambda *task: copy / whole(*task).relative_to(whole()))
    assert doctor.check_bundled()["ok"]
    changed = copy / "classifier" / "config.json"
    changed.write_text(changed.read_text() + " ")
    assert re.match("classifier/config.json has sha256 .*install led-ref again", doctor.check_bundled()["error"])


def test_a_place_is_found_with_the_words_around_it():
    original = "TAR(1)\n\n  -c   Create\n       an archive.\n\n  -d   Create\n       a difference.\n"
    read = "TAR(1)\n-c Create an archive.\n-d Create a difference."
    first, second = read.index("Create"), read.rindex("Create")
    assert place_in_original(read, first, first + 6, original) == (
        original.index("Create"),
        original.index("Create") + 6,
    )
    assert place_in_original(read, second, second + 6, original)[0] == original.rindex("Create")
    start, end = place_in_original(read, second, second + 8, original)  # over a line break
    assert original[start:end] == "Create\n       a"
    assert place_in_original(read, first, first + 6, "another text") is None


def test_page_breaks_do_not_hide_a_place():
    original = "It is read.\n\nSmith   Informational   [Page 1]\n\nRFC 1   Title   1990\n\nA vector is short.\n"
    read = "It is read. A vector is short."
    start = read.index("A vector")
    found = place_in_original(read, start, start + 8, original)
    assert original[slice(*found)] == "A vector"


def test_answerer_answers_and_says_the_line(command):
    path = led_ref.bundled_model() / DOCUMENT
    code, out, err = command("answer", QUESTION, path, "--json")
    assert code == 0
    assert "is a specification: read without abstract" in err
    (found,) = json.loads(out)["answers"]
    document = path.read_text()
    assert " ".join(document[found["start"] : found["end"]].split()) == " ".join(found["answer"].split()) != ""
    assert found["line"] == document[: found["start"]].count("\n") + 1
    assert f", line {found['line']}:" in command("answer", QUESTION, path)[2]
    body, _ = as_trained(document)
    assert led_ref.pipeline("question-answering")(QUESTION, body)["answer"] == found["answer"]


def test_classifier_gives_sections(command, tmp_path):
    path = tmp_path / "game.txt"
    path.write_text(
        "A puzzle game in which the player pushes crates through a maze. It has ninety levels, and keeps high scores."
    )
    code, out, _ = command("classify", path)
    assert code == 0
    assert out.splitlines()[0].endswith("  games")
    labels = led_ref.classify(path.read_text())
    assert labels[0].label == "games"
    assert sum(label.score for label in labels) == pytest.approx(1, abs=1e-5)


def test_demo_shows_all_three(command):
    code, out, err = command("demo", "--quiet")
    assert (code, err) == (0, "")
    for shown in ("summarizer", "answerer", "classifier", "Conformance Vectors", QUESTION, f"({DOCUMENT}, line "):
        assert shown in out
    assert "no answer" not in out
    assert len(re.findall(r"^ +\d+\.\d%  \w+$", out, re.M)) == 3
