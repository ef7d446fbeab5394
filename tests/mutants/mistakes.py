"""Which vectors fail with which planted bug: the table that `led-ref vectors check` compares failed cases with.

    python tests/mutants/mistakes.py                 plant each bug by itself, ask all vectors, write the table (minutes)
    python tests/mutants/mistakes.py --only pre-norm   these only; the other rows stay as they are

A row has one letter for each case: in which type's tolerance, the coarsest, the answer is still wrong (float64's of
led_ref are judged, so the letter says what a port of that type would see). `led_ref/oracle/vectors/mistakes.py` reads it.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import run
from mutants import ROOT, all_mutants

from led_ref.oracle.vectors.ask_led_ref import LedRef
from led_ref.oracle.vectors.format import read_suite
from led_ref.oracle.vectors.judge import FAILED, judge
from led_ref.oracle.vectors.mistakes import LETTERS, RIGHT, TABLE


def row_of_this_package(folder: str) -> dict[str, str]:
    """Case -> letter, for the led_ref that is imported."""
    suite = read_suite(folder, verify=False)
    subject = LedRef(suite, "float64")
    found = {}
    for case in suite.cases:
        answer = subject.answer(case)
        wrong = [letter for letter, dtype in LETTERS.items() if judge(case, answer, dtype).status == FAILED]
        found[case.id] = wrong[-1] if wrong else RIGHT
    return found


def row_of(mutant: run.Mutant, origin: Path) -> dict[str, str]:
    """Case -> letter, for a copy of the package with the bug in it; all of a mutant that never ends is wrong."""
    with tempfile.TemporaryDirectory(prefix="led-ref-mutant-") as name:
        folder = run.copy_of(origin, Path(name))
        path = folder / mutant.file
        path.write_text(mutant.apply(path.read_text("utf-8")), "utf-8")
        done = run.run(folder, str(Path(__file__).resolve()), "--here", str(run.VECTORS))
        if done.returncode:
            raise RuntimeError(f"{mutant.name}: {done.stderr[-500:]}")
        return json.loads((folder / "verdict.json").read_text("utf-8"))


def write(rows: dict[str, dict[str, str]]) -> None:
    """All rows, in the order of the mutants, cases in the order of the vectors."""
    cases = [case["id"] for case in json.loads((ROOT / run.VECTORS / "index.json").read_text("utf-8"))["cases"]]
    mistakes = [
        {"name": m.name, "what": m.what, "row": "".join(rows[m.name].get(case, RIGHT) for case in cases)}
        for m in all_mutants()
        if m.name in rows
    ]
    shown = [mistake for mistake in mistakes if set(mistake["row"]) != {RIGHT}]
    TABLE.write_text(json.dumps({"cases": cases, "mistakes": shown}, indent=1) + "\n", "utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {len(shown)} mistakes, {len({m['row'] for m in shown})} different rows")


def known_rows() -> dict[str, dict[str, str]]:
    """The rows of the table as it is."""
    if not TABLE.exists():
        return {}
    table = json.loads(TABLE.read_text("utf-8"))
    return {m["name"]: dict(zip(table["cases"], m["row"], strict=True)) for m in table["mistakes"]}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Which vectors fail with which planted bug.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="plant these; the other rows stay")
    parser.add_argument("--here", metavar="VECTORS", help="leave this package's own row in $VERDICT")
    options = parser.parse_args()
    if options.here:
        Path(os.environ["VERDICT"]).write_text(json.dumps(row_of_this_package(options.here)), "utf-8")
        return
    rows = known_rows()
    chosen = [mutant for mutant in all_mutants() if not options.only or mutant.name in options.only]
    with tempfile.TemporaryDirectory(prefix="led-ref-unharmed-") as name:
        origin = run.copy_of(ROOT, Path(name))
        for n, mutant in enumerate(chosen, 1):
            rows[mutant.name] = row_of(mutant, origin)
            wrong = sum(letter != RIGHT for letter in rows[mutant.name].values())
            print(f"{n}/{len(chosen)} {mutant.name}: {wrong} cases", flush=True)
            if n % 20 == 0:
                write(rows)
    write(rows)


if __name__ == "__main__":
    main()
