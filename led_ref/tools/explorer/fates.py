"""The beam search of a run, step by step: the candidates, best first, and the fate of each one.

A candidate is a beam with one more id. The rules are those of generation/beam_search.py; nothing is searched again here: the
numbers are those that the search recorded, and a candidate's fate follows from the next state.

    goes on            one of the W best that do not end: it is a beam of the next step
    finished           it ends, is among the best W candidates, and its value is among the W best finished hypotheses
    ends too low       it ends, but W candidates are better, so it may not finish
    beaten at the end  it may finish, and W finished hypotheses have higher values
    pushed out         it does not end, and W others that do not end are better
    impossible         a rule forbids the id (its processed score is -inf), or it comes from a beam that has no score yet
    too late           the search of this document is closed, or full with early_stopping
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.generation.beam_search import NO_SCORE
from led_ref.generation.settings.settings import GenerationSettings

# Sums of log-probabilities stay far above this; a number below it stands for "no score".
_HOPELESS = float(NO_SCORE) / 2


def search_record(
    steps: Mapping[int, Mapping[str, HostArray]], settings: GenerationSettings, decode: Callable[..., str]
) -> dict[str, Any]:
    """The whole search, ready for JSON.

    Args:
        steps: by number, the intermediates that the search recorded of one document; `logprobs` and `scores` of the
            candidates alone.
        settings: those of the search.
        decode: the tokenizer's: the text of ids, with True as second argument without special ones.
    """
    beams, shown, was_full = [0.0] + [float(NO_SCORE)] * (settings.num_beams - 1), [], False
    was_open = True
    for number in sorted(steps):
        step = steps[number]
        candidates = candidates_of(number, step, beams, settings, decode, was_full=was_full, was_open=was_open)
        shown.append({"candidates": candidates, "running": _running(step, decode), "finished": _finished(step, decode)})
        beams = [float(score) for score in step["running.scores"][0]]
        was_full = bool(step["finished.is_finished"][0].all())
        was_open = bool(step["is_open"][0])
    return {
        "beams": settings.num_beams,
        "lengthPenalty": settings.length_penalty,
        "earlyStopping": settings.early_stopping,
        "maxLength": settings.max_length,
        "noRepeat": settings.no_repeat_ngram_size,
        "end": np.ravel(settings.eos_token_ids).tolist(),
        "open": was_open,
        "steps": shown,
    }


def candidates_of(
    number: int,
    step: Mapping[str, HostArray],
    parents: list[float],
    settings: GenerationSettings,
    decode: Callable[..., str],
    *,
    was_full: bool,
    was_open: bool,
) -> list[dict[str, Any]]:
    """The candidates of one step, best first, each with its arithmetic and its fate."""
    running = list(zip(step["running.beams"][0].tolist(), step["running.tokens"][0].tolist(), strict=True))
    divisor = np.float32((number + 1) ** settings.length_penalty)
    kept = {float(value) for value in step["finished.scores"][0][step["finished.is_finished"][0]]}
    found = []
    for rank in range(step["candidates.tokens"].shape[1]):
        beam, token = (int(step[f"candidates.{what}"][0, rank]) for what in ("beams", "tokens"))
        score, stops = step["candidates.scores"][0, rank], bool(step["candidates.stops"][0, rank])
        value = float(score / divisor)
        at = running.index((beam, token)) if (beam, token) in running else None
        if score <= _HOPELESS:
            fate = "impossible"
        elif not stops:
            fate = "goes on" if at is not None else "pushed out"
        elif rank >= settings.num_beams:
            fate = "ends too low"
        elif not was_open or (was_full and settings.early_stopping is True):
            fate = "too late"
        else:
            fate = "finished" if value in kept else "beaten at the end"
        found.append(
            {
                "beam": beam,
                "token": token,
                "piece": decode([token]),
                "before": parents[beam],
                "logprob": _number(step["logprobs"][rank]),
                "processed": _number(step["scores"][rank]),
                "sum": _number(score),
                "stops": stops,
                "value": _number(value) if stops else None,
                "fate": fate,
                "becomes": at if fate == "goes on" else None,
            }
        )
    return found


def _running(step: Mapping[str, HostArray], decode: Callable[..., str]) -> list[dict[str, Any]]:
    """The beams after a step: which beam of the step before, which id, which sum."""
    columns = (step[f"running.{what}"][0].tolist() for what in ("beams", "tokens", "scores"))
    return [
        {"beam": beam, "token": token, "piece": decode([token]), "sum": _number(score)}
        for beam, token, score in zip(*columns, strict=True)
    ]


def _finished(step: Mapping[str, HostArray], decode: Callable[..., str]) -> list[dict[str, Any]]:
    """The finished hypotheses that are kept, best first, and their values."""
    kept = step["finished.is_finished"][0]
    texts = [decode(ids, True).strip() for ids in step["finished.ids"][0][kept].tolist()]
    values = step["finished.scores"][0][kept].tolist()
    return [{"value": _number(value), "text": text} for value, text in zip(values, texts, strict=True)]


def _number(value: Any) -> float | None:
    """A number for JSON, which has no infinity: None stands for it."""
    return float(value) if np.isfinite(value) else None
