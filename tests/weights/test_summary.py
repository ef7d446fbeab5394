"""What `led-ref inspect` says of a checkpoint, without reading it."""

import json

import numpy as np
import pytest
from test_load import FORMS, LM_HEAD

from led_ref.errors import MissingFileError
from led_ref.weights.keys import parameter_count
from led_ref.weights.summary import summarize_checkpoint


@pytest.mark.parametrize("form", ["LEDModel", "allenai", "all tied names", "float16", f"only {LM_HEAD}"])
def test_summary_describes_the_files(make_folder, tensors, config, form):
    stored = FORMS[form](tensors)
    summary = summarize_checkpoint(make_folder(stored, shards=2))
    assert summary.problem is None
    assert summary.files == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert summary.parameters == parameter_count(config)
    assert summary.bytes_in_float32 == 4 * (parameter_count(config) + config.vocab_size)
    assert summary.bytes_on_disk > sum(array.nbytes for array in stored.values())
    assert summary.dtypes == {"F16" if form == "float16" else "F32": len(stored)}
    assert (summary.windows, summary.radii) == ((4, 6), (2, 3))
    assert {tensor.name: tensor.shape for tensor in summary.tensors} == {key: a.shape for key, a in stored.items()}
    assert json.loads(json.dumps(summary.to_dict()))["config"]["d_model"] == 14


def test_summary_reads_no_tensor_data(make_folder, tensors, config, monkeypatch):
    monkeypatch.setattr("led_ref.weights.stored_tensor.StoredTensor.to_numpy", None)
    tensors = {key: np.full_like(array, np.nan) for key, array in tensors.items()}
    assert summarize_checkpoint(make_folder(tensors)).parameters == parameter_count(config)


def test_mismatch_is_described(make_folder, tensors, config):
    tensors["left.over"] = np.zeros(3, np.float32)
    summary = summarize_checkpoint(make_folder(tensors))
    assert "1 left over: left.over" in summary.problem
    assert summary.parameters == parameter_count(config) + 3


def test_a_folder_needs_config_and_weights(make_folder, tensors):
    folder = make_folder(tensors)
    (folder / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"config\.json"):
        summarize_checkpoint(folder)
