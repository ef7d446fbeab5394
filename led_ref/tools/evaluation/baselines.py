"""What a model is compared with: the beginning of each document, or a field of its line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from led_ref.errors import SettingsError, wrong_type
from led_ref.tools.evaluation.cases import Case


@dataclass(frozen=True)
class Baseline:
    """A baseline: "lead", "lead 66" or "copy title".

    Args:
        kind: lead or copy.
        field: of copy: the field that is copied.
        words: of lead: how many; None: as many as a reference has in the mean.
    """

    kind: str
    field: str = ""
    words: int | None = None

    @classmethod
    def of(cls, name: str) -> Self:
        """The baseline of a name.

        Raises:
            SettingsError: for another name.
        """
        if not isinstance(name, str):
            raise wrong_type("baselines", name, 'texts such as "lead", "lead 66" or "copy FIELD"')
        kind, _, rest = name.strip().partition(" ")
        rest = rest.strip()
        if kind == "copy" and rest:
            return cls("copy", field=rest)
        if kind == "lead" and (not rest or (rest.isdecimal() and len(rest) < 9 and int(rest) > 0)):
            return cls("lead", words=int(rest) if rest else None)
        raise SettingsError(
            f"The baseline {name!r:.80} does not exist. Give 'lead', 'lead 66' (the first 66 words) or 'copy title' (a field)."
        )

    def texts(self, cases: Sequence[Case]) -> tuple[str, list[str]]:
        """Its name in the report, and its text for each document."""
        if self.kind == "copy":
            return f"copy {self.field}", [case.copies[self.field] for case in cases]
        words = self.words or max(1, round(mean_words([text for case in cases for text in case.right])))
        return f"lead {words}", [first_words(case.text, words) for case in cases]


def first_words(text: str, count: int) -> str:
    r"""The text up to the end of its word number `count`, with its line ends.

    Example:
        >>> first_words("one two\nthree four", 3)
        'one two\nthree'
    """
    end = 0
    for number, match in enumerate(re.finditer(r"\S+", text), 1):
        end = match.end()
        if number == count:
            break
    return text[:end].strip()


def mean_words(texts: Sequence[str]) -> float:
    """How many words a text has in the mean."""
    return sum(len(text.split()) for text in texts) / len(texts)
