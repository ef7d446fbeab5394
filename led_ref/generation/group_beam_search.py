"""Diverse beam search: the beams of a document search in groups, and each group shuns what those before it just wrote.

The beams of plain beam search end up as the same text with another last word. Here W beams are cut into groups of
W / num_beam_groups, and each group is a beam search of its own. The groups take their turns within a step, and from a
group's scores goes, for every id,

    score(id) - diversity_penalty * (how many beams of the groups before it wrote this id in this step)

Two groups of one beam each. Both would write 3 and then 4; the penalty of 1 makes the second group look elsewhere:

    >>> P = np.full((6, 6), 1e-9); P[2, 3], P[2, 5], P[3, 4], P[3, 1], P[5, 4], P[5, 1] = 0.6, 0.4, 0.7, 0.3, 0.6, 0.4
    >>> def step(token_ids, parents):
    ...     return np.log(P[token_ids[:, -1]])
    >>> settings = GenerationSettings(num_beams=2, num_beam_groups=2, num_return_sequences=2, max_length=3,
    ...                               diversity_penalty=1.0, length_penalty=0.0)
    >>> group_beam_search(step, np.array([[2]]), settings).sequences.tolist()
    [[2, 3, 4], [2, 5, 1]]

A text's score keeps the penalties that it paid, so the scores of different groups say little about each other. Vijayakumar
et al. 2016 (arXiv 1610.02424), equation 4, with the Hamming distance of section 5.1.

To come to the same texts as transformers 4 (BeamSearchScorer and BeamHypotheses; transformers 5 dropped both), the search of
one group differs from beam.py in when it stops, and a group that is done still counts: as if it wrote pad. Numbers of
finished texts are Python's, because they are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from led_ref.generation.beam_search import NO_SCORE, Floats, best_of_many
from led_ref.generation.settings.settings import GenerationSettings
from led_ref.generation.step import (
    Ids,
    Processor,
    Progress,
    SearchResult,
    StepFunction,
    Tell,
    apply_processors,
    call_step,
    log_softmax,
)


@dataclass(frozen=True)
class Text:
    """One text of a document: its ids with the prompt's, the rows of the step function that wrote them, its score.

    While it runs the score is a sum; once it is finished, that sum / length ** length_penalty.
    """

    ids: tuple[int, ...]
    rows: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Group:
    """Where the search of one group of one document stands."""

    running: tuple[Text, ...]  # as many as the group has beams, best first
    finished: tuple[Text, ...] = ()  # at most as many, in the order in which they were found
    is_done: bool = False  # nothing better is hoped for: the group takes no more texts


def group_beam_search(
    step: StepFunction,
    prompt_ids: Ids,
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    *,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> SearchResult:
    """The best texts of all groups together.

    Source: transformers 4.57, BeamSearchScorer, HammingDiversityLogitsProcessor and the loop that its Hub repository
    transformers-community/group-beam-search holds (to 4.56: GenerationMixin._group_beam_search).

    Args:
        step: the model; see step.py. It is called with N = B * W rows. A document's groups are neighbours.
        prompt_ids: (B, P) int64, each row beginning with the start id.
        settings: resolved settings; num_beams is W, of all groups together.
        processors: from `build_processors`; they see log-probabilities, and the diversity penalty comes after them.
        progress: called once a step with (ids written, max_length).
        tell: called with scores and running beams of each step, under `beam.step.N`.

    Returns:
        sequences, sequences_scores, beam_indices, and with output_scores the processed log-probabilities of each step,
        the diversity penalty taken off, and with output_logits the model's logits. (Rows of a group that is done go on
        for nothing.)

    Raises:
        InputError: if the model's logits contain NaN.
    """
    B, P = prompt_ids.shape
    W = settings.num_beams
    documents = [start_groups(tuple(prompt_ids[b].tolist()), settings) for b in range(B)]
    written_NU, parents = np.repeat(prompt_ids, W, axis=0), None
    new_ids = written_NU
    all_scores, all_logits = [], []
    while written_NU.shape[1] < settings.max_length and not all(g.is_done for groups in documents for g in groups):
        logits_NV = call_step(step, new_ids, parents, may_be_invalid=settings.remove_invalid_values)
        logprobs_NV = log_softmax(logits_NV)
        scores_NV = np.array(apply_processors(processors, written_NU, logprobs_NV), np.float32)
        for b, groups in enumerate(documents):
            documents[b] = advance_document(groups, scores_NV[b * W : (b + 1) * W], settings, b * W, P)
        running = [text for groups in documents for group in groups for text in group.running]
        written_NU = np.array([text.ids for text in running], np.int64)
        new_ids, parents = written_NU[:, -1:], np.array([text.rows[-1] for text in running], np.int64)
        if settings.output_scores:
            all_scores.append(scores_NV)
        if settings.output_logits:
            all_logits.append(logits_NV.copy())
        if tell is not None:
            _tell_step(tell, logprobs_NV, scores_NV, running, (B, W), f"beam.step.{written_NU.shape[1] - P - 1}")
        if progress is not None:
            progress(written_NU.shape[1], settings.max_length)
    result = replace(
        _result(documents, settings, P),
        scores=tuple(all_scores) if settings.output_scores else None,
        logits=tuple(all_logits) if settings.output_logits else None,
    )
    if tell is not None:
        tell("beam.sequences", result.sequences)
        tell("beam.sequences_scores", np.asarray(result.sequences_scores).reshape(B, -1))
    return result


def start_groups(prompt: tuple[int, ...], settings: GenerationSettings) -> list[Group]:
    """The groups of one document: in each only the first beam has a score, else all its beams would write the same."""
    beams = settings.num_beams // settings.num_beam_groups
    first, others = Text(prompt, (), 0.0), Text(prompt, (), float(NO_SCORE))
    return [Group(running=(first, *[others] * (beams - 1))) for _ in range(settings.num_beam_groups)]


def advance_document(
    groups: list[Group], scores_WV: Floats, settings: GenerationSettings, first_row: int, prompt_length: int
) -> list[Group]:
    """One step of one document: its groups in turn, each with the penalty for what those before it wrote.

    Args:
        groups: as they stand.
        scores_WV: what may follow each beam, group after group; the diversity penalty is taken off in place.
        settings: resolved settings.
        first_row: the row of the document's first beam.
        prompt_length: P.
    """
    beams = settings.num_beams // settings.num_beam_groups
    penalty = np.float32(settings.diversity_penalty)
    new_ids: list[int] = []
    advanced = []
    for place, group in enumerate(groups):
        of_group = slice(place * beams, (place + 1) * beams)
        if new_ids:
            counts_V = np.bincount(new_ids, minlength=scores_WV.shape[-1])
            scores_WV[of_group] -= penalty * counts_V.astype(np.float32)
        if group.is_done:
            after = _mark_time(group, settings.fill_token_id, first_row + of_group.start)
        else:
            after = advance_group(group, scores_WV[of_group], settings, first_row + of_group.start, prompt_length)
        new_ids += [text.ids[-1] for text in after.running]
        advanced.append(after)
    return advanced


def advance_group(
    group: Group, scores_WV: Floats, settings: GenerationSettings, first_row: int, prompt_length: int
) -> Group:
    """One step of one group: the best continuations, best first, until as many as there are beams go on.

    One that ends its text is finished if it is among as many best as there are beams, and lost otherwise. W is here the
    beams of the group.
    """
    W, V = scores_WV.shape
    running_W = np.array([text.score for text in group.running], np.float32)
    sums_X = (scores_WV + running_W[:, None]).reshape(W * V)
    best_C = best_of_many(sums_X, max(2, 1 + len(settings.eos_token_ids)) * W)  # W are left even if W * ends come first

    running: list[Text] = []
    finished = group.finished
    for rank, (beam, token) in enumerate(zip(*(half.tolist() for half in divmod(best_C, V)), strict=True)):
        before, score = group.running[beam], float(sums_X[best_C[rank]])
        longer = Text((*before.ids, token), (*before.rows, first_row + beam), score)
        if token not in settings.eos_token_ids:
            running.append(longer)
        elif rank < W:
            finished = keep_best(finished, longer, W, settings.length_penalty)
        if len(running) == W:
            break
    length = len(running[0].rows)
    is_done = len(finished) == W and cannot_improve(finished, float(sums_X[best_C[0]]), length, settings, prompt_length)
    return Group(tuple(running), finished, is_done)


def keep_best(finished: tuple[Text, ...], text: Text, most: int, length_penalty: float) -> tuple[Text, ...]:
    """The finished texts with one more, or, where there are `most` already, without the worst of them.

    Example:
        >>> two = keep_best((Text((2, 5), (0,), -1.0),), Text((2, 6, 7), (0, 1), -6.0), 2, length_penalty=1.0)
        >>> [text.score for text in two], [text.score for text in keep_best(two, Text((2, 8), (1,), -2.0), 2, 1.0)]
        ([-1.0, -3.0], [-1.0, -2.0])
        >>> keep_best(two, Text((2, 9), (1,), -3.0), 2, 1.0) == two  # as good as the worst is not good enough
        True
    """
    more = (*finished, replace(text, score=text.score / len(text.rows) ** length_penalty))
    if len(more) <= most:
        return more
    worst = min(range(len(more)), key=lambda i: more[i].score)
    worst = most if more[-1].score == more[worst].score else worst  # the new one goes, then
    return more[:worst] + more[worst + 1 :]


def cannot_improve(
    finished: tuple[Text, ...], best_sum: float, written: int, settings: GenerationSettings, prompt_length: int
) -> bool:
    """Whether a full group is done: no continuation of this step could end with more than the worst finished text has.

    `best_sum` is that of the best continuation, be it an end. early_stopping=True asks no more; "never" hopes for the
    kindest length, the longest if length_penalty > 0; False takes the length of today.
    """
    if settings.early_stopping is True:
        return True
    patient = settings.early_stopping == "never" and settings.length_penalty > 0
    hoped_length = settings.max_length - prompt_length if patient else written
    hope: float = best_sum / hoped_length**settings.length_penalty
    return min(text.score for text in finished) >= hope


def _mark_time(group: Group, fill: int, first_row: int) -> Group:
    """A group that is done, one step later: it has rows yet, and fills them up with pad."""
    running = tuple(Text((*t.ids, fill), (*t.rows, first_row + i), 0.0) for i, t in enumerate(group.running))
    return replace(group, running=running)


def _result(documents: list[list[Group]], settings: GenerationSettings, prompt_length: int) -> SearchResult:
    """The best R texts of each document, whichever groups they are from, filled up to the longest of them."""
    best = [text for groups in documents for text in _best_of_all(groups, settings)]
    longest = max(len(text.rows) for text in best)
    sequences = np.full((len(best), prompt_length + longest), settings.fill_token_id, np.int64)
    rows = np.full((len(best), longest), -1, np.int32)
    for r, text in enumerate(best):
        sequences[r, : len(text.ids)], rows[r, : len(text.rows)] = text.ids, text.rows
        if text.ids[-1] in settings.eos_token_ids:
            sequences[r, len(text.ids) - 1] = settings.eos_token_ids[0]  # as there: whichever end it was
    values = np.array([text.score for text in best], np.float32)
    return SearchResult(sequences=sequences, sequences_scores=values, beam_indices=rows)


def _best_of_all(groups: list[Group], settings: GenerationSettings) -> list[Text]:
    """The best R finished texts; those that max_length cut off count as finished. Of equal ones the last goes first."""
    beams = settings.num_beams // settings.num_beam_groups
    found: list[Text] = []
    for group in groups:
        finished = group.finished
        for text in () if group.is_done else group.running:
            finished = keep_best(finished, text, beams, settings.length_penalty)
        found += finished
    found.sort(key=lambda text: text.score)
    return found[::-1][: settings.num_return_sequences]


def _tell_step(
    tell: Tell, logprobs_NV: Floats, scores_NV: Floats, running: list[Text], shape_BW: tuple[int, int], now: str
) -> None:
    """Name what one step decided, as beam.py does; `beams` counts those of all groups of a document."""
    tell(f"{now}.logprobs", logprobs_NV)
    tell(f"{now}.scores", scores_NV)
    tell(f"{now}.running.scores", np.array([text.score for text in running], np.float32).reshape(shape_BW))
    tell(f"{now}.running.tokens", np.array([text.ids[-1] for text in running]).reshape(shape_BW))
    tell(f"{now}.running.beams", np.array([text.rows[-1] for text in running]).reshape(shape_BW) % shape_BW[1])
