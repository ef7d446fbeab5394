"""`led_ref.evaluate`: a model writes for every document of some files, and what it wrote is scored.

    found = led_ref.evaluate("heldout.jsonl", "./my-led", truncate=True, baselines=["lead"], out="scores")
    found.scores["rougeL"].value, found.report["baselines"]["lead 66"]["rougeL"]

Documents of like length are decoded together. With `out` each text is on the disk as soon as it is written, and a run that was
cut off goes on with resume=True. Everything that a score depends on is in the report.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from led_backends.contract import Backend
from led_ref.api import bundled_model, check_settings
from led_ref.classes.input_checks import check_types
from led_ref.classes.led import Progress
from led_ref.config import LEDConfig
from led_ref.errors import InputError, MissingFileError, SettingsError
from led_ref.files.json_file import write_text
from led_ref.files.staging import to_write
from led_ref.pipelines.batching import BATCH_MEMORY
from led_ref.pipelines.loading import GlobalAttention
from led_ref.pipelines.shards import shard_of
from led_ref.tools.evaluation.baselines import Baseline
from led_ref.tools.evaluation.cases import documents_digest, read_cases
from led_ref.tools.evaluation.measure import Measure
from led_ref.tools.evaluation.page import page
from led_ref.tools.evaluation.report import Evaluation
from led_ref.tools.evaluation.results import Results
from led_ref.tools.evaluation.scores import Bootstrap, lsum_left_out
from led_ref.tools.evaluation.writer import PIPELINES, Reading, Writer, load_pipeline, written_on_workers
from led_ref.training.data import TASK_OF_CLASS
from led_ref.training.settings import DataArguments
from led_ref.weights.find_files import model_digest, resolve


@check_types
def evaluate(
    data: str | Path | Sequence[str | Path],
    model: str | Path | None = None,
    *,
    task: str | None = None,
    text_field: str = "text",
    target_field: str | None = None,
    question_field: str = "question",
    context_field: str = "context",
    answers_field: str = "answers",
    truncate: bool = False,
    max_documents: int | None = None,
    stemmer: bool = False,
    sentences: str = "lines",
    samples: int = 1000,
    sample_seed: int = 0,
    baselines: Sequence[str] = (),
    compare: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    shard: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    html: str | Path | None = None,
    global_attention: GlobalAttention = "first",
    cross_attention: str = "cached",
    batch_size: int = 4,
    batch_memory: int = BATCH_MEMORY,
    max_answer_len: int | None = None,
    revision: str | None = None,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    quantize: str | None = None,
    keep_stored: bool = False,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    on_document: Callable[[int, int], object] | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a model on files of documents: ROUGE of summaries, exact match and F1 of answers, accuracy and F1 of labels.

    All documents are read and checked before the model sees the first. Scores are in percent, each with an interval of 95%.

    Args:
        data: files, .jsonl, .csv or .tsv, .gz too: one document a line, as for `train`.
        model: a folder, or a name on the Hub; None: the bundled model for the task.
        task: summarization, question-answering or classification; None: what the checkpoint's class is for.
        text_field: of the document.
        target_field: of the reference (a text, or a list of them) or the label; None: summary, label.
        question_field: of a question.
        context_field: of the text that a question is about.
        answers_field: of the answers.
        truncate: cut documents that are too long, and count them; False: refuse them.
        max_documents: evaluate the first ones alone.
        stemmer: whether rouge-score cuts endings off words.
        sentences: of ROUGE-Lsum: "lines" (a line is one; left out where references have several on one line), or "split".
        samples: of the bootstrap.
        sample_seed: of the bootstrap.
        baselines: what is scored beside the model: "lead" (the beginning of the document, with as many words as a reference has
            in the mean), "lead 66" (its first 66 words), "copy title" (that field).
        compare: arxiv, pubmed, govreport or billsum: adds published scores of LED.
        out: a folder to make, for texts and scores.
        resume: go on from the texts that `out` holds, of all shards.
        shard: "2/4": write for part 2 of 4 of the documents alone, and score these; all may share `out`.
        scheduler: the address of a Dask scheduler.
        workers: the number of worker processes on this machine, with Dask. Without both, this process writes.
        html: a file for a page of the worst and the best cases.
        global_attention: as in LED.generate; of a question its own tokens have it.
        cross_attention: as in LED.generate.
        batch_size: the most documents that are decoded together.
        batch_memory: bytes that these may take beside the weights.
        max_answer_len: the most tokens of an answer; None: the model's own, or 15. A question may be left without one, if
            one of the data has none.
        revision: as in `load`.
        backend: as in `load`.
        dtype: as in `load`.
        quantize: as in `load`.
        keep_stored: as in `load`.
        notice: called with a sentence that the user may want to read; None: dropped.
        progress: as in LED.generate.
        on_document: called after each document with the numbers of those that are done and of all.
        settings: of LED.generate: num_beams, max_new_tokens, ...; without them the checkpoint's own.

    Raises:
        InputError: for lines that cannot be used, each with its place; where rouge-score or Dask is not installed; for an
            `out` that holds another run, or that another one writes into now; for a shard without documents.
        BackendError: if a scheduler is not there, or has ended.
        SettingsError: for a setting that does not exist, or is for another task.
        LEDError: as `load`.
    """
    scored = tuple(map(Baseline.of, baselines))
    measure = Measure(Bootstrap(samples, sample_seed), stemmer, sentences, scored, compare)
    check_settings(settings)
    if html is not None and not to_write("html", html).absolute().parent.is_dir():
        raise MissingFileError(f"There is no folder {Path(html).parent} for {Path(html).name}. Make it first.")
    fields = DataArguments(
        text_field=text_field, target_field=target_field, question_field=question_field, context_field=context_field,
        answers_field=answers_field, truncate=truncate, max_train_samples=max_documents,
    )  # fmt: skip
    reading = Reading(global_attention, cross_attention, batch_size, batch_memory, max_answer_len, progress)
    loading = {
        "revision": revision, "backend": backend, "dtype": dtype, "quantize": quantize, "keep_stored": keep_stored,
    }  # fmt: skip
    results = Results(out, resume=resume, shard=None if shard is None else shard_of(shard, 1))
    evaluation = _evaluate(
        [data] if isinstance(data, str | Path) else list(data), model, task, fields, measure, results, reading, loading,
        settings, scheduler, workers, notice or (lambda sentence: None), on_document or (lambda done, of: None),
    )  # fmt: skip
    if html is not None:
        write_text(Path(html), page(evaluation))
    return evaluation


