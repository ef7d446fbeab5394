"""ROUGE of LED as papers and model cards give it, in percent, with what they say of how it was measured.

Two rows can be compared where data, split, lengths, stemmer and the sentences of ROUGE-Lsum are the same; most cards do not say
them. Papers on arXiv and PubMed print the summary-level measure (rougeLsum of rouge-score) under the name ROUGE-L.
"""

from dataclasses import asdict, dataclass
from typing import Any

from led_ref.errors import SettingsError


@dataclass(frozen=True)
class Published:
    """A row of a table; None: not given."""

    model: str
    rouge1: float | None
    rouge2: float | None
    rougeL: float | None
    rougeLsum: float | None
    settings: str
    source: str


_NOT_STATED = "lengths, search and stemmer are not stated"
PUBLISHED = {
    "arxiv": (
        Published(
            "LED-large", 46.63, 19.62, None, 41.83, "reads 16,384 tokens; printed as ROUGE-L, which is Lsum there",
            "Beltagy et al. 2020, arXiv 2004.05150, table 11",
        ),
        Published("LED-large, by another trainer", 37.95, 11.31, 20.56, 33.83, _NOT_STATED, "model card of Artifact-AI"),
        Published("LED-base, by another trainer", 37.33, 10.90, 20.39, 33.30, _NOT_STATED, "model card of Artifact-AI"),
    ),
    "pubmed": (
        Published("LED-large", None, 19.33, None, None, _NOT_STATED, "model card of patrickvonplaten"),
    ),
    "govreport": (
        Published("LED-base", 56.2, 26.6, 28.8, None, _NOT_STATED, "SCROLLS, Shaham et al. 2022, arXiv 2201.03533"),
    ),
    "billsum": (
        Published("LED-large", 47.84, 26.34, 34.23, 41.69, _NOT_STATED, "model card of Artifact-AI"),
    ),
}  # fmt: skip


def published(name: str) -> list[dict[str, Any]]:
    """The rows for a data set, as JSON has them.

    Raises:
        SettingsError: for another data set.
    """
    if name not in PUBLISHED:
        raise SettingsError(f"There are no published rows for {name!r:.60}; there are some for {', '.join(PUBLISHED)}.")
    return [asdict(row) for row in PUBLISHED[name]]
