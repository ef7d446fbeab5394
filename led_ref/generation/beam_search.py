"""Beam search: keep the W best running hypotheses (beams) of each document, and collect the W best finished ones.

The id that looks best first need not begin the best text. Here id 3 is likelier than 4 at first (0.6 against 0.4), but
the id after 3 is unsure (two ids at 0.5 each), the id after 4 is sure. Greedy search finds 0.6 * 0.5, two beams find
0.4 * 1:

    >>> P = np.zeros((6, 6)); P[2, 3], P[2, 4], P[3, 0], P[3, 1], P[4, 5] = 0.6, 0.4, 0.5, 0.5, 1.0
    >>> def step(token_ids, parents):
    ...     return np.log(np.maximum(P[token_ids[:, -1]], 1e-30))
    >>> settings = GenerationConfig(num_beams=2, max_length=3, pad_token_id=1)
    >>> beam_search(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 4, 5]]

The numbers 1 to 6 in this file are those of docs/semantics.md, "generate". Scores are sums of log-probabilities in float32.
"No score yet" is -1e9, not -inf: added to a score it still leaves an order among hopeless candidates. This arithmetic is
that of transformers to the letter, so that both find the same texts. Of equal scores the lower index goes first (torch
leaves that open).

B documents, W beams, L max_length, P ids of the prompt, C candidates kept in a step, N = B * W rows, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from led_ref.generation.sampling import Stream, draw_without_replacement, streams
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import (
    NO_HOOKS,
    Hooks,
    Ids,
    Recorder,
    SearchResult,
    StepFunction,
    StepOutputs,
    call_step,
    log_softmax,
)

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]

NO_SCORE = np.float32(-1e9)


@dataclass(frozen=True)
class Hypotheses:
    """X hypotheses of each document, best first.

    `rows` are the rows of the step function whose logits chose the ids; -1 after the generated prefix.
    """

    ids_BXL: Ids
    rows_BXL: Rows  # (B, X, L - P)
    scores_BX: Floats

    def take(self, indices_BY: npt.NDArray[np.intp]) -> "Hypotheses":
        """Those at the indices, in that order."""
        return Hypotheses(*(_take(array, indices_BY) for array in (self.ids_BXL, self.rows_BXL, self.scores_BX)))


@dataclass(frozen=True)
class Candidates(Hypotheses):
    """The C best one-id continuations of each document's beams."""

    stops_BC: Bools  # whether the hypothesis ends here


@dataclass(frozen=True)
class Beams:
    """The state of the search: the W running hypotheses of each document, and its W best finished ones."""

    prompt_length: int  # P
    length: int  # prompt and generated prefix
    running: Hypotheses
    finished: Hypotheses
    is_finished_BW: Bools  # False: this slot for a finished hypothesis is still empty
    is_open_B: Bools  # whether the document can still get a better finished hypothesis


