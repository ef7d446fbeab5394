"""Generation settings: what may be set, where a value comes from, and which values cannot be.

A setting comes from the call; else from generation_config.json; else, where there is no such file, from the key of that
name in config.json; else it has its default. (As in transformers, a generation_config.json replaces config.json's
generation keys altogether. Only the special ids are looked up in config.json one by one.)

    >>> file = {"num_beams": 4, "max_length": 64, "transformers_version": "4.1"}
    >>> settings = resolve_settings({"num_beams": 2}, file, {"decoder_start_token_id": 2, "eos_token_id": 2},
    ...                             prompt_length=1, max_positions=128, vocab_size=99)
    >>> settings.num_beams, settings.max_length, settings.eos_token_ids
    (2, 64, (2,))

A name that does not exist is refused, and so is one that exists in transformers but is not part of this version, if its
value would change the result: nothing is dropped silently. Nor may a call set what has no effect beside its other
settings, such as a temperature without do_sample; in a file, such values are read past. How each value is checked is in
`checks.py` and `values.py`.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from led_ref.errors import SettingsError
from led_ref.generation.settings.checks import SAMPLING_ONLY, Found, check_against_model, check_together, check_value

DEFAULT_NEW_TOKENS = 20

_SPECIAL_IDS = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")

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
class GenerationSettings:
    """The settings that a search works with. Names and meanings are those of transformers' GenerationConfig.

    Made by `resolve_settings`, which checks them. "Length" counts all ids of a target, the start id and the prompt
    included; "new tokens" are those that the model writes.

    Args:
        num_beams: W; 1 is greedy search, or with do_sample one drawn text.
        num_beam_groups: above 1, the beams search in so many groups, and each shuns what those before it write
            (group_beam.py); num_beams is a multiple of it.
        diversity_penalty: groups only. What an id costs for each beam of an earlier group that wrote it in the same step.
        num_return_sequences: texts returned for each document; with beams at most num_beams, and 1 for greedy search.
        length_penalty: beams only. A finished text's score is divided by its new tokens ** length_penalty: above 0
            favours long texts (scores are negative).
        early_stopping: beams only. True: stop at num_beams finished texts; False: stop when a better one is unlikely;
            "never": stop when a better one is impossible.
        max_length: most ids of a target. What max_new_tokens, if given, comes to.
        max_new_tokens: as given, or None where max_length or the default counts.
        min_length: no end before this length. What min_new_tokens, if given, comes to.
        min_new_tokens: as given, or None.
        no_repeat_ngram_size: no n ids in a row come twice in a target; 0 is off.
        encoder_no_repeat_ngram_size: no n ids in a row are copied from the source; 0 is off.
        repetition_penalty: above 1, ids that were written become less likely; 1 is off.
        encoder_repetition_penalty: above 1, ids of the source become more likely; 1 is off.
        forced_bos_token_id: the id after the start id, where nothing else is written yet.
        forced_eos_token_id: the id, or one of the ids, at max_length.
        eos_token_id: the id, or ids, that end a text.
        pad_token_id: fills up short rows; the first eos id if there is none.
        bos_token_id: the start id, where decoder_start_token_id is missing.
        decoder_start_token_id: the id that every target begins with.
        do_sample: draw each id by its probability, instead of taking the best (with beams: draw the candidates).
        seed: sampling only. The same seed gives a document the same text, whatever lies beside it; a tuple has one for each
            document; None: another text each time (sampling.py).
        temperature: sampling only, as are the next seven, which cut the distribution in this order (warpers.py). Above 1
            evens the probabilities out, below 1 sharpens them.
        top_h: ids from the likeliest on, until they hold this share of the entropy; None is off.
        top_k: the k likeliest ids; 0 is off.
        top_p: the fewest likeliest ids that hold this share of the probability.
        min_p: ids of at least this share of the likeliest one's probability; 0 is off.
        typical_p: the ids whose surprise is nearest to the mean surprise, until they hold this share of the probability.
        epsilon_cutoff: ids of at least this probability; 0 is off.
        eta_cutoff: the same, and less where the distribution is flat; 0 is off.
        sequence_bias: pairs (ids, bias): the bias is added to the score of the last id where the others stand before it.
        bad_words_ids: ids that may not come in a row.
        suppress_tokens: ids that never come.
        begin_suppress_tokens: ids that do not come first.
        exponential_decay_length_penalty: (start, factor): from `start` new tokens on the end becomes ever more likely.
        remove_invalid_values: NaN becomes 0 and infinity the largest number, instead of an error.
        renormalize_logits: scores are made log-probabilities again after all rules.
        stop_strings: a text ends where one of these stands in it.
        max_time: seconds from the first id on after which no more are written.
        use_cache: whether the model keeps keys and values of what is written; False: each step computes them anew, for
            the same ids. The search does not look at it.
        cache_implementation: "dynamic", memory for what is written grows; "static": it is taken once, for max_length. Nor
            does it look at this.
        return_dict_in_generate: whether generate returns scores and indices beside the ids. Nor at this.
        output_scores: whether the processed scores of each step are kept.
        output_logits: whether the model's own logits of each step are kept.
        output_attentions: whether generate returns all attention probabilities. The search does not look at it.
        output_hidden_states: whether generate returns all hidden states. Nor at this.
    """

    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    max_length: int = 1 + DEFAULT_NEW_TOKENS
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | tuple[int, ...] | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    do_sample: bool = False
    seed: int | tuple[int, ...] | None = None
    temperature: float = 1.0
    top_h: float | None = None
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    exponential_decay_length_penalty: tuple[int, float] | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False
    stop_strings: tuple[str, ...] = ()
    max_time: float | None = None
    use_cache: bool = True
    cache_implementation: str = "dynamic"
    return_dict_in_generate: bool = False
    output_scores: bool = False
    output_logits: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False

    def __post_init__(self) -> None:
        """Several ids may come as a list; they are kept as a tuple, which is what the searches count."""
        for name in ("eos_token_id", "forced_eos_token_id"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All ids that end a text, as a tuple."""
        return _as_tuple(self.eos_token_id)

    @property
    def forced_eos_token_ids(self) -> tuple[int, ...]:
        """All ids that may stand at max_length, as a tuple; empty if any may."""
        return _as_tuple(self.forced_eos_token_id)

    @property
    def fill_token_id(self) -> int:
        """What short rows are filled up with: pad, else the first eos. Without either no row is short (-1)."""
        return self.pad_token_id if self.pad_token_id is not None else (*self.eos_token_ids, -1)[0]

    @property
    def rows_per_document(self) -> int:
        """Texts of one document that are written side by side: its beams, or the texts that are drawn for it."""
        return self.num_beams if self.num_beams > 1 else self.num_return_sequences

    def to_dict(self) -> dict[str, Any]:
        """The settings in effect, JSON-ready: what a run should print or keep beside its result."""
        return {f.name: _as_lists(getattr(self, f.name)) for f in fields(self)}


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value


