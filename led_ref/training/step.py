"""The gradients of one step: its batches in parts, each part computed by itself, and all parts added up in their order.

A part is as many documents of a batch as are computed together (`documents_at_once`). Which parts there are does not depend on
who computes them, nor does the order in which their gradients are added; so one process or several (processes.py) give the same
bits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from led_backends.contract import Array
from led_ref.model.dropout import Dropout, DropoutRates
from led_ref.training.accumulator import loss_divisors
from led_ref.training.batch import checked_batch
from led_ref.training.batches import Batch, GlobalMask, Step, collate
from led_ref.training.data import Dataset
from led_ref.training.gradients import GradientOptions, accumulate_gradients
from led_ref.training.settings import TrainingArguments
from led_ref.training.targets import LossSum
from led_ref.training.trained import TrainedWeights

# Takes a part of a parameter's gradient: its name, and the array, which is no longer used by who gives it.
Add = Callable[[str, Array], None]


@dataclass(frozen=True)
class Part:
    """Documents that are computed together.

    Args:
        batch: the number of their batch in the step.
        documents: their numbers.
        arrays: arguments of the model's `forward`.
        divide_by: what the sums of their losses are divided by in the whole step (accumulator.py).
    """

    batch: int
    documents: Batch
    arrays: Mapping[str, Any]
    divide_by: tuple[float, ...]


@dataclass(frozen=True)
class StepGradients:
    """All that the gradients of a run's steps depend on.

    Args:
        trained: the weights; their model computes.
        dataset: the documents.
        args: the settings of the run.
        rates: of dropout.
        mask_of: the global attention mask of a document.
        pad_token_id: fills up the ids of shorter documents.
    """

    trained: TrainedWeights
    dataset: Dataset
    args: TrainingArguments
    rates: DropoutRates
    mask_of: GlobalMask
    pad_token_id: int

    def parts(self, step: Step) -> list[Part]:
        """The parts of a step, in the order in which their gradients are added."""
        together = self.args.documents_at_once
        documents = [[batch[k : k + together] for k in range(0, len(batch), together)] for batch in step]
        arrays = [
            [collate(self.dataset, part, self.pad_token_id, self.mask_of) for part in batch] for batch in documents
        ]
        counts = [[checked_batch(self.trained.model, part).target.counts for part in batch] for batch in arrays]
        divisors = loss_divisors(
            [tuple(sum(column) for column in zip(*batch, strict=True)) for batch in counts], self.args.accumulate_as
        )
        return [
            Part(number, *part, divisors[number])
            for number, batch in enumerate(zip(documents, arrays, strict=True))
            for part in zip(*batch, strict=True)
        ]

    def add_part(self, part: Part, number: int, loss_scale: float, add: Add) -> LossSum:
        """Compute the gradients of a part in the step of this number, and hand them on. Returns the part's losses."""
        options = GradientOptions(
            dropout=Dropout(self.rates, self.args.seed, number, part.documents),
            label_smoothing=self.args.label_smoothing_factor,
            divide_by=part.divide_by,
            loss_scale=loss_scale,
            documents_at_once=self.args.documents_at_once,
            keep_activations=self.args.keep_activations,
            needs=self.trained.needs.__contains__,
        )

        def add_gradient(key: str, gradient: Array) -> None:
            for name, of_parameter in self.trained.gradients(key, gradient).items():
                add(name, of_parameter)

        return accumulate_gradients(self.trained.model, part.arrays, add_gradient, options)
