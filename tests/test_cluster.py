"""Many documents on the workers of a Dask cluster: the bytes of one process, also where a worker is killed; generate_many."""

import contextlib
import json
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from short_documents import write_documents
from training.small_models import small_model

import led_ref
from led_ref.errors import BackendError, InputError, SettingsError
from led_ref.pipelines import cluster, progress
from led_ref.pipelines.generate_many import _load
from led_ref.pipelines.many import Block
from led_ref.pipelines.summarization import TextOptions

QUICK = ("--num-beams", "1", "--max-new-tokens", "4", "--batch-size", "2", "--quiet", "--json")  # blocks of 8 documents


@pytest.fixture(scope="module")
def client():
    """A connection to a cluster of two workers on this machine."""
    with cluster.cluster_client(None, 2) as client:
        yield client


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_documents(tmp_path_factory.mktemp("documents"), 40)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_workers_write_the_bytes_of_one_process(client, files, tmp_path, command):
    bad, long = tmp_path / "bad.txt", tmp_path / "long.txt"
    bad.write_bytes(b"\xff")
    long.write_text("word " * 20000, encoding="utf-8")
    run = ("summarize", *files, bad, long, *QUICK, "--out")
    code, printed, said = command(*run, tmp_path / "out", "--scheduler", client.scheduler.address)
    assert (code, len(printed.splitlines())) == (1, 40)
    assert "2 of 42 documents failed" in said
    assert "long.txt: The document has" in said
    assert command(*run, tmp_path / "whole")[0] == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert command(*run, tmp_path / "out", "--scheduler", client.scheduler.address, "--resume")[:2] == (1, "")


def test_a_killed_worker_loses_nothing(client, files):
    options = {"num_beams": 1, "max_new_tokens": 4, "batch_size": 2}
    given = led_ref.generate_many(files, scheduler=client.scheduler.address, **options)
    found = dict([next(given)])
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    found.update(given)
    assert found == dict(led_ref.generate_many(files, **options))
    assert set(found) == set(map(str, files))


def test_a_worker_with_another_model_is_refused(client):
    options, settings = TextOptions.separate({"max_new_tokens": 3})
    load = partial(_load, None, {}, options, settings)
    given = [Block([("a.txt", "Pack files.")])]
    run = load().run()
    (found,) = cluster.results_on(client, given, load, run)
    assert found[1]["text"] == led_ref.generate("Pack files.", max_new_tokens=3)
    with pytest.raises(BackendError, match=r"The worker .* has sha256 of the model .*client has otherwise"):
        list(cluster.results_on(client, given, load, {**run, "sha256 of the model": "other"}))
    with pytest.raises(BackendError, match=r"no .*nowhere"):
        list(cluster.results_on(client, given, partial(_load, "./nowhere", {}, options, settings), run))


def test_a_block_that_fails_is_one_block(client):
    changed = InputError("It has changed.")
    given = [Block([("a", "x"), ("b", "y")], {1}), Block([("c", "z")]), Block(failed={"d": changed})]
    found = dict(cluster.results_on(client, given, partial(_Odd, "x"), {}))
    assert set(found) == {"a", "c", "d"}
    assert found["d"] is changed
    assert "failed on the workers (ZeroDivisionError" in str(found["a"])
    assert found["c"] == {"text": "z"}


def test_two_blocks_a_worker_are_read_ahead(client):
    read = []

    def given():
        for i in range(30):
            read.append(i)
            yield Block([(str(i), "z")])

    found = cluster.results_on(client, given(), partial(_Odd, "x"), {})
    next(found)
    assert len(read) == 4
    assert len([*found]) == 29


@pytest.mark.parametrize("how", ["raises", "kills its worker"])
def test_a_block_that_fails_once_is_computed_again(client, tmp_path, how):
    blocks = [Block([("a", "x")]), Block([("b", "y")])]
    found = dict(cluster.results_on(client, blocks, partial(_FailsOnce, tmp_path / "failed", how), {}))
    assert found == {"a": {"text": "x"}, "b": {"text": "y"}}
    assert (tmp_path / "failed").exists()