def beam_search(
    step: StepFunction, prompt_ids: Ids, settings: GenerationConfig, hooks: Hooks = NO_HOOKS
) -> SearchResult:
    """The hypotheses of highest `sum of log-probabilities / length ** length_penalty` that W beams find.

    With do_sample the candidates of each step are drawn by their scores, instead of being the best ones.
    Source: transformers 5.23, GenerationMixin._beam_search; `length` counts neither the prompt nor the padding.

    Arguments as in `greedy_search`; the step function gets N = B * W rows, at the first call too, and the record is that of
    `record_step`. Scores are not normalised again after the processors.

    Returns:
        sequences, sequences_scores, beam_indices, and with output_scores the processed log-probabilities of each step,
        with output_logits the model's logits.

    Raises:
        SettingsError: if there are several seeds, and not one for each document.
        InputError: if the model's logits contain NaN, or nothing is left to draw.
    """
    beams = start_beams(prompt_ids, settings)
    new_ids, parents = np.repeat(prompt_ids, settings.num_beams, axis=0), None
    outputs = StepOutputs(settings)
    # The candidates of one document are drawn together, and so from one stream.
    draws = streams(settings, len(prompt_ids), 1) if settings.do_sample else None
    goes_on = True
    while goes_on:
        prefix_NU = _as_rows(beams.running.ids_BXL[:, :, : beams.length])
        logits_NV = call_step(step, new_ids, parents, may_be_invalid=settings.remove_invalid_values)
        logprobs_NV = log_softmax(logits_NV)
        scores_NV = hooks.process(prefix_NU, logprobs_NV)
        outputs.add(logits_NV, scores_NV)
        candidates = best_candidates(beams, scores_NV, settings, draws)
        if hooks.stopping:
            ids_NU = _as_rows(candidates.ids_BXL[:, :, : beams.length + 1])
            stops_BC = hooks.stops(ids_NU, outputs.scores).reshape(candidates.stops_BC.shape)
            candidates = replace(candidates, stops_BC=candidates.stops_BC | stops_BC)
        beams = advance(beams, candidates, settings)
        if hooks.record is not None:
            record_step(hooks.record, logprobs_NV, scores_NV, candidates, beams)
        new_ids = _as_rows(beams.running.ids_BXL[:, :, beams.length - 1])[:, None]
        parents = _as_rows(beams.running.rows_BXL[:, :, beams.length - 1 - beams.prompt_length]).astype(np.int64)
        goes_on = search_goes_on(beams, candidates, settings)
        if hooks.progress is not None:
            hooks.progress(beams.length, settings.max_length)
    result = _result(beams, settings, outputs)
    if hooks.record is not None:
        hooks.record("beam.sequences", result.sequences)
        hooks.record("beam.sequences_scores", beams.finished.scores_BX[:, : settings.num_return_sequences])
    return result


def start_beams(prompt_ids_BP: Ids, settings: GenerationConfig) -> Beams:
    """Step 1. W copies of the prompt, of which only the first has a score: else all beams would be the same hypothesis."""
    B, P = prompt_ids_BP.shape
    W, L = settings.num_beams, settings.max_length
    ids_BWL = np.full((B, W, L), settings.fill_token_id, dtype=np.int64)
    ids_BWL[:, :, :P] = prompt_ids_BP[:, None, :]
    rows_BWL = np.full((B, W, L - P), -1, dtype=np.int32)
    empty_BW = np.full((B, W), NO_SCORE)
    first_only_BW = empty_BW.copy()
    first_only_BW[:, 0] = 0
    return Beams(
        prompt_length=P,
        length=P,
        running=Hypotheses(ids_BWL, rows_BWL, first_only_BW),
        finished=Hypotheses(ids_BWL, rows_BWL, empty_BW),
        is_finished_BW=np.zeros((B, W), dtype=bool),
        is_open_B=np.ones(B, dtype=bool),
    )


def best_candidates(
    beams: Beams, scores_NV: Floats, settings: GenerationConfig, draws: Sequence[Stream] | None = None
) -> Candidates:
    """Steps 2 and 3a. Of the W * V continuations of each document, the best C, and whether each ends its hypothesis.

    C is W to continue plus W for each id that may end a text (and at least 2 W): even if every beam's best continuations
    are ends, W others remain. With `draws`, a stream for each document, they are drawn from the softmax of their scores,
    none twice, and kept in the order of the draws.
    """
    B, W = beams.running.scores_BX.shape
    V = scores_NV.shape[-1]
    kept = settings.candidates_per_beam * W
    sums_BX = (scores_NV.reshape(B, W, V) + beams.running.scores_BX[:, :, None]).reshape(B, W * V)
    if draws is None:
        best_BC = np.stack([best_of_many(sums_X, kept) for sums_X in sums_BX])
    else:
        best_BC = np.stack([draw_without_replacement(sums_BX[b], kept, stream) for b, stream in enumerate(draws)])
    beam_BC, token_BC = best_BC // V, best_BC % V

    ids_BCL, rows_BCL = _take(beams.running.ids_BXL, beam_BC), _take(beams.running.rows_BXL, beam_BC)
    ids_BCL[:, :, beams.length] = token_BC
    rows_BCL[:, :, beams.length - beams.prompt_length] = beam_BC + W * np.arange(B)[:, None]

    at_the_end = beams.length + 1 >= settings.max_length
    stops_BC = np.isin(token_BC, settings.eos_token_ids) | at_the_end
    return Candidates(ids_BCL, rows_BCL, _take(sums_BX, best_BC), stops_BC)


