"""`led-ref summarize FILES --out DIR`: results whole or not at all, runs that are cut off, folders that do not fit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from led_ref.files.json_file import write_text
from led_ref.pipelines.result_folder import result_names

QUICK = ("--num-beams", "1", "--max-new-tokens", "5", "--quiet")


def write_documents(folder: Path, count: int) -> list[str]:
    """Short texts of many lengths, each another."""
    words = [
        "pack",
        "files",
        "into",
        "an",
        "archive",
        "and",
        "list",
        "what",
        "it",
        "holds",
        "before",
        "sending",
        "them",
    ]
    folder.mkdir(exist_ok=True)
    files = []
    for i in range(count):
        draw = random.Random(i)
        path = folder / f"{i:02}.txt"
        path.write_text(" ".join(draw.choice(words) for _ in range(draw.randrange(3, 40))) + ".\n", encoding="utf-8")
        files.append(str(path))
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    return write_documents(tmp_path_factory.mktemp("documents") / "texts", 40)


def start(files, out, *more):
    words = [
        sys.executable,
        "-m",
        "led_ref.cli.main",
        "summarize",
        *files,
        "--out",
        str(out),
        "--resume",
        *QUICK,
        *more,
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_and_resumed(files, out, *more, seed):
    """Kill a run after a drawn number of results and a drawn moment more; then run it to its end. How many results it had."""
    draw = random.Random(seed)
    run = start(files, out, *more)
    for _ in range(draw.randrange(len(files) - 5)):
        run.stdout.readline()
    time.sleep(draw.uniform(0, 0.05))
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    before = len(list(out.glob("[!.]*.summary.*"))) if out.exists() else 0
    assert not before or (out / "led-ref.json").exists()
    rest = start(files, out, *more)
    printed, complained = rest.communicate()
    assert (rest.returncode, complained) == (0, "")
    assert len(printed.splitlines()) == len(files) - before
    return before


def test_resumed_run_equals_unbroken_run(forty, tmp_path, command):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, printed, _ = command("summarize", *forty, "--out", whole, *QUICK)
    assert (code, len(printed.splitlines())) == (0, 40)
    assert killed_and_resumed(forty, broken, seed=1) < 40
    assert contents(broken) == contents(whole)
    assert len(contents(whole)) == 41


def test_files_are_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("before", encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_text(path, "after")
    assert contents(tmp_path) == {"a.txt": b"before"}
    (tmp_path / ".a.txt.unfinished").write_text("of a killed run", encoding="utf-8")
    write_text(path, "after\n")
    assert contents(tmp_path) == {"a.txt": b"after\n"}


def test_bad_document_does_not_stop_the_rest(tmp_path, command):
    files = write_documents(tmp_path / "texts", 3)
    bad, long = tmp_path / "texts" / "bad.txt", tmp_path / "texts" / "long.txt"
    bad.write_bytes(b"\xff\xfe\x00")
    long.write_text("word " * 20000, encoding="utf-8")
    gone = str(tmp_path / "texts" / "gone.txt")
    out = tmp_path / "out"
    arguments = ("summarize", files[0], bad, files[1], long, gone, files[2], "--out", out, *QUICK)
    code, printed, said = command(*arguments)
    assert code == 1
    assert [Path(line).name for line in sorted(printed.splitlines())] == [f"{i:02}.summary.txt" for i in range(3)]
    assert "3 of 6 documents failed" in said
    assert "--resume" in said
    assert "bad.txt" in said and "long.txt" in said and "gone.txt" in said  # noqa: PT018
    # Once mended, they are all that is written.
    bad.write_text("Now it is a text.", encoding="utf-8")
    code, printed, said = command(*arguments, "--resume")
    assert (code, [Path(line).name for line in printed.splitlines()]) == (1, ["bad.summary.txt"])
    assert "2 of 6" in said


def test_no_overwriting_and_invalid_folders(tmp_path, command):
    files = write_documents(tmp_path / "texts", 2)
    out = tmp_path / "out"
    assert command("summarize", *files, "--out", out, *QUICK)[0] == 0
    before = contents(out)

    def refused(*arguments, **changed):
        code, printed, said = command(*arguments)
        assert (code, printed) == (1, "")
        assert {name: held for name, held in contents(out).items() if name not in changed} == before
        return said

    assert "holds led-ref.json already" in refused("summarize", *files, "--out", out, *QUICK)
    said = refused("summarize", *files, "--out", out, "--resume", "--num-beams", "2", "--max-new-tokens", "5")
    assert "was begun with num_beams 1; this run has num_beams 2." in said
    assert "name another folder" in said
    assert 'dtype "float32"' in refused("summarize", *files, "--out", out, "--resume", *QUICK, "--dtype", "float64")
    # The same document, another text.
    Path(files[0]).write_text("Another text.", encoding="utf-8")
    assert "was made from another text" in refused("summarize", *files, "--out", out, "--resume", *QUICK)
    # Removed, it is made anew.
    (out / "00.summary.txt").unlink()
    code, printed, _ = command("summarize", *files, "--out", out, "--resume", *QUICK)
    assert (code, printed) == (0, f"{out / '00.summary.txt'}\n")
    before = contents(out)
    (out / "led-ref.json").write_text("{}", encoding="utf-8")
    before["led-ref.json"] = b"{}"
    assert "is not what led-ref writes there" in refused("summarize", *files, "--out", out, "--resume", *QUICK)
    (out / "led-ref.json").unlink()
    del before["led-ref.json"]
    assert "no led-ref.json" in refused("summarize", *files, "--out", out, "--resume", *QUICK)


def test_equal_names_are_told_apart(tmp_path, command):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "page.txt").write_text("Pack files.", encoding="utf-8")
    out, pages = tmp_path / "out", [tmp_path / "a" / "page.txt", tmp_path / "b" / "page.txt"]
    assert command("summarize", *pages, "--out", out, *QUICK)[0] == 0
    assert set(contents(out)) == {"a_page.txt.summary.txt", "b_page.txt.summary.txt", "led-ref.json"}
    assert result_names(["a/Page.txt", "b/page.md.gz"], "x") == ["Page.txt.x", "page.md.gz.x"]
    files = ["a.txt", "b/a_c.txt", "/r/a/c.txt", "/r/d/a/c.txt"]
    assert result_names(files, "x") == ["a.x", "a_c.x", "r_a_c.txt.x", "d_a_c.txt.x"]
    for twice in (["a.txt", "./a.txt"], ["-", "-"], ["a.txt", "A.txt"]):
        code, _, said = command("summarize", *twice, "--out", tmp_path / "none", *QUICK)
        first, second = sorted(map(str, twice))
        assert (code, f"results of {first} and {second} would both be" in said) == (1, True)
        assert "no file" not in said


def test_a_folder_stands_for_its_documents(tmp_path, command):
    folder = tmp_path / "papers"
    files = write_documents(folder, 2)
    for name in ("photo.jpg", ".hidden.txt", "03.pdf"):
        (folder / name).write_bytes(b"%PDF")
    (folder / "more.txt" / "deep").mkdir(parents=True)
    for place in (folder / "more.txt" / "deep", tmp_path / "out"):
        files += write_documents(place, 1)
    del files[-1]
    (folder / "more.txt" / "notes.bin").write_bytes(b"")
    code, printed, said = command("summarize", folder, "--num-beams", "1", "--max-new-tokens", "3")
    assert (code, [line.partition(": ")[0] for line in printed.splitlines()]) == (0, files)
    assert f"{folder}: 3 documents; not read: 03.pdf, more.txt/notes.bin, photo.jpg" in said
    (folder / "out").symlink_to(tmp_path / "out")  # a folder of results among the documents is no document
    (tmp_path / "out" / "00.txt").rename(folder / "more.txt" / "deep" / "00.summary.txt")
    for pattern in (folder / "*.txt", folder / "**" / "0?.txt"):
        found = files[:2] if "**" not in str(pattern) else files
        _, printed, said = command("summarize", pattern, *QUICK)
        assert sorted(line.partition(": ")[0] for line in printed.splitlines()) == sorted(found), said
    (folder / "out").unlink()
    inside = ("summarize", folder, "--out", folder / "out", "--num-beams", "1", "--max-new-tokens", "3")
    assert command(*inside)[0] == 0
    code, printed, said = command(*inside, "--resume")
    assert (code, printed, "4 of 4 are in" in said) == (0, "", True)
    shutil.rmtree(folder / "out")
    code, _, said = command("summarize", folder / "*.md", *QUICK)
    assert (code, "no file for the pattern" in said) == (1, True)
    code, _, said = command("summarize", folder, "--out", folder, *QUICK)
    assert (code, "--out names it for their results" in said) == (1, True)
    (tmp_path / "empty").mkdir()
    code, _, said = command("summarize", tmp_path / "empty", *QUICK)
    assert (code, "empty holds no document" in said) == (1, True)


def test_the_package_is_the_command():
    words = [sys.executable, "-m", "led_ref", "--version"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.startswith("led-ref 0")


def test_the_folder_of_results_is_made(tmp_path, command):
    (file,) = write_documents(tmp_path / "texts", 1)
    out = tmp_path / "a" / "b" / "c"
    assert command("summarize", file, "--out", out, *QUICK)[0] == 0
    assert set(contents(out)) == {"00.summary.txt", "led-ref.json"}
    code, _, said = command("summarize", file, "--out", Path(file) / "out", *QUICK)
    assert (code, f"{file} is a file. Name a folder" in said) == (1, True)


def test_batch_options_require_a_folder(command, forty):
    for option in (("--resume",), ("--batch-size", "2"), ("--batch-memory", "9")):
        code, _, said = command("summarize", forty[0], *option)
        assert (code, f"{option[0]} is for a run" in said) == (2, True)


def test_json_files_equal_stdout_but_time(tmp_path, command):
    (file,) = write_documents(tmp_path / "texts", 1)
    printed = json.loads(command("generate", file, "--json", *QUICK)[1])
    assert command("generate", file, "--json", "--out", tmp_path / "out", *QUICK)[0] == 0
    written = json.loads((tmp_path / "out" / "00.texts.json").read_text(encoding="utf-8"))
    assert printed.pop("seconds") >= 0
    assert written == printed


def test_resume_names_the_settings_that_differ(tmp_path, command):
    """Whatever can change a text belongs to the run: of settings, those that differ are named, and no other."""
    (file,) = write_documents(tmp_path / "texts", 1)
    out = tmp_path / "out"
    resume = ("summarize", file, "--out", out, "--resume", *QUICK)
    assert command(*resume)[0] == 0
    for more, words in {
        ("--quantize", "nf4"): 'begun with quantize null; this run has quantize "nf4"',
        ("--keep-stored",): "begun with keep_stored false; this run has keep_stored true",
        ("--cross-attention", "folded"): 'cross_attention "cached"; this run has cross_attention "folded"',
        ("--global-attention", "none", "--num-beams", "2"): (
            'begun with global_attention "first", num_beams 1; this run has global_attention "none", num_beams 2.'
        ),
    }.items():
        code, _, said = command(*resume, *more)
        assert (code, words in said) == (1, True), said
    (out / "00.summary.txt").unlink()  # now no text depends on the settings
    assert command(*resume, "--quantize", "nf4")[0] == 0
    assert '"quantize": "nf4"' in (out / "led-ref.json").read_text(encoding="utf-8")


def test_resume_with_global_attention_of_each_document(tmp_path, command):
    """The file's content belongs to the run, not its name: the same goes on, another is named."""
    files = write_documents(tmp_path / "texts", 2)
    chosen, out = tmp_path / "global.json", tmp_path / "out"
    names = [Path(file).name for file in files]
    chosen.write_text(json.dumps({names[0]: [0, "</s>"], names[1]: "none"}), encoding="utf-8")
    run = ("generate", *files, "--out", out, "--json", "--resume", *QUICK, "--global-attention")
    assert command(*run, chosen)[0] == 0
    counts = {json.loads(path.read_text(encoding="utf-8"))["global_tokens"] for path in out.glob("*.texts.json")}
    assert counts == {2, 0}
    before = contents(out)
    (out / "01.texts.json").unlink()
    moved = chosen.rename(tmp_path / "moved.json")
    assert command(*run, moved)[0] == 0
    after = contents(out)
    assert after.keys() == before.keys()
    moved.write_text(json.dumps({names[0]: [0, "</s>"], names[1]: "first"}), encoding="utf-8")
    code, _, said = command(*run, moved)
    assert (code, "begun with global_attention" in said, "this run has global_attention" in said) == (1, True, True)
    moved.write_text(json.dumps({names[0]: "none"}), encoding="utf-8")
    code, _, said = command("generate", *files, *QUICK, "--global-attention", moved)
    assert (code, f"has no entry for {names[1]}" in said) == (1, True)


