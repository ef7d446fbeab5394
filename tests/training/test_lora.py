"""LoRA: the gradients of A and B, what is trained and kept, and the adapter's files."""

import json

import numpy as np
import pytest
from training.small_models import CLASSES, small_model
from training.test_trainer import text, weights

import led_ref
from led_ref.errors import CheckpointError, InputError, MissingFileError, SettingsError
from led_ref.training.data import read_dataset
from led_ref.training.gradients import GradientOptions, accumulate_gradients
from led_ref.training.log import read_log
from led_ref.training.lora import DEFAULT_TARGETS, lora_weights
from led_ref.training.optimizers import decays
from led_ref.training.settings import DataArguments, RunArguments, TrainingArguments
from led_ref.training.trainer import run_training
from led_ref.weights.adapter import Adapter, read_adapter, write_adapter
from led_ref.weights.safetensors_file import read_header, read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import from_numpy

# What peft 0.21.2 calls the tensors of a linear map (peft/utils/save_and_load.py; its adapter is "default", left out).
QUERY = "base_model.model.led.encoder.layers.0.self_attn.longformer_self_attn.query"
BATCH = {
    "input_ids": [[0, 9, 30, 11, 9, 2], [0, 5, 2, 1, 1, 1]],
    "attention_mask": [[1] * 6, [1] * 3 + [0] * 3],
    "global_attention_mask": [[1] + [0] * 5, [1] + [0] * 5],
}
LABELS = {"labels": [[0, 7, 8, 2], [0, 9, 2, -100]]}


def double(task="summarization"):
    model = small_model(task)
    return CLASSES[task].from_state_dict(model.config, model.state_dict(), dtype="float64")


def lora(model, **settings):
    return lora_weights(model, model.config, TrainingArguments(**{"lora_rank": 2} | settings))


def draw_b(trained):
    """So that the gradient of A is not 0."""
    rng = np.random.default_rng(3)
    for name, array in trained.parameters.items():
        if name.endswith("lora_B.weight"):
            array[...] = rng.normal(size=array.shape)
    trained.renew()


# ---- gradients -----------------------------------------------------------------------------------------------------------


def test_gradients_equal_central_differences():
    """Of numbers of every A and B, of all maps of a layer with each kind of attention."""
    targets = (*DEFAULT_TARGETS, "query_global", "key_global", "fc1", "fc2", "out_proj", "output")
    trained = lora(double(), lora_targets=targets, lora_alpha=3)
    draw_b(trained)
    found = {}

    def add(key, gradient):
        for name, part in trained.gradients(key, gradient).items():
            found[name] = found.get(name, 0) + part

    options = GradientOptions(needs=trained.needs.__contains__)
    accumulate_gradients(trained.model, BATCH | LABELS, add, options)
    assert found.keys() == trained.parameters.keys()

    def loss_at(array, i, value):
        before, array.flat[i] = array.flat[i], value
        trained.renew()
        loss = accumulate_gradients(trained.model, BATCH | LABELS, lambda *_: None, options).mean
        array.flat[i] = before
        return loss

    rng, step = np.random.default_rng(1), 1e-5
    for name, array in trained.parameters.items():
        i = int(rng.integers(array.size))
        losses = [loss_at(array, i, array.flat[i] + sign * step) for sign in (1, -1)]
        expected = (losses[0] - losses[1]) / (2 * step)
        assert found[name].flat[i] == pytest.approx(expected, rel=1e-5, abs=1e-9), name
    trained.renew()


def test_only_what_is_trained_is_asked_for():
    trained = lora(small_model(), lora_targets=["led.decoder.*.encoder_attn.q_proj"])
    assert trained.needs == {"led.decoder.layers.0.encoder_attn.q_proj.weight"}
    assert all(map(decays, trained.parameters))


# ---- the first step ------------------------------------------------------------------------------------------------------


def test_start_computes_the_same_bits():
    model = small_model()
    trained = lora(model)
    before = model.state_dict()
    for key, array in trained.model.state_dict().items():
        assert array.tobytes() == before[key].tobytes(), key
    np.testing.assert_array_equal(trained.model(**BATCH, **LABELS).logits, model(**BATCH, **LABELS).logits)
    draw_b(trained)
    assert not np.array_equal(trained.model(**BATCH, **LABELS).logits, model(**BATCH, **LABELS).logits)
    assert all(np.array_equal(array, before[key]) for key, array in model.state_dict().items())


