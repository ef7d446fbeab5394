"""Every text that a small model can write, with its score: what a beam search with enough beams must find."""

from led_ref.oracle.definition.search import Hypothesis, Ids, LogitsOf, Rules, Settings, log_softmax, processed


def enumerate_texts(logits_of: LogitsOf, prompt: Ids, settings: Settings) -> list[Hypothesis]:
    """Every possible hypothesis up to an end token or max_length, with its score, best first.

    With as many beams as hypotheses, beam search drops no candidate and must find the first of these: 15 hypotheses for a
    vocabulary of 3 and 3 new ids.
    """
    rules = Rules(settings, len(prompt), sources=None)
    penalty = float(rules.get("length_penalty", 1.0))
    hypotheses, unfinished = [], [Hypothesis(list(prompt), 0.0)]
    while unfinished:
        hypothesis = unfinished.pop()
        scores = processed(log_softmax(logits_of(0, hypothesis.ids)), hypothesis.ids, 0, rules)
        for v, score in enumerate(scores):
            longer = Hypothesis([*hypothesis.ids, v], hypothesis.score + score)
            if v in rules.ends or len(longer.ids) >= rules.longest:
                hypotheses.append(Hypothesis(longer.ids, longer.score / (len(longer.ids) - rules.prompt) ** penalty))
            else:
                unfinished.append(longer)
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
