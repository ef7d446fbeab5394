"""The folder of a training survives a kill at any moment, a full disk and missing permissions."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from led_ref.errors import CheckpointError
from led_ref.training.run_folder import RunFolder
from led_ref.training.run_state import CHECKPOINT, Progress, load_checkpoint

ROOT = Path(__file__).parent.parent.parent
FACTS = {"training": {"seed": 1}}
WEIGHTS = {"led.shared.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
MOMENTS = {"led.shared.weight.step": np.array(4)}


def all_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_training_killed_at_any_change_goes_on(tmp_path):
    """LED_REF_HYPOTHESIS=long tries every change to the disk, else every twelfth."""
    every = "1" if os.environ.get("LED_REF_HYPOTHESIS") == "long" else "12"
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("", "backends", "tests"))
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "training" / "killed_training.py", tmp_path, every],
        env=os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * int(every) > 40


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint."""
    folder = RunFolder(tmp_path / "out", resume=False)
    assert folder.begin(FACTS) is None
    folder.save(WEIGHTS, MOMENTS, Progress(step=3))
    return folder


def test_only_unfinished_files_of_this_run_are_removed(run, tmp_path):
    left = [
        "out/.checkpoint.safetensors.77.unfinished", "out/.training.json.77.partial", "out/.log.jsonl.unfinished",
        "out/.last.a_b3c4d5.unfinished/new/config.json", ".out.a_b3c4d5.unfinished/before/model.safetensors",
    ]  # fmt: skip
    kept = [
        ".out.2.a_b3c4d5.unfinished/new/config.json",
        "out/.notes.unfinished",
        "out/.checkpoint.safetensors",
        ".out",
    ]
    for name in [*left, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert RunFolder(run.path, resume=True).begin(FACTS) == Progress(step=3)
    files = [name for name in all_files(tmp_path) if (tmp_path / name).is_file()]
    assert files == sorted([*kept, "out/checkpoint.safetensors", "out/training.json"])
    assert not any((tmp_path / name).parent.exists() for name in left[3:])


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_checkpoint_before_is_kept_where_the_disk_fails(run, monkeypatch, name, error):
    def fail(*arguments):
        raise error

    before = all_files(run.path)
    monkeypatch.setattr(os, name, fail)
    with pytest.raises(CheckpointError, match=rf"checkpoint\.safetensors could not be written .*{error.strerror}"):
        run.save({key: array + 1 for key, array in WEIGHTS.items()}, MOMENTS, Progress(step=4))
    monkeypatch.undo()
    assert all_files(run.path) == before
    weights, moments, progress = load_checkpoint(run.path)
    np.testing.assert_array_equal(weights["led.shared.weight"], WEIGHTS["led.shared.weight"])
    assert (int(moments["led.shared.weight.step"]), progress.step) == (4, 3)


def test_folder_without_permission_is_refused(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    folder = RunFolder(tmp_path / "out", resume=False)
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(
        CheckpointError, match=r"training\.json could not be written .*Permission denied.*Check the disk"
    ):
        folder.begin(FACTS)
    assert all_files(tmp_path) == ["out"]


def test_checkpoint_file_is_the_only_one(run):
    run.save(WEIGHTS, MOMENTS, Progress(step=4))
    assert all_files(run.path) == [CHECKPOINT, "training.json"]
    assert load_checkpoint(run.path)[2].step == 4
