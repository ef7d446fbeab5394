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
LONGEST_RECIPE = 30
# Names of a forward pass with two and two layers that a hook can see: all but ours between the modules.
SEEN_BY_HOOKS = 81


@pytest.fixture(scope="module")
def recipe():
    (code,) = re.findall(
        r"^```python \{\.notest\}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(code.splitlines()) <= LONGEST_RECIPE
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["record"]


@pytest.mark.parametrize("seed", range(3))
def test_recipe_names_agree(recipe, tmp_path, seed):
    import torch
    from transformers import LEDConfig as TheirConfig
    from transformers import LEDForConditionalGeneration as TheirLED

    rng = np.random.default_rng(seed)
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
    theirs.save_pretrained(tmp_path / "model")
    inputs = {
        "input_ids": rng.integers(3, 37, (2, 19)),
        "attention_mask": np.ones((2, 19), np.int64),
        "global_attention_mask": np.zeros((2, 19), np.int64),
        "decoder_input_ids": rng.integers(3, 37, (2, 7)),
    }
    inputs["attention_mask"][1, 11:] = 0
    inputs["global_attention_mask"][0, [0, 5]] = inputs["global_attention_mask"][1, 2] = 1  # two here, one there

    recipe(theirs, tmp_path / "theirs.safetensors", **{name: torch.from_numpy(ids) for name, ids in inputs.items()})
    ours = trace(LEDForConditionalGeneration.from_pretrained(tmp_path / "model"), **inputs)
    difference = diff(ours, Trace.load(tmp_path / "theirs.safetensors"))
    assert difference.equal, f"\n{difference}"
    assert difference.only_in_b == ()
    assert len(difference.compared) == SEEN_BY_HOOKS
