"""A BART's files become an LED's: every tensor used, every number taken over or copied, and nothing else let through."""

import json

import numpy as np
import pytest
from fuzz.scenes import scenes, write
from safetensors.numpy import load_file, save_file

from led_ref.config import LEDConfig
from led_ref.errors import CheckpointError, ConfigError, InputError
from led_ref.weights.from_bart import convert_bart

D, V, POSITIONS, LONG = 6, 11, 7, 17  # 17 is no multiple of 7: the last copy is cut
BART = {
    "model_type": "bart", "vocab_size": V, "d_model": D, "max_position_embeddings": POSITIONS, "encoder_layers": 2,
    "decoder_layers": 1, "encoder_attention_heads": 3, "decoder_attention_heads": 2, "encoder_ffn_dim": 5,
    "decoder_ffn_dim": 13, "num_beams": 4, "architectures": ["BartModel"], "normalize_before": False,
}  # fmt: skip


def bart_tensors():
    """BART's own names and shapes, each tensor full of numbers of its own."""
    shapes = {"final_logits_bias": (1, V), "model.shared.weight": (V, D)}
    for side, layers, inner in (("encoder", 2, 5), ("decoder", 1, 13)):
        shapes[f"model.{side}.embed_positions.weight"] = (POSITIONS + 2, D)
        attentions = ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]
        names = {"layernorm_embedding": (D,)}
        for i in range(layers):
            for name in (*attentions, "final"):
                names[f"layers.{i}.{name}_layer_norm"] = (D,)
            for name in attentions:
                names |= {f"layers.{i}.{name}.{role}_proj": (D, D) for role in ("q", "k", "v", "out")}
            names |= {f"layers.{i}.fc1": (inner, D), f"layers.{i}.fc2": (D, inner)}
        for name, shape in names.items():
            shapes[f"model.{side}.{name}.weight"], shapes[f"model.{side}.{name}.bias"] = shape, shape[:1]
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def make_bart(folder, tensors, **changes):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**BART, **changes}))
    return folder


@pytest.mark.parametrize("prefix", ["model.", ""])  # BartForConditionalGeneration's names, BartModel's
def test_every_weight_is_kept_or_copied(tmp_path, prefix):
    bart = bart_tensors()
    named = {name.replace("model.", prefix): array for name, array in bart.items()} | {"encoder.version": np.ones(1)}
    source = make_bart(tmp_path / "bart", named)
    (source / "vocab.json").write_text("{}")
    report = convert_bart(source, tmp_path / "led", max_positions=LONG, attention_window=4)

    led = load_file(tmp_path / "led" / "model.safetensors")
    used = set()

    def check(key, name, array=None):
        np.testing.assert_array_equal(led.pop(key), bart[name] if array is None else array, err_msg=key)
        used.add(name)

    rows = [0, 1, 2, 3, 4, 5, 6] * 2 + [0, 1, 2]
    positions = "encoder.embed_positions.weight"
    check(f"led.{positions}", f"model.{positions}", bart[f"model.{positions}"][2:][rows])
    check(
        "led.decoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
        bart["model.decoder.embed_positions.weight"][2:],
    )
    for i in range(2):
        attention = f"encoder.layers.{i}.self_attn"
        for kind in ("weight", "bias"):
            for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
                for part in (ours, f"{ours}_global"):
                    check(f"led.{attention}.longformer_self_attn.{part}.{kind}", f"model.{attention}.{theirs}.{kind}")
            check(f"led.{attention}.output.{kind}", f"model.{attention}.out_proj.{kind}")
    for key in list(led):  # all others have the same name
        check(key, key.replace("led.", "model."))
    assert used == bart.keys()

    config = LEDConfig.from_pretrained(tmp_path / "led")
    assert (config.max_encoder_position_embeddings, config.max_decoder_position_embeddings) == (LONG, POSITIONS)
    assert (config.attention_window, config.decoder_ffn_dim) == ((4, 4), 13)
    kept = {"num_beams": 4, "architectures": ["LEDForConditionalGeneration"], "dtype": "float32"}
    assert config.extra == kept
    assert json.loads((tmp_path / "led" / "tokenizer_config.json").read_text()) == {"model_max_length": LONG}
    assert report.copied == ("vocab.json",)


