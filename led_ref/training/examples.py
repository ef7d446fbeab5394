"""One line of a training file as the model reads it: ids of the document, and its target.

    task                 fields of a line                       what the model reads                     target
    summarization        text, summary                          <s> text </s>                            <s> summary </s>
    classification       text, label                            <s> text </s>                            number of the label
    question-answering   question, context, answers as in       <s> question </s></s> context </s>       first and last token of
                         SQuAD; or answer, answer_start                                                  the answer; none: 0, 0

Of several answers the first is learned; all of them must stand in the context where they say.

    >>> tokens_of_span([(0, 2), (3, 6), (6, 9), (9, 10)], start=3, end=8)
    (1, 2)
"""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LEDConfig
from led_ref.errors import InputError
from led_ref.files.json_file import with_line_feeds
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.training.settings import DataArguments

_SHORT = reprlib.Repr()  # cut at every depth: a value may be nested as deep as the reader of JSON allows
_SHORT.maxstring = _SHORT.maxother = 60


@dataclass(frozen=True)
class Example:
    """One document and its target.

    Args:
        ids_T: int32 (T,), with `<s>` and `</s>`.
        target: of a summary its ids, int32 (U,); of an answer its first and last token, int32 (2,), -1, -1 if it was cut
            off; of a label its number, int64 (1,); of several labels or a regression float64 (Y,).
        place: file and line: "train.jsonl:12".
    """

    ids_T: HostArray
    target: HostArray
    place: str


@dataclass
class Reader:
    """Makes ids and target of a line's values; counts what it cuts."""

    data: DataArguments
    tokenizer: LEDTokenizer
    config: LEDConfig
    source_limit: int
    target_limit: int
    cut: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    problem_type: str | None = None

    def read(self, values: Mapping[str, Any]) -> tuple[list[int], HostArray]:
        """The ids and the target of a line. Raises InputError for what cannot be trained on."""
        raise NotImplementedError

    def text(self, values: Mapping[str, Any], name: str, option: str) -> str:
        """The text of a field, not empty; its lines end with line feeds, as those of every document that is read."""
        value = self.value(values, name, option)
        if not isinstance(value, str):
            raise InputError(
                f"{name} is {_shown(value)}, not a text. Write it in quotes, or name another field ({option})."
            )
        if not value.strip():
            raise InputError(f"{name} is empty. Remove the line, or fill it in.")
        return with_line_feeds(value)

    def value(self, values: Mapping[str, Any], name: str, option: str) -> Any:
        """The value of a field, which must be there."""
        if name not in values:
            found = ", ".join(map(repr, values)) or "nothing"
            raise InputError(f"there is no field {name!r}, only {found:.200}. Name the field with {option}.")
        return values[name]

    def fitted(self, ids: list[int], what: str, limit: int, *, truncate: bool, option: str) -> list[int]:
        """The ids, cut in front of the last `</s>` if they are too many and may be cut."""
        if len(ids) <= limit:
            return ids
        if not truncate:
            raise InputError(
                f"{what} has {len(ids):,} tokens; at most {limit:,} are read. Shorten it, or cut with {option}."
            )
        self.cut[what] = self.cut.get(what, 0) + 1
        return [*ids[: limit - 1], ids[-1]]

    def document(self, values: Mapping[str, Any]) -> list[int]:
        """The ids of the document."""
        name = self.data.text_field
        ids = self.tokenizer.encode(self.text(values, name, "text_field (--text-field)"))
        return self.fitted(
            ids, name, self.source_limit, truncate=self.data.truncate, option="truncate=True (--truncate)"
        )

    def notices(self) -> tuple[str, ...]:
        """What was cut."""
        found = [f"{name} was cut in {count:,} lines" for name, count in self.cut.items()]
        if self.left_out:
            found.append(f"{self.left_out:,} questions are left out: their answers were cut off")
        return tuple(found)


