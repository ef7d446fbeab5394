"""Which value counts, and what is refused with which words."""

import json

import numpy as np
import pytest

from led_ref.errors import SettingsError
from led_ref.generation import GenerationConfig, look_up

CONFIG = {"decoder_start_token_id": 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "d_model": 64}


def resolved(call=None, file=None, config=None, *, prompt_length=1, max_positions=64):
    return look_up(call or {}, file, {**CONFIG, **(config or {})}).resolve(
        prompt_length=prompt_length,
        max_positions=max_positions,
        vocab_size=99,
    )


# ---- which value counts ---------------------------------------------------------------------------------------------


def test_precedence_call_generation_config_config():
    config, file = {"num_beams": 3, "no_repeat_ngram_size": 3}, {"num_beams": 2, "min_length": 4}
    assert resolved().num_beams == 1
    assert resolved(config=config).num_beams == 3
    assert resolved(file=file, config=config).num_beams == 2
    assert resolved({"num_beams": 5}, file, config).num_beams == 5
    assert resolved({"num_beams": None}, file, config).num_beams == 1
    # As in transformers, config.json's generation keys are not looked at beside a generation_config.json ...
    assert resolved(file=file, config=config).no_repeat_ngram_size == 0
    # ... but a special id is not lost because that file does not repeat it.
    assert resolved(file=file).eos_token_id == 2
    assert resolved(file={"eos_token_id": [2, 5]}).eos_token_ids == (2, 5)
    assert resolved({"eos_token_id": None}).eos_token_ids == ()


@pytest.mark.parametrize(
    ("call", "file", "prompt_length", "max_length"),
    [
        ({}, None, 1, 21),
        ({}, None, 4, 24),
        ({}, None, 50, 64),  # 20 more do not fit into the decoder's 64 positions, and nobody asked for them
        ({"max_new_tokens": 7}, None, 4, 11),
        ({"max_length": 7}, None, 4, 7),
        ({"max_length": 7, "max_new_tokens": 9}, None, 4, 13),
        ({}, {"max_length": 7, "max_new_tokens": 9}, 4, 13),
        ({"max_new_tokens": 9}, {"max_length": 7}, 4, 13),
        ({"max_length": 7}, {"max_new_tokens": 9}, 4, 7),  # transformers: 13, whatever the call says
        ({"max_length": None}, {"max_length": 7}, 4, 24),
    ],
)
def test_max_length(call, file, prompt_length, max_length):
    settings = resolved(call, file, prompt_length=prompt_length)
    assert settings.max_length == max_length
    assert settings.max_new_tokens in {None, max_length - prompt_length}


@pytest.mark.parametrize(
    ("call", "file", "min_length", "min_new_tokens"),
    [
        ({}, None, 0, None),
        ({"min_length": 6}, None, 6, None),
        ({"min_new_tokens": 6}, None, 10, 6),
        ({"min_length": 5, "min_new_tokens": 6}, None, 10, 6),
        ({"min_length": 5}, {"min_new_tokens": 6}, 5, None),
    ],
)
def test_min_length(call, file, min_length, min_new_tokens):
    settings = resolved(call, file, prompt_length=4)
    assert (settings.min_length, settings.min_new_tokens) == (min_length, min_new_tokens)


def test_missing_special_ids_as_in_transformers():
    bare = {"eos_token_id": [7, 8], "pad_token_id": None, "decoder_start_token_id": None}
    settings = resolved(config=bare)
    assert (settings.pad_token_id, settings.decoder_start_token_id) == (7, 0)
    assert look_up({}, None, {**CONFIG, **bare}).decoder_start_id() == 0
    assert look_up({}, None, CONFIG).decoder_start_id() == 2
    assert look_up({"decoder_start_token_id": 9}, {"decoder_start_token_id": 8}, CONFIG).decoder_start_id() == 9
    assert resolved(config={"force_bos_token_to_be_generated": True}).forced_bos_token_id == 0
    with pytest.raises(SettingsError, match=r"decoder_start_token_id is None and so is bos_token_id.*config.json"):
        look_up({}, None, {}).decoder_start_id()


