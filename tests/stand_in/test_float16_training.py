"""Training in float16, on the strict stand-in for CuPy: the master copy, the scale of the loss, what is saved and kept."""

import json

import numpy as np
import pytest
from stand_in.cupy_stand_in import counting, installed
from stand_in.kernel_twins import register
from training.small_models import small_model

import led_ref
from led_backends.cupy_backend import CupyBackend
from led_backends.numpy_backend import NumpyBackend
from led_ref.errors import InputError
from led_ref.training import loss_scale, trainer
from led_ref.training.data import read_dataset
from led_ref.training.gradients import GradientOptions, loss_and_gradients
from led_ref.training.log import read_log
from led_ref.training.loss_scale import LossScale
from led_ref.training.run_state import load_checkpoint
from led_ref.training.settings import DataArguments, RunArguments
from led_ref.training.start import load_start
from led_ref.training.trained import in_float16, whole_weights
from led_ref.training.trainer import run_training
from led_ref.weights.safetensors_file import read_safetensors

TEXT = "the file was on the list and read in the user name"  # a word is a token
TARGETS = {
    "summarization": {"summary": "a file read"},
    "classification": {"label": "cat"},
    "question-answering": {"answer": "file", "answer_start": 4, "question": "what", "context": TEXT},
}
LABELS = {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}
DIGITS = 2.0**-11  # half of the distance between 1 and the next float16


@pytest.fixture(autouse=True)
def stand_in():
    register()
    with installed():
        yield


@pytest.fixture
def train(bundled, tmp_path):
    """`train("name", dtype="float16", steps=2)`: 12 documents, two in a batch, on the stand-in; the folder."""

    def run(name, dtype="float16", task="summarization", steps=4, resume=False, on_log=lambda line: None, **settings):
        lines = [{"text": TEXT[i:], **TARGETS[task]} for i in range(12)]
        if task == "classification":
            lines[3]["label"] = "dog"
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
        model = small_model(task, LABELS if task == "classification" else None, CupyBackend(), attention_dropout=0.1)
        data = read_dataset([tmp_path / "train.jsonl"], DataArguments(), bundled.tokenizer, model)
        settings = {"per_device_train_batch_size": 2, "max_steps": steps, "save_steps": 1} | settings
        run = RunArguments.of(**settings)
        run_training(model, bundled.tokenizer, data, tmp_path / name, run, dtype=dtype, resume=resume, on_log=on_log)
        return tmp_path / name

    return run


def saved(folder):
    return {key: tensor.data for key, tensor in read_safetensors(folder / "model.safetensors").items()}


def losses(folder):
    return np.array([line["loss"] for line in read_log(folder / "log.jsonl")])


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("summarization", {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2}),
        ("classification", {"lora_rank": 2, "learning_rate": 1e-2}),
        ("question-answering", {"optim": "adafactor", "freeze": ["decoder"]}),
    ],
)
def test_float16_learns_as_float32_does(train, task, settings):
    """The losses are those of float32 but for float16's digits; what is saved is float32, and not rounded."""
    half, full = (train(dtype, dtype, task, steps=2, **settings) for dtype in ("float16", "float32"))
    np.testing.assert_allclose(losses(half), losses(full), rtol=4 * DIGITS)
    moments, others = (
        load_checkpoint(folder)[1] for folder in (half, full)
    )  # they see whether the scale was divided by
    for name, array in moments.items():
        if name.startswith(("led.shared", "classification_head")):
            np.testing.assert_allclose(array, others[name], rtol=0, atol=20 * DIGITS * np.abs(others[name]).max())
    arrays, expected = saved(half), saved(full)
    start = small_model(task, LABELS if task == "classification" else None).state_dict()
    for key, array in arrays.items():
        assert array.dtype == np.float32, key
        if not key.endswith("k_proj.bias"):  # its gradient is 0 but for rounding, and AdamW makes steps of that
            assert (array == start[key]).all() or (expected[key] != start[key]).any(), key  # what is frozen stays
    changed = [key for key in arrays if (arrays[key] != start[key]).any()]
    assert any((arrays[key].astype(np.float16) != arrays[key]).any() for key in changed)


def test_small_steps_add_up_in_the_master_copy(train):
    """Each step changes a weight by 1e-6, less than float16 resolves: the norms' weights learn all the same."""
    arrays = saved(train("out", learning_rate=1e-6, lr_scheduler_type="constant", steps=3))
    start = small_model().state_dict()
    key = "led.encoder.layers.0.final_layer_norm.weight"
    moved = np.abs(arrays[key] - start[key])
    assert (moved > 2e-6).any()
    assert (moved < 3.1e-6).all()  # three steps, and no rounding of the start to float16


