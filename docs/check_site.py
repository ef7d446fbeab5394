"""Hold the built site to its promise that a reader's browser asks no other host for anything. Part of `make docs`.

    python docs/check_site.py

Every page, style sheet and script under site/ is read. What a browser loads by itself must lie on the site: pictures, styles,
scripts, fonts, frames. Links that a reader may click are no part of it.
"""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

SITE = Path(__file__).parent.parent / "site"
# What is loaded without being asked for: element -> attributes. `link` by its rel, below.
LOADED = {
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"), "video": ("src", "poster"),
    "audio": ("src",), "embed": ("src",), "object": ("data",), "use": ("href",), "image": ("href",), "form": ("action",),
}  # fmt: skip
LOADING_RELATIONS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
    "manifest",
}
ELSEWHERE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//[^)'\";\s]*", re.IGNORECASE)
# Material's scripts know addresses of services (stars of a repository, diagrams). They ask for them only on pages that have
# such a thing: a link to the source's repository, a diagram. Neither is on this site.
DORMANT = ('class="mermaid"', 'data-md-component="source"')


class Loads(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note the addresses of one element."""
        given = {name: value or "" for name, value in attributes}
        names = LOADED.get(tag, ())
        if tag == "link" and LOADING_RELATIONS & set(given.get("rel", "").split()):
            names = ("href",)
        self.found += [f"<{tag} {name}={given[name]}>" for name in names if ELSEWHERE.match(given.get(name, ""))]
        self.found += IN_STYLES.findall(given.get("style", ""))


def main() -> int:
    """Check every file. Returns the exit code."""
    pages, faults = sorted(SITE.rglob("*.html")), []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = Loads()
        loads.feed(text)
        styles = IN_STYLES.findall(" ".join(re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)))
        dormant = [f"{mark}: Material's script would then ask another host" for mark in DORMANT if mark in text]
        faults += [f"{page.relative_to(SITE)}: {what}" for what in loads.found + styles + dormant]
    for sheet in sorted(SITE.rglob("*.css")):
        faults += [
            f"{sheet.relative_to(SITE)}: {what}" for what in IN_STYLES.findall(sheet.read_text(encoding="utf-8"))
        ]
    faults += unsearchable(json.loads((SITE / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"])
    if not pages:
        faults.append("site/ has no pages. Build it first: make docs")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(
        f"{len(pages)} pages: " + ("a browser would ask other hosts" if faults else "nothing is asked of another host")
    )
    return 1 if faults else 0


def unsearchable(entries: list[dict[str, str]]) -> list[str]:
    """Chapters and notebooks of which the search shows the line about downloads in place of their first words."""
    first = {
        entry["location"]: entry["text"]
        for entry in entries
        if re.fullmatch(r"(book|notebooks)/\w+/", entry["location"])
    }
    return [f"{page}: the search shows {text[:60]!r}" for page, text in first.items() if "Download" in text or not text]


if __name__ == "__main__":
    sys.exit(main())
