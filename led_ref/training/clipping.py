"""The norm of all gradients as one vector, clipping by it, and the search for a number in them that is not finite."""

import math
from collections.abc import Mapping

from led_backends.contract import Array, Backend
from led_ref.errors import InputError


def global_norm(gradients: Mapping[str, Array], backend: Backend) -> float:
    """`sqrt(sum of g^2)` over all numbers of all gradients, added in float64; not finite if one of them is not."""
    return math.sqrt(float(backend.to_host(squared_norm(gradients, backend))))


def squared_norm(gradients: Mapping[str, Array], backend: Backend) -> Array:
    """The square of it, float64 without axes, on the device: who asks for it does not wait for a GPU yet."""
    squares = [_sum_of_squares(gradients[name].reshape(-1), backend) for name in sorted(gradients)]
    total: Array = backend.xp.stack(squares).sum() if squares else backend.xp.zeros((), dtype="float64")
    return total


def clip_factor(norm: float, max_norm: float) -> float:
    """What gradients of that global norm are multiplied by, so that it is at most `max_norm`.

    `min(1, max_norm / (norm + 1e-6))`, as torch.nn.utils.clip_grad_norm_ has it.

    Raises:
        InputError: if the norm is not finite: one step with it would make every weight NaN.
    """
    if not math.isfinite(norm):
        raise InputError(
            f"The norm of the gradients is {norm}: a number in them is not finite. The weights were not changed. Lower the "
            "learning rate, or look at the documents of this step."
        )
    return min(1.0, max_norm / (norm + 1e-6))


def not_finite(gradients: Mapping[str, Array], backend: Backend) -> list[str]:
    """The names of the gradients that hold a NaN or an infinity."""
    return [name for name in sorted(gradients) if not math.isfinite(global_norm({name: gradients[name]}, backend))]


def _sum_of_squares(numbers: Array, backend: Backend) -> Array:
    """`sum(numbers^2)` of one axis, in float64, as an array without axes on the device."""
    sums: dict[int, Array] = {}

    def work(piece: slice) -> None:
        part = numbers[piece].astype("float64")
        part *= part
        sums[piece.start] = part.sum()

    backend.for_each_piece(work, len(numbers))
    return sum_in_order(sums)


def sum_in_order(sums: Mapping[int, Array]) -> Array:
    """The sum of the sums of pieces, by their starts: the order in which threads finished plays no part."""
    first, *rest = (sums[start] for start in sorted(sums))
    total = first
    for part in rest:
        total = total + part
    return total
