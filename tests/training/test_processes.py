"""Several processes train as one does, bit for bit, and say what is wrong when one of them is gone."""

import json
import multiprocessing
import os
import signal
import sys

import numpy as np
import pytest
from other_processes import ends
from training.small_models import small_model

from led_backends.numpy_backend import NumpyBackend
from led_ref.errors import InputError, SettingsError
from led_ref.training import processes, step
from led_ref.training.data import read_dataset
from led_ref.training.log import read_log
from led_ref.training.processes import owner, shared_among
from led_ref.training.settings import DataArguments, RunArguments
from led_ref.training.trainer import run_training
from led_ref.weights.safetensors_file import read_safetensors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes need Linux's fork")


WORDS = ["a", "cat", "sat", "on", "the", "mat", "and", "two", "dogs", "ran"]


@pytest.fixture(scope="module")
def dataset(bundled, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    lines = [
        {"text": " ".join(WORDS[: 3 + i % 5 * 2]), "summary": " ".join(WORDS[i % 3 : i % 3 + 1 + i % 4])}
        for i in range(23)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_dataset([path], DataArguments(), bundled.tokenizer, small_model())


@pytest.fixture
def train(bundled, dataset, tmp_path):
    """Train for two epochs. The step has 11 documents in parts of 2: six parts, and one process waits for its slots."""

    def run(name, count, *, on_log=lambda line: None, resume=False, **settings):
        settings = {
            "per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "documents_at_once": 2, "learning_rate": 1e-2,
            "num_train_epochs": 2, "processes": count, "save_steps": 1,
        } | settings  # fmt: skip
        run_training(
            small_model(), bundled.tokenizer, dataset, tmp_path / name, RunArguments.of(**settings),
            on_log=on_log, resume=resume,
        )  # fmt: skip
        tensors = read_safetensors(tmp_path / name / "model.safetensors")
        return {key: tensor.to_numpy().copy() for key, tensor in tensors.items()}

    yield run
    assert not multiprocessing.active_children()  # also after an error


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "settings",
    [{}, {"lora_rank": 2}, {"freeze": ["encoder"], "accumulate_as": "transformers"}, {"optim": "adafactor"}],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_same_bits_for_any_number_of_processes(train, tmp_path, settings):
    alone = train("one", 1, **settings)
    for count in (2, 3):
        assert same(train(f"{count}", count, **settings), alone)
        logs = [read_log(tmp_path / name / "log.jsonl") for name in ("one", f"{count}")]
        assert [(line["loss"], line["grad_norm"]) for line in logs[0]] == [
            (line["loss"], line["grad_norm"]) for line in logs[1]
        ]


def test_run_goes_on_with_other_processes(train):
    whole = train("whole", 1)

    def interrupted(line):
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("cut", 2, on_log=interrupted)
    assert same(train("cut", 3, resume=True), whole)


def test_each_process_computes_its_part(train, monkeypatch, tmp_path):
    add_part = step.StepGradients.add_part

    def noted(self, part, number, loss_scale, add):
        with open(tmp_path / "who", "a") as file:
            file.write(f"{os.getpid()} {part.documents}\n")
        return add_part(self, part, number, loss_scale, add)

    monkeypatch.setattr(step.StepGradients, "add_part", noted)
    train("out", 3, num_train_epochs=1)
    lines = (tmp_path / "who").read_text().splitlines()
    by_process = {pid: sum(line.startswith(pid) for line in lines) for pid in {line.split()[0] for line in lines}}
    assert len(by_process) == 3
    assert str(os.getpid()) in by_process
    assert sum(by_process.values()) == len({line.split(maxsplit=1)[1] for line in lines}) == len(lines)
    assert max(by_process.values()) - min(by_process.values()) <= 2


def test_error_of_another_process_ends_the_training(train, monkeypatch):
    first, add_part = os.getpid(), step.StepGradients.add_part

    def spoiled(self, part, number, loss_scale, add):
        if os.getpid() != first and number == 1:
            raise InputError("the second step of the other process")
        return add_part(self, part, number, loss_scale, add)

    monkeypatch.setattr(step.StepGradients, "add_part", spoiled)
    with pytest.raises(InputError, match="the second step of the other process"):
        train("out", 2)


def test_process_that_was_killed_is_named(train, monkeypatch):
    first, add_part = os.getpid(), step.StepGradients.add_part

    def killed(self, part, number, loss_scale, add):
        if os.getpid() != first and number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return add_part(self, part, number, loss_scale, add)

    monkeypatch.setattr(step.StepGradients, "add_part", killed)
    with pytest.raises(InputError, match=r"ended \(exit code -9.*--resume"):
        train("out", 2)


def test_others_end_when_the_first_is_killed(train, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_SECONDS", 0.1)
    pid = os.fork()
    if not pid:

        def stop(line):
            (child,) = multiprocessing.active_children()
            (tmp_path / "pid").write_text(str(child.pid))
            os.kill(os.getpid(), signal.SIGKILL)

        train("out", 2, on_log=stop)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    other = int((tmp_path / "pid").read_text())
    assert ends(other, 20)


def test_parts_are_dealt_there_and_back():
    assert [owner(i, 3) for i in range(8)] == [2, 1, 0, 0, 1, 2, 2, 1]
    assert {owner(i, 1) for i in range(5)} == {0}


def test_each_process_has_its_share_of_the_threads():
    assert [shared_among(count, NumpyBackend(4)).threads for count in (1, 2, 3, 9)] == [4, 2, 1, 1]


def test_refused_where_there_can_be_none(monkeypatch):
    class Elsewhere:
        name = "cupy"

        def describe(self):
            return "CuPy, a device"

    with pytest.raises(SettingsError, match="processes is 2, but CuPy, a device is a GPU"):
        shared_among(2, Elsewhere())
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SettingsError, match="win32 has no fork"):
        shared_among(2, NumpyBackend(1))
