"""Greedy and beam search by definition, over plain lists, one candidate at a time.

It judges led_ref/generation and shares no code with it. The numbers 1 to 6 are those of docs/semantics.md, "generate".
A function `logits_of(document, ids)` computes the logits from the whole generated prefix: there is no KV cache.

    >>> P = {2: [0, 0, 0, 0.6, 0.4, 0], 3: [0.5, 0.5, 0, 0, 0, 0], 4: [0, 0, 0, 0, 0, 1.0]}
    >>> def logits_of(document, ids):
    ...     return [math.log(max(p, 1e-30)) for p in P[ids[-1]]]
    >>> search(logits_of, [[2]], {"num_beams": 1, "max_length": 3}).sequences
    [[2, 3, 0]]
    >>> search(logits_of, [[2]], {"num_beams": 2, "max_length": 3}).sequences
    [[2, 4, 5]]

Settings are a dictionary with transformers' names; missing settings are off. Scores are float64, transformers' are float32.
A float32 search gives the same ids unless a decision is close; `smallest_gap` is the score difference of the closest
decision. There is no sampling and no validation of inputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

Ids: TypeAlias = list[int]
LogitsOf: TypeAlias = Callable[[int, Ids], Sequence[float]]
Settings: TypeAlias = Mapping[str, Any]

NO_SCORE = -1e9
HOPELESS = -1e8  # a lower score contains NO_SCORE: not allowed in the result


@dataclass(frozen=True)
class Found:
    """The ids of each hypothesis, padded to one length; their scores (None without beams); the closest decision's gap."""

    sequences: list[Ids]
    scores: list[float] | None
    smallest_gap: float


@dataclass(frozen=True)
class Hypothesis:
    """Ids and a score: the sum of log-probabilities; of a finished hypothesis, divided by the length penalty."""

    ids: Ids
    score: float
    is_real: bool = True


def search(
    logits_of: LogitsOf, prompts: Sequence[Ids], settings: Settings, sources: Sequence[Ids] | None = None
) -> Found:
    """The best hypothesis of each document; with beams, the best num_return_sequences.

    Args:
        logits_of: (number of the document, generated prefix) -> a logit for each id of the vocabulary.
        prompts: the first ids of each document's target, all of one length P.
        settings: num_beams, max_length, ...; lengths include the prompt.
        sources: the encoder's input ids, for the two encoder_ settings.
    """
    rules = Rules(settings, len(prompts[0]), sources)
    if rules.beams == 1:
        return _greedy(logits_of, prompts, rules)
    return _beam_search(logits_of, prompts, rules)


@dataclass
class Rules:
    """The settings with their defaults, and the gap of the closest decision."""

    settings: Settings
    prompt: int  # P
    sources: Sequence[Ids] | None
    smallest_gap: float = math.inf
    beams: int = field(init=False)
    longest: int = field(init=False)
    ends: Ids = field(init=False)

    def __post_init__(self) -> None:
        """Set the derived values."""
        self.beams = self.settings.get("num_beams", 1)
        new = self.settings.get("max_new_tokens")
        self.longest = self.prompt + new if new else self.settings.get("max_length", self.prompt + 20)
        self.ends = _listed(self.settings.get("eos_token_id"))

    def get(self, name: str, default: Any) -> Any:
        """A setting, or its default."""
        value = self.settings.get(name)
        return default if value is None else value

    def compare(self, better: float, worse: float) -> None:
        """Record the gap of a decision between two scores. A NO_SCORE loses to any score, for any rounding."""
        if worse > HOPELESS:
            self.smallest_gap = min(self.smallest_gap, better - worse)


def _listed(value: Any) -> Ids:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


# ---- logits processors -----------------------------------------------------------------------------------------------


def processed(scores: Sequence[float], ids: Ids, document: int, rules: Rules) -> list[float]:
    """The scores of the next id after all processors, in transformers' order. -inf forbids an id."""
    out = list(scores)
    source = [] if rules.sources is None else rules.sources[document]
    _rescale(out, source, 1 / rules.get("encoder_repetition_penalty", 1.0))
    _rescale(out, ids, rules.get("repetition_penalty", 1.0))
    _forbid(out, _ngram_ends(ids, ids, rules.get("no_repeat_ngram_size", 0)))
    _forbid(out, _ngram_ends(source, ids, rules.get("encoder_no_repeat_ngram_size", 0)))
    if len(ids) < rules.get("min_length", 0) or len(ids) < rules.prompt + rules.get("min_new_tokens", 0):
        _forbid(out, rules.ends)
    for name, at_length in (("forced_bos_token_id", 1), ("forced_eos_token_id", rules.longest - 1)):
        forced = _listed(rules.settings.get(name))
        if forced and len(ids) == at_length:
            out = [0.0 if v in forced else -math.inf for v in range(len(out))]
    return out


def _rescale(scores: list[float], ids: Sequence[int], penalty: float) -> None:
    """Each id once: a negative score times the penalty, another divided by it."""
    for v in set(ids):
        scores[v] = scores[v] * penalty if scores[v] < 0 else scores[v] / penalty


def _forbid(scores: list[float], ids: Sequence[int]) -> None:
    for v in ids:
        scores[v] = -math.inf


def _ngram_ends(read: Sequence[int], prefix: Ids, n: int) -> Ids:
    """The last ids of those n-grams of `read` that begin with the last n - 1 ids of `prefix`."""
    if n == 0 or len(prefix) < n - 1:
        return []
    beginning = prefix[len(prefix) - (n - 1) :]
    return [read[i + n - 1] for i in range(len(read) - n + 1) if list(read[i : i + n - 1]) == beginning]


