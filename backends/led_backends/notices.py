"""Sentences for the user beside results and errors, of led_ref and its backends alike: they go to one logger, "led_ref".

    logging.basicConfig(level=logging.INFO)          shows them
    logging.getLogger("led_ref").setLevel("ERROR")   shows none of them

A function that takes `notice` calls that instead.
"""

import logging
import sys
import warnings

LOGGER = logging.getLogger("led_ref")
# Without a handler Python would print what is logged here and warned of, too.
LOGGER.addHandler(logging.NullHandler())


class LEDWarning(UserWarning, RuntimeWarning):
    """A warning of led_ref, for filters of either kind."""


def inform(sentence: str) -> None:
    """Log what the user may want to know."""
    LOGGER.info(sentence)


def warn(sentence: str) -> None:
    """Log, and warn of, what the user most likely does not want, at the line that called led_ref.

    Args:
        sentence: what, and the remedy.
    """
    LOGGER.warning(sentence)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, LEDWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("led_ref", "led_backends")
