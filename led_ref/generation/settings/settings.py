"""Generation config: the 48 settings of a generation, each stated once, with its type, form and default.

    >>> GenerationConfig(num_beams=4).num_beams
    4
    >>> SETTINGS["num_beams"].form.wanted, SETTINGS["top_k"].needs
    ('a whole number of at least 1 and at most 1000', 'do_sample')

A form says what a value may look like, in words and as a test, and converts it to the few types that the searches work with:
Python's numbers, and tuples.

    >>> SETTINGS["bad_words_ids"].form.convert([[5], [np.int64(6), 7]])
    ((5,), (6, 7))
    >>> SETTINGS["sequence_bias"].form.convert({(5, 6): -1})
    (((5, 6), -1.0),)

`resolve.py` makes a GenerationConfig from a call and a model's files, and refuses what does not fit.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, get_type_hints

import numpy as np

from led_ref.errors import SettingsError, quoted

DEFAULT_NEW_TOKENS = 20
MAX_ROWS = (
    1000  # beams, or texts, of one document: each is a row of the decoder, with a KV cache and V scores of its own
)
MAX_LOOKUP = 1000  # proposed ids: a pass computes V logits after each


@dataclass(frozen=True)
class Form:
    """What a value must look like.

    Args:
        wanted: the form in words: "it must be ...".
        fits: whether a value has this form.
        convert: a value that fits, as Python's int, float, bool, str or tuples of them.
        holds_ids: whether it consists of token ids, all of which must lie in the model's vocabulary.
    """

    wanted: str
    fits: Callable[[Any], bool]
    convert: Callable[[Any], Any]
    holds_ids: bool = False


def is_integer(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number, Python's or NumPy's; True and False are not."""
    if isinstance(value, (float, np.floating)):
        return math.isfinite(value)
    return is_integer(value) and abs(int(value)) <= sys.float_info.max  # type: ignore[call-overload]


# ---- numbers, True and False, words ---------------------------------------------------------------------------------


def integer(least: int, most: float = math.inf) -> Form:
    """A whole number of at least `least`, and at most `most`."""
    wanted = f"a whole number of at least {least}" + (f" and at most {most}" if most < math.inf else "")
    return Form(wanted, lambda value: is_integer(value) and least <= value <= most, int)


def number(wanted: str, fits: Callable[[float], bool]) -> Form:
    """A finite number for which `fits` is True."""
    return Form(wanted, lambda value: is_number(value) and fits(value), float)


def one_of(*words: str) -> Form:
    """One of several words."""
    return Form(" or ".join(map(repr, words)), lambda value: isinstance(value, str) and value in words, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


FINITE = number("a finite number; 0 switches it off", lambda value: True)
PENALTY_FACTOR = number("a number above 0; 1 switches it off", lambda value: value > 0)
# Times the number of beams it must fit into float32.
GROUP_PENALTY = number(
    "a number above 0 (at most 1e30) where there are groups, else 0", lambda value: 0 <= value <= 1e30
)
TEMPERATURE = number(
    "a number above 0; 1 switches it off, and do_sample=False is what 0 would be", lambda value: value > 0
)
SECONDS = number("a number of seconds above 0; None switches it off", lambda value: value > 0)
# Parts of a probability; they differ in which of the two ends they include.
PART_OFF_AT_1 = number("a number from 0 to 1; 1 switches it off", lambda value: 0 <= value <= 1)
PART_OFF_AT_0 = number("a number from 0 to 1; 0 switches it off", lambda value: 0 <= value <= 1)
PART_OFF_AT_NONE = number("a number above 0 and at most 1; None switches it off", lambda value: 0 < value <= 1)
PART_ABOVE_0 = number("a number above 0 and at most 1; 1 switches it off", lambda value: 0 < value <= 1)
CUTOFF = number("a number from 0 to below 1; 0 switches it off", lambda value: 0 <= value < 1)
YES_OR_NO = Form("True or False", _is_flag, bool)
EARLY_STOPPING = Form(
    'True, False or "never"',
    lambda value: _is_flag(value) or (isinstance(value, str) and value == "never"),
    lambda value: value if isinstance(value, str) else bool(value),
)


# ---- token ids, lists of them, texts --------------------------------------------------------------------------------


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _is_id(value: Any) -> bool:
    return is_integer(value) and value >= 0


def _is_ids(value: Any) -> bool:
    return _is_list(value) and all(map(_is_id, value))


def _is_run(value: Any) -> bool:
    return _is_ids(value) and len(value) > 0


def _to_ids(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value))


