"""Stopping criteria: end a text at a stop string, after a time, or by the caller's own rule.

(Its end id and max_length end a text without them.) A criterion is a function (ids (N, U), the scores so far or None) ->
which rows stop here, (N,). The ids include the new one. A stop string need not end where an id ends. With ids for "st",
"op" and "opera":

    >>> pieces = {7: b"st", 8: b"op", 9: b"opera"}
    >>> stops = {"stop_strings": [b"stop"], "token_bytes": lambda token: pieces[token]}
    >>> holds_a_stop_string(np.array([[7, 8], [7, 9], [8, 7]]), None, **stops).tolist()
    [True, True, False]
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from led_ref.errors import SettingsError
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.generation.step import Ids, OwnRules, Scores, StoppingCriterion


def build_stopping(settings: GenerationConfig, own: OwnRules) -> tuple[StoppingCriterion, ...]:
    """The criteria that the settings ask for, then the caller's own. The clock of max_time starts here.

    Raises:
        SettingsError: if stop_strings is set, but own.token_bytes is None.
    """
    chosen: list[StoppingCriterion] = []
    if settings.max_time is not None:
        chosen.append(partial(is_late, ends_at=time.monotonic() + settings.max_time))
    if settings.stop_strings:
        if own.token_bytes is None:
            raise SettingsError(
                f"stop_strings is {settings.stop_strings!r}, but there is no tokenizer to give the bytes of an id. "
                "Pass tokenizer=..., or end texts with eos_token_id."
            )
        encoded = [text.encode() for text in settings.stop_strings]
        chosen.append(partial(holds_a_stop_string, stop_strings=encoded, token_bytes=own.token_bytes))
    return (*chosen, *own.stopping_criteria)


def is_late(ids_NU: Ids, scores: Sequence[Scores] | None, *, ends_at: float) -> npt.NDArray[np.bool_]:
    """All rows, once the time is over. The id of that step is kept.

    Source: transformers' MaxTimeCriteria, whose time also begins after the encoder.
    """
    return np.full(len(ids_NU), time.monotonic() > ends_at)


def holds_a_stop_string(
    ids_NU: Ids,
    scores: Sequence[Scores] | None,
    *,
    stop_strings: Sequence[bytes],
    token_bytes: Callable[[int], bytes],
) -> npt.NDArray[np.bool_]:
    """The rows in which the last id completed a stop string. The rest of that id is kept.

    Bytes are compared, not letters: several ids may share one letter. Source: transformers' StopStringCriteria.
    """
    longest = max(map(len, stop_strings))
    stops_N = np.zeros(len(ids_NU), dtype=bool)
    for n, (*earlier, last) in enumerate(ids_NU.tolist()):
        before = b""
        while earlier and len(before) < longest - 1:
            before = token_bytes(earlier.pop()) + before
        text = before + token_bytes(last)
        # From this start on, a match reaches into the last id.
        starts = ((stop, max(0, len(before) - len(stop) + 1)) for stop in stop_strings)
        stops_N[n] = any(text.find(stop, start) >= 0 for stop, start in starts)
    return stops_N
