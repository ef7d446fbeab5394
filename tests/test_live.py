"""What the site brings for the reader's browser: files are accepted by hash. The rest: tests/browser/check_live.py."""

import gzip
import hashlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "docs"))

import fetch_pyodide


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The script, with two small files in place of Pyodide, and folders of this test."""
    contents = {"pyodide.asm.wasm": b"program", "numpy-2.4.3-py3.whl": b"library"}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(fetch_pyodide, "SUMS", sums)
    monkeypatch.setattr(fetch_pyodide, "FOLDER", tmp_path / "made")
    monkeypatch.setenv("LED_REF_PYODIDE", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    return contents, tmp_path


def test_files_that_are_there_are_not_fetched(small, monkeypatch):
    contents, folder = small
    for name, content in contents.items():
        (folder / "kept" / name).write_bytes(content)
    monkeypatch.setattr(fetch_pyodide, "fetch", lambda *_: pytest.fail("it asked the index"))
    assert fetch_pyodide.main() == 0
    assert gzip.decompress((folder / "made" / "pyodide.asm.wasm.gzipped").read_bytes()) == b"program"
    assert (folder / "made" / "numpy-2.4.3-py3.whl").read_bytes() == b"library"
    for file in (folder / "kept").iterdir():
        file.unlink()
    assert fetch_pyodide.main() == 0


def test_another_content_is_refused(small, monkeypatch, capsys):
    contents, folder = small

    def fetch(names, kept):
        assert sorted(names) == sorted(contents)
        for name in names:
            (kept / name).write_bytes(b"another")

    monkeypatch.setattr(fetch_pyodide, "fetch", fetch)
    assert fetch_pyodide.main() == 1
    assert "has the sha256" in capsys.readouterr().err
    assert list((folder / "made").iterdir()) == []
