"""A difference between two traces as a page of text: where they part, then the error of each layer.

Nothing is computed here; diff.py did that.
"""

from led_ref.oracle.traces.diff import Comparison, Difference
from led_ref.oracle.traces.step_names import describe

# Names listed at most where many are missing.
_LISTED = 4


def as_text(difference: Difference) -> str:
    """The table that `print(difference)` shows."""
    lines = [*_compared(difference), *_verdict(difference), *_layers(difference)]
    for side, names in (("a", difference.only_in_a), ("b", difference.only_in_b)):
        if names:
            more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            lines.append(f"only in {side:<8}{len(names)} steps: {', '.join(names[:_LISTED])}{more}")
    return "\n".join(lines)


def _compared(difference: Difference) -> list[str]:
    """How much of the two was compared, if not all: what is said of the rest of the page is said of this part."""
    both = len(difference.compared)
    if not (difference.only_in_a or difference.only_in_b):
        return []
    counts = {"a": both + len(difference.only_in_a), "b": both + len(difference.only_in_b)}
    shown = ", ".join(f"{both} of {all_names} {side} has" for side, all_names in counts.items())
    if len(set(counts.values())) == 1:
        shown = f"{both} of {counts['a']} that each has"
    lines = [f"compared       {shown}: the names that both have"]
    return lines + ([f"names          {difference.names_hint}"] if difference.names_hint else [])


def _verdict(difference: Difference) -> list[str]:
    first, steps = difference.first, len(difference.compared)
    if first is None:
        return [f"equal          {f'all {steps} steps' if steps > 1 else 'the 1 step'} that both traces have"]
    before = difference.equal_before
    described = describe(first.name)
    lines = [f"equal          {len(before)} of {steps} steps" + (f", the last {before[-1]}" if before else "")]
    lines.append(f"part at        {first.name}")
    lines += [f"               {words}" for words in (described.equation, difference.source) if words]
    lines += [f"               {line}" for line in _found(first, described.letters.split())]
    return lines + ([f"hint           {difference.hint}"] if difference.hint else [])


def _found(step: Comparison, letters: list[str]) -> list[str]:
    """What was found at the first step that differs."""
    shape_a, shape_b = step.shapes
    if shape_a != shape_b:
        return [f"shape {shape_a} in a, {shape_b} in b; the axes are {' '.join(letters) or 'not known'}"]
    size = 1
    for length in shape_a:
        size *= length
    rtol, atol = step.tolerance
    lines = [
        f"shape {shape_a}, {' and '.join(dict.fromkeys(step.dtypes))}",
        f"{step.beyond:,} of {size:,} values differ by more than {atol:.3g} + {rtol:.3g} |b|",
        f"max error {step.max_error:.3g}, mean error {step.mean_error:.3g}",
    ]
    if step.worst is not None and step.values is not None:
        names = letters if len(letters) == len(step.worst) else [f"axis {i}" for i in range(len(step.worst))]
        place = ", ".join(f"{name} = {i}" for name, i in zip(names, step.worst, strict=True))
        lines.append(f"worst{' at ' if place else ''}{place}: {step.values[0]:.9g} in a, {step.values[1]:.9g} in b")
    if any(step.nans):
        lines.append("NaN: {} in a alone, {} in b alone, {} in both".format(*step.nans))
    return lines


def _layers(difference: Difference) -> list[str]:
    """A line for each layer, or for each call of the decoder in a generation."""
    layers = difference.by_layer()
    width = max(map(len, layers))
    lines = ["", f"{'':<{width}}  steps  equal  max error  in"]
    for part, steps in layers.items():
        shown = [step for step in steps if step.shapes[0] == step.shapes[1]]
        worst = max(shown, key=lambda step: step.max_error, default=None)
        error = "" if worst is None else f"{worst.max_error:>9.2e}"
        where = worst.name if worst is not None and worst.max_error else ""
        name = where.removeprefix(f"{part}.")
        lines.append(
            f"{part:<{width}}  {len(steps):>5}  {sum(step.equal for step in steps):>5}  {error:>9}  {name}".rstrip()
        )
    return lines
