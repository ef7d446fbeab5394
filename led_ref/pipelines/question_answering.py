"""`QuestionAnswerer`: a question and a text in, the spans of the text that answer it out.

    answers = led_ref.answer("Who wrote it?", text, "./my-qa-led", top_k=3)
    answers[0].answer, text[answers[0].start : answers[0].end]          the same characters

The model reads `<s> question </s></s> context </s>`. `<s>` and all tokens of the question have global attention, and no other
token: not the `</s>` after the question, as in allenai/longformer's program for TriviaQA and in transformers'
LongformerForQuestionAnswering. So every token of the context attends to the question, at any distance, and the question
attends to the whole context.

The best span is searched in the scores of starts and ends: a span (i, j) is worth start_i + end_j. T x T spans exist, but an
answer is short: with at most L tokens, L diagonals of that table remain, j = i, j = i + 1, ..., and each is one sum of two
arrays. So the search takes T x L additions and the memory of one diagonal, for any T.

    start        0   5   1   0                   the best with L = 2:  (1, 2)  5 + 3
    end          2   0   3   4                   with L = 3:           (1, 3)  5 + 4

Without a name the bundled answerer is loaded (bundled/answerer/MODEL_CARD.md); others are those of LEDForQuestionAnswering.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes.heads import LEDForQuestionAnswering
from led_ref.classes.input_checks import check_types
from led_ref.classes.led import Progress
from led_ref.errors import CheckpointError, InputError, quoted
from led_ref.generation.step import log_softmax
from led_ref.pipelines.batching import of_each
from led_ref.pipelines.loading import Document, TextPipeline, warn_of_path

Span = tuple[int, int]

# The special tokens around a pair of texts: <s> question </s></s> context </s>.
_BEFORE_QUESTION, _BEFORE_CONTEXT, _SPECIALS = 1, 3, 4

# transformers' own, for a model that has none.
_DEFAULTS: dict[str, Any] = {"max_answer_len": 15, "handle_impossible_answer": False}


@dataclass(frozen=True)
class Answer:
    """A span of the context; the fields are those of transformers' question-answering pipeline.

    Args:
        answer: its characters, `context[start:end]`; "" for "there is no answer".
        score: the probability of its start times that of its end, both among the context's tokens and `<s>`. The logarithm
            of a quotient of two scores is the difference of their logits, which SQuAD 2 compares with a threshold.
        start: its first character in the context.
        end: the character after its last one.
    """

    answer: str
    score: float
    start: int
    end: int


Scored = tuple[float, Answer]  # the logarithm of the score


@dataclass(frozen=True, repr=False)
class PreparedQuestion(Document):
    """A question and its context as the model reads them."""

    first: int  # position of the context's first token
    offsets: list[tuple[int, int]]  # of the context's tokens, in characters of the context

    def piece(self, start: int, end: int) -> "PreparedQuestion":
        """The question with the context's tokens from `start` to `end` alone."""
        before, here = self.first, slice(self.first + start, self.first + end)
        ids = [*self.ids[:before], *self.ids[here], self.ids[-1]]
        return PreparedQuestion(ids, self.global_mask[: len(ids)], before, self.offsets[start:end])