def test_first_a_is_uniform_and_seeded():
    model = small_model(d_model=48)
    a, b = (lora(model, lora_rank=32).parameters[f"{QUERY[17:]}.lora_{letter}.weight"] for letter in "AB")
    assert (a.shape, b.shape, a.dtype) == ((32, 48), (48, 32), np.float32)
    assert not b.any()
    assert 0.98 / 48**0.5 < abs(a).max() <= 1 / 48**0.5
    assert abs(a.mean()) < 0.05 / 48**0.5
    assert a.std() == pytest.approx((1 / 48**0.5) / 3**0.5, rel=0.05)
    same = lora(model, lora_rank=32, lora_targets=["query", "fc1"]).parameters
    np.testing.assert_array_equal(same[f"{QUERY[17:]}.lora_A.weight"], a)
    other = lora(model, lora_rank=32, seed=1).parameters
    assert not np.array_equal(other[f"{QUERY[17:]}.lora_A.weight"], a)
    assert not np.array_equal(same[f"{QUERY[17:].replace('.0.', '.1.')}.lora_A.weight"], a)


# ---- a run ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = [
        {"text": text(i, 3 + i % 3 * 4), "summary": text(i + 1, 1 + i % 3), "label": "ab"[i % 2]} for i in range(9)
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "train.jsonl"


@pytest.fixture
def train(files, bundled, tmp_path):
    def run(name, *, start=None, resume=False, on_log=lambda line: None, **settings):
        start = start or small_model()
        settings = {
            "lora_rank": 2, "learning_rate": 0.05, "per_device_train_batch_size": 2, "num_train_epochs": 2, "save_steps": 2,
        } | settings  # fmt: skip
        dataset = read_dataset([files], DataArguments(), bundled.tokenizer, start)
        return run_training(
            start, bundled.tokenizer, dataset, tmp_path / name, RunArguments.of(**settings),
            resume=resume, on_log=on_log, start="the/start",
        )  # fmt: skip

    return run


def test_other_weights_keep_every_bit(train, tmp_path):
    train("out", weight_decay=0.1, lora_targets=["query", "fc2"])
    before, after = small_model().state_dict(), weights(tmp_path / "out")
    changed = {key for key, array in after.items() if not np.array_equal(array, before[key])}
    assert changed == {
        *(f"led.encoder.layers.{i}.self_attn.longformer_self_attn.query.weight" for i in (0, 1)),
        *(f"led.encoder.layers.{i}.fc2.weight" for i in (0, 1)),
        "led.decoder.layers.0.fc2.weight",
    }


def test_loss_falls_and_load_takes_the_adapter(train, tmp_path, bundled):
    train("out", start=bundled.model, num_train_epochs=6, dropout=0, lora_rank=4, learning_rate=5e-3)
    losses = [line["loss"] for line in read_log(tmp_path / "out" / "log.jsonl")]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    written = led_ref.load(adapter=tmp_path / "out" / "adapter").generate("cat mat", max_new_tokens=8)
    assert written == led_ref.load(tmp_path / "out").generate("cat mat", max_new_tokens=8)
    assert written != bundled.generate("cat mat", max_new_tokens=8)


def test_adapter_on_its_start_is_the_merged_model(train, tmp_path):
    """Bit for bit, in weights; and where the adapter is loaded into the tensors of a .bin's other names, too."""
    model = small_model()
    train("out", start=model, lora_alpha=3)
    model.save_pretrained(tmp_path / "start")
    loaded = led_ref.LEDForConditionalGeneration.from_pretrained(
        tmp_path / "start", adapter=tmp_path / "out" / "adapter"
    )
    merged = led_ref.LEDForConditionalGeneration.from_pretrained(tmp_path / "out")
    for key, array in merged.state_dict().items():
        assert array.tobytes() == loaded.state_dict()[key].tobytes(), key
    renamed = {f"model.{key[4:]}" if key.startswith("led.") else key: a for key, a in model.state_dict().items()}
    write_safetensors(
        tmp_path / "start" / "model.safetensors", {key: from_numpy(key, array) for key, array in renamed.items()}
    )
    again = led_ref.LEDForConditionalGeneration.from_pretrained(
        tmp_path / "start", adapter=tmp_path / "out" / "adapter"
    )
    np.testing.assert_array_equal(
        again.params.encoder.layers[0].query.weight, merged.params.encoder.layers[0].query.weight
    )