# ---- greedy search --------------------------------------------------------------------------------------------------


def _greedy(logits_of: LogitsOf, prompts: Sequence[Ids], rules: Rules) -> Found:
    """Append the best id, the lower of equal ones, until the end. Processors get raw logits."""
    hypotheses = []
    for document, prompt in enumerate(prompts):
        ids = list(prompt)
        while len(ids) < rules.longest and not (len(ids) > rules.prompt and ids[-1] in rules.ends):
            scores = processed(logits_of(document, ids), ids, document, rules)
            best, second = sorted(range(len(scores)), key=lambda v: -scores[v])[:2]
            rules.compare(scores[best], scores[second])
            ids.append(best)
        hypotheses.append(ids)
    return Found(_padded(hypotheses, rules), None, rules.smallest_gap)


def _padded(hypotheses: Sequence[Ids], rules: Rules) -> list[Ids]:
    pad = rules.get("pad_token_id", (*rules.ends, -1)[0])
    longest = max(map(len, hypotheses))
    return [ids + [pad] * (longest - len(ids)) for ids in hypotheses]


# ---- beam search ----------------------------------------------------------------------------------------------------


@dataclass
class Document:
    """One document's search: K running and K finished hypotheses, best first; is_open: a better one is possible."""

    running: list[Hypothesis]
    finished: list[Hypothesis]
    is_open: bool = True
    all_stop: bool = False

    @property
    def is_full(self) -> bool:
        """Whether K hypotheses are finished."""
        return all(hypothesis.is_real for hypothesis in self.finished)


def _beam_search(logits_of: LogitsOf, prompts: Sequence[Ids], rules: Rules) -> Found:
    empty = rules.beams - 1
    documents = [  # 1.
        Document(
            [Hypothesis(list(prompt), 0.0), *[Hypothesis(list(prompt), NO_SCORE)] * empty],
            [Hypothesis(list(prompt), NO_SCORE, is_real=False)] * rules.beams,
        )
        for prompt in prompts
    ]
    length = rules.prompt
    while True:
        for number, document in enumerate(documents):
            _step(logits_of, number, document, length, rules)
        length += 1
        has_enough = rules.get("early_stopping", False) is True and all(d.is_full for d in documents)
        if has_enough or not any(d.is_open for d in documents) or all(d.all_stop for d in documents):  # 6.
            break
    returned = rules.get("num_return_sequences", 1)
    best = [h for d in documents for h in d.finished[:returned]]
    for d in documents:
        _compare_neighbours(d.finished, returned, rules)
    assert all(h.is_real and h.score > HOPELESS for h in best), "a hypothesis of the result is not finished"
    return Found(_padded([h.ids for h in best], rules), [h.score for h in best], rules.smallest_gap)


def _step(logits_of: LogitsOf, number: int, document: Document, length: int, rules: Rules) -> None:
    """Steps 2 to 5 for one document: append one id."""
    candidates = []  # 2.
    for hypothesis in document.running:
        scores = processed(log_softmax(logits_of(number, hypothesis.ids)), hypothesis.ids, number, rules)
        candidates += [Hypothesis([*hypothesis.ids, v], hypothesis.score + score) for v, score in enumerate(scores)]
    candidates = _best(candidates, max(2, 1 + len(rules.ends)) * rules.beams, rules)

    stops = [c.ids[-1] in rules.ends or length + 1 >= rules.longest for c in candidates]  # 3.
    continued = [Hypothesis(c.ids, c.score + NO_SCORE * stop) for c, stop in zip(candidates, stops, strict=True)]
    document.running = _best(continued, rules.beams, rules)
    document.all_stop = all(stops)

    new_ids = length + 1 - rules.prompt  # 4.
    penalty = float(rules.get("length_penalty", 1.0))
    is_closed = (rules.get("early_stopping", False) is True and document.is_full) or not document.is_open
    ended = [
        Hypothesis(c.ids, c.score / new_ids**penalty + NO_SCORE * is_closed)
        for c, stop in zip(candidates[: rules.beams], stops, strict=False)
        if stop
    ]
    if any(stops):
        _compare_neighbours(candidates[rules.beams - 1 :], 1, rules)
    document.finished = _best(document.finished + ended, rules.beams, rules)

    is_patient = rules.get("early_stopping", False) == "never" and penalty > 0  # 5.
    attainable = document.running[0].score / ((rules.longest if is_patient else length + 1) - rules.prompt) ** penalty
    worst = min(h.score if h.is_real else NO_SCORE for h in document.finished)
    if document.is_open and attainable > HOPELESS:
        rules.compare(max(attainable, worst), min(attainable, worst))
    document.is_open = document.is_open and attainable > worst


def _best(hypotheses: list[Hypothesis], count: int, rules: Rules) -> list[Hypothesis]:
    """The best hypotheses, best first; the earlier of equal ones."""
    ordered = sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
    if len(ordered) > count:
        rules.compare(ordered[count - 1].score, ordered[count].score)
    return ordered[:count]


def _compare_neighbours(hypotheses: Sequence[Hypothesis], count: int, rules: Rules) -> None:
    """Record the gaps between the first `count` hypotheses and their successors: their order matters."""
    for better, worse in pairwise(hypotheses[: count + 1]):
        rules.compare(better.score, worse.score)


def log_softmax(logits: Sequence[float]) -> list[float]:
    """`x - log(sum(exp(x)))`, after subtraction of the maximum."""
    peak = max(logits)
    log_total = peak + math.log(math.fsum(math.exp(x - peak) for x in logits))
    return [x - log_total for x in logits]