def test_resume_may_truncate_what_was_refused(tmp_path, command):
    files = write_documents(tmp_path / "texts", 1)
    long = tmp_path / "texts" / "long.txt"
    long.write_text("word " * 20000, encoding="utf-8")
    resume = ("summarize", *files, long, "--out", tmp_path / "out", "--resume", *QUICK)
    code, _, said = command(*resume)
    assert (code, "pass truncation=True (--truncate)" in said) == (1, True)
    code, printed, _ = command(*resume, "--truncate")
    assert (code, Path(printed.strip()).name) == (0, "long.summary.txt")
    code, _, said = command(*resume)  # its text is that of a beginning
    assert (code, "begun with truncate true; this run has truncate false" in said) == (1, True)


def test_resume_draws_with_the_first_seed(tmp_path, command):
    files = write_documents(tmp_path / "texts", 2)
    resume = (
        "summarize",
        *files,
        "--out",
        tmp_path / "out",
        "--resume",
        "--sample",
        "--max-new-tokens",
        "9",
        "--quiet",
    )
    assert command(*resume)[0] == 0
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "01.summary.txt").unlink()
    assert command(*resume)[0] == 0
    assert contents(tmp_path / "out") == before


def test_a_model_is_all_files_that_are_read(tmp_path):
    from led_ref import bundled_model
    from led_ref.weights.find_files import model_digest

    model = tmp_path / "model"
    shutil.copytree(bundled_model(), model)
    seen = {model_digest(model)}
    for name, is_read in {"README.md": False, "notes.json": False, "added_tokens.json": True, "model.pt": True}.items():
        (model / name).write_bytes(b"{}")
        digest = model_digest(model)
        assert (digest not in seen) == is_read
        seen.add(digest)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The bundled model with three ids more than its tokenizer has."""
    import led_ref

    led, folder = led_ref.load(), tmp_path_factory.mktemp("wide") / "model"
    led = replace(led, model=led.model.resize_token_embeddings(led.model.config.vocab_size + 3))
    led.save_pretrained(folder)
    return folder, led.model.config.vocab_size - 1


def test_ids_without_tokens_are_said_when_loading(wide, bundled):
    import led_ref
    from led_ref.tokenizer.files import vocabularies_that_differ

    said = []
    led_ref.load(wide[0], notice=said.append)
    assert [f"the tokenizer none of [{wide[1] - 2}, {wide[1] - 1}, {wide[1]}]" in sentence for sentence in said] == [
        True
    ]
    with pytest.warns(UserWarning, match=r"suppress_tokens=\[\.\.\.\] forbids ids"):
        led_ref.load(wide[0])
    assert vocabularies_that_differ(bundled.tokenizer.get_vocab(), wide[1] - 2, writes=True) is None
    assert vocabularies_that_differ(bundled.tokenizer.get_vocab(), wide[1], writes=False) is None
    said = vocabularies_that_differ(bundled.tokenizer.get_vocab(), wide[1] - 3, writes=False)
    assert f"up to {wide[1] - 3}, and the model {wide[1] - 3} ids" in said


def test_an_id_without_token_fails_its_document_alone(wide, tmp_path, command, monkeypatch):
    import led_ref
    from led_ref.pipelines import summarization

    plain = summarization.write_each

    def with_a_strange_text(model, documents, *rest, **options):
        for i, written in plain(model, documents, *rest, **options):
            yield i, summarization.Written([[2, 0, 9, wide[1]]], None) if len(documents[i].ids) > 9 else written

    led = led_ref.load(wide[0], notice=lambda sentence: None)
    texts = ["pack files", "pack files into an archive and list what it holds", "list files"]
    alone = [led.generate(text, max_new_tokens=5) for text in texts]
    monkeypatch.setattr(summarization, "write_each", with_a_strange_text)
    monkeypatch.setattr("led_ref.cli.writing.write_each", with_a_strange_text)
    each = dict(led.generate_each(texts, max_new_tokens=5))
    assert [each[0], each[2]] == [alone[0], alone[2]]
    assert f"the id {wide[1]}, which {wide[0]} has and its tokenizer has not" in str(each[1])
    with pytest.raises(
        led_ref.InputError, match=r"^texts\[1\]: In the text stands .*1 of 3 documents failed"
    ) as raised:
        led.generate(texts, max_new_tokens=5)
    assert raised.value.texts == [alone[0], None, alone[2]]
    files = []
    for i, text in enumerate(texts):
        files.append(tmp_path / f"{i}.txt")
        files[i].write_text(text, encoding="utf-8")
    for more in ((), ("--out", tmp_path / "out")):
        code, printed, said = command("summarize", *files, "--model", wide[0], *QUICK, *more)
        assert (code, len(printed.splitlines())) == (1, 2)
        assert f"{files[1]}: In the text stands the id {wide[1]}" in said


def test_readable_marks_ids_without_token(bundled):
    from led_ref.tokenizer.decoding import readable

    ids = bundled.tokenizer("a é")["input_ids"]
    assert readable(bundled.tokenizer, [*ids, 10**6, 10**6 + 1], True) == "a é<id 1000000><id 1000001>"


def test_a_result_that_cannot_be_written_fails_alone(tmp_path, command, monkeypatch):
    """A name that is not UTF-8 is written; one that is too long, and one on a full disk, is its document's matter."""
    texts = tmp_path / "texts"
    files = write_documents(texts, 2)
    odd, long, longest = os.fsdecode(b"\xff"), "a" * 242, "b" * 251
    for name in (odd, long, longest):
        files.append(str(texts / f"{name}.txt"))
        Path(files[-1]).write_text("Pack files into an archive.", encoding="utf-8")
    out, full = tmp_path / "out", "01.summary.txt"
    replaced = os.replace

    def replace_unless_full(old, new):
        if Path(new).name == full:
            raise OSError(28, "No space left on device")
        replaced(old, new)

    monkeypatch.setattr(os, "replace", replace_unless_full)
    code, printed, said = command("summarize", *files, "--out", out, *QUICK)
    assert (code, len(printed.splitlines())) == (1, 3)
    found = {os.fsencode(name) for name in contents(out)}
    names = {os.fsencode(f"{name}.summary.txt") for name in ("00", odd, long)}
    assert found == names | {b"led-ref.json"}
    assert f"{out / full} cannot be written (No space left on device)" in said
    assert f"{files[4]}: The result would be {longest}.summary.txt, a name of more than 255 bytes" in said
    monkeypatch.undo()
    code, printed, _ = command("summarize", *files[:4], "--out", out, "--resume", *QUICK)
    assert (code, printed) == (0, f"{out / full}\n")
    command("summarize", files[2], "--json", "--out", tmp_path / "json", *QUICK)
    (result,) = (tmp_path / "json").glob("*.summary.json")
    assert json.loads(result.read_text(encoding="utf-8"))["file"] == files[2]
    code, printed, said = command(
        "explore", files[2], "--out", tmp_path / f"{odd}.html", "--max-new-tokens", "2", "--quiet"
    )
    assert (code, said) == (0, "")
    assert (tmp_path / f"{odd}.html").stat().st_size > 100_000