@pytest.mark.parametrize("prefix", ["module.", "model."])  # as DistributedDataParallel and a trainer's module name them
def test_wrapped_bart_is_the_same(tmp_path, prefix):
    wrapped = {prefix + name: array for name, array in bart_tensors().items()}
    for name, tensors in (("bare", bart_tensors()), ("wrapped", wrapped)):
        convert_bart(make_bart(tmp_path / name, tensors), tmp_path / f"{name}-led", max_positions=LONG)
    files = [tmp_path / name / "model.safetensors" for name in ("bare-led", "wrapped-led")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_bart_of_fairseq(tmp_path):
    """model.pt has no `model.`, no shared.weight, the output projection under another name, and no final_logits_bias."""
    made = scenes(tmp_path)
    for name, scene in (("bart", "BART's config.json"), ("fairseq", "fairseq's model.pt")):
        write(tmp_path / name, made[scene].files)
        convert_bart(tmp_path / name, tmp_path / f"{name}-led", max_positions=30, attention_window=4)
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("bart-led", "fairseq-led"))
    assert np.any(expected.pop("final_logits_bias"))
    assert not np.any(found.pop("final_logits_bias"))
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


def test_a_head_of_barts_is_the_leds(tmp_path):
    shapes = {"dense.weight": (6, 6), "dense.bias": (6,), "out_proj.weight": (2, 6), "out_proj.bias": (2,)}
    head = {f"classification_head.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    tensors = {name: array for name, array in bart_tensors().items() if name != "final_logits_bias"} | head
    convert_bart(make_bart(tmp_path / "bart", tensors), tmp_path / "led", max_positions=LONG)
    assert load_file(tmp_path / "led" / "model.safetensors").keys() >= head.keys()
    assert LEDConfig.from_pretrained(tmp_path / "led").extra["architectures"] == ["LEDForSequenceClassification"]


@pytest.mark.parametrize(
    ("changes", "settings", "kind", "message"),
    [
        ({"scale_embedding": True}, {}, ConfigError, r"config.json: scale_embedding is True; .*Name a BART"),
        ({"normalize_before": True}, {}, ConfigError, "normalize_before is True"),
        ({"activation_function": "gelu_fast"}, {}, ConfigError, r"activation_function is 'gelu_fast'; .*gelu, relu, silu"),
        ({"model_type": "mbart"}, {}, ConfigError, "model_type is 'mbart', and only a 'bart'"),
        ({"model_type": "led"}, {}, ConfigError, "It is one already"),
        ({}, {"max_positions": 6}, InputError, "max_positions is 6; this BART reads 7 tokens"),
        ({}, {"attention_window": 5}, ConfigError, "attention_window holds 5"),
        ({"max_position_embeddings": 8}, {}, CheckpointError, r"embed_positions.weight is \(9, 6\) in the file, \(10, 6\)"),
        ({"encoder_layers": 1}, {}, CheckpointError, r"16 left over: model.encoder.layers.1.fc1.bias"),
        ({"decoder_layers": 2}, {}, CheckpointError, r"26 missing: model.decoder.layers.1.self_attn.q_proj.weight"),
        ({"encoder_ffn_dim": 4}, {}, CheckpointError, r"fc1.weight is \(5, 6\) in the file, \(4, 6\) by config.json"),
    ],
)  # fmt: skip
def test_unsuitable_bart_writes_nothing(tmp_path, changes, settings, kind, message):
    source = make_bart(tmp_path / "bart", bart_tensors(), **changes)
    with pytest.raises(kind, match=message):
        convert_bart(source, tmp_path / "led", **{"max_positions": LONG, **settings})
    assert [path.name for path in tmp_path.iterdir()] == ["bart"]


def test_the_command_line_has_it(tmp_path, command):
    source = make_bart(tmp_path / "bart", bart_tensors())
    code, out, err = command("convert", "--from-bart", source, tmp_path / "led", "--max-positions", "21", "--json")
    assert (code, json.loads(out)["tensors"]) == (0, len(load_file(tmp_path / "led" / "model.safetensors"))), err
    config = LEDConfig.from_pretrained(tmp_path / "led")
    assert (config.max_encoder_position_embeddings, config.windows) == (21, (1024, 1024))
    code, _, err = command("convert", source, tmp_path / "other", "--max-positions", "21")
    assert (code, "add --from-bart" in err) == (2, True)
    code, _, err = command("convert", "--from-bart", source, tmp_path / "led")
    assert (code, "holds model.safetensors already" in err) == (1, True)
