"""What passes between a search and the model: the step function that goes in, the `SearchResult` that comes out.

The searches of this package know no model. They are handed a *step function* and call it once for each id they write:

    logits_NV = step(token_ids, parents)

Row n of a call is beam n % W of document n // W, so there are N = B * W rows, and the beams of one document are
neighbours. `token_ids` (N, U) int64 holds the ids that are new to the model: the whole prompt at the first call
(repeated for the W beams), later one id a row. `parents` (N,) int64 says which row of the previous call each row goes
on from. A step function with a cache therefore first reorders that cache (`cache = cache[parents]`) and then appends;
with one beam `parents` is always 0, 1, 2, ... . At the first call there is no previous one, and `parents` is None.
Logits are a NumPy array.

The smallest step function there is, one that likes id 7 whatever was written before:

    >>> def step(token_ids, parents):
    ...     return np.eye(11, dtype=np.float32)[np.full(len(token_ids), 7)]
    >>> step(np.array([[2], [2]]), None).argmax(axis=-1).tolist()
    [7, 7]

This file holds no search; `greedy.py` and `beam.py` do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError

Ids: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.floating[Any]]

# (ids written so far (N, U), scores (N, V)) -> scores (N, V), the given arrays untouched: see processors.py.
Processor: TypeAlias = Callable[[Ids, Scores], Scores]

# (ids written so far, max_length), called once a step.
Progress: TypeAlias = Callable[[int, int], None]

# (name, what a search decided), for those who want to follow it. What is told may be overwritten: copy what you keep.
Tell: TypeAlias = Callable[[str, npt.NDArray[Any]], None]


class StepFunction(Protocol):
    """One step of the model: new ids (N, U), the rows they go on from (N,) or None -> logits (N, V) of the next id."""

    def __call__(self, token_ids: Ids, parents: Ids | None, /) -> Scores:
        """The logits of the id that follows."""
        ...


@dataclass(frozen=True)
class SearchResult:
    """What a search found. R = num_return_sequences rows for each document, the best first.

    Fields of the same name in transformers' GenerateEncoderDecoderOutput (greedy) and GenerateBeamEncoderDecoderOutput
    hold the same, with one difference: there, `sequences_scores` is None unless output_scores is set.

    Args:
        sequences: (B * R, U) int64, prompt first, filled up with pad to the longest row.
        sequences_scores: (B * R,) float32, sum of log-probabilities / length ** length_penalty; None for greedy search.
        scores: with output_scores, one (N, V) float32 array for each step: what the processors made of the
            logits (greedy) or of the log-probabilities (beams, running score not added). None without.
        beam_indices: (B * R, U - P) int32: the row n of the step function that wrote each id after the prompt's P,
            -1 after the row's end. None for greedy search.
    """

    sequences: Ids
    sequences_scores: npt.NDArray[np.float32] | None = None
    scores: tuple[npt.NDArray[np.float32], ...] | None = None
    beam_indices: npt.NDArray[np.int32] | None = None


def call_step(step: StepFunction, token_ids: Ids, parents: Ids | None) -> npt.NDArray[np.float32]:
    """Logits (N, V) of one step, as float32: all arithmetic of a search is float32, whatever the model computes in.

    Raises:
        InputError: if a logit is NaN or +inf. There is no best id then, and anything picked would look like a result.
    """
    logits_NV = np.asarray(step(token_ids, parents)).astype(np.float32, copy=False)
    # The largest of a row is NaN if any of its logits is: one pass, and no array of booleans the size of the logits.
    largest_N = logits_NV.max(axis=-1)
    usable_N = largest_N < np.inf  # False for NaN as well
    if not usable_N.all():
        row = int(np.argmin(usable_N))
        raise InputError(
            f"The model's logits of row {row} contain {largest_N[row]}, so there is no best next id. "
            "Look for NaN or overflow in the weights and the activations; computing in float32 avoids most overflows."
        )
    return logits_NV


def apply_processors(processors: Sequence[Processor], ids_NU: Ids, scores_NV: Scores) -> Scores:
    """The scores after all processors, in their order."""
    for processor in processors:
        scores_NV = processor(ids_NU, scores_NV)
    return scores_NV
