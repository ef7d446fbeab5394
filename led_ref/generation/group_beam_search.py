"""Diverse beam search: beams search in groups, and each group is penalised for what earlier groups chose.

The beams of plain beam search often end as one text with different last words. Here the W beams are divided into groups of
W / num_beam_groups, and each group is a beam search of its own. In each step the groups choose in turn, and the scores of
a group are

    score(id) - diversity_penalty * (how many beams of the earlier groups chose this id in this step)

Two groups of one beam each. Both would choose 3 and then 4; the penalty of 1 makes the second group choose another id:

    >>> P = np.full((6, 6), 1e-9); P[2, 3], P[2, 5], P[3, 4], P[3, 1], P[5, 4], P[5, 1] = 0.6, 0.4, 0.7, 0.3, 0.6, 0.4
    >>> def step(token_ids, parents):
    ...     return np.log(P[token_ids[:, -1]])
    >>> settings = GenerationConfig(num_beams=2, num_beam_groups=2, num_return_sequences=2, max_length=3,
    ...                               diversity_penalty=1.0, length_penalty=0.0)
    >>> group_beam_search(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 3, 4], [2, 5, 1]]

The penalties stay in a hypothesis' score, so scores of different groups are hard to compare. Vijayakumar et al. 2016
(arXiv 1610.02424), equation 4, with the Hamming distance of section 5.1.

To find the same texts as transformers 4 (BeamSearchScorer and BeamHypotheses; transformers 5 dropped both), the search of
one group stops by another rule than beam_search.py, and a group that is done still counts as if it chose pad. Scores of
finished hypotheses are Python's floats, as in transformers 4.
"""

from dataclasses import dataclass, replace

import numpy as np

from led_ref.generation.beam_search import NO_SCORE, Floats, best_of_many
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


@dataclass(frozen=True)
class Hypothesis:
    """The ids of one hypothesis with the prompt's, the rows of the step function whose logits chose them, its score.

    The score of a running hypothesis is a sum of log-probabilities; of a finished one, sum / length ** length_penalty.
    """

    ids: tuple[int, ...]
    rows: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Group:
    """The state of the search of one group of one document."""

    running: tuple[Hypothesis, ...]  # the group's beams, best first
    finished: tuple[Hypothesis, ...] = ()  # at most as many as beams, in the order in which they were found
    is_done: bool = False  # no better one is expected: the group takes no more hypotheses


def group_beam_search(
    step: StepFunction, prompt_ids: Ids, settings: GenerationConfig, hooks: Hooks = NO_HOOKS
) -> SearchResult:
    """The best hypotheses of all groups together.

    Source: transformers 4.57, BeamSearchScorer, HammingDiversityLogitsProcessor and the loop that its Hub repository
    transformers-community/group-beam-search holds (to 4.56: GenerationMixin._group_beam_search).

    Arguments, result and errors as in `beam_search`. W is the beams of all groups together; those of one group are neighbours.
    The diversity penalty comes after the processors, and is subtracted in the scores of each step; stopping criteria are not
    part of this search. (Rows of a group that is done still run, without effect.)
    """
    B, P = prompt_ids.shape
    W = settings.num_beams
    documents = [start_groups(tuple(prompt_ids[b].tolist()), settings) for b in range(B)]
    prefix_NU, parents = np.repeat(prompt_ids, W, axis=0), None
    new_ids = prefix_NU
    outputs = StepOutputs(settings)
    while prefix_NU.shape[1] < settings.max_length and not all(g.is_done for groups in documents for g in groups):
        logits_NV = call_step(step, new_ids, parents, may_be_invalid=settings.remove_invalid_values)
        logprobs_NV = log_softmax(logits_NV)
        scores_NV = np.array(hooks.process(prefix_NU, logprobs_NV), np.float32)
        for b, groups in enumerate(documents):
            documents[b] = advance_document(groups, scores_NV[b * W : (b + 1) * W], settings, b * W)
        running = [hypothesis for groups in documents for group in groups for hypothesis in group.running]
        prefix_NU = np.array([hypothesis.ids for hypothesis in running], np.int64)
        new_ids, parents = prefix_NU[:, -1:], np.array([hypothesis.rows[-1] for hypothesis in running], np.int64)
        outputs.add(logits_NV, scores_NV)
        if hooks.record is not None:
            _record_step(
                hooks.record, logprobs_NV, scores_NV, running, (B, W), f"beam.step.{prefix_NU.shape[1] - P - 1}"
            )
        if hooks.progress is not None:
            hooks.progress(prefix_NU.shape[1], settings.max_length)
    result = _result(documents, settings, P, outputs)
    if hooks.record is not None:
        hooks.record("beam.sequences", result.sequences)
        hooks.record("beam.sequences_scores", np.asarray(result.sequences_scores).reshape(B, -1))
    return result