def test_model_computes_with_the_rounded_master_copy():
    trained = in_float16(whole_weights(small_model(backend=CupyBackend()), ()))
    assert (trained.model.dtype, trained.saved_model.dtype) == ("float16", "float32")
    assert trained.model.params.lm_head is trained.model.params.shared
    for array in trained.parameters.values():
        array *= 1.01
    trained.renew()
    for key, array in trained.model.state_dict().items():
        np.testing.assert_array_equal(array, trained.saved_model.state_dict()[key].astype(np.float16), err_msg=key)


def test_a_scale_saves_small_gradients():
    """Of a loss over 200 labels, most gradients are below float16's smallest number."""
    batch = {"input_ids": [[0, 9, 30, 11, 9, 2]], "labels": [[0, 7, 8, 2]]}

    def gradients(model, scale):
        options = GradientOptions(divide_by=(200,), loss_scale=scale)
        _, found = loss_and_gradients(model, batch, options)
        return [
            model.backend.to_host(w).astype(np.float32) / scale
            for w in (found.shared, found.encoder.layers[1].fc1.weight)
        ]

    half = in_float16(whole_weights(small_model(backend=CupyBackend()), ())).model
    expected = gradients(small_model(backend=NumpyBackend()), 1.0)
    for array, one in zip(gradients(half, 2.0**16), expected, strict=True):
        np.testing.assert_allclose(array, one, rtol=0, atol=16 * DIGITS * np.abs(one).max())
    assert not gradients(half, 1.0)[1].any()
    assert expected[1].all()


def test_losses_have_the_digits_of_float32():
    """Logits are float16, the loss of them is not: of 9.01 float16 would give 9.008."""
    half = in_float16(whole_weights(small_model(backend=CupyBackend()), ())).model
    batch = {"input_ids": [[0, 9, 30, 11, 9, 2]], "labels": [[0, 7, 8, 2]]}
    out = half(**batch)
    logits = half.backend.to_host(out.logits)[0].astype(np.float64)
    expected = np.mean(np.log(np.exp(logits).sum(-1)) - logits[range(4), batch["labels"][0]])
    loss, _ = loss_and_gradients(half, batch)
    for found in (float(half.backend.to_host(out.loss)), loss.mean):
        assert abs(found - expected) < 1e-6 * expected


def test_an_overflow_lowers_the_scale_and_loses_no_document(train, monkeypatch):
    """The first scale is far too high: it is halved until the gradients are finite, and the steps are those of before."""
    expected = train("expected", steps=2)
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**19)
    lines = read_log(train("out", steps=2) / "log.jsonl")
    assert [line["loss"] for line in lines] == list(losses(expected))
    assert lines[0]["loss_scale"] < 2.0**19
    assert lines[1]["loss_scale"] == lines[0]["loss_scale"]


def test_gradients_that_are_never_finite_skip_the_step(train, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "LOWEST", 2.0**15)
    monkeypatch.setattr(trainer, "squared_norm", lambda gradients, backend: backend.xp.asarray(np.float64("nan")))
    with pytest.raises(
        InputError, match="2 steps in a row were not taken; of step 2, the norm of the gradients is nan"
    ):
        train("out", max_skipped_steps=2)
    assert all(line["documents"] for line in read_log(tmp_path / "out" / "log.jsonl"))


def test_scale_doubles_after_many_steps():
    scale = LossScale.first("float16")
    for _ in range(loss_scale.DOUBLE_AFTER):
        assert scale.value == 2.0**16
        scale = scale.after(scale.value)
    assert scale == LossScale(2.0**17, 0)
    assert scale.after(2.0**14) == LossScale(2.0**14, 0)
    assert (
        LossScale(loss_scale.HIGHEST, loss_scale.DOUBLE_AFTER - 1).after(loss_scale.HIGHEST).value == loss_scale.HIGHEST
    )
    assert LossScale.first("float32").value == 1


def test_a_float16_run_goes_on_with_the_same_bits(train, monkeypatch):
    """Cut off after two steps, with a scale that doubles every second one: scale, master copy and moments go on."""
    monkeypatch.setattr(loss_scale, "DOUBLE_AFTER", 2)
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**10)
    expected = train("whole", steps=4)

    def stop(line):
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("cut", steps=4, on_log=stop)
    found = train("cut", steps=4, resume=True)
    assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    scales = [line["loss_scale"] for line in read_log(expected / "log.jsonl")]
    assert scales == [2.0**10, 2.0**10, 2.0**11, 2.0**11]
    assert [line["loss_scale"] for line in read_log(found / "log.jsonl")] == scales


def test_float16_step_waits_once(train):
    waits = []
    with counting() as counts:
        train("out", steps=2, on_log=lambda line: waits.append(len(counts.syncs)), save_steps=9)
    assert waits[1] - waits[0] == 1


def test_a_cpu_refuses_float16():
    with pytest.raises(InputError, match="does not compute in float16"):
        load_start(led_ref.bundled_model(), [], DataArguments(), backend="numpy", dtype="float16")
