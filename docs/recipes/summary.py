"""What a stage took and how its loss went: WORK/models/NAME/log.jsonl -> a row of a table, and a thinned log for the curve.

    python docs/recipes/summary.py WORK/models/NAME [THINNED.jsonl]

A line of the thinned log is a stretch of steps: the last of them, the mean loss by step, tokens and seconds; or a validation.
The row: name, steps, millions of tokens (documents and targets), hours of steps, tokens a second, the mean loss of the last
stretch, the lowest held-out loss.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
STRETCH = 50  # steps


def stretches(log: Sequence[Line], size: int = STRETCH) -> Iterator[Line]:
    """The log with the mean of each `size` steps that were taken, and with all validations, in order.

    Example:
        >>> log = [{"step": i, "loss": float(i), "tokens": 10, "seconds": 1.0} for i in (1, 2, 3)]
        >>> list(stretches([*log, {"step": 3, "eval_loss": 4.0}], 2))[1:]
        [{'step': 3, 'loss': 3.0, 'tokens': 10, 'seconds': 1.0}, {'step': 3, 'eval_loss': 4.0}]
    """
    some: list[Line] = []
    for line in log:
        if "loss" in line:
            some.append(line)
        if some and ("eval_loss" in line or len(some) == size):
            yield _mean(some)
            some = []
        if "eval_loss" in line:
            yield {"step": line["step"], "eval_loss": round(line["eval_loss"], 4)}
    if some:
        yield _mean(some)


def _mean(some: Sequence[Line]) -> Line:
    return {
        "step": some[-1]["step"],
        "loss": round(sum(line["loss"] for line in some) / len(some), 4),
        "tokens": sum(line["tokens"] for line in some),
        "seconds": round(sum(line["seconds"] for line in some), 1),
    }


def row(name: str, thinned: Sequence[Line]) -> str:
    """The row of a table in Markdown."""
    steps = [line for line in thinned if "loss" in line]
    tokens, seconds = (sum(line[key] for line in steps) for key in ("tokens", "seconds"))
    held_out = min((line["eval_loss"] for line in thinned if "eval_loss" in line), default=float("nan"))
    return (
        f"| {name} | {steps[-1]['step']:,} | {tokens / 1e6:.1f} | {seconds / 3600:.2f} | {tokens / seconds:,.0f} "
        f"| {steps[-1]['loss']:.2f} | {held_out:.2f} |"
    )


def main(model: Path, out: Path | None = None) -> None:
    """Print the row; write the thinned log."""
    with open(model / "log.jsonl", encoding="utf-8") as file:
        thinned = list(stretches([json.loads(line) for line in file]))
    if out is not None:
        out.write_text("".join(json.dumps(line) + "\n" for line in thinned), encoding="utf-8")
    print(row(model.name, thinned))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
