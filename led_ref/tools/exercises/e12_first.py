"""Where do two programs first differ?

Both recorded the arrays that they computed, by name, and `order` lists the names in the order of computation. Two arrays agree
if all their numbers do: |a - b| <= atol + rtol |b|. Arrays after the first difference were computed from different numbers
and prove nothing, so only the first name counts. A name that one of the two lacks proves nothing either.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect

Arrays = Mapping[str, npt.NDArray[np.float64]]


def first_difference(a: Arrays, b: Arrays, order: Sequence[str], *, rtol: float, atol: float) -> str | None:
    """The first name in order at which a and b differ; None if they do not. NaN where the other has a number differs."""
    for name in order:
        if name in a and name in b and not bool((abs(a[name] - b[name]) <= atol + rtol * abs(b[name])).all()):
            return name
    return None


def check_the_first_of_two(yours: Yours) -> None:
    """The order is that of the work, not of the alphabet."""
    a = {"z": np.array([1.0]), "m": np.array([1.0]), "a": np.array([1.0])}
    b = {"z": np.array([1.0]), "m": np.array([2.0]), "a": np.array([3.0])}
    expect(yours.first_difference(a, b, ["z", "m", "a"], rtol=0, atol=0.1), "m", "the first difference")
    expect(str(yours.first_difference(a, a, ["z", "m", "a"], rtol=0, atol=0)), "None", "the difference of a and a")


def check_what_only_one_has(yours: Yours) -> None:
    """A name that only one program has is skipped."""
    a, b = {"z": np.array([1.0])}, {"m": np.array([2.0])}
    expect(str(yours.first_difference(a, b, ["z", "m"], rtol=0, atol=0)), "None", "the difference of strangers")


def check_not_a_number(yours: Yours) -> None:
    """NaN is larger than no tolerance: ask whether all are within it, not whether one is beyond."""
    a, b = {"z": np.array([1.0, np.nan])}, {"z": np.array([1.0, 1.0])}
    expect(str(yours.first_difference(a, b, ["z"], rtol=1, atol=1)), "z", "the difference of NaN and 1")


def check_a_mutant(yours: Yours) -> None:
    """A mutant of the bundled model: the queries of its second layer are scaled twice."""
    from led_ref.api import load
    from led_ref.oracle.traces.trace import trace

    model = load(dtype="float64").model
    recorded = dict(trace(model.encoder, [[0, 41, 97, 5, 2]], only=["*.q", "*.final_layer_norm.output"]).items())
    name = next(name for name in recorded if name.startswith("led.encoder.layers.1") and name.endswith(".q"))
    later = "led.encoder.layers.1.final_layer_norm.output"
    wrong = {**recorded, name: recorded[name] / 32**0.5, later: np.zeros((1, 5, 128))}
    expect(yours.first_difference(recorded, wrong, list(recorded), rtol=1e-9, atol=1e-9), name, "the first difference")