def start_groups(prompt: tuple[int, ...], settings: GenerationConfig) -> list[Group]:
    """The groups of one document: in each only the first beam has a score, else all its beams would be the same."""
    beams = settings.num_beams // settings.num_beam_groups
    first, others = Hypothesis(prompt, (), 0.0), Hypothesis(prompt, (), float(NO_SCORE))
    return [Group(running=(first, *[others] * (beams - 1))) for _ in range(settings.num_beam_groups)]


def advance_document(groups: list[Group], scores_WV: Floats, settings: GenerationConfig, first_row: int) -> list[Group]:
    """One step of one document: its groups in turn, each penalised for what the earlier groups chose.

    Args:
        groups: their state before this step.
        scores_WV: the scores of each beam's next id, group after group; the diversity penalty is subtracted in place.
        settings: resolved settings.
        first_row: the row of the document's first beam.
    """
    beams = settings.num_beams // settings.num_beam_groups
    penalty = np.float32(settings.diversity_penalty)
    new_ids: list[int] = []
    advanced = []
    for number, group in enumerate(groups):
        of_group = slice(number * beams, (number + 1) * beams)
        if new_ids:
            counts_V = np.bincount(new_ids, minlength=scores_WV.shape[-1])
            scores_WV[of_group] -= penalty * counts_V.astype(np.float32)
        if group.is_done:
            after = _pad_group(group, settings.fill_token_id, first_row + of_group.start)
        else:
            after = advance_group(group, scores_WV[of_group], settings, first_row + of_group.start)
        new_ids += [hypothesis.ids[-1] for hypothesis in after.running]
        advanced.append(after)
    return advanced


def advance_group(group: Group, scores_WV: Floats, settings: GenerationConfig, first_row: int) -> Group:
    """One step of one group: its best W continuations that do not end are the next beams.

    One that ends is finished if it is among the best W of all, and lost otherwise. W is here the beams of the group.
    """
    W, V = scores_WV.shape
    running_W = np.array([hypothesis.score for hypothesis in group.running], np.float32)
    sums_X = (scores_WV + running_W[:, None]).reshape(W * V)
    best_C = best_of_many(sums_X, settings.candidates_per_beam * W)  # W others remain even if all ends come first

    running: list[Hypothesis] = []
    finished = group.finished
    for rank, (beam, token) in enumerate(zip(*(half.tolist() for half in divmod(best_C, V)), strict=True)):
        before, score = group.running[beam], float(sums_X[best_C[rank]])
        longer = Hypothesis((*before.ids, token), (*before.rows, first_row + beam), score)
        if token not in settings.eos_token_ids:
            running.append(longer)
        elif rank < W:
            finished = keep_best(finished, longer, W, settings.length_penalty)
        if len(running) == W:
            break
    best_sum, generated = float(sums_X[best_C[0]]), len(running[0].rows)
    is_done = len(finished) == W and cannot_improve(finished, best_sum, generated, settings)
    return Group(tuple(running), finished, is_done)


