"""Loading: every accepted form of the same weights gives the same parameters; everything else is refused by name."""

import json
import re

import numpy as np
import pytest
from fuzz.scenes import scenes, write
from test_keys import leaves

import led_ref
from led_backends import get
from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.weights import find_files as folder_module
from led_ref.weights.adapter import read_adapter
from led_ref.weights.find_files import find_weights, read_tensors
from led_ref.weights.keys import TIED, entries
from led_ref.weights.load import load_params
from led_ref.weights.stored_tensor import StoredTensor

SHARED, ENCODER_TOKENS, DECODER_TOKENS, LM_HEAD = TIED
FC1 = "led.encoder.layers.1.fc1.weight"


def load(folder, config, notice=None, **options):
    return load_params(read_tensors(folder, notice=notice), config, backend=get("numpy"), **options)


def assert_holds(params, tensors, config, dtype=np.float32):
    """Each field of the parameters is, bit for bit, the tensor that the table names for it."""
    of_field = dict(leaves(params))
    for entry in entries(config):
        expected = tensors.get(entry.key, tensors[SHARED] if entry.key == LM_HEAD else None)
        assert of_field[entry.field].dtype == dtype, entry
        np.testing.assert_array_equal(of_field[entry.field], expected, err_msg=entry.key, strict=False)


def replace(config, **values):
    return LEDConfig.from_dict({**config.to_dict(), **values})


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "a .bin before 1.6", "weights in int8"])
def test_copied_weights_survive_their_file(tmp_path, name):
    """A mapped file that is truncated ends the process (SIGBUS), and one that is rewritten changes the model."""
    scene = scenes(tmp_path)[name]
    write(tmp_path / "led", scene.files)
    led = led_ref.load(tmp_path / "led", backend="numpy", keep_stored=True, mmap=False, notice=lambda _: None)
    before = led.generate("low lower tide"), led.model.encoder([[0, 5, 9, 2]])[0]
    (tmp_path / "led" / scene.file).write_bytes(b"")
    assert led.generate("low lower tide") == before[0]
    np.testing.assert_array_equal(led.model.encoder([[0, 5, 9, 2]])[0], before[1])


def test_copied_adapter_survives_its_file(tmp_path):
    scene = scenes(tmp_path)["adapter_model.safetensors"]
    write(tmp_path / "led", scene.files)
    tensors = read_adapter(tmp_path / "led", mmap=False).maps
    (tmp_path / "led" / scene.file).write_bytes(b"")
    assert all(part.data.sum() == part.data.size for pair in tensors.values() for part in pair)


# ---- what loads ------------------------------------------------------------------------------------------------------


def test_plain_file_is_memory_mapped(make_folder, tensors, config):
    params = load(make_folder(tensors), config)
    assert_holds(params, tensors, config)
    assert params.lm_head is params.shared
    # Not copied: somebody else owns the memory, and it may not be written.
    assert not any(array.flags.owndata or array.flags.writeable for _, array in leaves(params))


def without_prefix(tensors):
    """As LEDModel saves it."""
    return {key.removeprefix("led."): array for key, array in tensors.items() if key.startswith("led.")}


def allenai(tensors):
    """As allenai/longformer saved it: BART's names, and two position rows more."""
    renamed = {re.sub(r"^led\.", "model.", key): array for key, array in tensors.items()}
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_positions.weight"
        renamed[name] = np.concatenate([np.full((2, renamed[name].shape[1]), 7, np.float32), renamed[name]])
        renamed[f"model.{side}.embed_tokens.weight"] = tensors[SHARED]
    return renamed


def with_all_tied(tensors):
    return {**tensors, **dict.fromkeys(TIED, tensors[SHARED])}


def under(prefix, form=dict):
    """As a module around the model names them."""
    return lambda tensors: {prefix + key: array for key, array in form(tensors).items()}


