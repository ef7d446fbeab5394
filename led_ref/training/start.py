"""What a training starts from: a checkpoint, loaded as the class for the task; with a new head where it has none.

    task                 class                            its head, where the checkpoint has none
    summarization        LEDForConditionalGeneration      none is needed: words are scored by the embedding table
    classification       LEDForSequenceClassification     classification_head: numbers drawn; one label for each in the data
    question-answering   LEDForQuestionAnswering          qa_outputs: numbers drawn

New matrices are normally distributed with config.json's `init_std`, new biases 0, as in transformers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from led_backends.contract import Backend
from led_backends.notices import inform
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.classes.heads import LEDForQuestionAnswering, LEDForSequenceClassification
from led_ref.classes.pretrained import get_backend
from led_ref.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LEDConfig
from led_ref.errors import InputError
from led_ref.files.records import Problems, read_records
from led_ref.model.params import LEDParams
from led_ref.tokenizer.files import vocabularies_that_differ
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.training.batch import Trainable
from led_ref.training.data import TASK_OF_CLASS
from led_ref.training.processes import shared_among
from led_ref.training.settings import DataArguments
from led_ref.weights.find_files import read_tensors, resolve
from led_ref.weights.keys import arrays_by_key, assemble, entries, heads_in, heads_of

MOST_LABELS = 10_000

CLASSES: dict[str, Any] = {
    "summarization": LEDForConditionalGeneration,
    "classification": LEDForSequenceClassification,
    "question-answering": LEDForQuestionAnswering,
}


def load_start(
    name: str | Path,
    paths: Sequence[str | Path],
    data: DataArguments,
    *,
    revision: str | None = None,
    backend: str | Backend = "auto",
    processes: int = 1,
    dtype: str = "float32",
    seed: int = 0,
    notice: Callable[[str], None] | None = None,
) -> tuple[Trainable, LEDTokenizer]:
    """The model and the tokenizer that a training starts from.

    Args:
        name: a folder, or a name on the Hub.
        paths: the training data, for the labels of a new classification head.
        data: the task (None: what config.json's architectures says, else summarization), and the field of labels.
        revision: branch, tag or commit on the Hub.
        backend: what to compute on.
        processes: how many compute a step; they share the backend's threads.
        dtype: what to compute in: "float32" or "float64", on a GPU also "float16"; then the weights are those of the master
            copy, in float32.
        seed: of a new head's numbers.
        notice: called with a sentence for the user, such as that a head is new.

    Raises:
        LEDError: as led_ref.load; InputError for labels that cannot be a head's.
    """
    folder = resolve(name, revision=revision, notice=notice)
    config = LEDConfig.from_pretrained(folder)
    architectures = [TASK_OF_CLASS.get(str(named)) for named in config.extra.get("architectures") or ()]
    task = data.task or next((found for found in architectures if found), "summarization")
    model_class = CLASSES[task]
    heads = heads_of(model_class.architecture)
    device = shared_among(processes, get_backend(backend, notice=notice))
    if dtype == "float16" and dtype not in device.compute_dtypes:
        raise InputError(f"{device.describe()} does not compute in float16. Train in float32 there (--dtype float32).")
    kept_in = "float32" if dtype == "float16" else dtype
    options: dict[str, Any] = {"backend": device, "dtype": kept_in, "notice": notice}
    if set(heads) <= set(heads_in(read_tensors(folder))):
        model: Trainable = model_class.from_pretrained(folder, **options)
    else:
        base = LEDForConditionalGeneration.from_pretrained(folder, **options)
        if task == "classification":
            config = replace(config, extra={**config.extra, **labels_in(paths, data)})
        params = _with_new_heads(base.params, config, heads, seed, base.backend)
        model = model_class(config, params, backend=base.backend, generation_config=base.generation_config)
        about = f" for the labels {', '.join(config.id2label.values()):.100}" if task == "classification" else ""
        (notice or inform)(f"{name} has no {heads[0]}: a new one is drawn{about}")
    engine = "rust" if find_spec("tokenizers") else "python"  # the same ids; a browser has no compiled library
    tokenizer = LEDTokenizer.from_pretrained(folder, engine=engine)
    differ = vocabularies_that_differ(tokenizer.get_vocab(), config.vocab_size, writes=task == "summarization")
    if differ is not None:
        (notice or inform)(f"{name}: {differ}")
    return model, tokenizer


def _with_new_heads(
    params: LEDParams, config: LEDConfig, heads: Sequence[str], seed: int, backend: Backend
) -> LEDParams:
    """The parameters with heads of drawn numbers."""
    rng, arrays = np.random.default_rng(seed), arrays_by_key(params, config)
    by_field: dict[str, Any] = {}
    for entry in entries(config, heads):
        if entry.key in arrays:
            by_field[entry.field] = arrays[entry.key]
            continue
        values = np.zeros(entry.shape)
        if entry.key.endswith(".weight"):
            values = rng.normal(scale=config.init_std, size=entry.shape)
        by_field[entry.field] = backend.to_device(values.astype(params.shared.dtype))
    return assemble(by_field, config)


def labels_in(paths: Sequence[str | Path], data: DataArguments) -> dict[str, Any]:
    """What config.json says of labels, from those in the data: id2label, label2id and problem_type.

    Texts become labels in the order of the alphabet; whole numbers 0, 1, ... keep their numbers; numbers with a fraction are a
    regression; lists are several labels at once. Lines that cannot be read are left to read_dataset's messages.

    Raises:
        InputError: if there are no labels, too many, or numbers that do not count from 0.
    """
    name = data.target_field or "label"
    values: set[Any] = set()
    is_list = False
    for record in read_records(paths, Problems()):
        found = record.values.get(name)
        is_list = is_list or isinstance(found, list)
        values.update(label for label in (found if isinstance(found, list) else [found]) if _is_label(label))
        if len(values) > MOST_LABELS and not any(isinstance(value, float) for value in values):
            raise InputError(f"{name} has more than {MOST_LABELS:,} labels. Name another field with --target-field.")
    if not values:
        raise InputError(f"No line has a label in {name!r}. Name the field with target_field (--target-field).")
    if any(isinstance(value, float) for value in values):
        return {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": REGRESSION}
    numbers = sorted({int(value) for value in values if isinstance(value, int) or _is_number(value)})
    texts = sorted(value for value in values if isinstance(value, str) and not _is_number(value))
    if texts and numbers:
        raise InputError(f"{name} has texts ({texts[0]!r}) and numbers ({numbers[0]}). Write all labels in one way.")
    if numbers and (numbers[0] < 0 or numbers[-1] >= MOST_LABELS):
        raise InputError(f"{name} has the numbers {numbers[0]} to {numbers[-1]}; labels count from 0. Number them so.")
    if len(values) == 1:
        raise InputError(
            f"All lines have the {name} {values.pop()!r:.60}: no other label is there to learn. Add other lines."
        )
    names = texts or [f"LABEL_{number}" for number in range(numbers[-1] + 1)]
    return {
        "id2label": {str(number): label for number, label in enumerate(names)},
        "label2id": {label: number for number, label in enumerate(names)},
        "problem_type": MULTI_LABEL if is_list else SINGLE_LABEL,
    }


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 9
