"""Validation of generation settings: each value by itself, all of them together, and against this model.

    >>> check_value("num_beams", Found(4, "the call"))
    4
    >>> check_value("num_beams", Found(0, "the call"))
    Traceback (most recent call last):
    led_ref.errors.SettingsError: num_beams is 0 (from the call); it must be a whole number of at least 1.

Every message gives the value, the place it came from (the call, a file, or the default) and what to do.
`resolve.py` decides which value counts; nothing here changes one, except that NumPy's numbers become Python's and lists
tuples.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from led_ref.errors import SettingsError
from led_ref.generation.settings.settings import SETTINGS, GenerationConfig

# length ** length_penalty must stay far inside float32, so that scores divided by it do as well.
_LARGEST_DIVISOR = 1e30

# Why a setting has no effect without the one that it needs, and what to pass. (`generate` itself checks what needs
# return_dict_in_generate: a search can keep scores without it.)
_NO_EFFECT = {
    "do_sample": ("do_sample is False: nothing is drawn", "do_sample=True"),
    "num_beams": ("num_beams is 1: there are no beams", "num_beams=4, for one"),
    "eos_token_id": ("eos_token_id is None: there is no end to favour", "eos_token_id"),
}


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
    form = SETTINGS[name].form
    if not form.fits(found.value):
        raise SettingsError(f"{name} is {found.value!r} (from {found.place}); it must be {form.wanted}.")
    return form.convert(found.value)


def _places(found: Mapping[str, Found]) -> Callable[[str], str]:
    """A function that says where a setting's value is from."""
    return lambda name: f"from {found[name].place}" if name in found else "the default"


def check_together(settings: GenerationConfig, found: Mapping[str, Found], *, prompt_length: int) -> None:
    """Refuse settings that contradict each other.

    Raises:
        SettingsError: naming the values, their places and what to pass.
    """
    where = _places(found)
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
    prompt = "1 id" if prompt_length == 1 else f"{prompt_length} ids"
    if settings.max_length <= prompt_length:
        raise SettingsError(
            f"max_length is {settings.max_length} ({where(most_name)}), but the prompt "
            f"(the start id and decoder_input_ids) has {prompt}. Pass max_new_tokens, which does not count them, or "
            f"max_length of at least {prompt_length + 1}."
        )
    if settings.min_length > settings.max_length:
        both_new = least_name == "min_new_tokens" and most_name == "max_new_tokens"
        raise SettingsError(
            f"{least_name} is {least} ({where(least_name)}), but {most_name} is {most} ({where(most_name)})"
            f"{'' if both_new else f'; a length also counts the prompt ({prompt})'}. "
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


def check_effect(settings: GenerationConfig, found: Mapping[str, Found]) -> None:
    """Refuse a setting of the call that has no effect beside its other settings.

    Raises:
        SettingsError: naming the values, their places and what to pass.
    """
    where = _places(found)
    defaults = type(settings)()
    lacking = {
        "do_sample": not settings.do_sample,
        "num_beams": settings.num_beams == 1,
        "eos_token_id": not settings.eos_token_ids,
    }
    for name, setting in SETTINGS.items():
        value = getattr(settings, name)
        is_set = name in found and found[name].place == "the call" and value != getattr(defaults, name)
        if is_set and lacking.get(setting.needs):
            why, remedy = _NO_EFFECT[setting.needs]
            raise SettingsError(
                f"{name} is {value!r} ({where(name)}), but {why} ({where(setting.needs)}). "
                f"Pass {remedy}, or leave {name} out."
            )
    ends_early = [name for name in ("stop_strings", "max_time") if getattr(settings, name)]
    if ends_early and settings.fill_token_id < 0:
        name = ends_early[0]
        raise SettingsError(
            f"{name} is {getattr(settings, name)!r} ({where(name)}), so texts differ in length, but there is no "
            "pad_token_id and no eos_token_id to fill up the short ones with. Pass pad_token_id."
        )


def _check_groups(settings: GenerationConfig, where: Callable[[str], str]) -> None:
    """Refuse groups of unequal size, and groups without the penalty that makes them differ, or the penalty alone."""
    beams, groups, penalty = settings.num_beams, settings.num_beam_groups, settings.diversity_penalty
    if beams % groups:
        raise SettingsError(
            f"num_beam_groups is {groups} ({where('num_beam_groups')}), but num_beams is {beams} ({where('num_beams')}), "
            f"which cannot be cut into {groups} groups of one size. Pass num_beams={groups * max(1, beams // groups)}."
        )
    if groups > 1 and settings.do_sample:
        raise SettingsError(
            f"do_sample is True ({where('do_sample')}) and num_beam_groups is {groups} ({where('num_beam_groups')}): groups "
            "differ by their penalty, not by chance. Pass do_sample=False or num_beam_groups=1."
        )
    if (groups > 1) != (penalty > 0):
        remedy = "num_beam_groups=2 or more" if groups == 1 else "a diversity_penalty above 0, such as 1.0"
        raise SettingsError(
            f"diversity_penalty is {penalty} ({where('diversity_penalty')}) and num_beam_groups is {groups} "
            f"({where('num_beam_groups')}): groups differ by the penalty, and without groups it does nothing. Pass {remedy}."
        )


def check_against_model(
    settings: GenerationConfig, found: Mapping[str, Found], *, prompt_length: int, max_positions: int, vocab_size: int
) -> None:
    """Refuse settings that this model cannot follow: too long for its positions, ids that it does not have.

    Raises:
        SettingsError: naming the values, their places and what to pass.
    """
    where = _places(found)
    if prompt_length >= max_positions:
        raise SettingsError(
            f"The prompt has {prompt_length} ids (the start id and decoder_input_ids), but the decoder has {max_positions} "
            f"positions, and at least one id is to be generated. Shorten decoder_input_ids to {max_positions - 2} ids after "
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
    for name, setting in SETTINGS.items():
        value = getattr(settings, name)
        if setting.form.holds_ids and any(token >= vocab_size for token in _ids_in(value)):
            raise SettingsError(
                f"{name} is {value!r} ({where(name)}), but ids lie in 0 ... {vocab_size - 1}. "
                "Name an id of this model's vocabulary."
            )
    if settings.num_beams > 1 and settings.candidates_per_beam > vocab_size:
        raise SettingsError(
            f"eos_token_id is {settings.eos_token_id!r} ({where('eos_token_id')}) and the vocabulary has {vocab_size} "
            "ids: no id is left to continue a beam with. Name fewer ends."
        )


def _ids_in(value: Any) -> Iterator[int]:
    """All ids in an id, a tuple of ids, of runs of ids, or of runs with a bias."""
    if isinstance(value, tuple):
        for part in value:
            yield from _ids_in(part)
    elif isinstance(value, int):
        yield value


def _as_given(settings: GenerationConfig, bound: str) -> tuple[str, int | None]:
    """The setting that bounds the length ("max" or "min") under the name that it was given by, and its value."""
    new_tokens: int | None = getattr(settings, f"{bound}_new_tokens")
    if new_tokens is not None:
        return f"{bound}_new_tokens", new_tokens
    return f"{bound}_length", getattr(settings, f"{bound}_length")
