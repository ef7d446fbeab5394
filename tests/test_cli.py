"""`led-ref`: what is printed where, with which exit code; through the function and, where the process matters, as one."""

import gzip
import io
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import led_ref
from led_backends.numpy_backend import NumpyBackend
from led_ref.cli.main import COMMANDS, EXAMPLES, main
from led_ref.cli.tokenize import coloured

COMMAND = [sys.executable, "-m", "led_ref.cli.main"]
QUICK = ["--num-beams", "1", "--max-new-tokens", "4"]
VECTORS = Path(__file__).parent / "vectors" / "v1"
PAGE = "NAME\ntar - an archiving utility\n"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A document `page.txt` in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.txt").write_text(PAGE, encoding="utf-8")
    return "page.txt"


@pytest.fixture
def line(bundled):
    """What the bundled model writes about the page."""
    return bundled.generate(PAGE, num_beams=1, max_new_tokens=4)


def on_a_terminal(arguments, *, stdout_too=False, **options):
    """Run led-ref with standard error (and output) on a terminal of its own: exit code, and what the terminal showed."""
    ours, theirs = pty.openpty()
    stdout = theirs if stdout_too else subprocess.DEVNULL
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=stdout, stderr=theirs, stdin=subprocess.DEVNULL, **options
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            some = os.read(ours, 4096)
        except OSError:  # Linux reports the closed other end so
            some = b""
        if not some:
            break
        shown += some
    os.close(ours)
    return process.wait(timeout=60), shown.decode()


# ---- help, usage, exit codes --------------------------------------------------------------------------------------------


