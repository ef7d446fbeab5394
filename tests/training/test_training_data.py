"""Training files: what is read of them, and every kind of bad line, with its place."""

import csv
import gzip
import io
import json
import tracemalloc

import numpy as np
import pytest
from training.small_models import small_model

from led_ref.errors import InputError, MissingFileError, SettingsError
from led_ref.files import records
from led_ref.training.data import read_dataset
from led_ref.training.settings import DataArguments

TEXT = "The cat sat on the mat."
GOOD = {
    "summarization": {"text": TEXT, "summary": "A cat."},
    "classification": {"text": TEXT, "label": "LABEL_1"},
    "question-answering": {
        "question": "Who sat?",
        "context": TEXT,
        "answers": {"text": ["cat"], "answer_start": [4]},
    },
}


@pytest.fixture(scope="module")
def tokenizer(bundled):
    return bundled.tokenizer


@pytest.fixture(scope="module")
def models():
    return {task: small_model(task) for task in GOOD}


@pytest.fixture
def read(tokenizer, models, tmp_path, monkeypatch):
    """Read one file with this content, or several by name."""
    monkeypatch.chdir(tmp_path)

    def read_content(content, task="summarization", *, name="train.jsonl", model=None, data_task=None, **data):
        files = content if isinstance(content, dict) else {name: content}
        for file, text in files.items():
            (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_dataset(list(files), DataArguments(task=data_task, **data), tokenizer, model or models[task])

    return read_content


def line(task="summarization", without=(), **changed):
    values = {name: value for name, value in (GOOD[task] | changed).items() if name not in without}
    return json.dumps(values) + "\n"


def problem_of(read, content, task="summarization", **options):
    with pytest.raises(InputError) as found:
        read(content, task, **options)
    return str(found.value)


# ---- good lines ----------------------------------------------------------------------------------------------------------


def test_summary_of_jsonl_csv_tsv_and_gzip(read, tokenizer):
    two_lines = "A cat,\nand a mat."
    rows = [["id", "text", "summary"], ["7", TEXT, two_lines]]
    table = io.StringIO(newline="")
    csv.writer(table).writerows(rows)
    values = line(summary=two_lines)
    tabs = f'summary\ttext\r\n{json.dumps(two_lines)[:1]}{two_lines}"\t{TEXT}\r\n'
    read_of = [
        read(values),
        read("\ufeff\n" + values),
        read(gzip.compress(values.encode()), name="train.jsonl.gz"),
        read(gzip.compress(values.encode()), name="packed.json"),
        read(table.getvalue(), name="train.csv"),
        read(tabs, name="train.tsv"),
    ]
    (example,) = read_of[0].examples
    assert (example.ids_T.dtype, example.target.dtype) == (np.int32, np.int32)
    assert example.ids_T.tolist() == tokenizer.encode(TEXT)
    assert example.target.tolist() == tokenizer.encode(two_lines)
    assert len({dataset.fingerprint for dataset in read_of}) == 1
    assert [dataset.examples[0].place for dataset in read_of] == [
        "train.jsonl:1", "train.jsonl:2", "train.jsonl.gz:1", "packed.json:1", "train.csv:2", "train.tsv:2",
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_play_no_part(read, end):
    def is_same(lines, **options):
        return read(lines.replace("\n", end), **options).fingerprint == read(lines, **options).fingerprint

    assert is_same(line() + line(summary="Two."))
    assert is_same('text,summary\n"a\nb",c\nd,"e\n\nf"\n', name="train.csv")
    assert "train.jsonl:2: not JSON" in problem_of(read, line().strip() + end + "no" + end)


def test_answers_move_with_their_line_ends(read):
    def of(context, answer):
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        return read(line("question-answering", context=context, answers=answers), "question-answering").fingerprint

    assert of("One.\r\nTwo.\r\n\r\nThe cat\r\nsat.", "cat\r\nsat") == of("One.\nTwo.\n\nThe cat\nsat.", "cat\nsat")


def test_fingerprint_depends_on_each_text_and_order(read):
    two = line() + line(summary="Two.")
    prints = [
        read(content).fingerprint
        for content in (two, line(summary="Two.") + line(), line() + line(summary="Too."), line() + line(text="Two."))
    ]
    assert len(set(prints)) == 4
    assert read(two).fingerprint == read({"a.jsonl": line(), "b.jsonl": line(summary="Two.")}).fingerprint


def test_field_names_are_options(read):
    renamed = json.dumps({"article": TEXT, "abstract": "A cat.", "text": "other"}) + "\n"
    fields = {"text_field": "article", "target_field": "abstract"}
    assert read(renamed, **fields).fingerprint == read(line()).fingerprint


def test_labels_by_name_and_number(read):
    lines = [line("classification", label=label) for label in ("LABEL_0", "LABEL_1", 0, 1, "1")]
    dataset = read("".join(lines), "classification")
    assert [example.target.tolist() for example in dataset.examples] == [[0], [1], [0], [1], [1]]
    assert dataset.problem_type == "single_label_classification"


def test_labels_of_other_problem_types(read):
    several = read(line("classification", label=["LABEL_1"]) + line("classification", label=[]), "classification")
    assert [example.target.tolist() for example in several.examples] == [[0.0, 1.0], [0.0, 0.0]]
    assert several.problem_type == "multi_label_classification"
    model = small_model("classification", {"num_labels": 1})
    values = read(line("classification", label=2.5) + line("classification", label="3"), model=model)
    assert [example.target.tolist() for example in values.examples] == [[2.5], [3.0]]
    assert values.problem_type == "regression"


@pytest.mark.parametrize(
    ("answer", "start", "words"),
    [
        ("cat", 4, " cat"),
        ("sat on", 8, " sat on"),
        (" sat ", 7, " sat"),
        ("The", 0, "The"),
        ("mat.", 19, " mat."),
        (".", 22, "."),
    ],
)
def test_answer_as_tokens(read, tokenizer, answer, start, words):
    content = line("question-answering", answers={"text": [answer, "The"], "answer_start": [start, 0]})
    (example,) = read(content, "question-answering").examples
    first, last = example.target
    assert tokenizer.decode(example.ids_T[first : last + 1].tolist()) == words


def test_answer_with_blanks_before_a_letter(read, tokenizer):
    answers = {"text": ["  a"], "answer_start": [5]}
    (example,) = read(
        line("question-answering", context="It is  a cat", answers=answers), "question-answering"
    ).examples
    first, last = example.target
    assert tokenizer.decode(example.ids_T[first : last + 1].tolist()) == " a"


def test_flat_answer_and_no_answer(read):
    flat = json.dumps({"question": "Who sat?", "context": TEXT, "answer": "cat", "answer_start": 4})
    table = f"question,context,answer,answer_start\nWho sat?,{TEXT},cat,4\n"
    nested = read(line("question-answering"), "question-answering")
    assert read(flat, "question-answering").fingerprint == nested.fingerprint
    assert read(table, "question-answering", name="squad.csv").fingerprint == nested.fingerprint
    empty = line("question-answering", answers={"text": [], "answer_start": []})
    assert read(empty, "question-answering").examples[0].target.tolist() == [0, 0]


def test_truncation_is_asked_for_and_counted(read, tokenizer):
    long = line(text="cat " * 90, summary="mat " * 40) + line()
    cut = read(long, truncate=True, truncate_targets=True, max_source_length=11, max_target_length=9)
    first, second = cut.examples
    assert first.ids_T.tolist() == [*tokenizer.encode("cat " * 90)[:10], 2]
    assert first.target.tolist() == [*tokenizer.encode("mat " * 40)[:8], 2]
    assert second.ids_T.tolist() == tokenizer.encode(TEXT)
    assert cut.notices == ("summary was cut in 1 lines", "text was cut in 1 lines")


def test_question_with_cut_answer_is_left_out(read):
    context = "word " * 80 + "cat"
    answers = {"text": ["cat"], "answer_start": [400]}
    content = line("question-answering", context=context, answers=answers) + line("question-answering")
    dataset = read(content, "question-answering", truncate=True, max_source_length=20)
    assert len(dataset) == 1
    assert dataset.notices[-1] == "1 questions are left out: their answers were cut off"
    only = line("question-answering", context=context, answers=answers)
    assert "1 were left out" in problem_of(read, only, "question-answering", truncate=True, max_source_length=20)


def test_answer_at_the_cut_is_whole_or_left_out(read, tokenizer):
    """At each length: the answer's last token is the last one that is kept, or it is not there."""
    answers = {"text": ["cat sat on"], "answer_start": [4]}
    content = line("question-answering") + line("question-answering", answers=answers)
    found = []
    for length in range(11, 21):
        *_, example = read(content, "question-answering", truncate=True, max_source_length=length).examples
        first, last = example.target
        found.append(tokenizer.decode(example.ids_T[first : last + 1].tolist()))
    assert found == sorted(found)
    assert set(found) == {" cat", " cat sat on"}


def test_max_train_samples_reads_the_first_lines(read):
    assert len(read(line() * 3 + "not JSON", max_train_samples=2)) == 2


# ---- bad lines -----------------------------------------------------------------------------------------------------------

SQUAD = "question-answering"
BAD_LINES = {
    "not_json": ("summarization", "{", "not JSON"),
    "array_of_lines": ("summarization", "[1]", "jq -c"),
    "unfinished_array": ("summarization", '[{"text":', "jq -c"),
    "number": ("summarization", "7", "there is int, not a JSON object"),
    "name_twice": ("summarization", '{"text": "a", "text": "b"}', "'text' twice"),
    "deep_nesting": ("summarization", "[" * 100_000, "not JSON"),
    "nan": ("summarization", '{"text": NaN}', "NaN is no JSON value"),
    "not_utf8": ("summarization", b'{"text": "\xe9"}', "byte 0xe9 is not UTF-8"),
    "missing_text": ("summarization", line(without=["text"]), "no field 'text', only 'summary'. Name the field"),
    "missing_summary": ("summarization", line(without=["summary"]), "no field 'summary', only 'text'"),
    "empty_text": ("summarization", line(text=" \n"), "text is empty"),
    "empty_summary": ("summarization", line(summary=""), "summary is empty"),
    "null_summary": ("summarization", line(summary=None), "summary is None, not a text"),
    "deep_summary": ("summarization", f'{{"text": "a", "summary": {"[" * 400 + "]" * 400}}}', "not a text"),
    "list_summary": ("summarization", line(summary=["a"]), "summary is ['a'], not a text"),
    "surrogate": ("summarization", line(text="a\ud800"), "U+D800"),
    "long_text": ("summarization", line(text="cat " * 90), "at most 61 are read. Shorten it, or cut with truncate=True"),
    "long_summary": ("summarization", line(summary="cat " * 40), "at most 23 are read. Shorten it, or cut with trunc"),
    "unknown_label": ("classification", line("classification", label="cat"), "'cat'; the labels are LABEL_0, LABEL_1"),
    "label_out_of_range": ("classification", line("classification", label=2), "label is 2; the labels are"),
    "negative_label": ("classification", line("classification", label=-1), "label is -1"),
    "label_true": ("classification", line("classification", label=True), "label is True"),
    "label_half": ("classification", line("classification", label=0.5), "label is 0.5"),
    "end_in_text": ("classification", line("classification", text="a</s>b"), "special token"),
    "missing_question": (SQUAD, line(SQUAD, without=["question"]), "no field 'question'"),
    "empty_context": (SQUAD, line(SQUAD, context=""), "context is empty"),
    "end_in_question": (SQUAD, line(SQUAD, question="Who</s>?"), "question holds </s>"),
    "long_question": (SQUAD, line(SQUAD, question="Who " * 90), "question alone has"),
    "long_context": (SQUAD, line(SQUAD, context=TEXT + " cat" * 90), "context has"),
    "missing_answers": (SQUAD, line(SQUAD, without=["answers"]), "no field 'answers'"),
    "answers_no_object": (SQUAD, line(SQUAD, answers=["cat"]), "as in SQuAD"),
    "starts_missing": (SQUAD, line(SQUAD, answers={"text": ["cat"]}), "as in SQuAD"),
    "unequal_lists": (SQUAD, line(SQUAD, answers={"text": ["cat"], "answer_start": []}), "two lists of one length"),
    "no_lists": (SQUAD, line(SQUAD, answers={"text": "cat", "answer_start": 4}), "two lists of one length"),
    "empty_answer": (SQUAD, line(SQUAD, answers={"text": [" "], "answer_start": [3]}), "an answer is ' '"),
    "start_no_number": (SQUAD, line(SQUAD, answers={"text": ["cat"], "answer_start": ["x"]}), "answer_start is 'x'"),
    "negative_start": (SQUAD, line(SQUAD, answers={"text": ["mat"], "answer_start": [-4]}), "answer_start is -4"),
    "answer_elsewhere": (SQUAD, line(SQUAD, answers={"text": ["cat"], "answer_start": [5]}), "has 'at '; it stands at 4"),
    "answer_nowhere": (SQUAD, line(SQUAD, answers={"text": ["dog"], "answer_start": [4]}), "not stand in the context at"),
    "second_answer_elsewhere": (
        SQUAD, line(SQUAD, answers={"text": ["cat", "mat"], "answer_start": [4, 9]}), "it stands at 19",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_line(read, name):
    task, bad, words = BAD_LINES[name]
    good = line(task)
    content = b"".join(part if isinstance(part, bytes) else part.encode() for part in (good, bad, b"\n"))
    message = problem_of(read, content, task)
    assert message.startswith("The training data has 1 problem; nothing was trained.\n  train.jsonl:2: ")
    assert words in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('text,summary\na,"b\n', "train.csv:2: not CSV"),
        ('text,summary\na,b\nc,"d"e\n', "train.csv:3: not CSV"),
        ("text,summary\na,b,c\n", "train.csv:2: the row has 3 values for 2 names"),
        ('text,summary\n"a\nb",c\n\nd\n', "train.csv:5: the row has 1 values for 2 names"),
        ("text,text\na,b\n", "train.csv:1: the line of names is 'text, text'"),
        ("text,\na,b\n", "train.csv:1: the line of names"),
        ("text;summary\na;b\n", "no field 'summary', only 'text;summary'"),
        (b"text,summary\na,\xff\n", "train.csv:2: byte 0xff"),
    ],
)
def test_bad_csv(read, content, words):
    assert words in problem_of(read, content, name="train.csv")


def test_bad_files(read, tmp_path, tokenizer, models):
    def refused(*paths, error=InputError):
        with pytest.raises(error) as found:
            read_dataset(paths, DataArguments(), tokenizer, models["summarization"])
        return str(found.value)

    (tmp_path / "good.jsonl").write_text(line())
    (tmp_path / "page.txt").write_text("text")
    assert "No file of documents" in refused()
    assert "gone.jsonl" in refused(tmp_path / "good.jsonl", tmp_path / "gone.jsonl", error=MissingFileError)
    assert "is a folder" in refused(tmp_path)
    assert "ends in .txt" in refused(tmp_path / "page.txt")
    assert "named twice" in refused(tmp_path / "good.jsonl", tmp_path / "good.jsonl")
    assert "There are no documents in train.jsonl" in problem_of(read, "\n\n")
    packed = gzip.compress((line() * 500).encode())
    assert "cannot be read on from here" in problem_of(read, packed[:-20], name="train.jsonl.gz")
    assert "cannot be read on from here" in problem_of(read, packed[:20] + b"\0" * 99, name="train.jsonl.gz")


def test_sizes_are_limited(read, monkeypatch):
    monkeypatch.setattr(records, "MOST_LINE_BYTES", 1 << 16)
    monkeypatch.setattr(records, "MOST_FILE_BYTES", 1 << 20)
    long_line = gzip.compress(b" " * (64 << 20))
    tracemalloc.start()
    assert "train.jsonl.gz:1: the line has more than" in problem_of(read, long_line, name="train.jsonl.gz")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert "the file has more than" in problem_of(read, gzip.compress(b"\n" * (2 << 20)), name="train.jsonl.gz")
    limit = csv.field_size_limit()
    assert "not CSV (field larger" in problem_of(read, 'text,summary\n"' + "a\n" * 70_000, name="train.csv")
    assert csv.field_size_limit() == limit


def test_problems_are_listed_up_to_a_limit(read):
    message = problem_of(read, {"a.jsonl": "x\n" * 3 + line() + "x\n" * 22, "b.jsonl": line(text="")})
    assert message.startswith("The training data has 26 problems; ")
    places = [found.split(": ")[0].strip() for found in message.splitlines()[1:-1]]
    assert places == [f"a.jsonl:{number}" for number in (1, 2, 3, *range(5, 22))]
    assert message.splitlines()[-1] == "  ... and 6 more"


def test_settings_that_the_model_does_not_have(read):
    with pytest.raises(SettingsError, match="'classification', but a LEDForConditionalGeneration is for summarization"):
        read(line(), data_task="classification")
    with pytest.raises(SettingsError, match="max_source_length is 62, but the model has 61 positions"):
        read(line(), max_source_length=62)
    small = small_model(vocab_size=100)
    assert "but the model has 100 ids" in problem_of(read, line(), model=small)
