"""The step function: one autoregressive step of the model, as a search calls it; and the result of a search, with its scores.

The searches of this package know no model. They are handed a *step function* and call it once for each new id of a row:

    logits_NV = step(token_ids, parents)

Row n of a call is beam n % W of document n // W, so there are N = B * W rows, and the beams of one document are
neighbours. `token_ids` (N, U) int64 holds the ids that are new to the model: the whole prompt at the first call
(repeated for the W beams), later one id a row. `parents` (N,) int64 holds for each row the row of the previous call that
it continues. A step function with a KV cache therefore first reorders that cache (`cache = cache[parents]`) and then
appends; with one beam `parents` is always 0, 1, 2, ... . At the first call there is no previous one, and `parents` is
None. Logits are a NumPy array.

The smallest step function, which likes id 7 after any prefix:

    >>> def step(token_ids, parents):
    ...     return np.eye(11, dtype=np.float32)[np.full(len(token_ids), 7)]
    >>> step(np.array([[2], [2]]), None).argmax(axis=-1).tolist()
    [7, 7]

This file holds what all searches share; the searches are in `greedy_search.py`, `beam_search.py` and
`group_beam_search.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from led_ref.errors import InputError, quoted, wrong_type
from led_ref.generation.settings.settings import GenerationConfig

Ids: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.floating[Any]]

# (prompt and generated prefix (N, U), scores (N, V)) -> scores (N, V), the given arrays untouched: see processors.py.
Processor: TypeAlias = Callable[[Ids, Scores], Scores]

# (ids so far (N, U), the scores of each step or None) -> which rows stop here: (N,), or one bool for all. See search.py.
StoppingCriterion: TypeAlias = Callable[[Ids, tuple[Scores, ...] | None], Any]

# (which document, ids so far (U,)) -> the ids that may come next.
PrefixAllowedTokens: TypeAlias = Callable[[int, Ids], Iterable[int]]

# (length so far, max_length), called once a step.
SearchProgress: TypeAlias = Callable[[int, int], None]

# (name, array): receives what a search decides. The array may be overwritten later: copy what you keep.
Recorder: TypeAlias = Callable[[str, npt.NDArray[Any]], None]


class StepFunction(Protocol):
    """One step of the model: new ids (N, U), the rows that they continue (N,) or None -> logits (N, V) of the next id."""

    def __call__(self, token_ids: Ids, parents: Ids | None, /) -> Scores:
        """The logits of the id that follows."""
        ...


@dataclass(frozen=True)
class OwnRules:
    """The caller's own rules, which are functions and not settings (their types are above).

    Args:
        logits_processor: applied after all processors of ours and before the warpers of sampling.
        text_bytes: ids -> the bytes of their text; stop_strings need it.
    """

    logits_processor: Sequence[Processor] = ()
    prefix_allowed_tokens_fn: PrefixAllowedTokens | None = None
    stopping_criteria: Sequence[StoppingCriterion] = ()
    text_bytes: Callable[[Sequence[int]], bytes] | None = None

    def __post_init__(self) -> None:
        """None stands for no rule, and a list is kept as a tuple.

        Raises:
            InputError: for a function in place of a list of functions, and for what cannot be called.
        """
        for name in ("logits_processor", "stopping_criteria"):
            given = getattr(self, name)
            rules = () if given is None else given
            if callable(rules) and not isinstance(rules, Iterable):
                raise InputError(f"{name} is {quoted(given)}, a function; give a list of functions: [{name}].")
            if not isinstance(rules, list | tuple):
                raise wrong_type(name, given, "a list of functions")
            rules = tuple(rules)
            for rule in rules:
                if not callable(rule):
                    raise InputError(f"{name} holds {quoted(rule)}, which cannot be called. Give functions.")
            object.__setattr__(self, name, rules)
        own = self.prefix_allowed_tokens_fn
        if own is not None and not callable(own):
            raise InputError(
                f"prefix_allowed_tokens_fn is {quoted(own)}; give a function (document, ids so far) -> ids."
            )


NO_OWN_RULES = OwnRules()


@dataclass(frozen=True)
class Hooks:
    """What a search calls in each step beside the model.

    Args:
        processors: from `build_processors`. Greedy search and sampling give them raw logits, beams log-probabilities.
        stopping: from `build_stopping`. They see the ids with the new one; beam search gives them its candidates.
        progress: called once a step with (length so far, max_length).
        record: called with the name and the array of each decision: `greedy.step.N.tokens`, `beam.step.N.running.beams`.
    """

    processors: Sequence[Processor] = ()
    stopping: Sequence[StoppingCriterion] = ()
    progress: SearchProgress | None = None
    record: Recorder | None = None

    def process(self, ids_NU: Ids, scores_NV: Scores) -> Scores:
        """The scores after all processors, in their order."""
        for processor in self.processors:
            scores_NV = processor(ids_NU, scores_NV)
        return scores_NV

    def stops(self, ids_NU: Ids, scores: tuple[Scores, ...] | None) -> npt.NDArray[np.bool_]:
        """Which rows (N,) any of the criteria stops.

        Raises:
            InputError: if a criterion returns neither a bool for each row nor one for all.
        """
        stops_N = np.zeros(len(ids_NU), dtype=bool)
        for criterion in self.stopping:
            found = np.asarray(criterion(ids_NU.copy(), scores))
            if found.dtype != bool or found.shape not in ((), stops_N.shape):
                name = getattr(criterion, "__name__", type(criterion).__name__)
                raise InputError(
                    f"stopping_criteria {name} returned {found.dtype} of shape {found.shape}. "
                    f"Return one bool, or an array of {len(ids_NU)}: one for each row."
                )
            stops_N |= found
        return stops_N


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class SearchResult:
    """The finished hypotheses of a search. R = num_return_sequences rows for each document, with beams the best first.

    Fields of the same name in transformers' GenerateEncoderDecoderOutput (one beam) and GenerateBeamEncoderDecoderOutput
    hold the same, with one difference: there, `sequences_scores` is None unless output_scores is set.

    Args:
        sequences: (B * R, U) int64, prompt first, filled up with pad to the longest row.
        sequences_scores: (B * R,) float32, sum of log-probabilities / length ** length_penalty; None without beams.
        scores: with output_scores, one (N, V) float32 array for each step: the processed logits (one beam) or processed
            log-probabilities (beams, running score not added). None without.
        logits: with output_logits, one (N, V) float32 array for each step: the model's own. None without.
        beam_indices: (B * R, U - P) int32: the row n of the step function whose logits chose each id after the prompt's P,
            -1 after the row's end. None without beams.
    """

    sequences: Ids
    sequences_scores: npt.NDArray[np.float32] | None = None
    scores: tuple[npt.NDArray[np.float32], ...] | None = None
    logits: tuple[npt.NDArray[np.float32], ...] | None = None
    beam_indices: npt.NDArray[np.int32] | None = None


class StepOutputs:
    """What output_scores and output_logits collect: copies of each step's arrays, in float32; None where not wanted.

    Args:
        settings: resolved settings.
    """

    def __init__(self, settings: GenerationConfig) -> None:
        self.scores: tuple[npt.NDArray[np.float32], ...] | None = () if settings.output_scores else None
        self.logits: tuple[npt.NDArray[np.float32], ...] | None = () if settings.output_logits else None

    def add(self, logits_NV: npt.NDArray[np.float32], scores_NV: Scores) -> None:
        """Keep the logits and the processed scores of one more step. The model may reuse its array for the next logits."""
        if self.scores is not None:
            self.scores = (*self.scores, scores_NV.astype(np.float32))
        if self.logits is not None:
            self.logits = (*self.logits, logits_NV.copy())


def call_step(
    step: StepFunction, token_ids: Ids, parents: Ids | None, *, may_be_invalid: bool = False
) -> npt.NDArray[np.float32]:
    """Logits (N, V) of one step, as float32: all arithmetic of a search is float32, whatever the model computes in.

    Raises:
        InputError: if a logit is NaN or +inf, and remove_invalid_values does not repair it. Then no id is the best, and any
            id picked would look like a result.
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


