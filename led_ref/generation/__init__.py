"""Generation: decoding strategies over a step function. It knows no model.

In reading order: step.py (the step function and the search's result), greedy_search.py, beam_search.py,
group_beam_search.py (diverse beam search), processors.py (logits processors: rules about the next id), warpers.py and
sampling.py (logits warpers, drawing the next id), settings/ (what may be set), search.py (all of it in one call; import its
`search` and `stream` from there).
"""

from led_ref.generation.search import make_prompt
from led_ref.generation.settings.resolve import GivenSettings, look_up
from led_ref.generation.settings.settings import GenerationConfig, GenerationSettings
from led_ref.generation.step import OwnRules, SearchResult, StepFunction

__all__ = [
    "GenerationConfig", "GenerationSettings", "GivenSettings", "OwnRules", "SearchResult", "StepFunction", "look_up",
    "make_prompt",
]  # fmt: skip
