"""Gradients without torch: central differences, and what they must not depend on: threads, padding, the batch."""

import dataclasses
import functools
from unittest import mock

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

from led_backends.numpy_backend import NumpyBackend
from led_ref import LEDForConditionalGeneration, LEDForQuestionAnswering
from led_ref.errors import InputError
from led_ref.model.dropout import Dropout, DropoutRates
from led_ref.training import accumulate_gradients, loss_and_gradients
from led_ref.training.gradients import GradientOptions
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, SHARED, arrays_by_key

WEIGHTS = draw_weights(CONFIG)
RATES = DropoutRates(0.2, 0.2, 0.2, encoder_layerdrop=0.1, decoder_layerdrop=0.1)
DROPOUT = GradientOptions(Dropout(RATES, seed=4, step=1, documents=(11, 12, 13)), 0.1)


@pytest.fixture(autouse=True)
def small_blocks():
    """So that the small documents have several blocks of everything."""
    with (
        mock.patch.object(NumpyBackend, "queries_per_block", 5),
        mock.patch("led_backends.numpy_backend.BLOCK_ROWS", 7),
        mock.patch("led_ref.model.losses.LOGIT_ROWS", 3),
        mock.patch("led_ref.model.ops.FEED_FORWARD_ROWS", 9),
    ):
        yield


def led(dtype="float64", threads=1, weights=WEIGHTS):
    return LEDForConditionalGeneration.from_state_dict(
        CONFIG, weights, dtype=dtype, backend=NumpyBackend(threads=threads)
    )


@functools.cache
def batch():
    """Three documents of unequal lengths: no global token, one, and some."""
    rng = np.random.default_rng(7)
    ids = rng.integers(3, CONFIG.vocab_size, (3, 23))
    mask, marks = np.ones_like(ids), np.zeros_like(ids)
    mask[0, 9:] = mask[2, 17:] = 0
    ids[mask == 0] = CONFIG.pad_token_id
    ids[1, 4] = CONFIG.pad_token_id  # read as a token
    marks[1, 0] = 1
    marks[2, [0, 3, 11]] = 1
    labels = rng.integers(0, CONFIG.vocab_size, (3, 10))
    labels[0, 4:] = labels[1, 2] = labels[2, :3] = -100
    return {"input_ids": ids, "attention_mask": mask, "global_attention_mask": marks, "labels": labels}


def collected(model, given, options=None):
    """The gradients, added up in the order in which their parts come; and all parts' keys and dtypes."""
    found, parts = {}, []

    def collect(key, array):
        parts.append((key, array.dtype.name))
        if key in found:
            found[key] += array
        else:
            found[key] = array

    return accumulate_gradients(model, given, collect, options), found, parts


def assert_same_bits(ours, others):
    assert ours.keys() == others.keys()
    for key, array in ours.items():
        np.testing.assert_array_equal(array, others[key], err_msg=key)


@pytest.mark.parametrize("options", [GradientOptions(), DROPOUT], ids=["plain", "dropout"])
def test_central_differences(options):
    """Along a drawn direction d of the tensors of each module: `(loss(w + h d) - loss(w - h d)) / 2h = sum(gradient * d)`."""
    rng = np.random.default_rng(1)
    _, gradients, _ = collected(led(), batch(), options)
    assert gradients.keys() == WEIGHTS.keys() - {FINAL_LOGITS_BIAS}
    modules = sorted({module_of(key) for key in gradients})
    assert len(modules) == 9
    for module in modules:
        directions = {key: rng.normal(size=WEIGHTS[key].shape) for key in gradients if module_of(key) == module}
        if SHARED in directions:
            directions[SHARED][CONFIG.pad_token_id] = 0  # this row does not learn from look-ups
        losses = []
        for h in (2e-6, -2e-6):
            moved = {key: WEIGHTS[key] + h * direction for key, direction in directions.items()}
            model = led(weights={**WEIGHTS, **moved})
            losses.append(accumulate_gradients(model, batch(), lambda key, array: None, nothing(options)).mean)
        expected = sum((gradients[key] * direction).sum() for key, direction in directions.items())
        assert abs((losses[0] - losses[1]) / 4e-6 - expected) <= 1e-7 * abs(expected), module


def module_of(key):
    """`led.encoder.layers.0`, `led.encoder.embed_positions`, ...: what learns along one direction."""
    return ".".join(key.split(".")[:4]) if ".layers." in key else key.rpartition(".")[0]


def nothing(options):
    """The same, of no parameter: the loss alone."""
    return GradientOptions(options.dropout, options.label_smoothing, needs=lambda key: False)


