"""One step of a beam search.

W texts are running, each with a score: the sum of the logarithms of its words' probabilities. Every text could go on with
every word, which makes W x V candidates; each has the text's score plus the word's log-probability. The best `keep` of them
go on. Of equal scores the lower text, then the lower word, goes first.

When a text has ended its score is made a value, so that long and short ones can be compared:

    value = score / words ** length_penalty
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import expect

Floats = npt.NDArray[np.float64]


def best_candidates(scores: Floats, logprobs: Floats, keep: int) -> list[tuple[int, int, float]]:
    """(text, word, new score) of the best candidates, best first. scores (W,), logprobs (W, V)."""
    sums = (scores[:, None] + logprobs).ravel()
    best = np.argsort(-sums, kind="stable")[:keep]
    return [(int(x) // logprobs.shape[1], int(x) % logprobs.shape[1], float(sums[x])) for x in best]


def value(score: float, words: int, length_penalty: float) -> float:
    """What an ended text is worth."""
    worth: float = score / words**length_penalty
    return worth


def check_the_second_best_may_win(yours: Any) -> None:
    """A text that was behind overtakes."""
    found = yours.best_candidates(np.array([-0.5, -0.9]), np.array([[-0.7, -0.7], [-0.1, -2.4]]), 3)
    expect([place[:2] for place in found], [(1, 0), (0, 0), (0, 1)], "texts and words of the best 3")
    expect([place[2] for place in found], [-1.0, -1.2, -1.2], "scores of the best 3")


def check_a_length_penalty_favours_long_texts(yours: Any) -> None:
    """Scores are negative, so dividing makes them larger."""
    expect(yours.value(-6.0, 4, 1.0), -1.5, "value(-6, 4, 1.0)")
    expect(yours.value(-6.0, 4, 0.0), -6.0, "value(-6, 4, 0.0)")
    expect(yours.value(-6.0, 4, 2.0), -0.375, "value(-6, 4, 2.0)")


def check_a_real_step(yours: Any) -> None:
    """A step of the bundled model's search on a line of text: led_ref's candidates."""
    from led_ref.api import load
    from led_ref.oracle.traces.trace import trace

    told = trace(
        load(), "Pack files with tar.", num_beams=3, max_new_tokens=4, no_repeat_ngram_size=0, only="beam.step.*"
    )
    running, logprobs = told["beam.step.1.running.scores"][0], told["beam.step.2.scores"]
    found = yours.best_candidates(running, logprobs, 6)
    places = zip(
        told["beam.step.2.candidates.beams"][0].tolist(), told["beam.step.2.candidates.tokens"][0].tolist(), strict=True
    )
    expect([tuple(place[:2]) for place in found], list(places), "texts and words of the best 6 of a real step")
