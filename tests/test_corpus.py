"""Documents of JSON Lines, CSV and Parquet, named by file and line; results that are lines, with the ids of their documents."""

import csv
import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from led_ref.errors import InputError, LEDError
from led_ref.pipelines.corpus import Corpus

QUICK = ("--num-beams", "1", "--max-new-tokens", "4", "--batch-size", "2", "--quiet")  # blocks of 8 documents
TEXTS = [f"The archive holds {count} files, " + "and it lists them " * (count % 5) for count in range(11, 30)]


@pytest.fixture
def records(tmp_path):
    """19 documents with ids, one a line."""
    path = tmp_path / "papers.jsonl"
    lines = [json.dumps({"id": f"id {i}", "body": text, "title": "x"}) for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_kind_of_file_gives_the_same_documents(tmp_path, records):
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(records.read_bytes()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "body"], *([row["id"], row["body"]] for row in rows)])
    for name, first in (("papers.jsonl", 1), ("packed.jsonl.gz", 1), ("rows.parquet", 1), ("table.csv", 2)):
        corpus = Corpus([str(tmp_path / name)], "body")
        assert corpus.names == [f"{tmp_path / name}:{first + i}" for i in range(19)]
        assert [(given.id, given.text) for given in corpus.read()] == [(row["id"], row["body"]) for row in rows]
        assert [given.i for given in corpus.read(lambda i: i % 7 == 3)] == [3, 10, 17]
        with pytest.raises(InputError, match=r"is missing; there are .*body.*--text-field"):
            raise next(Corpus([str(tmp_path / name)]).read()).text
        assert [given.id for given in Corpus([str(tmp_path / name)], "body", "body").read()] == TEXTS


def test_line_ends_of_records(tmp_path):
    """CR LF and CR in a field are line feeds, as those of a text file, and as training reads them."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one\r\ntwo\rthree\n"}), encoding="utf-8")
    (tmp_path / "a.csv").write_bytes(b'text\r\n"one\r\ntwo\rthree\n"\r\n')
    parquet.write_table(pyarrow.table({"text": ["one\r\ntwo\rthree\n"]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert [given.text for given in Corpus([str(tmp_path / name)]).read()] == ["one\ntwo\nthree\n"]


def test_a_bad_record_is_one_bad_document(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'{"text": "one", "id": 7}\nno JSON\n\n["list"]\n{"text": 5}\n{"text": " "}\n\xff\n{"text": "two", "id": null}\n'
    )
    given = list(Corpus([str(path)]).read())
    assert [one.name.rpartition(":")[2] for one in given] == ["1", "2", "4", "5", "6", "7", "8"]
    assert [one.text for one in given if isinstance(one.text, str)] == ["one", "two"]
    assert [one.id for one in given] == [7, None, None, None, None, None, None]
    for one, words in zip(given[1:-1], ("not JSON", "an array", "'text' is 5", "'text' is empty", "0xff"), strict=True):
        assert isinstance(one.text, LEDError)
        assert str(one.text).startswith(f"{one.name}: ")
        assert words in str(one.text)
    assert "'id' is missing" in str(list(Corpus([str(path)], id_field="id").read())[3].text)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        Corpus([str(tmp_path / "bad.parquet")]).names  # noqa: B018


def test_lines_of_shards_are_those_of_one_process(tmp_path, records, command):
    run = ("summarize", records, *QUICK, "--text-field", "body", "--out")
    assert command(*run, tmp_path / "whole")[0] == 0
    _, lines, _ = command("gather", tmp_path / "whole")
    found = [json.loads(line) for line in lines.splitlines()]
    assert [line["id"] for line in found] == [f"id {i}" for i in range(19)]
    assert [line["file"] for line in found] == [f"{records}:{i + 1}" for i in range(19)]
    assert all(set(line) == {"file", "id", "text", "fingerprint"} for line in found)
    out = tmp_path / "out"
    for i in (2, 1):
        assert command(*run, out, "--shard", f"{i}/2")[0] == 0
    assert command("gather", out)[1] == lines
    assert command("gather", out, "--out", tmp_path / "all.parquet", "--quiet")[0] == 0
    assert parquet.read_table(tmp_path / "all.parquet").to_pylist() == found


def test_torn_line_is_written_again(tmp_path, records, command):
    out = tmp_path / "out"
    run = ("summarize", records, *QUICK, "--text-field", "body", "--out", out)
    assert command(*run)[0] == 0
    whole = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(whole[:-9])
    code, _, said = command("gather", out)
    assert (code, "1 of 19 results are missing" in said) == (1, True)
    code, printed, _ = command(*run, "--resume")
    assert (code, printed) == (0, f"{records}:{json.loads(whole.splitlines()[-1])['file'].rpartition(':')[2]}\n")
    assert (out / "results.jsonl").read_bytes() == whole
    for line in (b"not ours\n", b"[" * 10**5 + b"\n"):
        (out / "results.jsonl").write_bytes(line + whole)
        assert "holds at byte 0 what led-ref did not write" in command(*run, "--resume")[2]


def test_files_and_lines_are_not_mixed(tmp_path, command):
    (tmp_path / "a.txt").write_text("Pack files.", encoding="utf-8")
    run = ("summarize", tmp_path / "a.txt", *QUICK, "--out", tmp_path / "out")
    assert command(*run)[0] == 0
    code, _, said = command(*run, "--jsonl", "--resume")
    assert (code, "begun with results in files; this run has lines of JSON" in said) == (1, True)
    assert command(*run[:-1], tmp_path / "lines", "--jsonl")[0] == 0
    (line,) = (tmp_path / "lines" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    text = (tmp_path / "out" / "a.summary.txt").read_text(encoding="utf-8")
    assert json.loads(line) == {"file": str(tmp_path / "a.txt"), "text": text.removesuffix("\n")}


def test_a_full_disk_leaves_no_torn_line(tmp_path, monkeypatch):
    from led_ref.files import lines

    path = tmp_path / "results.jsonl"
    lines.append_line(path, {"file": "a"})

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lines.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            lines.append_line(path, {"file": "b"})
    assert path.read_bytes() == b'{"file": "a"}\n'


def test_records_are_printed_too(records, command):
    code, printed, _ = command("summarize", records, *QUICK[:4], "--quiet", "--text-field", "body")
    assert (code, len(printed.splitlines())) == (0, 19)
    assert printed.startswith(f"{records}:1: ")
