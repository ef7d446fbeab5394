"""How much of each chapter's height is pictures, code, printed output and prose, as a real browser lays it out.

    make docs browser
    python tests/browser/measure_chapters.py [--chromium /usr/bin/chromium] [--site FOLDER] [--width 1280]

What is folded counts as high as it is folded. The rest, to 100%, is space between blocks.
"""

import argparse
import sys
from pathlib import Path

from check_site import PATIENCE, SITE, served
from chromium import launch

# The blocks of a page, from top to bottom: [kind, pixels].
BLOCKS = """() => [...document.querySelector('article').children].flatMap((e) =>
  e.matches('.cell, .cell-end') ? [...e.children] : [e]).map((e) => [
    e.matches('.picture, figure, iframe, img') || e.querySelector(':scope > img') ? 'pictures'
    : e.matches('.output, .cell-out') ? 'output'
    : e.matches('.highlight, details.code, .cell-bar') ? 'code' : 'prose', e.getBoundingClientRect().height])"""
KINDS = ("pictures", "code", "output", "prose")


def main() -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", help="a Chromium of yours, in place of the fetched one")
    parser.add_argument("--site", type=Path, default=SITE, help="a built site; this repository's without it")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    options = parser.parse_args()
    chapters = sorted(page.parent.name for page in options.site.glob("book/*/index.html"))
    if not chapters:
        sys.exit(f"{options.site} has no chapters. Build it first: make docs")
    from playwright.sync_api import sync_playwright

    print(f"{'chapter':34} {'pixels':>7} " + " ".join(f"{kind:>9}" for kind in KINDS))
    with served(options.site) as address, sync_playwright() as play:
        browser = launch(play, options.chromium)
        tab = browser.new_page(viewport={"width": options.width, "height": 900}, reduced_motion="reduce")
        tab.set_default_timeout(PATIENCE)
        for chapter in chapters:
            tab.goto(f"{address}book/{chapter}/", wait_until="load")
            blocks, height = tab.evaluate(BLOCKS), tab.evaluate("document.querySelector('article').offsetHeight")
            shares = {kind: sum(pixels for of, pixels in blocks if of == kind) / height for kind in KINDS}
            print(f"{chapter:34} {height:7,} " + " ".join(f"{share:9.0%}" for share in shares.values()), flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
