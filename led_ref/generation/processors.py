"""Logits processors: rules that change the scores of the next id before the search chooses.

Each is a pure function of the ids so far (prompt and generated prefix) and the scores of the next one,

    processor(ids_NU, scores_NV) -> scores_NV

that leaves its arguments as they are. A forbidden id gets -inf. For example, no two ids in a row may come twice:

    >>> ids = np.array([[5, 6, 5]])
    >>> forbid_repeated_ngrams(ids, np.zeros((1, 8)), size=2).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -inf, 0.0]]

The ids contain (5, 6), so 6 may not follow 5 again. `build_processors` picks those that the settings ask for, in
transformers' order (docs/semantics.md, generate). Greedy search hands in raw logits, beam search log-probabilities: a
penalty that scales scores therefore means something else in each.

This file holds the rules about repetition, length and forced ids; `processors_by_id.py` those that name ids, `warpers.py`
the logits warpers of sampling (temperature, top-k, ...).

N rows, U ids so far, V vocabulary, B documents, T source positions. Rows of one document are neighbours.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from led_ref.errors import SettingsError
from led_ref.generation.processors_by_id import (
    add_biases,
    allow_by_prefix,
    bias_table,
    checked,
    favour_the_end,
    remove_invalid,
    suppress,
)
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import NO_OWN_RULES, Ids, OwnRules, Processor, Scores, log_softmax
from led_ref.generation.warpers import build_warpers

# Of one document: the first n - 1 ids of an n-gram -> the last ids of all n-grams that begin with them.
NgramTable = Mapping[tuple[int, ...], Sequence[int]]


def build_processors(
    settings: GenerationConfig, *, prompt_length: int, source_ids: Ids | None = None, own: OwnRules = NO_OWN_RULES
) -> tuple[Processor, ...]:
    """The processors that the settings ask for, in transformers' order.

    Args:
        settings: resolved settings.
        prompt_length: P.
        source_ids: (B, T) int64, the ids that the encoder read, padding included, as in transformers. The two encoder
            settings need them; their tables are made here, once for each document.
        own: the caller's own rules.

    Raises:
        SettingsError: if a setting needs source ids and they are None.
    """
    chosen: list[Processor] = []
    if settings.sequence_bias:
        chosen.append(partial(add_biases, biases=bias_table(settings.sequence_bias)))
    chosen += _against_repetition(settings, source_ids)
    # An end id by itself may be among the bad words; it stays allowed, or no text could end.
    bad = [run for run in settings.bad_words_ids if run not in [(token,) for token in settings.eos_token_ids]]
    if bad:
        chosen.append(partial(add_biases, biases=bias_table((run, -np.inf) for run in dict.fromkeys(bad))))
    least = max(settings.min_length, prompt_length + (settings.min_new_tokens or 0))
    if settings.eos_token_ids and least > prompt_length:
        chosen.append(partial(forbid_early_end, eos_token_ids=settings.eos_token_ids, least_length=least))
    if own.prefix_allowed_tokens_fn is not None:
        rows, beams = settings.rows_per_document, settings.num_beams
        allowed = own.prefix_allowed_tokens_fn
        chosen.append(partial(allow_by_prefix, allowed=allowed, rows_per_document=rows, beams=beams))
    if settings.forced_bos_token_id is not None:
        # Not prompt_length: a longer prompt has its second id already.
        chosen.append(partial(force_ids, token_ids=(settings.forced_bos_token_id,), at_length=1))
    if settings.forced_eos_token_ids:
        at_length = settings.max_length - 1
        chosen.append(partial(force_ids, token_ids=settings.forced_eos_token_ids, at_length=at_length))
    if settings.remove_invalid_values:
        chosen.append(remove_invalid)
    if settings.exponential_decay_length_penalty is not None:
        start, factor = settings.exponential_decay_length_penalty
        ends, after = settings.eos_token_ids, prompt_length + start
        chosen.append(partial(favour_the_end, eos_token_ids=ends, after_length=after, factor=factor))
    if settings.suppress_tokens:
        chosen.append(partial(suppress, token_ids=settings.suppress_tokens))
    if settings.begin_suppress_tokens:
        # Where the first id is forced, the text begins with the second one.
        begin = prompt_length + (prompt_length == 1 and settings.forced_bos_token_id is not None)
        chosen.append(partial(suppress, token_ids=settings.begin_suppress_tokens, at_length=begin))
    chosen += [checked(processor) for processor in own.logits_processor]
    if settings.do_sample:
        chosen += build_warpers(settings)
    if settings.renormalize_logits:
        chosen.append(renormalize)
    return tuple(chosen)


def _against_repetition(settings: GenerationConfig, source_ids: Ids | None) -> list[Processor]:
    chosen: list[Processor] = []
    if settings.encoder_repetition_penalty != 1.0:
        source = _source(source_ids, "encoder_repetition_penalty", settings.encoder_repetition_penalty)
        distinct = [np.unique(row) for row in source]
        penalty = settings.encoder_repetition_penalty
        chosen.append(partial(favour_source_ids, source_ids=distinct, penalty=penalty))
    if settings.repetition_penalty != 1.0:
        chosen.append(partial(penalise_repetition, penalty=settings.repetition_penalty))
    if settings.no_repeat_ngram_size > 0:
        chosen.append(partial(forbid_repeated_ngrams, size=settings.no_repeat_ngram_size))
    if settings.encoder_no_repeat_ngram_size > 0:
        size = settings.encoder_no_repeat_ngram_size
        source = _source(source_ids, "encoder_no_repeat_ngram_size", size)
        tables = [ngram_table(row, size=size) for row in source]
        chosen.append(partial(forbid_source_ngrams, tables=tables, size=size))
    return chosen


def penalise_repetition(ids_NU: Ids, scores_NV: Scores, *, penalty: float) -> Scores:
    """Every id of the prompt and prefix: its score times `penalty` if negative, divided by it if not.

    Either way a penalty above 1 lowers the score: once, however often the id occurs.
    Source: Keskar et al. 2019 (CTRL), section 4.1; transformers' RepetitionPenaltyLogitsProcessor.

    Example:
        >>> penalise_repetition(np.array([[0, 2, 2]]), np.array([[4.0, 1.0, -3.0]]), penalty=2.0).tolist()
        [[2.0, 1.0, -6.0]]
    """
    scores_NV = scores_NV.copy()
    seen_NU = np.take_along_axis(scores_NV, ids_NU, axis=1)
    np.put_along_axis(scores_NV, ids_NU, _rescale(seen_NU, penalty), axis=1)
    return scores_NV


def favour_source_ids(ids_NU: Ids, scores_NV: Scores, *, source_ids: Sequence[Ids], penalty: float) -> Scores:
    """Every id of the source: rescaled by 1 / `penalty`, so that a penalty above 1 raises its score.

    `source_ids` holds the distinct ids of each document. Source: transformers' EncoderRepetitionPenaltyLogitsProcessor.

    Example:
        >>> scores = np.array([[4.0, 1.0, -3.0]])
        >>> favour_source_ids(np.array([[1]]), scores, source_ids=[np.array([0, 2])], penalty=2.0).tolist()
        [[8.0, 1.0, -1.5]]
    """
    scores_NV = scores_NV.copy()
    beams = len(scores_NV) // len(source_ids)
    for n, row in enumerate(scores_NV):
        distinct = source_ids[n // beams]
        row[distinct] = _rescale(row[distinct], 1 / penalty)
    return scores_NV


def forbid_repeated_ngrams(ids_NU: Ids, scores_NV: Scores, *, size: int) -> Scores:
    """No n-gram of `size` ids may come twice: an id that would complete a second one gets -inf.

    With size 1 no id may come twice at all, those of the prompt included.
    Source: Paulus et al. 2017, section 2.5; transformers' NoRepeatNGramLogitsProcessor.
    """
    length = ids_NU.shape[1]
    if length < size:
        return scores_NV
    scores_NV = scores_NV.copy()
    ngrams_NSn = sliding_window_view(ids_NU, size, axis=1)
    beginning_N1n = ids_NU[:, None, length + 1 - size :]
    rows, starts = (ngrams_NSn[:, :, :-1] == beginning_N1n).all(axis=-1).nonzero()
    scores_NV[rows, ngrams_NSn[rows, starts, -1]] = -np.inf
    return scores_NV


def ngram_table(source_ids_T: Ids, *, size: int) -> NgramTable:
    """All n-grams of one document: from their first n - 1 ids to the last ones.

    Example:
        >>> ngram_table(np.array([5, 6, 5, 7]), size=2)
        {(5,): [6, 7], (6,): [5]}
    """
    table: dict[tuple[int, ...], list[int]] = {}
    ids = source_ids_T.tolist()
    for *beginning, last in zip(*(ids[k:] for k in range(size)), strict=False):
        table.setdefault(tuple(beginning), []).append(last)
    return table


def forbid_source_ngrams(ids_NU: Ids, scores_NV: Scores, *, tables: Sequence[NgramTable], size: int) -> Scores:
    """No n-gram of `size` ids of the source may be copied: an id that would complete one gets -inf.

    Source: transformers' EncoderNoRepeatNGramLogitsProcessor.

    Example:
        >>> tables = [ngram_table(np.array([5, 6, 5, 7]), size=2)]
        >>> forbid_source_ngrams(np.array([[0, 5]]), np.zeros((1, 9)), tables=tables, size=2)[0].nonzero()
        (array([6, 7]),)
    """
    length = ids_NU.shape[1]
    if length < size - 1:
        return scores_NV
    scores_NV = scores_NV.copy()
    beams = len(scores_NV) // len(tables)
    for n, beginning in enumerate(ids_NU[:, length + 1 - size :].tolist()):
        scores_NV[n, tables[n // beams].get(tuple(beginning), ())] = -np.inf
    return scores_NV


def forbid_early_end(ids_NU: Ids, scores_NV: Scores, *, eos_token_ids: Sequence[int], least_length: int) -> Scores:
    """No id that ends the text before `least_length` ids, the prompt's included.

    Source: transformers' MinLengthLogitsProcessor and MinNewTokensLengthLogitsProcessor.
    """
    if ids_NU.shape[1] >= least_length:
        return scores_NV
    scores_NV = scores_NV.copy()
    scores_NV[:, list(eos_token_ids)] = -np.inf
    return scores_NV


def force_ids(ids_NU: Ids, scores_NV: Scores, *, token_ids: Sequence[int], at_length: int) -> Scores:
    """After `at_length` ids, only `token_ids` may follow: 0 for them, -inf for all others.

    Source: transformers' ForcedBOSTokenLogitsProcessor (length 1) and ForcedEOSTokenLogitsProcessor (max_length - 1).
    """
    if ids_NU.shape[1] != at_length:
        return scores_NV
    scores_NV = np.full_like(scores_NV, -np.inf)
    scores_NV[:, list(token_ids)] = 0
    return scores_NV


def renormalize(ids_NU: Ids, scores_NV: Scores) -> Scores:
    """Scores as log-probabilities again, after rules that changed some of them. A row in which all ids are forbidden stays so.

    Source: transformers' LogitNormalization.
    """
    usable_N1 = scores_NV.max(axis=-1, keepdims=True) > -np.inf
    return np.where(usable_N1, log_softmax(np.where(usable_N1, scores_NV, 0)), scores_NV)


def _rescale(scores: Scores, penalty: float) -> Scores:
    return np.where(scores < 0, scores * penalty, scores / penalty)


def _source(source_ids: Ids | None, setting: str, value: float) -> Ids:
    if source_ids is None:
        raise SettingsError(
            f"{setting} is {value}, which needs the ids of the source, but the call gives only encoder outputs. "
            f"Pass input_ids, or leave {setting} out."
        )
    return source_ids
