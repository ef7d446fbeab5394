"""The settings of a training: each checked by its form, recipes, and the names that transformers has."""

import math

import numpy as np
import pytest

from led_ref.errors import SettingsError
from led_ref.training.batches import global_mask
from led_ref.training.forms import GLOBAL_NAMES
from led_ref.training.schedules import NAMES
from led_ref.training.settings import (
    RECIPES,
    SCHEDULES,
    SETTINGS,
    RunArguments,
)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("num_train_epochs", 0, "a number above 0"),
        ("num_train_epochs", True, "a number above 0"),
        ("max_steps", 0, "a whole number of at least 1 (None: not set)"),
        ("per_device_train_batch_size", 2.0, "a whole number of at least 1"),
        ("batch_tokens", "many", "a whole number of at least 1"),
        ("learning_rate", math.nan, "a number above 0"),
        ("learning_rate", math.inf, "a number above 0"),
        ("learning_rate", None, "a number above 0."),
        ("warmup_steps", -1, "a whole number of at least 0"),
        ("weight_decay", -0.1, "a number of at least 0"),
        ("label_smoothing_factor", 1, "a number from 0 to below 1"),
        ("adam_beta2", 1.0, "a number from 0 to below 1"),
        ("lr_scheduler_type", "step", "linear or constant or cosine or polynomial or inverse_sqrt"),
        ("accumulate_as", 1, "labels or transformers"),
        ("freeze", "encoder", "a list of names"),
        ("freeze", [""], "a list of names"),
        ("group_by_length", 1, "True or False"),
        ("text_field", "", "a text that is not empty"),
        ("task", "translation", "summarization or classification or question-answering"),
        ("max_source_length", 3, "a whole number of at least 8"),
    ],
)
def test_form_of_each_value(name, value, wanted):
    with pytest.raises(SettingsError) as found:
        RunArguments.of(**{name: value})
    assert str(found.value).startswith(f"{name} is {value!r}; it must be {wanted}")


def test_a_number_that_is_no_float():
    with pytest.raises(SettingsError, match=r"learning_rate is 1000.* it must be a number above 0"):
        RunArguments.of(learning_rate=10**400)


def test_values_are_kept_in_one_type():
    run = RunArguments.of(learning_rate=1, freeze=["encoder"], dropout=0)
    assert repr(run.training.learning_rate) == "1.0"
    assert (run.training.freeze, repr(run.training.dropout)) == (("encoder",), "0.0")
    assert run.training.to_dict()["freeze"] == ["encoder"]
    of_numpy = {"max_steps": np.int64(3), "dropout": np.float32(0.5), "truncate": np.True_, "seed": np.uint8(7)}
    run = RunArguments.of(**of_numpy, global_attention=[np.int64(0), "<doc-sep>"])
    kept = (
        run.training.max_steps,
        run.training.dropout,
        run.data.truncate,
        run.training.seed,
        run.training.global_attention,
    )
    assert repr(kept) == "(3, 0.5, True, 7, (0, '<doc-sep>'))"


def test_unknown_names():
    with pytest.raises(SettingsError, match=r"no setting 'learn_rate' of training\. Did you mean learning_rate\?"):
        RunArguments.of(learn_rate=1)
    with pytest.raises(SettingsError, match="no recipe 'ai3'; choose one of ai2, pubmed-notebook, primera"):
        RunArguments.of("ai3")


def test_recipes():
    """The numbers of the papers' programs, as shared knowledge has them; given settings come before them."""
    ai2, notebook, primera = (RunArguments.of(name) for name in ("ai2", "pubmed-notebook", "primera"))
    for run, documents_a_step in ((ai2, 16), (notebook, 8), (primera, 16)):
        args = run.training
        assert args.per_device_train_batch_size * args.gradient_accumulation_steps == documents_a_step
        assert (args.optim, args.weight_decay, args.label_smoothing_factor) == ("adamw", 0, 0)
        assert run.data.truncate
        assert run.data.truncate_targets
    assert (ai2.training.learning_rate, ai2.training.warmup_steps, ai2.training.num_train_epochs) == (3e-5, 1000, 5)
    assert (ai2.training.attention_dropout, ai2.training.max_grad_norm) == (0.1, 0)
    assert (notebook.training.learning_rate, notebook.training.num_train_epochs) == (5e-5, 1)
    assert notebook.data.max_train_samples == 250
    assert notebook.generation["length_penalty"] == 2.0
    assert (primera.training.learning_rate, primera.training.warmup_steps) == (3e-5, 1000)
    assert primera.training.global_attention == "separators"
    lengths = [(run.data.max_source_length, run.data.max_target_length) for run in (ai2, notebook, primera)]
    assert lengths == [(16_368, 256), (8192, 512), (4096, 1024)]
    assert [run.generation["max_length"] for run in (ai2, notebook, primera)] == [256, 512, 1024]
    assert RunArguments.of("ai2", max_target_length=9).generation["max_length"] == 9
    assert RunArguments.of("ai2", warmup_steps=3).training.warmup_steps == 3
    assert all(RunArguments.of(name) for name in RECIPES)


def test_words_are_those_of_the_parts(bundled):
    assert sorted(SCHEDULES) == sorted(NAMES)
    for name in GLOBAL_NAMES:
        assert global_mask(name, bundled.tokenizer, "</s>") is not None


def test_each_setting_has_an_option_of_its_own():
    options = [setting.option for setting in SETTINGS.values()]
    assert len(set(options)) == len(options)
    assert all(option.startswith("--") and option == option.lower() for option in options)
    assert all(setting.about and not setting.about.endswith(".") for setting in SETTINGS.values())
