"""The oracle: LED by definition, traces of a run and their differences, and conformance vectors for other programs."""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref.oracle.definition.model import decode, encode, who_sees_whom
    from led_ref.oracle.traces.diff import Comparison, Difference, diff
    from led_ref.oracle.traces.trace import Step, Trace, trace

__all__ = ["Comparison", "Difference", "Step", "Trace", "decode", "diff", "encode", "trace", "who_sees_whom"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "definition.model": ("decode", "encode", "who_sees_whom"),
        "traces.diff": ("Comparison", "Difference", "diff"),
        "traces.trace": ("Step", "Trace", "trace"),
    },
)