class SummaryReader(Reader):
    """Documents and summaries."""

    def read(self, values: Mapping[str, Any]) -> tuple[list[int], HostArray]:
        """The target is `<s> summary </s>`, as the tokenizer makes it."""
        name = self.data.target_field or "summary"
        target = self.tokenizer.encode(self.text(values, name, "target_field (--target-field)"))
        target = self.fitted(
            target, name, self.target_limit,
            truncate=self.data.truncate_targets, option="truncate_targets=True (--truncate-targets)",
        )  # fmt: skip
        return self.document(values), np.array(target, np.int32)


class LabelReader(Reader):
    """Documents and labels, by their names in config.json's id2label, or by their numbers."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.labels = self.config.id2label
        self.number_of = {name: number for number, name in self.labels.items()}
        self.problem_type = self.config.problem_type
        if self.problem_type is None and len(self.labels) == 1:
            self.problem_type = REGRESSION

    def read(self, values: Mapping[str, Any]) -> tuple[list[int], HostArray]:
        """The target, by the problem type; without one in config.json, the first line decides: a list is several labels."""
        name = self.data.target_field or "label"
        value = self.value(values, name, "target_field (--target-field)")
        if self.problem_type is None:
            self.problem_type = MULTI_LABEL if isinstance(value, list) else SINGLE_LABEL
        if self.problem_type == REGRESSION:
            target = np.array(self._numbers(name, value), np.float64)
        elif self.problem_type == MULTI_LABEL:
            if not isinstance(value, list):
                raise InputError(f"{name} is {_shown(value)}; the lines before have lists of labels. Give a list.")
            target = np.zeros(len(self.labels))
            target[[self.number(name, label) for label in value]] = 1
        else:
            target = np.array([self.number(name, value)], np.int64)
        ids = self.document(values)
        if sum(i in self.config.eos_token_ids for i in ids) != 1:
            raise InputError(
                f"{self.data.text_field} holds the text of a special token, </s>, by whose last one the document is "
                "classified. Take it out."
            )
        return ids, target

    def number(self, name: str, label: Any) -> int:
        """The number of a label, given by its name or number. Raises InputError for one that the model does not have."""
        if isinstance(label, str) and label in self.number_of:
            return self.number_of[label]
        number = int(label) if isinstance(label, str) and label.isdecimal() and len(label) < 9 else label
        if isinstance(number, int) and not isinstance(number, bool) and number in self.labels:
            return number
        known = ", ".join(self.labels.values())
        raise InputError(f"{name} is {_shown(label)}; the labels are {known:.200}, or 0 to {len(self.labels) - 1}.")

    def _numbers(self, name: str, value: Any) -> list[float]:
        numbers = []
        for number in value if isinstance(value, list) else [value]:
            try:
                numbers.append(math.nan if isinstance(number, bool) else float(number))
            except (TypeError, ValueError, OverflowError):
                numbers.append(math.nan)
        if len(numbers) != len(self.labels) or not all(map(math.isfinite, numbers)):
            raise InputError(f"{name} is {_shown(value)}; a regression learns {len(self.labels)} finite numbers.")
        return numbers


class AnswerReader(Reader):
    """Questions, and their answers in a context."""

    def read(self, values: Mapping[str, Any]) -> tuple[list[int], HostArray]:
        """The target is (first token, last token); (-1, -1) if the answer was cut off."""
        data = self.data
        question = self.text(values, data.question_field, "question_field (--question-field)")
        context = self.text(values, data.context_field, "context_field (--context-field)")
        answers = self._answers(values, values[data.context_field])
        alone = self.tokenizer.encode(question, add_special_tokens=False)
        if self.tokenizer.sep_token_id in alone:
            raise InputError(f"{data.question_field} holds </s>, which ends the question for the model. Take it out.")
        encoding = self.tokenizer(question, context, return_offsets_mapping=True)
        first = len(alone) + 3  # <s> question </s></s> context </s>
        if first + 2 > self.source_limit:
            raise InputError(
                f"{data.question_field} alone has {len(alone):,} tokens; question and context may have {self.source_limit:,} "
                "together. Shorten it."
            )
        ids = self.fitted(
            encoding["input_ids"], data.context_field, self.source_limit,
            truncate=data.truncate, option="truncate=True (--truncate)",
        )  # fmt: skip
        if not answers:
            return ids, np.zeros(2, np.int32)
        text, start = answers[0]
        span = tokens_of_span(encoding["offset_mapping"][first:-1], start, start + len(text))
        positions = np.array(span, np.int32) + first
        return ids, positions if positions[1] < len(ids) - 1 else np.full(2, -1, np.int32)

    def _answers(self, values: Mapping[str, Any], context: str) -> list[tuple[str, int]]:
        """The answers with their first characters, without the blanks around them; `context` is as the file has it."""
        name = self.data.answers_field
        if name in values or not {"answer", "answer_start"} & values.keys():
            answers = self.value(values, name, "answers_field (--answers-field)")
            if not isinstance(answers, dict) or not {"text", "answer_start"} <= answers.keys():
                raise InputError(
                    f'{name} is {_shown(answers)}; it must be {{"text": [...], "answer_start": [...]}}, as in SQuAD.'
                )
            texts, starts = answers["text"], answers["answer_start"]
        else:
            texts = [self.value(values, "answer", "answers_field (--answers-field)")]
            starts = [self.value(values, "answer_start", "answers_field (--answers-field)")]
            if texts == [""] or texts == [None]:
                texts, starts = [], []
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise InputError(f"{name} must have two lists of one length; found {_shown(texts)} and {_shown(starts)}.")
        answers = [_stripped(_checked_answer(text, start, context)) for text, start in zip(texts, starts, strict=True)]
        return [_with_line_feeds(answer, context) for answer in answers]


def tokens_of_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The first and the last token that have a character of [start, end).

    Args:
        offsets: characters (start, end) of each token; an empty one has no character.
        start: the first character of the span.
        end: the character behind the last one.
    """
    starts, ends = np.array(offsets, np.int64).T
    inside = np.flatnonzero((ends > start) & (starts < end) & (ends > starts))
    return int(inside[0]), int(inside[-1])


