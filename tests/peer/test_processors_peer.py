"""Every processor and filter against transformers', on 1,000 random inputs each; all of them together, in order; and what
generate returns beside the ids.

Scores are compared as they are (rules), or as probabilities within 1e-6 (filters, which compute in float32 there and in
float64 here). A filter that cuts at another place would differ by a whole probability.
"""

import inspect
import itertools
import random

import numpy as np
import pytest
import torch
from test_generate_peer import POSITIONS, SIZES, VOCABULARY
from transformers import GenerationConfig, LogitsProcessorList
from transformers import LEDConfig as TheirConfig
from transformers import LEDForConditionalGeneration as TheirModel
from transformers.generation import logits_process as there
from transformers.generation.stopping_criteria import StopStringCriteria

import led_ref
from led_ref import LEDConfig, LEDForConditionalGeneration
from led_ref.generation import look_up
from led_ref.generation.processors import build_processors
from led_ref.generation.search import holds_a_stop_string
from led_ref.generation.step import OwnRules
from led_ref.generation.warpers import probabilities

pytestmark = pytest.mark.peer

INPUTS, AT_ONCE = 1000, 20  # inputs in all, and with the same settings
EOS = 2


def one_of_each(rng: random.Random) -> dict[str, dict]:
    """For each rule or filter, settings that ask for it alone."""
    ids = [rng.randrange(VOCABULARY) for _ in range(8)]
    runs = [[*ids[:1]], ids[1:3], ids[3:6], [ids[6], ids[6]], [EOS], [5, 6], [6, 5]]
    sampling = {"do_sample": True, "top_k": 0}
    return {
        "sequence_bias": {"sequence_bias": [[run, rng.choice([-3.5, 0.25, 2.0])] for run in runs]},
        "encoder_repetition_penalty": {"encoder_repetition_penalty": rng.choice([0.7, 1.6])},
        "repetition_penalty": {"repetition_penalty": rng.choice([0.7, 1.6])},
        "no_repeat_ngram_size": {"no_repeat_ngram_size": rng.choice([1, 2, 3])},
        "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": rng.choice([1, 2, 3])},
        "bad_words_ids": {"bad_words_ids": runs},
        "min_length": {"min_length": rng.choice([3, 5, 7])},
        "min_new_tokens": {"min_new_tokens": rng.choice([1, 3, 5])},
        "prefix_allowed_tokens_fn": {},
        "forced_bos_token_id": {"forced_bos_token_id": ids[0]},
        "forced_eos_token_id": {"forced_eos_token_id": rng.choice([EOS, [EOS, 9]])},
        "remove_invalid_values": {"remove_invalid_values": True},
        "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (rng.choice([0, 2]), 1.3)},
        "suppress_tokens": {"suppress_tokens": ids[:3]},
        "begin_suppress_tokens": {"begin_suppress_tokens": ids[:3], "forced_bos_token_id": rng.choice([None, ids[4]])},
        "renormalize_logits": {"renormalize_logits": True},
        "temperature": {**sampling, "temperature": rng.choice([0.3, 0.9, 2.5])},
        "top_h": {**sampling, "top_h": rng.choice([0.2, 0.5, 0.9])},
        "top_k": {**sampling, "top_k": rng.choice([1, 3, 20, 400])},
        "top_p": {**sampling, "top_p": rng.choice([0.0, 0.3, 0.9, 0.99])},
        "min_p": {**sampling, "min_p": rng.choice([0.01, 0.2, 1.0])},
        "typical_p": {**sampling, "typical_p": rng.choice([0.1, 0.5, 0.95])},
        "epsilon_cutoff": {**sampling, "epsilon_cutoff": rng.choice([1e-3, 0.05, 0.9])},
        "eta_cutoff": {**sampling, "eta_cutoff": rng.choice([1e-3, 0.05, 0.9])},
    }


NAMES = list(one_of_each(random.Random(0)))
NONE: dict = {"do_sample": False, "top_k": 50}


def allowed(document: int, ids: object) -> list[int]:
    """An arbitrary rule on prefixes, for arrays and tensors."""
    last = int(ids[-1])
    return [(last * k + document) % VOCABULARY for k in (1, 3, 7)] + [EOS]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return TheirModel(TheirConfig(**SIZES)).eval()


def theirs(model, settings, prompt_length, source, own):
    """transformers' processors for these settings, as its generate makes them."""
    given = {"max_length": 9, "eos_token_id": EOS, "decoder_start_token_id": 2, "num_beams": 1, **settings}
    config = GenerationConfig(**given)
    model._prepare_special_tokens(config, True, device="cpu")
    return model._get_logits_processor(
        config,
        input_ids_seq_length=prompt_length,
        encoder_input_ids=torch.tensor(source),
        prefix_allowed_tokens_fn=own.get("prefix_allowed_tokens_fn"),
        logits_processor=LogitsProcessorList(own.get("theirs", [])),
        device="cpu",
    )