def keep_best(
    finished: tuple[Hypothesis, ...], new: Hypothesis, most: int, length_penalty: float
) -> tuple[Hypothesis, ...]:
    """The finished hypotheses with a new one; of more than `most` the worst is dropped.

    Example:
        >>> two = keep_best((Hypothesis((2, 5), (0,), -1.0),), Hypothesis((2, 6, 7), (0, 1), -6.0), 2, length_penalty=1.0)
        >>> [h.score for h in two], [h.score for h in keep_best(two, Hypothesis((2, 8), (1,), -2.0), 2, 1.0)]
        ([-1.0, -3.0], [-1.0, -2.0])
        >>> keep_best(two, Hypothesis((2, 9), (1,), -3.0), 2, 1.0) == two  # one as good as the worst is not kept
        True
    """
    more = (*finished, replace(new, score=new.score / len(new.rows) ** length_penalty))
    if len(more) <= most:
        return more
    worst = min(range(len(more)), key=lambda i: more[i].score)
    worst = most if more[-1].score == more[worst].score else worst  # of equal ones the new one is dropped
    return more[:worst] + more[worst + 1 :]


def cannot_improve(
    finished: tuple[Hypothesis, ...], best_sum: float, generated: int, settings: GenerationConfig
) -> bool:
    """Whether a full group is done: no continuation of this step could end with more than the worst finished score.

    `best_sum` is the sum of the best continuation, which may be an end. early_stopping=True is always done; "never" assumes
    the most favourable length, the longest if length_penalty > 0; False the present one, `generated`.
    """
    if settings.early_stopping is True:
        return True
    patient = settings.early_stopping == "never" and settings.length_penalty > 0
    prompt_length = len(finished[0].ids) - len(finished[0].rows)
    hoped_length = settings.max_length - prompt_length if patient else generated
    hope: float = best_sum / hoped_length**settings.length_penalty
    return min(hypothesis.score for hypothesis in finished) >= hope


def _pad_group(group: Group, fill: int, first_row: int) -> Group:
    """A group that is done, one step later: its rows still run, and get pad."""
    running = tuple(Hypothesis((*h.ids, fill), (*h.rows, first_row + i), 0.0) for i, h in enumerate(group.running))
    return replace(group, running=running)


def _result(
    documents: list[list[Group]], settings: GenerationConfig, prompt_length: int, outputs: StepOutputs
) -> SearchResult:
    """The best R hypotheses of each document, from all its groups, filled up to the longest of them."""
    best = [hypothesis for groups in documents for hypothesis in _best_of_all(groups, settings)]
    longest = max(len(hypothesis.rows) for hypothesis in best)
    sequences = np.full((len(best), prompt_length + longest), settings.fill_token_id, np.int64)
    rows = np.full((len(best), longest), -1, np.int32)
    for r, hypothesis in enumerate(best):
        sequences[r, : len(hypothesis.ids)], rows[r, : len(hypothesis.rows)] = hypothesis.ids, hypothesis.rows
        if hypothesis.ids[-1] in settings.eos_token_ids:
            # As transformers 4: whichever end it was, the first of them is returned.
            sequences[r, len(hypothesis.ids) - 1] = settings.eos_token_ids[0]
    scores = np.array([hypothesis.score for hypothesis in best], np.float32)
    return SearchResult(sequences, scores, outputs.scores, outputs.logits, beam_indices=rows)


def _best_of_all(groups: list[Group], settings: GenerationConfig) -> list[Hypothesis]:
    """The best R finished hypotheses; those cut off by max_length count as finished. Of equal ones the last goes first."""
    beams = settings.num_beams // settings.num_beam_groups
    best: list[Hypothesis] = []
    for group in groups:
        finished = group.finished
        for hypothesis in () if group.is_done else group.running:
            finished = keep_best(finished, hypothesis, beams, settings.length_penalty)
        best += finished
    best.sort(key=lambda hypothesis: hypothesis.score)
    return best[::-1][: settings.num_return_sequences]


def _record_step(
    record: Recorder,
    logprobs_NV: Floats,
    scores_NV: Floats,
    running: list[Hypothesis],
    shape_BW: tuple[int, int],
    now: str,
) -> None:
    """Record what one step decided, as in beam_search.py; `beams` are numbered through all groups of a document."""
    record(f"{now}.logprobs", logprobs_NV)
    record(f"{now}.scores", scores_NV)
    record(f"{now}.running.scores", np.array([h.score for h in running], np.float32).reshape(shape_BW))
    record(f"{now}.running.tokens", np.array([h.ids[-1] for h in running]).reshape(shape_BW))
    record(f"{now}.running.beams", np.array([h.rows[-1] for h in running]).reshape(shape_BW) % shape_BW[1])