def test_same_bits_for_any_number_of_threads():
    _, first, _ = collected(led("float32", 1), batch(), DROPOUT)
    for threads in (2, 3, 5):
        _, others, _ = collected(led("float32", threads), batch(), DROPOUT)
        assert_same_bits(others, first)


@pytest.mark.parametrize("options", [GradientOptions(documents_at_once=2), DROPOUT], ids=["plain", "dropout"])
def test_same_bits_for_layers_kept_or_computed_again(options):
    kept = dataclasses.replace(options, keep_activations=True)
    for trained in ("led.", "led.decoder.layers.1.fc"):
        loss, again, _ = collected(led("float32", 2), batch(), dataclasses.replace(options, needs=starts(trained)))
        loss_kept, found, _ = collected(led("float32", 2), batch(), dataclasses.replace(kept, needs=starts(trained)))
        assert loss == loss_kept
        assert_same_bits(found, again)
        assert found


def starts(beginning):
    return lambda key: key.startswith(beginning)


def test_kept_layers_are_computed_once():
    """Linear maps: as many as forward alone has. (Global rows compute their queries again.)"""
    given = {key: array for key, array in batch().items() if key != "global_attention_mask"}
    counts = []
    for options in ({"needs": starts("nothing")}, {"keep_activations": True}, {}):
        with mock.patch.object(NumpyBackend, "linear", autospec=True, side_effect=NumpyBackend.linear) as linear:
            collected(led(), given, GradientOptions(**options))
        counts.append(linear.call_count)
    assert counts[0] == counts[1] < counts[2] * 0.6


def test_batch_is_the_sum_of_its_documents():
    """Bit for bit, though alone a document has other padding, and other documents beside it."""
    model, given = led("float32", 2), batch()
    loss, whole, _ = collected(model, given, DROPOUT)
    alone, losses = {}, []
    for b in range(3):
        dropout = Dropout(RATES, seed=4, step=1, documents=(11 + b,))
        options = GradientOptions(dropout, 0.1, divide_by=loss.counts)
        length = int(given["attention_mask"][b].sum()) + b  # some padding
        one = {key: array[b : b + 1, : array.shape[1] if key == "labels" else length] for key, array in given.items()}
        part, found, _ = collected(model, one, options)
        losses.append(part)
        for key, array in found.items():
            alone[key] = alone[key] + array if key in alone else array
    assert_same_bits(alone, whole)
    assert sum(losses[1:], losses[0]) == loss
    assert loss.counts == (20,)


def test_documents_together_are_equal_to_rounding():
    model = led()
    loss, single, _ = collected(model, batch(), DROPOUT)
    options = GradientOptions(DROPOUT.dropout, 0.1, documents_at_once=2)
    loss_together, together, _ = collected(model, batch(), options)
    assert abs(loss.mean - loss_together.mean) < 1e-13
    for key, array in single.items():
        np.testing.assert_allclose(together[key], array, rtol=0, atol=1e-13 * max(1, np.abs(array).max()), err_msg=key)


def test_loss_is_that_of_forward():
    model = led()
    loss, gradients = loss_and_gradients(model, batch())
    assert abs(loss.mean - float(model(**batch()).loss)) < 1e-13
    assert gradients.lm_head is gradients.shared
    assert not gradients.final_logits_bias.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_have_the_dtype_of_the_weights(dtype):
    _, _, parts = collected(led(dtype, 2), batch(), DROPOUT)
    assert {name for _, name in parts} == {dtype}


def test_float32_gradients_are_near_those_of_float64():
    _, exact, _ = collected(led(), batch(), DROPOUT)
    _, found, _ = collected(led("float32"), batch(), DROPOUT)
    whole = max(np.abs(array).max() for array in exact.values())
    for key, array in exact.items():
        np.testing.assert_allclose(found[key], array, rtol=0, atol=3e-5 * whole, err_msg=key)


def test_frozen_parameters_cost_no_gradient():
    """What is trained has the same bits as ever; below the lowest of it no layer goes back."""
    model = led("float32")
    _, whole, _ = collected(model, batch())
    trained = ("led.encoder.layers.1.", "led.decoder.layers.0.self_attn", "led.decoder.layernorm_embedding")
    for some, encoder_layers, decoder_layers in (
        (trained, 1, 2),
        (trained[1:2], 0, 2),
        (("led.decoder.layers.1.fc",), 0, 1),
        (("led.encoder.embed_positions",), 2, 2),
        ((), 0, 0),
    ):
        options = GradientOptions(needs=lambda key, some=some: key.startswith(some) if some else False)
        counts = {"encoder": 0, "decoder": 0}
        with mock.patch.multiple("led_ref.training.gradients", **counting(counts)):
            _, found, _ = collected(model, batch(), options)
        assert_same_bits(found, {key: array for key, array in whole.items() if some and key.startswith(some)})
        assert counts == {"encoder": 3 * encoder_layers, "decoder": 3 * decoder_layers}


