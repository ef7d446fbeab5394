"""The recipe of docs/traces.md, run as it stands there: PyTorch's intermediates and ours agree, name by name."""

import re
from pathlib import Path

import numpy as np
import pytest

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.oracle.traces.diff import diff
from led_ref.oracle.traces.trace import Trace, trace

pytestmark = pytest.mark.peer

PAGE = Path(__file__).parent.parent.parent / "docs" / "traces.md"
LONGEST_RECIPE = 40
# Names of a forward pass with two and two layers that a hook can see: all but ours between the modules.
SEEN_BY_HOOKS = 81


# Of the way back: as many, but for the inputs, and each weight.
GRADIENTS_SEEN = 178


@pytest.fixture(scope="module")
def recipes():
    codes = re.findall(
        r"^```python \{\.notest\}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    names = {}
    for code in codes:
        assert len(code.splitlines()) <= LONGEST_RECIPE
        exec(compile(code, str(PAGE), "exec"), names)
    return names


def their_model(seed, folder):
    import torch
    from transformers import LEDConfig as TheirConfig
    from transformers import LEDForConditionalGeneration as TheirLED

    torch.manual_seed(seed)
    config = TheirConfig(
        vocab_size=37,
        d_model=30,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=5,
        encoder_ffn_dim=11,
        decoder_ffn_dim=13,
        attention_window=[4, 8],
        max_encoder_position_embeddings=32,
        max_decoder_position_embeddings=17,
        init_std=0.3,
    )
    theirs = TheirLED(config).eval()
    theirs.save_pretrained(folder)
    return theirs


def drawn_inputs(seed):
    rng = np.random.default_rng(seed)
    inputs = {
        "input_ids": rng.integers(3, 37, (2, 19)),
        "attention_mask": np.ones((2, 19), np.int64),
        "global_attention_mask": np.zeros((2, 19), np.int64),
        "decoder_input_ids": rng.integers(3, 37, (2, 7)),
    }
    inputs["attention_mask"][1, 11:] = 0
    inputs["global_attention_mask"][0, [0, 5]] = inputs["global_attention_mask"][1, 2] = 1  # two here, one there
    return inputs


def as_tensors(inputs):
    import torch

    return {name: torch.from_numpy(ids) for name, ids in inputs.items()}


@pytest.mark.parametrize("seed", range(3))
def test_recipe_names_agree(recipes, tmp_path, seed):
    theirs, inputs = their_model(seed, tmp_path / "model"), drawn_inputs(seed)
    recipes["record"](theirs, tmp_path / "theirs.safetensors", **as_tensors(inputs))
    ours = trace(LEDForConditionalGeneration.from_pretrained(tmp_path / "model"), **inputs)
    difference = diff(ours, Trace.load(tmp_path / "theirs.safetensors"))
    assert difference.equal, f"\n{difference}"
    assert difference.only_in_b == ()
    assert len(difference.compared) == SEEN_BY_HOOKS


def gradient_traces(recipes, folder, seed, plant=lambda model: None):
    """Ours, and theirs of a model with something planted in it."""
    theirs, inputs = their_model(seed, folder / "model"), drawn_inputs(seed)
    inputs["labels"] = inputs.pop("decoder_input_ids")
    inputs["labels"][1, 4:] = -100
    inputs["labels"][0, 6] = -100  # the last column: nobody's label, and not computed here
    plant(theirs)
    recipes["record_gradients"](theirs, folder / "theirs.safetensors", **as_tensors(inputs))
    model = LEDForConditionalGeneration.from_pretrained(folder / "model")
    ours = trace(model, **inputs, gradients=True, only="*.grad")
    return ours, Trace.load(folder / "theirs.safetensors")


@pytest.mark.parametrize("seed", range(3))
def test_recipe_gradients_agree(recipes, tmp_path, seed):
    ours, theirs = gradient_traces(recipes, tmp_path, seed)
    difference = diff(ours, theirs)
    assert difference.equal, f"\n{difference}"
    assert difference.only_in_b == ()
    assert len(difference.compared) == GRADIENTS_SEEN
    assert [name for name in theirs if name in ours] == [name for name in ours if name in theirs]


def test_first_wrong_gradient_on_the_way_back(recipes, tmp_path):
    """A fault in the backward pass alone: all that is forward, and all that comes before it on the way back, agrees."""

    def halve_gradient(model):
        module = model.led.encoder.layers[1].fc2
        module.register_forward_pre_hook(lambda m, i: (i[0] * 0.5 + i[0].detach() * 0.5,))

    difference = diff(*gradient_traces(recipes, tmp_path, 0, halve_gradient))
    assert difference.first.name == "led.encoder.layers.1.activation_fn.output.grad"
    assert difference.equal_before[-1] == "led.encoder.layers.1.fc2.bias.grad"
    assert "0.5" in difference.hint
