"""Which values a generation setting may have: by itself, together with the others, and with this model.

    >>> check_value("num_beams", Found(np.int64(4), "the call"))
    4
    >>> check_value("num_beams", Found(0, "the call"))
    Traceback (most recent call last):
    led_ref.errors.SettingsError: num_beams is 0 (from the call); it must be a whole number of at least 1.

Every message gives the value, the place it came from (the call, a file, or the default) and what to do.
`settings.py` decides which value counts; nothing here changes one, except that NumPy's numbers become Python's and lists
tuples. Forms that take more than a word to say are in `values.py`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from led_ref.errors import SettingsError
from led_ref.generation.settings.value_forms import FORMS, is_number, is_whole

if TYPE_CHECKING:
    from led_ref.generation.settings.settings import GenerationSettings

# Least value of those that are whole numbers.
_WHOLE = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "max_length": 1,
    "max_new_tokens": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "top_k": 0,
}
_ABOVE_ZERO = ("repetition_penalty", "encoder_repetition_penalty")
_YES_OR_NO = (
    "do_sample", "output_attentions", "output_hidden_states", "output_logits", "output_scores", "remove_invalid_values",
    "renormalize_logits", "return_dict_in_generate", "use_cache",
)  # fmt: skip
_ONE_ID = ("forced_bos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
_ONE_OR_MORE_IDS = ("forced_eos_token_id", "eos_token_id")
_LISTS_OF_IDS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias")

# Settings that do nothing unless ids are drawn, and unless there are beams.
SAMPLING_ONLY = (
    "seed", "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip
BEAMS_ONLY = ("early_stopping", "length_penalty")

# Where the keys and values of what is written lie: in memory that grows, or that is taken once for max_length.
CACHES = ("dynamic", "static")

# length ** length_penalty must stay far inside float32, so that scores divided by it do as well.
_LARGEST_DIVISOR = 1e30


@dataclass(frozen=True)
class Found:
    """A value, and where it was found: "the call", or the name of a file."""

    value: Any
    place: str


def check_value(name: str, found: Found) -> Any:
    """The value as Python's int, float, bool, str or tuple of ints.

    Raises:
        SettingsError: if the setting cannot have such a value, whatever else is set.
    """
    value = found.value
    if name in _WHOLE:
        if is_whole(value) and value >= _WHOLE[name]:
            return int(value)
        wanted = f"a whole number of at least {_WHOLE[name]}"
    elif name in _ABOVE_ZERO:
        if is_number(value) and value > 0:
            return float(value)
        wanted = "a number above 0; 1 switches it off"
    elif name == "length_penalty":
        if is_number(value):
            return float(value)
        wanted = "a finite number; 0 switches it off"
    elif name == "diversity_penalty":
        if is_number(value) and value >= 0:
            return float(value)
        wanted = "a number above 0 where there are groups, else 0"
    elif name in _YES_OR_NO:
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        wanted = "True or False"
    elif name == "early_stopping":
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        if isinstance(value, str) and value == "never":
            return value
        wanted = 'True, False or "never"'
    elif name == "cache_implementation":
        if isinstance(value, str) and value in CACHES:
            return value
        wanted = " or ".join(map(repr, CACHES))
    elif name in _ONE_ID:
        if is_whole(value) and value >= 0:
            return int(value)
        wanted = "an id of the vocabulary"
    elif name in FORMS:
        wanted = FORMS[name].wanted
        with contextlib.suppress(ValueError):
            return FORMS[name].read(value)
    else:
        assert name in _ONE_OR_MORE_IDS, name
        if is_whole(value) and value >= 0:
            return int(value)
        if isinstance(value, (list, tuple, np.ndarray)) and all(is_whole(token) and token >= 0 for token in value):
            return tuple(int(token) for token in value) or None
        wanted = "an id of the vocabulary, or a list of ids; None switches it off"
    raise SettingsError(f"{name} is {value!r} (from {found.place}); it must be {wanted}.")


def check_together(settings: GenerationSettings, found: Mapping[str, Found], *, prompt_length: int) -> None:
    """Refuse settings that contradict each other.

    Raises:
        SettingsError: as it says.
    """
    where = _Where(found)
    beams, returned = settings.num_beams, settings.num_return_sequences
    if returned > beams and not (settings.do_sample and beams == 1):
        raise SettingsError(
            f"num_return_sequences is {returned} ({where('num_return_sequences')}), but num_beams is {beams} "
            f"({where('num_beams')}), and a search returns at most one text for each beam"
            f"{' (1 beam is greedy search)' if beams == 1 else ''}. "
            f"Pass num_beams={returned} or more, or ask for fewer texts"
            f"{'; or draw them: do_sample=True' if beams == 1 else ''}."
        )
    _check_groups(settings, where)
    most_name, most = _as_given(settings, "max")
    least_name, least = _as_given(settings, "min")
    there = "1 id is there" if prompt_length == 1 else f"{prompt_length} ids are there"
    if settings.max_length <= prompt_length:
        raise SettingsError(
            f"max_length is {settings.max_length} ({where(most_name)}), but {there} before "
            "the first one is written (the start id and decoder_input_ids). Pass max_new_tokens, which does not count "
            f"them, or max_length of at least {prompt_length + 1}."
        )
    if settings.min_length > settings.max_length:
        both_new = least_name == "min_new_tokens" and most_name == "max_new_tokens"
        raise SettingsError(
            f"{least_name} is {least} ({where(least_name)}), but {most_name} is {most} ({where(most_name)})"
            f"{'' if both_new else f'; a length also counts what is there before the first id is written ({there})'}. "
            f"Lower {least_name} (0 switches it off) or raise {most_name}."
        )
    if settings.cache_implementation == "static" and not settings.use_cache:
        raise SettingsError(
            f"cache_implementation is 'static' ({where('cache_implementation')}), but use_cache is False "
            f"({where('use_cache')}): there is no cache to keep. Leave one of the two out."
        )
    if abs(settings.length_penalty) * math.log10(settings.max_length) > math.log10(_LARGEST_DIVISOR):
        limit = math.log10(_LARGEST_DIVISOR) / math.log10(settings.max_length)
        raise SettingsError(
            f"length_penalty is {settings.length_penalty} ({where('length_penalty')}); {settings.max_length} ids to "
            f"that power do not fit into float32. Keep it between {-limit:.1f} and {limit:.1f}; usual values are 0 to 2."
        )
    check_effect(settings, found)


def check_effect(settings: GenerationSettings, found: Mapping[str, Found]) -> None:
    """Refuse what the call sets and what, beside its other settings, would change nothing.

    Raises:
        SettingsError: as it says.
    """
    where = _Where(found)
    defaults = type(settings)()
    idle = [(name, "do_sample is False: nothing is drawn", "do_sample=True") for name in SAMPLING_ONLY]
    if settings.do_sample:
        idle = []
    if settings.num_beams == 1:
        idle += [(name, "num_beams is 1: there are no beams", "num_beams=4, for one") for name in BEAMS_ONLY]
    if not settings.eos_token_ids:
        name, why = "exponential_decay_length_penalty", "eos_token_id is None: there is no end to favour"
        idle.append((name, why, "eos_token_id"))
    for name, why, remedy in idle:
        value = getattr(settings, name)
        if name in found and found[name].place == "the call" and value != getattr(defaults, name):
            cause = why.partition(" is ")[0]
            raise SettingsError(
                f"{name} is {value!r} ({where(name)}), but {why} ({where(cause)}). Pass {remedy}, or leave {name} out."
            )
    ends_early = [name for name in ("stop_strings", "max_time") if getattr(settings, name)]
    if ends_early and settings.fill_token_id < 0:
        name = ends_early[0]
        raise SettingsError(
            f"{name} is {getattr(settings, name)!r} ({where(name)}), so texts differ in length, but there is no "
            "pad_token_id and no eos_token_id to fill up the short ones with. Pass pad_token_id."
        )


def _check_groups(settings: GenerationSettings, where: _Where) -> None:
    """Refuse groups that the beams cannot be cut into, and groups without the penalty that makes them differ, or it alone."""
    beams, groups, penalty = settings.num_beams, settings.num_beam_groups, settings.diversity_penalty
    if beams % groups:
        raise SettingsError(
            f"num_beam_groups is {groups} ({where('num_beam_groups')}), but num_beams is {beams} ({where('num_beams')}), "
            f"which cannot be cut into {groups} groups of one size. Pass num_beams={groups * max(1, beams // groups)}."
        )
    if groups > 1 and settings.do_sample:
        raise SettingsError(
            f"do_sample is True ({where('do_sample')}) and num_beam_groups is {groups} ({where('num_beam_groups')}): groups "
            "differ by what they take, and not by chance. Pass do_sample=False or num_beam_groups=1."
        )
    if (groups > 1) != (penalty > 0):
        remedy = "num_beam_groups=2 or more" if groups == 1 else "a diversity_penalty above 0, such as 1.0"
        raise SettingsError(
            f"diversity_penalty is {penalty} ({where('diversity_penalty')}) and num_beam_groups is {groups} "
            f"({where('num_beam_groups')}): groups differ by the penalty, and without groups it does nothing. Pass {remedy}."
        )


def check_against_model(
    settings: GenerationSettings, found: Mapping[str, Found], *, prompt_length: int, max_positions: int, vocab_size: int
) -> None:
    """Refuse settings that this model cannot follow: too long for its positions, ids that it does not have.

    Raises:
        SettingsError: as it says.
    """
    where = _Where(found)
    if prompt_length >= max_positions:
        raise SettingsError(
            f"The prompt has {prompt_length} ids (the start id and decoder_input_ids), but the decoder has {max_positions} "
            f"positions, and at least one id is to be written. Shorten decoder_input_ids to {max_positions - 2} ids after "
            "the start id, or fewer."
        )
    if settings.max_length > max_positions:
        name, given = _as_given(settings, "max")
        takes = "start id takes one" if prompt_length == 1 else f"start id and decoder_input_ids take {prompt_length}"
        why, most = "", max_positions
        if name == "max_new_tokens":
            why, most = f", of which the {takes}", max_positions - prompt_length
        raise SettingsError(
            f"{name} is {given} ({where(name)}), but the decoder has {max_positions} positions{why}. "
            f"Pass {name}={most} or less."
        )
    for name in (*_ONE_ID, *_ONE_OR_MORE_IDS, *_LISTS_OF_IDS):
        value = getattr(settings, name)
        if any(token >= vocab_size for token in _ids_in(value)):
            raise SettingsError(
                f"{name} is {value!r} ({where(name)}), but ids lie in 0 ... {vocab_size - 1}. "
                "Name an id of this model's vocabulary."
            )
    if settings.num_beams > 1 and max(2, 1 + len(settings.eos_token_ids)) > vocab_size:
        raise SettingsError(
            f"eos_token_id is {settings.eos_token_id!r} ({where('eos_token_id')}) and the vocabulary has {vocab_size} "
            "ids: nothing is left that a beam could go on with. Name fewer ends."
        )


def _ids_in(value: Any) -> Iterator[int]:
    """All ids in what may be one, or a tuple of ids, runs of ids, or runs with a bias."""
    if isinstance(value, tuple):
        for part in value:
            yield from _ids_in(part)
    elif isinstance(value, int):
        yield value


class _Where:
    """Says where a setting's value is from."""

    def __init__(self, found: Mapping[str, Found]) -> None:
        self._found = found

    def __call__(self, name: str) -> str:
        return f"from {self._found[name].place}" if name in self._found else "the default"


def _as_given(settings: GenerationSettings, bound: str) -> tuple[str, int | None]:
    """The setting that bounds the length ("max" or "min") under the name that it was given by, and its value."""
    new_tokens: int | None = getattr(settings, f"{bound}_new_tokens")
    if new_tokens is not None:
        return f"{bound}_new_tokens", new_tokens
    return f"{bound}_length", getattr(settings, f"{bound}_length")