def test_optimizer_and_checkpoint_hold_the_factors_alone(train, tmp_path):
    train("out", lora_targets=["query"], max_steps=1)
    names = {f"{QUERY[17:].replace('.0.', f'.{i}.')}.lora_{letter}.weight" for i in (0, 1) for letter in "AB"}
    header = read_header(tmp_path / "out" / "checkpoint.safetensors")
    moments = {f"optimizer/{name}.{moment}" for name in names for moment in ("exp_avg", "exp_avg_sq", "step")}
    assert set(header.tensors) == {f"model/{name}" for name in names} | moments


@pytest.mark.parametrize(("optim", "last"), [("adamw", 3), ("adafactor", 5)])
def test_resumed_run_ends_with_the_same_bits(train, tmp_path, optim, last):
    settings = {"optim": optim, "weight_decay": 0.1}
    train("whole", **settings)

    def interrupt(line):
        if line["step"] == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("parts", on_log=interrupt, **settings)
    train("parts", resume=True, **settings)
    for name in ("model.safetensors", "checkpoint.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_resume_from_another_start_is_refused(train, tmp_path):
    train("out", max_steps=1)
    state = {key: array.copy() for key, array in small_model().state_dict().items()}
    state["led.encoder.layers.1.fc1.bias"][0] += 1
    other = led_ref.LEDForConditionalGeneration.from_state_dict(small_model().config, state)
    with pytest.raises(InputError, match="was begun with sha256 of the weights"):
        train("out", max_steps=1, start=other, resume=True)


def test_new_head_is_trained_whole(train, tmp_path):
    start = small_model("classification", extra={"num_labels": 2, "id2label": {"0": "a", "1": "b"}})
    train("out", start=start)
    values = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (values["modules_to_save"], values["task_type"]) == (["classification_head"], None)
    tensors = read_safetensors(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    before, key = start.state_dict(), "classification_head.out_proj.weight"
    assert not np.array_equal(tensors[f"base_model.model.{key}"].to_numpy(), before[key])
    start.save_pretrained(tmp_path / "start")
    loaded = CLASSES["classification"].from_pretrained(tmp_path / "start", adapter=tmp_path / "out" / "adapter")
    for name, array in weights(tmp_path / "out").items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_rank": None, "lora_alpha": 4}, "lora_alpha has no effect without lora_rank"),
        ({"lora_rank": None, "lora_targets": ["fc1"]}, "lora_targets has no effect without lora_rank"),
        ({"freeze": ["encoder"]}, "freeze is encoder, but with lora_rank all weights are frozen"),
        ({"lora_targets": ["q_prj"]}, r"names 'q_prj', but no linear map is called so\. Did you mean q_proj\?"),
        ({"lora_targets": ["final_layer_norm"]}, "no linear map is called so"),
        ({"lora_targets": ["led.shared"]}, "no linear map is called so"),
        ({"lora_targets": ["embed_positions"]}, "no linear map is called so"),
        ({"lora_rank": 0}, "lora_rank is 0; it must be a whole number of at least 1"),
        ({"lora_alpha": -1}, "lora_alpha is -1; it must be a number above 0"),
    ],
)
def test_settings_that_do_not_fit(train, tmp_path, settings, words):
    with pytest.raises(SettingsError, match=words):
        train("out", **settings)
    assert not (tmp_path / "out").exists()


# ---- the adapter's files -------------------------------------------------------------------------------------------------


def test_files_are_those_of_peft(train, tmp_path):
    train("out", max_steps=1, lora_targets=["query"], lora_alpha=16)
    folder = tmp_path / "out" / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    shapes = {name: entry.shape for name, entry in read_header(folder / "adapter_model.safetensors").tensors.items()}
    assert shapes == {
        f"{QUERY.replace('.0.', f'.{i}.')}.lora_{letter}.weight": shape
        for i in (0, 1)
        for letter, shape in (("A", (2, 6)), ("B", (6, 2)))
    }
    values = json.loads((folder / "adapter_config.json").read_text())
    assert values["target_modules"] == [QUERY[17:].replace(".0.", f".{i}.") for i in (0, 1)]
    names = ("peft_type", "task_type", "r", "lora_alpha", "bias", "base_model_name_or_path", "modules_to_save")
    assert [values[name] for name in names] == ["LORA", "SEQ_2_SEQ_LM", 2, 16, "none", "the/start", None]
    assert not (tmp_path / "out" / "adapter_config.json").exists()  # transformers would merge it once more


@pytest.fixture
def folder(tmp_path):
    """A start, and an adapter of one map that a test may spoil."""
    small_model().save_pretrained(tmp_path / "start")
    rng = np.random.default_rng(0)
    pair = tuple(from_numpy("x", rng.normal(size=shape)) for shape in ((2, 6), (6, 2)))
    write_adapter(tmp_path / "adapter", Adapter(2, 4.0, {QUERY[17:]: pair}), base=None, task_type=None)
    return tmp_path