def test_results_lost_with_their_workers_are_made_again(client):
    """The scheduler has them computed once more; the client has not fetched them yet."""
    found = cluster.results_on(client, (Block([(str(i), "z")]) for i in range(6)), partial(_Odd, "x"), {})
    first, workers = next(found), client.run(os.getpid)
    while any(client.processing().values()):
        time.sleep(0.02)
    for pid in workers.values():
        os.kill(pid, signal.SIGKILL)
    while set(workers) & set(client.nthreads()):
        time.sleep(0.02)
    time.sleep(0.2)
    assert sorted(dict([first, *found])) == ["0", "1", "2", "3", "4", "5"]


class _FailsOnce:
    """A job that fails at the first block that any worker computes."""

    def __init__(self, place, how):
        self.place, self.how = place, how

    def run(self):
        return {}

    def __call__(self, documents, skip):
        try:
            self.place.touch(exist_ok=False)
        except FileExistsError:
            return [(i, {"text": text}) for i, (_, text) in enumerate(documents)]
        if self.how == "raises":
            raise MemoryError("for once")
        return os.kill(os.getpid(), signal.SIGKILL)


class _Odd:
    """A job that cannot do one text."""

    def __init__(self, bad):
        self.bad = bad

    def run(self):
        return {}

    def __call__(self, documents, skip):
        for i, (_, text) in enumerate(documents):
            yield i, {"text": text if text != self.bad else 1 / 0}


def test_progress_counts_what_all_workers_read(client, files, tmp_path, command, monkeypatch):
    bars = []
    monkeypatch.setattr(progress, "bar", lambda **options: bars.append(_Bar(**options)) or bars[-1])
    where = ("--scheduler", client.scheduler.address)
    run = ("summarize", *files[:9], *(word for word in QUICK if word != "--quiet"), "--out", tmp_path / "out", *where)
    code, _, said = command(*run)
    results = (json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "out").glob("*.summary.json"))
    tokens = sum(result["tokens"] for result in results)
    assert (code, tokens > 90) == (0, True)
    assert re.search(rf"9 documents and {tokens} tokens in [\d.]+ s \([\d.]+ and [\d.,]+ a second\)", said)
    assert "a second" not in command(*run, "--resume")[2]
    assert not bars  # no terminal
    options = {"num_beams": 1, "max_new_tokens": 4, "batch_size": 2, "scheduler": client.scheduler.address}
    assert len(list(led_ref.generate_many(files[:9], progress=True, **options))) == 9
    (shown,) = bars
    assert (shown.options["total"], shown.done, shown.postfix.endswith(" tokens/s")) == (9, 9, True)
    with pytest.raises(SettingsError, match="progress is a function, which workers cannot call"):
        led_ref.generate_many(files, progress=print, **options)


