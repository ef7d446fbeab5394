"""Package descriptions, their synopsis and section: WORK/apt/lists -> WORK/descriptions.jsonl.gz.

    python docs/recipes/descriptions.py WORK          after fetch.py

A line: id (the package), text (the long description), summary (the synopsis), label (its Section in the archive), split. All
packages of one source are on one side; a description that two packages share is taken once.

Licence: the descriptions are part of the packages of Debian main, all free.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from splits import Record, split_of, write_lines

TEST, VALIDATION = 0.06, 0.015
LEAST_WORDS = 12
_FIELD = re.compile(r"^([\w-]+): ?(.*(?:\n[ \t].*)*)", re.MULTILINE)


def stanzas(text: str) -> Iterator[dict[str, str]]:
    r"""The paragraphs of a control file as dictionaries.

    Example:
        >>> list(stanzas("Package: a\nDescription-en: one\n two\n .\n three\n\nPackage: b\n"))
        [{'Package': 'a', 'Description-en': 'one\n two\n .\n three'}, {'Package': 'b'}]
    """
    for stanza in text.split("\n\n"):
        if found := dict(_FIELD.findall(stanza)):
            yield found


def paragraphs(long: str) -> str:
    r"""A long description as one line a paragraph; indented lines, which are lists, stay lines.

    Example:
        >>> paragraphs(" It does\n this.\n .\n And:\n  * that\n  * more")
        'It does this.\nAnd:\n* that\n* more'
    """
    lines: list[str] = []
    is_open = False
    for line in long.split("\n"):
        is_prose = line.strip() not in ("", ".") and not line.startswith("  ")
        if is_prose and is_open:
            lines[-1] += " " + line.strip()
        elif line.strip() not in ("", "."):
            lines.append(" ".join(line.split()))
        is_open = is_prose
    return "\n".join(lines)


def records(packages: Iterable[dict[str, str]], translations: Iterable[dict[str, str]]) -> Iterator[Record]:
    """The records of packages (Package, Source, Section) with their descriptions (Package, Description-en)."""
    described = {found["Package"]: found.get("Description-en", "") for found in translations}
    seen: set[str] = set()
    for found in sorted(packages, key=lambda found: found["Package"]):
        name = found["Package"]
        synopsis, _, long = described.get(name, "").partition("\n")
        text = paragraphs(long)
        if len(text.split()) < LEAST_WORDS or text in seen or not synopsis.strip():
            continue
        seen.add(text)
        source = found.get("Source", name).split()[0]
        yield {
            "id": name,
            "text": text,
            "summary": synopsis.strip(),
            "label": found.get("Section", "").rpartition("/")[2],
            "split": split_of(f"source {source}", test=TEST, validation=VALIDATION),
        }


def main(work: Path) -> None:
    """Read the lists of the private apt folder, and write the records."""

    def read(pattern: str) -> Iterator[dict[str, str]]:
        (path,) = (work / "apt" / "lists").glob(pattern)
        done = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True, check=True)
        return stanzas(done.stdout.decode("utf-8", "replace"))

    found = records(read("*_main_binary-*_Packages*"), read("*_main_i18n_Translation-en*"))
    print(f"{write_lines(work / 'descriptions.jsonl.gz', found):,} descriptions")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
