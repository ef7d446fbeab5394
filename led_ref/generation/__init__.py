"""Generation: from "what comes next?" to a text. It knows no model; it is handed a step function (step.py).

In reading order: step.py (what goes in, what comes out), greedy.py, beam.py, group_beam.py, processors.py and biases.py
(rules about the next id), warpers.py and sampling.py (drawing it), stopping.py, settings.py, checks.py and values.py (what
may be set), search.py (the whole of it in one call), transition_scores.py (what each id was worth).
"""

from led_ref.generation.search import make_prompt, search
from led_ref.generation.settings.settings import GenerationSettings, decoder_start_id, resolve_settings
from led_ref.generation.step import SearchResult, StepFunction

__all__ = [
    "GenerationSettings",
    "SearchResult",
    "StepFunction",
    "decoder_start_id",
    "make_prompt",
    "resolve_settings",
    "search",
]