FORMS = {
    "DistributedDataParallel": under("module."),
    "torch.compile": under("_orig_mod."),
    "Lightning": under("model."),
    "Lightning, self.led": under("led."),
    "all three": under("module.model._orig_mod."),
    "LEDModel, wrapped": under("module._orig_mod.", without_prefix),
    "allenai, wrapped": under("module.", allenai),
    "LEDModel": without_prefix,
    "allenai": allenai,
    "all tied names": with_all_tied,
    "float16": lambda tensors: {key: array.astype(np.float16) for key, array in tensors.items()},
    "float64": lambda tensors: {key: array.astype(np.float64) for key, array in tensors.items()},
    **{f"only {name}": lambda t, name=name: {name if key == SHARED else key: t[key] for key in t} for name in TIED},
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_every_file_form_loads_alike(make_folder, tensors, config, form, shards):
    params = load(make_folder(FORMS[form](tensors), shards=shards), config)
    if form.startswith("LEDModel"):
        tensors["final_logits_bias"] = np.zeros((1, config.vocab_size))  # not in its file, so zeros
    assert_holds(params, tensors, config)
    assert params.lm_head is params.shared


def test_float64_on_request(make_folder, tensors, config):
    assert_holds(load(make_folder(tensors), config, dtype="float64"), tensors, config, np.float64)


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_untied_lm_head_is_kept(make_folder, tensors, config, tie_word_embeddings):
    tensors[LM_HEAD] = tensors[SHARED] + np.float32(1)
    params = load(make_folder(tensors), replace(config, tie_word_embeddings=tie_word_embeddings))
    assert_holds(params, tensors, config)
    assert params.lm_head is not params.shared


def test_head_on_request(make_folder, tensors, config):
    tensors["qa_outputs.weight"] = np.ones((2, config.d_model), np.float32)
    tensors["qa_outputs.bias"] = np.ones(2, np.float32)
    folder = make_folder(tensors)
    with pytest.raises(CheckpointError, match=r"2 left over: qa_outputs\.bias \(a head of LEDForQuestionAnswering\)"):
        load(folder, config)
    del tensors["final_logits_bias"]  # of the class that writes
    params = load(make_folder(tensors), config, heads={"qa_outputs"})
    np.testing.assert_array_equal(params.qa_outputs.bias, tensors["qa_outputs.bias"])
    assert_holds(params, {**tensors, "final_logits_bias": np.zeros((1, config.vocab_size), np.float32)}, config)


def test_large_finite_weights_stay_finite(make_folder, tensors, config):
    tensors[FC1] = np.full_like(tensors[FC1], 3e38)  # their sum overflows; they do not
    assert_holds(load(make_folder(tensors), config), tensors, config)


def test_a_bin_is_read_with_a_notice(make_folder, tensors, config, monkeypatch):
    folder = make_folder(tensors)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"read by a stand-in: torch_bin.py has tests of its own")
    stored = {key: StoredTensor("F32", array) for key, array in tensors.items()}
    monkeypatch.setattr(folder_module, "read_torch_bin", lambda path, **_: stored if path.suffix == ".bin" else {})
    said = []
    assert_holds(load(folder, config, notice=said.append), tensors, config)
    assert len(said) == 1
    assert "pytorch_model.bin" in said[0]
    assert "led-ref convert" in said[0]


def test_file_format_precedence(tmp_path):
    for name in reversed(folder_module.WEIGHT_FILES):
        suffix = ".bin" if ".bin" in name else ".safetensors"
        index = json.dumps({"weight_map": {"led.shared.weight": f"x{suffix}"}})
        (tmp_path / name).write_text(index if name.endswith(".json") else "", encoding="utf-8")
        (tmp_path / f"x{suffix}").touch()
        found = find_weights(tmp_path)
        assert found.paths[0].name == (f"x{suffix}" if name.endswith(".json") else name)


# ---- what is refused -------------------------------------------------------------------------------------------------


def spoil_all_at_once(tensors, config):
    del tensors[FC1], tensors["led.decoder.layernorm_embedding.bias"]
    tensors["led.encoder.layers.2.fc1.bias"] = np.zeros(29, np.float32)
    tensors["led.shared.weight"] = tensors["led.shared.weight"][:-1]
    tensors["led.encoder.layers.0.fc1.bias"] = np.zeros(29, np.int64)
    tensors["encoder.layers.0.fc2.bias"] = tensors["led.encoder.layers.0.fc2.bias"]
    return [
        f"2 missing: {FC1}, led.decoder.layernorm_embedding.bias",
        "1 left over: led.encoder.layers.2.fc1.bias",
        "1 of another shape: led.shared.weight is (52, 14) in the file, (53, 14) by config.json",
        "1 duplicated under two names: ",
        "1 not floats: led.encoder.layers.0.fc1.bias (I64)",
    ]


def spoil_many(tensors, config):
    for key in [key for key in tensors if key.startswith("led.encoder.layers.1.")]:
        del tensors[key]
    return ["22 missing: led.encoder.layers.1.self_attn.longformer_self_attn.query.weight, ", " and 17 more\n"]


def spoil_embedding(tensors, config):
    del tensors[SHARED]
    return [f"1 missing: {SHARED} (or another name", ENCODER_TOKENS]


def spoil_rows(tensors, config):
    """Two rows too many are dropped under allenai's names only."""
    key = "led.encoder.embed_positions.weight"
    tensors[key] = np.zeros((43, 14), np.float32)
    return [f"1 of another shape: {key} is (43, 14) in the file, (41, 14)"]


@pytest.mark.parametrize("spoil", [spoil_all_at_once, spoil_many, spoil_embedding, spoil_rows])
def test_mismatches_in_one_error(make_folder, tensors, config, spoil):
    expected = spoil(tensors, config)
    with pytest.raises(CheckpointError) as caught:
        load(make_folder(tensors), config)
    for part in [*expected, "config.json"]:
        assert part in str(caught.value)


