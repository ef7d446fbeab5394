"""The recipes for training data, on tiny inputs: nothing is on both sides of a split, and no target is in its document."""

import doctest
import gzip
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import led_ref
from led_ref.bundled.specifications import is_specification, specification_body
from led_ref.config import LEDConfig
from led_ref.weights.find_files import read_tensors
from led_ref.weights.safetensors_file import read_safetensors

ROOT = Path(__file__).parent.parent.parent
RECIPES = ROOT / "docs" / "recipes"


@pytest.fixture(scope="module")
def recipes():
    """The modules of docs/recipes, which is no package."""
    sys.path.insert(0, str(RECIPES))
    import descriptions
    import man_pages
    import pages
    import questions
    import rfcs
    import splits
    import stages
    import start
    import summary

    sys.path.remove(str(RECIPES))
    return {m.__name__: m for m in (descriptions, man_pages, pages, questions, rfcs, splits, stages, start, summary)}


def test_examples_of_the_recipes_hold(recipes):
    tried = [doctest.testmod(module) for module in recipes.values()]
    assert sum(found.failed for found in tried) == 0
    assert sum(found.attempted for found in tried) >= 10


def rfc(number, abstract, body="The echo service sends back each datagram. " * 40):
    """An RFC of two pages, in the form of the RFC Editor."""
    return f"""\n\nNetwork Working Group                                     J. Postel
Request for Comments: {number}                                            ISI
                                                               July 2003

                        Echo Protocol {number}

Status of This Memo

   Distribution is unlimited.

Abstract

   {abstract}

   It has a second paragraph.

Table of Contents

   1.  Introduction ................................................   4

1.  Introduction

   This protocol is useful for debugging, and a server for it listens
   on a port that is well known; as this line is the last of the page
\n\n\n\nPostel                      Informational                     [Page 1]
\f
RFC {number}                          Echo                          July 2003
\n\n   and goes on.

   {body}
"""


ABSTRACT = (
    "This memo describes a clock that never stops, and how a client asks it for the time of the day. [STANDARDS-TRACK]"
)


def test_abstract_is_cut_out_of_a_specification():
    text = rfc(862, ABSTRACT)
    body = specification_body(text)
    assert is_specification(text)
    for absent in ("clock", "second paragraph", "unlimited", "Abstract", "Contents", "[Page", "4\n"):
        assert absent not in body
    assert body.startswith(
        "Network Working Group J. Postel\nRequest for Comments: 862 ISI\nJuly 2003\nEcho Protocol 862\n1. Intro"
    )
    assert "on a port that is well known; as this line is the last of the page and goes on.\n" in body


@pytest.mark.parametrize(
    "status",
    [
        "This memo does not specify an Internet standard of any kind.",
        "This memo provides information for the Internet community. It does not specify an Internet standard of any kind.",
        "This document specifies an Internet Best Current Practices for the Internet Community, and requests discussion and "
        "suggestions for improvements.",
        "This memo documents an Internet Best Current Practice.",
        "This document defines a Historic Document for the Internet community.",
        "This document is not an Internet Standards Track specification; it is published for informational purposes.",
        "[STANDARDS-TRACK]",
    ],
)
def test_status_is_no_part_of_an_abstract(recipes, status):
    abstract_of = recipes["rfcs"].abstract_of
    assert abstract_of({"abstract": f"This memo describes a clock. {status}"}) == "This memo describes a clock."
    kept = "This memo specifies a standard clock for the Internet community [clock]"
    assert abstract_of({"abstract": f"{kept} {status}"}) == kept


