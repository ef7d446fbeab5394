"""`led_ref.pipeline`: a model by the name of its task, with the calls and results of transformers' `pipeline`.

    write = led_ref.pipeline("summarization", model="allenai/led-large-16384-arxiv", device="cpu")
    write(text, max_new_tokens=200)                 [{"summary_text": "..."}]
    write([text, text])                             [{"summary_text": "..."}, {"summary_text": "..."}]

    find = led_ref.pipeline("question-answering", model="./my-qa-led")
    find(question="Who wrote it?", context=text)    {"score": 0.9, "start": 17, "end": 21, "answer": "..."}

    judge = led_ref.pipeline("text-classification", model="./my-classifier")
    judge(text)                                     [{"label": "good", "score": 0.8}]

What config.json has for the task (`task_specific_params`) is used, below the options of the call; so is a `prefix`.
The shapes of summarization and question-answering are those of transformers 4; transformers 5 has these tasks no longer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from led_ref.config import LEDConfig
from led_ref.errors import BackendError, InputError, SettingsError, nearest, quoted, wrong_type
from led_ref.pipelines.batching import check_document_list
from led_ref.pipelines.classification import Classifier
from led_ref.pipelines.context_pieces import answer_in_pieces
from led_ref.pipelines.loading import check_types
from led_ref.pipelines.question_answering import Answer, QuestionAnswerer
from led_ref.pipelines.summarization import LED, TextOptions

Result = dict[str, str | float | int]

_SAME = {"sentiment-analysis": "text-classification"}
_TO_ANSWER = (
    "top_k", "max_answer_len", "handle_impossible_answer", "max_seq_len", "doc_stride", "max_question_len", "align_to_words",
    "truncation", "padding", "progress",
)  # fmt: skip
_TO_CLASSIFY = ("top_k", "global_attention", "truncation", "progress")
_BACKENDS = {"None": "auto", "cpu": "numpy", "-1": "numpy", "cuda": "cupy", "cuda:0": "cupy", "0": "cupy"}


@dataclass(frozen=True)
class SummarizationPipeline:
    """Texts in, summaries out.

    Args:
        model: writes.
        options: those of every call; as in LED.generate.
        prefix: stands before each text.
    """

    model: LED
    options: Mapping[str, Any]
    prefix: str = ""

    def __call__(self, documents: str | Sequence[str], **options: Any) -> list[Result] | list[list[Result]]:
        """A summary of each document.

        Args:
            documents: a text, or a list of texts.
            options: as in LED.generate.

        Returns:
            A dictionary with a `summary_text` for each document; with num_return_sequences > 1, a list of them for each of
            several documents.

        Raises:
            LEDError: as LED.generate.
        """
        lengths = {"max_new_tokens": "max_length", "min_new_tokens": "min_length"}
        replaced = {lengths[name] for name in options.keys() & lengths.keys()}
        replaced |= {name for name, length in lengths.items() if length in options}
        chosen = {**{name: value for name, value in self.options.items() if name not in replaced}, **options}
        if isinstance(documents, str):
            return _summaries(self.model.generate(self.prefix + documents, **chosen))
        texts = [
            self.prefix + text if isinstance(text, str) else text
            for text in check_document_list(documents, "documents")
        ]
        rows = [_summaries(found) for found in self.model.generate(texts, **chosen)]
        return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else rows


@dataclass(frozen=True)
class QuestionAnsweringPipeline:
    """Questions with their contexts in, answers out; `options` are those of every call, as in answer_in_pieces."""

    model: QuestionAnswerer
    options: Mapping[str, Any]

    def __call__(
        self,
        examples: Any = None,
        *more: Any,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Result | list[Result] | list[Result | list[Result]]:
        """The best answer to each question, or with top_k > 1 the best answers.

        Args:
            examples: {"question": ..., "context": ...}, or a list of such; or these as `question` and `context`.
            more: further examples; or the context, after the question.
            question: a text or a list of texts.
            context: the text with the answer, for all questions; or a list with one for each question.
            options: as in answer_in_pieces: a context longer than the model reads is searched in pieces. `padding` changes
                nothing.

        Returns:
            score, start, end and answer of one question; for several, a list of these. With top_k > 1 a list in its place.

        Raises:
            InputError: for another form of examples; else as answer_in_pieces.
        """
        if isinstance(examples, str) and len(more) == 1:
            examples = {"question": examples, "context": more[0]}
        elif more:
            examples = [examples, *more]
        chosen = _checked_options("question-answering", {**self.options, **options}, _TO_ANSWER)
        found = [
            _of_answers(answer_in_pieces(self.model, *pair, **chosen), chosen.get("top_k", 1))
            for pair in _pairs(examples, question, context)
        ]
        return found[0] if len(found) == 1 else found


@dataclass(frozen=True)
class TextClassificationPipeline:
    """Texts in, labels out; `options` are those of every call, as in Classifier.classify, and top_k."""

    model: Classifier
    options: Mapping[str, Any]

    def __call__(self, documents: str | Sequence[str], **options: Any) -> list[Result] | list[list[Result]]:
        """The best label of each document, or with top_k (None: all) the best labels.

        Args:
            documents: a text, or a list of texts.
            options: top_k, and those of Classifier.classify.

        Returns:
            A dictionary with label and score for each document. With top_k a list of such for each of several documents.

        Raises:
            LEDError: as Classifier.classify.
        """
        chosen = _checked_options("text-classification", {**self.options, **options}, _TO_CLASSIFY)
        has_top, top_k = "top_k" in chosen, chosen.pop("top_k", 1)
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise wrong_type("top_k", top_k, "a whole number of at least 1, or None for all labels")
        texts = [documents] if isinstance(documents, str) else check_document_list(documents, "documents")
        for text in texts:
            if not isinstance(text, str):
                raise wrong_type("documents", documents, "a text or a list of texts")
        rows: list[list[Result]] = [
            [{"label": label.label, "score": label.score} for label in self.model.classify(text, **chosen)[:top_k]]
            for text in texts
        ]
        if not has_top:
            return [row[0] for row in rows]
        return rows[0] if isinstance(documents, str) and "top_k" in options else rows


TaskPipeline = SummarizationPipeline | QuestionAnsweringPipeline | TextClassificationPipeline


@overload
def pipeline(
    task: Literal["summarization"], model: str | Path | LED | None = None, **options: Any
) -> SummarizationPipeline: ...
@overload
def pipeline(
    task: Literal["question-answering"], model: str | Path | QuestionAnswerer | None = None, **options: Any
) -> QuestionAnsweringPipeline: ...
@overload
def pipeline(
    task: Literal["text-classification", "sentiment-analysis"],
    model: str | Path | Classifier | None = None,
    **options: Any,
) -> TextClassificationPipeline: ...
@check_types
def pipeline(
    task: str,
    model: str | Path | LED | QuestionAnswerer | Classifier | None = None,
    *,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    device: Any = None,
    dtype: Any = None,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> TaskPipeline:
    """A model for a task, loaded once for many calls, with the results of transformers' `pipeline`.

    Args:
        task: "summarization", "question-answering" or "text-classification" (also as "sentiment-analysis").
        model: a folder, a name on the Hub, or what a `load` returned; None: the small bundled model for the task.
        tokenizer: none, or the model's own name: its tokenizer is read from its folder.
        revision: as in `load`.
        device: "cpu" or -1; "cuda" or 0; None: a GPU if CuPy finds one, else the CPU. torch's devices are taken, too.
        dtype: as in `load`; None: float32, or that of a model that is loaded already.
        notice: as in `load`.
        options: those of every call.

    Raises:
        InputError: for another task, or another tokenizer.
        BackendError: for another device, or one that cannot run here.
        SettingsError: for a device, dtype or revision that a loaded model does not have.
        LEDError: as `load`.
    """
    kinds: dict[str, Any] = {
        "summarization": LED,
        "question-answering": QuestionAnswerer,
        "text-classification": Classifier,
    }
    name = _SAME.get(task, task)
    if name not in kinds:
        raise InputError(f"There is no task {quoted(task)} here. The tasks are {', '.join(kinds)}.")
    if tokenizer is not None and str(tokenizer) != str(model):
        raise InputError(
            f"tokenizer is {quoted(tokenizer)}, but a model is used with its own tokenizer. Leave it out, or put its "
            "files into the model's folder."
        )
    names = {"question-answering": _TO_ANSWER, "text-classification": _TO_CLASSIFY}
    if name in names:
        _checked_options(name, options, names[name])
    else:
        TextOptions.separate(options)
    loaded: Any = model
    backend, number = _backend(device), "float32" if dtype is None else _name_of(dtype).removeprefix("torch.")
    if model is None or isinstance(model, str | Path):
        loading = {"revision": revision, "backend": backend, "dtype": number}
        loaded = kinds[name].load(model, notice=notice, **loading)
    if not isinstance(loaded, kinds[name]):
        raise wrong_type("model", model, f"a name, a folder or a {kinds[name].__name__} for {name}")
    if not isinstance(model, str | Path | None):
        there = {"device": loaded.model.backend.name, "dtype": str(loaded.model.dtype), "revision": None}
        asked = {"device": backend, "dtype": number, "revision": revision}
        for option, given in (("device", device), ("dtype", dtype), ("revision", revision)):
            if given is not None and asked[option] != there[option]:
                raise SettingsError(
                    f"{option} is {quoted(given)}, but the model is loaded already, with {quoted(there[option])}. Load it so, "
                    "or give its name."
                )
    if isinstance(loaded, LED):
        of_task, prefix = _settings_and_prefix(loaded.model.config, name)
        TextOptions.separate(of_task)
        return SummarizationPipeline(loaded, {**of_task, **options}, prefix)
    return (
        QuestionAnsweringPipeline(loaded, options)
        if isinstance(loaded, QuestionAnswerer)
        else TextClassificationPipeline(loaded, options)
    )


def _settings_and_prefix(config: LEDConfig, task: str) -> tuple[dict[str, Any], str]:
    """The generation settings and the prefix that config.json has for a task."""
    settings = config.settings_of_task(task)
    prefix = settings.pop("prefix", None) or config.extra.get("prefix") or ""
    if not isinstance(prefix, str):
        raise InputError(f"prefix is {quoted(prefix)} in config.json; it must be a text. Correct or remove it.")
    return settings, prefix


def _backend(device: Any) -> str:
    """The backend for a device as transformers names it."""
    if _name_of(device) not in _BACKENDS or isinstance(device, bool):
        raise BackendError(f"device is {quoted(device)}; give 'cpu' (or -1) or 'cuda' (or 0, the first GPU).")
    return _BACKENDS[_name_of(device)]


def _name_of(value: Any) -> str:
    """The name of a device or dtype, also of torch's."""
    try:
        return str(value)
    except Exception:  # a foreign __str__
        return quoted(value)


