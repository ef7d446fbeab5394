"""One step of a beam search.

W beams are running, each with a score: the sum of its tokens' log-probabilities. Every beam could continue with every token,
which makes W x V candidates; a candidate's score is the beam's score plus the token's log-probability. The best `keep`
candidates continue. Of equal scores the lower beam, then the lower token, goes first.

A hypothesis that has ended gets a value, so that long and short hypotheses can be compared:

    value = score / tokens ** length_penalty
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from led_ref.tools.exercises.expect import Yours, expect

Floats = npt.NDArray[np.float64]


def best_candidates(scores: Floats, logprobs: Floats, keep: int) -> list[tuple[int, int, float]]:
    """(beam, token, new score) of the best candidates, best first. scores (W,), logprobs (W, V)."""
    sums = (scores[:, None] + logprobs).ravel()
    best = np.argsort(-sums, kind="stable")[:keep]
    return [(int(x) // logprobs.shape[1], int(x) % logprobs.shape[1], float(sums[x])) for x in best]


def value(score: float, tokens: int, length_penalty: float) -> float:
    """The value of an ended hypothesis."""
    worth: float = score / tokens**length_penalty
    return worth


def check_the_second_best_may_win(yours: Yours) -> None:
    """A beam with a lower score overtakes."""
    found = yours.best_candidates(np.array([-0.5, -0.9]), np.array([[-0.7, -0.7], [-0.1, -2.4]]), 3)
    expect([place[:2] for place in found], [(1, 0), (0, 0), (0, 1)], "beams and tokens of the best 3")
    expect([place[2] for place in found], [-1.0, -1.2, -1.2], "scores of the best 3")


def check_a_length_penalty_favours_long_hypotheses(yours: Yours) -> None:
    """Scores are negative, so dividing makes them larger."""
    expect(yours.value(-6.0, 4, 1.0), -1.5, "value(-6, 4, 1.0)")
    expect(yours.value(-6.0, 4, 0.0), -6.0, "value(-6, 4, 0.0)")
    expect(yours.value(-6.0, 4, 2.0), -0.375, "value(-6, 4, 2.0)")


def check_a_real_step(yours: Yours) -> None:
    """One step of the bundled model's beam search on a line of text: led_ref's candidates."""
    from led_ref.api import load
    from led_ref.oracle.traces.trace import trace

    settings: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 4, "no_repeat_ngram_size": 0}
    traced = trace(load(), "Pack files with tar.", only="beam.step.*", **settings)
    running, logprobs = traced["beam.step.1.running.scores"][0], traced["beam.step.2.scores"]
    found = yours.best_candidates(running, logprobs, 6)
    beams, tokens = (traced[f"beam.step.2.candidates.{what}"][0].tolist() for what in ("beams", "tokens"))
    places = list(zip(beams, tokens, strict=True))
    expect([tuple(place[:2]) for place in found], places, "beams and tokens of the best 6 of a real step")
