"""Logits warpers: for sampling, they cut the unlikely ids off a distribution before one is drawn from it.

A drawn text is only as good as its worst draw, and of 50,000 unlikely ids one is drawn now and then. Each warper decides
in another way which ids are too unlikely; these get -inf, and the others keep their proportions. Here only the two
likeliest remain:

    >>> scores = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    >>> top_k(np.array([[2]]), scores, k=2, least_kept=1).round(1).tolist()
    [[-0.7, -1.2, -inf, -inf]]

They have the form of processors.py and come after all rules there; `build_warpers` picks them, in transformers' order.
Probabilities are float64, so that the cut does not depend on the order of a float32 sum. Of equal scores the lower id
is the likelier one. With beams `least_kept` is one more than the number of end ids, so that a beam can always continue;
else it is 1.

N rows, V vocabulary.
"""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import Ids, Processor, Scores

Probabilities = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# top_h looks at no more ids than this: so do its authors and transformers.
MOST_FOR_TOP_H = 100


def build_warpers(settings: GenerationConfig) -> list[Processor]:
    """The warpers that the settings ask for, in transformers' order; none without do_sample."""
    if not settings.do_sample:
        return []
    least = settings.candidates_per_beam if settings.num_beams > 1 else 1
    chosen: list[tuple[bool, Processor]] = [
        (settings.temperature != 1.0, partial(temper, temperature=settings.temperature)),
        (settings.top_h is not None, partial(top_h, share=settings.top_h or 1.0)),
        (settings.top_k > 0, partial(top_k, k=settings.top_k, least_kept=least)),
        (settings.top_p < 1, partial(top_p, share=settings.top_p, least_kept=least)),
        (settings.min_p > 0, partial(min_p, share=settings.min_p, least_kept=least)),
        (settings.typical_p < 1, partial(typical_p, share=settings.typical_p, least_kept=least)),
        (settings.epsilon_cutoff > 0, partial(epsilon_cutoff, epsilon=settings.epsilon_cutoff, least_kept=least)),
        (settings.eta_cutoff > 0, partial(eta_cutoff, epsilon=settings.eta_cutoff, least_kept=least)),
    ]
    return [warper for is_on, warper in chosen if is_on]


def probabilities(scores: npt.NDArray[np.floating[Any]]) -> Probabilities:
    """Softmax over the last axis, in float64: `exp(x - max) / sum(exp(x - max))`. A row of -inf only is NaN."""
    wide = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):
        weights = np.exp(wide - wide.max(axis=-1, keepdims=True))
        result: Probabilities = weights / weights.sum(axis=-1, keepdims=True)
    return result


def temper(ids_NU: Ids, scores_NV: Scores, *, temperature: float) -> Scores:
    """Scores divided by the temperature: below 1 the likely becomes likelier, above 1 all come nearer to each other.

    Source: transformers' TemperatureLogitsWarper.

    Example:
        >>> probabilities(temper(np.array([[2]]), np.log([[0.2, 0.8]]), temperature=0.5)).round(3).tolist()
        [[0.059, 0.941]]
    """
    with np.errstate(all="ignore"):
        divided_NV: Scores = (scores_NV / temperature).astype(scores_NV.dtype, copy=False)
    if (np.abs(divided_NV.max(axis=-1)) < np.inf).all():
        return divided_NV
    # The best would be infinite: as softmax sees it, it is 0 and the others are below.
    wide_NV = scores_NV.astype(np.float64)
    with np.errstate(all="ignore"):
        below_NV = (wide_NV - wide_NV.max(axis=-1, keepdims=True)) / temperature
    finite_NV = np.maximum(below_NV, np.finfo(scores_NV.dtype).min).astype(scores_NV.dtype)
    return np.where(scores_NV == -np.inf, scores_NV, finite_NV)


def top_k(ids_NU: Ids, scores_NV: Scores, *, k: int, least_kept: int) -> Scores:
    """The k likeliest ids, and those that are as likely as the k-th.

    Source: Fan et al. 2018 (arXiv 1805.04833), section 5; transformers' TopKLogitsWarper.
    """
    return _cut(scores_NV, scores_NV >= _of_rank(scores_NV, max(k, least_kept)))


def top_p(ids_NU: Ids, scores_NV: Scores, *, share: float, least_kept: int) -> Scores:
    """The fewest ids, from the likeliest on, that together have the probability `share`: the nucleus.

    Source: Holtzman et al. 2019 (arXiv 1904.09751), section 3.1; transformers' TopPLogitsWarper.

    Example:
        >>> scores = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
        >>> np.isfinite(top_p(np.array([[2]]), scores, share=0.7, least_kept=1)).tolist()
        [[True, True, False, False]]
    """
    order_NV = _likeliest_first(scores_NV)
    sorted_NV = np.take_along_axis(probabilities(scores_NV), order_NV, axis=1)
    # The probability of an id and all less likely ones: if it is at most the rest, 1 - share, the id is not needed.
    from_here_on_NV = sorted_NV[:, ::-1].cumsum(axis=1)[:, ::-1]
    kept_NV = from_here_on_NV > 1 - share
    kept_NV[:, :least_kept] = True
    return _cut(scores_NV, _unsorted(kept_NV, order_NV))