def advance(beams: Beams, candidates: Candidates, settings: GenerationConfig) -> Beams:
    """Steps 3b, 4 and 5: the beams after this step."""
    W = settings.num_beams

    # 3b. The best W that do not stop are the next beams. One that stops is a beam only for want of others.
    running_BC = candidates.scores_BX + np.where(candidates.stops_BC, NO_SCORE, np.float32(0))
    running = Hypotheses(candidates.ids_BXL, candidates.rows_BXL, running_BC)

    # 4. Of old and new finished hypotheses together, the best W stay.
    values_BC, finishes_BC = finished_values(beams, candidates, settings)
    old, new = beams.finished, Hypotheses(candidates.ids_BXL, candidates.rows_BXL, values_BC)
    both = Hypotheses(
        np.concatenate([old.ids_BXL, new.ids_BXL], axis=1),
        np.concatenate([old.rows_BXL, new.rows_BXL], axis=1),
        np.concatenate([old.scores_BX, new.scores_BX], axis=1),
    )
    best_BW = best_of_few(both.scores_BX, W)

    after = Beams(
        prompt_length=beams.prompt_length,
        length=beams.length + 1,
        running=running.take(best_of_few(running_BC, W)),
        finished=both.take(best_BW),
        is_finished_BW=_take(np.concatenate([beams.is_finished_BW, finishes_BC], axis=1), best_BW),
        is_open_B=beams.is_open_B,
    )
    # 5. Once the finished hypotheses of a document cannot be beaten, it is closed, and stays closed.
    return replace(after, is_open_B=beams.is_open_B & can_improve(after, settings))


def finished_values(beams: Beams, candidates: Candidates, settings: GenerationConfig) -> tuple[Floats, Bools]:
    """Step 4. The length-normalised score of each candidate, and whether the candidate finishes.

    `value = score / length ** length_penalty`, where `length` counts the generated ids with the end. Only the best W
    candidates can finish; the others only serve to leave enough beams. For ends that come too late NO_SCORE is added:
    with early_stopping=True once W hypotheses are finished, and always once the document is closed.
    """
    generated = beams.length + 1 - beams.prompt_length
    values_BC = candidates.scores_BX / np.float32(generated**settings.length_penalty)
    is_full_B1 = beams.is_finished_BW.all(axis=1, keepdims=True) & (settings.early_stopping is True)
    finishes_BC = candidates.stops_BC & (np.arange(candidates.stops_BC.shape[1]) < settings.num_beams)
    # One after the other, as transformers adds them: in float32, -1e9 swallows what is small beside it.
    for in_vain in (is_full_B1, ~beams.is_open_B[:, None], ~finishes_BC):
        values_BC = values_BC + np.where(in_vain, NO_SCORE, np.float32(0))
    return values_BC, finishes_BC


def can_improve(beams: Beams, settings: GenerationConfig) -> Bools:
    """Step 5. (B,): whether the best running hypothesis may still beat the worst finished one.

    Scores only fall, so the present score is the most that a running hypothesis can have; its divisor depends on its final
    length. early_stopping="never" assumes the most favourable length, the longest if length_penalty > 0. Otherwise it is
    the present length: a good guess that ends many searches earlier.
    """
    patient = settings.early_stopping == "never" and settings.length_penalty > 0
    hoped_length = (settings.max_length if patient else beams.length) - beams.prompt_length
    with np.errstate(over="ignore"):  # -1e9 / length ** -20 is -inf in float32, and that is a fair value for it
        hoped_B1 = beams.running.scores_BX[:, :1] / np.float32(hoped_length**settings.length_penalty)
    worst_B1 = beams.finished.scores_BX.min(axis=1, keepdims=True)
    return np.asarray((hoped_B1 > np.where(beams.is_finished_BW, worst_B1, NO_SCORE)).any(axis=1))


