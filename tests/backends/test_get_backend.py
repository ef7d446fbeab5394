"""Which backend one gets by name, and what is said where the GPU's cannot be had: no CuPy, no driver, no CUDA libraries."""

import logging
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import led_backends
import led_ref
from led_backends.numpy_backend import NumpyBackend
from led_ref.classes.pretrained import get_backend
from led_ref.errors import BackendError, CheckpointError

BACKENDS = Path(led_backends.__file__).parent
ROOT = Path(__file__).parents[2]


class FakeDriverError(RuntimeError):
    """What CuPy raises where CUDA fails."""


def a_cupy(devices):
    """As much of a module cupy as is asked before a GPU has answered; `devices` counts them, or raises."""
    module = types.ModuleType("cupy")
    module.__version__ = "14.2.0"
    module.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=devices))
    return module


def failing(error):
    def fail(*_):
        raise error

    return fail


def test_no_cupy_import_without_cupy():
    program = (
        "import sys, importlib.util; importlib.util.find_spec = lambda name: None; import led_backends;"
        " print(led_backends.get('numpy').name, led_backends.get('auto').name,"
        "[m for m in sys.modules if m.startswith(('cupy', 'led_backends.cupy'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "numpy numpy []"


def test_an_unknown_name():
    with pytest.raises(led_backends.BackendUnavailableError, match=r"no backend 'torch'.*auto, numpy, cupy"):
        led_backends.get("torch")


def test_install_hint_for_each_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    with pytest.raises(led_backends.BackendUnavailableError) as caught:
        led_backends.get("cupy")
    for part in ("led-ref[cuda13]", "580", "led-ref[cuda12]", "525", "nvidia-smi", "backend='numpy'"):
        assert part in str(caught.value)
    assert led_backends.get("auto").name == "numpy"
    with pytest.raises(BackendError, match=r"led-ref\[cuda13\]"):  # led_ref's own kind, the same words
        get_backend("cupy")


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        (
            failing(FakeDriverError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")),
            "InsufficientDr",
        ),
        (lambda: 0, "counts no device"),
    ],
)
def test_no_gpu_message_quotes_cupy(monkeypatch, devices, reason):
    monkeypatch.setitem(sys.modules, "cupy", a_cupy(devices))
    with pytest.raises(
        led_backends.BackendUnavailableError, match=rf"CuPy 14\.2\.0.*no GPU.*{reason}.*nvidia-smi.*numpy"
    ):
        led_backends.get("cupy")
    said = []
    assert isinstance(led_backends.get("auto", notice=said.append), NumpyBackend)
    assert [reason in sentence for sentence in said] == [True] * (
        reason == "InsufficientDr"
    )  # no GPU: nothing is wrong


def test_missing_cublas_is_detected(monkeypatch):
    cupy = a_cupy(lambda: 1)
    cupy.ones = failing(ImportError("Failure finding libcublasLt.so"))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(led_backends.BackendUnavailableError, match=r"libcublasLt.*led-ref\[cuda13\]"):
        led_backends.get("cupy")


def test_unusable_gpu_is_a_warning_and_is_logged(monkeypatch, caplog):
    def use():
        return led_ref.load().model.backend.name

    assert use() == "numpy"  # no CuPy, no word
    cupy = a_cupy(lambda: 1)
    cupy.ones = failing(ImportError("Failure finding libcublasLt.so"))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.warns(
        RuntimeWarning, match=r"on the CPU, because the GPU cannot be used\. CuPy 14.*libcublasLt.*numpy"
    ) as warned:
        assert use() == "numpy"
    assert warned[0].filename == __file__  # the line that called led_ref
    ((name, level, sentence),) = caplog.record_tuples
    assert (name, level) == ("led_ref", logging.WARNING)
    assert "libcublasLt" in sentence
    seen = []
    assert led_ref.load(notice=seen.append).model.backend.name == "numpy"
    assert seen == [sentence]


def test_quiet_commands_say_nothing_of_a_gpu(monkeypatch, command, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", a_cupy(failing(RuntimeError("cudaErrorSystemDriverMismatch"))))
    (tmp_path / "page.txt").write_text("a page")
    arguments = ("summarize", tmp_path / "page.txt", "--max-new-tokens", "2")
    assert "the GPU cannot be used" in command(*arguments)[2]
    assert command(*arguments, "--quiet")[2] == ""
    assert "cudaErrorSystemDriverMismatch" in command("doctor")[1]


def test_notices_are_logged(caplog, tmp_path):
    """What loading says where no `notice` is given: here that weights are read from a .bin."""
    led_ref.load().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")
    with caplog.at_level(logging.INFO, "led_ref"), pytest.raises(CheckpointError):
        led_ref.load(tmp_path)
    assert ["Reading pytorch_model.bin" in record.message for record in caplog.records] == [True]
    assert caplog.records[0].levelno == logging.INFO


def test_extras_include_cuda_libraries():
    """As of CuPy 14, its wheels alone have neither cuBLAS nor the headers that kernels.cu includes."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert [extras[name] for name in ("cuda12", "cuda13")] == [["cupy-cuda12x[ctk]>=14"], ["cupy-cuda13x[ctk]>=14"]]


def test_source_files_name_the_test_gpu():
    for name in ("cupy_backend.py", "kernels.cu", "__init__.py"):
        text = (BACKENDS / name).read_text(encoding="utf-8").lower()
        assert "kind" in text
        assert "h100" in text
