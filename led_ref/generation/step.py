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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError

Ids: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.floating[Any]]

# (ids written so far (N, U), scores (N, V)) -> scores (N, V), the given arrays untouched: see processors.py.
Processor: TypeAlias = Callable[[Ids, Scores], Scores]

# (ids so far (N, U), the scores of each step or None) -> which rows stop here (N,): see stopping.py.
StoppingCriterion: TypeAlias = Callable[[Ids, tuple[Scores, ...] | None], Any]

# (which document, ids so far (U,)) -> the ids that may come next.
PrefixAllowedTokens: TypeAlias = Callable[[int, Ids], Iterable[int]]

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
class OwnRules:
    """What a caller brings along besides settings: rules that are functions.

    Args:
        logits_processor: functions (ids (N, U), scores (N, V)) -> scores (N, V), applied after all rules of ours and before
            the filters of sampling.
        prefix_allowed_tokens_fn: (which document, ids so far (U,)) -> the ids that may come next.
        stopping_criteria: functions (ids (N, U), scores so far or None) -> which rows stop here: (N,), or one bool for all.
        token_bytes: id -> the bytes that it stands for; stop_strings need it.
    """

    logits_processor: Sequence[Processor] = ()
    prefix_allowed_tokens_fn: PrefixAllowedTokens | None = None
    stopping_criteria: Sequence[StoppingCriterion] = ()
    token_bytes: Callable[[int], bytes] | None = None


NO_OWN_RULES = OwnRules()


@dataclass(frozen=True)
class SearchResult:
    """What a search found. R = num_return_sequences rows for each document, with beams the best first.

    Fields of the same name in transformers' GenerateEncoderDecoderOutput (one beam) and GenerateBeamEncoderDecoderOutput
    hold the same, with one difference: there, `sequences_scores` is None unless output_scores is set.

    Args:
        sequences: (B * R, U) int64, prompt first, filled up with pad to the longest row.
        sequences_scores: (B * R,) float32, sum of log-probabilities / length ** length_penalty; None without beams.
        scores: with output_scores, one (N, V) float32 array for each step: what the processors made of the
            logits (one beam) or of the log-probabilities (beams, running score not added). None without.
        logits: with output_logits, one (N, V) float32 array for each step: the model's own. None without.
        beam_indices: (B * R, U - P) int32: the row n of the step function that wrote each id after the prompt's P,
            -1 after the row's end. None without beams.
    """

    sequences: Ids
    sequences_scores: npt.NDArray[np.float32] | None = None
    scores: tuple[npt.NDArray[np.float32], ...] | None = None
    logits: tuple[npt.NDArray[np.float32], ...] | None = None
    beam_indices: npt.NDArray[np.int32] | None = None


def call_step(
    step: StepFunction, token_ids: Ids, parents: Ids | None, *, may_be_invalid: bool = False
) -> npt.NDArray[np.float32]:
    """Logits (N, V) of one step, as float32: all arithmetic of a search is float32, whatever the model computes in.

    Raises:
        InputError: if a logit is NaN or +inf, unless that is what remove_invalid_values is there for. There is no best id
            then, and anything picked would look like a result.
    """
    logits_NV = np.asarray(step(token_ids, parents)).astype(np.float32, copy=False)
    if may_be_invalid:
        return logits_NV
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


def hits_a_criterion(
    criteria: Sequence[StoppingCriterion], ids_NU: Ids, scores: tuple[Scores, ...] | None
) -> npt.NDArray[np.bool_]:
    """Which rows (N,) any of the criteria stops.

    Raises:
        InputError: if one returns neither a bool for each row nor one for all.
    """
    stops_N = np.zeros(len(ids_NU), dtype=bool)
    for criterion in criteria:
        found = np.asarray(criterion(ids_NU, scores))
        if found.dtype != bool or found.shape not in ((), stops_N.shape):
            name = getattr(criterion, "__name__", type(criterion).__name__)
            raise InputError(
                f"stopping_criteria {name} returned {found.dtype} of shape {found.shape}. "
                f"Return one bool, or an array of {len(ids_NU)}: one for each row."
            )
        stops_N |= found
    return stops_N


def log_softmax(logits_NV: Scores) -> Scores:
    """`x - max - log(sum(exp(x - max)))` over the last axis; the maximum is taken out so that exp cannot overflow."""
    shifted_NV: Scores = logits_NV - logits_NV.max(axis=-1, keepdims=True)
    shifted_NV -= np.log(np.exp(shifted_NV).sum(axis=-1, keepdims=True))
    return shifted_NV
