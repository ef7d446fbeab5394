"""The loop of a training: what a step does, what is kept, and that a run which was cut off ends with the same bits."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from training.small_models import small_model

import led_backends
import led_ref
from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.training import step as step_gradients
from led_ref.training import trainer
from led_ref.training.batches import BatchPlan, collate, global_mask
from led_ref.training.data import read_dataset
from led_ref.training.log import read_log
from led_ref.training.parameters import trained_parameters
from led_ref.training.settings import DataArguments, RunArguments
from led_ref.training.trainer import run_training
from led_ref.training.validation import validate
from led_ref.weights.safetensors_file import read_safetensors

WORDS = ["cat", "mat", "sat", "the", "on", "a", "dog", "ran", "home", "and", "wrote", "of", "it", "in", "green", "ink"]


def text(i, count):
    return " ".join(WORDS[(i * 7 + 3 * k) % len(WORDS)] for k in range(count))


@pytest.fixture(scope="module")
def tokenizer(bundled):
    return bundled.tokenizer


@pytest.fixture(scope="module")
def read(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")

    def read_lines(model, numbers):
        lines = [{"text": text(i, 3 + i % 5 * 4), "summary": text(i + 1, 1 + i % 3)} for i in numbers]
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return read_dataset([folder / "train.jsonl"], DataArguments(), tokenizer, model)

    return read_lines


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def train(model, tokenizer, read, tmp_path):
    def run(name, *, held_out=False, start=model, on_log=lambda line: None, resume=False, **settings):
        settings = {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "num_train_epochs": 2} | settings
        found = run_training(
            start,
            tokenizer,
            read(start, range(11)),
            tmp_path / name,
            RunArguments.of(**settings),
            held_out=read(start, range(20, 24)) if held_out else None,
            on_log=on_log,
            resume=resume,
        )
        return found

    return run


def weights(folder):
    return {key: tensor.to_numpy().copy() for key, tensor in read_safetensors(folder / "model.safetensors").items()}


def steps_of(folder):
    return [line for line in read_log(folder / "log.jsonl") if "eval_loss" not in line]


# ---- a step --------------------------------------------------------------------------------------------------------------


def test_loss_falls_and_the_model_loads(train, tmp_path, tokenizer):
    found = train("out", num_train_epochs=5, learning_rate=5e-2)
    losses = [line["loss"] for line in steps_of(tmp_path / "out")]
    assert len(losses) == found.steps == 5 * 6
    assert np.mean(losses[-6:]) < 0.6 * losses[0]
    assert found.loss == losses[-1]
    written = led_ref.load(tmp_path / "out")
    assert written.model.params.lm_head is written.model.params.shared
    assert "lm_head.weight" not in weights(tmp_path / "out")
    assert written.tokenizer.encode("cat") == tokenizer.encode("cat")
    assert set(written.generate("cat mat", max_new_tokens=3).split()) <= set(WORDS)


def test_model_that_it_starts_from_is_unchanged(train, model):
    before = led_backends.to_host(model.params.shared).copy()
    train("out")
    np.testing.assert_array_equal(led_backends.to_host(model.params.shared), before)


def test_rate_follows_the_schedule(train, tmp_path):
    train("out", warmup_steps=4, lr_scheduler_type="linear", learning_rate=1.0e-3)
    rates = [line["learning_rate"] for line in steps_of(tmp_path / "out")]
    assert rates[:5] == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3])
    assert rates[-1] == pytest.approx(1e-3 / 8)


def test_accumulated_batches_are_one_large_batch(train, tmp_path):
    """Bit for bit: documents are computed one at a time and in their order, whichever batch they are in."""
    common = {"group_by_length": False, "max_steps": 4}
    train("large", per_device_train_batch_size=4, **common)
    train("parts", per_device_train_batch_size=1, gradient_accumulation_steps=4, **common)
    for key, array in weights(tmp_path / "large").items():
        np.testing.assert_array_equal(weights(tmp_path / "parts")[key], array, err_msg=key)


def test_mean_of_labels_or_of_batches(train, tmp_path, model, read, tokenizer):
    settings = {"gradient_accumulation_steps": 3, "max_steps": 1, "dropout": 0, "max_grad_norm": 0}
    norms = {}
    for name in ("labels", "transformers"):
        train(name, accumulate_as=name, **settings)
        (line,) = steps_of(tmp_path / name)
        norms[name] = line["grad_norm"]
        dataset = read(model, range(11))
        (step, *_) = BatchPlan(tuple(dataset.lengths), 2, 3, 42, targets=tuple(dataset.target_lengths)).steps(0)
        batches = [collate(dataset, batch, 1, global_mask("first", tokenizer)) for batch in step]
        losses = [float(model(**batch).loss) for batch in batches]
        counts = [int((batch["labels"] >= 0).sum()) for batch in batches]
        share = counts if name == "labels" else None
        assert line["loss"] == pytest.approx(np.average(losses, weights=share), rel=1e-5)
    assert len(set(counts)) > 1
    assert norms["labels"] != pytest.approx(norms["transformers"], rel=1e-4)


def test_gradients_are_asked_for_as_the_settings_say(train, monkeypatch, model, read):
    asked = []
    accumulate = step_gradients.accumulate_gradients

    def spy(model, batch, collect, options):
        asked.append((options, (batch["labels"] >= 0).sum()))
        return accumulate(model, batch, collect, options)

    monkeypatch.setattr(step_gradients, "accumulate_gradients", spy)
    settings = {"gradient_accumulation_steps": 3, "seed": 5, "attention_dropout": 0.25, "label_smoothing_factor": 0.1}
    train("out", documents_at_once=2, keep_activations=True, num_train_epochs=1, freeze=["encoder"], **settings)
    dataset = read(model, range(11))
    plan = BatchPlan(tuple(dataset.lengths), 2, 3, 5, targets=tuple(dataset.target_lengths)).steps(0)
    assert [(options.dropout.step, options.dropout.documents) for options, _ in asked] == [
        (number, batch) for number, step in enumerate(plan) for batch in step
    ]
    options = asked[0][0]
    assert (options.dropout.seed, options.label_smoothing, options.documents_at_once) == (5, 0.1, 2)
    assert options.keep_activations
    assert (options.dropout.rates.attention_dropout, options.dropout.rates.dropout) == (0.25, 0.1)
    assert not options.needs("led.encoder.layers.0.fc1.bias")
    assert options.needs("led.shared.weight")
    counts = [int(count) for _, count in asked]
    assert [options.divide_by for options, _ in asked] == [(sum(counts[:3]),)] * 3 + [(sum(counts[3:]),)] * 3
    asked.clear()
    train("theirs", accumulate_as="transformers", max_steps=1, documents_at_once=2, **settings)
    assert [options.divide_by for options, _ in asked] == [(3 * count,) for count in counts[:3]]


def test_gradients_are_clipped(train, tmp_path, monkeypatch):
    scales, norms = [], []
    update = trainer.AdamW.update

    def spy(self, parameters, gradients, *others, scale):
        scales.append(scale)
        norms.append(np.sqrt(sum((gradient.astype(float) ** 2).sum() for gradient in gradients.values())))
        return update(self, parameters, gradients, *others, scale=scale)

    monkeypatch.setattr(trainer.AdamW, "update", spy)
    train("out", max_grad_norm=0.01, max_steps=3)
    assert norms == pytest.approx([line["grad_norm"] for line in steps_of(tmp_path / "out")])
    assert scales == pytest.approx([0.01 / line["grad_norm"] for line in steps_of(tmp_path / "out")], rel=1e-3)
    train("free", max_grad_norm=0, max_steps=1)
    assert scales[-1] == 1


def test_each_setting_changes_the_result(train, tmp_path):
    changed = [
        {"dropout": 0.0}, {"attention_dropout": 0.5}, {"seed": 1}, {"weight_decay": 0.5}, {"adam_beta1": 0.5},
        {"adam_beta2": 0.5},
        {"adam_epsilon": 1.0}, {"optim": "adafactor"}, {"learning_rate": 2e-2}, {"lr_scheduler_type": "constant"},
        {"warmup_steps": 1}, {"label_smoothing_factor": 0.5}, {"max_grad_norm": 1e-9}, {"global_attention": "none"},
        {"accumulate_as": "transformers"}, {"group_by_length": False}, {"per_device_train_batch_size": 3},
    ]  # fmt: skip
    tables = []
    for number, settings in enumerate([{}, {}, *changed]):
        train(str(number), **{"max_steps": 2, "gradient_accumulation_steps": 2, **settings})
        tables.append(weights(tmp_path / str(number))["led.shared.weight"].tobytes())
    assert tables[0] == tables[1]
    assert len(set(tables)) == 1 + len(changed)


def test_generation_settings_of_a_recipe(train, tmp_path, tokenizer, read):
    small = small_model(extra={"no_repeat_ngram_size": 2})
    for recipe in (None, "pubmed-notebook"):
        run = RunArguments.of(recipe, max_source_length=61, max_target_length=23, max_steps=1)
        run_training(small, tokenizer, read(small, range(3)), tmp_path / str(recipe), run)
    assert not (tmp_path / "None" / "generation_config.json").exists()
    written = json.loads((tmp_path / "pubmed-notebook" / "generation_config.json").read_text())
    assert (written["num_beams"], written["max_length"], written["no_repeat_ngram_size"]) == (2, 23, 3)
    assert written["decoder_start_token_id"] == 2  # config.json's own settings go on


def test_frozen_parts_keep_every_bit(train, tmp_path, model):
    train("out", freeze=["encoder", "embeddings", "led.decoder.layers.0.fc2"], max_steps=3, weight_decay=0.1)
    before = {key: led_backends.to_host(array) for key, array in trained_parameters(model).items()}
    after = weights(tmp_path / "out")
    for key in ("led.shared.weight", "led.encoder.layers.0.fc1.weight", "led.decoder.layers.0.fc2.weight"):
        np.testing.assert_array_equal(after[key], before[key])
    assert not np.array_equal(after["led.decoder.layers.0.fc1.weight"], before["led.decoder.layers.0.fc1.weight"])


# ---- steps that are not taken --------------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(monkeypatch):
    """Gradients are NaN in batches with these documents."""
    accumulate = step_gradients.accumulate_gradients

    def spoil(documents, loss=False):
        def accumulated(model, batch, collect, options):
            factor = np.float32(np.nan if set(options.dropout.documents) & set(documents) else 1)
            if loss:
                found = accumulate(model, batch, collect, options)
                return replace(found, sums=(found.sums[0] * float(factor),))
            return accumulate(model, batch, lambda key, array: collect(key, array * factor), options)

        monkeypatch.setattr(step_gradients, "accumulate_gradients", accumulated)

    return spoil


def test_step_with_nan_is_not_taken(train, tmp_path, spoiled):
    spoiled([3])
    found = train("out", lr_scheduler_type="constant", max_skipped_steps=2)  # one in each epoch: never in a row
    lines = steps_of(tmp_path / "out")
    skipped = [line for line in lines if "skipped" in line]
    assert found.skipped_steps == len(skipped) == 2
    assert all(line["skipped"] == "the norm of the gradients is nan" for line in skipped)
    assert all(any(place.endswith("train.jsonl:4") for place in line["documents"]) for line in skipped)
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "out").values())


def test_step_with_nan_loss_is_not_taken(train, tmp_path, spoiled):
    spoiled([3], loss=True)
    train("out", gradient_accumulation_steps=2, num_train_epochs=1)
    (line,) = [line for line in steps_of(tmp_path / "out") if "skipped" in line]
    assert line["skipped"] == "the loss is nan"
    assert len(line["documents"]) <= 2  # those of the batch, not of the whole step


def test_many_steps_with_nan_stop_the_training(train, tmp_path, spoiled):
    spoiled(range(11))
    with pytest.raises(InputError, match=r"3 steps in a row were not taken; of step 3, .*train\.jsonl:.*learning rate"):
        train("out", max_skipped_steps=3)
    assert len(steps_of(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_learning_rate_that_is_too_high_is_noticed(train):
    with pytest.raises(InputError, match="steps in a row were not taken"), np.errstate(all="ignore"):
        train("out", learning_rate=1e37, max_skipped_steps=2, num_train_epochs=9, max_grad_norm=0)


# ---- a run that goes on --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optim", "last"), [("adamw", 1), ("adamw", 3), ("adamw", 7), ("adafactor", 4)])
def test_resumed_run_ends_with_the_same_bits(train, tmp_path, optim, last):
    settings = {
        "optim": optim, "gradient_accumulation_steps": 2, "num_train_epochs": 3, "save_steps": 2, "eval_steps": 3,
        "held_out": True, "weight_decay": 0.1,
    }  # fmt: skip
    train("whole", **settings)

    def interrupt(line):
        if line["step"] == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("parts", on_log=interrupt, **settings)
    train("parts", resume=True, **settings)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    names = sorted(path.relative_to(whole) for path in whole.rglob("*"))
    assert names == sorted(path.relative_to(parts) for path in parts.rglob("*"))
    for name in names:
        if name.name != "log.jsonl" and (whole / name).is_file():
            assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    timed = {"time", "seconds", "tokens_per_second"}
    logs = [
        [{k: v for k, v in line.items() if k not in timed} for line in read_log(x / "log.jsonl")]
        for x in (whole, parts)
    ]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0] if "loss" in line] == list(range(1, 10))


def test_finished_run_is_left_as_it_is(train, tmp_path):
    first = train("out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    again = train("out", resume=True, on_log=lambda line: pytest.fail("a step was made again"))
    assert (again.steps, again.loss) == (first.steps, None)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_run_whose_rates_have_no_end_becomes_longer(train, tmp_path):
    settings = {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 2}
    train("whole", **settings)
    train("longer", num_train_epochs=1, **settings)
    assert train("longer", resume=True, **settings).steps == 12
    assert all(
        np.array_equal(one, weights(tmp_path / "longer")[key]) for key, one in weights(tmp_path / "whole").items()
    )
    train("longer", resume=True, **settings)  # what was noted is the new length
    train("linear", num_train_epochs=1)
    with pytest.raises(InputError, match="num_train_epochs 1"):
        train("linear", resume=True)


def test_run_goes_on_with_activations_kept(train, tmp_path):
    settings = {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 2}
    train("whole", **settings)
    train("cut", num_train_epochs=1, **settings)
    train("cut", resume=True, keep_activations=True, **settings)
    cut = weights(tmp_path / "cut")
    assert all(np.array_equal(one, cut[key]) for key, one in weights(tmp_path / "whole").items())


def test_other_run_in_the_folder_is_refused(train, tmp_path):
    train("out", max_steps=1)
    with pytest.raises(InputError, match=r"holds training\.json already. To go on with its training pass resume=True"):
        train("out", max_steps=1)
    with pytest.raises(InputError, match=r"begun with training\.learning_rate 0\.01, and this run has 0\.5"):
        train("out", max_steps=1, learning_rate=0.5, resume=True)
    other = small_model(d_model=12)
    with pytest.raises(CheckpointError, match="Give the --model that the training began with"):
        train("out", max_steps=1, resume=True, start=other)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        train("file")
    with pytest.raises(MissingFileError, match="There is no folder"):
        train("gone/out")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="no training that could go on"):
        train("model", resume=True)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("checkpoint.safetensors", b"", "is empty"),
        ("checkpoint.safetensors", None, "does not say how far"),
        ("training.json", b"[]", "is not what led-ref train writes"),
        ("training.json", b"{", "is not what led-ref train writes"),
        ("log.jsonl", b"{}\n", "is no line of a log"),
    ],
)
def test_damaged_run_is_refused(train, tmp_path, name, content, words):
    train("out", max_steps=1)
    if content is None:
        content = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises((CheckpointError, InputError), match=words):
        train("out", max_steps=1, resume=True)


# ---- validation ----------------------------------------------------------------------------------------------------------


def test_held_out_loss_is_the_mean_over_labels(train, tmp_path, read, tokenizer):
    train("out", held_out=True, num_train_epochs=1, label_smoothing_factor=0.1)
    (line,) = [line for line in read_log(tmp_path / "out" / "log.jsonl") if "eval_loss" in line]
    model = led_ref.LEDForConditionalGeneration.from_pretrained(tmp_path / "out")
    held_out = read(model, range(20, 24))
    batch = collate(held_out, range(4), 1, global_mask("first", tokenizer))
    assert line["eval_loss"] == pytest.approx(float(model(**batch).loss), rel=1e-5)
    assert len({len(example.target) for example in held_out.examples}) > 1


def test_validation_is_the_model_as_it_is_used(bundled, read):
    """Each document by itself, with its global attention, without dropout."""
    held_out = read(bundled.model, range(20, 24))
    found = {}
    for name in ("first", "none"):
        mask_of = global_mask(name, bundled.tokenizer)
        batches = [collate(held_out, (i,), 1, mask_of) for i in range(4)]
        losses = [float(bundled.model(**batch).loss) for batch in batches]
        counts = [batch["labels"].size for batch in batches]
        measures = validate(bundled.model, held_out, bundled.tokenizer, mask_of, "loss", pad_token_id=1)
        found[name] = measures["eval_loss"]
        assert found[name] == pytest.approx(np.average(losses, weights=counts), rel=1e-12)
    assert found["first"] != pytest.approx(found["none"], rel=1e-3)


def test_best_model_is_kept_and_stops_the_run(train, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 1.95, 2.1, 1.0])
    seen = []

    def validated(model, *_, **__):
        seen.append(led_backends.to_host(model.params.shared).copy())
        return {"eval_loss": next(losses)}

    monkeypatch.setattr(trainer, "validate", validated)
    found = train(
        "out", held_out=True, eval_steps=1, num_train_epochs=9, early_stopping_patience=3, early_stopping_threshold=0.1
    )
    assert (found.stopped_early, found.steps, found.best, found.best_step) == (True, 5, 2.0, 2)
    np.testing.assert_array_equal(weights(tmp_path / "out")["led.shared.weight"], seen[1])
    np.testing.assert_array_equal(weights(tmp_path / "out" / "last")["led.shared.weight"], seen[4])


def test_nan_is_never_the_best(train, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "validate", lambda *_, **__: {"eval_loss": float("nan")})
    found = train("out", held_out=True, eval_steps=1, max_steps=2)
    assert (found.best, found.best_step) == (None, None)
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"early_stopping_patience": 2}, "are for held-out documents"),
        ({"eval_steps": 2}, "are for held-out documents"),
        ({"held_out": True, "early_stopping_threshold": 0.1}, "no effect without early_stopping_patience"),
        ({"held_out": True, "metric_for_best_model": "rouge"}, r"led-ref\[evaluate\]"),
        ({"global_attention": "question"}, "'question', but in summarization there is none"),
        ({"global_attention": "separators"}, "'<doc-sep>' is no token"),
        ({"global_attention": ["<doc-sep>"]}, "holds the token '<doc-sep>', which"),
        (
            {"global_attention": (0, 9999)},
            r":1: global_attention holds the position 9999, but a document has \d+ tokens",
        ),
        ({"warmup_steps": 12}, "warmup_steps is 12, but the training has 12 steps"),
        ({"batch_tokens": 3}, "batch_tokens is 3, but"),
        ({"freeze": ["encoder", "decoder", "embeddings"]}, "leaves nothing to train"),
    ],
)
def test_settings_that_do_not_fit(train, tmp_path, settings, words, monkeypatch):
    for name in ("rouge_score", "rouge_score.rouge_scorer"):  # as where it is not installed
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=words):
        train("out", **settings)
    assert not (tmp_path / "out").exists()


def test_underflow_is_no_error_whatever_the_caller_says(tmp_path):
    """The square of a gradient of 1e-25 is 0 in float32, and that is right."""
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"text": "gzip makes files smaller", "summary": "gzip - compress"})
    )
    losses = []
    for name, level in (("plain", "warn"), ("strict", "raise")):
        with np.errstate(all=level):
            found = led_ref.train(tmp_path / "train.jsonl", led_ref.bundled_model(), tmp_path / name, max_steps=2)
        losses.append(found.loss)
    assert losses[0] == losses[1]
