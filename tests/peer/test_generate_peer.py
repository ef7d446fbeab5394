"""generate from end to end against transformers: the same weights in both, and 300 random calls of everything at once.

test_generation_peer.py drives our search with torch's model. Here model, cache, beams and search are all ours; the ids must
be transformers' all the same. The draws are those of that file, with global tokens besides.
"""

import inspect
import json
import random

import numpy as np
import pytest
import torch
import transformers
from test_generation_peer import POSITIONS, VOCABULARY, random_call
from transformers import LEDConfig as TheirConfig
from transformers import LEDForConditionalGeneration as TheirModel

import led_ref
from led_ref import LEDConfig, LEDForConditionalGeneration

pytestmark = pytest.mark.peer

# transformers' encoder softmax is float32, so its logits differ from ours by up to 5e-6 (test_model_peer.py); a score is
# a sum over up to 30 of them. With length_penalty -1 that sum is multiplied by its length: the scores there reach -600, where
# float32 itself has steps of 6e-5, so a few of its steps (relative 1e-6) are allowed besides.
SCORE_TOLERANCE = {"atol": 1e-4, "rtol": 1e-6}

SIZES = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 29,
    "decoder_ffn_dim": 31,
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": POSITIONS,
    "attention_window": 8,
}


@pytest.fixture(scope="module")
def models():
    """A random LED twice: transformers' and ours, both in float64."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    theirs = TheirModel(TheirConfig(**SIZES)).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.5)
        theirs.final_logits_bias[0, [2, 5, 7]] = 3.0
    weights = {key: value.numpy() for key, value in theirs.state_dict().items()}
    return theirs, LEDForConditionalGeneration.from_state_dict(LEDConfig(**SIZES), weights, dtype="float64")


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default `max_length`:UserWarning")
@pytest.mark.parametrize("first_seed", range(1000, 1300, 50))
def test_random_calls_against_transformers(models, first_seed, record_property):
    theirs, ours = models
    worst = 0.0
    for seed in range(first_seed, first_seed + 50):
        rng = random.Random(seed)
        source, mask, prompt, settings = random_call(rng)
        marks = np.random.default_rng(seed).random(source.shape) < rng.choice([0.0, 0.1, 1.0])
        global_mask = np.where(mask == 1, marks, 0).astype(np.int64)
        more = {} if prompt is None else {"decoder_input_ids": torch.tensor(prompt)}
        expected = theirs.generate(
            torch.tensor(source),
            attention_mask=torch.tensor(mask),
            global_attention_mask=torch.tensor(global_mask),
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
            **more,
        )
        found = ours.generate(
            source,
            attention_mask=mask,
            global_attention_mask=global_mask,
            decoder_input_ids=prompt,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
        where = f"seed {seed}: {settings}"
        np.testing.assert_array_equal(found.sequences, expected.sequences.numpy(), err_msg=where)
        if settings["num_beams"] > 1:
            np.testing.assert_array_equal(found.beam_indices, expected.beam_indices.numpy(), err_msg=where)
            scores = expected.sequences_scores.numpy()
            np.testing.assert_allclose(found.sequences_scores, scores, err_msg=where, **SCORE_TOLERANCE)
            worst = max(worst, float(np.abs(found.sequences_scores - scores).max()))
    record_property("worst_difference_of_sequences_scores", worst)


def test_encoder_outputs_in_place_of_input_ids(models):
    _, ours = models
    source, mask, _, _ = random_call(random.Random(7))
    expected = ours.generate(source, attention_mask=mask, num_beams=3, max_length=12)
    encoded = ours.encoder(source, mask)
    found = ours.generate(encoder_outputs=encoded, attention_mask=mask, num_beams=3, max_length=12)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["LEDModel", "LEDForConditionalGeneration"])
def test_forward_argument_order(name):
    ours = list(inspect.signature(getattr(led_ref, name).forward).parameters)
    theirs = [p for p in inspect.signature(getattr(transformers, name).forward).parameters if p != "kwargs"]
    assert [p for p in ours if p in theirs] == [p for p in theirs if p in ours]
    assert set(theirs) - set(ours) == {"return_dict"}


def test_generation_settings_from_config_json(tmp_path):
    """Older checkpoints have their settings there, Ai2's among them."""
    from test_load_peer import make_peer

    make_peer().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    path = tmp_path / "config.json"
    said = {"num_beams": 3, "max_length": 17, "no_repeat_ngram_size": 2}
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))
    theirs = TheirModel.from_pretrained(tmp_path).generation_config
    ours = LEDForConditionalGeneration.from_pretrained(tmp_path, backend="numpy").effective_settings()
    assert {name: getattr(ours, name) for name in said} == {name: getattr(theirs, name) for name in said} == said