def test_family_is_on_one_side(recipes):
    numbers = range(1, 301)
    facts = {
        n: {"abstract": ABSTRACT, "title": f"T{n}", "updates": [f"RFC{n - 1:04}"] if n % 3 else []} for n in numbers
    }
    found = list(recipes["rfcs"].records({n: rfc(n, ABSTRACT) for n in numbers}, facts))
    assert len(found) == 300
    assert {"train", "test", "validation"} == {one["split"] for one in found}
    sides = {}
    for one in found:
        assert one["family"] == f"rfc{max(1, int(one['id'][3:]) // 3 * 3)}"  # 3, 4, 5 are one family
        sides.setdefault(one["family"], set()).add(one["split"])
        assert one["summary"].startswith("This memo describes")
        assert one["summary"].endswith("time of the day.")
        assert one["summary"] not in one["text"]
    assert all(len(splits) == 1 for splits in sides.values())


def test_held_out_pages_are_never_trained_on(recipes):
    man = recipes["man_pages"]
    pages = [
        (f"p{i}.1", {"title": f"P{i}(1)", "name": f"p{i}", "description": f"does {i}", "body": f"B {i} " * 99})
        for i in range(600)
    ]
    trained = [one for one in man.records(pages) if one["split"] == "train"]
    assert 500 < len(trained) < 560
    by_description, by_body = trained[0], trained[1]
    held = [
        {"name": "other", "desc": by_description["summary"].split(" - ")[1].upper(), "body": "other"},
        {"name": "other", "desc": "other", "body": by_body["text"]},
    ]
    again = {one["id"]: one["split"] for one in man.records(pages, held)}
    assert again[by_description["id"]] == again[by_body["id"]] == "test"
    assert sum(split == "train" for split in again.values()) == len(trained) - 2
    copies = [(f"copy{i}.1", found) for i, (_, found) in enumerate(pages)]
    assert len(list(man.records([*pages, *copies]))) == 600


def test_page_without_its_name_section(recipes):
    text = (
        "LS(1)   User Commands   LS(1)\n\nNAME\n     ls, dir - list  files\n\nDESCRIPTION\n"
        + "     Lists a folder.\n" * 30
        + "\nGNU\n"
    )
    found = recipes["man_pages"].page(text)
    assert (found["title"], found["name"], found["description"]) == ("LS(1) User Commands LS(1)", "ls", "list files")
    assert found["body"].startswith("DESCRIPTION\nLists a folder.")
    assert "list files" not in found["body"]
    assert "GNU" not in found["body"]


def test_packages_of_a_source_are_on_one_side(recipes):
    packages = [
        {"Package": f"p{i}-{k}", "Source": f"p{i} (1.0)", "Section": "contrib/net"} for i in range(150) for k in "ab"
    ]
    translations = [
        {
            "Package": one["Package"],
            "Description-en": f"short {one['Package']}\n A long one of {one['Package']},\n " + "word " * 20,
        }
        for one in packages
    ]
    found = list(recipes["descriptions"].records(packages, translations))
    assert len(found) == 300
    assert {one["label"] for one in found} == {"net"}
    sides = [{one["split"] for one in found if one["id"].startswith(f"p{i}-")} for i in range(150)]
    assert all(len(splits) == 1 for splits in sides)
    assert len(set.union(*sides)) == 3


MAN = """-d, --decompress
Decompress the file and remove what was read. It is fast.
-f Force compression even if the file has several links.
-q, --quiet
Say nothing at all, whatever goes wrong. Never.
-f Force again, which makes it ambiguous here."""


def test_answers_stand_where_they_say(recipes):
    module = recipes["questions"]
    found = module.statements(MAN, "man_pages")
    assert [(one.subject, one.text) for one in found] == [
        ("-d", "Decompress the file and remove what was read"),
        ("-q", "Say nothing at all, whatever goes wrong"),
    ]
    found = module.statements(
        "o Time stamp (TS): The 32 bits of the clock. More.\nNote: The clock may be wrong here.", "rfcs"
    )
    assert [(one.subject, one.text) for one in found] == [("Time stamp (TS)", "The 32 bits of the clock")]
    asked = []
    for i in range(200):
        text = "\n".join([f"Line {k} of text number {i}." for k in range(i)] + [MAN])
        record = {"id": f"r{i}", "split": ("train", "test")[i % 2], "text": text}
        asked += [(record, one) for one in module.questions(record, "man_pages", "short", ["--elsewhere"])]
    without = [one for _, one in asked if not one["answer"]]
    assert 0.1 < len(without) / len(asked) < 0.3
    assert all("--elsewhere" in one["question"] for one in without)
    for record, one in asked:
        start = one["answer_start"]
        assert not one["answer"] or one["context"][start : start + len(one["answer"])] == one["answer"]
        tested = [
            re.escape(wording).replace(r"\{\}", ".+") for kind in module.TEST_WORDINGS.values() for wording in kind
        ]
        is_wording_of_tests = any(re.fullmatch(wording, one["question"]) for wording in tested)
        assert is_wording_of_tests == (record["split"] == "test"), one["question"]
    trained = {wording for kind in module.WORDINGS.values() for wording in kind}
    assert trained.isdisjoint(wording for kind in module.TEST_WORDINGS.values() for wording in kind)