def test_help_examples_parse_without_numpy():
    program = """
import contextlib, io, json, shlex, sys
from led_ref.cli.main import COMMANDS, EXAMPLES, build_parser, main
texts = {}
for name in ["led-ref", *sys.argv[1:]]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try: main(["--help"] if name == "led-ref" else [name, "--help"])
        except SystemExit as stop: assert stop.code == 0
    texts[name] = text.getvalue()
    examples = EXAMPLES if name == "led-ref" else COMMANDS[name].EXAMPLES
    for line in examples.strip().splitlines():
        words = shlex.split(line.split("   ")[0].strip())
        build_parser().parse_args(words[words.index("led-ref") + 1 :])
print(json.dumps({"texts": texts, "numpy": "numpy" in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", program, *COMMANDS], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert not found["numpy"]
    for name, text in found["texts"].items():
        assert "examples:\n  led-ref" in text or "examples:\n  " in text
        assert (EXAMPLES if name == "led-ref" else COMMANDS[name].EXAMPLES).strip("\n") in text
    assert all(name in found["texts"]["led-ref"] for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "usage: led-ref"),
        (["unknown"], "unknown"),
        (["summarize", "page.txt", "--unknown"], "usage: led-ref summarize"),
        (["summarize", "page.txt", "--unknown"], "unrecognized arguments: --unknown"),
        (
            ["summarize", "page.txt", "--num-beam", "4"],
            "unrecognized arguments: --num-beam 4. Did you mean --num-beams?",
        ),
        (
            ["summarize", "page.txt", "--max_new_tokens=4", "--beams", "2"],
            "Did you mean --max-new-tokens and --num-beams?",
        ),
        (["summarize", "page.txt", "--temp", "4"], "Did you mean --temperature?"),
        (["summarize", "page.txt", "--verbose"], "unrecognized arguments: --verbose\n"),
        (["vectors", "check", "v1", "--levels", "L1"], "unrecognized arguments: --levels L1. Did you mean --level?"),
        (["train", "a.jsonl", "--out", "DIR", "--modle", "DIR"], "are required: --model. Did you mean --model?"),
        (["summrize", "page.txt"], "Did you mean 'summarize'?"),
        (["vectors", "chek", "v1"], "Did you mean 'check'?"),
        (["tokenize", "page.txt", "--engine", "Rust"], "Did you mean 'rust'?"),
        (["--vers"], "unrecognized arguments: --vers"),
        (["vectors", "check", "v1", "--time", "4"], "usage: led-ref vectors check"),
        (["summarize", "page.txt", "--num-beams", "two"], "'two'"),
        (["summarize", "page.txt", "--dtype", "float8"], "'float8'"),
        (["summarize", "page.txt", "--cross-attention", "gone"], "'gone'"),
        (["summarize", "page.txt", "--global-attention", "last"], "'last'; give first, none, all, or positions"),
        (["generate", "page.txt", "--set", "num_beams"], "'num_beams' is not NAME=VALUE"),
        (["generate", "page.txt", "--set", "num_beams=2", "--set", "num_beams=3"], "num_beams is given twice"),
        (["generate", "page.txt", "--num-beams", "2", "--set", "num_beams=3"], "num_beams is given twice"),
        (["generate", "page.txt", "--seed", "2", "--sample", "--set", "seed=3"], "seed is given twice"),
        (["tokenize", "page.txt", "--text", "a"], "not both"),
        (["convert", "only one"], "DST"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(command, page, arguments, found):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert found in err


@pytest.mark.parametrize(
    "command_line",
    [
        "summarize page.txt", "generate page.txt", "trace page.txt --out trace.safetensors", "explore page.txt",
        f"vectors check {VECTORS} --level L1", "answer why? page.txt --model DIR", "classify page.txt --model DIR",
        "train a.jsonl --model DIR --out tuned", "evaluate a.jsonl --model DIR", "bench", "vectors answer --in IN --out OUT",
    ],
)  # fmt: skip
def test_threads_of_every_run(command, page, monkeypatch, command_line):
    arguments = command_line.split()
    code, _, err = command(*arguments, "--threads", "0")
    assert (code, "argument --threads: '0'; give a whole number of at least 1" in err) == (2, True)
    if "DIR" in arguments:
        for backend in ("auto", "cupy"):
            code, _, err = command(*arguments, "--threads", "2", "--backend", backend)
            assert ("--threads 2 is for a CPU" in err) == (backend == "cupy")
            assert code == (2 if backend == "cupy" else 1)
    elif command_line != "bench" and "IN" not in arguments:
        seen, init = set(), NumpyBackend.__init__
        monkeypatch.setattr(
            NumpyBackend, "__init__", lambda self, threads=None: seen.add(threads) or init(self, threads)
        )
        assert command(*arguments, "--threads", "3")[0] == 0
        assert 3 in seen
        assert None not in seen


def test_a_command_is_the_file_of_its_name():
    for name, command in COMMANDS.items():
        assert command.__name__ == f"led_ref.cli.{name}"
        assert command.SUMMARY
        assert callable(command.add_options)
        assert callable(command.run)


def test_version(command):
    assert command("--version") == (0, f"led-ref {led_ref.__version__}\n", "")


def test_input_from_terminal_or_pipe(command, page, line, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    for name in ("summarize", "generate", "tokenize"):
        code, out, err = command(name)
        assert (code, out) == (2, "")
        assert "send text through a pipe" in err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(PAGE.encode())))
    assert command("summarize", "--quiet", *QUICK) == (0, f"{line}\n", "")


# ---- summarize and generate ---------------------------------------------------------------------------------------------


def test_stdout_stderr_and_quiet(command, page, line):
    code, out, err = command("summarize", page, *QUICK)
    assert (code, out) == (0, f"{line}\n")
    assert "loaded the bundled model: 5,657,472 parameters" in err
    tokens = len(led_ref.load().encode(PAGE))
    assert f"reading page.txt ({tokens} tokens) ..." in err
    assert "written by a 6-million-parameter model that has read manual pages, RFCs" in err
    assert "led-ref summarize FILE --model allenai/led-large-16384-arxiv" in err
    assert command("summarize", page, *QUICK, "--quiet") == (0, f"{line}\n", "")
    err = command("summarize", page, *QUICK, "--model", led_ref.bundled_model())[2]
    assert "reading page.txt" in err  # what another model has seen is not known
    assert "manual pages" not in err


def test_manual_page_summary_of_bundled_model(command, tmp_path, monkeypatch, bundled):
    monkeypatch.chdir(tmp_path)
    text = "LS(1)        User Commands        LS(1)\n\nNAME\n   ls - list\n\nDESCRIPTION\n   List files.\n\nGNU     LS(1)\n"
    (tmp_path / "ls.txt").write_text(text)
    code, out, err = command("summarize", "ls.txt", *QUICK)
    assert (code, out) == (
        0,
        bundled.generate("LS(1) User Commands LS(1)\nDESCRIPTION\nList files.", num_beams=1, max_new_tokens=4) + "\n",
    )
    assert "ls.txt is a manual page: read without footer and NAME" in err
    code, out, err = command("summarize", "ls.txt", *QUICK, "--model", led_ref.bundled_model())
    assert (code, out) == (0, bundled.generate(text, num_beams=1, max_new_tokens=4) + "\n")
    assert "is a manual page" not in err
    (tmp_path / "ls.txt").write_text("LS(1)        LS(1)\n\nNAME\n   ls - list\n\nGNU     LS(1)\n")  # nothing besides
    assert command("summarize", "ls.txt", *QUICK)[0] == 0


def test_specification_as_the_bundled_model_reads_it(command, tmp_path, monkeypatch, bundled):
    """Without its abstract, with --model as it is; a category alone is enough to know it, and a letter is none."""
    monkeypatch.chdir(tmp_path)
    head = "led_ref                 A. Author\nCategory: Informational     May 2026\n\n         Echo\n\n"
    text = head + "Abstract\n\n   A secret.\n\n1.  Use\n\n   Send a word.\n"
    (tmp_path / "spec.txt").write_text(text)
    code, out, err = command("summarize", "spec.txt", *QUICK)
    read = "led_ref A. Author\nCategory: Informational May 2026\nEcho\n1. Use\nSend a word."
    assert (code, out) == (0, bundled.generate(read, num_beams=1, max_new_tokens=4) + "\n")
    assert "spec.txt is a specification: read without abstract" in err
    assert f"({len(bundled.encode(read))} tokens)" in err
    err = command("summarize", "spec.txt", *QUICK, "--model", led_ref.bundled_model())[2]
    assert f"({len(bundled.encode(text))} tokens)" in err
    (tmp_path / "spec.txt").write_text(text.replace("Category: Informational", "Category: letters"))
    assert "is a specification" not in command("summarize", "spec.txt", *QUICK)[2]


def test_memory_that_does_not_suffice(command, page, monkeypatch):
    def load(*_, **__):
        raise MemoryError("Unable to allocate 2.98 GiB")

    monkeypatch.setattr("led_ref.api.load", load)
    code, printed, said = command("generate", page)
    assert (code, printed) == (1, "")
    assert said.startswith(
        "led-ref: the memory of this machine does not suffice (MemoryError('Unable to allocate 2.98 GiB'))"
    )


def test_options_are_validated_before_loading(command, page, monkeypatch, tmp_path):
    monkeypatch.setattr("led_ref.api.load", lambda *_, **__: pytest.fail("a model was loaded"))
    for wrong, found in (
        (["generate", page, "--set", "nm_beams=4"], "no generation setting 'nm_beams'"),
        (["generate", page, "--set", "temperature=-0.7"], "temperature is -0.7"),
        (["summarize", page, "--num-beams", "0"], "num_beams is 0"),
        (["summarize", "nowhere.txt", "nor-here.txt"], "no file nowhere.txt"),
    ):
        code, out, err = command(*wrong, "--model", "allenai/led-large-16384-arxiv")
        assert (code, out) == (1, "")
        assert found in err


def test_bad_setting_beats_too_long_document(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.txt").write_text("a b " * 4100)
    code, _, err = command("summarize", "long.txt", "--max-new-tokens", "5000", "--quiet")
    assert code == 1
    assert "max_new_tokens is 5000" in err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(b"")))
    assert command("summarize", "-")[2] == (
        "led-ref: standard input is empty: there is nothing to read. Give a document with text in it.\n"
    )


def test_every_kind_of_file_is_read(command, page, line, tmp_path):
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    (tmp_path / "page.txt.gz").write_bytes(gzip.compress(PAGE.encode()))
    struck = re.sub(r"(\w)", "\\1\b\\1", PAGE)
    (tmp_path / "rendered.1").write_text(struck, encoding="utf-8")
    code, out, err = command("summarize", page, "page.md", "page.txt.gz", "rendered.1", *QUICK, "--quiet")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{name}: {line}" for name in (page, "page.md", "page.txt.gz", "rendered.1")]


def test_failed_document_is_named_and_skipped(command, page, line):
    code, out, err = command("summarize", "nowhere.txt", page, *QUICK)
    assert (code, out) == (1, f"page.txt: {line}\n")
    assert "led-ref: There is no file nowhere.txt" in err
    code, out, err = command("summarize", page, page, "--global-attention", "0,999", "--quiet")
    assert (code, out) == (1, "")
    assert err.count("led-ref: page.txt: global_attention holds the position 999") == 2
    # A setting that cannot be is said once: no document would fare better.
    code, out, err = command("summarize", page, page, "--num-beams", "0", "--quiet")
    assert (code, out, err.count("num_beams is 0")) == (1, "", 1)


def test_global_attention_of_each_document(command, page, bundled, tmp_path):
    (tmp_path / "other.txt").write_text("ls </s> tar", encoding="utf-8")
    (tmp_path / "tokens.json").write_text('{"page.txt": [0, "</s>"], "other.txt": "all"}', encoding="utf-8")
    options = ["--quiet", "--json", "--max-new-tokens", "4"]
    code, out, err = command("generate", page, "other.txt", *options, "--global-attention", "tokens.json")
    given = {"global_attention": [[0, "</s>"], range(len(bundled.encode("ls </s> tar")))], "max_new_tokens": 4}
    texts = bundled.generate([PAGE, "ls </s> tar"], **given)
    assert (code, err) == (0, "")
    assert [json.loads(each)["text"] for each in out.splitlines()] == texts
    assert texts[1] != bundled.generate("ls </s> tar", global_attention="none", max_new_tokens=4)
    assert json.loads(command("generate", page, *options, "--global-attention", "0,</s>")[1])["text"] == texts[0]
    (tmp_path / "tokens.json").write_text('{"other.txt": "none"}', encoding="utf-8")
    code, out, err = command("generate", page, *options, "--global-attention", "tokens.json")
    assert (code, out) == (1, "")
    assert "has no entry for page.txt; give" in err


def test_json_lines_hold_all_results(command, page, bundled, tmp_path):
    (tmp_path / "größe.txt").write_text(PAGE, encoding="utf-8")
    options = ["--json", "--quiet", "--set", "num_beams=3", "--set", "num_return_sequences=2", "--max-new-tokens", "4"]
    code, out, err = command("generate", page, "größe.txt", *options, "--global-attention", "none")
    assert (code, err) == (0, "")
    assert "größe" in out
    found = [json.loads(each) for each in out.splitlines()]
    settings = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 4}
    texts = bundled.generate(PAGE, global_attention="none", **settings)
    assert [each["file"] for each in found] == [page, "größe.txt"]
    for each in found:
        assert (each["texts"], each["text"]) == (texts, texts[0])
        assert each["settings"] == bundled.model.effective_settings(**settings).to_dict()
        assert (each["settings"]["num_beams"], each["settings"]["no_repeat_ngram_size"]) == (3, 3)  # call, file
        assert (each["tokens"], each["global_tokens"]) == (len(bundled.encode(PAGE)), 0)
        assert len(each["scores"]) == len(each["ids"]) == 2


def test_generate_shows_every_text_with_its_score(command, page, bundled):
    code, out, _ = command("generate", page, "--set", "num_return_sequences=3", "--set", "early_stopping=never")
    texts = bundled.generate(PAGE, num_return_sequences=3, early_stopping="never")
    assert code == 0
    scores, shown = zip(*(each.strip().split("  ", 1) for each in out.splitlines()), strict=True)
    assert list(shown) == texts
    assert [float(score) for score in scores] == sorted(map(float, scores), reverse=True)
    code, out, _ = command("generate", page, "--set", "early_stopping=None", *QUICK)
    assert (code, len(out.splitlines())) == (0, 1)  # greedy search has no scores


def test_seeded_sampling_repeats_and_streams(command, page, bundled):
    draw = ["--sample", "--seed", "5", "--temperature", "1.5", "--top-p", "0.9", "--max-new-tokens", "6"]
    text = bundled.generate(
        PAGE, do_sample=True, num_beams=1, seed=5, temperature=1.5, top_p=0.9, max_new_tokens=6
    )  # fmt: skip
    assert command("summarize", page, *draw, "--quiet") == (0, f"{text}\n", "")
    assert command("summarize", page, *draw, "--quiet", "--stream") == (0, f"{text}\n", "")
    _, out, err = command("generate", page, "--sample", "--json", *draw[-2:])
    seed = json.loads(out)["settings"]["seed"]
    assert f"--seed {seed} draws the same again" in err
    again = command("summarize", page, "--sample", "--seed", seed, *draw[-2:], "--quiet")
    assert again == (0, f"{json.loads(out)['text']}\n", "")


def test_lookup_takes_one_beam_and_writes_its_text(command, page):
    one = command("generate", page, "--num-beams", "1", "--json", "--quiet")
    looked_up = command("generate", page, "--lookup", "4", "--json", "--quiet")
    plain, found = (json.loads(out) for _, out, _ in (one, looked_up))
    assert found["ids"] == plain["ids"]
    assert found["settings"] == {**plain["settings"], "prompt_lookup_num_tokens": 4}
    assert command("summarize", page, "--lookup", "4", "--stream", "--quiet") == (0, f"{plain['text']}\n", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lookup", "4", "--num-beams", "2"], r"prompt_lookup_num_tokens is 4 .*num_beams is 2.*Pass num_beams=1"),
        (["--stream"], r"num_beams is 4, and beams decide only at their end.*Pass num_beams=1"),
        (["--stream", "--json", "--sample"], "--stream prints a text as it is written, --json and --out"),
        (["--seed", "3"], r"seed is 3 .*do_sample is False"),
    ],
    ids=str,
)
def test_invalid_streaming_or_sampling_options(command, page, options, words):
    code, out, err = command("summarize", page, "--quiet", *options)
    assert (code, out) == (1, "")
    assert re.search(words, err)


def test_truncate(command, page, tmp_path):
    (tmp_path / "long.txt").write_text("a b " * 4100, encoding="utf-8")
    code, out, err = command("summarize", "long.txt", "--quiet")
    assert (code, out) == (1, "")
    assert re.search(
        r"long\.txt: The document has 8\d\d\d tokens, but the bundled model reads at most 8192.*--truncate", err
    )
    code, out, err = command("summarize", "long.txt", *QUICK, "--quiet", "--truncate", "--json")
    assert (code, json.loads(out)["tokens"], err) == (0, 8192, "")


# ---- tokenize -----------------------------------------------------------------------------------------------------------


def test_tokenize_prints_a_table_or_json(command, page, bundled):
    text = "Hello wörld \U0001f600"
    encoded = bundled.tokenizer(text, return_offsets_mapping=True)
    pieces = bundled.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    code, out, err = command("tokenize", "--text", text, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "ids": encoded["input_ids"],
        "pieces": pieces,
        "offsets": [list(offset) for offset in encoded["offset_mapping"]],
        "text": text,
    }
    assert command("tokenize", "--text", text, "--json", "--engine", "rust") == (0, out, "")
    code, out, err = command("tokenize", "--text", text)
    rows = [each.split() for each in out.splitlines()[1:-1]]
    assert (code, err) == (0, "")
    assert [row[3] for row in rows] == pieces
    assert [int(row[1]) for row in rows] == encoded["input_ids"]
    assert out.splitlines()[-1] == f"{len(pieces)} tokens, {len(text)} characters"
    assert "\033" not in out
    assert command("tokenize", page)[1].splitlines()[-1].endswith(f"{len(PAGE)} characters")


def test_colours_show_every_character_once(bundled):
    text = " Two  words, \U0001f600\twörld\x1b[2J"
    offsets = bundled.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    shown = coloured(text, offsets)
    plain = re.sub(r"\033\[[\d;]*m", "", shown)
    assert plain == text.replace("\x1b", "\\x1b")
    assert len(set(re.findall(r"48;5;(\d+)", shown))) > 1


# ---- inspect and convert ------------------------------------------------------------------------------------------------


def test_inspect(command):
    code, out, err = command("inspect", "--tensors")
    assert (code, err) == (0, "")
    for part in ("5,657,472", "22.7 MB in float32", "126 of F16", "128, 128, 128", "64, 64, 64", "d_model"):
        assert part in out
    assert re.search(r"led\.encoder\.layers\.1\.fc1\.weight +F16 \[768, 192\]", out)
    assert "None" not in out
    code, out, err = command("inspect", "--json")
    found = json.loads(out)
    assert (code, err, found["parameters"], len(found["tensors"])) == (0, "", 5657472, 126)
    assert found["config"] == led_ref.LEDConfig.from_pretrained(led_ref.bundled_model()).to_dict()


def test_inspect_describes_invalid_folders(command, tmp_path):
    model = tmp_path / "model"
    command("convert", led_ref.bundled_model(), model)
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**values, "decoder_layers": 3}))
    for options in ([], ["--json"]):
        code, out, err = command("inspect", model, *options)
        assert code == 1
        assert "5657472" in out.replace(",", "")
        assert "missing: led.decoder.layers.2" in err


def test_converted_folder_summarizes(command, page, line, tmp_path):
    code, out, err = command("convert", led_ref.bundled_model(), "new", "--dtype", "float32", "--quiet")
    assert (code, err) == (0, "")
    assert "5,657,472" in out
    assert "float32, each read back and compared bit for bit" in out
    assert command("summarize", page, "--model", "new", *QUICK, "--quiet") == (0, f"{line}\n", "")
    code, out, err = command("convert", "new", "half", "--dtype", "bfloat16", "--json", "--quiet")
    found = json.loads(out)
    assert (code, err, found["dtypes"]) == (0, "", ["bfloat16"])
    assert found["bytes_written"] == (tmp_path / "half" / "model.safetensors").stat().st_size
    code, out, err = command("convert", "new", "half")
    assert (code, out) == (1, "")
    assert "--overwrite" in err
    assert command("convert", "new", "half", "--overwrite")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "new", "page.txt"]


# ---- as a process: terminals, pipes, Ctrl-C -----------------------------------------------------------------------------


def test_progress_and_colours_on_terminals_only(page):
    code, shown = on_a_terminal(["summarize", page, *QUICK])
    assert code == 0
    assert "page.txt: read" in shown
    assert re.search(r"\d/3 ", shown)  # layers
    assert "page.txt: write" in shown
    assert "page.txt" not in on_a_terminal(["summarize", page, *QUICK, "--quiet"])[1]
    done = subprocess.run([*COMMAND, "summarize", page, *QUICK], capture_output=True, text=True, check=True)
    assert "page.txt: read" not in done.stderr
    assert "\r" not in done.stderr
    code, shown = on_a_terminal(["tokenize", "--text", "a b"], stdout_too=True)
    assert (code, shown.count("\033[97;48;5;")) == (0, 2)
    assert (
        "\033"
        not in on_a_terminal(["tokenize", "--text", "a"], stdout_too=True, env={**os.environ, "NO_COLOR": "1"})[1]
    )


def test_ctrl_c_exit_code_and_whole_lines(page, tmp_path):
    (tmp_path / "long.txt").write_text("the longest page of all " * 1000, encoding="utf-8")  # nine of them take seconds
    arguments = ["summarize", page, *["long.txt"] * 9, "--json", *QUICK]
    # A test run under nohup or in a CI's background ignores SIGINT, and its children would, too.
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heeds
    )
    first = process.stdout.readline()  # the short one is done, the long one begun
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [json.loads(each)["file"] for each in (first + out).splitlines()] == [page]
    assert (first + out).endswith("\n")
    assert err.rstrip().endswith("led-ref: interrupted")
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.txt", page]


def test_ctrl_c_during_import(page):
    """Wherever it comes between Python's own start and the first result, it is no traceback."""
    module = "import sys; sys.path[:0] = {path!r}; import _thread, signal; real = __import__\n"
    module += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    interrupted = """
def importing(name, *rest):
    if name == {name!r}: _thread.interrupt_main()
    return real(name, *rest)
import builtins; builtins.__import__ = importing
from led_ref.cli.main import main
sys.exit(main(["tokenize", {page!r}]))
"""
    for name in ("argparse", "json", "led_ref.cli", "led_ref.tokenizer.tokenizer", "numpy"):
        program = (module + interrupted).format(path=sys.path, name=name, page=page)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (130, ""), name
        assert done.stderr in ("", "led-ref: interrupted\n")


