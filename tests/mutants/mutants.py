"""The planted bugs: each is one mistake that somebody could make (most of them somebody did) in one place of the source.

A mutant is a name, a file, an exact text in it that occurs once, what stands there instead, and what the mistake is. It
leaves a program that runs: what it computes is wrong. The lists are in planted_in_model.py, planted_in_search.py,
planted_in_tokenizer.py and planted_in_training.py; run.py plants them, test_mutants.py holds the lists to today's source.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AREAS = ("model", "search", "tokenizer", "training")


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    name: str
    file: str  # below the repository's root
    source: str  # occurs exactly once in the file
    planted: str  # what stands there instead
    what: str  # one sentence
    area: str
    accepted: str = ""  # why the vectors let it pass: LED leaves open what it changes, or does not have it

    @property
    def judges(self) -> tuple[str, ...]:
        """Who is asked: the vectors hold no gradients, and say nothing of a training."""
        return ("properties",) if self.area == "training" else ("properties", "vectors")

    def apply(self, text: str) -> str:
        """The file's text with the bug in it.

        Raises:
            ValueError: if the source text does not occur exactly once.
        """
        found = text.count(self.source)
        if found != 1:
            raise ValueError(
                f"{self.name}: the text {self.source!r} occurs {found} times in {self.file}. "
                f"Bring tests/mutants/planted_in_{self.area}.py up to date with the source."
            )
        return text.replace(self.source, self.planted)


def all_mutants() -> list[Mutant]:
    """Every planted bug, in the order of the lists."""
    mutants: list[Mutant] = []
    for area in AREAS:
        mutants += [Mutant(*row[:5], area, *row[5:]) for row in importlib.import_module(f"planted_in_{area}").PLANTED]
    return mutants
