"""led_ref.pipeline: the calls and results of transformers' pipelines, written down here, on models of the other tests."""

import json
import math
import shutil
from dataclasses import replace

import pytest
from test_answering import MARKER, QUESTION, pointer
from test_classifying import judge

import led_ref
from led_ref.errors import BackendError, CheckpointError, InputError, LEDError, SettingsError
from led_ref.pipelines.context_pieces import prepare_pieces

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
    config |= {"prefix": "summarize: ", "task_specific_params": None}  # of every task
    (folder / "config.json").write_text(json.dumps(config))
    of_all = led_ref.pipeline("summarization", folder)("Pack files.", num_beams=1, max_length=4)
    assert of_all == [{"summary_text": bundled.generate(text, num_beams=1, max_length=4)}]


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
    assert find(QUESTION, text) == find([pair], padding="max_length") == one
    assert find(pair, pair, top_k=2) == [find(pair, top_k=2)] * 2
    for options, words in (
        ({"doc_stride": -1}, "doc_stride is -1"), ({"max_seq_len": 10**6}, "reads at most"), ({"max_seq_len": 5}, "0 beside"),
        ({"max_seq_len": 13, "doc_stride": 90}, "each piece must have more tokens than it shares"), ({"topk": 2}, "'top_k'"),
        ({"padding": "no"}, "changes nothing"), ({"top_k": 0}, "at least 1"), ({"max_question_len": 0}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=words):
            find(**pair, **options)
    for wrong in ({}, {"question": QUESTION}, {"examples": pair, "question": QUESTION}, {"examples": [{"q": 1}]}):
        with pytest.raises(InputError, match=r"question"):
            find(**wrong)


def test_a_checkpoint_has_its_own_length_of_pieces(bundled):
    answerer = led_ref.QuestionAnswerer(pointer(bundled.tokenizer), bundled.tokenizer, "pointer")
    text = "It packs files. " * 10

    def with_length(length):
        extra = {"task_specific_params": {"question-answering": {"max_seq_len": length}}}
        object.__setattr__(answerer.model, "config", replace(answerer.model.config, extra=extra))
        return {len(piece.ids) for piece in prepare_pieces(answerer, QUESTION, text, None, 0)}

    assert max(with_length(20)) == 20
    for wrong in (0, 10**6, "20", True):
        with pytest.raises(CheckpointError, match=f"pointer's config.json has max_seq_len .*{wrong}"):
            with_length(wrong)


@pytest.mark.parametrize(("most", "overlap"), [(20, 3), (23, 0), (None, None)])
def test_a_long_context_is_searched_in_pieces(bundled, monkeypatch, most, overlap):
    """Each piece is answered as a context by itself; the best of all, at their places in the whole."""
    answerer = led_ref.QuestionAnswerer(pointer(bundled.tokenizer), bundled.tokenizer, "pointer")
    monkeypatch.setattr(type(answerer.model), "longest_document", 40)
    words = [f"{MARKER} tar" if i == 17 else f"word{i % 7}" for i in range(40)]
    text = " ".join(words)
    with pytest.raises(InputError, match="reads at most 40"):
        answerer.answer(QUESTION, text)
    find = led_ref.pipeline("question-answering", answerer, max_answer_len=2)
    asked = {} if most is None else {"max_seq_len": most, "doc_stride": overlap}
    found = find(QUESTION, text, top_k=5, align_to_words=False, **asked)
    pieces = prepare_pieces(answerer, QUESTION, text, most, overlap)
    whole = answerer.prepare_whole(QUESTION, text)
    assert len(pieces) > 1
    step = whole.offsets.index(pieces[1].offsets[0])
    assert len(pieces[0].offsets) - step == (overlap if most else len(pieces[0].offsets) // 2)
    expected = {}
    for piece in pieces:
        assert len(piece.ids) <= (most or 40)
        assert [*piece.offsets] == [o for o in whole.offsets if piece.offsets[0][0] <= o[0] <= piece.offsets[-1][0]]
        for worth, one in answerer.scored_spans(text, piece, None, 5, 2)[0]:
            expected[one.start, one.end] = max(expected.get((one.start, one.end), -1e9), worth)
    best = sorted(expected, key=lambda place: -expected[place])[:5]
    assert [(one["start"], one["end"]) for one in found] == best
    assert found[0]["answer"] == text[found[0]["start"] : found[0]["end"]]
    none = [answerer.scored_spans(text, piece, None, 1, 2)[1] for piece in pieces]
    many = find(QUESTION, text, top_k=1000, handle_impossible_answer=True, **asked)
    assert [one["score"] for one in many if not one["answer"]] == [pytest.approx(math.exp(min(none)))]
    assert find(QUESTION, text, truncation=True, top_k=1000, **asked)[0]["end"] <= pieces[0].offsets[-1][1]


def test_answers_are_whole_words(bundled):
    answerer = led_ref.QuestionAnswerer(pointer(bundled.tokenizer), bundled.tokenizer, "pointer")
    find = led_ref.pipeline("question-answering", answerer, max_answer_len=1)
    text = f"One is {MARKER} unpacksquirrels, two."
    one, part = find(QUESTION, text), find(QUESTION, text, align_to_words=False)
    assert part["answer"] != one["answer"] == "unpacksquirrels" == text[one["start"] : one["end"]]
    assert one["score"] == part["score"]
    answers = [found["answer"] for found in find(QUESTION, text, top_k=4)]
    assert len(answers) == len(set(answers)) == 4
    assert find(QUESTION + " or not so", text, max_question_len=len(bundled.tokenizer(QUESTION).input_ids) - 2) == one


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
