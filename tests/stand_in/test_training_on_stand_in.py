"""A training on the strict stand-in for CuPy: a step waits for the device once, whatever is trained and by which optimizer."""

import json

import pytest
from stand_in.cupy_stand_in import counting, installed
from stand_in.kernel_twins import register
from training.small_models import small_model

from led_backends.cupy_backend import CupyBackend
from led_ref.training.data import read_dataset
from led_ref.training.settings import DataArguments, RunArguments
from led_ref.training.trainer import run_training

TEXT = "the cat sat on the mat and wrote in green ink"
TARGETS = {
    "summarization": {"summary": "a cat wrote"},
    "classification": {"label": "cat"},
    "question-answering": {"answer": "cat", "answer_start": 4, "question": "who", "context": TEXT},
}


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("summarization", {"label_smoothing_factor": 0.1, "accumulate_as": "transformers"}),
        ("classification", {"lora_rank": 2}),
        ("question-answering", {"optim": "adafactor", "max_grad_norm": 0}),
    ],
)
def test_step_waits_once_for_the_device(bundled, tmp_path, task, settings):
    """Two batches of two documents a step, with dropout. Between two lines of the log lies the second step."""
    lines = [{"text": TEXT[i:], **TARGETS[task]} for i in range(12)]
    if task == "classification":
        lines[3]["label"] = "dog"
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    register()
    waits = []
    with installed():
        extra = {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}
        model = small_model(task, extra if task == "classification" else None, CupyBackend(), attention_dropout=0.1)
        data = read_dataset([tmp_path / "train.jsonl"], DataArguments(), bundled.tokenizer, model)
        run = RunArguments.of(per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=2, **settings)
        with counting() as counts:
            on_log = lambda line: waits.append(len(counts.syncs))  # noqa: E731
            run_training(model, bundled.tokenizer, data, tmp_path / "out", run, on_log=on_log)
    assert waits[1] - waits[0] == 1