def refuse_dead_end(best_N: Scores, ids_NU: Ids, name: str) -> None:
    """Refuse a step that forbids every id: whichever were written would look like a result.

    Args:
        best_N: the best score of each row that still needs an id.
        ids_NU: the ids so far of these rows.
        name: what a row is, for the message: "row" or "document".

    Raises:
        InputError: if one of the scores is -inf.
    """
    dead_N = best_N == -np.inf
    if dead_N.any():
        row = int(np.argmax(dead_N))
        raise InputError(
            f"After {ids_NU.shape[1]} ids ({quoted(ids_NU[row].tolist())}) every next id of {name} {row} is forbidden. Look "
            "at what forbids ids: suppress_tokens, bad_words_ids, no_repeat_ngram_size, encoder_no_repeat_ngram_size, "
            "min_length, forced ids, prefix_allowed_tokens_fn and logits_processor."
        )


def log_softmax(logits_NV: Scores) -> Scores:
    """`x - max - log(sum(exp(x - max)))` over the last axis; the maximum is taken out so that exp cannot overflow."""
    shifted_NV: Scores = logits_NV - logits_NV.max(axis=-1, keepdims=True)
    shifted_NV -= np.log(np.exp(shifted_NV).sum(axis=-1, keepdims=True))
    return shifted_NV


