"""The one table between our fields and the checkpoint's keys. That they are transformers' keys: test_load_peer.py."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from led_ref.config import LEDConfig
from led_ref.weights.keys import HEADS, assemble, canonical_key, checkpoint_entries, entries, parameter_count

LED_BASE = LEDConfig(
    d_model=768,
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=12,
    decoder_attention_heads=12,
    encoder_ffn_dim=3072,
    decoder_ffn_dim=3072,
    attention_window=1024,
)
LED_LARGE = LEDConfig(attention_window=1024)


# Both numbers of both checkpoints were counted in Ai2's files and their configurations (docs/semantics.md).
@pytest.mark.parametrize(
    ("config", "keys", "parameters"), [(LED_BASE, 299, 161_844_480), (LED_LARGE, 587, 459_801_600)]
)
def test_released_parameter_counts(config, keys, parameters):
    assert len({entry.key for entry in checkpoint_entries(config)}) == len(checkpoint_entries(config)) == keys
    assert parameter_count(config) == parameters
    assert parameter_count(config, untied_lm_head=True) == parameters + config.vocab_size * config.d_model


def leaves(node, path=""):
    if is_dataclass(node):
        for field in fields(node):
            yield from leaves(getattr(node, field.name), f"{path}.{field.name}")
    elif isinstance(node, tuple):
        for i, item in enumerate(node):
            yield from leaves(item, f"{path}.{i}")
    elif node is not None and not isinstance(node, str):  # None: the head of another class; str: the activation's name
        yield path[1:], node


@pytest.mark.parametrize("heads", [(), ("qa_outputs",), tuple(HEADS)])
def test_table_lists_every_field_once(config, heads):
    arrays = {entry.field: np.zeros(entry.shape) for entry in entries(config, heads)}
    assembled = dict(leaves(assemble(arrays, config)))
    assert (
        len(arrays)
        == len(entries(config, heads))
        == len(entries(config)) + sum({"qa_outputs": 2}.get(h, 4) for h in heads)
    )
    assert assembled.keys() == arrays.keys()
    assert all(assembled[field] is array for field, array in arrays.items())


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("led.encoder.layers.0.fc1.weight", "led.encoder.layers.0.fc1.weight"),
        ("encoder.layers.0.fc1.weight", "led.encoder.layers.0.fc1.weight"),
        ("model.encoder.layers.0.fc1.weight", "led.encoder.layers.0.fc1.weight"),
        ("final_logits_bias", "final_logits_bias"),
        ("lm_head.weight", "lm_head.weight"),
        ("qa_outputs.weight", "qa_outputs.weight"),
    ],
)
def test_key_names_of_other_classes_and_allenai(name, key):
    assert canonical_key(name) == key


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("led.shared.weight", (53, 14)),
        ("final_logits_bias", (1, 53)),
        ("led.encoder.embed_positions.weight", (41, 14)),
        ("led.decoder.embed_positions.weight", (17, 14)),
        ("led.encoder.layers.1.fc1.weight", (29, 14)),
        ("led.encoder.layers.1.fc2.weight", (14, 29)),
        ("led.decoder.layers.2.fc1.weight", (31, 14)),
        ("led.decoder.layers.2.fc1.bias", (31,)),
        ("led.decoder.layers.2.fc2.weight", (14, 31)),
        ("led.decoder.layers.2.fc2.bias", (14,)),
    ],
)
def test_shapes_follow_the_configuration(config, key, shape):
    assert {entry.key: entry.shape for entry in entries(config)}[key] == shape


def test_table_rows_are_not_swapped(config):
    """A field and its key end alike: `...query_global.weight` is never filled from `...key_global.weight`."""
    for entry in entries(config):
        if ".layers." in entry.key:
            assert entry.key.split(".")[1:4:2] == entry.field.split(".")[0:3:2], entry
            assert entry.key.split(".")[-2:] == entry.field.split(".")[-2:], entry
            assert ("encoder_attn." in entry.key) == ("encoder_attn." in entry.field), entry
