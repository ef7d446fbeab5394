"""The figures of a bench: an object for programs, a table for people.

    {"schema": 1, "date", "machine", "steering", "versions", "blas", "model", "runs", "against",
     "full_attention": [{"tokens", "operations", "bytes"}],             counted for comparison, not run
     "cases": [{"case", "work", "how", "tokens", "beams", "new_tokens",
                "per": "run" or "step",                                  what the seconds are of
                "led_ref": {"median_s", "least_s", "most_s", "runs_s", "peak_mb", "above_mb"},
                "transformers": the same, and "threads"; or null,
                "ratio": {"time", "memory", "above"} or null,            led_ref / transformers
                "limit": {"sgemm_gflop_s", "memory_gb_s",                the machine's speeds in the same minutes
                          "operations", "bytes", "floor_s", "reached"}}]}   floor_s / median_s, or null

`peak_mb` is the most memory that the process had in use; `above_mb` is the most above what it had before the work began,
when it held interpreter, libraries and (except for load) weights; both in 10**6 bytes. Memory-mapped files count.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

SCHEMA = 1
NOTHING = "·"


def figures(seconds: Sequence[float], taken: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The figures of one side of a case, from the seconds of its runs and its memory in bytes."""
    above = taken["above"]
    return {
        "median_s": median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
        "runs_s": list(seconds),
        "peak_mb": round(taken["peak"] / 1e6, 1),
        "above_mb": None if above is None else round(above / 1e6, 1),
        **facts,
    }


def ratio(ours: dict[str, Any], theirs: dict[str, Any] | None) -> dict[str, float | None] | None:
    """led_ref's medians and memory over transformers'."""
    if theirs is None:
        return None
    quotients = {}
    for name, key in (("time", "median_s"), ("memory", "peak_mb"), ("above", "above_mb")):
        known = ours[key] is not None and theirs[key]
        quotients[name] = ours[key] / theirs[key] if known else None
    return quotients


# ---- in words -------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Seconds as people read them: three digits that mean something.

    Example:
        >>> duration(26.812), duration(1.5341), duration(0.09213), duration(0.000412)
        ('26.8 s', '1.53 s', '92.1 ms', '0.412 ms')
    """
    unit = "s"
    if seconds < 1:
        seconds, unit = seconds * 1000, "ms"
    decimals = 1 if seconds >= 10 else 2 if seconds >= 1 else 3
    return f"{seconds:,.0f} {unit}" if seconds >= 100 else f"{seconds:.{decimals}f} {unit}"


def columns(report: dict[str, Any]) -> list[str]:
    """The heads of the table."""
    ours = ["case", "median", "least to most", "of the limit", "peak MB", "above MB"]
    return ours + (
        ["transformers", "least to most", "peak MB", "time ratio", "memory ratio"] if report["against"] else []
    )


def row(case: dict[str, Any], *, is_compared: bool) -> list[str]:
    """One line of the table, cell by cell."""
    cells = [case["case"], *_figures(case["led_ref"], case["per"])]
    reached = case["limit"]["reached"]
    cells.insert(3, NOTHING if reached is None else f"{reached:.2f}")
    if not is_compared:
        return cells
    if case["transformers"] is None:
        return cells + [NOTHING] * 5
    theirs = _figures(case["transformers"], case["per"])[:3]
    quotients = [case["ratio"][name] for name in ("time", "memory")]
    return cells + theirs + [NOTHING if value is None else f"{value:.2f}" for value in quotients]


def _figures(side: dict[str, Any], per: str) -> list[str]:
    """Median, least to most, peak and above."""
    typical = duration(side["median_s"]) + (" a step" if per == "step" else "")
    spread = f"{duration(side['least_s'])} to {duration(side['most_s'])}"
    above = NOTHING if side["above_mb"] is None else f"{side['above_mb']:,.0f}"
    return [typical, spread, f"{side['peak_mb']:,.0f}", above]


def as_text(report: dict[str, Any]) -> str:
    """The table for a terminal, and under it the conditions of the measurement."""
    table = [columns(report), *(row(case, is_compared=bool(report["against"])) for case in report["cases"])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join([*lines, "", *conditions(report)])


def conditions(report: dict[str, Any]) -> list[str]:
    """The conditions of the measurement: date, machine and its speeds, libraries, and what steers them."""
    machine, blas = report["machine"], report["blas"]
    memory = f", {machine['memory_gb']:.0f} GB" if "memory_gb" in machine else ""
    lines = [
        f"{report['date']}: {machine['processor']}, {machine['processors']} processors{memory}, {machine['system']}",
        f"{report['model']}; medians of {_runs(report)}; products by {blas['blas']}; led_ref with "
        f"{blas['threads of led_ref']} threads",
        f"the machine's limits meanwhile: {speeds(report)}",
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    ]
    for name, value in report["steering"].items():
        lines.append(f"{name}={value} is set on this machine: products may be slower, or faster, than without")
    return lines


def _runs(report: dict[str, Any]) -> str:
    """The number of runs: "3 runs", and the cases that had more."""
    more: dict[int, list[str]] = {}
    for case in report["cases"]:
        if len(case["led_ref"]["runs_s"]) > report["runs"]:
            more.setdefault(len(case["led_ref"]["runs_s"]), []).append(case["case"])
    return ", ".join([f"{report['runs']} runs", *(f"of {n} runs: {', '.join(cases)}" for n, cases in more.items())])


def speeds(report: dict[str, Any]) -> str:
    """The two limits, least to most over all cases."""
    parts = []
    for name, unit, meaning in (
        ("sgemm_gflop_s", "billion operations a second", "float32 products"),
        ("memory_gb_s", "GB a second", "reading memory"),
    ):
        found = [case["limit"][name] for case in report["cases"]]
        parts.append(f"{meaning} {min(found):.0f} to {max(found):.0f} {unit}")
    return ", ".join(parts)
