"""`--shard I/N` and `led-ref gather`: a partition of the documents, whoever computes them, and nothing lost."""

import random
from pathlib import Path

import pytest
from short_documents import write_documents

from led_ref.errors import InputError
from led_ref.pipelines.result_folder import ResultFolder
from led_ref.pipelines.shards import Shard, shard_of

QUICK = ("--num-beams", "1", "--max-new-tokens", "4", "--batch-size", "2", "--quiet")  # blocks of 8 documents


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return list(map(str, write_documents(tmp_path_factory.mktemp("documents"), 29)))


@pytest.fixture
def whole(files, tmp_path, command):
    """The folder of one process, and what is gathered from it."""
    assert command("summarize", *files, "--out", tmp_path / "whole", *QUICK, "--json")[0] == 0
    code, lines, _ = command("gather", tmp_path / "whole")
    assert (code, len(lines.splitlines())) == (0, len(files))
    return tmp_path / "whole", lines


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("led-ref")}


def test_shards_give_the_bytes_of_one_process(files, whole, tmp_path, command):
    out, printed = tmp_path / "out", []
    for i in (3, 1, 2):
        order = random.Random(i).sample(files, len(files))
        code, paths, _ = command("summarize", *order, "--out", out, "--shard", f"{i}/3", *QUICK, "--json")
        assert code == 0
        printed += paths.split()
        code, _, said = command("gather", out)
        if i != 2:
            assert (code, "holds nothing of shard 2 of 3" in said or "shard 1 of 3, 2 of 3" in said) == (1, True)
    assert len(printed) == len(set(printed)) == len(files)
    assert results(out) == results(whole[0])  # ids and scores, too
    assert command("gather", out)[:2] == (0, whole[1])
    assert command("gather", out, "--out", tmp_path / "all.jsonl", "--quiet") == (0, "", "")
    assert (tmp_path / "all.jsonl").read_text(encoding="utf-8") == whole[1]
    assert "exists already" in command("gather", out, "--out", tmp_path / "all.jsonl")[2]


def test_gather_names_what_is_missing(files, whole, command):
    folder, lines = whole
    (folder / "07.summary.json").unlink()
    code, printed, said = command("gather", folder)
    assert (code, printed) == (1, "")
    assert "1 of 29 results are missing" in said
    assert ": 07.summary.json. Run it again with --resume" in said
    code, printed, said = command("gather", folder, "--partial")
    assert (code, "28 of 29 results" in said) == (0, True)
    assert printed.splitlines() == [line for line in lines.splitlines() if '"07.summary.json"' not in line]
    assert command("summarize", *files, "--out", folder, "--resume", *QUICK, "--json")[0] == 0
    assert command("gather", folder)[1] == lines
    (folder / "07.summary.json").write_text("torn", encoding="utf-8")
    assert "07.summary.json is no result of led-ref" in command("gather", folder)[2]


def test_folders_of_other_runs_are_refused(files, tmp_path, command):
    out = tmp_path / "out"
    shard = ("summarize", *files[:20], "--out", out, *QUICK, "--shard")
    assert command(*shard, "1/3")[0] == 0
    before = {path.name for path in out.iterdir()}
    for words, *arguments in (
        ("num_beams 1; this run has num_beams 2", *shard, "2/3", "--num-beams", "2"),
        ("was begun with 20 documents in blocks of 8; this run has 29", "summarize", *files, *shard[21:], "2/3"),
        ("in blocks of 8; this run has 20 in blocks of 12", *shard, "2/3", "--batch-size", "3"),
        ("is of a run of 3 shards; this is shard 2 of 4", *shard, "2/4"),
        ("is of a run of 3 shards; this is a run without shards", *shard[:-1]),
        ("led-ref.shard-1-of-3.json already", *shard, "1/3"),
        (
            "was begun with 20 documents in blocks of 8; this run has 29",
            "summarize",
            *files,
            *shard[21:],
            "1/3",
            "--resume",
        ),
    ):
        code, printed, said = command(*arguments)
        assert (code, printed, words in said) == (1, "", True), said
        assert {path.name for path in out.iterdir()} == before
    assert "led-ref.json in it" in command("gather", tmp_path)[2]


def test_two_runs_at_once_are_refused(files, tmp_path, command):
    out = tmp_path / "out"
    shard = ("summarize", *files, "--out", out, *QUICK, "--shard")
    other = ResultFolder(out, files, ending="summary.txt", shard=shard_of("1/3", 2))
    with other.begun({}, dict.fromkeys(other.documents)):
        code, printed, said = command(*shard, "1/3", "--resume")
        assert (code, printed) == (1, "")
        assert "Another run writes shard 1 of 3 into" in said
    (out / "led-ref.shard-1-of-3.json").unlink()
    assert command(*shard, "2/3")[0] == 0
    assert command(*shard, "1/3")[0] == 0


def test_shards_are_a_partition():
    for count, of, block in ((0, 2, 3), (17, 3, 2), (17, 5, 8), (5, 7, 1)):
        parts = [[i for i in range(count) if Shard(k, of, block).holds(i)] for k in range(1, of + 1)]
        assert sorted(i for part in parts for i in part) == list(range(count))
    for text in ("0/2", "3/2", "1", "a/b", "1/2/3", "١/٢"):
        with pytest.raises(InputError, match=r"give its number and how many there are, from 1/4 to 4/4"):
            shard_of(text, 4)
