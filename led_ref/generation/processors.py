"""Logits processors: rules that change the scores of the next id before the search chooses.

Each is a pure function of the ids so far (prompt and generated prefix) and the scores of the next one,

    processor(ids_NU, scores_NV) -> scores_NV

that leaves its arguments as they are. A forbidden id gets -inf. For example, no two ids in a row may come twice:

    >>> ids = np.array([[5, 6, 5]])
    >>> forbid_repeated_ngrams(ids, np.zeros((1, 8)), size=2).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -inf, 0.0]]

The ids contain (5, 6), so 6 may not follow 5 again. `build_processors` picks those that the settings ask for, in
transformers' order (docs/semantics.md, generate). Greedy search hands in raw logits, beam search log-probabilities: a
penalty that scales scores therefore means something else in each. warpers.py holds those of sampling (temperature, ...).

N rows, U ids so far, V vocabulary, B documents, T source positions. Rows of one document are neighbours.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from led_ref.errors import InputError, SettingsError, quoted
from led_ref.generation.settings.settings import GenerationConfig, is_integer
from led_ref.generation.step import NO_OWN_RULES, Ids, OwnRules, PrefixAllowedTokens, Processor, Scores, log_softmax
from led_ref.generation.warpers import build_warpers

_MOST = 1e30  # added to a score: surely the best, and far inside float32

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
    if settings.bad_words:
        raise SettingsError(
            f"bad_words is {quoted(settings.bad_words)}, but there is no tokenizer for it. Pass one, or bad_words_ids."
        )
    # An end id by itself may be among the bad words; it stays allowed, or no text could end.
    bad = [run for run in settings.bad_words_ids if run not in [(token,) for token in settings.eos_token_ids]]
    if bad:
        chosen.append(partial(add_biases, biases=bias_table((run, -np.inf) for run in dict.fromkeys(bad))))
    least = max(settings.min_length, prompt_length + (settings.min_new_tokens or 0))
    if settings.eos_token_ids and least > prompt_length:
        chosen.append(partial(forbid_early_end, eos_token_ids=settings.eos_token_ids, least_length=least))
    if (allowed := own.prefix_allowed_tokens_fn) is not None:
        rows, beams = settings.rows_per_document, settings.num_beams
        chosen.append(partial(allow_by_prefix, allowed=allowed, rows_per_document=rows, beams=beams))
    if settings.forced_bos_token_id is not None:
        # Not prompt_length: a longer prompt has its second id already.
        chosen.append(partial(force_ids, token_ids=(settings.forced_bos_token_id,), at_length=1))
    if settings.forced_eos_token_ids:
        chosen.append(partial(force_ids, token_ids=settings.forced_eos_token_ids, at_length=settings.max_length - 1))
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
        distinct = [np.unique(row) for row in _source(source_ids, settings, "encoder_repetition_penalty")]
        chosen.append(partial(favour_source_ids, source_ids=distinct, penalty=settings.encoder_repetition_penalty))
    if settings.repetition_penalty != 1.0:
        chosen.append(partial(penalise_repetition, penalty=settings.repetition_penalty))
    if settings.no_repeat_ngram_size > 0:
        chosen.append(partial(forbid_repeated_ngrams, size=settings.no_repeat_ngram_size))
    size = settings.encoder_no_repeat_ngram_size
    if 0 < size <= settings.max_length:  # a target holds no longer n-grams
        tables = [ngram_table(row, size=size) for row in _source(source_ids, settings, "encoder_no_repeat_ngram_size")]
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
    for last in range(size - 1, len(ids)):
        table.setdefault(tuple(ids[last + 1 - size : last]), []).append(ids[last])
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


def _source(source_ids: Ids | None, settings: GenerationConfig, name: str) -> Ids:
    if source_ids is None:
        raise SettingsError(
            f"{name} is {getattr(settings, name)}, which needs the ids of the source, but the call gives only encoder "
            f"outputs. Pass input_ids, or leave {name} out."
        )
    return source_ids


# ---- rules that name ids, or repair all scores -----------------------------------------------------------------------


@dataclass(frozen=True)
class BiasesOfLength:
    """All runs of one length: X of them."""

    beginnings_XU: Ids  # the ids before the last; none, for runs of one id
    last_X: Ids
    biases_X: npt.NDArray[np.float64]


def bias_table(pairs: Iterable[tuple[tuple[int, ...], float]]) -> list[BiasesOfLength]:
    """Runs of ids and their biases, grouped by length, so that all of one length are compared at once."""
    by_length: dict[int, list[tuple[tuple[int, ...], float]]] = {}
    for run, bias in pairs:
        by_length.setdefault(len(run), []).append((run, bias))
    table = []
    for same_length in by_length.values():
        runs = np.array([run for run, _ in same_length], dtype=np.int64)
        table.append(BiasesOfLength(runs[:, :-1], runs[:, -1], np.array([bias for _, bias in same_length])))
    return table


def add_biases(ids_NU: Ids, scores_NV: Scores, *, biases: Sequence[BiasesOfLength]) -> Scores:
    """Add a run's bias to the score of its last id, in each row that ends with the run's other ids.

    A run of one id always gets its bias. The biases of several runs with the same last id add up. A bias of -inf forbids:
    so bad_words_ids is this rule too.
    Source: transformers' SequenceBiasLogitsProcessor and NoBadWordsLogitsProcessor.

    Example:
        >>> table = bias_table([((7,), 1.0), ((5, 7), 2.0)])
        >>> add_biases(np.array([[5], [6]]), np.zeros((2, 8)), biases=table)[:, 7].tolist()
        [3.0, 1.0]
    """
    sums_NV = np.zeros_like(scores_NV)
    length = ids_NU.shape[1]
    for same in biases:
        before = same.beginnings_XU.shape[1]
        if before > length:
            continue
        ends_N1U = ids_NU[:, None, length - before :]
        rows, runs = (ends_N1U == same.beginnings_XU).all(axis=-1).nonzero()
        np.add.at(sums_NV, (rows, same.last_X[runs]), same.biases_X[runs])
    return scores_NV + sums_NV


def suppress(ids_NU: Ids, scores_NV: Scores, *, token_ids: Sequence[int], at_length: int | None = None) -> Scores:
    """Forbid `token_ids`: always, or only after `at_length` ids.

    Source: transformers' SuppressTokensLogitsProcessor and SuppressTokensAtBeginLogitsProcessor.
    """
    if at_length is not None and ids_NU.shape[1] != at_length:
        return scores_NV
    scores_NV = scores_NV.copy()
    scores_NV[:, list(token_ids)] = -np.inf
    return scores_NV


def favour_the_end(
    ids_NU: Ids, scores_NV: Scores, *, eos_token_ids: Sequence[int], after_length: int, factor: float
) -> Scores:
    """Every id past `after_length` makes the end likelier: + |score| * (factor ** ids past it - 1).

    The absolute value, so that a negative score rises as well. A factor below 1 puts the end off.
    Source: transformers' ExponentialDecayLengthPenalty.

    Example:
        >>> late = {"eos_token_ids": (1,), "after_length": 2, "factor": 2.0}
        >>> [favour_the_end(np.zeros((1, n), int), np.array([[0.0, -3.0]]), **late)[0, 1].item() for n in (2, 3, 4)]
        [-3.0, 0.0, 6.0]
    """
    past = ids_NU.shape[1] - after_length
    if past <= 0:
        return scores_NV
    scores_NV = scores_NV.copy()
    ends = list(eos_token_ids)
    ends_NX = scores_NV[:, ends]
    # A forbidden id stays forbidden: nothing is added to its -inf.
    with np.errstate(over="ignore"):
        raised_NX = np.abs(np.where(np.isfinite(ends_NX), ends_NX, 0)) * (min(np.float64(factor) ** past, _MOST) - 1)
    scores_NV[:, ends] = ends_NX + np.minimum(raised_NX, _MOST).astype(scores_NV.dtype)
    return scores_NV


def allow_by_prefix(
    ids_NU: Ids, scores_NV: Scores, *, allowed: PrefixAllowedTokens, rows_per_document: int, beams: int
) -> Scores:
    """Only the ids that `allowed(document, ids so far)` names.

    Where other rules forbid all of these in every beam of a document, they come back with a score of 0: the caller's
    function overrules the other rules.
    Source: De Cao et al. 2020 (arXiv 2010.00904), section 3.2; transformers' PrefixConstrainedLogitsProcessor.

    Raises:
        InputError: if no id is allowed, or one that the vocabulary does not have.

    Example:
        >>> after_2 = lambda document, ids: [3, 5] if ids[-1] == 2 else [4]
        >>> given = {"allowed": after_2, "rows_per_document": 1, "beams": 1}
        >>> allow_by_prefix(np.array([[2], [3]]), np.ones((2, 6)), **given).argmax(axis=1).tolist()
        [3, 4]
    """
    only_NV = np.full_like(scores_NV, -np.inf)
    size = scores_NV.shape[1]
    for n, ids_U in enumerate(ids_NU):
        returned = allowed(n // rows_per_document, ids_U.copy())
        token_ids = [] if isinstance(returned, str) or not isinstance(returned, Iterable) else list(returned)
        if not token_ids or not all(is_integer(token) and 0 <= token < size for token in token_ids):
            raise InputError(
                f"prefix_allowed_tokens_fn returned {quoted(returned)} for document {n // rows_per_document} after the ids "
                f"{quoted(ids_U.tolist())}. Return at least one id, and ids from 0 to {size - 1}: a list of whole numbers."
            )
        only_NV[n, token_ids] = 0
    limited_NV = scores_NV + only_NV
    hopeless_B = (limited_NV == -np.inf).all(axis=1).reshape(-1, beams).all(axis=1)
    limited_NV = np.where(np.repeat(hopeless_B, beams)[:, None], only_NV, limited_NV)
    return limited_NV


def remove_invalid(ids_NU: Ids, scores_NV: Scores) -> Scores:
    """NaN becomes 0, infinity the largest number and -infinity the lowest one of the dtype.

    A forbidden id is then only very unlikely. Source: transformers' InfNanRemoveLogitsProcessor.

    Example:
        >>> remove_invalid(np.array([[0]]), np.array([[np.nan, 1.0, -np.inf]], np.float32)).tolist()
        [[0.0, 1.0, -3.4028234663852886e+38]]
    """
    return np.nan_to_num(scores_NV)


def checked(processor: Callable[[Ids, Scores], Any]) -> Processor:
    """A caller's own processor, with a check of its result: scores of the same shape, without NaN."""

    def apply(ids_NU: Ids, scores_NV: Scores) -> Scores:
        returned = processor(ids_NU.copy(), scores_NV.copy())
        given_NV, is_masked = np.asarray(returned), isinstance(returned, np.ma.MaskedArray)  # its mask would be lost
        name = getattr(processor, "__name__", type(processor).__name__)
        if is_masked or given_NV.shape != scores_NV.shape or not np.issubdtype(given_NV.dtype, np.floating):
            raise InputError(
                f"logits_processor {name} returned {'masked ' * is_masked}{given_NV.dtype} of shape {given_NV.shape}. "
                f"Return floating-point scores of shape {scores_NV.shape}: one for each row and id."
            )
        with np.errstate(over="ignore"):
            given_NV = given_NV.astype(scores_NV.dtype, copy=False)
        largest_N = given_NV.max(axis=-1)  # NaN if one of them is
        if not (largest_N < np.inf).all():
            found = "NaN" if np.isnan(largest_N).any() else "+inf"
            raise InputError(
                f"logits_processor {name} returned {found}, which is no score. Forbid an id with -inf, to force one the others."
            )
        return given_NV

    return apply