def ours(settings, prompt_length, source, own):
    resolved = look_up({"max_length": 9, "eos_token_id": EOS, **settings}, None, {"decoder_start_token_id": 2}).resolve(
        prompt_length=prompt_length,
        max_positions=POSITIONS,
        vocab_size=VOCABULARY,
    )
    rules = OwnRules(own.get("ours", ()), own.get("prefix_allowed_tokens_fn"))
    return build_processors(resolved, prompt_length=prompt_length, source_ids=source, own=rules)


def compare(model, rng: random.Random, settings: dict, own: dict, where: str, *, filters: bool, invalid: bool) -> int:
    """AT_ONCE random inputs through both; how many were compared."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    beams, documents, prompt_length = settings.get("num_beams", 1), rng.choice([1, 2]), rng.choice([1, 1, 3])
    few = rng.choice([5, VOCABULARY])  # of few ids, n-grams come again
    source = numbers.integers(0, few, (documents, 12))
    both = (
        ours(settings, prompt_length, source, own),
        theirs(model, settings, prompt_length, np.repeat(source, beams, axis=0), own),
    )
    compared = 0
    for _ in range(AT_ONCE):
        ids = numbers.integers(0, few, (documents * beams, rng.randrange(prompt_length, 9)))
        ids[:, 0] = 2
        scores = random_scores(numbers, rng, documents * beams, invalid=invalid)
        expected, found = torch.tensor(scores), scores
        has_ties = False
        for processor in both[0]:
            found = processor(ids, found)
            has_ties = has_ties or any(len(set(row[row > -np.inf])) < (row > -np.inf).sum() for row in found)
        if filters and (has_ties or not (found > -np.inf).any(axis=1).all()):
            continue  # which of equal ones is cut torch leaves open; and where all is forbidden its filters fail
        for processor in both[1]:
            expected = processor(torch.tensor(ids), expected)
        same_scores(found, expected.numpy(), f"{where} {ids.tolist()}", filters=filters)
        compared += 1
    return compared


def random_scores(numbers: np.random.Generator, rng: random.Random, rows: int, *, invalid: bool) -> np.ndarray:
    """Logits, some of them forbidden; with `invalid` also NaN and infinity."""
    scores = numbers.normal(scale=rng.choice([0.5, 2.0, 6.0]), size=(rows, VOCABULARY)).astype(np.float32)
    scores[numbers.random(scores.shape) < rng.choice([0.0, 0.2])] = -np.inf
    if invalid:
        scores[numbers.random(scores.shape) < 0.1] = np.nan
        scores[numbers.random(scores.shape) < 0.05] = np.inf
    return scores


def same_scores(found: np.ndarray, expected: np.ndarray, where: str, *, filters: bool) -> None:
    assert found.dtype == np.float32
    if filters:
        np.testing.assert_allclose(probabilities(found), probabilities(expected), rtol=0, atol=1e-6, err_msg=where)
        np.testing.assert_array_equal(np.isinf(found), np.isinf(expected), err_msg=where)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=where)


@pytest.mark.parametrize("name", NAMES)
def test_processors_on_random_inputs(model, name):
    compared = 0
    for seed in itertools.count():
        if compared >= INPUTS:
            break
        rng = random.Random(f"{name} {seed}")
        settings = {**NONE, **one_of_each(rng)[name], "num_beams": rng.choice([1, 1, 3])}
        own = {"prefix_allowed_tokens_fn": allowed} if name == "prefix_allowed_tokens_fn" else {}
        is_filter = name in NAMES[NAMES.index("temperature") :]
        where = f"{name} {seed}: {settings}"
        compared += compare(
            model, rng, settings, own, where, filters=is_filter, invalid=name == "remove_invalid_values"
        )


class Halved(there.LogitsProcessor):
    """A caller's own rule, there."""

    def __call__(self, input_ids, scores):
        return scores / 2


def test_processor_order_of_transformers(model):
    compared = 0
    for seed in itertools.count():
        if compared >= INPUTS:
            break
        rng = random.Random(f"together {seed}")
        settings = {"num_beams": rng.choice([1, 3])}
        for name, asked in one_of_each(rng).items():
            # With the ngram rules on few ids all are soon forbidden, and temperature and decay of -3e38 overflow.
            if rng.random() < 0.6 and name not in ("remove_invalid_values", "forced_bos_token_id"):
                settings |= asked
        if "min_new_tokens" in settings:  # of the two here one counts, which generate there sees to earlier
            settings.pop("min_length", None)
        settings |= {"do_sample": rng.random() < 0.8}
        if not settings["do_sample"]:
            settings = {k: v for k, v in settings.items() if k not in NAMES[NAMES.index("temperature") :]}
        own = {"ours": [lambda ids, scores: scores / 2], "theirs": [Halved()]} if rng.random() < 0.5 else {}
        own |= {"prefix_allowed_tokens_fn": allowed} if rng.random() < 0.3 else {}
        compared += compare(model, rng, settings, own, f"{seed}: {settings}", filters=True, invalid=False)