def test_explore_leaves_no_part_of_a_page(tmp_path, command, forty, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    page = tmp_path / "page.html"
    code, _, said = command("explore", forty[0], "--out", page, "--max-new-tokens", "2", "--quiet")
    assert (code, f"{page} cannot be written (No space left on device)" in said) == (1, True)
    assert contents(tmp_path) == {}


def test_a_device_is_written_to_as_it_is(tmp_path):
    from led_ref.files.staging import new_file

    os.mkfifo(tmp_path / "pipe")
    with new_file(tmp_path / "pipe") as place:
        assert place == tmp_path / "pipe"


def test_leftovers_of_a_long_name_are_found(tmp_path):
    from led_ref.files.staging import remove_leftovers, staging

    target = tmp_path / ("é" * 120)
    with staging(target) as place:
        name = place.name
        assert len(os.fsencode(name)) <= 255
    (tmp_path / name).mkdir()
    remove_leftovers(target)
    assert contents(tmp_path) == {}


class Frame:
    """As much of a data frame as is looked at: iterated, it gives the names of its columns."""

    columns = ("title", "body")

    def __iter__(self):
        return iter(self.columns)


class Series:
    """A column: iterated, it gives its values."""

    def __iter__(self):
        return iter(["Pack files.", "List files."])

    def __len__(self):
        return 2


def test_a_column_is_read_and_a_frame_refused(bundled):
    short = {"max_new_tokens": 3, "num_beams": 1}
    assert bundled.generate(Series(), **short) == bundled.generate(["Pack files.", "List files."], **short)
    for call in (bundled.generate, lambda frame: list(bundled.generate_each(frame))):
        with pytest.raises(
            TypeError, match=r"it takes a column of such a frame, frame\[name\] \(columns: \['title', 'body'"
        ):
            call(Frame())


def test_a_text_that_is_a_path_is_said(bundled, tmp_path):
    file = tmp_path / "paper.txt"
    file.write_text("Pack files.", encoding="utf-8")
    with pytest.warns(
        UserWarning, match=r"paper.txt' is also the path of a file, and is read as a text. .*read_text"
    ) as w:
        bundled.generate(str(file), max_new_tokens=2)
    assert w[0].filename == __file__  # the caller's line
    bundled.encode(str(tmp_path / "none.txt"))  # no warning: it would be an error here
    bundled.encode(f"a text\n{file}")


@pytest.fixture
def changed(tmp_path):
    """The bundled model with other values in config.json."""
    from led_ref import bundled_model

    def make(**values):
        shutil.copytree(bundled_model(), tmp_path / "model")
        path = tmp_path / "model" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")
        return tmp_path / "model"

    return make


def test_settings_of_a_task_are_said(changed, tmp_path, command):
    file = tmp_path / "a.txt"
    file.write_text("Pack files.", encoding="utf-8")
    model = changed(prefix="summarize: ", task_specific_params={"summarization": {"num_beams": 3}})
    code, _, said = command("summarize", file, "--model", model, "--max-new-tokens", "2", "--num-beams", "1")
    assert (code, "has prefix 'summarize: ', task_specific_params {'summarization': {'num_beams': 3}}" in said) == (
        0,
        True,
    )
    assert "They are not used here" in said


def test_writing_without_a_cache_is_said(changed):
    import led_ref

    model, said = changed(use_cache=False), []
    (model / "generation_config.json").unlink(missing_ok=True)
    led_ref.load(model, notice=said.append)
    assert [sentence.partition(": each")[0] for sentence in said] == [f"{model}: use_cache is false in its files"]


@pytest.mark.parametrize("form", [(), ("--jsonl",)], ids=["files", "lines"])
def test_redo_makes_anew_what_changed_alone(tmp_path, command, form):
    files, out = write_documents(tmp_path / "texts", 5), tmp_path / "out"
    run = ("summarize", *files, "--out", out, "--batch-size", "1", *QUICK, *form)
    assert command(*run)[0] == 0
    Path(files[2]).write_text("Another text.", encoding="utf-8")
    code, _, said = command(*run, "--resume")
    assert (code, "--redo changed makes such results anew" in said) == (1, True)
    assert "add --resume" in command(*run, "--redo", "changed")[2]
    again = (*run, "--resume", "--redo", "changed")
    code, printed, said = command(*again)
    assert (code, len(printed.splitlines())) == (0, 1)
    assert "1 results were made otherwise" in said
    assert ("02" in printed) is True
    assert command(*again)[:2] == (0, "")  # nothing has changed since
    # Other settings: all of them, or none if one cannot be made anew.
    before = contents(out)
    Path(files[1]).write_bytes(b"\xff")
    few = ("summarize", *files[:4], *run[6:], "--resume", "--redo", "changed")
    for arguments in (again, few):
        code, printed, said = command(*arguments, "--num-beams", "2")
        assert (code, printed, "begun with num_beams 1; this run has num_beams 2" in said) == (1, "", True)
        assert contents(out) == before
    Path(files[1]).write_text("Now it is a text.", encoding="utf-8")
    code, printed, said = command(*again, "--num-beams", "2")
    assert (code, len(printed.splitlines()), "5 results were made otherwise" in said) == (0, 5, True)
    assert command(*run[:7], tmp_path / "anew", *run[8:], "--num-beams", "2")[0] == 0
    assert contents(out) == contents(tmp_path / "anew")


def test_a_name_that_no_file_can_have_is_one_document(tmp_path, monkeypatch, command):
    """A name too long, or not UTF-8: the others are written, and gathered."""
    monkeypatch.chdir(tmp_path)
    for name in (b"a.txt", b"p\xff.txt"):
        Path(os.fsdecode(name)).write_text("Pack files.", encoding="utf-8")
    quick = ("--quiet", "--num-beams", "1", "--max-new-tokens", "2")
    code, printed, said = command("summarize", "a.txt", "x" * 5000, *quick)
    assert (code, len(printed.splitlines())) == (1, 1)
    assert "File name too long" in said
    assert command("summarize", "a.txt", os.fsdecode(b"p\xff.txt"), "x" * 250 + ".txt", *quick, "--out", "out")[0] == 1
    code, printed, _ = command("gather", "out", "--partial")
    assert (code, len(printed.splitlines())) == (0, 2)
