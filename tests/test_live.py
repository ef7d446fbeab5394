"""What the site brings for the reader's browser: files are accepted by hash. The rest: tests/browser/check_live.py."""

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors

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


def test_files_of_tensors_from_a_browser(tmp_path, monkeypatch):
    """Where the library safetensors is missing, a page writes files that it reads: led_ref's own check, and the library's."""
    sys.path.append(str(Path(fetch_pyodide.__file__).parent / "live"))
    import reader

    from led_ref.weights.safetensors_file import write_safetensors
    from led_ref.weights.stored_tensor import StoredTensor

    arrays = {
        "b": np.arange(6.0, dtype=np.float32).reshape(2, 3),
        "a": np.array([7], np.int64),
        "c": np.zeros((0, 2), np.float16),
    }
    kinds = {"float32": "F32", "int64": "I64", "float16": "F16"}
    with monkeypatch.context() as here:
        here.setitem(sys.modules, "safetensors", reader.small_safetensors())
        write_safetensors(
            tmp_path / "f", {n: StoredTensor(kinds[x.dtype.name], x) for n, x in arrays.items()}, {"format": "pt"}
        )
    found = dict(safetensors.deserialize((tmp_path / "f").read_bytes()))
    assert {name: (one["dtype"], list(one["shape"]), bytes(one["data"])) for name, one in found.items()} == {
        name: (kinds[x.dtype.name], list(x.shape), x.tobytes()) for name, x in arrays.items()
    }
