"""docs/recipes/start.py: with which weights a training begins."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import led_ref
from led_ref.config import LEDConfig
from led_ref.weights.safetensors_file import read_safetensors

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "docs" / "recipes" / "start.py"
WIDTH = 192


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder and the weights of a new model, with the vocabulary of the bundled one."""
    out = tmp_path_factory.mktemp("start") / "new"
    sizes = ["--width", str(WIDTH), "--encoder-layers", "2", "--decoder-layers", "2", "--positions", "512"]
    subprocess.run(
        [sys.executable, START, "new", out, "--vocabulary", led_ref.bundled_model(), *sizes],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends")))}, check=True,
    )  # fmt: skip
    return out, {key: tensor.to_numpy() for key, tensor in read_safetensors(out / "model.safetensors").items()}


def test_a_new_model_loads_and_writes(begun):
    out, weights = begun
    config = LEDConfig.from_pretrained(out)
    assert (config.d_model, config.encoder_attention_heads, config.encoder_ffn_dim) == (WIDTH, 6, 4 * WIDTH)
    assert json.loads((out / "generation_config.json").read_text())["num_beams"] == 4
    assert isinstance(led_ref.load(out).generate("gzip", max_new_tokens=3), str)
    assert all(np.all(values == 0) for key, values in weights.items() if key.endswith("bias"))
    assert all(np.all(values == 1) for key, values in weights.items() if "norm" in key and key.endswith("weight"))
    assert np.all(weights["led.shared.weight"][config.pad_token_id] == 0)


def test_one_position_further_is_one_rotation(begun):
    """So the product of two positions depends on their distance alone, and is largest where there is none."""
    _, weights = begun
    for side, rows in (("encoder", 512), ("decoder", 256)):
        positions = weights[f"led.{side}.embed_positions.weight"].astype(float)
        assert positions.shape == (rows, WIDTH)
        products = positions @ positions.T
        for distance in (0, 1, 2, 97):
            assert np.ptp(np.diagonal(products, distance)) < 1e-5
        assert np.all(products[0, 0] > products[0, 1:] + 1e-3)
        assert not positions[:, 32:].any()  # and tokens have the other dimensions
    assert np.array_equal(positions, weights["led.encoder.embed_positions.weight"][:256])  # both count alike
    tokens = weights["led.shared.weight"]
    assert not tokens[:, :32].any()
    assert 0.9 < positions[:, :32].std() / tokens[:, 32:].std() < 1.1  # neither outweighs the other


def test_products_keep_the_size_of_their_input(begun):
    """And what the layers add to the residual is small, but for what is set by hand."""
    _, weights = begun
    by_hand = ("encoder.layers.0.self_attn", "decoder.layers.0.self_attn", "encoder_attn")
    matrices = [key for key, values in weights.items() if values.ndim == 2 and ".layers." in key]
    assert len(matrices) == 2 * 9 + 2 * 10
    for key in matrices:
        if any(name in key for name in by_hand) and "global" not in key:
            continue
        size = (
            0.2 if key.endswith(("self_attn.output.weight", "self_attn.out_proj.weight", "fc2.weight")) else 1
        ) * WIDTH**-0.5
        assert weights[key].std() == pytest.approx(size, rel=0.02), key


def test_heads_look_at_neighbours(begun):
    """For every token of a text: the encoder's at the one before and after, the decoder's at the last but one and two."""
    out, _ = begun
    led = led_ref.load(out)
    ids = led.tokenizer("The echo service sends back to the originating source any data that it receives.").input_ids
    traced = led_ref.trace(led.model, [ids], decoder_input_ids=[ids], only="self_attn*probs", layer=0)
    encoder, decoder = traced.values()
    reach = encoder.shape[-1] // 2  # a row is a window, in whose middle the token itself stands
    window = encoder[0, :, 3:-3].argmax(-1) - reach
    assert [set(row) for row in window] == [{-1}] * 3 + [{1}] * 3
    above = decoder[0, :, 3:].argmax(-1) - np.arange(3, len(ids))
    assert [set(row) for row in above] == [{-1}] * 3 + [{-2}] * 3


def test_cross_attention_finds_the_same_token_after_the_same(begun):
    """It looks there more than anywhere else, though the decoder begins in the middle; what it takes is of the next token."""
    out, weights = begun
    led = led_ref.load(out)
    ids = led.tokenizer(
        "A cat sees a bird, a dog sees a cat, and an old man sees the other one from far away."
    ).input_ids
    begin = 9
    traced = led_ref.trace(led.model, [ids], decoder_input_ids=[ids[begin:]], only="encoder_attn.probs", layer=0)
    (probs,) = traced.values()
    found = probs[0].mean(0).argmax(-1)[2:]  # the first two have not two tokens before them
    assert np.mean(found == np.arange(begin + 2, len(ids))) > 0.8
    half = 96  # the heads of the token before
    for layer in range(2):
        cross = f"led.decoder.layers.{layer}.encoder_attn."
        value, output = weights[f"{cross}v_proj.weight"], weights[f"{cross}out_proj.weight"]
        assert np.array_equal(weights[f"{cross}q_proj.weight"], weights[f"{cross}k_proj.weight"])
        assert np.array_equal(value, weights["led.decoder.layers.0.self_attn.v_proj.weight"])
        assert np.array_equal(output[:, half:], value.T[:, half:])
        assert not output[:, :half].any()
    of_tokens = np.diag(np.arange(WIDTH) >= 32)  # what is taken is what was there, and no position
    assert np.allclose(value.T @ value, of_tokens, atol=1e-6)
