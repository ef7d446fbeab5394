"""Take each barrier and each check out of kernels.cu, one at a time, and see which drawn case of kernel_cases.py turns red.

    python tests/kernels/kernel_mutants.py             all of them; writes docs/kernel_mutants.md and its data
    python tests/kernels/kernel_mutants.py 12 40       those two, as --list numbers them; writes nothing
    python tests/kernels/kernel_mutants.py --list      what would be done

What is taken out is found in the source, so that nothing is forgotten: every __syncthreads and __syncwarp; every condition
of an `if` and every side of an `&&` or `||` in it; every condition of `a ? b : c`, made true and made false; every `<`,
`<=`, `>`, `>=`, moved by one. Some of these change nothing that anybody could see: EQUIVALENT says which and why, and
whatever else nobody sees is an error. A barrier may not stand there.
"""

import argparse
import html
import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cuda_on_cpu import KERNELS_CU, Kernels, kernel_names
from kernel_cases import DRAW, cases, judge

ROOT = Path(__file__).resolve().parents[2]
TABLE, DATA = ROOT / "docs" / "kernel_mutants.md", ROOT / "docs" / "data" / "kernel_mutants.json"
SHAPES = 50
OF_16_BITS = {"window_attend"}
PATIENCE = 60  # seconds of a processor

# (kernel, how the line begins, what is put there): why nobody can see it.
SAME = "all lanes hold the same value and would write it to the same place; the check saves writes"
AT_A_TIME = "how many keys are taken at a time changes no result"
TURNED_AWAY = "the next line turns away what the loop would do too much"
EQUIVALENT = {
    ("", "if (b.highest > a.highest)", ">="): "with equal maxima both ways give the same",
    ("band_softmax", "if (threadIdx.x % WARP == 0)", "true"): SAME,
    ("layer_norm", "for (int i = 0; i < PER_LANE; ++i)", "<="): TURNED_AWAY,
    ("attend_chunk", "for (int base = 0; base < CHUNK;", "<="): TURNED_AWAY,
    ("attend_chunk", "if (key < count && i % LANES == thread % LANES)", "true"): SAME,
    ("attend_chunk", "if (lane == 0)", "true"): SAME,
    ("linear_few", "for (int i = 0; i < N; ++i)", "<="): TURNED_AWAY,
    ("linear_few", "for (int row = 0; row < N; ++row)", "<="): TURNED_AWAY,
    ("linear_few", "if (lane == 0)", "true"): SAME,
    ("window_attend", "constexpr int KEYS", "false"): AT_A_TIME,
    ("window_attend", "constexpr int KEYS", "true"): AT_A_TIME,
    ("window_attend", "for (int from = part == 0", "true"): "keys out of reach are hidden, and only take time",
    ("window_attend", "for (int from = part == 0", "<="): "one turn more, in which no key is left: all are hidden",
}


@dataclass(frozen=True)
class Mutant:
    """`old` at `start` in the source becomes `new`. kernel: "" for what several of them use."""

    kind: str  # "barrier", "check", "bound"
    kernel: str
    start: int
    old: str
    new: str
    line: str  # as it stands in the source

    def apply(self, source: str) -> str:
        assert source[self.start :].startswith(self.old)
        return source[: self.start] + self.new + source[self.start + len(self.old) :]

    def key(self) -> tuple[str, str, str, str]:
        """What names it from one edition of the file to the next."""
        return self.kernel, self.line, self.old, self.new


# ---- finding them ----------------------------------------------------------------------------------------------------


def code_of(source: str) -> str:
    """The source with comments and preprocessor lines blanked out; every character keeps its place."""
    blank = re.compile(r"//[^\n]*|/\*.*?\*/|^[ \t]*#[^\n]*", re.DOTALL | re.MULTILINE)
    return blank.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)


