"""Rules that leave no id: refused before the search where settings show it, and by name while it runs."""

import numpy as np
import pytest

import led_ref
from led_ref.errors import InputError, SettingsError

MODEL = led_ref.load(backend="numpy").model
IDS = np.array([[0, 11, 12, 13, 2]])
SEARCHES = [
    {"num_beams": 1},
    {"num_beams": 3},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
]


@pytest.mark.parametrize("search", SEARCHES)
def test_rules_that_forbid_all_ids(search):
    def nothing(ids, scores):
        return np.full_like(scores, -np.inf) if ids.shape[1] == 3 else scores

    with pytest.raises(InputError, match=r"After 3 ids .* is forbidden"):
        MODEL.generate(IDS, logits_processor=[nothing], min_new_tokens=5, max_new_tokens=5, **search)


def test_fewer_texts_than_asked_for_repeat_one():
    """As in transformers; their scores tell."""

    def two(document, ids):
        return [7, 8] if len(ids) == 1 else [2]

    found = MODEL.generate(
        IDS, num_beams=4, num_return_sequences=4, prefix_allowed_tokens_fn=two, max_length=8, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    assert {tuple(row) for row in found.sequences.tolist()} == {(2, 7, 2), (2, 8, 2)}
    assert (found.sequences_scores < -1e7).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"forced_bos_token_id": 74, "suppress_tokens": [74]}, "forced_bos_token_id is 74 .* suppress_tokens is"),
        ({"forced_eos_token_id": [2, 3], "suppress_tokens": [2, 3, 4]}, "forced_eos_token_id is"),
        ({"suppress_tokens": list(range(6144))}, "forbids all 6144 ids"),
    ],
)
def test_settings_that_forbid_all_ids(settings, words):
    with pytest.raises(SettingsError, match=words):
        MODEL.generate(IDS, **settings)


@pytest.mark.parametrize("returned", [[74.9], "74", [True], None, 74, [9999]])
def test_what_is_no_list_of_ids(returned):
    with pytest.raises(InputError, match="prefix_allowed_tokens_fn returned"):
        MODEL.generate(IDS, prefix_allowed_tokens_fn=lambda document, ids: returned)


def test_lists_of_ids_in_any_container():
    expected = MODEL.generate(IDS, prefix_allowed_tokens_fn=lambda document, ids: [74, 2], max_new_tokens=3)
    for allowed in ((74, 2), {74, 2}, np.array([74, 2]), range(2, 75, 72)):
        found = MODEL.generate(IDS, prefix_allowed_tokens_fn=lambda document, ids, a=allowed: a, max_new_tokens=3)
        assert (found == expected).all()


@pytest.mark.parametrize("name", ["logits_processor", "stopping_criteria"])
def test_rules_are_lists_of_functions(name):
    assert (MODEL.generate(IDS, **{name: None}) == MODEL.generate(IDS)).all()
    for given, words in (
        (lambda ids, scores: scores, "a function; give a list"),
        ([3], "cannot be called"),
        ("x", "a list"),
    ):
        with pytest.raises(InputError, match=words):
            MODEL.generate(IDS, **{name: given})


def test_own_rules_may_write_into_what_they_are_given():
    """The ids are copies: a rule that changes them changes no text."""

    def overwrite(*given):
        ids = given[0] if isinstance(given[0], np.ndarray) else given[1]
        ids[...] = 7

    for search in SEARCHES:
        expected = MODEL.generate(IDS, max_new_tokens=3, **search)
        own = {
            "logits_processor": [lambda ids, scores: overwrite(ids) or scores],
            "prefix_allowed_tokens_fn": lambda document, ids: overwrite(document, ids) or range(6144),
        }
        if "num_beam_groups" not in search:
            own["stopping_criteria"] = [lambda ids, scores: overwrite(ids) is not None]
        for name, rule in own.items():
            assert (MODEL.generate(IDS, max_new_tokens=3, **search, **{name: rule}) == expected).all(), name


def test_a_temperature_near_0_takes_the_best():
    drawn = {"do_sample": True, "seed": 1, "top_k": 0, "temperature": 1e-300, "max_new_tokens": 4}
    best = MODEL.generate(IDS, num_beams=1, max_new_tokens=4)
    assert (MODEL.generate(IDS, num_beams=1, **drawn) == best).all()
    # The best of each beam: sums of scores that are divided by nearly 0 compare no beams.
    assert MODEL.generate(IDS, num_beams=3, **drawn).shape == best.shape


def test_masks_and_numbers_beyond_float32():
    with pytest.raises(SettingsError, match="from -1e30 to 1e30, or -inf"):
        MODEL.generate(IDS, sequence_bias={(74,): 1e300})
    masked = [lambda ids, scores: np.ma.masked_array(scores, scores < 0)]
    with pytest.raises(InputError, match="returned masked float32"):
        MODEL.generate(IDS, logits_processor=masked)
    with pytest.raises(InputError, match=r"returned \+inf"):
        MODEL.generate(IDS, logits_processor=[lambda ids, scores: np.full(scores.shape, 1e300)])
    for beams in (1, 3):
        ids = MODEL.generate(IDS, exponential_decay_length_penalty=(0, 1e200), num_beams=beams, min_new_tokens=3)
        assert ids.shape == (1, 5)  # the end comes as soon as it may


def test_infinite_scores_are_refused():
    with pytest.raises(InputError, match=r"returned \+inf, which is no score"):
        MODEL.generate(IDS, logits_processor=[lambda ids, scores: np.full_like(scores, np.inf)])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("streamer", "model.stream"),
        ("inputs_embeds", "encoder_outputs"),
        ("stop", "stop_strings"),
        ("zzz", "All of them"),
    ],
)
def test_unknown_settings_are_not_guessed(name, words):
    with pytest.raises(SettingsError, match=words) as caught:
        MODEL.generate(IDS, **{name: 1})
    assert "Did you mean" not in str(caught.value)


def test_a_file_may_keep_a_penalty_for_groups():
    model = type(MODEL)(MODEL.config, MODEL.params, backend="numpy", generation_config={"diversity_penalty": 0.5})
    assert model.generate(IDS, max_new_tokens=2).shape == (1, 3)
    with pytest.raises(SettingsError, match=r"diversity_penalty is 0\.5"):
        model.generate(IDS, diversity_penalty=0.5, num_beams=4)
