"""Prompts of unequal lengths: each row is continued as it would be alone."""

import numpy as np
import pytest

import led_ref
from led_ref.errors import InputError

LED = led_ref.load(backend="numpy")
MODEL, PAD = LED.model, LED.model.config.pad_token_id
IDS = np.array([[0, 11, 12, 13, 2], [0, 31, 32, 33, 2], [0, 51, 52, 53, 2]])
PROMPTS = [[2, 9], [2, 9, 30, 31], [2, 40]]


def padded(side):
    rows = [(PAD,) * (4 - len(p)) for p in PROMPTS]
    ids = [[*pad, *p] if side == "left" else [*p, *pad] for p, pad in zip(PROMPTS, rows, strict=True)]
    mask = [[0] * (4 - len(p)) + [1] * len(p) for p in PROMPTS]
    return np.array(ids), np.array(mask if side == "left" else [row[::-1] for row in mask])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "num_return_sequences": 2}])
def test_padded_prompts_are_as_alone(side, settings):
    ids, mask = padded(side)
    settings = {"max_new_tokens": 4, **settings}
    found = MODEL.generate(IDS, decoder_input_ids=ids, decoder_attention_mask=mask, **settings)
    returned = settings.get("num_return_sequences", 1)
    for b, prompt in enumerate(PROMPTS):
        alone = MODEL.generate(IDS[b : b + 1], decoder_input_ids=[prompt], **settings)
        for r in range(returned):
            row = found[b * returned + r]
            start = 4 - len(prompt) if side == "left" else 0
            assert row[start : start + alone.shape[1]].tolist() == alone[r].tolist()
            assert (row[:start] == PAD).all()
            assert (row[start + alone.shape[1] :] == PAD).all()


def test_a_rule_is_told_the_document():
    ids, mask = padded("right")
    told = set()
    MODEL.generate(
        IDS,
        decoder_input_ids=ids,
        decoder_attention_mask=mask,
        max_new_tokens=1,
        prefix_allowed_tokens_fn=lambda document, so_far: told.add((document, len(so_far))) or [5],
    )
    assert told == {(0, 2), (1, 4), (2, 2)}


def test_unmasked_and_torn_prompts_are_refused():
    ids, mask = padded("left")
    with pytest.raises(InputError, match=r"decoder_input_ids\[0, 0\] is the pad id 1, .*decoder_attention_mask"):
        MODEL.generate(IDS, decoder_input_ids=ids)
    with pytest.raises(InputError, match=r"Row 1 of decoder_attention_mask is \[1, 0, 1, 1\]"):
        MODEL.generate(IDS, decoder_input_ids=ids, decoder_attention_mask=[mask[0], [1, 0, 1, 1], mask[2]])
    with pytest.raises(InputError, match="2 different lengths"):
        MODEL.generate(IDS, decoder_input_ids=ids, decoder_attention_mask=mask, return_dict_in_generate=True)


def test_a_prompt_and_a_seed_for_each_document():
    """Fewer documents than prompts are refused; a seed of a document is its own, whichever group it is in."""
    mask, prompts = [[1, 1, 0], [1, 1, 1]], [[2, 9, 1], [2, 9, 30]]
    one = {"decoder_input_ids": prompts, "decoder_attention_mask": mask, "max_new_tokens": 2}
    for given in ({"input_ids": [[0, 11, 2]]}, {"encoder_outputs": MODEL.encoder([[0, 11, 2]])}):
        with pytest.raises(InputError, match="There are 2 prompts for 1 documents"):
            MODEL.generate(**given, **one)
    drawn = {"do_sample": True, "num_beams": 1, "max_new_tokens": 4}
    both = MODEL.generate(IDS[:2], **one | drawn, seed=[5, 6])
    for i, (prompt, seed) in enumerate(zip(([2, 9], [2, 9, 30]), (5, 6), strict=True)):
        alone = MODEL.generate([IDS[i]], decoder_input_ids=[prompt], **drawn, seed=seed)[0].tolist()
        assert both[i].tolist()[: len(alone)] == alone
