"""`led-ref train`: the command line, its bar, and ROUGE with Google's rouge-score and with a stand-in."""

import io
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from training.small_models import small_model

import led_ref
from led_ref.cli.main import build_parser
from led_ref.tools import terminal
from led_ref.training import room, validation
from led_ref.training.log import read_log
from led_ref.training.settings import SETTINGS, RunArguments

LINES = [{"article": f"the cat {'sat ' * i}on a mat", "abstract": "a cat" + " sat" * (i % 3)} for i in range(7)]
FIELDS = ("--text-field", "article", "--target-field", "abstract")


@pytest.fixture
def scene(tmp_path, monkeypatch, bundled):
    monkeypatch.chdir(tmp_path)
    small_model().save_pretrained(tmp_path / "model", others=bundled.tokenizer.save_pretrained)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES[:2]))
    return tmp_path


@pytest.fixture
def train(scene, command):
    return lambda *arguments: command("train", "train.jsonl", "--model", "model", "--out", "out", *FIELDS, *arguments)


def test_training_from_the_command_line(train, scene, command):
    options = ("--batch-size", "2", "--steps", "5", "--validate", "heldout.jsonl", "--validate-every", "2")
    code, out, err = train(*options, "--save-every", "3", "--threads", "1")
    assert code == 0
    assert "led-ref: step 4: {" in err
    assert out.splitlines()[0].split() == ["out", "out"]
    assert len(read_log("out/log.jsonl")) == 5 + 3
    (scene / "page.txt").write_text("the cat sat")
    assert command("summarize", "page.txt", "--model", "out", "--max-new-tokens", "3", "--quiet")[0] == 0
    code, out, err = train(*options, "--save-every", "3", "--resume", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["steps"] == 5


def test_what_does_not_fit_is_refused_or_noticed(train, scene, monkeypatch):
    monkeypatch.setattr(room, "machine_memory", lambda: room.Memory(total=1000, free=1000))
    code, out, err = train("--steps", "1")
    assert (code, out, (scene / "out").exists()) == (1, "", False)
    assert "This training does not fit: a step on " in err
    assert "Lower: --optimizer adafactor (" in err
    monkeypatch.setattr(room, "machine_memory", lambda: room.Memory(total=10**12, free=1000))
    code, _, err = train("--steps", "1")
    assert code == 0
    assert "this training may not fit: a step on " in err


def test_options_become_settings(scene, monkeypatch):
    """Every setting by its option, and a recipe's where no option is given."""
    given = {}
    monkeypatch.setattr(led_ref.api, "train", lambda *_, **named: given.update(named) or SimpleNamespace(to_dict=dict))
    words = {"freeze": "encoder,led.decoder.layers.0", "task": "summarization", "optim": "adafactor"}
    arguments, expected = [], {}
    for name, setting in SETTINGS.items():
        form = setting.form
        if name == "num_train_epochs":  # excludes max_steps
            continue
        if form.parse is None:
            arguments.append(setting.option)
            expected[name] = not setting.option.startswith("--no-")
        else:
            word = words.get(name) or (
                form.choices[-1] if form.choices else "9" if form.fits(9) else "0.5" if form.fits(0.5) else "a"
            )
            arguments += [setting.option, word]
            expected[name] = form.parse(word)
    options = build_parser().parse_args(
        ["train", "a", "--model", "b", "--out", "c", "--recipe", "ai2", "--validate", "d", *arguments]
    )
    assert options.run(options) == 0
    assert {name: given[name] for name in expected} == expected
    assert given["freeze"] == ("encoder", "led.decoder.layers.0")
    assert (given["recipe"], given["validate"]) == ("ai2", ["d"])
    run = RunArguments.of("ai2", **expected)
    assert (run.training.batch_tokens, run.training.num_train_epochs) == (9, 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "1", "--steps", "2"], "give --epochs or --steps, not both"),
        (["--early-stopping", "2"], "--early-stopping is for held-out documents; add --validate HELDOUT"),
        (["--metric", "rouge"], "--metric is for held-out documents"),
        (["--threads", "0"], "--threads: '0'"),
        (["--threads", "2", "--backend", "cupy"], "is for a CPU"),
        (["--schedule", "step"], "'step'"),
        (["--learning-rate", "fast"], "'fast'"),
        (["--recipe", "ai3"], "'ai3'"),
    ],
)
def test_wrong_usage(train, scene, arguments, words):
    code, out, err = train(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert not (scene / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--learning-rate", "0"], "learning_rate is 0.0; it must be a number above 0"),
        (["--text-field", "text"], "train.jsonl:1: there is no field 'text', only 'article', 'abstract'"),
        (["--model", "gone"], "gone"),
        (["--warmup", "99"], "warmup_steps is 99, but the training has"),
        (["--plot", "curve.txt"], "curve.txt"),
        (["--validate", "gone.jsonl"], "There is no file gone.jsonl"),
    ],
)
def test_failed_training_writes_nothing(train, scene, arguments, words, monkeypatch):
    monkeypatch.setattr("led_ref.training.log._figure_class", lambda: None)
    code, out, err = train(*arguments)
    assert (code, out) == (1, "")
    assert words in err
    assert not (scene / "out").exists()


