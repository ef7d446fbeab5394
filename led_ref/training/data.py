"""Training data: all documents of a training, looked at wholly before its first step.

    dataset = read_dataset(["train.jsonl"], DataArguments(), tokenizer, model)
    dataset.examples[0].ids_T, dataset.examples[0].target        int32 both: four bytes a token

records.py reads the lines, examples.py makes ids and targets of them. Documents that are too long are refused, unless
`truncate` is set; then the number of cut ones is a notice, and a question whose answer was cut off is left out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from led_ref.errors import InputError, SettingsError
from led_ref.files.records import Problems, read_records
from led_ref.model.brief_repr import BriefRepr
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.training.batch import Trainable
from led_ref.training.examples import AnswerReader, Example, LabelReader, Reader, SummaryReader
from led_ref.training.settings import DataArguments

TASK_OF_CLASS = {
    "LEDForConditionalGeneration": "summarization",
    "LEDForSequenceClassification": "classification",
    "LEDForQuestionAnswering": "question-answering",
}


@dataclass(frozen=True, repr=False)
class Dataset(BriefRepr):
    """All documents of a training, or of a validation.

    Args:
        task: one of settings.TASKS.
        examples: the documents with their targets, in the order of the files.
        fingerprint: sha256 of all ids and targets: equal, if files, fields, lengths and vocabulary give the same training.
        notices: sentences for the user: how many documents were cut.
        problem_type: of a classification, one of config.PROBLEM_TYPES; else None.
    """

    task: str
    examples: tuple[Example, ...]
    fingerprint: str
    notices: tuple[str, ...] = ()
    problem_type: str | None = None

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each document."""
        return [len(example.ids_T) for example in self.examples]

    @property
    def target_lengths(self) -> list[int]:
        """Tokens of each summary; of labels and answers 0, since they are no tokens that are written."""
        return [len(example.target) if self.task == "summarization" else 0 for example in self.examples]


def read_dataset(
    paths: Sequence[str | Path], data: DataArguments, tokenizer: LEDTokenizer, model: Trainable
) -> Dataset:
    """Read files of training data, check every line, and tokenize.

    Args:
        paths: JSON Lines or CSV, .gz too.
        data: fields and lengths.
        tokenizer: the model's.
        model: says how long documents and targets may be, and which labels exist.

    Raises:
        InputError: naming file and line of each problem, up to 20, and the number of the others.
        MissingFileError: if a file does not exist.
        SettingsError: for a task that the model's class is not for, or a length beyond the model's.
    """
    task = _task(data, model.architecture)
    limits = _limits(data, model)
    reader: Reader = {
        "summarization": SummaryReader,
        "classification": LabelReader,
        "question-answering": AnswerReader,
    }[task](data, tokenizer, model.config, *limits)
    problems, examples = Problems(), list[Example]()
    for record in islice(read_records(paths, problems), data.max_train_samples):
        try:
            ids, target = reader.read(record.values)
            _check_ids(ids, tokenizer, model.config.vocab_size)
        except InputError as error:
            problems.add(record.place, str(error))
            continue
        if task == "question-answering" and target[0] < 0:
            reader.left_out += 1
        elif not problems.count:  # else nothing will be trained: the lines are only looked at
            examples.append(Example(np.array(ids, np.int32), target, record.place))
    problems.raise_if_any()
    if not examples:
        left = f" ({reader.left_out} were left out: their answers were cut off)" if reader.left_out else ""
        raise InputError(f"There are no documents in {', '.join(map(str, paths))}{left}. Give files with one a line.")
    return Dataset(task, tuple(examples), _fingerprint(task, examples), reader.notices(), reader.problem_type)


def _task(data: DataArguments, architecture: str) -> str:
    task = TASK_OF_CLASS[architecture]
    if data.task not in (None, task):
        raise SettingsError(f"task is {data.task!r}, but a {architecture} is for {task}. Load the class for it.")
    return task


def _limits(data: DataArguments, model: Trainable) -> tuple[int, int]:
    """The most tokens of a document and of a summary."""
    most = model.longest_document
    limits = []
    for name, table in (
        ("max_source_length", most),
        ("max_target_length", model.config.max_decoder_position_embeddings),
    ):
        given = getattr(data, name)
        if given is not None and given > table:
            raise SettingsError(
                f"{name} is {given:,}, but the model has {table:,} positions. Give at most {table}, or none."
            )
        limits.append(given or table)
    return limits[0], limits[1]


def _check_ids(ids: Sequence[int], tokenizer: LEDTokenizer, vocab_size: int) -> None:
    if max(ids) >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(max(ids))
        raise InputError(
            f"{token!r} has the id {max(ids)}, but the model has {vocab_size:,} ids. Take the model's own tokenizer, or "
            "model.resize_token_embeddings."
        )


def _fingerprint(task: str, examples: Sequence[Example]) -> str:
    digest = hashlib.sha256(task.encode())
    for example in examples:
        for array in (example.ids_T, example.target):
            digest.update(f" {array.dtype.name} {len(array)} ".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