def test_effective_settings_repr():
    call = {"num_beams": np.int64(4), "length_penalty": 2, "eos_token_id": [2, 5], "early_stopping": "never"}
    echo = json.loads(json.dumps(resolved(call).to_dict()))
    assert {name: echo[name] for name in (*call, "max_length", "pad_token_id")} == {
        "num_beams": 4,
        "length_penalty": 2.0,
        "eos_token_id": [2, 5],
        "early_stopping": "never",
        "max_length": 21,
        "pad_token_id": 1,
    }


# ---- what files may say ---------------------------------------------------------------------------------------------


def test_ineffective_settings_in_files_are_accepted():
    file = {
        "transformers_version": "5.23.0",
        "_from_model_config": True,
        "do_sample": False,
        "temperature": 0.7,
        "top_k": 40,
        "num_beam_groups": 1,
        "diversity_penalty": 0.0,
        "guidance_scale": 1.0,
        "bad_words_ids": None,
        "suppress_tokens": [],
        "output_attentions": True,
        "num_beams": 4,
    }
    assert resolved(file=file).num_beams == 4
    assert resolved(config={**file, "dropout": 0.1, "task_specific_params": {"num_beams": 9}}).num_beams == 4


FEATURES = {"penalty_alpha": 0.6, "guidance_scale": 1.5, "force_words_ids": [[5]], "low_memory": True}


@pytest.mark.parametrize(("name", "value"), FEATURES.items())
def test_unsupported_settings_are_refused_everywhere(name, value):
    with pytest.raises(SettingsError, match=rf"{name} is .*the call.*not part of this version.*Leave {name} out"):
        resolved({name: value})
    for place, given in (
        ("generation_config.json", {"file": {name: value}}),
        ("config.json", {"config": {name: value}}),
    ):
        with pytest.raises(SettingsError, match=rf"{name} is .*from {place}.*Pass {name}=None"):
            resolved(**given)
        assert resolved({name: None}, **given).num_beams == 1


@pytest.mark.parametrize(("name", "value"), {"compile_config": {"mode": "fast"}, "prefill_chunk_size": 5}.items())
def test_unsupported_settings_in_a_call(name, value):
    with pytest.raises(SettingsError, match=f"{name} is .*from the call., which is not part of this version"):
        resolved({name: value})


IDLE = [
    ({"temperature": 0.7}, {"do_sample": True}, r"do_sample is False \(the default\): nothing is drawn"),
    ({"top_k": 5}, {"do_sample": True}, "Pass do_sample=True, or leave top_k out"),
    ({"seed": 7}, {"do_sample": True}, "do_sample is False"),
    ({"length_penalty": 2.0}, {"num_beams": 2}, r"num_beams is 1 \(the default\): there are no beams"),
    ({"early_stopping": True}, {"num_beams": 2}, "leave early_stopping out"),
    ({"exponential_decay_length_penalty": (2, 1.5), "eos_token_id": None}, {"eos_token_id": 2}, "no end to favour"),
]


@pytest.mark.parametrize(("call", "with_effect", "words"), IDLE, ids=[next(iter(call)) for call, *_ in IDLE])
def test_ineffective_settings_in_a_call(call, with_effect, words):
    name, value = next(iter(call.items()))
    with pytest.raises(SettingsError, match=rf"{name} is .* \(from the call\), but .*{words}"):
        resolved(call)
    assert getattr(resolved({**call, **with_effect}), name) == value
    in_a_file = {name: value, "eos_token_id": call.get("eos_token_id", 2)}
    assert resolved(file=in_a_file).num_beams == 1
    assert resolved({name: getattr(GenerationConfig(), name)}).num_beams == 1  # what it is anyway may be said


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("num_beam", "num_beams"),
        ("max_new_token", "max_new_tokens"),
        ("lenght_penalty", "length_penalty"),
        ("eos_token", "eos_token_id"),
    ],
)
def test_unknown_name_gets_a_suggestion(wrong, nearest):
    with pytest.raises(
        SettingsError, match=f"no generation setting '{wrong}' .it was set to 4.*nearest one is '{nearest}'"
    ):
        resolved({wrong: 4})