def test_curve_is_drawn_at_the_end(train, monkeypatch):
    drawn = []
    monkeypatch.setattr("led_ref.training.log.check_picture", lambda path: None)
    monkeypatch.setattr("led_ref.training.log.save_curve", lambda lines, path: drawn.append((len(lines), path)))
    code, out, _ = train("--steps", "2", "--plot", "curve.svg", "--json", "--quiet")
    assert (code, json.loads(out)["curve"], drawn) == (0, "curve.svg", [(2, "curve.svg")])


def test_interrupted_training_says_how_to_go_on(train, monkeypatch):
    def interrupt(*_, **named):
        if len(read_log("out/log.jsonl")) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("led_ref.cli.train._report", interrupt)
    code, _, err = train("--batch-size", "1", "--save-every", "2")
    assert code == 130
    assert "led-ref: out has a checkpoint; to go on from it run the same with --resume" in err


def test_bar_shows_loss_speed_and_time_left(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    line = {"loss": 4.0321, "tokens_per_second": 1234.5, "total_steps": 9}
    with terminal.TrainingBar(enabled=True) as bar:
        for step in (4, 5, 6):
            bar.show({**line, "step": step})
        bar.show({"step": 6, "eval_loss": 1.0, "total_steps": 9})
        bar._bar.refresh()
        bar.say("a notice")
    assert "6/9" in shown.getvalue()
    assert "loss 4.032, 1,234 tokens/s" in shown.getvalue()
    assert "led-ref: a notice\n" in shown.getvalue()
    with terminal.TrainingBar(enabled=False) as bar:
        bar.show({**line, "step": 4})
    assert bar._bar is None


def test_rouge_is_that_of_google(train):
    """Precision 1, recall 2 of 3 words and 1 of 2 pairs; and a run, in which a model of random weights writes nothing right."""
    found = validation._scorer()("The cat sat.", "the cat")
    assert [score.fmeasure for score in found.values()] == pytest.approx([4 / 5, 2 / 3, 4 / 5])
    options = ("--metric", "rouge", "--json", "--quiet")
    code, out, err = train("--steps", "1", "--validate", "heldout.jsonl", *options)
    assert (code, err, json.loads(out)["metric"]) == (0, "", "rouge")
    assert read_log("out/log.jsonl")[-1]["eval_rouge"] == 0


def test_rouge_chooses_the_model(train, monkeypatch):
    """A stand-in for rouge-score, whose scores rise with each summary."""
    calls = []

    class RougeScorer:
        def __init__(self, types, use_stemmer):
            assert (types, use_stemmer) == (["rouge1", "rouge2", "rougeL"], False)

        def score(self, reference, written):
            calls.append((reference, written))
            return {name: SimpleNamespace(fmeasure=0.1 * len(calls)) for name in ("rouge1", "rouge2", "rougeL")}

    module = ModuleType("rouge_score.rouge_scorer")
    module.RougeScorer = RougeScorer
    monkeypatch.setitem(sys.modules, "rouge_score", ModuleType("rouge_score"))
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", module)
    code, out, _ = train("--steps", "2", "--validate", "heldout.jsonl", "--metric", "rouge", "--json", "--quiet")
    assert code == 0
    found = json.loads(out)
    assert (found["metric"], found["best_step"], found["best"]) == ("rouge", 2, pytest.approx(35.0))
    line = read_log("out/log.jsonl")[-1]
    assert (line["eval_rouge1"], line["eval_rougeL"]) == pytest.approx((35.0, 35.0))
    assert [reference for reference, _ in calls[:2]] == [line["abstract"] for line in LINES[:2]]
