"""Quantized checkpoints: written and read again they are the same, and what is not sound is refused by name."""

import json
import mmap
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_load import FC1, load

from led_backends.compact import CompactWeight, HalfWeight
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError
from led_ref.tools.random_weights import write_random_checkpoint
from led_ref.weights.convert import convert
from led_ref.weights.quantization.file_format import CONFIG_KEY, kind_of, quantizable
from led_ref.weights.quantization.rounding import KINDS, quantized
from led_ref.weights.safetensors_file import read_safetensors
from led_ref.weights.summary import summarize_checkpoint

STATE = f"{FC1}.quant_state.bitsandbytes__nf4"
SCB = FC1.replace(".weight", ".SCB")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def saved(make_folder, tensors, tmp_path):
    """`saved(kind)`: the folder of a quantized checkpoint."""

    def save(kind, **options):
        convert(make_folder(tensors), tmp_path / kind, quantize=kind, **options)
        return tmp_path / kind

    return save


def leaves(tree, path=""):
    """Every array and every compact weight of the parameters, with the path to it."""
    if is_dataclass(tree) and not isinstance(tree, CompactWeight):
        for field in fields(tree):
            yield from leaves(getattr(tree, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(tree, tuple):
        for i, layer in enumerate(tree):
            yield from leaves(layer, f"{path}.{i}")
    elif tree is not None and not isinstance(tree, str):  # None: the head of another class; str: the activation's name
        yield path, tree


def numbers(params):
    """Every field's numbers; of those that are quantized the kind, too."""
    return {name: (type(weight), np.asarray(weight[:])) for name, weight in leaves(params)}


def test_save_and_load_keep_the_codes(make_folder, tensors, config, saved, kind):
    folder = saved(kind)
    again = numbers(load(folder, LEDConfig.from_pretrained(folder)))
    at_once = numbers(load(make_folder(tensors), config, quantize=kind))
    assert sum(issubclass(what, CompactWeight) for what, _ in again.values()) == len(quantizable(config)) == 48
    for name, (what, array) in at_once.items():
        assert again[name][0] is what, name
        np.testing.assert_array_equal(again[name][1], array, err_msg=name, strict=True)
    fc1 = quantized(tensors[FC1], kind)[:]
    np.testing.assert_array_equal(again["encoder.layers.1.fc1.weight"][1], fc1, strict=True)


def test_quantized_checkpoint_message_and_conversion(saved, tmp_path, kind, tensors):
    folder = saved(kind)
    assert kind_of(LEDConfig.from_pretrained(folder)) == kind
    assert summarize_checkpoint(folder).problem is None
    convert(folder, tmp_path / "copy")  # as it is
    assert (tmp_path / "copy/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    report = convert(folder, tmp_path / "floats", dtype="float32")
    assert report.dtypes == ("float32",)
    assert CONFIG_KEY not in json.loads((tmp_path / "floats/config.json").read_text())
    dense = load_file(tmp_path / "floats/model.safetensors")[FC1]
    np.testing.assert_array_equal(dense, quantized(tensors[FC1], kind)[:], strict=True)


def test_embeddings_and_norms_stay(saved, tensors):
    parts = load_file(saved("nf4-double") / "model.safetensors")
    for key, array in tensors.items():
        if key.startswith("led.shared") or "embed_positions" in key or "norm" in key or key.endswith("bias"):
            np.testing.assert_array_equal(parts[key], array, strict=True)


def test_quantized_weights_are_not_rounded_again(saved, config, tmp_path):
    folder = saved("int8")
    with pytest.raises(InputError, match=r"quantize is 'nf4', but this checkpoint's matrices are int8 already"):
        load(folder, LEDConfig.from_pretrained(folder), quantize="nf4")
    with pytest.raises(InputError, match=r"is int8 already. Quantize a checkpoint of floats"):
        convert(folder, tmp_path / "twice", quantize="nf4")
    assert not (tmp_path / "twice").exists()


def test_quantized_model_is_saved_unchanged(make_folder, tensors, saved, tmp_path, kind):
    """Whether it was rounded when it was loaded, or before."""
    for name, folder, options in (("now", make_folder(tensors), {"quantize": kind}), ("before", saved(kind), {})):
        model = LEDForConditionalGeneration.from_pretrained(folder, backend="numpy", **options)
        model.save_pretrained(tmp_path / name)
        assert json.loads((tmp_path / name / "config.json").read_text())[CONFIG_KEY]["quant_method"] == "bitsandbytes"
        parts, expected = (
            load_file(where / "model.safetensors") for where in (tmp_path / name, saved(kind, overwrite=True))
        )
        assert parts.keys() == expected.keys()
        for key, array in parts.items():
            np.testing.assert_array_equal(array, expected[key], err_msg=key, strict=True)


# ---- half precision, as stored -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_in_the_file(make_folder, tensors, tmp_path, config, dtype):
    convert(make_folder(tensors), tmp_path / dtype, dtype=dtype)
    kept = dict(leaves(load(tmp_path / dtype, config, keep_stored=True)))
    widened = dict(leaves(load(tmp_path / dtype, config)))
    halves = {name for name, weight in kept.items() if isinstance(weight, HalfWeight)}
    assert halves == {name for name, array in widened.items() if array.ndim == 2 and name != "final_logits_bias"}
    for name in halves:
        view = kept[name].bits
        while view.base is not None and isinstance(view.base, np.ndarray):
            view = view.base
        assert isinstance(view.base, mmap.mmap) or isinstance(getattr(view.base, "obj", None), mmap.mmap), name
        np.testing.assert_array_equal(kept[name][:], widened[name], strict=True)
        np.testing.assert_array_equal(kept[name][np.array([3, 0, 3])], widened[name][[3, 0, 3]], strict=True)
    LEDForConditionalGeneration.from_pretrained(tmp_path / dtype, keep_stored=True, backend="numpy").save_pretrained(
        tmp_path / "b"
    )
    found = {name: header.dtype for name, header in read_safetensors(tmp_path / "b/model.safetensors").items()}
    assert found["led.shared.weight"] == found[FC1] == {"float16": "F16", "bfloat16": "BF16"}[dtype]


def test_quantized_matrices_with_half_tables(make_folder, tensors, tmp_path, config):
    convert(make_folder(tensors), tmp_path / "half", dtype="float16")
    kinds = {
        name: type(weight) for name, weight in leaves(load(tmp_path / "half", config, quantize="nf4", keep_stored=True))
    }
    assert kinds["shared"] is kinds["encoder.embed_positions"] is HalfWeight
    assert kinds["decoder.layers.2.fc2.weight"].__name__ == "NF4Weight"


def test_a_half_table_is_finite(make_folder, tensors, tmp_path, config, monkeypatch):
    monkeypatch.setattr("led_ref.weights.load._LOOKED_AT", 28)  # two rows at a time
    folder = make_folder({key: array.astype(np.float16) for key, array in tensors.items()})
    parts = load_file(folder / "model.safetensors")
    parts["led.shared.weight"][5, 2] = np.inf
    save_file(parts, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"led.shared.weight holds inf at \(5, 2\)"):
        load(folder, config, keep_stored=True)


# ---- what is refused -----------------------------------------------------------------------------------------------------


def state(**changes):
    def edit(parts):
        values = json.loads(parts[STATE].tobytes())
        values.update(changes)
        parts[STATE] = np.frombuffer(json.dumps(values).encode(), np.uint8)

    return edit


def put(name, value):
    return lambda parts: parts.update({name: value})


def at(name, place, value):
    return lambda parts: parts[name].__setitem__(place, value)


DAMAGED = {
    "no scales": ("int8", lambda parts: parts.pop(SCB), "its part SCB is missing"),
    "scales of another length": (
        "int8",
        put(SCB, np.ones(28, np.float32)),
        r"SCB is F32 \(28,\), and has to be F32 \(29,\)",
    ),
    "a negative scale": ("int8", at(SCB, 3, -1), "SCB holds a number that is negative or not finite"),
    "a scale that is no number": ("int8", at(SCB, 3, np.nan), "SCB holds a number that is negative or not finite"),
    "codes of another shape": (
        "int8",
        put(FC1, np.zeros((14, 29), np.int8)),
        r"I8 \(14, 29\), and has to be I8 \(29, 14\)",
    ),
    "floats for codes": ("int8", put(FC1, np.zeros((29, 14), np.float32)), r"weight is F32"),
    "a code out of bounds": ("int8", at(FC1, (1, 2), -128), "holds -128; codes are from -127 to 127"),
    "another order": (
        "int8",
        put(FC1.replace("weight", "weight_format"), np.array(1, np.uint8)),
        "weight_format is not 0",
    ),
    "too few codes": ("nf4", put(FC1, np.zeros((202, 1), np.uint8)), r"U8 \(202, 1\), and has to be U8 \(203, 1\)"),
    "too few blocks": (
        "nf4",
        put(f"{FC1}.absmax", np.ones(6, np.float32)),
        r"absmax is F32 \(6,\), and has to be F32 \(7,\)",
    ),
    "another code book": ("nf4", at(f"{FC1}.quant_map", 3, 0.4), "quant_map is not NF4's code book"),
    "no state": ("nf4", lambda parts: parts.pop(STATE), "quant_state.bitsandbytes__nf4 is missing"),
    "a state too long": ("nf4", put(STATE, np.full(1001, 32, np.uint8)), "not at most 1000 bytes"),
    "a state that is no JSON": ("nf4", put(STATE, np.full(900, ord("["), np.uint8)), "is not JSON"),
    "a state that is a list": ("nf4", put(STATE, np.frombuffer(b"[1]", np.uint8)), r"says \[1\]"),
    "another shape in the state": ("nf4", state(shape=[14, 29]), r"and has to say .*'shape': \[29, 14\]"),
    "another block size": ("nf4", state(blocksize=128), "and has to say .*'blocksize': 64"),
    "another key in the state": ("nf4", state(nested_blocksize=256), "and has to say"),
    "singly quantized after all": ("nf4-double", put(f"{FC1}.absmax", np.ones(7, np.float32)), "has to be U8"),
    "no book of scales": (
        "nf4-double",
        lambda parts: parts.pop(f"{FC1}.nested_quant_map"),
        "nested_quant_map is missing",
    ),
    "another book of scales": ("nf4-double", at(f"{FC1}.nested_quant_map", 9, 5), "not the code book of the dynamic"),
    "an infinite offset": ("nf4-double", state(nested_offset=float("inf")), "has the nested_offset inf"),
    "a text for the offset": ("nf4-double", state(nested_offset="0.5"), "has the nested_offset 0.5"),
    "a part left over": ("nf4", put(f"{FC1}.SCB", np.ones(29, np.float32)), "1 left over"),
    "a quantized embedding": (
        "int8",
        put("led.shared.weight", np.zeros((53, 14), np.int8)),
        r"1 not floats: led.shared.weight",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_matrix_is_named(saved, what):
    kind, damage, message = DAMAGED[what]
    folder = saved(kind)
    parts = {key: array.copy() for key, array in load_file(folder / "model.safetensors").items()}
    damage(parts)
    save_file(
        {key: np.ascontiguousarray(array) if array.ndim else array for key, array in parts.items()},
        folder / "model.safetensors",
    )
    with pytest.raises(CheckpointError, match=message):
        load(folder, LEDConfig.from_pretrained(folder))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "belongs to a quantized matrix, but config.json has no quantization_config"),
        ({"quant_method": "gptq", "bits": 4}, "has the quant_method 'gptq'"),
        ("nf4", "has the quant_method 'nf4'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "quant_type 'fp4'"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": True}, "load_in_4bit True"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "config.json says is int8: weight is U8"),
    ],
)
def test_config_json_must_match_the_file(saved, values, message):
    folder = saved("nf4")
    config = LEDConfig.from_pretrained(folder)
    extra = {key: value for key, value in config.extra.items() if key != CONFIG_KEY}
    config = LEDConfig.from_dict({**config.to_dict(), CONFIG_KEY: values, **extra})
    with pytest.raises(CheckpointError, match=message):
        load(folder, config)


@pytest.mark.parametrize("options", [{"quantize": "int8"}, {"dtype": "float64"}])
def test_numbers_of_the_file_are_given_back(tmp_path, options):
    """What was made of a file's floats stands beside them only while they are read: Linux says what is held of the file."""
    config = LEDConfig(
        vocab_size=11, d_model=256, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=4096,
        max_encoder_position_embeddings=9, encoder_attention_heads=4, decoder_attention_heads=4, attention_window=4,
    )  # fmt: skip
    write_random_checkpoint(tmp_path, config)
    model = LEDForConditionalGeneration.from_pretrained(tmp_path, **options)
    maps = Path("/proc/self/smaps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    starts = [i for i, line in enumerate(lines) if line.endswith(str(tmp_path / "model.safetensors"))]
    held = sum(int(line.split()[1]) * 1024 for i in starts for line in lines[i : i + 9] if line.startswith("Rss:"))
    assert held < (tmp_path / "model.safetensors").stat().st_size / 4
    del model
