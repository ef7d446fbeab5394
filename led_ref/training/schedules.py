"""Learning-rate schedules: the rate of a step as a pure function.

    linear        up to the highest rate in `warmup_steps`, then in a line down to 0 at `total_steps`
    cosine        the same, down in half a wave of a cosine
    polynomial    down to `lr_end` by the power `power` of what remains
    inverse_sqrt  down as 1 / sqrt(step), without an end
    constant      stays at the highest

Steps are counted from 0, so with a warm-up the first update has rate 0. All equal transformers' get_*_schedule;
`constant` with warmup_steps is its `constant_with_warmup`.
"""

import math
from dataclasses import dataclass

from led_ref.errors import InputError

NAMES = ("linear", "cosine", "constant", "inverse_sqrt", "polynomial")
_WITHOUT_END = ("constant", "inverse_sqrt")
_LONG = 10_000  # inverse_sqrt's timescale where there is no warm-up


@dataclass(frozen=True)
class Schedule:
    """A schedule's settings.

    Args:
        name: one of NAMES.
        warmup_steps: the steps in which the rate grows in a line from 0.
        total_steps: the steps of the whole training. `constant` and `inverse_sqrt` have no end and need none.
        cycles: of `cosine`: waves from the highest rate back to it; a half ends at 0.
        lr_end: of `polynomial`: the last rate.
        power: of `polynomial`: 1 is a line.
        timescale: of `inverse_sqrt`: after so many steps beyond it the rate has fallen by 1 / sqrt(2). None: warmup_steps, or
            10,000 without a warm-up.

    Raises:
        InputError: for an unknown name, or a number out of its range.

    Example:
        >>> schedule = Schedule("linear", warmup_steps=2, total_steps=10)
        >>> [schedule.rate(step, 8.0) for step in (0, 1, 2, 9, 10)]
        [0.0, 4.0, 8.0, 1.0, 0.0]
    """

    name: str = "linear"
    warmup_steps: int = 0
    total_steps: int = 0
    cycles: float = 0.5
    lr_end: float = 1e-7
    power: float = 1.0
    timescale: int | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InputError(f"The schedule is {self.name!r}; choose one of {', '.join(NAMES)}.")
        if self.warmup_steps < 0:
            raise InputError(f"warmup_steps is {self.warmup_steps}; give at least 0.")
        if self.has_end and self.total_steps < 1:
            raise InputError(
                f"total_steps is {self.total_steps}; {self.name} ends there. Give the number of steps of the training."
            )
        if self.timescale is not None and self.timescale < 1:
            raise InputError(f"timescale is {self.timescale}; give at least 1 step, or None.")

    @property
    def has_end(self) -> bool:
        """Whether the rates depend on `total_steps`; if not, a training can go on for longer than was said."""
        return self.name not in _WITHOUT_END

    def rate(self, step: int, highest: float) -> float:
        """The learning rate of a step.

        Args:
            step: how many steps were made before it.
            highest: the rate at the end of the warm-up.

        Raises:
            InputError: if `polynomial` is to end above the highest rate.
        """
        if self.name == "polynomial" and self.lr_end >= highest:
            raise InputError(
                f"lr_end is {self.lr_end} and the highest rate {highest}; polynomial falls from one to the other. "
                "Give a smaller lr_end."
            )
        if step < self.warmup_steps:
            return highest * step / self.warmup_steps
        if self.name == "constant":
            return highest
        if self.name == "inverse_sqrt":
            timescale = self.timescale or self.warmup_steps or _LONG
            return highest / math.sqrt((step - self.warmup_steps + timescale) / timescale)
        falling = max(1, self.total_steps - self.warmup_steps)
        if self.name == "cosine":
            waves = self.cycles * (step - self.warmup_steps) / falling
            return highest * 0.5 * (1 + math.cos(2 * math.pi * waves))
        left = max(0.0, (self.total_steps - step) / falling)  # from 1 to 0
        if self.name == "linear":
            return highest * left
        return self.lr_end + (highest - self.lr_end) * math.pow(left, self.power)