_NAMES = tuple(f.name for f in fields(GenerationSettings))


def resolve_settings(
    call: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None,
    config_values: Mapping[str, Any],
    *,
    prompt_length: int,
    max_positions: int,
    vocab_size: int,
) -> GenerationSettings:
    """The settings of one call, complete and checked.

    Without any length 20 new tokens are written (fewer where the decoder's positions end). Of max_new_tokens and
    max_length the one from the call counts, and max_new_tokens if both come from the same place; min_new_tokens and
    min_length likewise. None in the call means: as if no file said anything.

    Args:
        call: what the caller set.
        generation_config: the content of generation_config.json, or None where there is no such file.
        config_values: the content of config.json.
        prompt_length: P, the ids that are there before the first is written, the start id included.
        max_positions: how long a target the decoder has positions for.
        vocab_size: V.

    Raises:
        SettingsError: for a name that does not exist or is not part of this version, and for values that cannot be or
            contradict each other. The message says where the value was found.
    """
    found = _find(call, generation_config, config_values)
    values = {name: check_value(name, found[name]) for name in found}
    start = values.get("decoder_start_token_id")
    values["decoder_start_token_id"] = values.get("bos_token_id") if start is None else start
    if values.get("pad_token_id") is None and values.get("eos_token_id") is not None:
        values["pad_token_id"] = _as_tuple(values["eos_token_id"])[0]
    _settle_max_length(values, found, prompt_length=prompt_length, max_positions=max_positions)
    _settle_min_length(values, found, prompt_length=prompt_length)
    settings = GenerationSettings(**values)
    check_against_model(
        settings, found, prompt_length=prompt_length, max_positions=max_positions, vocab_size=vocab_size
    )
    check_together(settings, found, prompt_length=prompt_length)
    return settings


