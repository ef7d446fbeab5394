"""What a model writes for the documents of an evaluation, group by group: here, a part of it, or on the workers of a cluster.

    groups      a batch of summaries, a single question, a single text to label: what is computed together
    shard 2/3   every third group, from the second on; a worker is sent one group at a time

So a text is the same whoever writes it: its group is.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from led_ref.api import load
from led_ref.classes.led import Progress
from led_ref.errors import LEDError, SettingsError
from led_ref.pipelines.batching import batches_of
from led_ref.pipelines.classification import Classifier
from led_ref.pipelines.generate_many import global_names, on_workers
from led_ref.pipelines.loading import GlobalAttention
from led_ref.pipelines.many import Block, Found, run_of_model
from led_ref.pipelines.question_answering import QuestionAnswerer
from led_ref.pipelines.summarization import LED, write_each
from led_ref.tools.evaluation.cases import Case, Pipeline, reader_of
from led_ref.training.settings import DataArguments

PIPELINES: dict[str, type[Pipeline]] = {
    "summarization": LED,
    "question-answering": QuestionAnswerer,
    "classification": Classifier,
}


@dataclass(frozen=True)
class Reading:
    """How documents are read and put together; arguments as in `evaluate`."""

    global_attention: GlobalAttention
    cross_attention: str
    batch_size: int
    batch_memory: int
    max_answer_len: int | None
    progress: Progress | None


@dataclass(frozen=True, repr=False)
class Writer:
    """A loaded model, and how it writes; arguments as in `evaluate`.

    Args:
        task: what it was trained for.
        pipeline: the model and its tokenizer.
        settings: of generate.
        reading: see Reading.
        truncate: whether a document may be cut.
        may_have_no_answer: whether a question may be left without an answer: one of the data has none.
    """

    task: str
    pipeline: Any
    settings: Mapping[str, Any]
    reading: Reading
    truncate: bool
    may_have_no_answer: bool

    def settings_of_run(self) -> dict[str, Any]:
        """What decides what the model writes.

        Raises:
            SettingsError: for settings that give no text, several, or another one at each run.
        """
        if self.task == "question-answering":
            longest, _ = self.pipeline.answer_settings(self.reading.max_answer_len, self.may_have_no_answer)
            return {"max_answer_len": longest, "may_have_no_answer": self.may_have_no_answer}
        named = global_names(self.reading.global_attention)
        if self.task == "classification":
            return {"global_attention": named}
        effective: dict[str, Any] = self.pipeline.model.effective_settings(**self.settings).to_dict()
        if effective["do_sample"] and effective["seed"] is None:
            raise SettingsError("do_sample is True without a seed: each run would have other scores. Give seed=0, too.")
        if effective["num_return_sequences"] > 1:
            raise SettingsError(
                f"num_return_sequences is {effective['num_return_sequences']}, but one text of each document is scored. "
                "Leave it out."
            )
        return {"global_attention": named, "cross_attention": self.reading.cross_attention, **effective}

    def groups(self, cases: Sequence[Case]) -> list[list[int]]:
        """The numbers of the documents that are computed together, group by group."""
        if self.task != "summarization":
            return [[i] for i in range(len(cases))]
        return batches_of(self.pipeline.model, [case.read for case in cases], self.settings, **self._batches())

    def _batches(self) -> dict[str, Any]:
        return {name: getattr(self.reading, name) for name in ("batch_size", "batch_memory", "cross_attention")}

    def write(self, cases: Sequence[Case], skip: Collection[int]) -> Iterator[tuple[int, str]]:
        """The number and the text of each document that is not to be skipped.

        Raises:
            LEDError: naming the place of a document that cannot be written for.
        """
        if self.task != "summarization":
            for i, case in enumerate(cases):
                if i not in skip:
                    yield i, self._of_one(case)
            return
        for i, written in write_each(
            self.pipeline.model,
            [case.read for case in cases],
            self.settings,
            progress=self.reading.progress,
            tokenizer=self.pipeline.tokenizer,
            skip=skip,
            **self._batches(),
        ):
            if isinstance(written, LEDError):
                raise type(written)(f"{cases[i].place}: {written}") from written
            yield i, self.pipeline.tokenizer.decode(written.ids[0], skip_special_tokens=True).strip()

    def _of_one(self, case: Case) -> str:
        try:
            if self.task == "classification":
                labels = self.pipeline.classify(
                    case.text,
                    global_attention=self.reading.global_attention,
                    truncation=self.truncate,
                    progress=self.reading.progress,
                )
                return str(labels[0].label)
            found = self.pipeline.answer(
                case.question,
                case.text,
                max_answer_len=self.reading.max_answer_len,
                handle_impossible_answer=self.may_have_no_answer,
                truncation=self.truncate,
                progress=self.reading.progress,
            )
            return found[0].answer if found else ""
        except LEDError as error:
            raise type(error)(f"{case.place}: {error}") from error


# ---- on a cluster ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What a worker does: a writer, and how it reads a question and a text."""

    writer: Writer
    fields: DataArguments
    model: str | Path | None
    loading: Mapping[str, Any]

    def __call__(
        self, documents: Sequence[tuple[str, str]], skip: Collection[int]
    ) -> Iterator[tuple[int, Found | LEDError]]:
        """The texts of a group, whose documents are place, question and text as JSON; or the first error."""
        writer = self.writer
        reader = reader_of(writer.task, self.fields, writer.pipeline, writer.reading.global_attention)
        cases = []
        for _, held in documents:
            place, question, text = json.loads(held)
            cases.append(Case(place, text, question, (), {}, *reader.fitted(question, text)))
        try:
            for i, text in writer.write(cases, skip):
                yield i, {"text": text}
        except LEDError as error:
            yield 0, error

    def run(self) -> dict[str, Any]:
        """What decides how the texts come out."""
        loading = {name: self.loading[name] for name in ("quantize", "keep_stored")}
        run = run_of_model(self.writer.pipeline, self.model, revision=self.loading["revision"], **loading)
        return {**run, **self.writer.settings_of_run()}


