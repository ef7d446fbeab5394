"""The result of mutation testing as a page: docs/mutation_testing.md, and as data: docs/data/kill_matrix.json."""

import datetime
import json
import os
import platform
import subprocess
from typing import Any

from mutants import ROOT, Mutant, all_mutants

PAGE = ROOT / "docs" / "mutation_testing.md"
DATA = ROOT / "docs" / "data" / "kill_matrix.json"
NOT_ASKED = "none"
BEGIN, END = "<!-- written by tests/mutants/run.py --markdown -->", "<!-- end of what is written -->"


def write_documents(results: dict[str, Any], judges: list[str]) -> None:
    """Put the matrix into the page, between the two marks, and into the data file."""
    rows = [
        {
            "name": m.name,
            "area": m.area,
            "file": m.file,
            "what": m.what,
            "accepted": m.accepted,
            **_verdicts(m, results.get(m.name, {}), judges),
        }
        for m in all_mutants()
    ]
    made = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "commit": _commit(),
        "mutants": len(rows),
        "killed": {judge: sum(row[judge]["verdict"] == "killed" for row in rows) for judge in judges},
        "let pass by the vectors": sum(_is_let_pass(row, "vectors") for row in rows) if "vectors" in judges else 0,
    }
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text(json.dumps({**made, "matrix": rows}, indent=1) + "\n", "utf-8")
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{_page(made, rows, judges)}{END}{rest.split(END)[1]}", "utf-8")
    print(f"{PAGE.relative_to(ROOT)} and {DATA.relative_to(ROOT)}: {made['killed']} of {len(rows)}.")


def _commit() -> str:
    """The state of the source, shortened."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _verdicts(mutant: Mutant, result: dict[str, Any], judges: list[str]) -> dict[str, Any]:
    """What each judge said; "not run" where it was not asked, "none" where it has nothing to say."""
    missing = {judge: "not run" if judge in mutant.judges else NOT_ASKED for judge in judges}
    found = {judge: result.get(judge, {"verdict": missing[judge], "by": ""}) for judge in judges}
    return {judge: {"verdict": said["verdict"], "by": said["by"]} for judge, said in found.items()}


def _is_let_pass(row: dict[str, Any], judge: str) -> bool:
    """Whether the vectors rightly do not mind."""
    return judge == "vectors" and bool(row["accepted"]) and row[judge]["verdict"] == "survived"


def _page(made: dict[str, Any], rows: list[dict[str, Any]], judges: list[str]) -> str:
    """The tables, one for each area."""
    killed = " and ".join(f"{count} by the {judge}" for judge, count in made["killed"].items())
    lines = [
        f"\n{made['mutants']} mutants: {killed}, each by a wrong value. {made['let pass by the vectors']} survive the "
        f"vectors, and the table says why. Written on {made['date']} at {made['commit']} ({made['machine']}); a mutant"
        " was run again only where it, its file or a file that judges it had changed since its last run.",
    ]
    for area in dict.fromkeys(row["area"] for row in rows):
        lines += [f"\n### In the {area}\n", "| mutant | what is wrong | " + " | ".join(judges) + " |"]
        lines.append("|---|---|" + "---|" * len(judges))
        for row in rows:
            if row["area"] == area:
                said = " | ".join(_cell(row, judge) for judge in judges)
                lines.append(f"| `{row['name']}` | {_escaped(row['what'])} | {said} |")
    return "\n".join(lines) + "\n\n"


def _cell(row: dict[str, Any], judge: str) -> str:
    """What killed the mutant; for one that may survive, why."""
    said = row[judge]
    if _is_let_pass(row, judge):
        return f"survives: {_escaped(row['accepted'])}"
    if said["verdict"] == NOT_ASKED:
        return "no gradients there"
    if said["verdict"] != "killed":
        return f"**{said['verdict']}**"
    return f"`{said['by'].rsplit('::', 1)[-1].split('[')[0].removeprefix('test_')}`"


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")
