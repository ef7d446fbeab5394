"""Compare two traces: the first step, in the order of computation, whose numbers differ.

    ours = led_ref.trace(model, ids, decoder_input_ids=targets)
    theirs = Trace.load("theirs.safetensors")            of any program: docs/traces.md has a recipe for PyTorch
    difference = diff(ours, theirs)
    difference.equal, difference.first.name              (False, "led.encoder.layers.0.activation_fn.output")
    print(difference)                                    a table

The steps after the first difference were computed from different numbers and prove nothing. So the fault lies between the
last equal step and the first different one. Values are equal if

    |a - b| <= atol + rtol * |b|

and infinities and NaN are equal to themselves. Integers and booleans must be the same. A step of only one trace is listed,
but is no difference: other programs record fewer steps.

One exception: in attention scores, minus infinity in one trace equals -10,000 or less in the other: both mask the key.

diff_hints.py guesses at causes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import InputError, quoted, wrong_type
from led_ref.oracle.traces.blind_spots import blind_spots
from led_ref.oracle.traces.diff_hints import hint_at_names, hint_at_shapes, hint_at_values
from led_ref.oracle.traces.step_names import GRADIENT, describe, layer_or_step
from led_ref.oracle.traces.tolerances import root_mean_square, tolerance
from led_ref.oracle.traces.trace import Trace

# Programs that mask by adding a large negative number add this or less; no other score is so low.
MASKED = -1e4

# Values compared at a time, so that the float64 copies stay small beside the traces.
_AT_ONCE = 1 << 20

# Number of printed names that only one trace has.
_LISTED = 4


@dataclass(frozen=True)
class Comparison:
    """The comparison of one step of two traces.

    Args:
        name: the step's name.
        equal: whether shapes agree and all values are within the tolerance.
        shapes: a's and b's.
        dtypes: a's and b's.
        tolerance: the (rtol, atol) used; (0, 0) for integers and booleans.
        max_error: the largest |a - b|; infinite where only one is infinite or NaN; NaN if the shapes differ.
        mean_error: the mean of the finite |a - b|; NaN if the shapes differ.
        beyond: the number of values outside the tolerance.
        worst: index of the value furthest outside, () for a scalar; None if all are equal or the shapes differ.
        values: a's and b's value at `worst`.
        nans: the numbers of values that are NaN in a alone, in b alone, in both.
    """

    name: str
    equal: bool
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, str]
    tolerance: tuple[float, float]
    max_error: float = math.nan
    mean_error: float = math.nan
    beyond: int = 0
    worst: tuple[int, ...] | None = None
    values: tuple[float, float] | None = None
    nans: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, repr=False)
class Difference:
    """The result of `diff`.

    Args:
        compared: every step that both traces have, in the order of computation.
        only_in_a: names that b does not have.
        only_in_b: names that a does not have.
        source: file and line that recorded the first different step, if a trace has them.
        hint: a known pattern in the first difference; "" if none fits.
        names_hint: a prefix that the names of one trace lack; "" if none.
        blind_spots: if all steps are equal: the mistakes that they could not have shown, a sentence for each.
    """

    compared: tuple[Comparison, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    source: str = ""
    hint: str = ""
    names_hint: str = ""
    blind_spots: tuple[str, ...] = ()

    @property
    def mostly_unmatched(self) -> bool:
        """Whether most names of one trace were not compared, so that "equal" means little."""
        return max(len(self.only_in_a), len(self.only_in_b)) > len(self.compared)

    @property
    def first(self) -> Comparison | None:
        """The first step that differs; None if none does."""
        return next((step for step in self.compared if not step.equal), None)

    @property
    def equal(self) -> bool:
        """Whether all compared steps are equal."""
        return self.first is None

    @property
    def equal_before(self) -> tuple[str, ...]:
        """The names of the equal steps before the first different one."""
        names = [step.name for step in self.compared]
        return tuple(names if self.first is None else names[: names.index(self.first.name)])

    def by_layer(self) -> dict[str, list[Comparison]]:
        """The compared steps by layer; in a generation, by call of the decoder."""
        layers: dict[str, list[Comparison]] = {}
        for step in self.compared:
            layers.setdefault(part_of(step.name), []).append(step)
        return layers

    def to_dict(self) -> dict[str, Any]:
        """The difference ready for JSON: numbers that are not finite as text."""
        names = (
            "equal", "first", "source", "hint", "mostly_unmatched", "names_hint", "equal_before", "compared",
            "only_in_a", "only_in_b", "blind_spots",
        )  # fmt: skip
        return {name: _as_json(getattr(self, name)) for name in names}

    def __repr__(self) -> str:
        first = "equal" if self.first is None else f"part at {self.first.name}"
        return f"<Difference of {len(self.compared)} steps: {first}>"

    def __str__(self) -> str:
        return _as_text(self)


def diff(
    a: Mapping[str, HostArray], b: Mapping[str, HostArray], *, rtol: float | None = None, atol: float | None = None
) -> Difference:
    """Compare two traces step by step, in the order in which `a` was computed.

    Args:
        a: a Trace, or any mapping from names to arrays in the order of computation.
        b: the other trace.
        rtol: relative to b; None: `TOLERANCES` of the coarser dtype.
        atol: absolute; None: `TOLERANCES`, times the root mean square of b's values if that is more than 1; of gradients
            (`.grad`) also if it is less.

    Raises:
        InputError: if the two have no name in common, or a tolerance is negative.
    """
    for name, given in (("a", a), ("b", b)):
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise wrong_type(name, given, "a Trace, or a mapping from names to arrays")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating)
        ):
            raise wrong_type(name, value, "a number or None")
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{name} is {quoted(value)}; give a finite number that is not negative, such as 1e-4.")
    both = [name for name in a if name in b]
    only_in_a, only_in_b = tuple(n for n in a if n not in b), tuple(n for n in b if n not in a)
    names_hint = hint_at_names(only_in_a, only_in_b)
    if not both:
        raise InputError(
            f"The traces have no name in common: a has {_a_few(a)}, b has {_a_few(b)}. Name the tensors as "
            f"`led-ref steps` does: the checkpoint's module path and a role.{names_hint and f' {names_hint}.'}"
        )
    compared = tuple(
        compare(name, a[name], b[name], rtol=rtol, atol=atol, size=_gradient_size(name, b)) for name in both
    )
    first = next((step for step in compared if not step.equal), None)
    if first is None:
        allowed = {step.name: step.tolerance for step in compared}
        radii = next((t.radii for t in (a, b) if isinstance(t, Trace) and t.radii), ())
        unseen = blind_spots(a, radii, allowed)
        return Difference(compared, only_in_a, only_in_b, names_hint=names_hint, blind_spots=unseen)
    size = _gradient_size(first.name, b) or 1.0  # hints are for numbers of size 1
    ours, theirs = (trace[first.name] / size if size != 1 else trace[first.name] for trace in (a, b))
    letters = describe(first.name).letters.split()
    if ours.shape != theirs.shape:
        hint = hint_at_shapes(ours, theirs, letters)
    else:
        hint = hint_at_values(ours, theirs, letters, first.tolerance[0], first.tolerance[1] / size)
    return Difference(compared, only_in_a, only_in_b, _source(first.name, a, b), hint, names_hint)


def compare(
    name: str,
    a: HostArray,
    b: HostArray,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    size: float | None = None,
) -> Comparison:
    """Compare one step of two traces; tolerances as in `diff`, and `size` that of a gradient's values."""
    allowed = tolerance(a, b, rtol, atol, size)
    shapes, dtypes = (a.shape, b.shape), (a.dtype.name, b.dtype.name)
    if a.shape != b.shape:
        return Comparison(name, False, shapes, dtypes, allowed)
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    largest, total, finite, beyond, nans = 0.0, 0.0, 0, 0, np.zeros(3, np.int64)
    worst, worst_excess = None, 0.0
    for start in range(0, flat_a.size, _AT_ONCE):
        x = flat_a[start : start + _AT_ONCE].astype(np.float64)
        y = flat_b[start : start + _AT_ONCE].astype(np.float64)
        # Programs mask a key with different values in the scores before the softmax.
        error, excess = _errors(x, y, *allowed, masked=name.endswith(("attn.scores", ".global_scores")))
        is_finite = np.isfinite(error)
        largest = max(largest, float(error.max()))
        total += float(error[is_finite].sum())
        finite += int(is_finite.sum())
        beyond += int((excess > 0).sum())
        nan_x, nan_y = np.isnan(x), np.isnan(y)
        nans += [(nan_x & ~nan_y).sum(), (~nan_x & nan_y).sum(), (nan_x & nan_y).sum()]
        if excess.max() > worst_excess:
            worst, worst_excess = start + int(excess.argmax()), float(excess.max())
    counted = (int(nans[0]), int(nans[1]), int(nans[2]))
    mean = total / finite if finite else 0.0
    if worst is None:
        return Comparison(name, True, shapes, dtypes, allowed, largest, mean, nans=counted)
    index = tuple(int(i) for i in np.unravel_index(worst, a.shape))
    values = (float(flat_a[worst]), float(flat_b[worst]))
    return Comparison(name, False, shapes, dtypes, allowed, largest, mean, beyond, index, values, counted)


