"""The log of a training, and its curve."""

import json
import sys

import pytest

from led_ref.errors import InputError, MissingFileError
from led_ref.training import log as training_log
from led_ref.training.log import TrainingLog, check_picture, read_log, save_curve, smoothed

STEPS = [{"step": step, "loss": 4.0 / step, "learning_rate": 5e-5, "grad_norm": 1.0} for step in (1, 2, 3, 4)]


@pytest.fixture
def log(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl")
    for values in STEPS:
        log.write(values)
    return log.path


def test_lines_are_written_at_once(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl")
    log.write({"step": 1, "loss": float("nan"), "skipped": "the loss is nan"})
    (line,) = log.path.read_text().splitlines()
    values = json.loads(line, parse_constant=pytest.fail)
    assert (values["step"], values["loss"], values["skipped"]) == (1, None, "the loss is nan")
    assert values["time"].endswith("+00:00")


def test_lines_follow_the_name(tmp_path):
    """Saving a model renames a new folder to the run's: a file that stays open would be the old one's."""
    (tmp_path / "out").mkdir()
    log = TrainingLog(tmp_path / "out" / "log.jsonl")
    log.write(STEPS[0])
    (tmp_path / "out").rename(tmp_path / "old")
    (tmp_path / "out").mkdir()
    log.write(STEPS[1])
    assert [line["step"] for line in read_log(log.path)] == [2]


def test_resumed_log_drops_steps_that_are_made_again(log):
    with log.open("a") as file:
        file.write('{"step": 5, "lo')  # the process was killed here
    TrainingLog(log, after_step=2).write({"step": 3, "loss": 9.0})
    assert [(line["step"], line["loss"]) for line in read_log(log)] == [(1, 4.0), (2, 2.0), (3, 9.0)]


def test_new_log_replaces_an_old_one(log):
    TrainingLog(log)
    assert read_log(log) == []


def test_what_is_no_log(tmp_path):
    with pytest.raises(MissingFileError, match="no log"):
        read_log(tmp_path / "gone.jsonl")
    for content in (b"{}\n", b"text\n", b"[1]\n", b'{"step": "1"}\n', b"\xff\n"):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(InputError, match="other"):
            read_log(tmp_path / "other")


def test_curve_shows_all_lines(log, tmp_path, monkeypatch):
    """matplotlib itself is not among what the tests need: a stand-in notes what is drawn."""
    drawn = []

    class Axes:
        def __getattr__(self, name):
            return lambda *given, **named: drawn.append((name, *given))

    class Figure:
        def __init__(self, **_):
            pass

        def subplots(self, *_, **__):
            return [Axes(), Axes()]

        def savefig(self, path, **_):
            path.write_text("picture")
            if (tmp_path / "curve.svg").exists():
                raise OSError("disk full")

    monkeypatch.setattr(training_log, "_figure_class", lambda: Figure)
    lines = [*read_log(log), {"step": 4, "eval_loss": 1.5}, {"step": 5, "skipped": "the loss is nan", "loss": None}]
    save_curve(lines, tmp_path / "curve.svg")
    steps, losses = [1, 2, 3, 4], [4.0, 2.0, 4.0 / 3, 1.0]
    plots = [call[1:3] for call in drawn if call[0] == "plot"]
    assert plots == [(steps, losses), (steps, smoothed(losses)), ([4], [1.5]), (steps, [5e-5] * 4)]
    assert [call[1] for call in drawn if call[0] == "axvline"] == [5]
    with pytest.raises(OSError, match="disk full"):
        save_curve(lines, tmp_path / "curve.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.svg", "log.jsonl"]


def test_curve_that_cannot_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(training_log, "_figure_class", lambda: None)
    with pytest.raises(InputError, match=r"Name it \.svg, \.png or \.pdf"):
        check_picture(tmp_path / "curve.txt")
    with pytest.raises(MissingFileError, match="There is no folder"):
        check_picture(tmp_path / "gone" / "curve.svg")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"led-ref\[plot\]"):
        check_picture(tmp_path / "curve.svg")
