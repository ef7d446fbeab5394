"""`led-ref doctor`: does it say what works, and does it notice when something does not?"""

import json
import os
import re
import shutil

import numpy as np
import pytest

import led_ref
from led_backends.numpy_backend import NumpyBackend
from led_backends.processors import default_threads
from led_ref.config import LEDConfig
from led_ref.tools import doctor
from led_ref.tools.random_weights import write_random_checkpoint

# Folders that hold allenai/led-base-16384, if anyone has named some.
LED_BASE_DIRS = [folder for folder in os.environ.get("LED_BASE_DIR", "").split(os.pathsep) if folder]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A model of random weights that the known input fits, far smaller than led-base."""
    folder = tmp_path_factory.mktemp("stand-in")
    config = LEDConfig(
        vocab_size=31416,
        d_model=6,
        max_encoder_position_embeddings=4096,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=3,
        encoder_ffn_dim=5,
        decoder_ffn_dim=7,
        attention_window=16,
    )
    write_random_checkpoint(folder, config, seed=3)
    return folder


def test_report_of_this_machine(command):
    code, out, err = command("doctor", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["led-ref"] == led_ref.__version__
    assert found["blas"]["threads of led_ref"] >= 1
    assert found["blas"]["decided by"] == default_threads().rule
    assert re.fullmatch(r"works: NumPy [\d.]+, \d+ threads?", found["backends"]["numpy"])
    assert found["backends"]["cupy"].startswith("no: ")
    assert found["bundled"]["ok"] is True
    assert "led-ref" in found["bundled"]["wrote"]


def test_threads_of_the_checks(command, stand_in, monkeypatch):
    seen, init = [], NumpyBackend.__init__
    monkeypatch.setattr(
        NumpyBackend, "__init__", lambda self, threads=None: seen.append(threads) or init(self, threads)
    )
    _, out, _ = command("doctor", "--threads", 3, "--checkpoint", stand_in, "--json")
    found = json.loads(out)
    assert (found["blas"]["threads of led_ref"], found["blas"]["decided by"]) == (3, "--threads 3")
    assert found["backends"]["numpy"].endswith(", 3 threads")
    assert seen.count(3) == 3  # what works, the bundled model, the checkpoint
    code, _, err = command("doctor", "--gpu", "--threads", 3)
    assert (code, "--threads 3 is for the checks of a CPU" in err) == (2, True)


def test_damaged_bundled_model_is_reported(command, tmp_path, monkeypatch):
    whole, model = led_ref.bundled_model, shutil.copytree(led_ref.bundled_model(), tmp_path / "bundled")
    monkeypatch.setattr("led_ref.api.bundled_model", lambda *task: model / whole(*task).relative_to(whole()))
    with open(model / "merges.txt", "ab") as file:
        file.write(b"a b\n")
    code, out, err = command("doctor")
    assert code == 1
    assert "changed" in out
    assert "the bundled check failed: merges.txt has sha256" in err
    assert (out + err).count("sha256") == 1  # told once
    (model / "merges.txt").unlink()
    code, out, err = command("doctor", "--json")
    assert (code, json.loads(out)["bundled"]["ok"]) == (1, False)
    assert "merges.txt" in err
    assert "install led-ref again" in err


def test_random_weights_are_not_led_base(stand_in):
    report = doctor.check_checkpoint(str(stand_in))
    assert report["ok"] is False
    assert report["states differ by"] > doctor.KNOWN_TOLERANCE
    assert report["logits differ by"] > doctor.KNOWN_TOLERANCE


def test_the_tolerance_decides(stand_in, monkeypatch):
    """With the numbers of this very model as the known ones, almost: 0.9 of what is allowed passes, 1.1 does not."""
    assert doctor.KNOWN_TOLERANCE == 1e-3
    model = led_ref.LEDForConditionalGeneration.from_pretrained(stand_in)
    out = model.forward([512 * doctor.KNOWN_IDS], decoder_input_ids=[128 * doctor.KNOWN_IDS])
    states = model.led.forward([512 * doctor.KNOWN_IDS], decoder_input_ids=[128 * doctor.KNOWN_IDS]).last_hidden_state
    corner = {"KNOWN_STATES": np.array(states[0, :3, :3]), "KNOWN_LOGITS": np.array(out.logits[0, :3, :3])}
    for spoilt in corner:
        for factor in (0.9, -0.9, 1.1, -1.1):
            for name, values in corner.items():
                off = np.zeros((3, 3))
                off[2, 1] = factor * doctor.KNOWN_TOLERANCE * (name == spoilt)
                monkeypatch.setattr(doctor, name, values + off)
            report = doctor.check_checkpoint(str(stand_in))
            assert report["ok"] is (abs(factor) < 1), (spoilt, factor, report)


@pytest.mark.parametrize("as_json", [False, True])
def test_invalid_checkpoint_keeps_the_report(command, tmp_path, as_json):
    for folder, found in (
        (led_ref.bundled_model(), "a vocabulary of 6144 and 8192 and 256 positions"),
        (tmp_path / "nowhere", "no folder"),
        (tmp_path, "no file"),
    ):
        code, out, err = command("doctor", "--checkpoint", folder, *(["--json"] if as_json else []))
        assert code == 1
        assert "the checkpoint check failed" in err
        assert found in err
        assert "Traceback" not in err
        if as_json:
            report = json.loads(out)
            assert (report["bundled"]["ok"], report["checkpoint"]["ok"]) == (True, False)
            assert found in report["checkpoint"]["error"]
        else:
            assert np.__version__ in out


if LED_BASE_DIRS:  # else nothing is collected, and conftest.py says so at the end of the run

    @pytest.mark.parametrize("folder", LED_BASE_DIRS)
    def test_led_base_known_numbers(folder):
        report = doctor.check_checkpoint(folder)
        print(report)
        assert report["ok"], report