def counting(counts):
    from led_ref.training import gradients

    def counted(stack):
        backward = getattr(gradients, f"{stack}_layer_backward")

        def count(*arguments):
            counts[stack] += 1
            return backward(*arguments)

        return count

    return {f"{stack}_layer_backward": counted(stack) for stack in counts}


def test_unused_maps_have_no_gradient_not_zeros():
    """As in torch, where an optimizer leaves out what has none: zeros would be a step with decay and momentum."""
    _, found, _ = collected(led(), {**batch(), "global_attention_mask": np.zeros((3, 23), int)})
    assert {key for key in WEIGHTS if "_global" in key} == WEIGHTS.keys() - found.keys() - {FINAL_LOGITS_BIAS}


def test_pad_row_learns_from_the_head_alone():
    """The pad id is a token of document 1 and what the decoder reads for -100; its row has the output table's gradient."""
    model = led()
    two_tables = dataclasses.replace(model.params, lm_head=model.params.shared.copy())
    _, apart, _ = collected(LEDForConditionalGeneration(CONFIG, two_tables, backend=model.backend), batch())
    _, tied, _ = collected(model, batch())
    pad = CONFIG.pad_token_id
    assert not apart[SHARED][pad].any()
    assert apart[SHARED][batch()["input_ids"][1, 5:9]].any(axis=1).all()
    np.testing.assert_array_equal(tied[SHARED][pad], apart[LM_HEAD][pad])
    np.testing.assert_allclose(tied[SHARED], apart[SHARED] + apart[LM_HEAD], rtol=0, atol=1e-14)


def test_documents_without_a_label_have_no_gradient():
    given = {**batch(), "labels": batch()["labels"].copy()}
    given["labels"][1] = -100
    loss, found, _ = collected(led(), given)
    others = {key: array[[0, 2]] for key, array in given.items()}
    loss_of_others, found_of_others, _ = collected(led(), others)
    assert loss == loss_of_others
    assert_same_bits(found, found_of_others)


def test_refused_batches():
    model, given = led(), batch()
    for changes, message in (
        ({"labels": None}, "has no labels: there is nothing to learn"),
        ({"labels": np.full((3, 4), -100)}, "labels that count are 0: the loss would be a mean of nothing"),
        ({"labels": given["labels"][:2]}, "labels has 2 rows for 3 documents"),
        ({"decoder_input_ids": given["labels"]}, "LEDForConditionalGeneration has no decoder_input_ids; leave it out"),
        ({"labels": np.ones((3, 18), int)}, "The decoder is given 18 positions, but this model writes at most 17"),
    ):
        with pytest.raises(InputError, match=message):
            loss_and_gradients(model, {**given, **changes})
    quantized = LEDForConditionalGeneration.from_state_dict(CONFIG, WEIGHTS, dtype="float32", quantize="int8")
    with pytest.raises(InputError, match="is kept quantized or in its stored type, and has no gradient"):
        loss_and_gradients(quantized, given)
    for options, message in (
        ({"label_smoothing": 1.0}, r"label_smoothing is 1\.0; give a number from 0 to below 1"),
        ({"documents_at_once": 0}, "documents_at_once is 0; give at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            loss_and_gradients(model, given, GradientOptions(**options))
    weights = {key: value for key, value in WEIGHTS.items() if key != FINAL_LOGITS_BIAS}
    head = {"qa_outputs.weight": np.ones((2, CONFIG.d_model)), "qa_outputs.bias": np.ones(2)}
    answering = LEDForQuestionAnswering.from_state_dict(CONFIG, {**weights, **head})
    question = {"input_ids": [[0, 5, 2]], "start_positions": [1], "end_positions": [1]}
    with pytest.raises(InputError, match="label_smoothing is for words; LEDForQuestionAnswering has none"):
        loss_and_gradients(answering, question, GradientOptions(label_smoothing=0.1))
    with pytest.raises(InputError, match="answers were all cut off"):
        loss_and_gradients(answering, {**question, "end_positions": [3]})


def test_gradients_are_named_by_checkpoint_keys():
    _, gradients = loss_and_gradients(led(), batch())
    _, found, _ = collected(led(), batch())
    arrays = arrays_by_key(gradients, CONFIG)
    assert found.keys() == arrays.keys() - {LM_HEAD, FINAL_LOGITS_BIAS}
    assert_same_bits({key: arrays[key] for key in found}, found)