def all_mutants(source: str) -> list[Mutant]:
    """Everything that can be taken out of a function's body, in the order of the file."""
    code = code_of(source)
    edits = [*_barriers(code), *_conditions(code), *_choices(code), *_bounds(code)]
    heading = r"^__(global|device)__[^{;]*?(\w+)\((?:[^{;()]|\([^()]*\))*\) \{.*?^\}"
    bodies = [(found.span(), found) for found in re.finditer(heading, code, re.DOTALL | re.MULTILINE)]
    kernels = {found[2]: found[0] for _, found in bodies if found[1] == "global"}
    mutants = []
    for start, kind, old, new in sorted(set(edits)):
        for (_, end), found in bodies:
            if found.end(2) < start < end:
                before, line = source[:start].splitlines(), source[start:].split("\n", 1)[0]
                text = before.pop() + line
                if kind == "barrier":  # distinguished by the text before it
                    text = f"{before[-1].strip()} {text.strip()}"
                users = [name for name, body in kernels.items() if re.search(rf"\b{found[2]}\b", body)]
                kernel = users[0] if len(users) == 1 else ""
                mutants.append(Mutant(kind, kernel, start, old, new, text.split("  //")[0].strip()))
    return mutants


Edit = tuple[int, str, str, str]


def _barriers(code: str) -> Iterator[Edit]:
    for found in re.finditer(r"__sync(?:threads|warp)\([^)]*\);", code):
        yield found.start(), "barrier", found[0], ";"


def _closing(code: str, opening: int) -> int:
    """Where the bracket closes that opens there."""
    depth = 0
    for place in range(opening, len(code)):
        depth += (code[place] in "([") - (code[place] in ")]")
        if depth == 0:
            return place
    raise ValueError(f"no bracket closes the one at {opening}")


def _sides(text: str, start: int) -> Iterator[tuple[int, str, str]]:
    """(place, side, operator) of each side of the && and || of a condition, in brackets, too."""
    depth, begin, operators, parts = 0, 0, [], []
    for place, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth == 0 and text[place : place + 2] in ("&&", "||"):
            operators.append(text[place : place + 2])
            parts.append((begin, text[begin:place]))
            begin = place + 2
    parts.append((begin, text[begin:]))
    for n, (at, part) in enumerate(parts):
        bare = part.strip()
        at += start + len(part) - len(part.lstrip())
        operator = operators[min(n, len(operators) - 1)] if operators else ""
        if bare.startswith("(") and _closing(bare, 0) == len(bare) - 1:
            yield from _sides(bare[1:-1], at + 1)
        else:
            yield at, bare, operator


def _conditions(code: str) -> Iterator[Edit]:
    """An `if` is passed by all; where it guards a return or continue, by none. One side of && is true, one of || false."""
    for found in re.finditer(r"\bif \(", code):
        close = _closing(code, found.end() - 1)
        leaves = re.match(r"\s*(return|continue);", code[close + 1 :])
        for at, side, operator in _sides(code[found.end() : close], found.end()):
            yield at, "check", side, "false" if operator == "||" or (leaves and not operator) else "true"
    for found in re.finditer(r"\breturn ([^;{?]*(?:&&|\|\|)[^;{?]*);", code):
        for at, side, operator in _sides(found[1], found.start(1)):
            yield at, "check", side, "false" if operator == "||" else "true"


def _choices(code: str) -> Iterator[Edit]:
    """The condition before a ` ? `: back to the bracket that holds it, or to a `=`, a comma or `return`."""
    begins = re.compile(r"[(,;{]|(?<![=!<>])=(?!=)|(?<=\breturn) ")
    for found in re.finditer(r" \? ", code):
        at, depth = found.start(), 0
        while depth > 0 or not begins.match(code, at - 1):
            at -= 1
            depth += (code[at] == ")") - (code[at] == "(")
        condition = code[at : found.start()].strip()
        at = code.index(condition, at)
        yield at, "check", condition, "true"
        yield at, "check", condition, "false"


def _bounds(code: str) -> Iterator[Edit]:
    moved = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
    for found in re.finditer(r"(?<= )(<=|>=|<|>)(?= )", code):
        yield found.start(), "bound", found[0], moved[found[0]]


# ---- running them ----------------------------------------------------------------------------------------------------


def areas(kernel: str) -> list[str]:
    """The drawn cases that run a kernel, or all."""
    return [name for name in DRAW if not kernel or kernel.startswith(name)]


