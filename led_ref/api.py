"""The one-call functions: text in, text out.

    >>> import led_ref
    >>> page = (led_ref.bundled_model() / "led-ref.1.txt").read_text()
    >>> led_ref.generate(page)  # the small bundled model on led-ref's own manual page
    'led-ref - convert long documents and writes a short summary'

`train` fine-tunes a checkpoint on files of documents.

`load` returns the loaded model for many calls; `generate` is `load(...).generate(...)`. The work is in pipelines/.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, overload

from led_backends.contract import Backend
from led_backends.notices import inform
from led_ref.errors import InputError
from led_ref.pipelines.classification import Classifier, Label
from led_ref.pipelines.loading import (
    GlobalAttention,
    Progress,
    bundled_model,
    check_types,
    notice_missing_fine_tuning,
    notice_task_settings,
)
from led_ref.pipelines.question_answering import Answer, QuestionAnswerer
from led_ref.pipelines.summarization import LED, OptionsByName, TextOptions, check_settings
from led_ref.training.data import read_dataset
from led_ref.training.room import check_room, load_of
from led_ref.training.run_folder import RunFolder
from led_ref.training.settings import RunArguments
from led_ref.training.start import load_start
from led_ref.training.trainer import Trained, run_training

__all__ = ["LED", "answer", "bundled_model", "check_settings", "classify", "generate", "load", "train"]


@check_types
def load(
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    quantize: str | None = None,
    keep_stored: bool = False,
    adapter: str | Path | None = None,
    mmap: bool = True,
    notice: Callable[[str], None] | None = None,
) -> LED:
    """Load a model and its tokenizer, once for many calls.

    Args:
        model: a folder, or a name on the Hugging Face Hub; None: the small trained model that is bundled.
        revision: branch, tag or commit on the Hub; only with a name on the Hub.
        backend: "auto" (a GPU if CuPy finds one, else the CPU), "numpy" (the CPU), "cupy" (an NVIDIA GPU), or a backend
            object.
        dtype: what to compute in: "float32" or "float64", on a GPU also "float16"; the file's own dtype may be another.
        quantize: "int8" (a scale for each output), "nf4" (4 bits, in blocks of 64) or "nf4-double" (the blocks' scales in 8
            bits too): keep the linear maps' matrices in a quarter or a seventh of float32's memory, for some of the accuracy
            and of the speed (docs/precision.md). What `led-ref convert --quantize` wrote is loaded as it is, without this.
        keep_stored: keep weights that are float16 or bfloat16 in the file so, mapped, in half the memory; the same text.
        adapter: a folder with a LoRA adapter of this model, as `led-ref train --lora-rank` and peft write it: it is merged
            into the weights (weights/adapter.py).
        mmap: map the files of weights, so that loading takes milliseconds; False: read them, so that a program that later
            overwrites or truncates them in place neither changes nor ends this one.
        notice: called with a sentence that the user may want to read; None: it is logged by the logger "led_ref",
            and what is most likely not wanted is a warning, too.

    Raises:
        InputError: for a revision without a name on the Hub, or another dtype or quantization.
        MissingFileError: if no such model or adapter exists or a file of it is missing.
        ConfigError: if it is no LED.
        CheckpointError: if its weights are damaged or do not cover it exactly; if the adapter is another model's.
        BackendError: for an unknown backend, or one that cannot run here.
    """
    notice_missing_fine_tuning(model, notice)
    led = LED.load(
        model,
        revision=revision,
        backend=backend,
        dtype=dtype,
        quantize=quantize,
        keep_stored=keep_stored,
        adapter=adapter,
        mmap=mmap,
        notice=notice,
    )
    notice_task_settings(led.model, led.name, notice)
    return led


@overload
def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str, and comes first
    text: str,
    model: str | Path | LED | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    **options: Unpack[OptionsByName],
) -> str | list[str]: ...
@overload
def generate(
    text: Sequence[str],
    model: str | Path | LED | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    **options: Unpack[OptionsByName],
) -> list[str] | list[list[str]]: ...
@check_types
def generate(
    text: str | Sequence[str],
    model: str | Path | LED | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    **options: Unpack[OptionsByName],
) -> str | list[str] | list[list[str]]:
    """Generate a text for each document: load a model and run it, in one call.

    Args:
        text: one document or several.
        model: a folder, a name on the Hub, or the result of `load`; None: the small trained model that is bundled.
        backend: as in `load`; a loaded model already has its own.
        dtype: as in `load`; a loaded model already has its own.
        options: as in `LED.generate`: global_attention, truncation, num_beams, max_new_tokens, ...

    Returns:
        A string for one document, a list of strings for several.

    Raises:
        LEDError: as `load` and `LED.generate`.
    """
    if not isinstance(model, LED):
        TextOptions.separate(options)  # a misspelt setting should not cost the loading of a model
        model = load(model, backend=backend, dtype=dtype)
    elif backend != "auto" or dtype not in ("float32", model.model.dtype):
        raise InputError(
            f"backend is {backend!r} and dtype is {dtype!r}, but {model.name} is loaded already and computes in "
            f"{model.model.dtype} on {model.model.backend.name}. Pass both to led_ref.load."
        )
    return model.generate(text, **options)


@overload
def answer(  # type: ignore[overload-overlap]  # a str is a sequence of str, and comes first
    question: str,
    context: str,
    model: str | Path | QuestionAnswerer | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    top_k: int = 1,
    max_answer_len: int | None = None,
    handle_impossible_answer: bool | None = None,
    truncation: bool = False,
    progress: Progress | bool | None = None,
) -> list[Answer]: ...
@overload
def answer(
    question: str,
    context: Sequence[str],
    model: str | Path | QuestionAnswerer | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    top_k: int = 1,
    max_answer_len: int | None = None,
    handle_impossible_answer: bool | None = None,
    truncation: bool = False,
    progress: Progress | bool | None = None,
) -> list[list[Answer]]: ...
@check_types
def answer(
    question: str,
    context: str | Sequence[str],
    model: str | Path | QuestionAnswerer | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    top_k: int = 1,
    max_answer_len: int | None = None,
    handle_impossible_answer: bool | None = None,
    truncation: bool = False,
    progress: Progress | bool | None = None,
) -> list[Answer] | list[list[Answer]]:
    """Find the answers to a question in a text, best first: load a model and run it, in one call.

    Arguments and errors as in `load` and `QuestionAnswerer.answer`.

    Args:
        question: a text.
        context: the text that holds the answer, or several: then there is a list of answers for each.
        model: a folder or a name on the Hub of a fine-tuned LEDForQuestionAnswering, or a QuestionAnswerer, which has its
            own backend and dtype; None: the bundled answerer.

    Raises:
        CheckpointError: if the checkpoint is not one of LEDForQuestionAnswering; the message names its class.
    """
    if not isinstance(model, QuestionAnswerer):
        model = QuestionAnswerer.load(model, backend=backend, dtype=dtype)
    return model.answer(
        question,
        context,
        top_k=top_k,
        max_answer_len=max_answer_len,
        handle_impossible_answer=handle_impossible_answer,
        truncation=truncation,
        progress=progress,
    )


@overload
def classify(  # type: ignore[overload-overlap]  # a str is a sequence of str, and comes first
    text: str,
    model: str | Path | Classifier | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    global_attention: GlobalAttention = "first",
    truncation: bool = False,
    progress: Progress | bool | None = None,
) -> list[Label]: ...
@overload
def classify(
    text: Sequence[str],
    model: str | Path | Classifier | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    global_attention: GlobalAttention = "first",
    truncation: bool = False,
    progress: Progress | bool | None = None,
) -> list[list[Label]]: ...
@check_types
def classify(
    text: str | Sequence[str],
    model: str | Path | Classifier | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    global_attention: GlobalAttention = "first",
    truncation: bool = False,
    progress: Progress | bool | None = None,
) -> list[Label] | list[list[Label]]:
    """Give a text labels, the highest score first: load a model and run it, in one call.

    Arguments and errors as in `load` and `Classifier.classify`.

    Args:
        text: one document or several: then there is a list of labels for each.
        model: a folder or a name on the Hub of a fine-tuned LEDForSequenceClassification, or a Classifier, which has its own
            backend and dtype; None: the bundled classifier.

    Raises:
        CheckpointError: if the checkpoint is not one of LEDForSequenceClassification; the message names its class.
    """
    if not isinstance(model, Classifier):
        model = Classifier.load(model, backend=backend, dtype=dtype)
    return model.classify(text, global_attention=global_attention, truncation=truncation, progress=progress)


@check_types
def train(
    data: str | Path | Sequence[str | Path],
    model: str | Path,
    out: str | Path,
    *,
    recipe: str | None = None,
    validate: str | Path | Sequence[str | Path] | None = None,
    resume: bool = False,
    revision: str | None = None,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    notice: Callable[[str], None] | None = None,
    on_log: Callable[[Mapping[str, Any]], object] | None = None,
    **settings: Any,
) -> Trained:
    """Fine-tune a checkpoint on files of documents: summaries, labels or answers.

    All documents are read and checked before the first step. The trained model is one that `load` and transformers read.

    Args:
        data: files, .jsonl, .csv or .tsv, .gz too: one document a line.
        model: a folder, or a name on the Hub.
        out: the folder to make, for the model, its log and its checkpoint (training/trainer.py).
        recipe: "ai2", "pubmed-notebook" or "primera": settings that people know.
        validate: files of held-out documents; then the best model is kept, and the last one in `out/last`.
        resume: go on from the checkpoint in `out`; the result is bit for bit that of a run without interruption.
        revision: as in `load`.
        backend: as in `load`.
        dtype: what to compute in: "float32" or "float64"; on a GPU also "float16", with a master copy of the weights in
            float32 and a scale of the loss that is found while training. The model is saved in float32.
        notice: called with a sentence that the user may want to read; None: it is logged ("led_ref").
        on_log: called with each line of the log (training/log.py).
        settings: learning_rate, num_train_epochs, text_field, ...: training/settings.py lists and explains them.

    Raises:
        SettingsError: for a setting that does not exist, cannot be, or contradicts another.
        InputError: for training data with problems: each with its file and line; and for a training that takes more memory
            than the machine has. One that takes more than is free now is a notice.
        LEDError: as `load`.
    """
    run = RunArguments.of(recipe, **settings)
    RunFolder(out, resume=resume)  # a folder that cannot be should not cost the reading of all documents
    files = [data] if isinstance(data, str | Path) else list(data)
    loaded, tokenizer = load_start(
        model,
        files,
        run.data,
        revision=revision,
        backend=backend,
        processes=run.training.processes,
        dtype=dtype,
        seed=run.training.seed,
        notice=notice,
    )
    dataset = read_dataset(files, run.data, tokenizer, loaded)
    held_out = None
    if validate is not None:
        others = [validate] if isinstance(validate, str | Path) else list(validate)
        held_out = read_dataset(others, replace(run.data, max_train_samples=None), tokenizer, loaded)
    say = notice or inform
    for sentence in (*dataset.notices, *(held_out.notices if held_out is not None else ())):
        say(sentence)
    if loaded.backend.name == "numpy":
        check_room(loaded.config, run.training, load_of(dataset, dtype), say)
    return run_training(
        loaded,
        tokenizer,
        dataset,
        out,
        run,
        held_out=held_out,
        resume=resume,
        start=str(model),
        dtype=dtype,
        on_log=on_log or (lambda line: None),
        notice=say,
    )
