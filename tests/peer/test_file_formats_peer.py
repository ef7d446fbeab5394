"""The same weights, saved by torch, transformers and safetensors in every format there is: bit-equal when read here."""

import argparse
import warnings

import numpy as np
import pytest

from led_ref.weights.safetensors_file import read_header, read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import StoredTensor, narrow
from led_ref.weights.torch_files.torch_bin import read_torch_bin

pytestmark = pytest.mark.peer

# torch's names, and those of safetensors.
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}


def bits(tensor):
    """A torch tensor's bytes, row-major."""
    import torch

    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_bit_equal(stored, expected):
    assert stored.keys() == expected.keys()
    for name, tensor in expected.items():
        assert stored[name].dtype == DTYPES[str(tensor.dtype).removeprefix("torch.")], name
        assert stored[name].shape == tuple(tensor.shape), name
        assert stored[name].data.tobytes() == bits(tensor), name
        np.testing.assert_array_equal(stored[name].to_numpy("float64"), tensor.detach().double().numpy(), strict=True)


@pytest.fixture(scope="module")
def model():
    import torch
    from transformers import LEDConfig, LEDForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 12, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 47, "attention_window": [4, 6]}
    heads = {"encoder_attention_heads": 3, "decoder_attention_heads": 2, "encoder_ffn_dim": 17, "decoder_ffn_dim": 19}
    positions = {"max_encoder_position_embeddings": 29, "max_decoder_position_embeddings": 23}
    return LEDForConditionalGeneration(LEDConfig(**sizes, **heads, **positions)).eval()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_load_files_of_torch(tmp_path, model, dtype, is_zip):
    """state_dict() is an OrderedDict with _metadata, whose tied names share one storage."""
    import torch

    path = tmp_path / "pytorch_model.bin"
    weights = model.to(getattr(torch, dtype)).state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=is_zip)
    stored = read_torch_bin(path)
    assert_bit_equal(stored, weights)
    tied = [stored[name].data for name in ("led.shared.weight", "lm_head.weight", "led.encoder.embed_tokens.weight")]
    assert all(np.shares_memory(tied[0], other) for other in tied[1:])


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_parameters_and_wrappers(tmp_path, is_zip, protocol):
    import torch

    base = torch.arange(2 * 3 * 5 * 7, dtype=torch.float32).reshape(2, 3, 5, 7)
    weights = {
        "base": base,
        "transposed": base.transpose(1, 3),
        "a part": base[1, :, 2:4, 3],
        "every second": base[..., ::2],
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "number": torch.tensor(2.5),
        "nothing": torch.zeros(0, 3),
    }
    path = tmp_path / "weights.bin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of its older format
        torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    assert_bit_equal(read_torch_bin(path), weights)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "module"])
def test_checkpoints_of_trainers(tmp_path, name, is_zip):
    """What Lightning and fairseq put beside the weights: options, numbers, an optimizer that has made a step."""
    import torch

    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    kept = {
        "args": argparse.Namespace(lr=1e-4, betas=(0.9, 0.98), arch="bart_large", task=None, extra={"a": [1]}),
        "epoch": 3,
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [torch.optim.lr_scheduler.LinearLR(optimizer).state_dict()],
        name: layer.state_dict(),
    }
    path = tmp_path / "weights.bin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of its older format
        torch.save(kept, path, _use_new_zipfile_serialization=is_zip)
    assert_bit_equal(read_torch_bin(path), layer.state_dict())


def test_without_checksums(tmp_path):
    import torch

    path = tmp_path / "weights.bin"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(5.0)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert_bit_equal(read_torch_bin(path), {"w": torch.arange(5.0)})


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_files_of_safetensors(tmp_path, model, dtype):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    weights = {
        name: tensor.clone().contiguous() for name, tensor in model.to(getattr(torch, dtype)).state_dict().items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    assert_bit_equal(read_safetensors(path), weights)
    assert read_header(path).metadata == {"format": "pt"}


@pytest.mark.parametrize("size", ["50GB", "20KB"], ids=["one file", "shards"])
def test_load_files_of_transformers(tmp_path, model, size):
    model.float().save_pretrained(tmp_path, max_shard_size=size)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == (size == "20KB")
    stored = {name: tensor for file in files for name, tensor in read_safetensors(file).items()}
    weights = model.state_dict()
    assert {"led.shared.weight", "final_logits_bias"} <= stored.keys()
    assert_bit_equal(stored, {name: weights[name] for name in stored})


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_matches_torch(tmp_path, dtype):
    import torch
    from safetensors.torch import load_file

    generator = torch.Generator().manual_seed(1)
    wide = torch.randn(1009, 7, dtype=torch.float64, generator=generator).float()  # torch rounds twice from float64
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"w": StoredTensor(DTYPES[dtype], narrow(wide.numpy(), DTYPES[dtype]))}, {"format": "pt"})
    read = load_file(path)["w"]
    assert read.dtype == getattr(torch, dtype)
    assert torch.equal(read, wide.to(getattr(torch, dtype)))
