"""Judge the answers to conformance vectors: outputs within their tolerance, refusals of invalid inputs; and report.

    >>> case = Case("L1-x", "x", answers=({"y": np.array([1.0, 2.0])},), tolerance={"y": {"float32": 0.001}})
    >>> judge(case, Answer(outputs={"y": np.array([1.0, 2.0004], np.float32)}), "float32").status
    'passed'
    >>> print(judge(case, Answer(outputs={"y": np.array([1.0, 2.5])}), "float32").reason)
    y[1] is 2.5, not 2 (allowed difference 0.001); 1 of 2 numbers differ

The verdict is the same for answers of led_ref (ask_led_ref.py) and of a program (ask_program.py).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from led_ref.errors import InputError
from led_ref.oracle.vectors.format import DTYPES, LEVELS, Answer, Array, Case, Tensors

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Verdict:
    """The status of a case, and why it did not pass. `used` is the largest share of the tolerance that was used."""

    case: Case
    status: str
    reason: str = ""
    used: float = 0.0


def verdicts(cases: Iterable[Case], answer: Callable[[Case], Answer], dtype: str) -> Iterator[Verdict]:
    """Answer and judge the cases one by one.

    Raises:
        InputError: for a dtype without tolerances.
    """
    if dtype not in DTYPES:
        raise InputError(f"There are no tolerances for {dtype!r}. Choose among {', '.join(DTYPES)}.")
    for case in cases:
        yield judge(case, answer(case), dtype)


def judge(case: Case, answer: Answer, dtype: str) -> Verdict:
    """The verdict on one answer."""
    if case.types and dtype not in case.types:
        return Verdict(case, SKIPPED, f"stated for {' and '.join(case.types)} only")
    if answer.failed is not None:
        return Verdict(case, FAILED, answer.failed)
    if answer.unsupported is not None:
        return Verdict(case, SKIPPED, answer.unsupported)
    if answer.refused is not None:
        if case.result == "invalid" or case.may_refuse:
            return Verdict(case, PASSED)
        return Verdict(case, FAILED, f"refused, though the case is {case.result}: {answer.refused}")
    if case.result == "invalid":
        return Verdict(case, FAILED, "not refused: these inputs must be")
    if any(dtype not in allowed for allowed in case.tolerance.values()):
        return Verdict(
            case, SKIPPED, f"no tolerance is stated for {dtype}: its roundings would be as large as the answer"
        )
    outputs = answer.outputs or {}
    compared = [_compare(case, right, outputs, dtype) for right in case.answers]
    best_reason, best_used = min(compared, key=lambda pair: (pair[0] != "", pair[1]))
    return Verdict(case, FAILED if best_reason else PASSED, best_reason, best_used)


def _compare(case: Case, right: Tensors, found: Tensors, dtype: str) -> tuple[str, float]:
    """Why the outputs differ from this answer ("" if not), and the largest share of the tolerance that they use."""
    used = 0.0
    for name, expected in right.items():
        if name not in found:
            return f"the output {name!r} is missing (found: {', '.join(found) or 'none'})", math.inf
        allowed = case.tolerance.get(name, {}).get(dtype, 0.0)
        reason, share = _difference(name, expected, found[name], allowed)
        if reason:
            return reason, math.inf
        used = max(used, share)
    return "", used


def _difference(name: str, expected: Array, found: Array, allowed: float) -> tuple[str, float]:
    if found.shape != expected.shape:
        return f"{name} has shape {found.shape}, not {expected.shape}", math.inf
    if found.dtype.kind not in "fiub":
        return f"{name} holds {found.dtype} values, not numbers", math.inf
    if allowed == 0 and found.dtype.kind == "f":
        return f"{name} holds {found.dtype} values where whole numbers belong", math.inf
    if allowed == 0:
        wrong = found != expected
        difference = np.where(wrong, np.inf, 0.0)
    else:
        difference = np.abs(found.astype(np.float64) - expected)
        wrong = ~(difference <= allowed)  # so that a NaN is wrong, too
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = f"{name}[{', '.join(map(str, at))}]" if at else name
        tolerance = f" (allowed difference {allowed:.3g})" if allowed else ""
        count = f"; {int(wrong.sum())} of {wrong.size} numbers differ" if wrong.size > 1 else ""
        return f"{place} is {found[at]:.10g}, not {expected[at]:.10g}{tolerance}{count}", math.inf
    return "", float(difference.max(initial=0.0)) / allowed if allowed else 0.0


# ---- reports --------------------------------------------------------------------------------------------------------


def summary_lines(found: Sequence[Verdict]) -> Iterator[str]:
    """A line for each level, and under it one for each reason for which cases failed or were skipped."""
    for level, of_level in _by_level(found).items():
        shown = ", ".join(f"{count} {status}" for status, count in _counts(of_level).items() if count)
        flags = sorted({flag for v in of_level if v.status == FAILED for flag in v.case.flags})
        ended = f"   flags of those that failed: {', '.join(flags)}" if flags else ""
        yield f"{level}  {LEVELS[level]:<24}{shown}{ended}"
        for status, mark in ((FAILED, ""), (SKIPPED, "skipped: ")):
            ids: dict[str, list[str]] = {}
            for v in of_level:
                if v.status == status:
                    ids.setdefault(v.reason, []).append(v.case.id)
            for reason, names in ids.items():
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                yield f"    {mark}{names[0]}{more}: {reason}"


def as_json(found: Sequence[Verdict], about: Mapping[str, Any]) -> dict[str, Any]:
    """The verdicts as one JSON-ready object."""
    levels = {level: _counts(of_level) for level, of_level in _by_level(found).items()}
    cases = [
        {
            "id": v.case.id, "operation": v.case.operation, "status": v.status, "flags": list(v.case.flags),
            **({"reason": v.reason} if v.reason else {"share_of_tolerance": round(v.used, 6)}),
        }
        for v in found
    ]  # fmt: skip
    return {**about, "ok": all(v.status != FAILED for v in found), "levels": levels, "cases": cases}


def as_junit(found: Sequence[Verdict], name: str) -> bytes:
    """The verdicts as JUnit XML: a suite for each level."""
    root = ElementTree.Element("testsuites", name=name)
    for level, of_level in _by_level(found).items():
        counts = _counts(of_level)
        suite = ElementTree.SubElement(
            root, "testsuite", name=f"{level} {LEVELS[level]}", tests=str(len(of_level)),
            failures=str(counts[FAILED]), skipped=str(counts[SKIPPED]), errors="0",
        )  # fmt: skip
        for v in of_level:
            entry = ElementTree.SubElement(suite, "testcase", classname=f"{name}.{level}", name=v.case.id)
            if v.status != PASSED:
                kind = "failure" if v.status == FAILED else "skipped"
                reason = _printable(v.reason)
                ElementTree.SubElement(entry, kind, message=reason).text = f"{reason}\nflags: {', '.join(v.case.flags)}"
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _printable(text: str) -> str:
    """The text without control characters, which XML does not allow."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def _counts(found: Sequence[Verdict]) -> dict[str, int]:
    return {status: sum(v.status == status for v in found) for status in (PASSED, FAILED, SKIPPED)}


def _by_level(found: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    levels: dict[str, list[Verdict]] = {}
    for verdict in found:
        levels.setdefault(verdict.case.level, []).append(verdict)
    return levels
