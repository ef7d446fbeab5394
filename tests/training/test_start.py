"""What a training starts from: the class for the task, and a new head where the checkpoint has none."""

import json

import numpy as np
import pytest
from training.small_models import small_model

import led_ref
from led_ref.errors import InputError
from led_ref.tools.bench.machine import MemoryWatch
from led_ref.training import step
from led_ref.training.parameters import trainable_copy
from led_ref.training.settings import DataArguments
from led_ref.training.start import labels_in, load_start

TEXT = "The cat sat on the mat."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, bundled):
    folder = tmp_path_factory.mktemp("start") / "small"
    small_model().save_pretrained(folder, others=bundled.tokenizer.save_pretrained)
    return folder


@pytest.fixture
def labelled(tmp_path):
    def write(*labels, name="train.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": TEXT, "label": label}) + "\n" for label in labels))
        return path

    return write


def test_task_follows_the_class_of_the_checkpoint(checkpoint, tmp_path, bundled):
    model, tokenizer = load_start(checkpoint, [], DataArguments())
    assert type(model) is led_ref.LEDForConditionalGeneration
    assert (tokenizer.engine, tokenizer.encode(TEXT)) == ("rust", bundled.tokenizer.encode(TEXT))
    small_model("question-answering").save_pretrained(tmp_path / "qa", others=bundled.tokenizer.save_pretrained)
    loaded, _ = load_start(tmp_path / "qa", [], DataArguments())
    assert type(loaded) is led_ref.LEDForQuestionAnswering


def test_head_of_the_checkpoint_is_kept(tmp_path, bundled):
    model = small_model("classification")
    model.save_pretrained(tmp_path / "model", others=bundled.tokenizer.save_pretrained)
    notices = []
    loaded, _ = load_start(tmp_path / "model", [], DataArguments(), notice=notices.append)
    np.testing.assert_array_equal(
        loaded.params.classification_head.dense.weight, model.params.classification_head.dense.weight
    )
    assert notices == []


def test_file_of_the_start_takes_no_memory(tmp_path):
    """A map of it that stays is 0.65 GB beside LED-base's training."""
    (path,) = small_model(d_model=600).save_pretrained(tmp_path / "wide")
    before = MemoryWatch().start
    model = led_ref.LEDForConditionalGeneration.from_pretrained(tmp_path / "wide")
    copied = trainable_copy(model)
    if before is not None:
        assert MemoryWatch().start - before < 1.5 * path.stat().st_size
    np.testing.assert_array_equal(copied.params.shared, model.params.shared)


def test_kind_of_the_labels_is_written(labelled, tmp_path, bundled):
    small_model("classification").save_pretrained(tmp_path / "model", others=bundled.tokenizer.save_pretrained)
    led_ref.train(labelled(["LABEL_0"], []), tmp_path / "model", tmp_path / "out", max_steps=1)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


def test_new_heads(checkpoint, labelled):
    notices = []
    data = DataArguments(task="classification")
    path = labelled("good", "bad", "bad", "fair")
    model, _ = load_start(checkpoint, [path], data, notice=notices.append, seed=3)
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert notices == [f"{checkpoint} has no classification_head: a new one is drawn for the labels bad, fair, good"]
    head = model.params.classification_head
    assert (head.dense.weight.shape, head.out_proj.weight.shape) == ((6, 6), (3, 6))
    assert 0.01 < head.dense.weight.std() < 0.03
    assert not head.dense.bias.any()
    again, _ = load_start(checkpoint, [path], data, seed=3)
    np.testing.assert_array_equal(again.params.classification_head.dense.weight, head.dense.weight)
    other, _ = load_start(checkpoint, [path], data, seed=4)
    assert not np.array_equal(other.params.classification_head.dense.weight, head.dense.weight)
    answers, _ = load_start(checkpoint, [], DataArguments(task="question-answering"))
    assert answers.params.qa_outputs.weight.shape == (2, 6)