def compute_transition_scores(
    sequences: Ids, scores: tuple[Scores, ...], beam_indices: npt.NDArray[np.integer] | None = None, *, normalize: bool
) -> npt.NDArray[np.float32]:
    """For each id of each text, its score in the step that chose it: `scores[step][row, id]`, (N, U) float32.

    The other arguments are the fields of one SearchResult. `row` is the same in every step without beams. With beams a
    hypothesis changes rows, and beam_indices has its row; where it is -1, after a text's end, the score is 0.
    Source: transformers 5.23, GenerationMixin.compute_transition_scores.

    Args:
        normalize: take the log-softmax of the scores first. Without beams they are logits, which are no measure by themselves.

    Raises:
        InputError: if the scores are of fewer steps than ids, or of other rows.

    Example:
        >>> steps = (np.log([[0.5, 0.3, 0.2]]), np.log([[0.1, 0.1, 0.8]]))
        >>> np.exp(compute_transition_scores(np.array([[2, 0, 2]]), steps, normalize=False)).round(2).tolist()
        [[0.5, 0.800000011920929]]
    """
    if beam_indices is None:
        generated = len(scores)
        rows_NU = np.repeat(np.arange(len(sequences))[:, None], generated, axis=1)
    else:
        generated = int((beam_indices >= 0).sum(axis=1).max())
        rows_NU = np.asarray(beam_indices)[:, :generated]
    if generated > len(scores) or generated >= sequences.shape[1] or rows_NU.shape != (len(sequences), generated):
        shape = None if beam_indices is None else beam_indices.shape
        raise InputError(
            f"sequences has shape {sequences.shape}, there are scores of {len(scores)} steps, and beam_indices is of shape "
            f"{shape}: these are not of one search. Pass result.sequences, result.scores and result.beam_indices together."
        )
    ids_NU = sequences[:, sequences.shape[1] - generated :]
    result_NU = np.zeros(ids_NU.shape, dtype=np.float32)
    for step in range(generated):
        step_scores = log_softmax(scores[step]) if normalize else scores[step]
        real_N = rows_NU[:, step] >= 0
        result_NU[real_N, step] = step_scores[rows_NU[real_N, step], ids_NU[real_N, step]]
    return result_NU
