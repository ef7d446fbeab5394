"""A model with compact weights is the model whose weights were made dense beforehand."""

from dataclasses import replace

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.weights.keys import LM_HEAD, entries
from led_ref.weights.quantization.file_format import is_matrix
from led_ref.weights.quantization.rounding import KINDS, quantized

# Both sides compute in float64 with the same weights; a scale is multiplied before the sum or after it.
ROUNDING = 1e-10
IDS, TARGETS = np.arange(4, 33).repeat(2)[None], np.array([[2, 5, 9, 31]])
GLOBAL = (np.arange(58) % 19 == 0).astype(int)[None]  # few enough to be folded


@pytest.fixture(scope="module")
def weights():
    return {key: array.astype(np.float32) for key, array in draw_weights(CONFIG).items()}


def run(model, **options):
    out = model(IDS, global_attention_mask=GLOBAL, decoder_input_ids=TARGETS)
    ids = model.generate(
        IDS, global_attention_mask=GLOBAL, num_beams=3, max_new_tokens=9, pad_token_id=1, eos_token_id=2, **options
    )
    return out, ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cross_attention", ["cached", "folded"])
def test_quantized_equals_dequantized(weights, kind, cross_attention):
    dense = {key: array.astype(np.float64) for key, array in weights.items()}
    for entry in entries(CONFIG):
        if entry.key != LM_HEAD and is_matrix(entry):
            dense[entry.key] = replace(quantized(weights[entry.key], kind), dtype=np.dtype("float64"))[:]
    of = LEDForConditionalGeneration.from_state_dict
    one = run(of(CONFIG, weights, dtype="float64", quantize=kind), cross_attention=cross_attention)
    two = run(of(CONFIG, dense, dtype="float64"), cross_attention=cross_attention)
    np.testing.assert_allclose(
        one[0].encoder_last_hidden_state, two[0].encoder_last_hidden_state, rtol=0, atol=ROUNDING
    )
    np.testing.assert_allclose(one[0].logits, two[0].logits, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(one[1], two[1])


def test_stored_float16_equals_widened(weights):
    half = {key: array.astype(np.float16) for key, array in weights.items()}
    of = LEDForConditionalGeneration.from_state_dict
    one, two = run(of(CONFIG, half, dtype="float64", keep_stored=True)), run(of(CONFIG, half, dtype="float64"))
    np.testing.assert_allclose(one[0].logits, two[0].logits, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(one[1], two[1])