BAD_VALUES = [
    ({"num_beams": 0}, "num_beams is 0 (from the call); it must be a whole number of at least 1"),
    ({"num_beams": 2.0}, "num_beams is 2.0 (from the call); it must be a whole number"),
    ({"num_beams": True}, "num_beams is True (from the call); it must be a whole number"),
    ({"max_length": 0}, "max_length is 0 (from the call); it must be a whole number of at least 1"),
    ({"max_new_tokens": 0}, "max_new_tokens is 0 (from the call); it must be a whole number of at least 1"),
    ({"min_length": -1}, "min_length is -1 (from the call); it must be a whole number of at least 0"),
    ({"no_repeat_ngram_size": "3"}, "no_repeat_ngram_size is '3' (from the call); it must be a whole number"),
    ({"repetition_penalty": 0}, "repetition_penalty is 0 (from the call); it must be a number above 0"),
    ({"encoder_repetition_penalty": float("inf")}, "encoder_repetition_penalty is inf (from the call)"),
    ({"length_penalty": float("nan")}, "length_penalty is nan (from the call); it must be a finite number"),
    ({"length_penalty": 60.0}, "length_penalty is 60.0 (from the call); 21 ids to that power do not fit into float32"),
    (
        {"early_stopping": "always"},
        """early_stopping is 'always' (from the call); it must be True, False or "never\"""",
    ),
    ({"early_stopping": 1}, "early_stopping is 1 (from the call); it must be True"),
    ({"output_scores": 1}, "output_scores is 1 (from the call); it must be True or False"),
    ({"eos_token_id": [2, -1]}, "eos_token_id is [2, -1] (from the call); it must be an id"),
    ({"decoder_start_token_id": [2, 2]}, "decoder_start_token_id is [2, 2] (from the call); it must be an id"),
    ({"forced_bos_token_id": 99}, "forced_bos_token_id is 99 (from the call), but ids lie in 0 ... 98"),
    ({"forced_eos_token_id": [2, 99]}, "forced_eos_token_id is (2, 99) (from the call), but ids lie in 0 ... 98"),
    ({"num_return_sequences": 2}, "num_return_sequences is 2 (from the call), but num_beams is 1 (the default)"),
    ({"num_return_sequences": 5, "num_beams": 4}, "Pass num_beams=5 or more, or ask for fewer texts"),
    (
        {"max_length": 65},
        "max_length is 65 (from the call), but the decoder has 64 positions. Pass max_length=64 or less",
    ),
    (
        {"max_new_tokens": 64},
        "max_new_tokens is 64 (from the call), but the decoder has 64 positions, of which the start id takes one. "
        "Pass max_new_tokens=63 or less.",
    ),
    (
        {"max_new_tokens": 9, "min_length": 11},
        "min_length is 11 (from the call), but max_new_tokens is 9 (from the call); a length also counts the prompt "
        "(1 id). Lower min_length (0 switches it off) or raise max_new_tokens.",
    ),
    (
        {"max_new_tokens": 9, "min_new_tokens": 10},
        "min_new_tokens is 10 (from the call), but max_new_tokens is 9 (from the call). Lower",
    ),
    ({"min_new_tokens": 21}, "min_new_tokens is 21 (from the call), but max_length is 21 (the default)"),
    (
        {"max_length": 1},
        "max_length is 1 (from the call), but the prompt (the start id and decoder_input_ids) has 1 id",
    ),
    ({"do_sample": 1}, "do_sample is 1 (from the call); it must be True or False"),
    (
        {"temperature": 0},
        "temperature is 0 (from the call); it must be a number above 0; 1 switches it off, and do_sample",
    ),
    ({"top_k": -1}, "top_k is -1 (from the call); it must be a whole number of at least 0"),
    ({"top_p": 1.5}, "top_p is 1.5 (from the call); it must be a number from 0 to 1; 1 switches it off"),
    ({"top_h": 0}, "top_h is 0 (from the call); it must be a number above 0 and at most 1"),
    ({"min_p": float("nan")}, "min_p is nan (from the call); it must be a number from 0 to 1"),
    ({"typical_p": 0}, "typical_p is 0 (from the call); it must be a number above 0 and at most 1"),
    ({"epsilon_cutoff": 1}, "epsilon_cutoff is 1 (from the call); it must be a number from 0 to below 1"),
    ({"eta_cutoff": "0.1"}, "eta_cutoff is '0.1' (from the call); it must be a number from 0 to below 1"),
    ({"seed": -3}, "seed is -3 (from the call); it must be a whole number of at least 0, or one for each document"),
    ({"seed": [1, 2.0]}, "seed is [1, 2.0] (from the call); it must be"),
    ({"max_time": 0}, "max_time is 0 (from the call); it must be a number of seconds above 0"),
    ({"bad_words_ids": [5]}, "bad_words_ids is [5] (from the call); it must be a list of lists of ids"),
    ({"bad_words_ids": [[]]}, "bad_words_ids is [[]] (from the call); it must be a list of lists of ids"),
    ({"bad_words_ids": [[5, 99]]}, "bad_words_ids is ((5, 99),) (from the call), but ids lie in 0 ... 98"),
    ({"sequence_bias": {(5,): "much"}}, "sequence_bias is {(5,): 'much'} (from the call); it must be a dict such as"),
    ({"sequence_bias": [[[5, 200], 1.0]]}, "(from the call), but ids lie in 0 ... 98"),
    ({"suppress_tokens": 5}, "suppress_tokens is 5 (from the call); it must be a list of ids"),
    ({"begin_suppress_tokens": [100]}, "begin_suppress_tokens is (100,) (from the call), but ids lie in 0 ... 98"),
    (
        {"exponential_decay_length_penalty": (1.5, 2)},
        "exponential_decay_length_penalty is (1.5, 2) (from the call); it must be (new tokens after which it begins, factor",
    ),
    ({"stop_strings": ["x", ""]}, "stop_strings is ['x', ''] (from the call); it must be a text, or a list of texts"),
    (
        {"stop_strings": "x", "eos_token_id": None, "pad_token_id": None},
        "stop_strings is ('x',) (from the call), so texts differ in length, but there is no pad_token_id",
    ),
    (
        {"do_sample": True, "num_beams": 2, "num_return_sequences": 3},
        "Pass num_beams=3 or more, or ask for fewer texts",
    ),
    ({"num_return_sequences": 3}, "Pass num_beams=3 or more, or ask for fewer texts; or draw them: do_sample=True."),
    ({"eos_token_id": list(range(99)), "num_beams": 2}, "no id is left to continue a beam with"),
]