def part_of(name: str) -> str:
    """The layer of a step, or its call of the decoder in a generation; of gradients, the layer and "back".

    Example:
        >>> part_of("led.encoder.layers.3.fc1.output"), part_of("beam.step.12.scores"), part_of("led.decoder.input_ids")
        ('led.encoder.layers.3', 'step.12', 'led.decoder')
    """
    if name.endswith(GRADIENT):
        return f"{part_of(name.removesuffix(GRADIENT))} back"
    step, layer = layer_or_step(name, "step"), layer_or_step(name, "layers")
    if step is not None:
        return f"step.{step}"
    if layer is not None:
        return name[: name.index(".layers.")] + f".layers.{layer}"
    return ".".join(name.split(".")[:2]) if name.startswith("led.") else name.split(".")[0]


def _errors(x: HostArray, y: HostArray, rtol: float, atol: float, *, masked: bool) -> tuple[HostArray, HostArray]:
    """|x - y| and its excess over the tolerance (at least 0); both infinite if only one value is finite."""
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if masked:
        same |= (np.minimum(x, y) == -np.inf) & (np.maximum(x, y) <= MASKED)
    with np.errstate(invalid="ignore"):  # inf - inf
        error = np.abs(x - y)
    error[np.isnan(error)] = np.inf
    error[same] = 0
    limit = atol + rtol * np.abs(np.where(np.isfinite(y), y, 0))
    return error, np.where(error > limit, error - limit, 0)


