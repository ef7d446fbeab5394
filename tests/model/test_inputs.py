"""What forward refuses: each with the value that was found and the remedy, before anything is computed."""

from typing import Any

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

import led_ref
from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.errors import InputError

MODEL = LEDForConditionalGeneration.from_state_dict(CONFIG, draw_weights(CONFIG), dtype="float64")
V, T_MOST, U_MOST = CONFIG.vocab_size, CONFIG.max_encoder_position_embeddings, CONFIG.max_decoder_position_embeddings
D = CONFIG.d_model
GOOD: dict[str, Any] = {
    "input_ids": [[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]],
    "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]],
    "global_attention_mask": [[1, 0, 0, 0, 0], [1, 0, 0, -1, -1]],
    "decoder_input_ids": [[2, 5, 6], [2, 8, 2]],
    "decoder_attention_mask": [[1, 1, 1], [1, 1, 0]],
    "labels": [[5, 6, 2], [8, 2, -100]],
}
SAME = "pad()"  # the remedy that keeps ids and masks of one shape


def changed(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in {**GOOD, **changes}.items() if v is not None}


def test_an_encoding_goes_in_by_its_names():
    with pytest.raises(TypeError, match=r"input_ids is BatchEncoding.*goes in as \*\*encoding"):
        led_ref.load().model.generate(led_ref.load().tokenizer(["tar"], return_tensors="np"))
    with pytest.raises(TypeError, match="tokenizer is 'x', a str; it takes a LEDTokenizer"):
        led_ref.load().model.stream([[0, 5, 2]], num_beams=1, tokenizer="x")


def test_the_good_call_passes() -> None:
    assert MODEL(**GOOD).logits.shape == (2, 3, V)
    booleans = changed(
        attention_mask=np.array(GOOD["attention_mask"], bool), input_ids=np.array(GOOD["input_ids"], "u2")
    )
    np.testing.assert_array_equal(MODEL(**booleans).logits, MODEL(**GOOD).logits)
    # Exactly as long as the tables is not too long.
    longest = {"input_ids": [[3] * T_MOST], "decoder_input_ids": [[2] * U_MOST]}
    assert MODEL(**longest).logits.shape == (1, U_MOST, V)