def _evaluate(
    files: Sequence[str | Path],
    model: str | Path | None,
    task: str | None,
    fields: DataArguments,
    measure: Measure,
    results: Results,
    reading: Reading,
    loading: Mapping[str, Any],
    settings: Mapping[str, Any],
    scheduler: str | None,
    workers: int | None,
    notice: Callable[[str], None],
    on_document: Callable[[int, int], object],
) -> Evaluation:
    from led_ref import __version__

    if task not in (None, *PIPELINES):
        raise SettingsError(f"task is {task!r:.60}; it is one of {', '.join(PIPELINES)}.")
    bundled = bundled_model(task or "summarization")
    folder = bundled if model is None else resolve(model, revision=loading["revision"], notice=notice)
    task = task or _task_of(folder)
    measure.check(task, settings)
    pipeline = load_pipeline(task, model, {**loading, "notice": notice})
    cases = read_cases(
        files, task, fields, pipeline,
        global_attention=reading.global_attention, copy_fields=measure.copied_fields,
    )  # fmt: skip
    if task == "summarization" and (why := lsum_left_out([case.right for case in cases], measure.sentences)):
        notice(f"ROUGE-Lsum is left out. {why}")
    writer = Writer(task, pipeline, settings, reading, fields.truncate, any(not case.right for case in cases))
    run = {
        "led_ref": __version__, "task": task, "model": pipeline.name, "sha256 of the model": model_digest(folder),
        "sha256 of the documents": documents_digest(cases), "backend": pipeline.model.backend.name,
        "dtype": pipeline.model.dtype, "quantize": loading["quantize"], "keep_stored": loading["keep_stored"],
        "truncate": fields.truncate, **writer.settings_of_run(),
    }  # fmt: skip
    groups, part = writer.groups(cases), results.shard
    if part is not None:
        groups = groups[part.number - 1 :: part.of]
    own = sorted(i for group in groups for i in group)
    if not own:
        raise InputError(f"There is no document for {part}: all {len(cases)} are in others. Take fewer shards.")
    with results.begun(run, len(cases)):
        texts = results.texts
        if texts:
            notice(f"{len(texts):,} of {len(own):,} documents are in {results.folder} already")
        if scheduler is None and workers is None:
            written = writer.write(cases, set(texts) | (set(range(len(cases))) - set(own)))
        else:
            where: dict[str, Any] = {"scheduler": scheduler, "workers": workers}
            written = written_on_workers(writer, cases, groups, set(texts), fields, model, loading, **where)
        for i, text in written:
            results.add(i, cases[i].place, text)
            on_document(len(texts), len(own))
    measured = run if part is None else {**run, "shard": str(part)}
    evaluation = measure.evaluate(task, [cases[i] for i in own], [texts[i] for i in own], measured, files)
    results.finish(evaluation.report)
    return evaluation


def _task_of(folder: Path) -> str:
    """What a checkpoint is for, by config.json's architectures; else summarization."""
    named = LEDConfig.from_pretrained(folder).extra.get("architectures") or ()
    return next((TASK_OF_CLASS[one] for one in map(str, named) if one in TASK_OF_CLASS), "summarization")