def test_stop_strings_against_transformers(bundled_both):
    ours_tokenizer, theirs_tokenizer = bundled_both
    texts = ["a file in the standard output", "print – files — to stdout", "naïve café ☕☕ options", "the the theatre"]
    stops = ["the", "é", "–", "ile", "out", "☕ o", " to s", "zq"]
    criterion = StopStringCriteria(theirs_tokenizer, stops)
    stopped = 0
    for text in texts:
        ids = np.array([ours_tokenizer(text)["input_ids"][:-1]])
        for length in range(2, ids.shape[1] + 1):
            expected = criterion(torch.tensor(ids[:, :length]), None).tolist()
            found = holds_a_stop_string(
                ids[:, :length], None, stop_strings=[stop.encode() for stop in stops],
                text_bytes=ours_tokenizer.text_bytes,
            )  # fmt: skip
            assert found.tolist() == expected, (text, length)
            stopped += found[0]
    assert stopped > 10


@pytest.fixture(scope="module")
def bundled_both():
    from transformers import LEDTokenizer as Theirs

    folder = led_ref.bundled_model()
    return led_ref.LEDTokenizer.from_pretrained(folder), Theirs.from_pretrained(folder)


@pytest.fixture(scope="module")
def models():
    """A random LED twice, both in float64, that ends a text now and then."""
    torch.manual_seed(1)
    config = TheirConfig(**SIZES)
    config._attn_implementation = "eager"
    there_model = TheirModel(config).double().eval()
    with torch.no_grad():
        for parameter in there_model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.5)
        there_model.final_logits_bias[0, [2, 5, 7]] = 3.0
    weights = {key: value.numpy() for key, value in there_model.state_dict().items()}
    return there_model, LEDForConditionalGeneration.from_state_dict(LEDConfig(**SIZES), weights, dtype="float64")


@pytest.mark.parametrize("beams", [1, 3])
def test_output_names_shapes_and_values(models, beams):
    there_model, here_model = models
    source = np.random.default_rng(4).integers(3, VOCABULARY, (2, 16))
    asked = {"output_scores": True, "output_logits": True, "output_attentions": True, "output_hidden_states": True}
    call = {
        "num_beams": beams,
        "num_return_sequences": beams,
        "max_length": 12,
        "return_dict_in_generate": True,
        **asked,
    }
    prompt = np.array([[2, 7, 9], [2, 8, 8]])
    expected = there_model.generate(
        torch.tensor(source), attention_mask=torch.ones(2, 16), decoder_input_ids=torch.tensor(prompt), **call
    )
    found = here_model.generate(source, decoder_input_ids=prompt, **call)
    assert type(found).__name__ == type(expected).__name__
    names = list(type(expected).__dataclass_fields__)
    assert list(inspect.signature(type(found)).parameters) == names  # the order of the constructor
    np.testing.assert_array_equal(found.sequences, expected.sequences.numpy())
    for name in ("scores", "logits", "encoder_attentions", "encoder_hidden_states"):
        same_arrays(getattr(found, name), getattr(expected, name), name)
    for name in ("decoder_attentions", "cross_attentions", "decoder_hidden_states"):
        assert len(getattr(found, name)) == len(getattr(expected, name)), name
        for step, (mine, other) in enumerate(zip(getattr(found, name), getattr(expected, name), strict=True)):
            same_arrays(mine, other, f"{name} of step {step}")

    given = (found.sequences, found.scores, getattr(found, "beam_indices", None))
    for normalized in (False, True):
        worth = here_model.compute_transition_scores(*given, normalize_logits=normalized)
        indices = None if beams == 1 else expected.beam_indices
        other = there_model.compute_transition_scores(expected.sequences, expected.scores, indices, normalized)
        np.testing.assert_allclose(worth, other.numpy(), rtol=0, atol=2e-5)
    if beams > 1:
        sums = here_model.compute_transition_scores(*given).sum(axis=1) / (found.beam_indices >= 0).sum(axis=1)
        np.testing.assert_allclose(sums, found.sequences_scores, rtol=0, atol=1e-6)


def same_arrays(mine, other, what) -> None:
    assert [tuple(a.shape) for a in mine] == [tuple(a.shape) for a in other], what
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=2e-5, err_msg=what)
