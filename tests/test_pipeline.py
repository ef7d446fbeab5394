"""led_ref.pipeline: the calls and results of transformers' pipelines, written down here, on models of the other tests."""

import json
import shutil

import pytest
from test_answering import MARKER, QUESTION, pointer
from test_classifying import judge

import led_ref
from led_ref.errors import BackendError, InputError, LEDError, SettingsError

SHORT = {"max_new_tokens": 4, "num_beams": 2}


def test_summaries_have_the_shapes_of_transformers(bundled):
    write = led_ref.pipeline("summarization", device="cpu", **SHORT)
    texts = ["Pack files.", "List files."]
    expected = bundled.generate(texts, **SHORT)
    assert write(texts[0]) == [{"summary_text": expected[0]}]
    assert write(texts) == [{"summary_text": text} for text in expected]
    two = bundled.generate(texts, **SHORT, num_return_sequences=2)
    assert write(texts, num_return_sequences=2) == [[{"summary_text": text} for text in of_one] for of_one in two]
    assert write(texts[0], num_return_sequences=2) == [{"summary_text": text} for text in two[0]]


def test_settings_and_prefix_of_the_task_are_used(bundled, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(led_ref.bundled_model(), folder)
    config = json.loads((folder / "config.json").read_text())
    of_task = {"prefix": "summarize: ", "num_beams": 1, "max_new_tokens": 7}
    config["task_specific_params"] = {"summarization": of_task, "translation": {"num_beams": 9}}
    (folder / "config.json").write_text(json.dumps(config))
    write = led_ref.pipeline("summarization", folder)
    text = "summarize: Pack files."
    assert write("Pack files.") == [{"summary_text": bundled.generate(text, num_beams=1, max_new_tokens=7)}]
    assert write(["Pack files."], max_length=4) == [{"summary_text": bundled.generate(text, num_beams=1, max_length=4)}]


def test_answers_have_the_shapes_of_transformers(bundled):
    answerer = led_ref.QuestionAnswerer(pointer(bundled.tokenizer), bundled.tokenizer, "pointer")
    find = led_ref.pipeline("question-answering", answerer, max_answer_len=1)
    text = f"One is {MARKER} tar, one {MARKER} gzip."
    pair = {"question": QUESTION, "context": text}
    one = find(**pair)
    assert list(one) == ["score", "start", "end", "answer"]
    assert (one["answer"], text[one["start"] : one["end"]]) == ("tar", "tar")
    assert find(pair) == find([pair]) == one
    assert find([pair, pair]) == find(question=[QUESTION, QUESTION], context=text) == [one, one]
    assert [found["answer"] for found in find(**pair, top_k=2)] == ["tar", "gzip"]
    for wrong in ({}, {"question": QUESTION}, {"examples": pair, "question": QUESTION}, {"examples": [{"q": 1}]}):
        with pytest.raises(InputError, match=r"question"):
            find(**wrong)


def test_labels_have_the_shapes_of_transformers(bundled):
    classifier = led_ref.Classifier(judge(bundled.tokenizer), bundled.tokenizer, "judge")
    decide = led_ref.pipeline("text-classification", classifier)
    labels = [{"label": found.label, "score": found.score} for found in classifier.classify("This is tar")]
    assert len(labels) == 3
    assert decide("This is tar") == [labels[0]]
    assert decide(["This is tar", "This is tar"]) == [labels[0], labels[0]]
    assert decide("This is tar", top_k=2) == labels[:2]
    assert decide(["This is tar"], top_k=None) == [labels]
    assert led_ref.pipeline("sentiment-analysis", classifier, top_k=1)("This is tar") == [labels[:1]]


def test_what_a_pipeline_refuses(bundled):
    for error, words, arguments in (
        (InputError, "no task 'translation' here", ("translation",)),
        (SettingsError, "num_beam", ("summarization", None, {"num_beam": 3})),
        (SettingsError, "Is 'top_k' meant", ("text-classification", bundled, {"topk": 3})),
        (TypeError, "a Classifier for text-classification", ("text-classification", bundled)),
        (BackendError, "device is 'mps'", ("summarization", None, {"device": "mps"})),
        (BackendError, "device is 1", ("summarization", None, {"device": 1})),
        (InputError, "with its own tokenizer", ("summarization", None, {"tokenizer": "other"})),
    ):
        task, model, named = (*arguments, None, {})[:3] if len(arguments) < 3 else arguments
        with pytest.raises(error, match=words) as refused:
            led_ref.pipeline(task, model, **(named or {}))
        assert isinstance(refused.value, LEDError)
