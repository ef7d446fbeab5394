"""led_ref.evaluate and its command: the report, what is refused, a run that was cut off, answers, labels, the page."""

import json

import pytest
from test_classifying import judge
from training.small_models import small_model

import led_ref
from led_ref.errors import InputError, SettingsError
from led_ref.files.staging import staging
from led_ref.tools.evaluation import writer as module
from led_ref.tools.evaluation.copied import copied_runs
from led_ref.tools.evaluation.scores import rouge

PAGES = [
    ("gzip reduces the size of the named files. It keeps their mode. " * 4, "compress files"),
    ("tar makes archives, and lists & takes out <b>files</b> of them.", "an archiver. It lists files."),
    ("ls lists the files of a folder, by name.", "list files"),
    ("cat prints files one after the other on standard output.", "print files"),
    ("sort writes the sorted lines of all files.", "sort lines"),
]
FIELDS = {"text_field": "body", "target_field": "line"}


@pytest.fixture
def scene(tmp_path, monkeypatch, bundled):
    """A folder with five pages, and a tiny model that reads 61 tokens."""
    monkeypatch.chdir(tmp_path)
    small_model().save_pretrained(tmp_path / "model", others=bundled.tokenizer.save_pretrained)
    write(
        tmp_path / "pages.jsonl",
        [{"body": body, "line": line, "name": f"n{i}"} for i, (body, line) in enumerate(PAGES)],
    )
    return tmp_path


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def evaluate(**options):
    return led_ref.evaluate(
        "pages.jsonl", **{"model": "model", "truncate": True, "max_new_tokens": 4, "samples": 20} | FIELDS | options
    )


def test_tokens_with_global_attention(scene, command, monkeypatch):
    """As in generate: tokens wherever they stand; documents of one file have no names for a .json file."""
    write_each, seen = module.write_each, []
    monkeypatch.setattr(
        module,
        "write_each",
        lambda model, documents, *rest, **options: (
            seen.extend(documents) or write_each(model, documents, *rest, **options)
        ),
    )
    found = evaluate(global_attention=[0, "</s>"], out="scores")
    assert found.to_dict()["settings"]["global_attention"] == [0, "</s>"]
    masks = [document.global_mask for document in seen]
    assert masks == [[1, *[0] * (len(document.ids) - 2), 1] for document in seen]
    (scene / "global.json").write_text('{"pages.jsonl": "none"}')
    code, _, err = command("evaluate", "pages.jsonl", "--global-attention", "global.json")
    assert (code, "where each document is a file" in err) == (2, True)


