"""Generation config: the 45 settings of a generation, each stated once, with its type, allowed form and default.

    >>> GenerationConfig(num_beams=4).num_beams
    4
    >>> SETTINGS["num_beams"].form.wanted, SETTINGS["top_k"].needs
    ('a whole number of at least 1', 'do_sample')

`resolve.py` makes one from a call and a model's files; `checks.py` says which values are refused, `value_forms.py` what the
forms mean.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, get_type_hints

from led_ref.generation.settings import value_forms as forms

DEFAULT_NEW_TOKENS = 20


@dataclass(frozen=True)
class Setting:
    """What else is known of a setting beside its type and default.

    Args:
        form: what its value must look like.
        needs: the setting without which it has no effect; "" where it always has one.
        is_special_id: it is looked up in config.json too where a generation_config.json leaves it out.
    """

    form: forms.Form
    needs: str = ""
    is_special_id: bool = False


_FLAG = Setting(forms.YES_OR_NO)
_OUTPUT = Setting(forms.YES_OR_NO, "return_dict_in_generate")


@dataclass(frozen=True)
class GenerationConfig:
    """The settings that a search works with. Names and meanings are those of transformers' GenerationConfig.

    Made by `resolve_settings`, which checks them. "Length" counts all ids of a target, the start id and the prompt
    included; "new tokens" are those that the model generates.

    Args:
        num_beams: W; 1 is greedy search, or with do_sample one drawn text.
        num_beam_groups: above 1 is diverse beam search: the beams search in so many groups, and each group is penalised
            for what earlier groups chose (group_beam_search.py); num_beams is a multiple of it.
        diversity_penalty: groups only. What an id costs for each beam of an earlier group that chose it in the same step.
        num_return_sequences: texts returned for each document; with beams at most num_beams, and 1 for greedy search.
        length_penalty: beams only. A finished hypothesis' score is divided by its new tokens ** length_penalty: above 0
            favours long texts (scores are negative).
        early_stopping: beams only. True: stop at num_beams finished hypotheses; False: stop when a better one is unlikely;
            "never": stop when a better one is impossible.
        max_length: most ids of a target. Where max_new_tokens is given, the prompt's length plus it.
        max_new_tokens: as given, or None where max_length or the default counts.
        min_length: no end before this length. Where min_new_tokens is given, the prompt's length plus it.
        min_new_tokens: as given, or None.
        no_repeat_ngram_size: no n ids in a row come twice in a target; 0 is off.
        encoder_no_repeat_ngram_size: no n ids in a row are copied from the source; 0 is off.
        repetition_penalty: above 1, ids of the prompt and the generated prefix become less likely; 1 is off.
        encoder_repetition_penalty: above 1, ids of the source become more likely; 1 is off.
        forced_bos_token_id: the id after the start id, if the prompt is the start id alone.
        forced_eos_token_id: the id, or one of the ids, at max_length.
        eos_token_id: the id, or ids, that end a text.
        pad_token_id: fills up short rows; the first eos id if it is None.
        bos_token_id: the start id, where decoder_start_token_id is missing.
        decoder_start_token_id: the id that every target begins with.
        do_sample: draw each id by its probability, instead of taking the best (with beams: draw the candidates).
        seed: sampling only. The same seed gives a document the same text in any batch; a tuple has one for each document;
            None: another text each time (sampling.py).
        temperature: sampling only, as are the next seven, which cut the distribution in this order (warpers.py). Above 1
            evens the probabilities out, below 1 sharpens them.
        top_h: ids from the likeliest on, until they hold this share of the entropy; None is off.
        top_k: the k likeliest ids; 0 is off.
        top_p: the fewest likeliest ids that hold this share of the probability.
        min_p: ids of at least this share of the likeliest one's probability; 0 is off.
        typical_p: the ids whose surprise is nearest to the mean surprise, until they hold this share of the probability.
        epsilon_cutoff: ids of at least this probability; 0 is off.
        eta_cutoff: the same, and less where the distribution is flat; 0 is off.
        sequence_bias: pairs (ids, bias): the bias is added to the score of the last id where the others precede it.
        bad_words_ids: ids that may not come in a row.
        suppress_tokens: ids that never come.
        begin_suppress_tokens: ids that do not come first.
        exponential_decay_length_penalty: (start, factor): from `start` new tokens on the end becomes ever more likely.
        remove_invalid_values: NaN becomes 0 and infinity the largest number, instead of an error.
        renormalize_logits: scores are made log-probabilities again after all rules.
        stop_strings: a text ends where it contains one of these.
        max_time: seconds from the first id on after which the search stops.
        use_cache: whether the model keeps a KV cache of the generated prefix; False: each step computes its keys and values
            anew, for the same ids. The model reads this setting and the next; a search does not.
        cache_implementation: "dynamic": the KV cache grows; "static": it is allocated once, for max_length.
        return_dict_in_generate: whether generate returns scores and indices beside the ids.
        output_scores: whether the processed scores of each step are kept.
        output_logits: whether the model's own logits of each step are kept.
        output_attentions: whether generate returns all attention maps.
        output_hidden_states: whether generate returns all hidden states.
    """

    num_beams: Annotated[int, Setting(forms.integer(1))] = 1
    num_beam_groups: Annotated[int, Setting(forms.integer(1))] = 1
    diversity_penalty: Annotated[float, Setting(forms.GROUP_PENALTY)] = 0.0
    num_return_sequences: Annotated[int, Setting(forms.integer(1))] = 1
    length_penalty: Annotated[float, Setting(forms.FINITE, "num_beams")] = 1.0
    early_stopping: Annotated[bool | str, Setting(forms.EARLY_STOPPING, "num_beams")] = False
    max_length: Annotated[int, Setting(forms.integer(1))] = 1 + DEFAULT_NEW_TOKENS
    max_new_tokens: Annotated[int | None, Setting(forms.integer(1))] = None
    min_length: Annotated[int, Setting(forms.integer(0))] = 0
    min_new_tokens: Annotated[int | None, Setting(forms.integer(0))] = None
    no_repeat_ngram_size: Annotated[int, Setting(forms.integer(0))] = 0
    encoder_no_repeat_ngram_size: Annotated[int, Setting(forms.integer(0))] = 0
    repetition_penalty: Annotated[float, Setting(forms.PENALTY_FACTOR)] = 1.0
    encoder_repetition_penalty: Annotated[float, Setting(forms.PENALTY_FACTOR)] = 1.0
    forced_bos_token_id: Annotated[int | None, Setting(forms.ONE_ID)] = None
    forced_eos_token_id: Annotated[int | tuple[int, ...] | None, Setting(forms.ID_OR_IDS)] = None
    eos_token_id: Annotated[int | tuple[int, ...] | None, Setting(forms.ID_OR_IDS, is_special_id=True)] = None
    pad_token_id: Annotated[int | None, Setting(forms.ONE_ID, is_special_id=True)] = None
    bos_token_id: Annotated[int | None, Setting(forms.ONE_ID, is_special_id=True)] = None
    decoder_start_token_id: Annotated[int | None, Setting(forms.ONE_ID, is_special_id=True)] = None
    do_sample: Annotated[bool, _FLAG] = False
    seed: Annotated[int | tuple[int, ...] | None, Setting(forms.SEED, "do_sample")] = None
    temperature: Annotated[float, Setting(forms.TEMPERATURE, "do_sample")] = 1.0
    top_h: Annotated[float | None, Setting(forms.PART_OFF_AT_NONE, "do_sample")] = None
    top_k: Annotated[int, Setting(forms.integer(0), "do_sample")] = 50
    top_p: Annotated[float, Setting(forms.PART_OFF_AT_1, "do_sample")] = 1.0
    min_p: Annotated[float, Setting(forms.PART_OFF_AT_0, "do_sample")] = 0.0
    typical_p: Annotated[float, Setting(forms.PART_ABOVE_0, "do_sample")] = 1.0
    epsilon_cutoff: Annotated[float, Setting(forms.CUTOFF, "do_sample")] = 0.0
    eta_cutoff: Annotated[float, Setting(forms.CUTOFF, "do_sample")] = 0.0
    sequence_bias: Annotated[tuple[tuple[tuple[int, ...], float], ...], Setting(forms.BIASES)] = ()
    bad_words_ids: Annotated[tuple[tuple[int, ...], ...], Setting(forms.RUNS_OF_IDS)] = ()
    suppress_tokens: Annotated[tuple[int, ...], Setting(forms.IDS)] = ()
    begin_suppress_tokens: Annotated[tuple[int, ...], Setting(forms.IDS)] = ()
    exponential_decay_length_penalty: Annotated[tuple[int, float] | None, Setting(forms.DECAY, "eos_token_id")] = None
    remove_invalid_values: Annotated[bool, _FLAG] = False
    renormalize_logits: Annotated[bool, _FLAG] = False
    stop_strings: Annotated[tuple[str, ...], Setting(forms.TEXTS)] = ()
    max_time: Annotated[float | None, Setting(forms.SECONDS)] = None
    use_cache: Annotated[bool, _FLAG] = True
    cache_implementation: Annotated[str, Setting(forms.one_of("dynamic", "static"))] = "dynamic"
    return_dict_in_generate: Annotated[bool, _FLAG] = False
    output_scores: Annotated[bool, _OUTPUT] = False
    output_logits: Annotated[bool, _OUTPUT] = False
    output_attentions: Annotated[bool, _OUTPUT] = False
    output_hidden_states: Annotated[bool, _OUTPUT] = False

    def __post_init__(self) -> None:
        """Several ids may come as a list; they are kept as a tuple."""
        for name in ("eos_token_id", "forced_eos_token_id"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @cached_property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All ids that end a text, as a tuple."""
        return as_tuple(self.eos_token_id)

    @cached_property
    def forced_eos_token_ids(self) -> tuple[int, ...]:
        """All ids that are allowed at max_length, as a tuple; empty if all are."""
        return as_tuple(self.forced_eos_token_id)

    @cached_property
    def fill_token_id(self) -> int:
        """The id that fills up short rows: pad, else the first eos. Without either no row is short (-1)."""
        return self.pad_token_id if self.pad_token_id is not None else (*self.eos_token_ids, -1)[0]

    @cached_property
    def rows_per_document(self) -> int:
        """Rows of the step function for one document: its beams, or the texts that are drawn for it."""
        return self.num_beams if self.num_beams > 1 else self.num_return_sequences

    @cached_property
    def candidates_per_beam(self) -> int:
        """C / W, the candidates kept in a step: even if each beam's best continuations are ends, W others remain."""
        return max(2, 1 + len(self.eos_token_ids))

    def to_dict(self) -> dict[str, Any]:
        """The settings in effect, JSON-ready: what a run should print or keep beside its result."""
        return {f.name: _as_lists(getattr(self, f.name)) for f in fields(self)}


# The older name, which led_ref makes public.
GenerationSettings = GenerationConfig

# Every setting by its name, read off the annotations above.
SETTINGS: dict[str, Setting] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(GenerationConfig, include_extras=True).items()
}
SAMPLING_ONLY = tuple(name for name, setting in SETTINGS.items() if setting.needs == "do_sample")
OUTPUT_SETTINGS = tuple(name for name, setting in SETTINGS.items() if setting.needs == "return_dict_in_generate")


def as_tuple(token_id: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """No id, one id or several, as a tuple."""
    if token_id is None:
        return ()
    return token_id if isinstance(token_id, tuple) else (token_id,)


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value