def search_goes_on(beams: Beams, candidates: Candidates, settings: GenerationConfig) -> bool:
    """Step 6. Some document is open, some candidate can be continued, and early_stopping=True still lacks a hypothesis."""
    has_enough = settings.early_stopping is True and bool(beams.is_finished_BW.all())
    return bool(beams.is_open_B.any()) and not has_enough and not bool(candidates.stops_BC.all())


def record_step(record: Recorder, logprobs_NV: Floats, scores_NV: Floats, candidates: Candidates, beams: Beams) -> None:
    """Record all that one step decided, under `beam.step.N`.

    The tree of hypotheses can be drawn from it: `tokens` are the ids that this step appended, `beams` the beams of the
    previous step that they were appended to.
    """
    last, new = beams.length - 1, beams.length - 1 - beams.prompt_length
    W = beams.running.scores_BX.shape[1]
    now = f"beam.step.{new}"
    record(f"{now}.logprobs", logprobs_NV)
    record(f"{now}.scores", scores_NV)
    record(f"{now}.candidates.scores", candidates.scores_BX)
    record(f"{now}.candidates.tokens", candidates.ids_BXL[:, :, last])
    record(f"{now}.candidates.beams", candidates.rows_BXL[:, :, new] % W)
    record(f"{now}.candidates.stops", candidates.stops_BC)
    record(f"{now}.running.scores", beams.running.scores_BX)
    record(f"{now}.running.tokens", beams.running.ids_BXL[:, :, last])
    record(f"{now}.running.beams", beams.running.rows_BXL[:, :, new] % W)
    record(f"{now}.finished.scores", beams.finished.scores_BX)
    record(f"{now}.finished.ids", beams.finished.ids_BXL)
    record(f"{now}.finished.is_finished", beams.is_finished_BW)
    record(f"{now}.is_open", beams.is_open_B)


def _result(beams: Beams, settings: GenerationConfig, outputs: StepOutputs) -> SearchResult:
    """The best R finished hypotheses of each document, cut to the longest of them."""
    R = settings.num_return_sequences
    rows = _as_rows(beams.finished.rows_BXL[:, :R])
    generated = int((rows >= 0).sum(axis=1).max())
    return SearchResult(
        sequences=_as_rows(beams.finished.ids_BXL[:, :R])[:, : beams.prompt_length + generated],
        sequences_scores=_as_rows(beams.finished.scores_BX[:, :R]),
        beam_indices=rows[:, :generated],
        scores=outputs.scores,
        logits=outputs.logits,
    )


# ---- arrays ---------------------------------------------------------------------------------------------------------


def best_of_many(scores_X: Floats, count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` highest scores, best first; of equal ones the lower index first. For X in the 100,000s.

    A full sort would be most of a step's search time. The count-th highest score is found by partition, and only what
    reaches it is sorted: `count` numbers, or more where several are equal to it.

    Example:
        >>> best_of_many(np.array([1.0, 5.0, 3.0, 5.0, 3.0]), 3).tolist()
        [1, 3, 2]
    """
    threshold = np.partition(scores_X, -count)[-count]
    reaching = np.flatnonzero(scores_X >= threshold)
    return reaching[np.argsort(-scores_X[reaching], kind="stable")[:count]]


def best_of_few(scores_BX: Floats, count: int) -> npt.NDArray[np.intp]:
    """The same for each row of a small array, by a stable sort."""
    return np.argsort(-scores_BX, axis=1, kind="stable")[:, :count]


def _take(array: npt.NDArray[Any], indices_BX: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """A new array of `array[b, indices[b, x]]`, with any further axes."""
    return array[np.arange(len(array))[:, None], indices_BX]


def _as_rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(B, W, ...) -> (B * W, ...): row n is beam n % W of document n // W."""
    return array.reshape(math.prod(array.shape[:2]), *array.shape[2:])