def test_the_report_of_the_command(scene, command):
    options = ("--text-field", "body", "--target-field", "line", "--samples", "30", "--sentences", "split", "--stemmer")
    code, out, err = command(
        "evaluate", "pages.jsonl", *options, "--baseline", "lead", "4", "--baseline", "copy", "name", "--baseline", "lead",
        "--compare", "arxiv", "--out", "scores", "--html", "page.html", "--json", "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report == json.loads((scene / "scores/scores.json").read_text())
    lines = [json.loads(line) for line in (scene / "scores/written.jsonl").read_text().splitlines()]
    written = [line["text"] for line in sorted(lines, key=lambda line: line["document"])]
    assert written == led_ref.generate([body for body, _ in PAGES])
    assert lines[0]["place"] == "pages.jsonl:1"  # the longest is written first
    references = [[line] for _, line in PAGES]
    for name, texts in {
        "lead 4": [" ".join(body.split()[:4]) for body, _ in PAGES],
        "copy name": [f"n{i}" for i in range(5)],
        "lead 3": [" ".join(body.split()[:3]) for body, _ in PAGES],  # 13 words in 5 references
    }.items():
        expected = rouge(references, texts, stemmer=True, sentences="split")
        assert {key: value["value"] for key, value in report["baselines"][name].items()} == {
            key: values.mean() for key, values in expected.items()
        }
    expected = rouge(references, written, stemmer=True, sentences="split")
    assert report["scores"]["rouge1"]["value"] == expected["rouge1"].mean() > 0
    assert (report["documents"], report["cut_off"], report["measured_by"]["stemmer"]) == (5, 0, True)
    assert report["measured_by"]["sentences of ROUGE-Lsum"].startswith("split: ")
    assert report["settings"]["num_beams"] == 4
    assert report["published"][0]["rougeLsum"] == 41.83
    code, out, err = command("evaluate", "pages.jsonl", *options[:4], "--compare", "billsum", "--max-documents", "2")
    assert code == 0
    assert "ROUGE-Lsum is left out. References with several sentences on one line: 1;" in out
    assert "ROUGE-Lsum is left out" in err
    assert "published for billsum" in out


def test_a_run_that_was_cut_off_goes_on(scene, monkeypatch):
    whole = evaluate(out="whole", batch_size=2)
    assert whole.report["cut_off"] == 1
    evaluate(out="cut", batch_size=2)
    (scene / "cut/scores.json").unlink()
    content = (scene / "cut/written.jsonl").read_bytes().splitlines(keepends=True)
    (scene / "cut/written.jsonl").write_bytes(b"".join(content[:2]) + content[2][:17])
    skipped = []
    plain = module.write_each
    monkeypatch.setattr(
        module, "write_each", lambda *given, **named: skipped.append(named["skip"]) or plain(*given, **named)
    )
    again = evaluate(out="cut", batch_size=2, resume=True, stemmer=True)  # what changes no text may be another
    assert [len(skip) for skip in skipped] == [2]
    assert again.written == whole.written
    assert (scene / "cut/written.jsonl").read_bytes() == b"".join(content)
    with pytest.raises(InputError, match=r"cut holds led-ref.json already.*--resume"):
        evaluate(out="cut")
    with pytest.raises(
        InputError, match="cut was begun with max_length 5, max_new_tokens 4; this run has max_length 6"
    ):
        evaluate(out="cut", resume=True, max_new_tokens=5)
    write(scene / "pages.jsonl", [{"body": "Another text.", "line": "one"}])
    with pytest.raises(InputError, match="sha256 of the documents"):
        evaluate(out="cut", resume=True)


def test_shards_write_the_texts_of_one_process(scene, monkeypatch):
    whole = evaluate(out="whole", batch_size=2, stemmer=True)
    parts = [evaluate(out="parts", batch_size=2, shard=f"{i}/2") for i in (2, 1)]
    assert [part.report["documents"] for part in parts] == [
        2,
        3,
    ]  # of three batches the second; the first and the third
    assert parts[0].report["settings"]["shard"] == "shard 2 of 2"
    assert sorted(path.name for path in (scene / "parts").iterdir()) == [
        "led-ref.json", "written.1-of-2.jsonl", "written.2-of-2.jsonl",
    ]  # fmt: skip
    lines = [line for i in (1, 2) for line in (scene / f"parts/written.{i}-of-2.jsonl").read_bytes().splitlines()]
    assert sorted(lines) == sorted((scene / "whole/written.jsonl").read_bytes().splitlines())
    for options, words in (
        ({"shard": "1/2"}, r"parts holds written.1-of-2.jsonl already.*--resume"),
        ({}, r"parts holds led-ref.json already.*--resume"),
        ({"shard": "1/2", "resume": True, "max_new_tokens": 5}, "max_new_tokens 4; this run has max_length 6"),
        ({"shard": "4/4"}, "no document for shard 4 of 4: all 5 are in others"),
        ({"shard": "1/2", "out": None}, "this is shard 1 of 2, but no folder of a run is named"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate(**{"out": "parts", "batch_size": 2, **options})
    with (
        staging(scene / "parts/written.1-of-2.jsonl", alone=True),
        pytest.raises(InputError, match=r"Another run writes written.1-of-2.jsonl into parts now"),
    ):
        evaluate(out="parts", batch_size=2, shard="1/2", resume=True)
    monkeypatch.setattr(module, "write_each", lambda *given, skip, **_: iter(()) if len(skip) == 5 else 1 / 0)
    assert evaluate(out="parts", batch_size=2, resume=True, stemmer=True).report == whole.report
    assert json.loads((scene / "parts/scores.json").read_text()) == whole.report


REFUSED = [
    (
        {"truncate": False},
        InputError,
        r"The data has 1 problem; nothing was evaluated\.\n  pages\.jsonl:1: .*--truncate",
    ),
    ({"target_field": "nothing"}, InputError, r"has 5 problems.*pages\.jsonl:5: there is no field 'nothing'"),
    (
        {"baselines": ["copy title"]},
        InputError,
        r"pages\.jsonl:1: the field 'title', which a baseline copies, is not there",
    ),
    ({"baselines": ["lead 0"]}, SettingsError, r"The baseline 'lead 0' does not exist\. Give 'lead'"),
    ({"compare": "xsum"}, SettingsError, r"no published rows for 'xsum'; there are some for arxiv, pubmed"),
    ({"samples": 0}, SettingsError, r"samples of the bootstrap is 0"),
    ({"do_sample": True, "num_beams": 1}, SettingsError, r"do_sample is True without a seed"),
    ({"num_beams": 2, "num_return_sequences": 2}, SettingsError, r"num_return_sequences is 2, but one text"),
    ({"task": "translation"}, SettingsError, r"task is 'translation'; it is one of summarization"),
    ({"resume": True}, InputError, r"no folder of a run is named.*--out"),
    ({"out": "none/scores"}, FileNotFoundError, r"There is no folder none to make scores in"),
    ({"html": "none/page.html"}, FileNotFoundError, r"There is no folder none for page\.html"),
]


@pytest.mark.parametrize(("options", "kind", "message"), REFUSED, ids=[str(case[0])[:40] for case in REFUSED])
def test_what_is_refused(scene, options, kind, message):
    with pytest.raises(kind, match=f"(?s){message}"):
        evaluate(**options)
    assert sorted(path.name for path in scene.iterdir()) == ["model", "pages.jsonl"]


def test_wrong_usage(scene, command):
    assert command("evaluate", "--baseline", "lead", "pages.jsonl")[0] == 2
    assert command("evaluate", "--baseline", "copy")[0] == 2
    code, _, err = command("evaluate", "--model", "model")
    assert (code, "give a file of documents, DATA" in err) == (2, True)


def test_answers(scene, bundled, monkeypatch):
    small_model("question-answering").save_pretrained("qa", others=bundled.tokenizer.save_pretrained)
    lines = [
        {
            "question": "what lists?",
            "context": "ls lists files",
            "answers": {"text": ["ls", "lists"], "answer_start": [0, 3]},
        },
        {"question": "what else?", "context": "tar packs", "answers": {"text": [], "answer_start": []}},
        {"question": "who?", "context": "the cat sat", "answers": ["The Cat!"]},
    ]
    lines.append({"question": "what?", "context": "the cat sat", "answer": "sat"})
    write(scene / "squad.jsonl", lines)
    asked = []
    plain = led_ref.QuestionAnswerer.answer
    monkeypatch.setattr(
        led_ref.QuestionAnswerer, "answer", lambda *given, **named: asked.append(named) or plain(*given, **named)
    )
    found = led_ref.evaluate("squad.jsonl", "qa", samples=5, out="scores", html="page.html")
    expected = [
        led_ref.answer(line["question"], line["context"], "qa", handle_impossible_answer=True)[0].answer
        for line in lines
    ]
    assert found.written == expected
    assert [named["handle_impossible_answer"] for named in asked[:4]] == [True] * 4  # one question of the data has none
    assert [case.right for case in found.cases] == [("ls", "lists"), (), ("The Cat!",), ("sat",)]
    assert found.report["measured_by"]["questions without an answer"] == 1
    assert found.scores["no_answer_accuracy"].value == 100.0 * (expected[1] == "")
    assert found.report["settings"]["may_have_no_answer"] is True
    assert "there is no answer" in (scene / "page.html").read_text()
    with pytest.raises(SettingsError, match="stemmer is for summaries, but the task is question-answering"):
        led_ref.evaluate("squad.jsonl", "qa", stemmer=True)
    write(scene / "squad.jsonl", [{**lines[0], "answers": 7}])
    with pytest.raises(InputError, match=r"squad.jsonl:1: answers is 7; give .* as in SQuAD"):
        led_ref.evaluate("squad.jsonl", "qa")


def test_labels(scene, bundled):
    judge(bundled.tokenizer).save_pretrained("judge", others=bundled.tokenizer.save_pretrained)
    texts = [("It is tar", "packs"), ("It is ls", "lists"), ("It is it", 0), ("one tar", "neither")]
    write(scene / "labels.jsonl", [{"text": text, "label": label} for text, label in texts])
    found = led_ref.evaluate("labels.jsonl", "judge", samples=5, baselines=["copy text"])
    assert found.written == ["packs", "lists", "lists", "packs"]
    assert found.report["confusions"] == {
        "lists": {"lists": 1},
        "neither": {"packs": 1},
        "packs": {"lists": 1, "packs": 1},
    }
    assert found.scores["accuracy"].value == 50
    assert found.report["baselines"]["copy text"]["accuracy"]["value"] == 0
    assert "       1  neither, taken for packs" in found.lines()
    judge(bundled.tokenizer, "regression").save_pretrained("other", others=bundled.tokenizer.save_pretrained)
    with pytest.raises(SettingsError, match="3 labels and the problem type regression; one of several"):
        led_ref.evaluate("labels.jsonl", "other")


def test_the_page(scene):
    evaluate(html="page.html", baselines=["lead"])
    page = (scene / "page.html").read_text()
    assert [page.count(f"<h3>pages.jsonl:{i}: ROUGE-L ") for i in range(1, 6)] == [1] * 5
    assert "lists &amp; takes out &lt;b&gt;files&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "61 tokens, cut off" in page
    assert "http" not in page


def test_copied_runs():
    written, document = (
        "Pack files, then list THE files again.",
        "It can pack files; then list the files. List the files again!",
    )
    runs, origins, share = copied_runs(written, document)
    assert [written[slice(*run)] for run in runs] == ["Pack files, then list THE files"]
    assert [document[slice(*run)] for run in origins] == ["pack files; then list the files"]
    assert share == 6 / 7
    assert copied_runs("", "a b c") == copied_runs("a b", "a b c") == ([], [], 0.0)
