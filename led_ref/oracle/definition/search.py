"""Greedy search and beam search by definition: plain lists, one candidate at a time; and enumeration of all texts.

It judges led_ref/generation and shares no code with it. The numbers 1 to 6 are those of docs/semantics.md, "generate". A
function `logits_of(document, ids)` gives the logits of the next id after all ids so far, without a KV cache.

    >>> P = {2: [0, 0, 0, 0.6, 0.4, 0], 3: [0.5, 0.5, 0, 0, 0, 0], 4: [0, 0, 0, 0, 0, 1.0]}
    >>> def logits_of(document, ids):
    ...     return [math.log(max(p, 1e-30)) for p in P[ids[-1]]]
    >>> search(logits_of, [[2]], {"num_beams": 1, "max_length": 3}).sequences
    [[2, 3, 0]]
    >>> search(logits_of, [[2]], {"num_beams": 2, "max_length": 3}).sequences
    [[2, 4, 5]]

Settings are a dictionary with transformers' names; missing ones are off. Scores are float64 throughout, where
transformers has float32. A float32 search finds the same ids unless a decision is close; `smallest_gap` is the gap of the
closest one. It draws nothing at random, and it checks no input.
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
HOPELESS = -1e8  # a score below contains a NO_SCORE: no text of the result may have one


@dataclass(frozen=True)
class Found:
    """The ids of each text, padded to one length; with beams each text's score; and the gap of the closest decision."""

    sequences: list[Ids]
    scores: list[float] | None
    smallest_gap: float


@dataclass(frozen=True)
class Hypothesis:
    """Ids and their score: a sum of log-probabilities while it runs, normalised by its length once it is finished."""

    ids: Ids
    score: float
    is_real: bool = True  # False: an empty slot for a finished one


def search(
    logits_of: LogitsOf, prompts: Sequence[Ids], settings: Settings, sources: Sequence[Ids] | None = None
) -> Found:
    """One text (or with beams, num_return_sequences of them) for each document.

    Args:
        logits_of: (number of the document, ids so far) -> a logit for each id of the vocabulary.
        prompts: the ids with which each document's target begins, all of one length P.
        settings: num_beams, max_length, ...; lengths count the prompt.
        sources: the ids that the encoder read, for the two encoder_ settings.
    """
    rules = Rules(settings, len(prompts[0]), sources)
    if rules.beams == 1:
        return _greedy(logits_of, prompts, rules)
    return _beam_search(logits_of, prompts, rules)


@dataclass
class Rules:
    """The settings with their defaults, and the closest decision so far."""

    settings: Settings
    prompt: int  # P
    sources: Sequence[Ids] | None
    smallest_gap: float = math.inf
    beams: int = field(init=False)
    longest: int = field(init=False)
    ends: Ids = field(init=False)

    def __post_init__(self) -> None:
        """Compute the three values that are used most."""
        self.beams = self.settings.get("num_beams", 1)
        new = self.settings.get("max_new_tokens")
        self.longest = self.prompt + new if new else self.settings.get("max_length", self.prompt + 20)
        self.ends = _as_list(self.settings.get("eos_token_id"))

    def get(self, name: str, default: Any) -> Any:
        """A setting, or the default if it is not set."""
        value = self.settings.get(name)
        return default if value is None else value

    def compare(self, better: float, worse: float) -> None:
        """Keep the smallest gap between two scores. One with a NO_SCORE loses to any score, whatever the rounding."""
        if worse > HOPELESS:
            self.smallest_gap = min(self.smallest_gap, better - worse)


def _as_list(value: Any) -> Ids:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


# ---- rules about the next id ----------------------------------------------------------------------------------------


def processed(scores: Sequence[float], ids: Ids, document: int, rules: Rules) -> list[float]:
    """The scores of the next id after all processors, in transformers' order. -inf: forbidden."""
    out = list(scores)
    source = [] if rules.sources is None else rules.sources[document]
    _rescale(out, source, 1 / rules.get("encoder_repetition_penalty", 1.0))
    _rescale(out, ids, rules.get("repetition_penalty", 1.0))
    _forbid(out, _repeats(ids, ids, rules.get("no_repeat_ngram_size", 0)))
    _forbid(out, _repeats(source, ids, rules.get("encoder_no_repeat_ngram_size", 0)))
    if len(ids) < rules.get("min_length", 0) or len(ids) < rules.prompt + rules.get("min_new_tokens", 0):
        _forbid(out, rules.ends)
    for name, at_length in (("forced_bos_token_id", 1), ("forced_eos_token_id", rules.longest - 1)):
        forced = _as_list(rules.settings.get(name))
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


def _repeats(read: Sequence[int], prefix: Ids, n: int) -> Ids:
    """The ids that would complete an n-gram of `read` whose first n - 1 ids are the last ones of `prefix`."""
    if n == 0 or len(prefix) < n - 1:
        return []
    beginning = prefix[len(prefix) - (n - 1) :]
    return [read[i + n - 1] for i in range(len(read) - n + 1) if list(read[i : i + n - 1]) == beginning]


# ---- greedy search --------------------------------------------------------------------------------------------------


def _greedy(logits_of: LogitsOf, prompts: Sequence[Ids], rules: Rules) -> Found:
    """The best id, again and again; of equal ones the lower. Processors see raw logits."""
    texts = []
    for document, prompt in enumerate(prompts):
        ids = list(prompt)
        while len(ids) < rules.longest and not (len(ids) > rules.prompt and ids[-1] in rules.ends):
            scores = processed(logits_of(document, ids), ids, document, rules)
            best, second = sorted(range(len(scores)), key=lambda v: -scores[v])[:2]
            rules.compare(scores[best], scores[second])
            ids.append(best)
        texts.append(ids)
    return Found(_padded(texts, rules), None, rules.smallest_gap)


