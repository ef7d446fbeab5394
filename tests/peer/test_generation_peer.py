"""The search alone against transformers': both are driven by the same torch model, so only the search can differ.

300 random settings. The tiny LED computes in float64; transformers' scores, like ours, are float32. Ids, beam indices and
scores are all compared. What is not drawn is where two candidates have exactly the same score, because torch.topk then
leaves open which comes first (here: the lower index). There are three such places, all of them odd:
several forced_eos_token_id with beams (each gets 0), a forced_bos_token_id that ends the text (what is left has -1e9), and
n-gram rules that forbid the whole vocabulary. For the first a test of its own compares what is defined, the scores.
"""

import random

import numpy as np
import pytest
import torch
from transformers import LEDConfig, LEDForConditionalGeneration

from led_ref.generation import look_up, make_prompt
from led_ref.generation.search import search

pytestmark = pytest.mark.peer

VOCABULARY, POSITIONS = 41, 37
SEEDS = range(300)

# Both compute float32 log-softmax of the same logits (|x| < 32): a few units in the last place, summed over 30 ids.
SCORE_TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def model():
    """A random LED whose favourites change with what was written, and that ends a text now and then."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = LEDConfig(
        vocab_size=VOCABULARY,
        d_model=24,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=29,
        decoder_ffn_dim=31,
        max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=POSITIONS,
        attention_window=8,
    )
    led = LEDForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for parameter in led.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.5)
        led.final_logits_bias[0, [2, 5, 7]] = 3.0
    return led


def random_call(rng: random.Random) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict]:
    """A padded batch of sources, its mask, a decoder prompt or None, and settings."""
    documents, length = rng.choice([1, 2, 3]), rng.choice([9, 16, 23])
    numbers = np.random.default_rng(rng.randrange(2**32))
    source = numbers.integers(3, VOCABULARY, (documents, length))
    mask = np.ones_like(source)
    for row in range(1, documents):
        mask[row, length - rng.randrange(5) :] = 0 if rng.random() < 0.8 else 1
    source = np.where(mask == 1, source, 1)

    beams = rng.choice([1, 2, 3, 4, 5])
    settings: dict = {"num_beams": beams}
    if beams > 1:
        settings["num_return_sequences"] = rng.randint(1, beams)
        settings["length_penalty"] = rng.choice([0.0, 0.5, 1.0, 1.0, 2.0, -1.0])
        settings["early_stopping"] = rng.choice([True, False, "never"])
    settings |= rng.choice([{}, {"max_length": 9}, {"max_length": 25}, {"max_new_tokens": 4}, {"max_new_tokens": 17}])
    settings |= rng.choice([{}, {}, {"min_length": 5}, {"min_new_tokens": 3}, {"min_length": 3, "min_new_tokens": 4}])
    settings["no_repeat_ngram_size"] = rng.choice([0, 0, 1, 2, 3])
    settings["encoder_no_repeat_ngram_size"] = rng.choice([0, 0, 2, 3] + [1] * (settings["no_repeat_ngram_size"] != 1))
    settings["repetition_penalty"] = rng.choice([1.0, 1.0, 1.3, 3.5, 0.7])
    settings["encoder_repetition_penalty"] = rng.choice([1.0, 1.0, 1.7, 0.8])
    settings["forced_bos_token_id"] = rng.choice([None, None, 0, 11])
    settings["forced_eos_token_id"] = rng.choice([None, None, 2, 5 if beams > 1 else [2, 5]])
    settings["eos_token_id"] = rng.choice([2, 2, [2, 5], [7, 2, 5], [2, 5, 7, 13, 17], None])

    prompt = None
    if rng.random() < 0.4:
        prompt = numbers.integers(3, VOCABULARY, (documents, rng.choice([1, 2, 4])))
        if rng.random() < 0.5:
            prompt[:, 0] = 2
    return source, mask, prompt, settings


def torch_step(model, encoder_states, mask, documents):
    """A step function without a cache: it keeps every row's ids, reorders them by `parents` and asks torch again."""
    written = None

    def step(token_ids, parents):
        nonlocal written
        written = token_ids if parents is None else np.concatenate([written[parents], token_ids], axis=1)
        rows = np.repeat(np.arange(documents), len(token_ids) // documents)
        with torch.no_grad():
            output = model(
                attention_mask=mask[rows],
                encoder_outputs=(encoder_states[rows],),
                decoder_input_ids=torch.tensor(written),
                use_cache=False,
            )
        return output.logits[:, -1].numpy()

    return step


def theirs(model, source, mask, prompt, settings):
    more = {} if prompt is None else {"decoder_input_ids": torch.tensor(prompt)}
    return model.generate(
        torch.tensor(source),
        attention_mask=torch.tensor(mask),
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
        **more,
    )


def ours(model, source, mask, prompt, settings):
    mask = torch.tensor(mask)
    with torch.no_grad():
        states = model.get_encoder()(torch.tensor(source), attention_mask=mask)[0]
    prompt = make_prompt(prompt, documents=len(source), start_token_id=2)
    resolved = look_up({**settings, "output_scores": True}, None, model.config.to_dict()).resolve(
        prompt_length=prompt.shape[1],
        max_positions=POSITIONS,
        vocab_size=VOCABULARY,
    )
    return search(torch_step(model, states, mask, len(source)), prompt, resolved, source_ids=source)


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default `max_length`:UserWarning")
@pytest.mark.parametrize("first_seed", SEEDS[::50])
def test_random_settings_against_transformers(model, first_seed, record_property):
    worst = 0.0
    for seed in range(first_seed, first_seed + 50):
        call = random_call(random.Random(seed))
        expected, found = theirs(model, *call), ours(model, *call)
        where = f"seed {seed}: {call[3]}"
        np.testing.assert_array_equal(found.sequences, expected.sequences.numpy(), err_msg=where)
        assert len(found.scores) == len(expected.scores), where
        for our_scores, their_scores in zip(found.scores, expected.scores, strict=True):
            np.testing.assert_allclose(our_scores, their_scores.numpy(), rtol=0, atol=SCORE_TOLERANCE, err_msg=where)
        if call[3]["num_beams"] > 1:
            np.testing.assert_array_equal(found.beam_indices, expected.beam_indices.numpy(), err_msg=where)
            scores = expected.sequences_scores.numpy()
            np.testing.assert_allclose(found.sequences_scores, scores, rtol=0, atol=1e-4, err_msg=where)
            worst = max(worst, float(np.abs(found.sequences_scores - scores).max()))
    record_property("worst_difference_of_sequences_scores", worst)


def test_tied_forced_ends_with_beams(model):
    source, mask, _, _ = random_call(random.Random(3))
    settings = {"num_beams": 4, "num_return_sequences": 4, "max_length": 6, "forced_eos_token_id": [2, 5]}
    settings["eos_token_id"] = 7
    expected, found = theirs(model, source, mask, None, settings), ours(model, source, mask, None, settings)
    np.testing.assert_allclose(found.sequences_scores, expected.sequences_scores.numpy(), rtol=0, atol=1e-4)
    assert set(found.sequences[:, -1]) <= {1, 2, 5, 7}
