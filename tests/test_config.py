"""LEDConfig: config.json as a frozen dataclass, read, checked and written back."""

import dataclasses
import json

import pytest

from led_ref.config import LEDConfig
from led_ref.errors import ConfigError, MissingFileError

SMALL = {
    "d_model": 30,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "vocab_size": 37,
}

# What stood in the config.json of allenai/longformer's own LED, as far as it matters; there 512 is the radius.
ALLENAI = {
    "model_type": "bart",
    "attention_mode": "sliding_chunks",
    "attention_dilation": [1, 1],
    "attention_window": [512, 256],
    "autoregressive": False,
    "normalize_embedding": True,
    "scale_embedding": False,
    "encoder_layers": 2,
}


def write(folder, content):
    (folder / "config.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def test_save_and_load_are_equal(tmp_path):
    extra = {"task_specific_params": {"summarization": {"num_beams": 4}}, "id2label": {"0": "a"}, "later": None}
    config = LEDConfig(**SMALL, attention_window=(4, 10), eos_token_id=(2, 5), pad_token_id=None, extra=extra)
    assert config.save(tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "config.json"
    assert config.save_pretrained(tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "config.json"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["config.json"]
    assert LEDConfig.from_pretrained(tmp_path / "new" / "folder") == config
    assert LEDConfig.from_pretrained(tmp_path / "new" / "folder" / "config.json") == config
    assert LEDConfig.from_dict(config.to_dict()) == config
    assert config.to_dict().items() >= {**extra, "model_type": "led", "attention_window": [4, 10]}.items()
    assert LEDConfig.from_dict(LEDConfig().to_dict()) == LEDConfig()


def test_config_is_immutable():
    extra = {"list": [1]}
    config = LEDConfig(extra=extra)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.d_model = 5
    extra["list"].append(2)
    config.to_dict()["list"].append(3)
    assert config.extra == {"list": [1]}
    assert hash(config) == hash(LEDConfig(extra={"list": [1]}))


def test_window_per_layer_and_radius():
    assert LEDConfig(**SMALL, attention_window=6).windows == (6, 6)
    config = LEDConfig(**SMALL, attention_window=[2, 10])
    assert (config.windows, config.radii) == ((2, 10), (1, 5))
    assert LEDConfig(encoder_layers=0, attention_window=[]).radii == ()
    assert [LEDConfig(eos_token_id=eos).eos_token_ids for eos in (None, 2, [2, 7])] == [(), (2,), (2, 7)]


def test_alias_names_in_config_files():
    config = LEDConfig.from_dict({"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "d_model": 48})
    assert (config.d_model, config.encoder_layers, config.encoder_attention_heads, config.extra) == (48, 3, 4, {})


def test_allenai_window_is_doubled():
    config = LEDConfig.from_dict(ALLENAI)
    assert (config.windows, config.radii) == ((1024, 512), (512, 256))
    assert config.extra == {"normalize_embedding": True, "scale_embedding": False}
    assert LEDConfig.from_dict({**ALLENAI, "attention_window": 256}).attention_window == 512
    assert LEDConfig.from_dict({"attention_mode": "tvm"}).attention_window == LEDConfig().attention_window
    assert LEDConfig.from_dict(config.to_dict()) == config  # once: what we wrote is not doubled again


IMPOSSIBLE = [
    ({"attention_window": 7}, "attention_window holds 7", "Double it"),
    ({"attention_window": 0}, "attention_window holds 0", "at least 2"),
    ({"attention_window": [4, 4, 4]}, "attention_window has 3 entries", "one for each layer"),
    ({"attention_window": [4, "8"]}, "attention_window holds '8'", "even number"),
    ({"attention_window": True}, "attention_window holds True", "even number"),
    ({"attention_window": None}, "attention_window holds None", "even number"),
    ({"encoder_attention_heads": 7}, "d_model 30 cannot be divided among encoder_attention_heads 7", "Choose"),
    ({"decoder_attention_heads": 4}, "d_model 30 cannot be divided among decoder_attention_heads 4", "Choose"),
    ({"encoder_attention_heads": 0}, "encoder_attention_heads is 0", "at least 1"),
    ({"d_model": 30.0}, "d_model is 30.0", "whole number"),
    ({"encoder_layers": True}, "encoder_layers is True", "whole number"),
    ({"decoder_layers": -1}, "decoder_layers is -1", "at least 0"),
    ({"vocab_size": None}, "vocab_size is None", "whole number"),
    ({"decoder_start_token_id": None}, "decoder_start_token_id is None", "0 ... 36"),
    ({"decoder_start_token_id": 37}, "decoder_start_token_id is 37", "0 ... 36"),
    ({"pad_token_id": -1}, "pad_token_id is -1", "0 ... 36"),
    ({"bos_token_id": False}, "bos_token_id is False", "0 ... 36"),
    ({"eos_token_id": [2, 99]}, "eos_token_id is (2, 99)", "0 ... 36"),
    ({"activation_function": "tanh"}, "activation_function is 'tanh'", "one of gelu, relu, silu, gelu_new"),
    ({"activation_function": None}, "activation_function is None", "one of gelu, relu, silu, gelu_new"),
    ({"is_encoder_decoder": False}, "is_encoder_decoder is False", "set it true"),
    ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'", "true or false"),
    ({"use_cache": 1}, "use_cache is 1", "true or false"),
    ({"dropout": "0.1"}, "dropout is '0.1'", "finite number"),
    ({"init_std": float("nan")}, "init_std is nan", "finite number"),
    ({"later": {"scale": [1.0, float("inf")]}}, "later.scale[1] is inf", "leave later.scale[1] out"),
    ({"hidden_size": 64}, "d_model is 30 and hidden_size is 64", "Remove the wrong one"),
    ({"model_type": "longformer"}, "model_type is 'longformer'", "holds an LED"),
]


@pytest.mark.parametrize(("changes", "found", "remedy"), IMPOSSIBLE, ids=[str(row[0]) for row in IMPOSSIBLE])
def test_invalid_values_are_named(tmp_path, changes, found, remedy):
    with pytest.raises(ConfigError) as refused:
        LEDConfig.from_pretrained(write(tmp_path, {**SMALL, **changes}))
    assert found in str(refused.value)
    assert remedy in str(refused.value)
    assert str(tmp_path / "config.json") in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"attention_mode": "n2"}, "attention_mode is 'n2'"),
        ({"attention_dilation": [1, 2]}, "attention_dilation is [1, 2]"),
        ({"autoregressive": True}, "autoregressive is True"),
        ({"normalize_before": True}, "normalize_before is True"),
        ({"attention_window": [512, 2.5]}, "attention_window holds 2.5"),
        ({"attention_window": "512"}, "attention_window holds '512'"),
    ],
)
def test_unsupported_allenai_features(changes, found):
    with pytest.raises(ConfigError, match="allenai's original code") as refused:
        LEDConfig.from_dict({**ALLENAI, **changes})
    assert found in str(refused.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[]", "holds a JSON list"),
        (b"null", "holds a JSON NoneType"),
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff{}", "is not UTF-8: byte 0 is 0xff"),
        (b'{"d_model": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b'{"init_std": NaN}', "init_std is nan"),
        (b'{"init_std": 1e999}', "init_std is inf"),
        (b'{"of another": -Infinity}', "of another is -inf"),
    ],
)
def test_file_without_json_object_is_refused(tmp_path, content, found):
    with pytest.raises(ConfigError) as refused:
        LEDConfig.from_pretrained(write(tmp_path, content))
    assert found in str(refused.value)


def test_no_file():
    with pytest.raises(MissingFileError, match=r"no file nowhere.config\.json.*copy"):
        LEDConfig.from_pretrained("nowhere")


def test_unserializable_values_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be written as JSON.*set"):
        LEDConfig(extra={"later": {1, 2}}).save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match=r"extra holds 'd_model'.*Set the field"):
        LEDConfig(extra={"d_model": 5})