REFUSED = {
    "id of V": (changed(input_ids=[[0, V, 2, 2, 2]] * 2), ["input_ids", str(V), f"{V - 1}", "tokenizer"]),
    "negative id": (changed(input_ids=[[0, 5, -3, 2, 2]] * 2), ["input_ids", "-3", "0 ...", "tokenizer"]),
    "float ids": (changed(input_ids=np.ones((2, 5))), ["input_ids", "float64", "integers"]),
    "boolean ids": (changed(input_ids=np.ones((2, 5), bool)), ["input_ids", "bool", "integers"]),
    "words for ids": (changed(input_ids=[["a", "b"]] * 2), ["input_ids", "whole numbers"]),
    "one row of ids": (changed(input_ids=[0, 5, 2]), ["input_ids", "(3,)", "(batch, length)", "list"]),
    "ragged ids": (changed(input_ids=[[0, 5, 2], [0, 2]]), ["input_ids", "2, 3", SAME]),
    "ragged masks": (changed(attention_mask=[[1, 1, 1, 1, 1], [1, 1]]), ["attention_mask", "2, 5", SAME]),
    "empty batch": (changed(input_ids=np.zeros((0, 5), int)), ["input_ids", "(0, 5)", "empty", "at least one"]),
    "empty documents": (changed(input_ids=[[], []]), ["input_ids", "(2, 0)", "empty", "at least one"]),
    "no document": (changed(input_ids=None), ["input_ids", "inputs_embeds", "encoder_outputs"]),
    "ids and embeddings": (changed(inputs_embeds=np.zeros((2, 5, D))), ["input_ids and inputs_embeds", "exactly one"]),
    "embeddings of another width": (
        changed(input_ids=None, inputs_embeds=np.zeros((2, 5, D + 1))),
        ["inputs_embeds", f"(2, 5, {D + 1})", f"{D}"],
    ),
    "mask of another shape": (changed(attention_mask=[[1, 1, 1]] * 2), ["attention_mask", "(2, 3)", "(2, 5)", SAME]),
    "mask of one row": (changed(attention_mask=[1, 1, 1, 1, 1]), ["attention_mask", "(5,)", "(2, 5)", SAME]),
    "global mask of another shape": (
        changed(global_attention_mask=[[1, 0, 0, 0]] * 2),
        ["global_attention_mask", "(2, 4)", "(2, 5)", SAME],
    ),
    "mask of 2": (changed(attention_mask=[[2, 1, 1, 1, 1]] * 2), ["attention_mask[0, 0]", "2", "0, 1"]),
    "mask of -1": (changed(attention_mask=[[1, 1, 1, 1, -1]] * 2), ["attention_mask[0, 4]", "-1", "0, 1"]),
    "mask of a half": (changed(attention_mask=np.full((2, 5), 0.5)), ["attention_mask[0, 0]", "0.5", "0, 1"]),
    "mask of NaN": (changed(attention_mask=np.full((2, 5), np.nan)), ["attention_mask[0, 0]", "nan", "0, 1"]),
    "global mask of 2": (
        changed(global_attention_mask=[[0, 2, 0, 0, 0]] * 2),
        ["global_attention_mask[0, 1]", "2", "-1, 0, 1"],
    ),
    "pad ids without a mask": (changed(attention_mask=None), ["input_ids[1, 3]", "pad id 1", "attention_mask"]),
    "document too long": (
        {"input_ids": [[3] * (T_MOST + 2)], "decoder_input_ids": [[2]]},
        [str(T_MOST + 2), str(T_MOST), "max_encoder_position_embeddings", "truncation=True"],
    ),
    "embeddings too long": (
        {"inputs_embeds": np.zeros((1, T_MOST + 1, D)), "decoder_input_ids": [[2]]},
        [str(T_MOST + 1), str(T_MOST), "max_encoder_position_embeddings"],
    ),
    "prompt too long": (
        {"input_ids": [[0, 5, 2]], "decoder_input_ids": [[2] * (U_MOST + 3)]},
        [str(U_MOST + 3), str(U_MOST), "max_decoder_position_embeddings", "decoder_input_ids"],
    ),
    "labels too long": (
        {"input_ids": [[0, 5, 2]], "labels": [[5] * (U_MOST + 1)]},
        [str(U_MOST + 1), str(U_MOST), "max_decoder_position_embeddings", "labels"],
    ),
    "no decoder ids": (
        {"input_ids": [[0, 5, 2]]},
        ["decoder_input_ids", "decoder_inputs_embeds", "never derived", "decoder_start_token_id"],
    ),
    "decoder id out of range": (
        changed(decoder_input_ids=[[2, V + 1, 2]] * 2),
        ["decoder_input_ids", str(V + 1), "tokenizer"],
    ),
    "decoder mask of another shape": (
        changed(decoder_attention_mask=[[1, 1]] * 2),
        ["decoder_attention_mask", "(2, 2)", "(2, 3)"],
    ),
    "targets for other documents": (
        {"input_ids": [[0, 5, 2]] * 2, "decoder_input_ids": [[2]] * 3},
        ["3 target rows", "2 documents", "same number"],
    ),
    "label out of range": (changed(labels=[[5, V, 2]] * 2), ["labels", str(V), f"{V - 1}"]),
    "label of -1": (changed(labels=[[5, -1, 2]] * 2), ["labels", "-1", f"{V - 1}"]),
    "labels of another shape": (changed(labels=[[5, 2]] * 2), ["labels", "(2, 2)", "(2, 3)"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_value_and_remedy(name: str) -> None:
    call, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        MODEL(**call)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def test_cache_limited_by_position_table() -> None:
    encoded = MODEL.encoder([[0, 5, 2]])
    past = MODEL(encoder_outputs=encoded, decoder_input_ids=[[2] * (U_MOST - 1)], use_cache=True).past_key_values
    MODEL(encoder_outputs=encoded, decoder_input_ids=[[7]], past_key_values=past)  # the last place
    with pytest.raises(InputError, match=rf"{U_MOST + 1}.*{U_MOST - 1} in the cache and 2 new.*{U_MOST}"):
        MODEL(encoder_outputs=encoded, decoder_input_ids=[[7, 8]], past_key_values=past)


def test_encoder_validation() -> None:
    with pytest.raises(InputError, match="outside the vocabulary"):
        MODEL.encoder([[0, V]])
    with pytest.raises(InputError, match=r"attention_mask has shape \(1, 2\)"):
        MODEL.encoder([[0, 5, 2]], attention_mask=[[1, 1]])


@pytest.mark.parametrize("states", [np.zeros((2, 5)), np.zeros((1, 3, D + 1)), np.zeros((0, 3, D))])
def test_encoder_outputs_of_another_shape(states: np.ndarray) -> None:
    with pytest.raises(InputError, match="encoder_outputs") as caught:
        MODEL(encoder_outputs=(states,), decoder_input_ids=[[2]])
    assert str(states.shape) in str(caught.value)
    assert f"d_model {D}" in str(caught.value)