def seen_by(source: str, kernel: str) -> str:
    """The first drawn case that turns red, and why; "" if none does.

    float only, since no other type makes a check superfluous; but window_attend has functions for 16 bits alone.
    """
    drawn = [
        (area, kind) for area in areas(kernel) for kind in ("float", "__half") if kind == "float" or area in OF_16_BITS
    ]
    kernels = Kernels(source, [
        name for name in kernel_names(source) if any(re.match(rf"{area}\w*<{kind}\b", name) for area, kind in drawn)
    ])  # fmt: skip
    for area, kind in drawn:
        for seed, case in enumerate(cases(area, kind, SHAPES)):
            try:
                judge(kernels, case, seed)
            except AssertionError as error:
                said = re.sub(r" at 0x[0-9a-f]+", "", str(error).splitlines()[0])  # addresses differ from run to run
                return f"{area} {seed}: {said}"
    return ""


def try_one(number: int) -> str:
    """In a process of its own, which may compute for so long: a mutant may never end."""
    done = subprocess.run(
        [sys.executable, __file__, "--judge", str(number)], capture_output=True, text=True, check=False
    )
    if done.returncode == -signal.SIGXCPU:
        return f"no end after {PATIENCE} s of computing"
    if done.returncode:
        raise RuntimeError(f"mutant {number} could not be judged:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def why_equivalent(mutant: Mutant) -> str:
    """The reason of EQUIVALENT, or ""."""
    for (kernel, line, new), why in EQUIVALENT.items():
        if kernel == mutant.kernel and mutant.line.startswith(line) and new == mutant.new and "count" not in mutant.old:
            return why
    return ""


def write_table(rows: list[dict[str, Any]]) -> None:
    DATA.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    seen = [row for row in rows if row["seen"]]
    text = (
        "# Mutation testing of the kernels\n\n"
        "Written by `python tests/kernels/kernel_mutants.py`. Each barrier and each check of "
        "`backends/led_backends/kernels.cu` was taken out by itself, and each comparison moved by one; the kernel then "
        f"ran on the CPU on up to {SHAPES} drawn cases in three schedules (`tests/kernels`). {len(seen)} of {len(rows)} "
        "mutants were killed; for each survivor the table says why it changes no result. The number after a kernel's name "
        "is the number of the case.\n\n| kernel | line | instead | killed by |\n|---|---|---|---|\n"
    )
    for row in rows:
        # As HTML: a bar in a code span of a table is shown by some readers of Markdown with its backslash.
        line, old, new = (
            f"<code>{html.escape(str(row[name])).replace('|', '&#124;')}</code>" for name in ("line", "old", "new")
        )
        instead = "no barrier" if row["kind"] == "barrier" else f"{old} → {new}"
        said = row["seen"] or f"*survives: {row['why']}*"
        text += f"| {row['kernel'] or 'all'} | {line} | {instead} | {said.replace('|', chr(92) + '|')} |\n"
    TABLE.write_text(text, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("numbers", nargs="*", type=int)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--judge", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    source = KERNELS_CU.read_text("utf-8")
    mutants = all_mutants(source)
    if given.judge is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE + 5))
        print(seen_by(mutants[given.judge].apply(source), mutants[given.judge].kernel))
        return 0
    rows, bad = [], 0
    for number in given.numbers or range(len(mutants)):
        mutant = mutants[number]
        head = f"{number:3} {mutant.kind:8} {mutant.kernel:15} {mutant.old} -> {mutant.new}   in: {mutant.line}"
        if given.list:
            print(head)
            continue
        seen, why = try_one(number), why_equivalent(mutant)
        good = bool(seen) if mutant.kind == "barrier" else bool(seen) != bool(why)
        bad += not good
        rows.append({**asdict(mutant), "seen": seen, "why": why})
        del rows[-1]["start"]
        print(f"{'' if good else '!!! '}{head}\n      {seen or why or 'NOBODY SEES IT'}", flush=True)
    if not given.list and not given.numbers:
        write_table(rows)
        print(f"{len(rows)} mutants, {sum(bool(row['seen']) for row in rows)} seen, {bad} to be looked at")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
