"""Settings of a training against transformers' Seq2SeqTrainingArguments."""

import dataclasses

import pytest
from transformers import Seq2SeqTrainingArguments

from led_ref.training.settings import TrainingArguments

pytestmark = pytest.mark.peer


def test_defaults_are_those_of_transformers():
    theirs = {f.name: f.default for f in dataclasses.fields(Seq2SeqTrainingArguments)}
    ours = TrainingArguments().to_dict()
    same = theirs.keys() & ours.keys()
    assert {"learning_rate", "num_train_epochs", "warmup_steps", "adam_epsilon", "label_smoothing_factor"} <= same
    differ = {name for name in same if theirs[name] != ours[name]}
    assert differ == {"optim", "max_steps", "metric_for_best_model", "save_steps"}
