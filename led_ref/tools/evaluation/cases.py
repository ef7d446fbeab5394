"""The documents of an evaluation: what the model reads, and what is right. All are looked at before the first is read.

task                 fields of a line                       right
summarization        text, summary                          the summary; a list of them: each of them
classification       text, label                            the label, by its name or number
question-answering   question, context, answers             one of {"text": [...]}, of a list, or `answer`; none: ""
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from led_ref.config import SINGLE_LABEL
from led_ref.errors import InputError, SettingsError, quoted
from led_ref.files.records import Problems, read_records
from led_ref.pipelines.classification import Classifier
from led_ref.pipelines.loading import Document, GlobalAttention
from led_ref.pipelines.question_answering import QuestionAnswerer
from led_ref.pipelines.summarization import LED
from led_ref.training.examples import LabelReader, Reader
from led_ref.training.settings import DataArguments

Pipeline = LED | QuestionAnswerer | Classifier


@dataclass(frozen=True, repr=False)
class Case:
    """A document and what is right for it.

    Args:
        place: file and line: "heldout.jsonl:12".
        text: the document, or the text that a question is about.
        question: "" but for answers.
        right: the references; the answers, none if there is none; or the label.
        copies: the fields that `--baseline copy` names, as texts.
        read: the document as the model reads it.
        is_cut: whether it was cut.
    """

    place: str
    text: str
    question: str
    right: tuple[str, ...]
    copies: Mapping[str, str]
    read: Document
    is_cut: bool


def read_cases(
    paths: Sequence[str | Path],
    task: str,
    data: DataArguments,
    pipeline: Pipeline,
    *,
    global_attention: GlobalAttention = "first",
    copy_fields: Sequence[str] = (),
) -> list[Case]:
    """The documents of some files, in their order.

    Args:
        paths: .jsonl, .csv or .tsv, also .gz: one document a line.
        task: summarization, classification or question-answering.
        data: the fields' names, whether documents may be cut, and the most documents to read (max_train_samples).
        pipeline: the model and its tokenizer.
        global_attention: as in LED.generate; of a question its own tokens have it.
        copy_fields: the fields that `--baseline copy` names.

    Raises:
        InputError: with every line that cannot be used and why; if there is no document.
        MissingFileError: if a file does not exist.
        SettingsError: for a model of several labels at once, or of a regression.
    """
    reader = reader_of(task, data, pipeline, global_attention)
    problems, cases = Problems("data", "nothing was evaluated"), list[Case]()
    for record in islice(read_records(paths, problems), data.max_train_samples):
        try:
            question, text, right = reader.read(record.values)
            read, is_cut = reader.fitted(question, text)
            copies = {name: _copy(record.values, name) for name in copy_fields}
            cases.append(Case(record.place, text, question, right, copies, read, is_cut))
        except InputError as error:
            problems.add(record.place, str(error))
    problems.raise_if_any()
    if not cases:
        raise InputError(f"There are no documents in {', '.join(map(str, paths))}. Give files with one a line.")
    return cases


def reader_of(task: str, data: DataArguments, pipeline: Pipeline, global_attention: GlobalAttention) -> "_Reader":
    """What makes of a question and a text what the model reads; arguments and errors as in `read_cases`."""
    return _READERS[task](data, pipeline, global_attention)


def documents_digest(cases: Sequence[Case]) -> str:
    """The sha256 of all that the model is given: texts and questions, in their order."""
    digest = hashlib.sha256()
    for case in cases:
        for text in (case.question, case.text):
            digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def _copy(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str | int | float):
        there = "is not there" if name not in values else f"is {quoted(value, 60)}, not a text"
        raise InputError(f"the field {name!r}, which a baseline copies, {there}. Name another field.")
    return str(value)


@dataclass
class _Reader:
    """Makes of a line's values question, text and what is right."""

    data: DataArguments
    pipeline: Any
    global_attention: GlobalAttention
    values: Reader = field(init=False)

    def __post_init__(self) -> None:
        self.values = Reader(self.data, self.pipeline.tokenizer, self.pipeline.model.config, 0, 0)

    def read(self, values: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
        """Question, text, and what is right. Raises InputError for what cannot be used."""
        text = self.values.text(values, self.data.text_field, "text_field (--text-field)")
        return "", text, self.right(values)

    def right(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """What is right for a text."""
        name, option = self.data.target_field or "summary", "target_field (--target-field)"
        found = self.values.value(values, name, option)
        if not isinstance(found, list):
            return (self.values.text(values, name, option),)
        if not found:
            raise InputError(f"{name} is an empty list. Remove the line, or give a reference.")
        return tuple(self.values.text({name: text}, name, option) for text in found)

    def fitted(self, question: str, text: str) -> tuple[Document, bool]:
        """The document as the model reads it, and whether it was cut."""
        return _cut_if_allowed(self.prepare, question, text, truncate=self.data.truncate)

    def prepare(self, question: str, text: str, *, truncation: bool) -> Document:
        """The ids of a text, and its global mask."""
        ids = self.pipeline.encode(text, truncation=truncation)
        return Document(ids, self.pipeline.global_mask(ids, self.global_attention))


class _Labels(_Reader):
    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.pipeline.model.config
        if config.problem_type not in (None, SINGLE_LABEL) or len(config.id2label) < 2:
            raise SettingsError(
                f"{self.pipeline.name} has {len(config.id2label)} labels and the problem type {config.problem_type}; one of "
                "several labels for each document can be evaluated, nothing else."
            )
        self.labels = LabelReader(self.data, self.pipeline.tokenizer, config, 0, 0)

    def right(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        name = self.data.target_field or "label"
        found = self.labels.value(values, name, "target_field (--target-field)")
        return (self.labels.labels[self.labels.number(name, found)],)


class _Questions(_Reader):
    def read(self, values: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
        data = self.data
        question = self.values.text(values, data.question_field, "question_field (--question-field)")
        text = self.values.text(values, data.context_field, "context_field (--context-field)")
        name, option = data.answers_field, "answers_field (--answers-field)"
        found = (
            values["answer"] if name not in values and "answer" in values else self.values.value(values, name, option)
        )
        if isinstance(found, dict) and "text" in found:
            found = found["text"]
        texts = [] if found in (None, "") else [found] if isinstance(found, str) else found
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise InputError(
                f'{name} is {quoted(found, 60)}; give {{"text": [...]}} as in SQuAD, a list of texts, or `answer`, a text.'
            )
        return question, text, tuple(texts)

    def prepare(self, question: str, text: str, *, truncation: bool) -> Document:
        prepared: Document = self.pipeline.prepare(question, text, truncation=truncation)
        return prepared


def _cut_if_allowed(
    prepare: Callable[..., Document], question: str, text: str, *, truncate: bool
) -> tuple[Document, bool]:
    try:
        return prepare(question, text, truncation=False), False
    except InputError:
        if not truncate:
            raise
        return prepare(question, text, truncation=True), True


_READERS: dict[str, type[_Reader]] = {
    "summarization": _Reader,
    "classification": _Labels,
    "question-answering": _Questions,
}
