"""The page of docs/data/performance.json, which `led-ref bench --json` wrote: its table, its conditions, its picture.

    led-ref bench --against transformers --json > docs/data/performance.json
    led-ref bench --against transformers --only decode-4k-1beam --runs 7 --json > again.json
    python docs/build_performance.py --again again.json  its cases take the place of those that were measured less often
    python docs/measure_batches.py                       writes docs/data/batches.json, for the page's second table
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

from led_ref.tools.bench import plot as bench_plot
from led_ref.tools.bench import report as bench_report

DOCS = Path(__file__).parent
DATA = DOCS / "data" / "performance.json"
BATCHES = DOCS / "data" / "batches.json"
WORDS = DOCS / "performance.md.in"
PAGE = DOCS / "performance.md"
PICTURE = DOCS / "notebooks" / "performance.svg"  # where all that `make docs` makes is


def main() -> int:
    """Write the page, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", action="store_true", help="draw the picture, not the page")
    parser.add_argument("--again", type=Path, help="a later report, of some of the cases in more runs")
    options = parser.parse_args()
    if not DATA.is_file():
        print(
            f"There is no {DATA.name} in {DATA.parent.name}/. Make it: see the first lines of this file.",
            file=sys.stderr,
        )
        return 1
    report = json.loads(DATA.read_text(encoding="utf-8"))
    if options.again:
        report = with_cases_of(report, json.loads(options.again.read_text(encoding="utf-8")))
        DATA.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.picture:
        os.environ["MATPLOTLIBRC"] = str(DOCS / "matplotlibrc")
        PICTURE.parent.mkdir(exist_ok=True)
        bench_plot.save(report, PICTURE)
    else:
        batches = json.loads(BATCHES.read_text(encoding="utf-8"))
        PAGE.write_text(page(report, batches, WORDS.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def page(report: dict, batches: dict, words: str) -> str:
    """The words with the reports' tables and conditions in their places."""
    parts = {
        "table": as_markdown(report),
        "conditions": "\n".join(f"- {line}" for line in bench_report.conditions(report)),
        "batches": batches_table(batches),
        "batches conditions": f"{batches['date']}, {batches['machine']['processors']} processors of "
        f"{batches['machine']['processor']}",
    }
    for name, part in parts.items():
        before, mark, after = words.partition(f"{{{{ {name} }}}}")
        if not mark:
            raise SystemExit(f"{WORDS.name} has no place for the {name}. Put {{{{ {name} }}}} into it.")
        words = before + part + after
    return words


def as_markdown(report: dict) -> str:
    """The table of a report in Markdown."""
    heads = bench_report.columns(report)
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [bench_report.row(case, is_compared=bool(report["against"])) for case in report["cases"]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_cases_of(report: dict, again: dict) -> dict:
    """The report with the cases of a later one, which is to be of more runs, on the same machine and day."""
    for name in ("date", "machine", "versions", "blas", "against"):
        if report[name] != again[name]:
            raise SystemExit(
                f"{name} is {again[name]} in the later report, {report[name]} in the first. Measure all anew."
            )
    if again["runs"] <= report["runs"]:
        raise SystemExit(f"The later report is of {again['runs']} runs, the first of {report['runs']}. Give it more.")
    later = {case["case"]: case for case in again["cases"]}
    return {**report, "cases": [later.get(case["case"], case) for case in report["cases"]]}


def batches_table(batches: dict) -> str:
    """What a step takes for each of the documents that are written together: a step's time by their number."""
    sizes = list(batches["rows"][0]["step_ms"])
    lines = [f"| tokens | beams | {' | '.join(f'{n} together' if n != '1' else 'one alone' for n in sizes)} |"]
    lines.append("|" + "---:|" * (2 + len(sizes)))
    for row in batches["rows"]:
        each = " | ".join(f"{row['step_ms'][n] / int(n):.0f} ms" for n in sizes)
        lines.append(f"| {row['tokens']:,} | {row['beams']} | {each} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