@pytest.mark.parametrize(
    ("labels", "names", "problem"),
    [
        (["b", "a", "b"], ["a", "b"], "single_label_classification"),
        ([2, 0, "1"], ["LABEL_0", "LABEL_1", "LABEL_2"], "single_label_classification"),
        ([["b"], [], ["a", "b"]], ["a", "b"], "multi_label_classification"),
        ([0.5, 2, None], ["LABEL_0"], "regression"),
    ],
)
def test_labels_in_the_data(labelled, labels, names, problem):
    found = labels_in([labelled(*labels)], DataArguments())
    assert list(found["id2label"].values()) == names
    assert found["label2id"] == {name: number for number, name in enumerate(names)}
    assert found["problem_type"] == problem


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([None, ""], r"No line has a label in 'label'\. Name the field with target_field"),
        (["a", "a"], "All lines have the label 'a'"),
        (["a", 1], r"has texts \('a'\) and numbers \(1\)"),
        ([-1, 1], "labels count from 0"),
        ([0, 10**6], "labels count from 0"),
        ([f"text {i}" for i in range(10_002)], "more than 10,000 labels"),
    ],
)
def test_labels_that_cannot_be(labelled, labels, words):
    with pytest.raises(InputError, match=words):
        labels_in([labelled(*labels)], DataArguments())


def test_question_has_global_attention_by_default(checkpoint, tmp_path, monkeypatch):
    masks = []
    accumulate = step.accumulate_gradients
    monkeypatch.setattr(
        step,
        "accumulate_gradients",
        lambda *given: masks.append(given[1]["global_attention_mask"]) or accumulate(*given),
    )
    line = {"question": "Who?", "context": TEXT, "answer": "cat", "answer_start": 4}
    (tmp_path / "train.jsonl").write_text(json.dumps(line))
    led_ref.train(tmp_path / "train.jsonl", checkpoint, tmp_path / "out", task="question-answering", max_steps=1)
    _, tokenizer = load_start(checkpoint, [], DataArguments())
    question = len(tokenizer.encode("Who?", add_special_tokens=False))
    (mask,) = masks
    assert mask[0].tolist() == [1] * (1 + question) + [0] * (mask.shape[1] - 1 - question)


@pytest.mark.parametrize(
    ("task", "lines"),
    [
        ("classification", [{"text": TEXT, "label": label} for label in ("cat", "mat", "cat", "cat")]),
        ("classification", [{"text": TEXT, "label": label} for label in (["cat"], ["cat", "mat"], [])]),
        ("classification", [{"text": TEXT, "label": label} for label in (0.5, 1.5)]),
        (
            "question-answering",
            [
                {"question": "Who?", "context": TEXT, "answer": "cat", "answer_start": 4},
                {"question": "What?", "context": TEXT, "answer": "", "answer_start": 0},
            ],
        ),
    ],
    ids=["label", "labels", "regression", "answers"],
)
def test_training_of_each_head(checkpoint, tmp_path, task, lines):
    """From a checkpoint without the head to a model that led_ref.classify and led_ref.answer take."""
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    losses = []
    led_ref.train(
        tmp_path / "train.jsonl", checkpoint, tmp_path / "out", task=task, num_train_epochs=12, learning_rate=3e-2,
        lr_scheduler_type="constant", per_device_train_batch_size=2, gradient_accumulation_steps=2,
        on_log=lambda line: losses.append(line["loss"]), dropout=0,
    )  # fmt: skip
    assert losses[-1] < 0.97 * losses[0]
    if task == "question-answering":
        assert led_ref.answer("Who?", TEXT, tmp_path / "out")[0].answer in TEXT
    else:
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        labels = led_ref.classify(TEXT, tmp_path / "out")
        assert {label.label for label in labels} == set(config["id2label"].values())
        assert config["problem_type"] in ("single_label_classification", "multi_label_classification", "regression")
