"""Names that no file can have, and a disk that takes nothing, where a result is to be written: typed, and before the work."""

import os
from functools import partial
from pathlib import Path

import pytest
from training.small_models import small_model

import led_ref
from led_ref.errors import LEDError, WriteError
from led_ref.files import staging
from led_ref.files.json_file import write_text
from led_ref.files.lines import append_line
from led_ref.training.log import save_curve
from led_ref.weights.convert import convert
from led_ref.weights.from_bart import convert_bart

VECTORS = Path(__file__).parent / "vectors" / "v1"
NAMES = ["x" * 256, "é" * 128, "new/" + "x" * 256, "a/" * 2100, "page.txt/inside", "a\0b", "\ud800"]
COMMANDS = [
    "summarize page.txt --quiet --out", "summarize page.txt --jsonl --quiet --out", "explore page.txt --quiet --out",
    "trace page.txt --out", "gather done --out", "convert model", "train lines.jsonl --model model --quiet --out",
    "train lines.jsonl --model model --out new --quiet --plot", "evaluate lines.jsonl --quiet --out",
    "evaluate lines.jsonl --quiet --html", "exercise 4 --folder", f"vectors check {VECTORS} --level L0 --junit",
    "vectors write", f"vectors answer --in {VECTORS} --out", "bench --quick --quiet --plot", "diff a b --plot",
]  # fmt: skip


@pytest.fixture
def scene(tmp_path, monkeypatch, bundled, command):
    """A folder with a model, a page, pages in lines, and results."""
    monkeypatch.chdir(tmp_path)
    small_model().save_pretrained("model", others=bundled.tokenizer.save_pretrained)
    Path("page.txt").write_text("tar makes archives")
    Path("lines.jsonl").write_text('{"text": "tar makes archives", "summary": "an archiver"}\n')
    assert command("summarize", "page.txt", "--quiet", "--out", "done", "--max-new-tokens", "2")[0] == 0
    return tmp_path


def writers(led):
    tokenizer = led.tokenizer
    return {
        "LED.save_pretrained": led.save_pretrained,
        "model.save_pretrained": led.model.save_pretrained,
        "LEDConfig": led.model.config.save_pretrained,
        "LEDTokenizer": tokenizer.save_pretrained,
        "save_vocabulary": tokenizer.save_vocabulary,
        "filename_prefix": partial(tokenizer.save_vocabulary, "."),
        "convert": partial(convert, "model"),
        "convert_bart": partial(convert_bart, "model"),
        "train": partial(led_ref.train, "lines.jsonl", "model"),
        "evaluate": lambda out: led_ref.evaluate("lines.jsonl", out=out),
        "html": lambda out: led_ref.evaluate("lines.jsonl", html=out),
        "generate_many": lambda out: list(led_ref.generate_many(["tar makes archives"], out=out, max_new_tokens=1)),
        "trace": led_ref.trace(led.model, [[0, 2]], decoder_input_ids=[[2]], only="logits").save,
        "save_curve": lambda out: save_curve([], out if not isinstance(out, str) else f"{out}.svg"),
    }


def test_names_that_no_file_can_have(scene, bundled, command):
    before, wrong = sorted(os.listdir()), []
    for called, write in writers(bundled).items():
        for name in [*NAMES, 5, b"bytes", None, ["a"]]:
            if name is None and called in ("evaluate", "html", "generate_many", "filename_prefix"):
                continue  # nothing is to be written, and that may be
            try:
                write(name)
                wrong.append(f"{called} took {name!r:.20}")
            except LEDError as error:
                if len(str(error)) > 600 or (not isinstance(name, str) and not isinstance(error, TypeError)):
                    wrong.append(f"{called}, {name!r:.20}: {error!r:.200}")
            except Exception as error:
                wrong.append(f"{called}, {name!r:.20}: {error!r:.120}")
    for line in COMMANDS:
        for name in NAMES:
            code, out, err = command(*line.split(), name)
            if code not in (1, 2) or out or len(err) > 600 or "Error" in err:
                wrong.append(f"{line} {name!r:.20}: {code}, {out[:40]!r}, {err[:200]!r}")
    assert not wrong, "\n".join(wrong)
    assert sorted(os.listdir()) == before


def test_what_the_disk_refuses_is_typed(tmp_path, monkeypatch):
    """A WriteError names the file and the reason; it is an OSError, too. A closed pipe stays what it is."""

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        partial(write_text, tmp_path / "text", "a"),
        partial(append_line, tmp_path / "lines", {}),
        partial(led_ref.LEDConfig().save_pretrained, tmp_path / "config"),
        partial(led_ref.load().tokenizer.save_pretrained, tmp_path / "tokenizer"),
    ):
        with pytest.raises(WriteError, match=rf"{tmp_path}.* cannot be written \(No space left on device\)") as caught:
            write()
        assert (caught.value.errno, isinstance(caught.value, OSError)) == (28, True)
    with pytest.raises(BrokenPipeError), staging.naming(tmp_path):
        raise BrokenPipeError
    assert not any(path.is_file() and path.stat().st_size for path in tmp_path.rglob("*"))