def test_a_closed_pipe_is_no_failure(page):
    """As `led-ref tokenize ... | head -0`: the reader is gone before the first line."""
    process = subprocess.Popen([*COMMAND, "tokenize", page], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    ready = select.select([process.stderr], [], [], 60)[0]
    err = process.stderr.read() if ready else ""
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (0, "")


if os.path.exists("/dev/full"):  # Linux has a disk that is always full

    def test_full_disk_message(page):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*COMMAND, "tokenize", page], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1
        assert re.fullmatch(r"led-ref: standard output: .*No space left on device.*disk's space\.\n", done.stderr)


class ClosedPipe(io.StringIO):
    """A standard output whose reader has left."""

    def write(self, _):
        raise BrokenPipeError


def test_exit_code_survives_a_closed_pipe(page, bundled, tmp_path, monkeypatch):
    for name, ids in (("a", [[0, 5, 2]]), ("b", [[0, 6, 2]])):
        led_ref.trace(bundled.model.encoder, ids, only="fc1").save(f"{name}.safetensors")
    asks = [
        ("diff", "a.safetensors", "b.safetensors"),
        ("diff", "a.safetensors", "b.safetensors", "--json"),
        ("vectors", "check", VECTORS, "--level", "L1", "--cmd", "false {in} {out}"),
        ("exercise", "4"),
        ("summarize", "nowhere.txt", page, *QUICK),
    ]
    for arguments in asks:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", ClosedPipe())
            assert main([str(argument) for argument in arguments]) == 1, arguments
    with monkeypatch.context() as patch:  # files are written to the last, whoever reads their names
        patch.setattr(sys, "stdout", ClosedPipe())
        (tmp_path / "second.txt").write_text(PAGE)
        assert main(["summarize", page, "second.txt", *QUICK, "--out", "texts"]) == 0
    assert {path.name for path in (tmp_path / "texts").glob("*.txt")} == {"page.summary.txt", "second.summary.txt"}