@dataclass(frozen=True)
class QuestionAnswerer(TextPipeline[LEDForQuestionAnswering]):
    """A model that scores each token as the start and end of an answer, and its tokenizer; arguments as in TextPipeline."""

    model_class = LEDForQuestionAnswering
    task = "question-answering"

    @overload
    def answer(  # type: ignore[overload-overlap]  # a str is a sequence of str, and comes first
        self,
        question: str,
        context: str,
        *,
        top_k: int = 1,
        max_answer_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        truncation: bool = False,
        progress: Progress | bool | None = None,
    ) -> list[Answer]: ...
    @overload
    def answer(
        self,
        question: str,
        context: Sequence[str],
        *,
        top_k: int = 1,
        max_answer_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        truncation: bool = False,
        progress: Progress | bool | None = None,
    ) -> list[list[Answer]]: ...
    @check_types
    def answer(
        self,
        question: str,
        context: str | Sequence[str],
        *,
        top_k: int = 1,
        max_answer_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        truncation: bool = False,
        progress: Progress | bool | None = None,
    ) -> list[Answer] | list[list[Answer]]:
        """The best answers, best first: spans of the context of at most max_answer_len tokens; of several contexts a list each.

        Args:
            question: a text.
            context: the text that holds the answer, or several.
            top_k: the number of answers; fewer, if the context has fewer spans.
            max_answer_len: the most tokens of an answer; None: the model's own (`task_specific_params` in config.json), or 15.
            handle_impossible_answer: whether "there is no answer" is one of the answers, with `<s>` as its start and end;
                None: the model's own, or False.
            truncation: cut a context that is too long, keeping its beginning; False: refuse it.
            progress: called after each encoder layer; True: bars on standard error.

        Raises:
            InputError: if a text is empty, too long, or a number is no whole number of at least 1.
            CheckpointError: for a setting in config.json that cannot be.
        """
        for name, number in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if number is not None and number < 1:
                raise InputError(f"{name} is {number!r}; it must be a whole number of at least 1.")
        longest, may_be_none = self.answer_settings(max_answer_len, handle_impossible_answer)

        def prepare(text: str) -> tuple[str, PreparedQuestion]:
            return text, self.prepare(question, text, truncation=truncation)

        def find(prepared: tuple[str, PreparedQuestion], progress: Progress | None) -> list[Answer]:
            return self._answers(*prepared, progress, top_k, longest, may_be_none)

        found = of_each(context, prepare, find, progress, name="context")
        return found

    def answer_settings(self, max_answer_len: int | None, handle_impossible_answer: bool | None) -> tuple[int, bool]:
        """Both settings of `answer`, where None is the model's own.

        Raises:
            CheckpointError: if config.json has something else for them than a number of at least 1 and true or false.
        """
        own = {**_DEFAULTS, **self.model.config.settings_of_task("question-answering")}
        longest, may_be_none = own["max_answer_len"], own["handle_impossible_answer"]
        if not (type(longest) is int and longest >= 1 and isinstance(may_be_none, bool)):
            raise CheckpointError(
                f"task_specific_params of {self.name}'s config.json has max_answer_len {quoted(longest)} and "
                f"handle_impossible_answer {quoted(may_be_none)}; they are a whole number of at least 1, and true or false."
            )
        return (
            longest if max_answer_len is None else max_answer_len,
            may_be_none if handle_impossible_answer is None else handle_impossible_answer,
        )

    def _answers(
        self,
        context: str,
        prepared: PreparedQuestion,
        progress: Progress | None,
        top_k: int,
        max_answer_len: int,
        handle_impossible_answer: bool,
    ) -> list[Answer]:
        """The answers in one context."""
        scored, nothing = self.scored_spans(context, prepared, progress, top_k, max_answer_len)
        if handle_impossible_answer:
            scored = with_no_answer(scored, nothing)
        return [answer for _, answer in scored[:top_k]]

    def scored_spans(
        self, context: str, prepared: PreparedQuestion, progress: Progress | None, count: int, max_answer_len: int
    ) -> tuple[list[Scored], float]:
        """The best spans with the logarithms of their scores, best first, and that of "there is no answer"."""
        ids, mask = [prepared.ids], [[1] * len(prepared.ids)]
        read = self.model.encoder(ids, mask, [prepared.global_mask], progress=progress)
        out = self.model(ids, mask, encoder_outputs=read, use_cache=False).to_numpy()
        # <s>, where "no answer" points, and then the context; no other token can be an answer.
        positions = np.array([0, *range(prepared.first, prepared.first + len(prepared.offsets))])
        start_X, end_X = (
            log_softmax(logits_U[positions].astype(np.float64)) for logits_U in (out.start_logits[0], out.end_logits[0])
        )
        may_begin_T, may_end_T = answer_boundaries(context, prepared.offsets)
        spans = best_spans(
            start_X[1:], end_X[1:], may_begin_T=may_begin_T, may_end_T=may_end_T, longest=max_answer_len, count=count
        )
        found = []
        for (i, j), worth in spans:
            start, end = prepared.offsets[i][0], prepared.offsets[j][1]
            found.append((worth, Answer(context[start:end], math.exp(worth), start, end)))
        return found, float(start_X[0] + end_X[0])

    @check_types
    def prepare(self, question: str, context: str, *, truncation: bool = False) -> PreparedQuestion:
        """The ids, the global attention mask, and the characters of each token of the context.

        Raises:
            InputError: if a text is empty, or both together are longer than the model reads and `truncation` is False.
        """
        prepared = self.prepare_whole(question, context)
        limit, question_tokens = self.model.longest_document, prepared.first - _BEFORE_CONTEXT
        if len(prepared.ids) > limit:
            if not truncation:
                raise InputError(
                    f"Question and context have {len(prepared.ids)} tokens, but {self.name} reads at most {limit} "
                    "(encoder and decoder both read them: the smaller of their position tables). Search it in pieces by "
                    'led_ref.pipeline("question-answering") (--split), or only its beginning by truncation=True (--truncate).'
                )
            if question_tokens + _SPECIALS >= limit:
                raise InputError(
                    f"The question alone has {question_tokens} tokens, and {self.name} reads at most {limit}. "
                    "Ask a shorter one."
                )
            return prepared.piece(0, limit - prepared.first - 1)
        return prepared

    def prepare_whole(self, question: str, context: str) -> PreparedQuestion:
        """As `prepare`, however long both are."""
        for name, text in (("question", question), ("context", context)):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"The {name} is {quoted(text, 60)}; give a text that says something.")
        warn_of_path(context)
        encoding = self.tokenizer(question, context, return_offsets_mapping=True)
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        question_tokens = len(self.tokenizer(question, add_special_tokens=False)["input_ids"])
        first, global_tokens = question_tokens + _BEFORE_CONTEXT, question_tokens + _BEFORE_QUESTION
        mask = [1] * global_tokens + [0] * (len(ids) - global_tokens)
        return PreparedQuestion(ids, mask, first, offsets[first:-1])


