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
sizes; it completes the settings and checks them together. `checks.py` holds the checks.

A name that does not exist is refused, and so is one that exists in transformers but is not part of this version, if its
value would change the result: nothing is dropped silently. Nor may a call set what has no effect beside its other
settings, such as a temperature without do_sample; in a file, such values are ignored.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from led_ref.errors import SettingsError
from led_ref.generation.settings.checks import Found, check_against_model, check_together, check_value
from led_ref.generation.settings.settings import DEFAULT_NEW_TOKENS, SAMPLING_ONLY, SETTINGS, GenerationConfig, as_tuple

# Settings of transformers that this version does not have, and that change which ids come out wherever they are set.
_CHANGES_THE_IDS = frozenset({
    "assistant_early_exit", "constraints", "dola_layers", "force_words_ids", "guidance_scale", "low_memory", "penalty_alpha",
    "prompt_lookup_num_tokens", "token_healing", "watermarking_config",
})  # fmt: skip

# Those that change nothing in a file: they work on speed, or through another setting that is refused. In a call they are
# a wish that is not met, and refused.
_CHANGES_NOTHING_IN_A_FILE = frozenset({
    "assistant_confidence_threshold", "assistant_lookbehind", "cache_config", "compile_config",
    "disable_compile", "is_assistant", "max_cache_len", "max_matching_ngram_size", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "prefill_chunk_size", "target_lookbehind", "use_mtp",
})  # fmt: skip

# The values with which they change nothing (besides None, False, 0 and empty lists).
_NEUTRAL = {"guidance_scale": 1}


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
        sizes = {"prompt_length": prompt_length, "max_positions": max_positions, "vocab_size": vocab_size}
        check_against_model(settings, self.found, **sizes)
        check_together(settings, self.found, prompt_length=prompt_length)
        return settings

    def _counts(self, new_tokens: str, length: str) -> bool:
        """Whether the setting that counts new tokens is given, and not overruled by a length in the call."""
        if new_tokens not in self.found:
            return False
        is_in_call = {
            name: name in self.found and self.found[name].place == "the call" for name in (new_tokens, length)
        }
        return is_in_call[new_tokens] or not is_in_call[length]


def look_up(
    call: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None = None,
    config_values: Mapping[str, Any] | None = None,
) -> GivenSettings:
    """Find each setting that a call or a file gives, and check names and values as far as no model is needed for it.

    `look_up(call)` alone is the early check of a call, before any model is loaded.

    Args:
        call: what the caller set; None means: as if no file said anything.
        generation_config: the content of generation_config.json, or None where there is no such file.
        config_values: the content of config.json.

    Raises:
        SettingsError: for a name that does not exist or is not part of this version, and for a value that cannot be. The
            message says where it was found.
    """
    config_values = config_values or {}
    _refuse_unknown(call)
    if generation_config is not None:
        file, place = generation_config, "generation_config.json"
    else:
        file, place = config_values, "config.json"
    _refuse_missing_features(call, "the call", _CHANGES_THE_IDS | _CHANGES_NOTHING_IN_A_FILE)
    _refuse_missing_features({k: v for k, v in file.items() if k not in call}, place, _CHANGES_THE_IDS)

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
    return GivenSettings({name: Found(check_value(name, f), f.place) for name, f in found.items()})


def resolve_settings(
    call: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None,
    config_values: Mapping[str, Any],
    *,
    prompt_length: int,
    max_positions: int,
    vocab_size: int,
) -> GenerationConfig:
    """`look_up`, then `GivenSettings.resolve`: arguments and errors as there."""
    given = look_up(call, generation_config, config_values)
    return given.resolve(prompt_length=prompt_length, max_positions=max_positions, vocab_size=vocab_size)


def decoder_start_id(
    call: Mapping[str, Any], generation_config: Mapping[str, Any] | None, config_values: Mapping[str, Any]
) -> int:
    """The id that every target begins with; arguments as in `look_up`, errors as in both."""
    return look_up(call, generation_config, config_values).decoder_start_id()


def _refuse_unknown(call: Mapping[str, Any]) -> None:
    for name in call:
        if name not in SETTINGS and name not in _CHANGES_THE_IDS and name not in _CHANGES_NOTHING_IN_A_FILE:
            nearest = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0)[0]
            raise SettingsError(
                f"There is no generation setting {name!r} (it was set to {call[name]!r}). The nearest one is "
                f"{nearest!r}. All of them: {', '.join(SETTINGS)}."
            )


def _refuse_missing_features(values: Mapping[str, Any], place: str, names: frozenset[str]) -> None:
    for name in sorted(names & values.keys()):
        value = values[name]
        if isinstance(value, (list, tuple, dict, str)) or value is None or isinstance(value, bool):
            is_neutral = not value
        else:
            is_neutral = value in (0, _NEUTRAL.get(name, 0))
        if is_neutral:
            continue
        remedy = f"Leave {name} out" if place == "the call" else f"Pass {name}=None to generate without it"
        raise SettingsError(
            f"{name} is {value!r} (from {place}), which is not part of this version: it generates by greedy "
            f"search, beam search and sampling. {remedy}."
        )