def test_untied_config_needs_lm_head(make_folder, tensors, config):
    untied = replace(config, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.weight \(tie_word_embeddings is false"):
        load(make_folder(tensors), untied)
    with pytest.raises(CheckpointError, match=r"1 missing: led\.shared\.weight"):
        load(make_folder(FORMS[f"only {LM_HEAD}"](tensors)), untied)


@pytest.mark.parametrize("name", [ENCODER_TOKENS, DECODER_TOKENS])
def test_unequal_embedding_copy_is_named(make_folder, tensors, config, name):
    other = tensors[SHARED].copy()
    other[0, 0] = -0.0
    tensors[SHARED] = other.copy()
    tensors[SHARED][0, 0] = 0.0  # equal as numbers, not bit for bit
    with pytest.raises(CheckpointError, match=rf"^{re.escape(name)} differ from led\.shared\.weight.*tied"):
        load(make_folder({**tensors, name: other}), config)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("model.encoder.layers.0.self_attn.k_proj.weight", "BART"),
        ("longformer.encoder.layer.0.attention.self.query_global.weight", "Longformer"),
        ("roberta.encoder.layer.0.attention.self.query.weight", "RoBERTa"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5"),
        ("model.encoder.layers.0.self_attn.self.query.weight", "BigBird-Pegasus"),
        ("transformer.h.0.attn.c_attn.weight", "GPT-2"),
        ("model.layers.0.self_attn.q_proj.weight", "decoder-only"),
    ],
)
def test_foreign_checkpoint_is_named(make_folder, config, name, model):
    folder = make_folder({name: np.zeros((3, 5), np.float32), "model.shared.weight": np.zeros((53, 14), np.float32)})
    with pytest.raises(CheckpointError, match=f"(?s){model}.*not of LED.*{re.escape(name)}.*led-base"):
        load(folder, config)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_named(make_folder, tensors, config, value):
    tensors[FC1] = tensors[FC1].copy()
    tensors[FC1][3, 5] = value
    with pytest.raises(CheckpointError, match=rf"{re.escape(FC1)} holds {value} at \(3, 5\) .*in all: 1"):
        load(make_folder(tensors), config)


def test_float64_overflow_is_named(make_folder, tensors, config):
    tensors[FC1] = tensors[FC1].astype(np.float64)
    tensors[FC1][2, 3] = 1e300
    folder = make_folder(tensors)
    with pytest.raises(CheckpointError, match=rf"{re.escape(FC1)}: .*1e\+300"):
        load(folder, config)
    assert_holds(load(folder, config, dtype="float64"), tensors, config, np.float64)


def test_no_half_precision_arithmetic(make_folder, tensors, config):
    with pytest.raises(InputError, match=r"'float16'.*float32 or float64"):
        load(make_folder(tensors), config, dtype="float16")


# ---- folders and indexes ---------------------------------------------------------------------------------------------


def test_incomplete_folder_message(tmp_path):
    (tmp_path / "tf_model.h5").touch()
    with pytest.raises(MissingFileError, match=r"(?s)it holds tf_model\.h5.*config\.json.*model\.safetensors"):
        find_weights(tmp_path)
    with pytest.raises(MissingFileError, match=r"no folder .*nowhere"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"config\.json"):
        LEDConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "shard",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        ".hidden.safetensors",
        "a\0.safetensors",
        "pytorch_model.bin",
        "",
        3,
        None,
    ],
)
def test_shard_names_are_plain_file_names(tmp_path, shard):
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": {"led.shared.weight": shard}}), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        read_tensors(index.parent)
    assert repr(shard) in str(caught.value)
    assert "plain file name" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('"\udcff"', "is not UTF-8: byte 1 is 0xff"),
        ("[]", "holds a JSON list, not an object"),
        ('{"weight_map": {}}', "has no 'weight_map'"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "holds the name 'a' twice"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, text, found):
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=rf"{re.escape(str(path))}.*{found}.*Fetch the index again"):
        find_weights(tmp_path)


def test_shards_and_index_must_agree(make_folder, tensors):
    folder = make_folder(tensors, shards=2)
    index = folder / "model.safetensors.index.json"
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    weight_map = json.loads(index.read_text())["weight_map"]
    key = next(key for key, shard in weight_map.items() if shard == first)

    index.write_text(json.dumps({"weight_map": {**weight_map, key: second}}))
    with pytest.raises(CheckpointError, match=rf"{first} disagree: the shard has, unlisted, 1 .*{re.escape(key)}"):
        read_tensors(folder)
    index.write_text(json.dumps({"weight_map": {**weight_map, "extra": second}}))
    with pytest.raises(CheckpointError, match=rf"{second} disagree: the shard lacks 1 tensors: extra"):
        read_tensors(folder)
    index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / second).unlink()
    with pytest.raises(MissingFileError, match=rf"names 2 shards, of which 1 do not exist: {second}"):
        read_tensors(folder)