def _pairs(value: Any) -> Any:
    return list(value.items()) if isinstance(value, Mapping) else value


def _is_biases(value: Any) -> bool:
    pairs = _pairs(value)
    if not (_is_list(pairs) and all(_is_list(pair) and len(pair) == 2 for pair in pairs)):
        return False
    return all(_is_run(run) and (bias == -math.inf or (is_number(bias) and abs(bias) <= 1e30)) for run, bias in pairs)


def _is_decay(value: Any) -> bool:
    return _is_list(value) and len(value) == 2 and _is_id(value[0]) and PENALTY_FACTOR.fits(value[1])


def _is_texts(value: Any) -> bool:
    texts = (value,) if isinstance(value, str) else value
    return isinstance(texts, (list, tuple)) and all(isinstance(text, str) and text for text in texts)


ONE_ID = Form("an id of the vocabulary", _is_id, int, holds_ids=True)
ID_OR_IDS = Form(
    "an id of the vocabulary, or a list of ids; None switches it off",
    lambda value: _is_id(value) or _is_ids(value),
    lambda value: (_to_ids(value) or None) if _is_list(value) else int(value),
    holds_ids=True,
)
IDS = Form("a list of ids; [] switches it off", _is_ids, _to_ids, holds_ids=True)
RUNS_OF_IDS = Form(
    "a list of lists of ids, such as [[47], [9, 12]]; [] switches it off",
    lambda value: _is_list(value) and all(map(_is_run, value)),
    lambda value: tuple(map(_to_ids, value)),
    holds_ids=True,
)
BIASES = Form(
    "a dict such as {(9, 12): -2.5}, or a list such as [[[9, 12], -2.5]], with biases from -1e30 to 1e30, or -inf",
    _is_biases,
    # Of two biases for one run the last counts, as in a dict.
    lambda value: tuple({_to_ids(run): float(bias) for run, bias in _pairs(value)}.items()),
    holds_ids=True,
)
DECAY = Form(
    "(new tokens after which it begins, factor above 0)", _is_decay, lambda value: (int(value[0]), float(value[1]))
)
SEED = Form(
    "a whole number of at least 0, or one for each document",
    lambda value: _is_id(value) or _is_run(value),
    lambda value: _to_ids(value) if _is_list(value) else int(value),
)
TEXTS = Form(
    "a text, or a list of texts, none of them empty",
    _is_texts,
    lambda value: (value,) if isinstance(value, str) else tuple(value),
)