def test_tiny_questions_give_the_beginning_of_a_sentence(recipes):
    module = recipes["questions"]
    sentences = [f"Sentence {word} says something that nobody else would ever say of it." for word in ("one", "two")]
    twice = "The same words stand here twice and are therefore asked for by nobody."
    text = "\n".join([" ".join(sentences), twice, twice, *(f"Line {i} is short." for i in range(400)), MAN])
    found = module.begun(text)
    assert [text[one.start : one.text_start].rstrip(" ,") for one in found] == [one.subject for one in found]
    assert [text[one.start : one.text_start + len(one.text) + 1] for one in found[:2]] == sentences
    assert not any(one.subject.startswith("The same") for one in found)
    assert all(2 <= len(one.subject.split()) <= 4 for one in found)
    record = {"id": "r", "split": "train", "text": text}
    asked = list(module.questions(record, "man_pages", "tiny", ["--elsewhere"]))
    assert len(asked) >= 4
    assert all(len(one["context"]) <= module.CHARACTERS["tiny"][1] + 200 for one in asked)  # whole lines
    for one in asked:
        start = one["answer_start"]
        assert not one["answer"] or one["context"][start : start + len(one["answer"])] == one["answer"]


def test_pieces_lack_answers_that_stand_elsewhere(recipes):
    module = recipes["questions"]
    filler = [f"This is line {i}, and it says nothing of it." for i in range(200)]
    text = "\n".join([*filler[:100], MAN, *filler[100:], "Think twice before you give -q to anything."])
    record = {"split": "train", "text": text}
    asked = [
        one
        for i in range(200)
        for one in module.questions(record | {"id": f"r{i}"}, "man_pages", "pieces", ["--other"])
    ]
    about_q = [one for one in asked if "-q" in one["question"]]
    elsewhere = [one for one in about_q if not one["answer"]]
    assert 0.3 < len(elsewhere) / len(about_q) < 0.7
    assert not any("Say nothing at all" in one["context"] for one in elsewhere)
    assert any("Think twice" in one["context"] for one in elsewhere)  # what names the subject without an explanation
    assert any("Think twice" not in one["context"] for one in elsewhere if "?" in one["question"])
    assert all(len(one["context"]) <= module.CHARACTERS["pieces"][1] for one in asked)
    for one in asked:
        start = one["answer_start"]
        assert not one["answer"] or one["context"][start : start + len(one["answer"])] == one["answer"]
    assert all(not one["answer"] for one in asked if "--other" in one["question"])


def test_stages_cut_documents_and_targets(recipes):
    stages = recipes["stages"]
    record = {
        "id": "rfc1",
        "split": "train",
        "title": "",
        "summary": "One two. " * 100,
        "text": ("Word " * 40 + "end.\n") * 200,
    }
    found = list(stages.of_split([record], "rfcs", "first", "train"))
    pieces = [one for one in found if "#" in one["id"]]
    assert [one["id"] for one in found] == ["rfc1", *(f"rfc1#{i}" for i in range(stages.PIECES["rfcs"]))]
    assert len(found[0]["text"]) <= 1_000
    assert len(found[0]["summary"].split()) == stages.WORDS_OF_TARGET
    assert all(one["summary"] in record["text"] and len(one["summary"]) <= stages.PIECE.stop for one in pieces)
    assert list(stages.of_split([record], "rfcs", "first", "validation")) == []
    (whole,) = stages.of_split([record], "rfcs", "short", "train")  # later stages have no pieces
    assert whole["id"] == "rfc1"


