"""Names that are no settings here: misspelt, another library's, or transformers' that this version does not have.

    >>> refuse_unknown({"beams": 4})
    Traceback (most recent call last):
    ...
    led_ref.errors.SettingsError: There is no generation setting 'beams' (it was set to 4). The number of beams ...

Nothing that a caller wrote is dropped silently. A file may hold what is for other programs.
"""

from collections.abc import Mapping
from typing import Any

from led_ref.errors import SettingsError, nearest, quoted
from led_ref.generation.settings.settings import SETTINGS

# Settings of transformers that this version does not have, and that change which ids come out wherever they are set.
_CHANGES_THE_IDS = frozenset({
    "assistant_early_exit", "constraints", "dola_layers", "force_words_ids", "guidance_scale", "low_memory", "penalty_alpha",
    "token_healing", "watermarking_config",
})  # fmt: skip

# Those that change nothing in a file: they work on speed, or through another setting that is refused. In a call they are
# a wish that is not met, and refused.
_CHANGES_NOTHING_IN_A_FILE = frozenset({
    "assistant_confidence_threshold", "assistant_lookbehind", "cache_config", "compile_config",
    "disable_compile", "is_assistant", "max_cache_len", "max_matching_ngram_size", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "prefill_chunk_size", "target_lookbehind", "use_mtp",
})  # fmt: skip

NOT_HERE = _CHANGES_THE_IDS | _CHANGES_NOTHING_IN_A_FILE

# The value with which one changes nothing (besides None, False, 0 and empty lists).
_NEUTRAL = {"guidance_scale": 1}

# Arguments of transformers' generate and of other libraries that have another name here, or none.
_ELSEWHERE = {
    "inputs": "The ids of the documents are input_ids.",
    "inputs_embeds": "Encode first: encoder_outputs=model.encoder(inputs_embeds=...).",
    "streamer": "Use model.stream(...), which yields the ids step by step.",
    "assistant_model": "There is no assisted generation here.",
    "stop": "Texts that end the generation are stop_strings.",
    "stop_sequences": "Texts that end the generation are stop_strings.",
    "stop_words": "Texts that end the generation are stop_strings.",
    "max_tokens": "The number of new ids is max_new_tokens.",
    "beam_size": "The number of beams is num_beams.",
    "beams": "The number of beams is num_beams.",
    "n": "The number of texts for each document is num_return_sequences.",
    "negative_prompt_ids": "There is no guidance here.",
    "synced_gpus": "One process computes one batch here.",
    "verbose": "Pass progress=..., a function that is called after each layer and each id.",
    "truncate": "Text-level calls take truncation=True.",
}

# What transformers writes beside the settings, and what it has for whole servers.
_BESIDE_THEM = frozenset({
    "_from_model_config", "assistant_ensemble_weight", "continuous_batching_config", "generation_kwargs", "return_legacy_cache",
    "speculation_type", "transformers_version",
})  # fmt: skip


class ConfigOfCall(dict[str, Any]):
    """The settings of the argument generation_config, which stand in place of those of generation_config.json."""

    def check_names(self) -> None:
        """Refuse names that are no settings; a file is read past those, but nobody wrote these for another program.

        Raises:
            SettingsError: naming the one that is meant.
        """
        refuse_unknown({k: v for k, v in self.items() if k not in _BESIDE_THEM | _CHANGES_NOTHING_IN_A_FILE})


def refuse_unknown(call: Mapping[str, Any]) -> None:
    """Refuse a name that neither this version nor transformers has.

    Raises:
        SettingsError: with the name that is meant, or what there is in its place.
    """
    for name in call:
        if name not in SETTINGS and name not in NOT_HERE:
            near = nearest(name, SETTINGS) if isinstance(name, str) else None
            remedy = _ELSEWHERE.get(name) or (f"Did you mean {near!r}?" if near else "")
            raise SettingsError(
                f"There is no generation setting {quoted(name, 80)} (it was set to {quoted(call[name])}). {remedy}"
                f"{' ' if remedy else ''}All of them: {', '.join(SETTINGS)}."
            )


def refuse_missing_features(values: Mapping[str, Any], place: str, *, in_a_call: bool) -> None:
    """Refuse what transformers has and this version has not, if it would change the ids; in a call, whatever it would change.

    Raises:
        SettingsError: with the value, its place and what to do.
    """
    names = NOT_HERE if in_a_call else _CHANGES_THE_IDS
    for name in sorted(names & values.keys()):
        value = values[name]
        is_number = not (isinstance(value, list | tuple | dict | str | bool) or value is None)
        if value not in (0, _NEUTRAL.get(name, 0)) if is_number else value:
            remedy = f"Leave {name} out" if in_a_call else f"Pass {name}=None to generate without it"
            raise SettingsError(
                f"{name} is {quoted(value)} (from {place}), which is not part of this version: it generates by greedy "
                f"search, beam search and sampling. {remedy}."
            )
