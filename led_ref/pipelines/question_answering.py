"""led_ref.answer: a question and a text in, the places of the text that answer it out.

    answers = led_ref.answer("Who wrote it?", text, "./my-qa-led", top_k=3)
    answers[0].answer, text[answers[0].start : answers[0].end]          the same characters

The model reads `<s> question </s></s> context </s>`. Global are `<s>` and all tokens of the question, and no others: not the
`</s>` behind it, as in allenai/longformer's program for TriviaQA and in transformers' LongformerForQuestionAnswering. So every
token of the context hears the question, wherever it stands, and the question hears of all the context.

No model that was trained to answer comes with led_ref: name one of your own, fine-tuned as LEDForQuestionAnswering.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from led_backends.contract import Backend, HostArray
from led_ref.api import load_parts
from led_ref.classes.encoder import Progress
from led_ref.classes.heads import LEDForQuestionAnswering
from led_ref.errors import InputError
from led_ref.pipelines.spans import best_spans, log_softmax, where_answers_may_lie
from led_ref.tokenizer.tokenizer import LEDTokenizer

# What a pair of texts has beside its tokens: <s> question </s></s> context </s>.
_BEFORE_QUESTION, _BEFORE_CONTEXT, _SPECIALS = 1, 3, 4


@dataclass(frozen=True)
class Answer:
    """A piece of the context; the fields are those of transformers' question-answering pipeline.

    Args:
        answer: its characters, `context[start:end]`; "" for "there is no answer".
        score: the probability of its start times that of its end, both among the context's tokens and `<s>`. The logarithm
            of a quotient of two scores is the difference of their logits, which SQuAD 2 compares with a threshold.
        start: its first character in the context.
        end: the character behind its last one.
    """

    answer: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class PreparedQuestion:
    """A question and its context as the model reads them."""

    ids: list[int]
    global_mask: list[int]
    first: int  # position of the context's first token
    offsets: list[tuple[int, int]]  # of the context's tokens, in characters of the context


@dataclass(frozen=True)
class QuestionAnswerer:
    """A model that answers questions and its tokenizer, loaded once for many questions.

    Args:
        model: what points at answers.
        tokenizer: what makes ids of text.
        name: the Hub name or folder that it came from.
    """

    model: LEDForQuestionAnswering
    tokenizer: LEDTokenizer
    name: str

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        backend: str | Backend = "auto",
        dtype: str = "float32",
        notice: Callable[[str], None] | None = None,
    ) -> "QuestionAnswerer":
        """Load a checkpoint of LEDForQuestionAnswering; the arguments are those of led_ref.load.

        Raises:
            CheckpointError: if it has no `qa_outputs`, as the bundled model has none; the message says what it is.
            LEDError: as led_ref.load.
        """
        return cls(
            *load_parts(LEDForQuestionAnswering, model, revision=revision, backend=backend, dtype=dtype, notice=notice)
        )

    def answer(
        self,
        question: str,
        context: str,
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        truncation: bool = False,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """The best answers, best first: pieces of the context of at most max_answer_len tokens.

        Args:
            question: a text.
            context: the text that holds the answer.
            top_k: how many answers; there are fewer if the context has no more pieces.
            max_answer_len: most tokens of an answer.
            handle_impossible_answer: whether "there is no answer" is one of the answers, with `<s>` as its start and end.
            truncation: cut a context that is too long, keeping its beginning; False: refuse it.
            progress: told after each encoder layer.

        Raises:
            InputError: if a text is empty, too long, or a number is no whole number of at least 1.
        """
        for name, number in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise InputError(f"{name} is {number!r}; it must be a whole number of at least 1.")
        prepared = self.prepare(question, context, truncation=truncation)
        ids, mask = [prepared.ids], [[1] * len(prepared.ids)]
        read = self.model.encoder(ids, mask, [prepared.global_mask], progress=progress)
        out = self.model(ids, mask, encoder_outputs=read, use_cache=False).to_numpy()
        return _best_answers(
            out.start_logits[0], out.end_logits[0], prepared, context, top_k, max_answer_len, handle_impossible_answer
        )

    def prepare(self, question: str, context: str, *, truncation: bool = False) -> PreparedQuestion:
        """Ids, global marks, and where the context's tokens come from.

        Raises:
            InputError: if a text is empty, or both together are longer than the model reads and `truncation` is False.
        """
        for name, text in (("question", question), ("context", context)):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"The {name} is {text!r:.40}; give a text that says something.")
        limit = self.model.longest_document
        encoding = self.tokenizer(question, context, return_offsets_mapping=True)
        asked = len(self.tokenizer(question, add_special_tokens=False)["input_ids"])
        if len(encoding["input_ids"]) > limit:
            if not truncation:
                raise InputError(
                    f"Question and context have {len(encoding['input_ids'])} tokens, but {self.name} reads at most {limit} "
                    "(encoder and decoder both read them: the smaller of their position tables). Shorten the context, or "
                    "pass truncation=True (--truncate) to search its beginning only."
                )
            if asked + _SPECIALS >= limit:
                raise InputError(
                    f"The question alone has {asked} tokens, and {self.name} reads at most {limit}. Ask a shorter one."
                )
            encoding = self.tokenizer(
                question, context, truncation="only_second", max_length=limit, return_offsets_mapping=True
            )
        ids = encoding["input_ids"]
        first = asked + _BEFORE_CONTEXT
        seen_by_all = _BEFORE_QUESTION + asked
        return PreparedQuestion(
            ids, [1] * seen_by_all + [0] * (len(ids) - seen_by_all), first, encoding["offset_mapping"][first:-1]
        )


def answer(
    question: str,
    context: str,
    model: str | Path | QuestionAnswerer | None = None,
    *,
    backend: str | Backend = "auto",
    dtype: str = "float32",
    top_k: int = 1,
    max_answer_len: int = 15,
    handle_impossible_answer: bool = False,
    truncation: bool = False,
) -> list[Answer]:
    """Find the answers to a question in a text: load a model and run it, in one call.

    Args:
        question: a text.
        context: the text that holds the answer.
        model: a folder or a name on the Hub of a fine-tuned LEDForQuestionAnswering (none is bundled), or a QuestionAnswerer.
        backend: see `led_ref.load`; a QuestionAnswerer has its own.
        dtype: see there; likewise.
        top_k: see `QuestionAnswerer.answer`.
        max_answer_len: see there.
        handle_impossible_answer: see there.
        truncation: see there.

    Returns:
        The answers, best first.

    Raises:
        CheckpointError: if the checkpoint is not one of LEDForQuestionAnswering; the message says of which class it is.
        LEDError: as `led_ref.load` and `QuestionAnswerer.answer`.
    """
    loaded = (
        model if isinstance(model, QuestionAnswerer) else QuestionAnswerer.load(model, backend=backend, dtype=dtype)
    )
    return loaded.answer(
        question,
        context,
        top_k=top_k,
        max_answer_len=max_answer_len,
        handle_impossible_answer=handle_impossible_answer,
        truncation=truncation,
    )


def _best_answers(
    start_U: HostArray,
    end_U: HostArray,
    prepared: PreparedQuestion,
    context: str,
    top_k: int,
    max_answer_len: int,
    handle_impossible_answer: bool,
) -> list[Answer]:
    """The answers that a model's logits stand for."""
    # <s>, where "no answer" points, and behind it the context; what else was read can be no answer.
    places = np.array([0, *range(prepared.first, prepared.first + len(prepared.offsets))])
    start_X, end_X = (log_softmax(logits_U[places].astype(np.float64)) for logits_U in (start_U, end_U))
    may_begin_T, may_end_T = where_answers_may_lie(context, prepared.offsets)
    spans = best_spans(
        start_X[1:], end_X[1:], may_begin_T=may_begin_T, may_end_T=may_end_T, longest=max_answer_len, count=top_k
    )
    found = []
    for (i, j), worth in spans:
        start, end = prepared.offsets[i][0], prepared.offsets[j][1]
        found.append((worth, Answer(context[start:end], math.exp(worth), start, end)))
    if handle_impossible_answer:
        worth = float(start_X[0] + end_X[0])
        found.append((worth, Answer("", math.exp(worth), 0, 0)))
        found.sort(key=lambda entry: -entry[0])  # stable: of equals the piece of text stays first
    return [answered for _, answered in found[:top_k]]