def test_documents_come_with_and_without_their_head(recipes):
    stages = recipes["stages"]
    pages = [
        {"id": f"{i}.1.gz", "split": "train", "title": "LS(1)", "summary": "ls - list files", "text": "SYNOPSIS\nls"}
        for i in range(40)
    ]
    titled, untitled = "LS(1)\nSYNOPSIS\nls", "SYNOPSIS\nls"
    found = list(stages.of_split(pages, "man_pages", "short", "train"))
    assert [one["text"] for one in found] == [titled, untitled] * 40
    assert [one["id"] for one in found[:2]] == ["0.1.gz titled", "0.1.gz"]
    found = [one["text"] for one in stages.of_split(pages, "man_pages", "medium", "train")]
    assert 8 < found.count(titled) < 32
    assert found.count(titled) + found.count(untitled) == 40
    head, own = "Network Working Group\nRFC: 1\n", "Echo\nIt echoes."
    rfcs = [
        {"id": f"rfc{i}", "split": "train", "title": "Echo", "summary": "An echo.", "text": head + own}
        for i in range(40)
    ]
    found = [one["text"] for one in stages.of_split(rfcs, "rfcs", "medium", "train")]
    assert 8 < found.count(own) < 32
    assert found.count(own) + found.count(head + own) == 40
    assert {one["text"] for one in stages.of_split(rfcs, "rfcs", "short", "train")} == {head + own}
    without = [{**pages[0], "title": ""}]
    assert [one["text"] for one in stages.of_split(without, "man_pages", "short", "train")] == [untitled]
    assert list(stages.of_split([{**pages[0], "summary": ""}], "man_pages", "short", "train")) == []


def test_a_third_of_the_words_is_masked(recipes):
    stages = recipes["stages"]
    text = "\n".join(" ".join(f"w{i}-{k}" for k in range(9)) for i in range(400))
    found = stages.masked(text, random.Random(1))
    assert found == stages.masked(text, random.Random(1)) != stages.masked(text, random.Random(2))
    kept = found.replace("<mask>", " <mask> ").split()
    words = [word for word in kept if word != "<mask>"]
    assert 0.27 < 1 - len(words) / 3600 < 0.33
    assert "<mask> <mask>" not in " ".join(kept)
    of_text = iter(text.split())
    assert all(word in of_text for word in words)  # in their order
    assert "\n" in found


