"""Several documents in one call of led_ref.answer and led_ref.classify, and the bars of progress=True."""

import pytest
from test_answering import MARKER, QUESTION, pointer
from test_classifying import judge

import led_ref
from led_ref.errors import ArgumentTypeError, InputError, SettingsError
from led_ref.pipelines import batching


@pytest.fixture
def answerer(bundled):
    return led_ref.QuestionAnswerer(pointer(bundled.tokenizer), bundled.tokenizer, "pointer")


@pytest.fixture
def classifier(bundled):
    return led_ref.Classifier(judge(bundled.tokenizer), bundled.tokenizer, "judge")


def test_several_documents_are_each_as_alone(answerer, classifier):
    texts = [f"It is {MARKER} tar.", f"There {MARKER} gzip is."]
    alone = [led_ref.answer(QUESTION, text, answerer, top_k=2) for text in texts]
    assert led_ref.answer(QUESTION, texts, answerer, top_k=2) == alone
    assert led_ref.answer(QUESTION, texts[:1], answerer, top_k=2) == alone[:1]
    texts = ["This is tar", "This is ls"]
    assert led_ref.classify(texts, classifier) == [led_ref.classify(text, classifier) for text in texts]


def test_a_bad_one_of_several_is_named(answerer, classifier, monkeypatch):
    read = []
    monkeypatch.setattr(led_ref.Classifier, "_labels", lambda self, document, progress: read.append(document))
    for call, texts in ((led_ref.classify, ["a", " "]), (led_ref.classify, ["a", 5])):
        with pytest.raises(InputError, match=r"^texts\[1\]: "):
            call(texts, classifier)
    assert not read
    with pytest.raises(InputError, match=r"^texts\[1\]: The context is ''"):
        led_ref.answer(QUESTION, ["a", ""], answerer)

    def fail(self, document, progress):
        if len(document.ids) == 3:
            raise InputError("no labels")
        return "labels"

    monkeypatch.setattr(led_ref.Classifier, "_labels", fail)
    with pytest.raises(InputError, match=r"^texts\[1\]: no labels \(1 of 3 documents failed") as failed:
        led_ref.classify(["This is it", "a", "That is it"], classifier)
    assert failed.value.texts == ["labels", None, "labels"]


def test_progress_true_shows_bars(bundled, answerer, classifier, capsys):
    short = {"max_new_tokens": 3, "num_beams": 1}
    texts = ["Pack files.", "List files."]
    plain = bundled.generate(texts, **short)
    for call, several in (
        (lambda: bundled.generate(texts, progress=True, **short), True),
        (lambda: [text for _, text in bundled.generate_each(texts, progress=True, **short)], True),
        (lambda: [bundled.generate(text, progress=True, **short) for text in texts], False),
        (lambda: led_ref.classify(texts, classifier, progress=True), True),
        (lambda: led_ref.answer(QUESTION, texts, answerer, progress=True), True),
    ):
        capsys.readouterr()
        found = call()
        shown = capsys.readouterr().err
        assert ("documents:" in shown) == several
        if isinstance(found[0], str):
            assert found == plain
            assert "read" in shown
            assert "write" in shown
    assert bundled.generate(texts, progress=False, **short) == plain
    assert capsys.readouterr().err == ""


def test_progress_that_cannot_be(bundled, classifier):
    with pytest.raises(SettingsError, match="progress is True, but stream yields"):
        bundled.stream("Pack files.", progress=True, num_beams=1)
    with pytest.raises(ArgumentTypeError, match="progress is 'yes', a str"):
        bundled.generate("Pack files.", progress="yes")
    with pytest.raises(ArgumentTypeError, match="progress is 1, an int"):
        classifier.classify("Pack files.", progress=1)


def test_all_of_a_list_are_checked_first():
    prepared = []
    with pytest.raises(InputError, match=r"^texts\[2\]"):
        batching.prepared_each(["a", "b", "c"], lambda text: prepared.append(text) if text != "c" else fail_with(text))
    assert prepared == ["a", "b"]


def fail_with(text):
    raise InputError(f"{text} is bad")
