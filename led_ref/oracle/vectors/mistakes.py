"""Which mistake gives just these failures: what failed, compared with what fails when led_ref has a known mistake.

Mutation testing (docs/mutation_testing.md) puts one mistake at a time into led_ref. `mistakes.json` has a row for each
mistake that the vectors notice: one letter for each case, for the coarsest dtype in whose tolerance the answer is wrong.

    >>> failed = {"L1-gelu-grid": True, "L1-gelu-far": False, "L1-gelu-new": False, "L3-encoder-layer": True}
    >>> [mistake.name for mistake in likely_mistakes(failed, "float64").found]
    ['tanh-gelu', 'relu-for-gelu']

Two mistakes at once make other cases fail than either of them; then the table knows none, or one that is near.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from led_ref.oracle.vectors.format import DTYPES

TABLE = Path(__file__).parent / "mistakes.json"
RIGHT = "."
LETTERS: Mapping[str, str] = dict(zip("dshb", DTYPES, strict=True))  # finest first
# A mistake is near if this share of the cases that fail here or with it fail in both.
NEAR = 0.7
# So many are named.
MOST = 6


@dataclass(frozen=True)
class Mistake:
    """A known mistake: its name in tests/mutants, what is wrong, and how many of the cases asked fail with it."""

    name: str
    what: str
    cases: int


@dataclass(frozen=True)
class Likely:
    """The mistakes that explain what failed.

    Args:
        exact: whether with each of them just the cases fail that failed here.
        found: best first; empty if nothing failed, or no mistake is near.
    """

    exact: bool
    found: tuple[Mistake, ...]

    def lines(self) -> Iterator[str]:
        """What to print below the verdicts."""
        if not self.found:
            return
        same = "just these cases fail with" if self.exact else "nearly these cases fail with"
        yield f"likely mistake: {same} {'one of these' if len(self.found) > 1 else 'this one'} in led_ref:"
        for mistake in self.found[:MOST]:
            count = "" if self.exact else f", {mistake.cases} cases"
            yield f"    {mistake.what} ({mistake.name}{count})"
        if len(self.found) > MOST:
            yield f"    and {len(self.found) - MOST} more; --json lists them"


def likely_mistakes(failed: Mapping[str, bool], dtype: str) -> Likely:
    """The known mistakes with which the same cases fail; if there are none, those with which nearly the same fail.

    Args:
        failed: id -> whether the case failed, for each case that was asked and not skipped. Ids that the table does not
            have are not compared.
        dtype: what the program computed in: small mistakes are within the tolerances of coarse types.
    """
    table = json.loads(TABLE.read_text("utf-8"))
    wrong = "".join(LETTERS)[DTYPES.index(dtype) :]
    asked = [(place, failed[case]) for place, case in enumerate(table["cases"]) if case in failed]
    here = {place for place, is_failed in asked if is_failed}
    shares: list[tuple[float, Mistake]] = []
    for mistake in table["mistakes"] if here else ():
        there = {place for place, _ in asked if mistake["row"][place] in wrong}
        share = len(here & there) / len(here | there)
        if share >= NEAR:
            shares.append((share, Mistake(mistake["name"], mistake["what"], len(there))))
    exact = tuple(mistake for share, mistake in shares if share == 1)
    near = sorted(shares, key=lambda pair: pair[0], reverse=True)[:MOST]
    return Likely(True, exact) if exact else Likely(False, tuple(mistake for _, mistake in near))