def _checked_answer(text: Any, start: Any, context: str) -> tuple[str, int]:
    """An answer that stands in the context where it says."""
    if isinstance(start, str) and start.isdecimal() and len(start) < 12:  # a value of a CSV
        start = int(start)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"an answer is {_shown(text)}; give its text. A question without an answer has empty lists.")
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise InputError(f"answer_start is {_shown(start)}; give the number of the answer's first character, from 0.")
    found = context[start : start + len(text)]
    if found != text:
        nearest = min(_occurrences(context, text), key=lambda at: abs(at - start), default=None)
        where = "it does not stand in the context at all" if nearest is None else f"it stands at {nearest}"
        raise InputError(
            f"the answer {_shown(text)} is not at character {start}, where the context has {_shown(found)}; {where}. Count "
            "characters, not bytes."
        )
    return text, start


def _occurrences(context: str, text: str) -> list[int]:
    places, at = list[int](), context.find(text)
    while at >= 0 and len(places) < 1000:
        places.append(at)
        at = context.find(text, at + 1)
    return places


def _stripped(answer: tuple[str, int]) -> tuple[str, int]:
    text, start = answer
    return text.strip(), start + len(text) - len(text.lstrip())


def _with_line_feeds(answer: tuple[str, int], context: str) -> tuple[str, int]:
    """An answer without blanks around it, where it stands once each CR LF before and in it is one character."""
    text, start = answer
    return with_line_feeds(text), len(with_line_feeds(context[:start]))


def _shown(value: Any) -> str:
    """A value in a message, cut to some 60 characters."""
    text = _SHORT.repr(value)
    return text if len(text) <= 66 else f"{text[:63]}..."