def test_letters_in_files_pipes_and_terminals(page):
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    arguments = ["tokenize", "--text", "ö \U0001f600 a"]
    for more in ([], ["--json"]):
        done = subprocess.run([*COMMAND, *arguments, *more], capture_output=True, check=True, env=ascii_only)
        assert "Ġ" in done.stdout.decode("utf-8")
    with open("table.txt", "wb") as file:
        subprocess.run([*COMMAND, "summarize", "größe.txt"], stderr=file, check=False, env=ascii_only)
    assert "größe.txt" in Path("table.txt").read_text(encoding="utf-8")
    assert "\\u0120a" in on_a_terminal(arguments, stdout_too=True, env={**ascii_only, "NO_COLOR": "1"})[1]
    shown = on_a_terminal([*arguments, "--json"], stdout_too=True, env=ascii_only)[1]
    assert shown.isascii()
    assert json.loads(shown)["text"] == arguments[-1]


def test_notices_never_stop_the_work(command, page, line, monkeypatch):
    """Without a standard error (pythonw, `2>&-`), and where it is full or nobody reads it."""
    after = "from led_ref.cli.main import main; import os, sys; main(sys.argv[1:]); os.fstat(2)  # which nobody took"
    asked = shlex.join([sys.executable, "-c", after, "summarize", page, *QUICK])
    for redirected in ("2>&-", "2>/dev/full", "2>&- <&-", "2> >(true)"):
        done = subprocess.run(["bash", "-c", f"{asked} {redirected}"], capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == (f"{line}\n", 0), redirected
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    assert main(["summarize", page, "nowhere.txt", *QUICK]) == 1
    assert out.getvalue() == f"{page}: {line}\n"
    assert sys.stderr is None