def load_pipeline(task: str, model: str | Path | None, options: Mapping[str, Any]) -> Pipeline:
    """The model of a task with its tokenizer; arguments and errors as in `load`."""
    given = {name: value for name, value in options.items() if name != "revision" or value is not None}
    return load(model, **given) if task == "summarization" else PIPELINES[task].load(model, **given)


def _load_job(writer: Writer, fields: DataArguments, model: str | Path | None, loading: Mapping[str, Any]) -> _Job:
    pipeline = load_pipeline(writer.task, model, loading)
    return _Job(replace(writer, pipeline=pipeline), fields, model, loading)


def written_on_workers(
    writer: Writer, cases: Sequence[Case], groups: Sequence[Sequence[int]], done: set[int], fields: DataArguments,
    model: str | Path | None, loading: Mapping[str, Any], *, scheduler: str | None, workers: int | None,
) -> Iterator[tuple[int, str]]:  # fmt: skip
    """As Writer.write, of some groups of the documents, on the workers of a cluster.

    Args:
        writer: of this process.
        cases: all documents.
        groups: of these, as Writer.groups gives them.
        done: the numbers of those that are written already.
        fields: of the data.
        model: by its folder or name.
        loading: how a worker loads it.
        scheduler: as in `on_workers`.
        workers: as in `on_workers`.

    Raises:
        SettingsError: for a seed of each document.
        LEDError: as Writer.write and `on_workers`.
    """
    if isinstance(writer.settings.get("seed"), list | tuple):
        raise SettingsError("seed has a number for each document, and workers see a few of them. Give one.")
    loading = {**loading, "notice": None}
    bare = replace(writer, pipeline=None, reading=replace(writer.reading, progress=None))

    def held(case: Case) -> str:
        return json.dumps([case.place, case.question, case.text])

    blocks = (
        Block([(str(i), held(cases[i])) for i in group], {k for k, i in enumerate(group) if i in done})
        for group in groups
        if not done >= set(group)
    )
    load = partial(_load_job, bare, fields, model, loading)
    run = _Job(writer, fields, model, loading).run()
    with on_workers(blocks, load, run, scheduler=scheduler, workers=workers) as results:
        for name, found in results:
            place = cases[int(name)].place
            if isinstance(found, LEDError):
                raise found if place in str(found) else type(found)(f"{place}: {found}")
            yield int(name), found["text"]