def _padded(texts: Sequence[Ids], rules: Rules) -> list[Ids]:
    pad = rules.get("pad_token_id", (*rules.ends, -1)[0])
    longest = max(map(len, texts))
    return [ids + [pad] * (longest - len(ids)) for ids in texts]


# ---- beam search ----------------------------------------------------------------------------------------------------


@dataclass
class Document:
    """One document's search: K running hypotheses, K finished ones, best first, and whether a better one may come."""

    running: list[Hypothesis]
    finished: list[Hypothesis]
    is_open: bool = True
    all_stop: bool = False

    @property
    def is_full(self) -> bool:
        """Whether K hypotheses are finished."""
        return all(one.is_real for one in self.finished)


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
    best = [text for d in documents for text in d.finished[:returned]]
    for d in documents:
        _compare_neighbours(d.finished, returned, rules)
    assert all(text.is_real and text.score > HOPELESS for text in best), "a text of the result is not finished"
    return Found(_padded([text.ids for text in best], rules), [text.score for text in best], rules.smallest_gap)


def _step(logits_of: LogitsOf, number: int, document: Document, length: int, rules: Rules) -> None:
    """Steps 2 to 5 for one document: one more id."""
    candidates = []  # 2.
    for text in document.running:
        scores = processed(log_softmax(logits_of(number, text.ids)), text.ids, number, rules)
        candidates += [Hypothesis([*text.ids, v], text.score + score) for v, score in enumerate(scores)]
    candidates = _best(candidates, max(2, 1 + len(rules.ends)) * rules.beams, rules)

    stops = [text.ids[-1] in rules.ends or length + 1 >= rules.longest for text in candidates]  # 3.
    running = [Hypothesis(c.ids, c.score + NO_SCORE * stop) for c, stop in zip(candidates, stops, strict=True)]
    document.running = _best(running, rules.beams, rules)
    document.all_stop = all(stops)

    generated = length + 1 - rules.prompt  # 4.
    penalty = float(rules.get("length_penalty", 1.0))
    in_vain = (rules.get("early_stopping", False) is True and document.is_full) or not document.is_open
    ended = [
        Hypothesis(c.ids, c.score / generated**penalty + NO_SCORE * in_vain)
        for c, stop in zip(candidates[: rules.beams], stops, strict=False)
        if stop
    ]
    if any(stops):
        _compare_neighbours(candidates[rules.beams - 1 :], 1, rules)
    document.finished = _best(document.finished + ended, rules.beams, rules)

    is_patient = rules.get("early_stopping", False) == "never" and penalty > 0  # 5.
    hoped_for = document.running[0].score / ((rules.longest if is_patient else length + 1) - rules.prompt) ** penalty
    worst = min(text.score if text.is_real else NO_SCORE for text in document.finished)
    if document.is_open and hoped_for > HOPELESS:
        rules.compare(max(hoped_for, worst), min(hoped_for, worst))
    document.is_open = document.is_open and hoped_for > worst


def _best(texts: list[Hypothesis], count: int, rules: Rules) -> list[Hypothesis]:
    """The best hypotheses, best first; of equal ones the earlier."""
    ordered = sorted(texts, key=lambda text: -text.score)
    if len(ordered) > count:
        rules.compare(ordered[count - 1].score, ordered[count].score)
    return ordered[:count]


def _compare_neighbours(texts: Sequence[Hypothesis], count: int, rules: Rules) -> None:
    """Compare each of the first `count` hypotheses with the next one: their order counts."""
    for text, behind in pairwise(texts[: count + 1]):
        rules.compare(text.score, behind.score)


def log_softmax(logits: Sequence[float]) -> list[float]:
    """`x - log(sum(exp(x)))`, the largest taken out first."""
    peak = max(logits)
    log_total = peak + math.log(math.fsum(math.exp(x - peak) for x in logits))
    return [x - log_total for x in logits]


# ---- enumeration ----------------------------------------------------------------------------------------------------


def enumerate_texts(
    logits_of: LogitsOf, prompt: Ids, settings: Settings, document: int = 0, source: Ids | None = None
) -> list[Hypothesis]:
    """Every possible text, best first: all sequences of ids up to an end or to max_length, with their scores.

    With as many beams as possible texts, beam search drops no candidate, so that it must find the first of these; for a
    vocabulary of 3 and 3 new ids that is 15 texts.
    """
    sources = None if source is None else [source] * (document + 1)
    rules = Rules(settings, len(prompt), sources)
    penalty = float(rules.get("length_penalty", 1.0))
    texts, unfinished = [], [Hypothesis(list(prompt), 0.0)]
    while unfinished:
        text = unfinished.pop()
        scores = processed(log_softmax(logits_of(document, text.ids)), text.ids, document, rules)
        for v, score in enumerate(scores):
            longer = Hypothesis([*text.ids, v], text.score + score)
            if v in rules.ends or len(longer.ids) >= rules.longest:
                texts.append(Hypothesis(longer.ids, longer.score / (len(longer.ids) - rules.prompt) ** penalty))
            else:
                unfinished.append(longer)
    return sorted(texts, key=lambda text: -text.score)