def decoder_start_id(
    call: Mapping[str, Any], generation_config: Mapping[str, Any] | None, config_values: Mapping[str, Any]
) -> int:
    """The id that every target begins with: looked up as in `resolve_settings`, which needs the prompt's length.

    Raises:
        SettingsError: if neither decoder_start_token_id nor bos_token_id is set, or as `resolve_settings`.
    """
    found = _find(call, generation_config, config_values)
    for name in ("decoder_start_token_id", "bos_token_id"):
        if name in found and (token := check_value(name, found[name])) is not None:
            return int(token)
    raise SettingsError(
        "decoder_start_token_id is None and so is bos_token_id: nothing says which id a target begins with. "
        "Pass decoder_start_token_id (2 for all LED checkpoints), or add it to config.json."
    )


def _find(
    call: Mapping[str, Any], generation_config: Mapping[str, Any] | None, config_values: Mapping[str, Any]
) -> dict[str, Found]:
    """Each setting that is set somewhere, with the place. What this version cannot do is refused here."""
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
    for name in _NAMES:
        if name in call:
            if call[name] is None:
                found.pop(name, None)
            else:
                found[name] = Found(call[name], "the call")
        elif file.get(name) is not None:
            found[name] = Found(file[name], place)
        elif name in _SPECIAL_IDS and config_values.get(name) is not None:
            found[name] = Found(config_values[name], "config.json")
    if "do_sample" not in found or found["do_sample"].value is False:
        # A file may keep a temperature, any temperature, for the day when somebody samples.
        found = {name: f for name, f in found.items() if name not in SAMPLING_ONLY or f.place == "the call"}
    return found


def _refuse_unknown(call: Mapping[str, Any]) -> None:
    for name in call:
        if name not in _NAMES and name not in _CHANGES_THE_IDS and name not in _CHANGES_NOTHING_IN_A_FILE:
            nearest = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0)[0]
            raise SettingsError(
                f"There is no generation setting {name!r} (it was set to {call[name]!r}). The nearest one is "
                f"{nearest!r}. All of them: {', '.join(_NAMES)}."
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
            f"{name} is {value!r} (from {place}), which is not part of this version: it writes texts by greedy "
            f"search, beam search and sampling. {remedy}."
        )


def _settle_max_length(
    values: dict[str, Any], found: Mapping[str, Found], *, prompt_length: int, max_positions: int
) -> None:
    """One of max_new_tokens and max_length counts; max_length says it for both."""
    if _counts("max_new_tokens", "max_length", found):
        values["max_length"] = prompt_length + values["max_new_tokens"]
        return
    values.pop("max_new_tokens", None)
    values.setdefault("max_length", min(prompt_length + DEFAULT_NEW_TOKENS, max_positions))


def _settle_min_length(values: dict[str, Any], found: Mapping[str, Found], *, prompt_length: int) -> None:
    """One of min_new_tokens and min_length counts; min_length says it for both."""
    if _counts("min_new_tokens", "min_length", found):
        values["min_length"] = prompt_length + values["min_new_tokens"]
        return
    values.pop("min_new_tokens", None)


def _counts(new_tokens: str, length: str, found: Mapping[str, Found]) -> bool:
    """Whether the setting that counts new tokens is set, and is not overruled by a length in the call."""
    if new_tokens not in found:
        return False
    overruled = length in found and found[length].place == "the call" and found[new_tokens].place != "the call"
    return not overruled


def _as_tuple(token_id: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if token_id is None:
        return ()
    return token_id if isinstance(token_id, tuple) else (token_id,)
