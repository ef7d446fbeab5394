"""config.json between transformers and us: what either writes, the other reads as the same LED."""

import json
from dataclasses import fields

import pytest
from transformers import LEDConfig as TheirConfig

from led_ref.config import LEDConfig

pytestmark = pytest.mark.peer

CHANGES = [
    {},
    {"attention_window": [4, 10], "encoder_layers": 2, "decoder_layers": 1},
    {"pad_token_id": None, "bos_token_id": None, "eos_token_id": [2, 7], "tie_word_embeddings": False},
    {"d_model": 48, "encoder_attention_heads": 3, "decoder_attention_heads": 6, "vocab_size": 101, "dropout": 0},
    {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4},  # second names
    {"num_beams_of_mine": 4, "max_position": [1, {"a": None}], "dtype": "float16"},
]
NAMES = [f.name for f in fields(LEDConfig) if f.name != "extra"]


def plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_fields_and_defaults_match_transformers():
    ours = LEDConfig()
    assert {name: plain(getattr(ours, name)) for name in NAMES} == {
        name: getattr(TheirConfig(), name) for name in NAMES
    }
    in_their_class = {name for name in TheirConfig.__annotations__ if name not in ("model_type", "attribute_map")}
    assert in_their_class <= set(NAMES)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_load_config_of_transformers(tmp_path, changes):
    theirs = TheirConfig(**changes)
    theirs.save_pretrained(tmp_path)
    ours = LEDConfig.from_pretrained(tmp_path)
    assert {name: plain(getattr(ours, name)) for name in NAMES} == {name: getattr(theirs, name) for name in NAMES}
    written = json.loads((tmp_path / "config.json").read_text())
    assert ours.to_dict().items() >= written.items()  # every key that they wrote is written back as it was


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_transformers_loads_our_config(tmp_path, changes):
    ours = LEDConfig.from_dict(changes)
    ours.save(tmp_path)
    theirs = TheirConfig.from_pretrained(tmp_path)
    assert {name: getattr(theirs, name) for name in NAMES} == {name: plain(getattr(ours, name)) for name in NAMES}
    for name, value in ours.extra.items():
        assert json.loads(json.dumps(theirs.to_dict()))[name] == value
