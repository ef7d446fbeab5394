"""The sum of gradients over the micro-batches of a step, and how the micro-batches are weighted.

    accumulator = GradientAccumulator(parameters, backend, frozen)
    for batch, divide_by in zip(micro_batches, loss_divisors(counts, "labels")):
        accumulate_gradients(model, batch, accumulator.add, GradientOptions(divide_by=divide_by, needs=accumulator.needs))
    state = optimizer.update(parameters, accumulator.gradients, state, rate, backend)
    accumulator.clear()

A step's loss is a mean. Two means are in use, and differ where micro-batches have different numbers of labels:

    "labels"        the mean over all labels of the step: sum of losses / number of labels. Every label weighs the same.
    "transformers"  the mean of the micro-batches' means, which transformers' Trainer makes for LED (its forward takes no
                    num_items_in_batch): a label of a short target weighs more.

A weight is what a micro-batch's sum of losses is divided by. So gradients come out right as they are made, and are only added.
"""

from collections.abc import Collection, Mapping, Sequence

from led_backends.contract import Array, Backend
from led_ref.errors import InputError

ACCUMULATE_AS = ("labels", "transformers")

Counts = Sequence[float]  # the number of labels of each sum of losses: one sum; of answer spans two, starts and ends


def loss_divisors(counts: Sequence[Counts], accumulate_as: str = "labels") -> list[tuple[float, ...]]:
    """By what each micro-batch's sums of losses are divided; the step's loss is the sum of the quotients.

    Args:
        counts: each micro-batch's numbers of labels, one for each sum of losses.
        accumulate_as: "labels" or "transformers".

    Raises:
        InputError: for another name; for a step without labels, or, as "transformers", such a micro-batch.

    Example:
        >>> loss_divisors([(30,), (10,)]), loss_divisors([(30,), (10,)], "transformers")
        ([(40,), (40,)], [(60,), (20,)])
    """
    if accumulate_as not in ACCUMULATE_AS:
        raise InputError(f"accumulate_as is {accumulate_as!r}; choose {' or '.join(map(repr, ACCUMULATE_AS))}.")
    whole = tuple(sum(column) for column in zip(*counts, strict=True))
    if not whole or not all(whole):
        raise InputError(
            f"The labels that count in this step number {', '.join(map(str, whole)) or 'none'}: its loss would be a mean of "
            "nothing. Leave out documents without a target."
        )
    if accumulate_as == "labels":
        return [whole] * len(counts)
    if not all(all(row) for row in counts):
        raise InputError(
            "A micro-batch has no label that counts, and its mean would be nan. Leave it out, or use accumulate_as='labels'."
        )
    return [tuple(count * len(counts) for count in row) for row in counts]


class GradientAccumulator:
    """Adds up gradients by checkpoint key: the first part of each becomes its sum, in place, so nothing is held twice.

    Args:
        parameters: the trained arrays by checkpoint key: they give names, shapes and dtypes.
        backend: where they live.
        frozen: keys of those that are not trained (`frozen_keys`).
    """

    def __init__(self, parameters: Mapping[str, Array], backend: Backend, frozen: Collection[str] = ()) -> None:
        self._parameters = {key: array for key, array in parameters.items() if key not in frozen}
        self._backend = backend
        self._sums: dict[str, Array] = {}

    def needs(self, key: str) -> bool:
        """Whether a parameter is trained."""
        return key in self._parameters

    def add(self, key: str, gradient: Array) -> None:
        """Add a part of a parameter's gradient. The array belongs to the accumulator then.

        Raises:
            InputError: for a parameter that is not trained, and for another shape or dtype than the parameter's.
        """
        if key not in self._parameters:
            raise InputError(f"{key} is frozen or no parameter, and takes no gradient. Ask `needs` first.")
        parameter = self._parameters[key]
        if (gradient.shape, gradient.dtype) != (parameter.shape, parameter.dtype):
            raise InputError(
                f"The gradient of {key} is {gradient.dtype} {gradient.shape}; the parameter is {parameter.dtype} "
                f"{parameter.shape}. A gradient has its parameter's shape and dtype."
            )
        if key not in self._sums:
            self._sums[key] = self._backend.xp.ascontiguousarray(gradient)
            return
        total = self._sums[key]

        def work(rows: slice) -> None:
            total[rows] += gradient[rows]

        self._backend.for_each_piece(work, len(total), total.size // len(total))

    @property
    def gradients(self) -> dict[str, Array]:
        """The sums of this step, of the parameters that had a gradient, in the order of the parameters."""
        return {key: self._sums[key] for key in self._parameters if key in self._sums}

    def clear(self) -> None:
        """Begin the next step, without the sums of this one."""
        self._sums = {}