def test_trainings_run_and_resume(recipes, tmp_path):
    """All stages of all models, two steps each, on the data of a dozen documents; the second call has nothing to do."""
    write = recipes["splits"].write_lines
    stages = tmp_path / "data" / "stages"
    stages.mkdir(parents=True)
    (tmp_path / "data" / "test").mkdir()
    (tmp_path / "data" / "test" / "labels.jsonl.gz").touch()  # the data is whole
    texts = [{"id": str(i), "text": "The cat sat on a mat. " * (i + 1), "summary": "a cat"} for i in range(8)]
    labels = [{**one, "label": ("net", "doc")[i % 2]} for i, one in enumerate(texts)]
    asked = [{"question": "Who sat?", "context": one["text"], "answer": "cat", "answer_start": 4} for one in texts]
    records = {
        "first": texts,
        "short": texts,
        "medium": texts,
        "long": texts,
        "labels": labels,
        "questions-tiny": asked,
        "questions-middle": asked,
        "questions-pieces": asked,
    }
    for name, some in records.items():
        write(stages / f"{name}.jsonl.gz", some)
        write(stages / f"{name}-heldout.jsonl.gz", some[:2])
    sources = {"rfcs": texts, "man_pages": texts, "descriptions": texts}
    for name, some in sources.items():
        write(tmp_path / "data" / f"{name}.jsonl.gz", [{**one, "split": "train"} for one in some])
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": paths,
        "STEPS": "2",
        "OPENBLAS_NUM_THREADS": "1",
    }
    subprocess.run([sys.executable, RECIPES / "vocabulary.py", tmp_path / "data", "300"], env=environment, check=True)

    def run(what):
        return subprocess.run(
            [RECIPES / "train.sh", tmp_path, what], env=environment, capture_output=True, text=True, check=True
        )

    assert run("all").stdout.count("is done") == 13
    assert run("all").stdout == ""
    models = tmp_path / "models"
    assert LEDConfig.from_pretrained(models / "summarizer").max_encoder_position_embeddings == 8192
    tiled = read_safetensors(models / "summarizer-tiled" / "model.safetensors")[
        "led.encoder.embed_positions.weight"
    ].data
    assert np.array_equal(tiled[:1024], tiled[-1024:])
    assert json.loads((models / "answerer-pieces.json").read_text())["steps"] == 2
    key = "led.encoder.layers.0.fc1.weight"
    before, after, mean = (
        read_safetensors(models / name / "model.safetensors")[key].data
        for name in ("answerer-most", "answerer-pieces", "answerer")
    )
    assert not np.array_equal(before, after)
    assert np.array_equal(mean, (before + after) / 2)
    assert json.loads((models / "summarizer" / "generation_config.json").read_text())["no_repeat_ngram_size"] == 3
    assert sorted(LEDConfig.from_pretrained(models / "classifier").id2label.values()) == ["doc", "net"]
    ids = json.loads((tmp_path / "data" / "vocabulary" / "vocab.json").read_text())
    assert [ids[token] for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [0, 1, 2, 3, len(ids) - 1]
    with gzip.open(stages / "first.jsonl.gz", "rt") as lines:
        assert len(list(lines)) == 8


def test_stage_that_fails_stops_the_recipe(tmp_path):
    """It is not marked as done, and none comes after it."""
    (tmp_path / "data" / "test").mkdir(parents=True)
    (tmp_path / "data" / "test" / "labels.jsonl.gz").touch()
    failing = tmp_path / "python"
    failing.write_text('#!/bin/sh\necho "$@" >>"$0.calls"\ncase "$*" in *led_ref.cli*) exit 3;; esac\n')
    failing.chmod(0o755)
    for what in ("summarizer", "classifier", "answerer", "all"):
        done = subprocess.run(
            [RECIPES / "train.sh", tmp_path, what],
            env=os.environ | {"PYTHON": str(failing)},
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert "is done" not in done.stdout
        assert (
            sum("led_ref.cli.main train" in line for line in (tmp_path / "python.calls").read_text().splitlines()) == 1
        )
        assert not list((tmp_path / "models").glob("*.done"))
        (tmp_path / "python.calls").unlink()


def test_other_models_begin_as_the_summarizer(tmp_path):
    """As the one that was trained there, else as the one that is shipped."""
    (tmp_path / "data" / "test").mkdir(parents=True)
    (tmp_path / "data" / "test" / "labels.jsonl.gz").touch()
    noting = tmp_path / "python"
    noting.write_text('#!/bin/sh\necho "$@" >>"$0.calls"\n')
    noting.chmod(0o755)

    def begins_as(what):
        (tmp_path / "python.calls").unlink(missing_ok=True)
        subprocess.run(
            ["bash", RECIPES / "train.sh", tmp_path, what],
            env=os.environ | {"PYTHON": str(noting)}, capture_output=True,
        )  # fmt: skip
        return Path((tmp_path / "python.calls").read_text().split(" tile ")[1].split()[0]).resolve()

    for what in ("classifier", "answerer"):
        assert begins_as(what) == led_ref.bundled_model()
    (tmp_path / "models" / "summarizer.done").touch()
    (tmp_path / "models" / "answerer-tiny.done").unlink()
    (tmp_path / "models" / "classifier-first.done").unlink()
    for what in ("classifier", "answerer"):
        assert begins_as(what) == tmp_path / "models" / "summarizer"


def test_summary_of_a_log(recipes, tmp_path, capsys):
    lines = [{"step": i, "loss": 4 - i / 100, "tokens": 9000, "seconds": 2.0} for i in range(1, 121)]
    lines.insert(60, {"step": 60, "eval_loss": 3.5})
    lines.insert(61, {"step": 61, "skipped": "the loss is nan", "documents": []})
    lines.append({"step": 120, "eval_loss": 3.25})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipes["summary"].main(tmp_path, tmp_path / "thin.jsonl")
    assert capsys.readouterr().out == f"| {tmp_path.name} | 120 | 1.1 | 0.07 | 4,500 | 2.85 | 3.25 |\n"
    thinned = [json.loads(line) for line in (tmp_path / "thin.jsonl").read_text().splitlines()]
    assert [line["step"] for line in thinned] == [50, 60, 60, 110, 120, 120]
    assert sum(line.get("tokens", 0) for line in thinned) == 120 * 9000


def test_the_shipped_files_are_made_by_the_recipe(tmp_path):
    """What led_ref ships, converted to one file and bundled again, is the same files."""
    from led_ref.weights.convert import convert

    shipped, out = led_ref.bundled_model(), tmp_path / "bundled"
    convert(shipped, tmp_path / "half", dtype="float16")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
    subprocess.run(
        [sys.executable, RECIPES / "bundle.py", tmp_path / "half", out],
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
    )
    assert (out / "SHA256SUMS").read_text() == (shipped / "SHA256SUMS").read_text()
    assert max(path.stat().st_size for path in out.iterdir()) < 10**7


def test_positions_of_a_float16_model_are_tiled(tmp_path):
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
    subprocess.run(
        [sys.executable, RECIPES / "start.py", "tile", led_ref.bundled_model(), tmp_path / "tiled", "--positions", "20000"],
        env=os.environ | {"PYTHONPATH": paths}, check=True,
    )  # fmt: skip
    before, after = (
        {key: tensor.to_numpy() for key, tensor in read_tensors(folder).items()}
        for folder in (led_ref.bundled_model(), tmp_path / "tiled")
    )
    positions = "led.encoder.embed_positions.weight"
    assert np.array_equal(after[positions], np.resize(before[positions], (20000, 192)))
    assert all(np.array_equal(after[key], before[key]) for key in before if key != positions)
    assert led_ref.load(tmp_path / "tiled").generate("gzip", max_new_tokens=3)


def test_names_and_descriptions_are_counted_apart(recipes, tmp_path):
    module = recipes["pages"]
    held = [
        {"path": f"{name}.1", "name": name, "desc": desc, "body": f"About {desc}."}
        for name, desc in (
            ("Ls", "list files"),
            ("tar", "keep files"),
            ("cp", "copy - or clone - files"),
            ("rm", "remove"),
        )
    ]
    with gzip.open(tmp_path / "held.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, held)))
    module.lines(tmp_path / "held.gz", tmp_path / "pages.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "pages.jsonl").read_text().splitlines()]
    assert lines[2] == {
        "id": "cp.1",
        "text": "About copy - or clone - files.",
        "summary": "cp - copy - or clone - files",
    }
    texts = {
        0: "LS - list files",
        2: "ln - copy - or clone - files",
        1: "tar keep files",
    }  # of the last one nothing was written
    written = [json.dumps({"document": i, "text": t}) + "\n" for i, t in texts.items()]
    (tmp_path / "written.jsonl").write_text(written[0])
    (tmp_path / "written.2-of-2.jsonl").write_text("".join(written[1:]))  # as of a shard
    found = module.score(tmp_path / "pages.jsonl", tmp_path)
    assert (found["pages"], found["names right, percent"]) == (4, 25.0)
    assert found["rougeL of descriptions"].startswith("70.00 (")  # (1 + 0.8 + 1 + 0) / 4