def test_workers_write_the_texts_of_an_evaluation(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address, tokenizer = client.scheduler.address, led_ref.load(backend="numpy").tokenizer
    model = Path(led_ref.__file__).parent / "bundled"  # a small one drawn at random writes the same about everything
    lines = [
        {"text": f"{name} lists files. " * (1 + i), "summary": name} for i, name in enumerate(("ls", "tar", "ar", "nm"))
    ]
    Path("pages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    options = {"truncate": True, "max_new_tokens": 4, "samples": 5, "batch_size": 3}
    found = led_ref.evaluate("pages.jsonl", model, scheduler=address, out="scores", **options)
    here = led_ref.evaluate("pages.jsonl", model, **options)
    assert (found.written, found.report) == (here.written, here.report)
    assert len(set(found.written)) > 1
    lines = Path("scores/written.jsonl").read_bytes().splitlines(keepends=True)
    Path("scores/written.jsonl").write_bytes(b"".join(lines[1:]))
    again = led_ref.evaluate("pages.jsonl", model, scheduler=address, out="scores", resume=True, **options)
    assert (again.written, len(Path("scores/written.jsonl").read_bytes().splitlines())) == (found.written, 4)
    small_model("question-answering").save_pretrained(tmp_path / "qa", others=tokenizer.save_pretrained)
    asked = [{"question": "who?", "context": f"the {name} sat", "answer": name} for name in ("cat", "dog")]
    Path("asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked), encoding="utf-8")
    answers = [
        led_ref.evaluate("asked.jsonl", tmp_path / "qa", samples=5, scheduler=where).written
        for where in (address, None)
    ]
    assert answers[0] == answers[1]
    with pytest.raises(SettingsError, match="seed has a number for each document"):
        led_ref.evaluate(
            "pages.jsonl", model, scheduler=address, do_sample=True, num_beams=1, seed=[1, 2, 3, 4], **options
        )
    lost = contextlib.nullcontext([("1", InputError("It is lost."))])
    monkeypatch.setattr("led_ref.tools.evaluation.writer.on_workers", lambda *_, **__: lost)
    with pytest.raises(InputError, match=r"^pages\.jsonl:2: It is lost"):
        led_ref.evaluate("pages.jsonl", model, scheduler=address, **options)


class _Bar:
    """As much of tqdm's bar as is used."""

    def __init__(self, **options):
        self.options, self.done, self.postfix = options, 0, ""

    def set_postfix_str(self, text, *, refresh):
        self.postfix = text

    def update(self):
        self.done += 1

    def close(self):
        pass


def test_what_is_no_cluster_is_refused(files, tmp_path, command, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    run = ("summarize", files[0], *QUICK, "--out", tmp_path / "out")
    code, _, said = command(*run, "--scheduler", "tcp://127.0.0.1:9")
    assert (code, "no Dask scheduler with a worker at tcp://127.0.0.1:9" in said) == (1, True)
    code, _, said = command(*run, "--resume", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2")
    assert (code, "give the address of a scheduler, or a number of workers" in said) == (1, True)
    assert command("summarize", files[0], *QUICK[4:], "--workers", "2")[0] == 2


def test_texts_without_a_cluster(tmp_path):
    texts = ["Pack files into an archive.", " ", "List what it holds."]
    options = {"num_beams": 1, "max_new_tokens": 5, "batch_size": 3}
    found = dict(led_ref.generate_many(texts, **options))
    assert [found["0"], found["2"]] == led_ref.generate([texts[0], texts[2]], **options)
    assert isinstance(found["1"], InputError)
    written = dict(led_ref.generate_many(texts[:1], out=tmp_path / "out", **options))
    assert written == {"0": found["0"]}
    more = dict(led_ref.generate_many(texts, out=tmp_path / "out", resume=True, **options))
    assert set(more) == {"1", "2"}
    assert (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").count("\n") == 2
    for wrong, words in (
        ([], "no documents"),
        ([texts[0], tmp_path / "a.txt"], "Give one kind"),
        ([[texts[0]]], "documents is .* it takes texts"),
        ({*texts}, "which has an order"),
    ):
        with pytest.raises(InputError, match=words):
            led_ref.generate_many(wrong)
    assert dict(led_ref.generate_many(np.array(texts[:1]), **options)) == {"0": found["0"]}
    for n, positions in enumerate(([np.int64(0), "</s>"], range(2), np.eye(9)[0])):  # noted as JSON
        where = {"out": tmp_path / str(n), "global_attention": positions, **options}
        plain = led_ref.generate(texts[0], global_attention=positions, **options)
        assert dict(led_ref.generate_many(texts[:1], **where)) == {"0": plain}
        assert dict(led_ref.generate_many(texts[:1], resume=True, **where)) == {}
    with pytest.raises(InputError, match="list for each document"):
        led_ref.generate_many(texts, global_attention=[(0,), (1,), (2,)])
    with pytest.raises(InputError, match="no generation setting 'num_beam'"):
        led_ref.generate_many(texts, num_beam=4)
