"""Internet specifications and their abstracts: WORK/unpacked -> WORK/rfcs.jsonl.gz.

    python docs/recipes/rfcs.py WORK          after fetch.py

A line: id, title, text (the body, without its abstract: led_ref/bundled/specifications.py), summary (the abstract of the JSON
file beside the text), split, family. RFCs that obsolete or update each other are a family, and a family is on one side.
A family of more than 50 is for training: one of 911 hangs together by the updates of general rules.

Licence: the RFC's own (IETF Trust, or the Internet Society before it). Whole copies are free, changed ones are not: what is
written here is for training on this machine, and is not to be handed on.
"""

import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from splits import Record, families, split_of, write_lines

from led_ref.bundled.specifications import specification_body

LARGEST_FAMILY = 50  # a larger one is for training
TEST, VALIDATION = 0.075, 0.02
WORDS_OF_ABSTRACT = range(12, 301)
LEAST_WORDS = 150  # of a body
MOST_CHARACTERS = 60_000  # of a body: more than 8,192 tokens
_LINKS = ("obsoletes", "obsoleted_by", "updates", "updated_by")
# What the RFC Editor's index and old abstracts say of the document's status: it is no part of the subject.
_DOCUMENT = r"(?:This (?:document|memo|specification|RFC)|It|This)"
_STATUS = re.compile(
    r"\s*(?-i:\[[A-Z][A-Z -]+\])\s*\Z"
    rf"|\s*{_DOCUMENT} is not an Internet Standards Track specification; it is published for "
    r"(informational purposes|examination, experimental implementation, and evaluation|the historical record)\."
    rf"|\s*{_DOCUMENT} (provides information|(defines|specifies) an Experimental Protocol|defines a Historic Document) for the "
    r"Internet community\."
    rf"|\s*{_DOCUMENT} (specifies|documents) an Internet Best Current Practices?( for the Internet Community, and requests "
    r"discussion and suggestions for improvements?)?\."
    rf"|\s*{_DOCUMENT} does not specify an(y)? Internet standard( of any kind)?\."
    r"|\s*Discussion and suggestions for improvement are requested\."
    r"|\s*Distribution of this (memo|document) is unlimited\.",
    re.IGNORECASE,
)


def abstract_of(facts: Mapping[str, Any]) -> str:
    r"""The abstract as one paragraph, without remarks on the document's status.

    Example:
        >>> abstract_of({"abstract": " This memo  describes a non- stop\nclock.  [STANDARDS-TRACK] "})
        'This memo describes a non-stop clock.'
    """
    text = " ".join((facts.get("abstract") or "").split())
    return _STATUS.sub("", re.sub(r"(?<=[a-z]-) (?=[a-z])", "", text)).strip()


def numbers(facts: Mapping[str, Any]) -> list[int]:
    """The RFCs that this one is linked with."""
    named = [name for link in _LINKS for name in facts.get(link) or ()]
    return [int(found[1]) for name in named if (found := re.fullmatch(r"RFC0*(\d+)", name))]


def records(texts: Mapping[int, str], facts: Mapping[int, Mapping[str, Any]]) -> Iterator[Record]:
    """The records of all RFCs that have a text, without a summary where there is no abstract of a usual length."""
    family = families({number: numbers(found) for number, found in facts.items()})
    sizes = Counter(family.values())
    for number in sorted(texts):
        body, abstract = specification_body(texts[number]), abstract_of(facts[number])
        if len(body.split()) < LEAST_WORDS:
            continue
        first = family[number]
        split = split_of(f"rfc{first}", test=TEST, validation=VALIDATION)
        yield {
            "id": f"rfc{number}",
            "title": " ".join(facts[number].get("title", "").split()),
            "text": body[:MOST_CHARACTERS].rpartition("\n")[0] if len(body) > MOST_CHARACTERS else body,
            "summary": abstract if len(abstract.split()) in WORDS_OF_ABSTRACT else "",
            "split": "train" if sizes[first] > LARGEST_FAMILY else split,
            "family": f"rfc{first}",
        }


def main(work: Path) -> None:
    """Read the unpacked packages, and write the records."""
    texts: dict[int, str] = {}
    facts: dict[int, Mapping[str, Any]] = {}
    for path in sorted((work / "unpacked").rglob("rfc*.json")):
        found = re.fullmatch(r"rfc(\d+)\.json", path.name)
        if not found or path.is_symlink():
            continue
        number = int(found[1])
        facts[number] = json.loads(path.read_text(encoding="utf-8"))
        packed, plain = path.with_suffix(".txt.gz"), path.with_suffix(".txt")
        if packed.exists() or plain.exists():
            raw = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
            texts[number] = raw.decode("utf-8", "replace")
    count = write_lines(work / "rfcs.jsonl.gz", records(texts, facts))
    print(f"{count:,} RFCs of {len(facts):,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
