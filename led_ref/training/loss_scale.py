"""The scale of the loss in float16, so that small gradients do not become 0 on their way back.

float16 has no number between 0 and 6e-8, and gradients of that size are common. So the loss is multiplied by a scale before
the backward pass, gradients come out multiplied by it, and the optimizer divides by it. Which scale is right shows while
training:

    a gradient is infinite or NaN, and the loss is not     halve the scale, and compute the gradients of the step again
    DOUBLE_AFTER steps in a row without that               double it

Source: Micikevicius et al. 2018 (Mixed Precision Training, arXiv 1710.03740), section 3.2. First value and DOUBLE_AFTER are
those of torch.amp.GradScaler, which leaves a step out where here it is computed again: no document is lost.
"""

from dataclasses import dataclass
from typing import Self

FIRST, LOWEST, HIGHEST = 2.0**16, 1.0, 2.0**24
DOUBLE_AFTER = 2000


@dataclass(frozen=True)
class LossScale:
    """The scale of the next step.

    Args:
        value: what the loss is multiplied by: a power of two, which costs no digit. 1.0: float32 and float64 need none.
        steps: taken since it was changed.
    """

    value: float = 1.0
    steps: int = 0

    @classmethod
    def first(cls, dtype: str) -> Self:
        """Before the first step of a model that computes in `dtype`."""
        return cls(FIRST if dtype == "float16" else 1.0)

    def after(self, used: float) -> "LossScale":
        """The scale after a step that was taken with `used`: this value, or half of it, a quarter, ...

        Example:
            >>> LossScale(65536.0, 7).after(16384.0), LossScale(65536.0, 1999).after(65536.0)
            (LossScale(value=16384.0, steps=0), LossScale(value=131072.0, steps=0))
        """
        if used != self.value:
            return LossScale(used)
        if self.steps + 1 < DOUBLE_AFTER:
            return LossScale(used, self.steps + 1)
        return LossScale(min(2 * used, HIGHEST))
