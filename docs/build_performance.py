"""The page of docs/data/performance.json, which `led-ref bench --json` wrote: its table, its conditions, its picture.

    led-ref bench --against transformers --json > docs/data/performance.json
    python docs/build_performance.py                     writes docs/performance.md; to be committed with the JSON
    python docs/build_performance.py --picture           draws docs/notebooks/performance.svg; part of `make docs`
    python docs/build_picture.py                         draws the README's picture of it; to be committed, too

The words are in docs/performance.md.in. tests/test_bench.py holds that the page says what the JSON says.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from led_ref.commands import bench_plot, bench_report

DOCS = Path(__file__).parent
DATA = DOCS / "data" / "performance.json"
WORDS = DOCS / "performance.md.in"
PAGE = DOCS / "performance.md"
PICTURE = DOCS / "notebooks" / "performance.svg"  # where all that `make docs` makes is


def main() -> int:
    """Write the page, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", action="store_true", help="draw the picture, not the page")
    options = parser.parse_args()
    if not DATA.is_file():
        print(
            f"There is no {DATA.name} in {DATA.parent.name}/. Make it: see the first lines of this file.",
            file=sys.stderr,
        )
        return 1
    report = json.loads(DATA.read_text(encoding="utf-8"))
    if options.picture:
        os.environ["MATPLOTLIBRC"] = str(DOCS / "matplotlibrc")
        PICTURE.parent.mkdir(exist_ok=True)
        bench_plot.save(report, PICTURE)
    else:
        PAGE.write_text(page(report, WORDS.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def page(report: dict, words: str) -> str:
    """The words with the report's table and conditions in their places."""
    parts = {
        "table": bench_report.as_markdown(report),
        "conditions": "\n".join(f"- {line}" for line in bench_report.conditions(report)),
    }
    for name, part in parts.items():
        before, mark, after = words.partition(f"{{{{ {name} }}}}")
        if not mark:
            raise SystemExit(f"{WORDS.name} has no place for the {name}. Put {{{{ {name} }}}} into it.")
        words = before + part + after
    return words


if __name__ == "__main__":
    sys.exit(main())
