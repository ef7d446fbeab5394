"""torch's tensors as arguments: odd, and right. They give what lists give."""

import numpy as np
import pytest
import torch

import led_ref

LED = led_ref.load(backend="numpy")
IDS = [[0, 5, 7, 2], [0, 9, 2, 1]]
MASK = [[1, 1, 1, 1], [1, 1, 1, 0]]

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_tensors_are_taken_as_arrays(dtype):
    ids, mask = torch.tensor(IDS, dtype=dtype), torch.tensor(MASK, dtype=dtype)
    plain = LED.model(IDS, MASK, IDS, MASK).logits
    np.testing.assert_array_equal(LED.model(ids, mask, ids, mask).logits, plain)
    np.testing.assert_array_equal(LED.model(ids.T.contiguous().T, mask.bool(), ids, mask).logits, plain)
    written = LED.model.generate(IDS, attention_mask=MASK, max_new_tokens=4)
    np.testing.assert_array_equal(LED.model.generate(ids, attention_mask=mask, max_new_tokens=4), written)
    tokenizer = LED.tokenizer
    assert tokenizer.decode(ids[0]) == tokenizer.decode(IDS[0])
    assert tokenizer.decode(ids[0, 1]) == tokenizer.decode(5)
    assert tokenizer.batch_decode(ids) == tokenizer.batch_decode(IDS)
    assert dict(tokenizer.pad({"input_ids": list(ids)})) == dict(tokenizer.pad({"input_ids": IDS}))
    learned = torch.nn.Parameter(torch.zeros((1, 3, LED.model.config.d_model)))
    assert LED.model.encoder(inputs_embeds=learned.detach()).last_hidden_state.shape == (1, 3, LED.model.config.d_model)


def test_tensors_that_are_no_ids_are_refused_by_name():
    for wrong in (torch.tensor([[0.5, 2]]), torch.tensor([[True, False]]), torch.empty((1, 4), device="meta")):
        with pytest.raises(led_ref.LEDError, match="input_ids"):
            LED.model.generate(wrong)
    with pytest.raises(led_ref.LEDError, match="Position 0 holds 0"):
        LED.tokenizer.decode(torch.tensor([0.5]))
    with pytest.raises(led_ref.LEDError, match="inputs_embeds"):  # it waits for gradients, and has none to give
        LED.model.encoder(inputs_embeds=torch.nn.Parameter(torch.zeros((1, 3, LED.model.config.d_model))))