def _gradient_size(name: str, b: Mapping[str, HostArray]) -> float | None:
    """The root mean square of a gradient; of a bias's at least that of what it sums. None: it is no gradient.

    A sum's rounding is relative to its terms, and a key's bias has a gradient of 0: what another program finds is rounding.
    """
    if not name.endswith(GRADIENT):
        return None
    module = name.removesuffix(f".bias{GRADIENT}")
    terms = (name, f"{module}.output{GRADIENT}", f"{module}.weight{GRADIENT}")
    return max(root_mean_square(b[term]) for term in terms if term in b)


def _source(name: str, *traces: Mapping[str, HostArray]) -> str:
    return next((t.steps[name].source for t in traces if isinstance(t, Trace) and t.steps[name].source), "")


def _a_few(names: Mapping[str, HostArray]) -> str:
    shown = ", ".join([*names][:3])
    return f"{len(names)} names ({shown}{', ...' if len(names) > 3 else ''})"


def _as_json(value: Any) -> Any:
    """A field of a Difference, ready for JSON: a Comparison as an object, a tuple as a list."""
    if isinstance(value, Comparison):
        rtol, atol = value.tolerance
        first = dict.fromkeys(("name", "equal", "shapes", "dtypes"))
        fields: dict[str, Any] = {**first, "rtol": rtol, "atol": atol, **vars(value)}
        return {name: _as_json(field) for name, field in fields.items() if name != "tolerance"}
    if isinstance(value, tuple):
        return [_as_json(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# ---- a difference as text ---------------------------------------------------------------------------------------------


def _as_text(difference: Difference) -> str:
    """The page that `print(difference)` shows: the first difference, then the error of each layer."""
    lines = [*_compared(difference), *_verdict(difference), *_layers(difference)]
    for side, names in (("a", difference.only_in_a), ("b", difference.only_in_b)):
        if names:
            more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            lines.append(f"only in {side:<8}{len(names)} steps: {', '.join(names[:_LISTED])}{more}")
    return "\n".join(lines)


def _compared(difference: Difference) -> list[str]:
    """The share of compared steps, if not all: the rest of the page describes only them."""
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
        equal = f"equal          {f'all {steps} steps' if steps > 1 else 'the 1 step'} that both traces have"
        return [equal, *(f"cannot show    {sentence}" for sentence in difference.blind_spots)]
    before = difference.equal_before
    described = describe(first.name)
    lines = [f"equal          {len(before)} of {steps} steps" + (f", the last {before[-1]}" if before else "")]
    lines.append(f"part at        {first.name}")
    lines += [f"               {words}" for words in (described.equation, difference.source) if words]
    lines += [f"               {line}" for line in _found(first, described.letters.split())]
    return lines + ([f"hint           {difference.hint}"] if difference.hint else [])


def _found(step: Comparison, letters: list[str]) -> list[str]:
    """The first different step in words."""
    shape_a, shape_b = step.shapes
    if shape_a != shape_b:
        return [f"shape {shape_a} in a, {shape_b} in b; the axes are {' '.join(letters) or 'not known'}"]
    rtol, atol = step.tolerance
    lines = [
        f"shape {shape_a}, {' and '.join(dict.fromkeys(step.dtypes))}",
        f"{step.beyond:,} of {math.prod(shape_a):,} values differ by more than {atol:.3g} + {rtol:.3g} |b|",
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
    """A line for each layer, or in a generation for each call of the decoder."""
    layers = difference.by_layer()
    width = max(map(len, layers))
    lines = ["", f"{'':<{width}}  steps  equal  max error  in"]
    for part, steps in layers.items():
        shown = [step for step in steps if step.shapes[0] == step.shapes[1]]
        worst = max(shown, key=lambda step: step.max_error, default=None)
        error = "" if worst is None else f"{worst.max_error:>9.2e}"
        where = worst.name if worst is not None and worst.max_error else ""
        name = where.removeprefix(f"{part.removesuffix(' back')}.")
        lines.append(
            f"{part:<{width}}  {len(steps):>5}  {sum(step.equal for step in steps):>5}  {error:>9}  {name}".rstrip()
        )
    return lines