def min_p(ids_NU: Ids, scores_NV: Scores, *, share: float, least_kept: int) -> Scores:
    """Ids of at least `share` of the likeliest one's probability: many where the model is unsure, few where it is sure.

    Source: Nguyen et al. 2024 (arXiv 2407.01082), section 3; transformers' MinPLogitsWarper.

    Example:
        >>> scores = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
        >>> np.isfinite(min_p(np.array([[2]]), scores, share=0.2, least_kept=1)).tolist()
        [[True, True, True, False]]
    """
    probs_NV = probabilities(scores_NV)
    kept_NV = probs_NV >= share * probs_NV.max(axis=1, keepdims=True)
    np.put_along_axis(kept_NV, _likeliest_first(scores_NV)[:, :least_kept], True, axis=1)
    return _cut(scores_NV, kept_NV)


def top_h(ids_NU: Ids, scores_NV: Scores, *, share: float) -> Scores:
    """Ids from the likeliest on, as long as they hold at most `share` of the entropy; the likeliest always.

    Entropy is the mean surprise, sum of -p log p: high where the model is unsure. Here it is that of the 100 likeliest.
    Source: Potraghloo et al. 2025 (arXiv 2509.02510); transformers' TopHLogitsWarper.
    """
    order_NX = _likeliest_first(scores_NV)[:, :MOST_FOR_TOP_H]
    terms_NX = _entropy_terms(probabilities(np.take_along_axis(scores_NV, order_NX, axis=1)))
    so_far_NX = terms_NX.cumsum(axis=1)
    best_NX = so_far_NX <= share * so_far_NX[:, -1:]
    best_NX[:, 0] = True
    kept_NV = np.zeros(scores_NV.shape, dtype=bool)
    np.put_along_axis(kept_NV, order_NX, best_NX, axis=1)
    return _cut(scores_NV, kept_NV)


def typical_p(ids_NU: Ids, scores_NV: Scores, *, share: float, least_kept: int) -> Scores:
    """The ids whose surprise, -log p, is nearest to the entropy, until they have the probability `share` together.

    Not the likeliest: people seldom say what is most expected. Source: Meister et al. 2022 (arXiv 2202.00666), section 3;
    transformers' TypicalLogitsWarper.
    """
    probs_NV = probabilities(scores_NV)
    with np.errstate(divide="ignore"):
        surprise_NV = -np.log(probs_NV)
    oddness_NV = np.abs(surprise_NV - _entropy_terms(probs_NV).sum(axis=1, keepdims=True))
    order_NV = np.argsort(oddness_NV, axis=1, kind="stable")
    sorted_NV = np.take_along_axis(oddness_NV, order_NV, axis=1)
    mass_NV = np.take_along_axis(probs_NV, order_NV, axis=1).cumsum(axis=1)
    last_N = np.minimum((mass_NV < share).sum(axis=1), scores_NV.shape[1] - 1)
    kept_NV = sorted_NV <= sorted_NV[np.arange(len(last_N)), last_N][:, None]  # equally odd ones stay together
    kept_NV[:, :least_kept] = True
    return _cut(scores_NV, _unsorted(kept_NV, order_NV))


def epsilon_cutoff(ids_NU: Ids, scores_NV: Scores, *, epsilon: float, least_kept: int) -> Scores:
    """Ids of at least the probability `epsilon`.

    Source: Hewitt et al. 2022 (arXiv 2210.15191), section 4.1; transformers' EpsilonLogitsWarper.
    """
    kept_NV = probabilities(scores_NV) >= epsilon
    return _cut(scores_NV, kept_NV | (scores_NV >= _of_rank(scores_NV, least_kept)))


def eta_cutoff(ids_NU: Ids, scores_NV: Scores, *, epsilon: float, least_kept: int) -> Scores:
    """Ids of at least the probability `min(epsilon, sqrt(epsilon) exp(-entropy))`: where all is unlikely, less will do.

    Source: Hewitt et al. 2022 (arXiv 2210.15191), section 4.2; transformers' EtaLogitsWarper.
    """
    probs_NV = probabilities(scores_NV)
    entropy_N1 = _entropy_terms(probs_NV).sum(axis=1, keepdims=True)
    kept_NV = probs_NV >= np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-entropy_N1))
    return _cut(scores_NV, kept_NV | (scores_NV >= _of_rank(scores_NV, least_kept)))


# ---- arrays ---------------------------------------------------------------------------------------------------------


def _cut(scores_NV: Scores, kept_NV: Bools) -> Scores:
    return np.where(kept_NV, scores_NV, np.array(-np.inf, scores_NV.dtype))


def _likeliest_first(scores_NV: Scores) -> npt.NDArray[np.intp]:
    return np.argsort(-scores_NV, axis=1, kind="stable")


def _unsorted(sorted_NV: Bools, order_NV: npt.NDArray[np.intp]) -> Bools:
    """Back in the order of ids."""
    result_NV = np.empty_like(sorted_NV)
    np.put_along_axis(result_NV, order_NV, sorted_NV, axis=1)
    return result_NV


def _of_rank(scores_NV: Scores, rank: int) -> Scores:
    """(N, 1): the score that `rank` ids of a row reach, or the lowest where there are fewer ids."""
    rank = min(rank, scores_NV.shape[1])
    return np.partition(scores_NV, -rank, axis=1)[:, -rank, None]


def _entropy_terms(probs: Probabilities) -> Probabilities:
    """-p log p, which is 0 for p = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms: Probabilities = np.where(probs > 0, -probs * np.log(probs), 0.0)
    return terms