def _checked_options(task: str, options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The options; SettingsError for one that the task does not have."""
    for name in options:
        if name not in names:
            hint = nearest(name, names, cutoff=0.6)
            raise SettingsError(
                f"{task} has no option {name!r} here{f'. Is {hint!r} meant?' if hint else ''}; it has {', '.join(names)}."
            )
    return dict(options)


def _summaries(found: str | list[str]) -> list[Result]:
    return [{"summary_text": text} for text in ([found] if isinstance(found, str) else found)]


def _of_answers(answers: Sequence[Answer], top_k: int) -> Any:
    """One answer as a dictionary, or with top_k > 1 a list of them."""
    found = [{name: getattr(answer, name) for name in ("score", "start", "end", "answer")} for answer in answers]
    return found[0] if top_k == 1 and found else found


def _as_list(name: str, given: Any) -> list[Any]:
    if not isinstance(given, list | tuple):
        raise wrong_type(name, given, "a text, a list of texts, or for examples dictionaries of question and context")
    return list(given)


def _pairs(examples: Any, question: Any, context: Any) -> list[tuple[str, str]]:
    """Each question with its context."""
    if (examples is None) == (question is None and context is None):
        raise InputError("Give question and context, or examples such as {'question': ..., 'context': ...}.")
    if examples is None:
        questions = [question] if isinstance(question, str) else _as_list("question", question)
        contexts = [context] * len(questions) if isinstance(context, str) else _as_list("context", context)
        if len(questions) != len(contexts) or not questions:
            raise InputError(
                f"There are {len(questions)} questions and {len(contexts)} contexts. Give one context, or one for each."
            )
        return list(zip(questions, contexts, strict=True))
    given = [examples] if isinstance(examples, Mapping) else _as_list("examples", examples)
    for i, example in enumerate(given):
        if not isinstance(example, Mapping) or not {"question", "context"} <= example.keys():
            raise InputError(f"examples[{i}] is {quoted(example)}; give {{'question': ..., 'context': ...}}.")
    if not given:
        raise InputError("There are no examples: the list is empty. Give at least one.")
    return [(example["question"], example["context"]) for example in given]
