"""Beams in groups, against what transformers 4 found on 100 random settings (golden/make_group_beams.py), without torch."""

import json
from pathlib import Path

import numpy as np
import pytest
from toy_model import EOS, PAD, START, MarkovModel

from led_ref.errors import SettingsError
from led_ref.generation import GenerationConfig, look_up, make_prompt
from led_ref.generation.group_beam_search import Hypothesis, cannot_improve
from led_ref.generation.search import search

GOLDEN = json.loads((Path(__file__).parent / "golden" / "group_beams.json").read_text(encoding="utf-8"))
# Scores are float32: where a penalty of 100 makes them hundreds, their last place is above 1e-5.
TWO_UNITS = 2 * float(np.finfo(np.float32).eps)
CONFIG = {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}


def resolved(settings, prompt_length=1, vocabulary=GOLDEN["made_with"]["vocabulary"]):
    return look_up(settings, None, CONFIG).resolve(
        prompt_length=prompt_length,
        max_positions=GOLDEN["made_with"]["positions"],
        vocab_size=vocabulary,
    )


def found(case, record=None):
    prompt = make_prompt(np.array(case["prompt"]), documents=len(case["source"]), start_token_id=START)
    model = MarkovModel(**case["table"], vocabulary=GOLDEN["made_with"]["vocabulary"])
    settings = resolved({**case["settings"], "output_scores": True}, prompt.shape[1])
    return search(model, prompt, settings, source_ids=np.array(case["source"]), record=record), settings


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_random_settings_against_transformers(first):
    for number, case in enumerate(GOLDEN["cases"][first : first + 25], first):
        result, _ = found(case)
        assert result.sequences.tolist() == case["sequences"], f"case {number}: {case['settings']}"
        np.testing.assert_allclose(
            result.sequences_scores, case["scores"], rtol=TWO_UNITS, atol=1e-5, err_msg=str(number)
        )


def test_diversity_penalty_order_among_processors():
    differing = [case["settings"] for case in GOLDEN["cases"] if not case["as_in_4.56"]]
    assert len(differing) == 28  # docs/deviations.md
    for settings in differing:
        assert (
            settings["repetition_penalty"] != 1
            or settings["forced_bos_token_id"] is not None
            or settings["forced_eos_token_id"]
        )


def test_beam_indices_and_scores_add_up():
    """transformers gives for later groups the rows of the first; here a text's score can be summed up from its rows."""
    for number, case in enumerate(GOLDEN["cases"][:40]):
        result, settings = found(case)
        prompt_length = len(result.sequences[0]) - result.beam_indices.shape[1]
        several_ends = len(settings.eos_token_ids) > 1  # then the id that ended a text is not recorded
        for row, path, score in zip(result.sequences, result.beam_indices, result.sequences_scores, strict=True):
            written = int((path >= 0).sum())
            if several_ends:
                continue
            steps = [result.scores[t][path[t], row[prompt_length + t]] for t in range(written)]
            # Texts that go on for want of anything else have -1e9 in their sum.
            if score > -1e6:
                assert score == pytest.approx(sum(steps) / written**settings.length_penalty, rel=1e-4, abs=1e-4), number


def test_a_batch_is_its_parts():
    for seed in range(30):
        prompt = np.array([[START, 3], [START, 5], [START, 6]])
        rule = GenerationConfig(
            num_beams=4, num_beam_groups=2, diversity_penalty=0.7, num_return_sequences=4, max_length=12,
            length_penalty=(0.0, 3.0)[seed % 2], early_stopping=(True, False, "never")[seed % 3],
            eos_token_id=EOS, pad_token_id=PAD,
        )  # fmt: skip
        together = search(MarkovModel(seed, eos_bias=1.5), prompt, rule).sequences
        for document, alone in enumerate(prompt):
            part = search(MarkovModel(seed, eos_bias=1.5), alone[None], rule).sequences
            rows = together[document * 4 : document * 4 + 4]
            assert rows[:, : part.shape[1]].tolist() == part.tolist()
            assert (rows[:, part.shape[1] :] == PAD).all()


def test_ties_between_groups():
    """As there; in plain beam search the lower index does."""
    logits = np.full((5, 5), -30.0)
    logits[START, [3, 4]] = logits[[3, 4], EOS] = 0.0
    rule = GenerationConfig(num_beams=2, num_beam_groups=2, diversity_penalty=9.0, num_return_sequences=2, max_length=2)
    result = search(lambda ids, parents: logits[ids[:, -1]], np.array([[START]]), rule)
    assert result.sequences.tolist() == [[START, 4], [START, 3]]
    assert result.sequences_scores[0] == result.sequences_scores[1]


def test_early_stopping_never_with_length_penalty():
    finished = (Hypothesis((START, EOS), (0,), -8.0),)
    hopeless = {
        penalty: cannot_improve(
            finished, -4.0, 1, GenerationConfig(early_stopping="never", length_penalty=penalty, max_length=12)
        )
        for penalty in (-1.0, 0.0, 1.0)
    }
    assert hopeless == {-1.0: False, 0.0: False, 1.0: False}
    assert cannot_improve(finished, -9.0, 1, GenerationConfig(early_stopping=False, max_length=12))
    assert not cannot_improve(finished, -9.0, 1, GenerationConfig(early_stopping="never", max_length=12))


def test_step_reports_surviving_beams():
    recorded = {}
    result, _ = found(GOLDEN["cases"][0], record=lambda name, value: recorded.setdefault(name, np.array(value)))
    steps = len(result.scores)
    assert {name for name in recorded if not name.startswith("beam.step")} == {
        "beam.sequences",
        "beam.sequences_scores",
    }
    assert len(recorded) == 2 + 5 * steps
    np.testing.assert_array_equal(recorded["beam.step.0.scores"], result.scores[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}, r"groups is 3 .*num_beams is 4 .*num_beams=3"),
        ({"num_beams": 2, "num_beam_groups": 4, "diversity_penalty": 1.0}, r"num_beam_groups is 4 .*num_beams=4"),
        ({"num_beams": 4, "num_beam_groups": 2}, r"diversity_penalty is 0.0 .*default.*above 0"),
        ({"num_beams": 4, "diversity_penalty": 1.0}, r"diversity_penalty is 1.0 .*the call.*num_beam_groups=2"),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": -1.0}, r"diversity_penalty is -1.0 .*above 0"),
    ],
)  # fmt: skip
def test_invalid_groups_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        resolved(settings)
