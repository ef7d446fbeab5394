"""The types of the settings as a caller may write them, for editors and type checkers; the schema is GenerationConfig.

A list of ids may be any sequence here; GenerationConfig keeps tuples. None means: as if no file said anything.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

# Runs of ids and what is added to their scores: {(9, 12): -2.5}, or [[[9, 12], -2.5]].
Biases = Mapping[tuple[int, ...], float] | Sequence[Sequence[Sequence[int] | float]]


class SettingsByName(TypedDict, total=False):
    """The settings of `generate` by name; GenerationConfig explains them, and a test compares the two."""

    num_beams: int | None
    num_beam_groups: int | None
    diversity_penalty: float | None
    num_return_sequences: int | None
    length_penalty: float | None
    early_stopping: bool | Literal["never"] | None
    max_length: int | None
    max_new_tokens: int | None
    min_length: int | None
    min_new_tokens: int | None
    no_repeat_ngram_size: int | None
    encoder_no_repeat_ngram_size: int | None
    repetition_penalty: float | None
    encoder_repetition_penalty: float | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None
    eos_token_id: int | Sequence[int] | None
    pad_token_id: int | None
    bos_token_id: int | None
    decoder_start_token_id: int | None
    do_sample: bool | None
    seed: int | Sequence[int] | None
    temperature: float | None
    top_h: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    sequence_bias: Biases | None
    bad_words_ids: Sequence[Sequence[int]] | None
    bad_words: str | Sequence[str] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    exponential_decay_length_penalty: tuple[int, float] | Sequence[float] | None
    remove_invalid_values: bool | None
    renormalize_logits: bool | None
    stop_strings: str | Sequence[str] | None
    max_time: float | None
    use_cache: bool | None
    cache_implementation: Literal["dynamic", "static"] | None
    prompt_lookup_num_tokens: int | None
    return_dict_in_generate: bool | None
    output_scores: bool | None
    output_logits: bool | None
    output_attentions: bool | None
    output_hidden_states: bool | None
