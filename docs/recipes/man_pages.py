"""Manual pages and their one line: WORK/unpacked -> WORK/man_pages.jsonl.gz.

    python docs/recipes/man_pages.py WORK [HELDOUT.jsonl.gz]          after fetch.py

A line: id (the file's name), title (the page's first line), text (the page without its NAME section and its title), summary
("name - description"), split. A page is held out if the hash of its description says so; no description is on two sides.
HELDOUT names pages (fields name, desc, body) that must not be trained on, whatever their hash: what equals one of them in
description or in the beginning of its body is for testing.

Licence: each page's own, free ones (main) but for manpages-posix of non-free. They are for training on this machine.
"""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from splits import Record, write_lines

LEAST_BYTES = 800  # of a page's source: shorter ones say "see another page"
LEAST_CHARACTERS, MOST_CHARACTERS = 300, 60_000
_NAME_AND_DESCRIPTION = re.compile(r"^(.{1,120}?)\s+[-–—−]+\s+(.+)$")
_OVERSTRUCK = re.compile(r".\x08")


def rendered(path: Path, mandoc: Path) -> str:
    """A page as text, 400 characters wide; empty if it is a reference to another one, or mandoc fails."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(raw) < LEAST_BYTES:
        return ""
    command = [str(mandoc), "-T", "utf8", "-O", "width=400"]
    try:
        done = subprocess.run(command, input=raw, capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.decode("utf-8", "replace")


def page(text: str) -> dict[str, str] | None:
    """Title, name, description and body of a rendered page; None if it has no NAME section in the usual form."""
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in _OVERSTRUCK.sub("", text).split("\n")]
    heading = next((i for i, line in enumerate(lines) if line in ("NAME", "Name")), None)
    if heading is None:
        return None
    start = next((i for i in range(heading + 1, len(lines)) if lines[i]), len(lines))
    end = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
    found = _NAME_AND_DESCRIPTION.match(" ".join(lines[start:end]))
    if not found:
        return None
    name, description = found[1].split(",")[0].strip(), found[2].strip()
    body = "\n".join([line for line in lines[1:heading] + lines[end:] if line][:-1])  # without title and footer
    if not 8 <= len(description) <= 160 or len(name) > 48 or len(body) < LEAST_CHARACTERS:
        return None
    return {"title": lines[0], "name": name, "description": description, "body": body}


def split_of_description(description: str) -> str:
    """The split of all pages with this description: a twelfth is for testing, as for the 573 pages of led-man."""
    number = int(hashlib.sha1(description.lower().encode()).hexdigest(), 16)
    if number % 12 == 0:
        return "test"
    return "validation" if number // 12 % 50 == 0 else "train"


def beginning(body: str) -> str:
    """What two copies of a page have in common."""
    return hashlib.md5(body[:2000].encode()).hexdigest()


def records(pages: Iterable[tuple[str, dict[str, str] | None]], heldout: Iterable[Record] = ()) -> Iterator[Record]:
    """The records of pages, each once; `pages` are file names and what `page` found."""
    seen: set[object] = set()
    kept_out = {key for held in heldout for key in (held["desc"].lower(), beginning(held["body"]))}
    for path, found in pages:
        if found is None:
            continue
        description = found["description"].lower()
        keys = {(found["name"].lower(), description), beginning(found["body"])}
        if keys & seen:
            continue
        seen |= keys
        is_held_out = {description, beginning(found["body"])} & kept_out
        yield {
            "id": path,
            "title": found["title"],
            "text": found["body"][:MOST_CHARACTERS],
            "summary": f"{found['name']} - {found['description']}",
            "split": "test" if is_held_out else split_of_description(found["description"]),
        }


def main(work: Path, heldout: Path | None = None) -> None:
    """Render the unpacked pages, and write the records."""
    mandoc = next((work / "unpacked").rglob("bin/mandoc"))
    files = sorted(
        path
        for path in (work / "unpacked").rglob("*")
        if re.search(r"/usr/share/man/man\w+/[^/]+$", str(path)) and path.is_file() and not path.is_symlink()
    )
    with ThreadPoolExecutor(2) as pool:
        pages = [page(text) if text else None for text in pool.map(lambda path: rendered(path, mandoc), files)]
    held = []
    if heldout:
        with gzip.open(heldout, "rt", encoding="utf-8") as file:
            held = [json.loads(line) for line in file]
    count = write_lines(
        work / "man_pages.jsonl.gz", records(zip((path.name for path in files), pages, strict=True), held)
    )
    print(f"{count:,} manual pages of {len(files):,} files")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