@pytest.mark.parametrize(("call", "words"), BAD_VALUES, ids=[str(call)[:40] for call, _ in BAD_VALUES])
def test_invalid_values_are_refused(call, words):
    with pytest.raises(SettingsError) as refusal:
        resolved(call)
    assert words in str(refusal.value)


def test_message_names_the_source_file():
    with pytest.raises(
        SettingsError, match=r"min_length is 30 \(from generation_config.json\).*max_new_tokens is 8 \(from the call\)"
    ):
        resolved({"max_new_tokens": 8}, {"min_length": 30})
    with pytest.raises(
        SettingsError, match=r"max_length is 4 \(from config.json\), but the prompt .* has 5 ids.*at least 6"
    ):
        resolved(config={"max_length": 4}, prompt_length=5)
    with pytest.raises(SettingsError, match=r"start id and decoder_input_ids take 5. Pass max_new_tokens=59 or less"):
        resolved({"max_new_tokens": 60}, prompt_length=5)
    with pytest.raises(SettingsError, match=r"prompt has 64 ids .* decoder has 64 positions.*Shorten .* to 62 ids"):
        resolved(prompt_length=64)


def test_a_list_of_ids_is_several_ids():
    settings = GenerationConfig(eos_token_id=[2, 5], forced_eos_token_id=[7])
    assert (settings.eos_token_ids, settings.forced_eos_token_ids) == ((2, 5), (7,))