def load(folder, **options):
    return led_ref.LEDForConditionalGeneration.from_pretrained(folder / "start", adapter=folder / "adapter", **options)


def test_merge_by_definition(folder):
    adapter = read_adapter(folder / "adapter")
    ((a, b),) = adapter.maps.values()
    before = small_model().params.encoder.layers[0].query.weight.astype("float64")
    expected = before + 4 / 2 * b.data @ a.data
    np.testing.assert_allclose(
        load(folder, dtype="float64").params.encoder.layers[0].query.weight, expected, rtol=1e-14
    )
    np.testing.assert_allclose(load(folder).params.encoder.layers[0].query.weight, expected, rtol=1e-5)


def test_adapter_of_a_bare_model_fits(folder):
    """The names that peft writes for LEDModel lack `led.`."""
    path = folder / "adapter" / "adapter_model.safetensors"
    before = load(folder).params.encoder.layers[0].query.weight
    write_safetensors(path, {name.replace("model.led.", "model."): t for name, t in read_safetensors(path).items()})
    np.testing.assert_array_equal(load(folder).params.encoder.layers[0].query.weight, before)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'; led_ref reads 'LORA' alone"),
        ({"use_dora": True}, "use_dora True: not LoRA as led_ref has it"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"alpha_pattern": {"query": 3}}, "alpha_pattern {'query': 3}"),
        ({"bias": "all"}, "bias 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"of_next_year": 1}, "of_next_year 1"),
        ({"r": 3}, r"A \(2, 6\) and B \(6, 2\); by r in adapter_config\.json they are \(3, in\) and \(out, 3\)"),
        ({"r": 0}, "r 0 and lora_alpha 4; both must be numbers"),
        ({"lora_alpha": "4"}, "r 2 and lora_alpha '4'; both must be numbers"),
    ],
)
def test_other_kinds_of_adapters_are_refused(folder, values, words):
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(CheckpointError, match=words):
        load(folder)


def test_harmless_settings_of_peft_are_read(folder):
    path = folder / "adapter" / "adapter_config.json"
    more = {"lora_dropout": 0.1, "init_lora_weights": "gaussian", "megatron_core": "megatron.core", "use_dora": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | more | {"qalora_group_size": 16, "rank_pattern": {}}))
    assert load(folder)


def spoil(tensors, part, data):
    tensors.update({name: from_numpy(name, data(tensor.data)) for name, tensor in tensors.items() if part in name})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(f"{QUERY}.lora_B.weight"), r"has .*query\.lora_A\.weight alone"),
        (
            lambda t: t.update({f"{QUERY}.lora_embedding_A": t[f"{QUERY}.lora_A.weight"]}),
            "holds 1 tensors that are neither",
        ),
        (
            lambda t: t.update({name.replace("layers.0", "layers.7"): t.pop(name) for name in list(t)}),
            r"changes led\.encoder\.layers\.7\..*query\.weight, which this checkpoint does not have",
        ),
        (
            lambda t: spoil(t, "lora_A", lambda a: a[:, 1:]),
            r"query maps 5 numbers to 6, but .*query\.weight is \(6, 6\)",
        ),
        (lambda t: spoil(t, "lora_A", lambda a: a[1:]), r"query has A \(1, 6\) and B \(6, 2\)"),
        (lambda t: spoil(t, "lora_B", lambda b: b[:, 1:]), r"query has A \(2, 6\) and B \(6, 1\)"),
        (lambda t: spoil(t, "lora_A", lambda a: a[:, 0]), r"query has A \(2,\) and B \(6, 2\)"),
        (lambda t: spoil(t, "lora_A", lambda a: a * np.nan), r"lora_A\.weight holds nan"),
    ],
)
def test_damaged_adapters_are_refused(folder, change, words):
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = read_safetensors(path)
    change(tensors)
    write_safetensors(path, tensors)
    with pytest.raises(CheckpointError, match=words):
        load(folder)


def test_missing_files_and_quantized_starts(folder):
    assert load(folder, quantize="int8")
    load(folder, quantize="int8").save_pretrained(folder / "start", overwrite=True)
    with pytest.raises(InputError, match=r"query\.weight is kept as I8 in this checkpoint"):
        load(folder)
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"There is no adapter_model\.safetensors in"):
        load(folder)
