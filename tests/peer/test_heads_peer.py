"""LEDForQuestionAnswering against transformers 5.23: logits and losses of 50 random LEDs, and files of both directions."""

from unittest import mock

import numpy as np
import pytest
from head_cases import CASES, draw_question

from led_ref import LEDForQuestionAnswering
from led_ref.weights.convert import convert

pytestmark = pytest.mark.peer

# As in test_model_peer.py, and for its reasons: with transformers' float32 softmax as it is, and with it lifted to float64.
FLOAT32_SOFTMAX = 5e-6
FLOAT64_ROUNDING = 1e-12


def theirs_with(config, weights):
    import torch
    import transformers

    values = {key: value for key, value in config.to_dict().items() if key != "model_type"}
    model = transformers.LEDForQuestionAnswering(transformers.LEDConfig(**values)).double().eval()
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    for side in ("encoder", "decoder"):
        state[f"led.{side}.embed_tokens.weight"] = state["led.shared.weight"]
    model.load_state_dict(state)
    return model.requires_grad_(False)


def compare(worst, who, ours, theirs, case, tolerance):
    for name in ("start_logits", "end_logits"):
        worst.compare(f"QA, {who}: {name}", getattr(ours, name), getattr(theirs, name).numpy(), tolerance, case.call)
    assert (ours.loss is None) == (theirs.loss is None)
    if theirs.loss is not None:
        worst.compare(f"QA, {who}: loss", ours.loss, theirs.loss.numpy(), tolerance, case.call)


@pytest.mark.parametrize("seed", range(CASES))
def test_question_answering_equals_transformers(worst, seed):
    import torch

    case = draw_question(seed)
    model = theirs_with(case.config, case.weights)
    call = {key: torch.from_numpy(value) for key, value in case.call.items()}
    ours = LEDForQuestionAnswering.from_state_dict(case.config, case.weights, dtype="float64")(**case.call).to_numpy()
    compare(worst, "as it is", ours, model(**call), case, FLOAT32_SOFTMAX)
    softmax = torch.nn.functional.softmax
    with mock.patch("torch.nn.functional.softmax", lambda x, dim, dtype=None: softmax(x, dim=dim)):
        compare(worst, "softmax lifted", ours, model(**call), case, FLOAT64_ROUNDING)


def test_files_load_in_both_directions(tmp_path):
    """What transformers saves we load, convert and save; what we write transformers loads whole."""
    import transformers

    case = draw_question(3)
    model = theirs_with(case.config, case.weights)
    model.save_pretrained(tmp_path / "theirs")
    ours = LEDForQuestionAnswering.from_pretrained(tmp_path / "theirs", dtype="float64")
    np.testing.assert_array_equal(ours.params.qa_outputs.weight, case.weights["qa_outputs.weight"])
    convert(tmp_path / "theirs", tmp_path / "converted")
    ours.save_pretrained(tmp_path / "saved")
    for folder in ("converted", "saved"):
        back, info = transformers.LEDForQuestionAnswering.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not any(info.values()), info
        assert all(tensor.equal(back.state_dict()[key]) for key, tensor in model.state_dict().items())
