"""The same weights as transformers and torch save them, in every form: bit-equal after loading, and equal logits."""

import copy
import json
from dataclasses import fields, is_dataclass
from functools import partial

import numpy as np
import pytest

from led_backends import get
from led_ref.config import LEDConfig
from led_ref.weights.convert import convert
from led_ref.weights.find_files import read_tensors
from led_ref.weights.keys import TIED, checkpoint_entries, entries
from led_ref.weights.load import load_params

pytestmark = pytest.mark.peer

SIZES = {
    "vocab_size": 97,
    "max_encoder_position_embeddings": 61,
    "max_decoder_position_embeddings": 23,
    "d_model": 14,
    "encoder_layers": 2,
    "encoder_attention_heads": 7,
    "encoder_ffn_dim": 29,
    "decoder_layers": 3,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 31,
    "attention_window": [4, 6],
}


def make_peer(**config):
    """transformers' LED with random weights; its final_logits_bias too, which is zero in a new model."""
    import torch
    from transformers import LEDConfig as PeerConfig
    from transformers import LEDForConditionalGeneration

    torch.manual_seed(3)
    peer = LEDForConditionalGeneration(PeerConfig(**{**SIZES, **config})).eval()
    with torch.no_grad():
        for tensor in peer.state_dict().values():
            # float16 and bfloat16 hold these numbers exactly, so that every form on disk is the same model.
            tensor.copy_(torch.randn(tensor.shape).bfloat16().half())
    return peer


@pytest.fixture(scope="module")
def peer():
    return make_peer()


def save_pretrained(peer, folder, **options):
    peer.save_pretrained(folder, **options)


def save_torch(peer, folder, **options):
    import torch

    peer.config.save_pretrained(folder)
    torch.save(peer.state_dict(), folder / "pytorch_model.bin", **options)


def save_sharded_torch(peer, folder):
    import torch

    peer.config.save_pretrained(folder)
    tensors = peer.state_dict()
    weight_map = {key: f"pytorch_model-{i % 3 + 1:05}-of-00003.bin" for i, key in enumerate(tensors)}
    for shard in set(weight_map.values()):
        torch.save({key: tensors[key].clone() for key in tensors if weight_map[key] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def save_with_one_tied_name(peer, folder, name):
    from safetensors.torch import save_file

    peer.config.save_pretrained(folder)
    tensors = {key: tensor for key, tensor in peer.state_dict().items() if key not in TIED or key == name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def save_in_dtype(peer, folder, dtype, save):
    import torch

    save(copy.deepcopy(peer).to(dtype=getattr(torch, dtype)), folder)


FORMS = {
    "safetensors": save_pretrained,
    "sharded safetensors": partial(save_pretrained, max_shard_size="5KB"),
    "zip .bin": save_torch,
    "pre-1.6 .bin": partial(save_torch, _use_new_zipfile_serialization=False),
    "sharded .bin": save_sharded_torch,
    "LEDModel": lambda peer, folder: peer.led.save_pretrained(folder),
    **{f"only {name}": partial(save_with_one_tied_name, name=name) for name in TIED},
    **{
        f"{container}, {dtype}": partial(save_in_dtype, dtype=dtype, save=save)
        for container, save in (("safetensors", save_pretrained), ("zip .bin", save_torch))
        for dtype in ("float16", "bfloat16", "float64")
    },
}


def leaves(node, path=""):
    if is_dataclass(node):
        for field in fields(node):
            yield from leaves(getattr(node, field.name), f"{path}.{field.name}")
    elif isinstance(node, tuple):
        for i, item in enumerate(node):
            yield from leaves(item, f"{path}.{i}")
    else:
        yield path[1:], node


def assert_same_bits(params, peer, config, form=""):
    ours = dict(leaves(params))
    theirs = peer.state_dict()
    for entry in entries(config):
        expected = theirs[entry.key].numpy()
        if form == "LEDModel" and entry.key == "final_logits_bias":
            expected = np.zeros_like(expected)
        assert ours[entry.field].dtype == np.float32
        assert ours[entry.field].tobytes() == expected.tobytes(), entry.key


def logits_of_ours(folder):
    from led_ref.classes.conditional_generation import LEDForConditionalGeneration

    ids = [[0, 5, 17, 3, 88, 41, 2], [0, 11, 13, 2, 1, 1, 1]]
    outputs = LEDForConditionalGeneration.from_pretrained(folder).forward(
        input_ids=ids,
        attention_mask=[[1] * 7, [1] * 4 + [0] * 3],
        global_attention_mask=[[1] + [0] * 6] * 2,
        decoder_input_ids=[[2, 0, 7], [2, 0, 9]],
    )
    return outputs.logits


def test_table_matches_transformers_keys_and_shapes(peer):
    config = LEDConfig.from_dict(SIZES)
    ours = {entry.key: entry.shape for entry in checkpoint_entries(config)}
    assert ours == {key: tuple(tensor.shape) for key, tensor in peer.state_dict().items()}


@pytest.fixture(scope="module")
def reference_logits(peer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    peer.save_pretrained(folder)
    return logits_of_ours(folder)


@pytest.mark.parametrize("form", FORMS)
def test_every_file_form_loads_bit_equal(peer, reference_logits, tmp_path, form):
    FORMS[form](peer, tmp_path)
    config = LEDConfig.from_pretrained(tmp_path)
    assert_same_bits(load_params(read_tensors(tmp_path), config, backend=get("numpy")), peer, config, form)
    if form != "LEDModel":  # without the final_logits_bias
        np.testing.assert_array_equal(logits_of_ours(tmp_path), reference_logits)


@pytest.mark.parametrize("form", ["zip .bin", "pre-1.6 .bin", "sharded safetensors", "zip .bin, float64"])
def test_transformers_loads_converted_files(peer, tmp_path, form):
    from transformers import LEDForConditionalGeneration

    FORMS[form](peer, tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "new", dtype="float32")
    back, info = LEDForConditionalGeneration.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(info.values()), info
    for key, tensor in peer.state_dict().items():
        assert tensor.equal(back.state_dict()[key]), key


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rounding_matches_torch(tmp_path, dtype):
    import torch

    peer = make_peer()
    with torch.no_grad():
        for tensor in peer.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape))
    peer.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "new", dtype=dtype)
    rounded = peer.to(dtype=getattr(torch, dtype)).float()
    config = LEDConfig.from_pretrained(tmp_path / "new")
    assert_same_bits(load_params(read_tensors(tmp_path / "new"), config, backend=get("numpy")), rounded, config)


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_untied_lm_head_round_trip(tmp_path, tie_word_embeddings):
    import torch
    from transformers import LEDForConditionalGeneration

    peer = make_peer(tie_word_embeddings=tie_word_embeddings)
    shared = peer.led.shared.weight.data
    peer.lm_head.weight = torch.nn.Parameter(shared + 1)
    for side in (peer.led.encoder, peer.led.decoder):
        side.embed_tokens.weight.data.copy_(shared)
    save_torch(peer, tmp_path / "source")
    config = LEDConfig.from_pretrained(tmp_path / "source")
    assert_same_bits(load_params(read_tensors(tmp_path / "source"), config, backend=get("numpy")), peer, config)

    convert(tmp_path / "source", tmp_path / "new")
    back = LEDForConditionalGeneration.from_pretrained(tmp_path / "new")
    for key, tensor in peer.state_dict().items():
        assert tensor.equal(back.state_dict()[key]), key