# ---- the settings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What else is known of a setting beside its type and default.

    Args:
        form: what its value must look like.
        needs: the setting without which it has no effect; "" where it always has one.
        is_special_id: it is looked up in config.json too where a generation_config.json leaves it out.
    """

    form: Form
    needs: str = ""
    is_special_id: bool = False


_FLAG = Setting(YES_OR_NO)
_OUTPUT = Setting(YES_OR_NO, "return_dict_in_generate")


@dataclass(frozen=True, repr=False)
class GenerationConfig:
    """The settings that a search works with. Names and meanings are those of transformers' GenerationConfig.

    `GivenSettings.resolve` makes and checks them. "Length" counts all ids of a target, the start id and the prompt
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
        bad_words: texts whose ids may not come in a row, neither as they are nor after a blank; the call needs a tokenizer.
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
        prompt_lookup_num_tokens: one beam only. So many ids that followed the same n-gram in the document are read ahead, and
            those kept that would be chosen anyway: the same ids in fewer passes of the model (prompt_lookup.py); 0 is off.
        return_dict_in_generate: whether generate returns scores and indices beside the ids.
        output_scores: whether the processed scores of each step are kept.
        output_logits: whether the model's own logits of each step are kept.
        output_attentions: whether generate returns all attention maps.
        output_hidden_states: whether generate returns all hidden states.
    """

    num_beams: Annotated[int, Setting(integer(1, MAX_ROWS))] = 1
    num_beam_groups: Annotated[int, Setting(integer(1, MAX_ROWS))] = 1
    diversity_penalty: Annotated[float, Setting(GROUP_PENALTY)] = 0.0
    num_return_sequences: Annotated[int, Setting(integer(1, MAX_ROWS))] = 1
    length_penalty: Annotated[float, Setting(FINITE, "num_beams")] = 1.0
    early_stopping: Annotated[bool | str, Setting(EARLY_STOPPING, "num_beams")] = False
    max_length: Annotated[int, Setting(integer(1))] = 1 + DEFAULT_NEW_TOKENS
    max_new_tokens: Annotated[int | None, Setting(integer(1))] = None
    min_length: Annotated[int, Setting(integer(0))] = 0
    min_new_tokens: Annotated[int | None, Setting(integer(0))] = None
    no_repeat_ngram_size: Annotated[int, Setting(integer(0))] = 0
    encoder_no_repeat_ngram_size: Annotated[int, Setting(integer(0))] = 0
    repetition_penalty: Annotated[float, Setting(PENALTY_FACTOR)] = 1.0
    encoder_repetition_penalty: Annotated[float, Setting(PENALTY_FACTOR)] = 1.0
    forced_bos_token_id: Annotated[int | None, Setting(ONE_ID)] = None
    forced_eos_token_id: Annotated[int | tuple[int, ...] | None, Setting(ID_OR_IDS)] = None
    eos_token_id: Annotated[int | tuple[int, ...] | None, Setting(ID_OR_IDS, is_special_id=True)] = None
    pad_token_id: Annotated[int | None, Setting(ONE_ID, is_special_id=True)] = None
    bos_token_id: Annotated[int | None, Setting(ONE_ID, is_special_id=True)] = None
    decoder_start_token_id: Annotated[int | None, Setting(ONE_ID, is_special_id=True)] = None
    do_sample: Annotated[bool, _FLAG] = False
    seed: Annotated[int | tuple[int, ...] | None, Setting(SEED, "do_sample")] = None
    temperature: Annotated[float, Setting(TEMPERATURE, "do_sample")] = 1.0
    top_h: Annotated[float | None, Setting(PART_OFF_AT_NONE, "do_sample")] = None
    top_k: Annotated[int, Setting(integer(0), "do_sample")] = 50
    top_p: Annotated[float, Setting(PART_OFF_AT_1, "do_sample")] = 1.0
    min_p: Annotated[float, Setting(PART_OFF_AT_0, "do_sample")] = 0.0
    typical_p: Annotated[float, Setting(PART_ABOVE_0, "do_sample")] = 1.0
    epsilon_cutoff: Annotated[float, Setting(CUTOFF, "do_sample")] = 0.0
    eta_cutoff: Annotated[float, Setting(CUTOFF, "do_sample")] = 0.0
    sequence_bias: Annotated[tuple[tuple[tuple[int, ...], float], ...], Setting(BIASES)] = ()
    bad_words_ids: Annotated[tuple[tuple[int, ...], ...], Setting(RUNS_OF_IDS)] = ()
    bad_words: Annotated[tuple[str, ...], Setting(TEXTS)] = ()
    suppress_tokens: Annotated[tuple[int, ...], Setting(IDS)] = ()
    begin_suppress_tokens: Annotated[tuple[int, ...], Setting(IDS)] = ()
    exponential_decay_length_penalty: Annotated[tuple[int, float] | None, Setting(DECAY, "eos_token_id")] = None
    remove_invalid_values: Annotated[bool, _FLAG] = False
    renormalize_logits: Annotated[bool, _FLAG] = False
    stop_strings: Annotated[tuple[str, ...], Setting(TEXTS)] = ()
    max_time: Annotated[float | None, Setting(SECONDS)] = None
    use_cache: Annotated[bool, _FLAG] = True
    cache_implementation: Annotated[str, Setting(one_of("dynamic", "static"))] = "dynamic"
    prompt_lookup_num_tokens: Annotated[int, Setting(integer(0, MAX_LOOKUP))] = 0
    return_dict_in_generate: Annotated[bool, _FLAG] = False
    output_scores: Annotated[bool, _OUTPUT] = False
    output_logits: Annotated[bool, _OUTPUT] = False
    output_attentions: Annotated[bool, _OUTPUT] = False
    output_hidden_states: Annotated[bool, _OUTPUT] = False

    def __repr__(self) -> str:
        """The settings that are not as by default."""
        other = ((f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default)
        return f"GenerationConfig({', '.join(f'{name}={quoted(value, 80)}' for name, value in other)})"

    def __post_init__(self) -> None:
        """Values are kept as Python's numbers and tuples; None is the default."""
        for f in fields(self):
            value = getattr(self, f.name)
            form = SETTINGS[f.name].form
            if value is None:
                value = f.default
            elif not form.fits(value):
                raise SettingsError(f"{f.name} is {quoted(value)}; it must be {form.wanted}.")
            else:
                value = form.convert(value)
            object.__setattr__(self, f.name, value)

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
    def looks_up(self) -> bool:
        """Whether ids are read ahead: one beam, and prompt_lookup_num_tokens is set."""
        return self.prompt_lookup_num_tokens > 0 and self.num_beams == 1

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
