"""Where a generation setting's value comes from: the call, the model's files, or the default.

A setting comes from the call; else from generation_config.json; else, where there is no such file, from the key of that
name in config.json; else it has its default. (As in transformers, a generation_config.json replaces config.json's
generation keys altogether. Only the special ids are looked up in config.json one by one.)

    >>> file = {"num_beams": 4, "max_length": 64, "transformers_version": "4.1"}
    >>> given = look_up({"num_beams": 2}, file, {"decoder_start_token_id": 2, "eos_token_id": 2})
    >>> given.decoder_start_id()
    2
    >>> settings = given.resolve(prompt_length=1, max_positions=128, vocab_size=99)
    >>> settings.num_beams, settings.max_length, settings.eos_token_ids
    (2, 64, (2,))

`look_up` checks names, and each value by itself; it needs no model. `resolve` needs the prompt's length and the model's
sizes; it completes the settings and checks them together. Every message gives the value, the place it came from (the call, a
file, or the default) and what to do.

A name that does not exist is refused, and so is one that exists in transformers but is not part of this version, if its
value would change the result: nothing is dropped silently. Nor may a call set what has no effect beside its other
settings, such as a temperature without do_sample; in a file, such values are ignored.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from led_ref.errors import SettingsError, quoted
from led_ref.generation.settings.other_names import NOT_HERE, ConfigOfCall, refuse_missing_features, refuse_unknown
from led_ref.generation.settings.settings import DEFAULT_NEW_TOKENS, SAMPLING_ONLY, SETTINGS, GenerationConfig, as_tuple

# length ** length_penalty must stay far inside float32, so that scores divided by it do as well.
_LARGEST_DIVISOR = 1e30

# Why a setting has no effect without the one that it needs, and what to pass. (`generate` itself checks what needs
# return_dict_in_generate: a search can keep scores without it.)
_NO_EFFECT = {
    "do_sample": ("nothing is drawn", "do_sample=True"),
    "num_beams": ("there are no beams", "num_beams=4, for one"),
    "eos_token_id": ("there is no end to favour", "eos_token_id"),
}


class Found(NamedTuple):
    """A value, and where it was found: "the call", or the name of a file."""

    value: Any
    place: str


@dataclass(frozen=True)
class GivenSettings:
    """The settings that a call or a file gives: each a possible value by itself, with the place that it is from."""

    found: Mapping[str, Found]

    def decoder_start_id(self) -> int:
        """The id that every target begins with.

        Raises:
            SettingsError: if neither decoder_start_token_id nor bos_token_id is set.
        """
        for name in ("decoder_start_token_id", "bos_token_id"):
            if name in self.found:
                return int(self.found[name].value)
        raise SettingsError(
            "decoder_start_token_id is None and so is bos_token_id: nothing says which id a target begins with. "
            "Pass decoder_start_token_id (2 for all LED checkpoints), or add it to config.json."
        )

    def resolve(self, *, prompt_length: int, max_positions: int, vocab_size: int) -> GenerationConfig:
        """The settings of one call, complete and checked.

        Without any length 20 new tokens are generated (fewer where the decoder's positions end). Of max_new_tokens and
        max_length the one from the call counts, and max_new_tokens if both come from the same place; min_new_tokens and
        min_length likewise.

        Args:
            prompt_length: P, the ids of the prompt, the start id included.
            max_positions: how long a target the decoder has positions for.
            vocab_size: V.

        Raises:
            SettingsError: for values that contradict each other, have no effect, or do not fit the model.
        """
        values = {name: found.value for name, found in self.found.items()}
        if values.get("decoder_start_token_id") is None:
            values["decoder_start_token_id"] = values.get("bos_token_id")
        if values.get("pad_token_id") is None and values.get("eos_token_id") is not None:
            values["pad_token_id"] = as_tuple(values["eos_token_id"])[0]
        # One of new tokens and length counts; the length then says it for both.
        for bound in ("max", "min"):
            new_tokens, length = f"{bound}_new_tokens", f"{bound}_length"
            if self._counts(new_tokens, length):
                values[length] = prompt_length + values[new_tokens]
            else:
                values.pop(new_tokens, None)
        values.setdefault("max_length", min(prompt_length + DEFAULT_NEW_TOKENS, max_positions))
        settings = GenerationConfig(**values)

        def stated(name: str) -> str:
            place = f"from {self.found[name].place}" if name in self.found else "the default"
            return f"{name} is {quoted(getattr(settings, name))} ({place})"

        sizes = {"prompt_length": prompt_length, "max_positions": max_positions, "vocab_size": vocab_size}
        check_against_model(settings, stated, **sizes)
        call = [name for name, found in self.found.items() if found.place == "the call"]
        check_together(settings, stated, call, prompt_length=prompt_length)
        check_effect(settings, stated, call)
        return settings

    def _counts(self, new_tokens: str, length: str) -> bool:
        """Whether the setting that counts new tokens is given, and not overruled by a length in the call."""
        place, overruling = (self.found[name].place if name in self.found else "" for name in (new_tokens, length))
        return place == "the call" or (place != "" and overruling != "the call")


def look_up(
    call: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None = None,
    config_values: Mapping[str, Any] | None = None,
) -> GivenSettings:
    """Find each setting that a call or a file gives, and check names and values as far as no model is needed for it.

    `look_up(call)` alone is the early check of a call, before any model is loaded.

    Args:
        call: what the caller set; None means: as if no file said anything.
        generation_config: the content of generation_config.json, or None where there is no such file; a ConfigOfCall is the
            caller's, in its place.
        config_values: the content of config.json.

    Raises:
        SettingsError: for a name that does not exist or is not part of this version, and for a value that cannot be. The
            message says where it was found.
    """
    config_values = config_values or {}
    if call.keys() - SETTINGS.keys():
        refuse_unknown(call)
    file, place = generation_config, "generation_config.json"
    if file is None:
        file, place = config_values, "config.json"
    elif isinstance(file, ConfigOfCall):
        place = "the argument generation_config"
        file.check_names()
    if not (NOT_HERE.isdisjoint(call) and NOT_HERE.isdisjoint(file)):
        refuse_missing_features(call, "the call", in_a_call=True)
        refuse_missing_features({k: v for k, v in file.items() if k not in call}, place, in_a_call=False)

    found = {}
    if generation_config is None and config_values.get("force_bos_token_to_be_generated"):
        # BART's configuration said it so before there was forced_bos_token_id; files converted from it still may.
        found["forced_bos_token_id"] = Found(config_values.get("bos_token_id"), place)
    for name, setting in SETTINGS.items():
        if name in call:
            found.pop(name, None)
            if call[name] is not None:
                found[name] = Found(call[name], "the call")
        elif file.get(name) is not None:
            found[name] = Found(file[name], place)
        elif setting.is_special_id and config_values.get(name) is not None:
            found[name] = Found(config_values[name], "config.json")
    if "do_sample" not in found or found["do_sample"].value is False:
        # A file may keep a temperature, any temperature, for the day when somebody samples.
        found = {name: f for name, f in found.items() if name not in SAMPLING_ONLY or f.place == "the call"}
    for name, (value, place) in found.items():
        form = SETTINGS[name].form
        if not form.fits(value):
            raise SettingsError(f"{name} is {quoted(value)} (from {place}); it must be {form.wanted}.")
        found[name] = Found(form.convert(value), place)
    return GivenSettings(found)


# ---- all settings together, and against the model; the errors name values, places and remedies ----------------------

# The name of a setting -> "num_beams is 4 (from the call)".
Stated = Callable[[str], str]


def check_together(settings: GenerationConfig, stated: Stated, call: Collection[str], *, prompt_length: int) -> None:
    """Refuse settings that contradict each other."""
    beams, returned = settings.num_beams, settings.num_return_sequences
    if returned > beams and not (settings.do_sample and beams == 1):
        raise SettingsError(
            f"{stated('num_return_sequences')}, but {stated('num_beams')}, and a search returns at most one text for each "
            f"beam{' (1 beam is greedy search)' if beams == 1 else ''}. Pass num_beams={returned} or more, or ask for "
            f"fewer texts{'; or draw them: do_sample=True' if beams == 1 else ''}."
        )
    _check_groups(settings, stated, in_call="diversity_penalty" in call)
    _check_lookup(settings, stated, in_call="prompt_lookup_num_tokens" in call)
    _check_forced(settings, stated)
    most, least = _bound(settings, "max"), _bound(settings, "min")
    prompt = "1 id" if prompt_length == 1 else f"{prompt_length} ids"
    if settings.max_length <= prompt_length:
        raise SettingsError(
            f"{stated('max_length')}, but the prompt (the start id and decoder_input_ids) has {prompt}. Pass "
            f"max_new_tokens, which does not count them, or max_length of at least {prompt_length + 1}."
        )
    if settings.min_length > settings.max_length:
        both_new = least == "min_new_tokens" and most == "max_new_tokens"
        raise SettingsError(
            f"{stated(least)}, but {stated(most)}{'' if both_new else f'; a length also counts the prompt ({prompt})'}. "
            f"Lower {least} (0 switches it off) or raise {most}."
        )
    if settings.cache_implementation == "static" and not settings.use_cache:
        raise SettingsError(
            f"{stated('cache_implementation')}, but {stated('use_cache')}: there is no cache to keep. Leave one of the two out."
        )
    if abs(settings.length_penalty) * math.log10(settings.max_length) > math.log10(_LARGEST_DIVISOR):
        limit = math.log10(_LARGEST_DIVISOR) / math.log10(settings.max_length)
        raise SettingsError(
            f"{stated('length_penalty')}; {settings.max_length} ids to that power do not fit into float32. Keep it between "
            f"{-limit:.1f} and {limit:.1f}; usual values are 0 to 2."
        )
    for name in ("stop_strings", "max_time"):
        if getattr(settings, name) and settings.fill_token_id < 0:
            raise SettingsError(
                f"{stated(name)}, so texts differ in length, but there is no pad_token_id and no eos_token_id to fill up the "
                "short ones with. Pass pad_token_id."
            )


def check_effect(settings: GenerationConfig, stated: Stated, call: Collection[str]) -> None:
    """Refuse a setting of the call that has no effect beside its other settings."""
    defaults = GenerationConfig()
    lacking = {
        "do_sample": not settings.do_sample,
        "num_beams": settings.num_beams == 1,
        "eos_token_id": not settings.eos_token_ids,
    }
    for name in call:
        needed = SETTINGS[name].needs
        if lacking.get(needed) and getattr(settings, name) != getattr(defaults, name):
            why, remedy = _NO_EFFECT[needed]
            raise SettingsError(f"{stated(name)}, but {stated(needed)}: {why}. Pass {remedy}, or leave {name} out.")


def _check_groups(settings: GenerationConfig, stated: Stated, *, in_call: bool) -> None:
    """Refuse groups of unequal size, and groups without the penalty that makes them differ, or the penalty alone."""
    beams, groups, penalty = settings.num_beams, settings.num_beam_groups, settings.diversity_penalty
    if beams % groups:
        raise SettingsError(
            f"{stated('num_beam_groups')}, but {stated('num_beams')}, which cannot be cut into {groups} groups of one size. "
            f"Pass num_beams={groups * max(1, beams // groups)}."
        )
    if groups > 1 and settings.do_sample:
        raise SettingsError(
            f"{stated('do_sample')} and {stated('num_beam_groups')}: groups differ by their penalty, not by chance. Pass "
            "do_sample=False or num_beam_groups=1."
        )
    if groups == 1 and penalty > 0 and not in_call:
        return  # a file may keep a penalty for the day when somebody asks for groups
    if (groups > 1) != (penalty > 0):
        remedy = "num_beam_groups=2 or more" if groups == 1 else "a diversity_penalty above 0, such as 1.0"
        raise SettingsError(
            f"{stated('diversity_penalty')} and {stated('num_beam_groups')}: groups differ by the penalty, and without groups "
            f"it does nothing. Pass {remedy}."
        )


def _check_lookup(settings: GenerationConfig, stated: Stated, *, in_call: bool) -> None:
    """Refuse reading ahead where nothing can be read ahead, or taken back."""
    name = "prompt_lookup_num_tokens"
    if settings.prompt_lookup_num_tokens and settings.num_beams > 1 and in_call:
        raise SettingsError(
            f"{stated(name)}, but {stated('num_beams')}: beams change places in each step, so nothing is read ahead for them. "
            f"Pass num_beams=1, or leave {name} out."
        )
    if not settings.looks_up:
        return  # a file may keep it for the day when somebody asks for one beam
    for other, remedy in (
        ("output_attentions", "a pass of the model reads several ids, and is not a step"),
        ("output_hidden_states", "a pass of the model reads several ids, and is not a step"),
        ("use_cache", "without a cache there is nothing to take back"),
    ):
        if getattr(settings, other) is (other != "use_cache"):
            raise SettingsError(f"{stated(name)}, but {stated(other)}: {remedy}. Pass {name}=0, or leave {other} out.")


def _check_forced(settings: GenerationConfig, stated: Stated) -> None:
    """Refuse ids that one setting forces and another forbids: no id would be left."""
    suppressed = set(settings.suppress_tokens)
    for name, forced in (
        ("forced_bos_token_id", as_tuple(settings.forced_bos_token_id)),
        ("forced_eos_token_id", settings.forced_eos_token_ids),
    ):
        if forced and suppressed.issuperset(forced):
            raise SettingsError(
                f"{stated(name)}, but {stated('suppress_tokens')} forbids just that: no id would be left. Take it out of "
                f"suppress_tokens, or pass {name}=None."
            )


def check_against_model(
    settings: GenerationConfig, stated: Stated, *, prompt_length: int, max_positions: int, vocab_size: int
) -> None:
    """Refuse settings that this model cannot follow: too long for its positions, ids that it does not have."""
    if prompt_length >= max_positions:
        raise SettingsError(
            f"The prompt has {prompt_length} ids (the start id and decoder_input_ids), but the decoder has {max_positions} "
            f"positions, and at least one id is to be generated. Shorten decoder_input_ids to {max_positions - 2} ids after "
            "the start id, or fewer."
        )
    if settings.max_length > max_positions:
        name = _bound(settings, "max")
        takes = "start id takes one" if prompt_length == 1 else f"start id and decoder_input_ids take {prompt_length}"
        why, most = "", max_positions
        if name == "max_new_tokens":
            why, most = f", of which the {takes}", max_positions - prompt_length
        raise SettingsError(
            f"{stated(name)}, but the decoder has {max_positions} positions{why}. Pass {name}={most} or less."
        )
    for name, setting in SETTINGS.items():
        if setting.form.holds_ids and any(token >= vocab_size for token in _ids_in(getattr(settings, name))):
            raise SettingsError(
                f"{stated(name)}, but ids lie in 0 ... {vocab_size - 1}. Name an id of this model's vocabulary."
            )
    if len(set(settings.suppress_tokens)) >= vocab_size:
        raise SettingsError(
            f"suppress_tokens forbids all {vocab_size} ids of the vocabulary: nothing could be generated. Leave some out."
        )
    if settings.num_beams > 1 and settings.candidates_per_beam > vocab_size:
        raise SettingsError(
            f"{stated('eos_token_id')} and the vocabulary has {vocab_size} ids: no id is left to continue a beam with. Name "
            "fewer ends."
        )


def _ids_in(value: Any) -> Iterator[int]:
    """All ids in an id, a tuple of ids, of runs of ids, or of runs with a bias."""
    if isinstance(value, tuple):
        for part in value:
            yield from _ids_in(part)
    elif isinstance(value, int):
        yield value


def _bound(settings: GenerationConfig, bound: str) -> str:
    """The name of the setting by which the length's bound ("max" or "min") was given."""
    return f"{bound}_length" if getattr(settings, f"{bound}_new_tokens") is None else f"{bound}_new_tokens"