def with_no_answer(scored: list[Scored], worth: float) -> list[Scored]:
    """Answers and "there is no answer", best first; among equals the span of text stays first."""
    return sorted([*scored, (worth, Answer("", math.exp(worth), 0, 0))], key=lambda one: -one[0])


# ---- spans ----------------------------------------------------------------------------------------------------------------


def best_spans(
    start_T: HostArray, end_T: HostArray, *, may_begin_T: HostArray, may_end_T: HostArray, longest: int, count: int
) -> list[tuple[Span, float]]:
    """The `count` best spans (i, j), i <= j < i + longest, best first, each with start_i + end_j.

    Among equal ones the one that begins first comes first, then the shorter one.

    Args:
        start_T: floats, the score of each token as a start.
        end_T: floats, the score of each token as an end; an end is a span's last token.
        may_begin_T: bool, where a span may begin.
        may_end_T: bool, where a span may end.
        longest: the most tokens of a span.
        count: the most spans to return.

    Raises:
        InputError: if a score is not finite.

    Example:
        >>> start, end = np.array([0.0, 5, 1, 0]), np.array([2.0, 0, 3, 4])
        >>> anywhere = np.ones(4, bool)
        >>> best_spans(start, end, may_begin_T=anywhere, may_end_T=anywhere, longest=2, count=2)
        [((1, 2), 8.0), ((1, 1), 5.0)]
    """
    if not (np.isfinite(start_T).all() and np.isfinite(end_T).all()):
        raise InputError(
            "The model's scores hold NaN or infinity, so no span is the best. Compute in float32 or float64."
        )
    start_T = np.where(may_begin_T, start_T, -np.inf)
    end_T = np.where(may_end_T, end_T, -np.inf)
    best: list[tuple[float, int, int]] = []  # (-score, i, j): in this order, the best first
    for more in range(min(longest, len(start_T))):
        scores = start_T[: len(start_T) - more] + end_T[more:]
        least = -best[-1][0] if len(best) == count else -np.inf
        promising = np.flatnonzero((scores >= least) & (scores > -np.inf))
        first = promising[np.argsort(-scores[promising], kind="stable")[:count]]
        best = sorted([*best, *((-float(scores[i]), int(i), int(i) + more) for i in first)])[:count]
    return [((i, j), -worth) for worth, i, j in best]


def answer_boundaries(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[HostArray, HostArray]:
    """The tokens that an answer may begin with, and those that it may end with: (T,) bool twice.

    A token of white space alone does neither. Of the tokens that share a character (é may be two bytes in two tokens) only
    the first may begin an answer and only the last may end one. So different spans are different pieces of the text.

    Args:
        text: the tokenized text.
        offsets: the characters (start, end) of each token, without the spaces around it.

    Example:
        >>> begin, end = answer_boundaries("hi é", [(0, 2), (3, 3), (3, 4), (3, 4)])  # hi, a space, two bytes of é
        >>> begin.tolist(), end.tolist()
        ([True, False, True, False], [True, False, False, True])
    """
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    has_text = np.array([bool(text[start:end].strip()) for start, end in offsets], bool)
    shares_with_next = starts[1:] < ends[:-1]
    may_begin, may_end = has_text.copy(), has_text.copy()
    may_begin[1:] &= ~shares_with_next
    may_end[:-1] &= ~shares_with_next
    return may_begin, may_end
