"""The classification head against transformers 4.57's own numbers, and what the two classes with heads do with odd calls.

LEDForQuestionAnswering is held to transformers 5.23 in tests/peer/test_heads_peer.py.
"""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from head_cases import CASES, draw_classification, draw_question
from safetensors import safe_open

from led_ref import LEDConfig, LEDForQuestionAnswering, LEDForSequenceClassification, LEDModel
from led_ref.errors import CheckpointError, ConfigError, InputError

GOLDENS = Path(__file__).parent.parent / "peer" / "goldens" / "classification.json"
ROUNDING = 1e-10  # both in float64; only the order of sums differs


def on_host(output):
    return output.to_numpy()


@pytest.fixture(scope="module")
def goldens():
    return json.loads(GOLDENS.read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("seed", range(CASES))
def test_classification_is_transformers_457s(goldens, seed):
    case, golden = draw_classification(seed), goldens[seed]
    drawn = sum(float(np.abs(array).sum()) for array in case.weights.values())
    assert drawn == pytest.approx(golden["weights"], rel=1e-12), "NumPy draws other weights: make the goldens anew"
    model = LEDForSequenceClassification.from_state_dict(case.config, case.weights, dtype="float64")
    out = on_host(model(**case.call))
    np.testing.assert_allclose(out.logits, golden["logits"], rtol=0, atol=ROUNDING)
    assert (out.loss is None) == (golden["loss"] is None) == ("labels" not in case.call)
    if out.loss is not None:
        assert out.loss.shape == ()
        assert abs(float(out.loss) - golden["loss"]) <= ROUNDING


# ---- what a class with a head shares -----------------------------------------------------------------------------------


def build(draw, seed=0, **changes):
    case = draw(seed)
    kind = LEDForQuestionAnswering if draw is draw_question else LEDForSequenceClassification
    config = dataclasses.replace(case.config, **changes)
    return kind.from_state_dict(config, case.weights, dtype="float64"), case


@pytest.mark.parametrize("draw", [draw_question, draw_classification])
def test_output_fields_and_given_encoder_outputs(draw):
    model, _ = build(draw)
    ids = [[0, 5, 6, 2], [0, 7, 8, 2]]
    whole = on_host(
        model(ids, output_attentions=True, output_hidden_states=True, global_attention_mask=[[1, 0, 0, 0]] * 2)
    )
    assert {f.name for f in dataclasses.fields(whole) if getattr(whole, f.name) is None} == {"loss"}
    read = model.encoder(ids, global_attention_mask=[[1, 0, 0, 0]] * 2)
    given = on_host(model(ids, encoder_outputs=read, decoder_input_ids=[[2, 0, 5, 6], [2, 0, 7, 8]], use_cache=False))
    derived = on_host(model(ids, encoder_outputs=read))
    assert given.past_key_values is None
    for name in ("logits",) if draw is draw_classification else ("start_logits", "end_logits"):
        np.testing.assert_allclose(getattr(given, name), getattr(whole, name), rtol=0, atol=1e-12)
        np.testing.assert_allclose(getattr(derived, name), getattr(whole, name), rtol=0, atol=1e-12)


def test_head_class_and_shape():
    case = draw_question(0)
    without = {key: value for key, value in case.weights.items() if "qa_outputs" not in key}
    half = {key: value for key, value in case.weights.items() if key != "qa_outputs.bias"}
    config = dataclasses.replace(case.config, extra={"architectures": ["LEDForConditionalGeneration"]})
    refused = (
        (
            without,
            r"has no qa_outputs\.\*, the head of LEDForQuestionAnswering: config\.json names LEDForConditionalGen",
        ),
        (half, r"1 missing: qa_outputs\.bias"),
        (
            {**case.weights, "qa_outputs.bias": np.zeros(3)},
            r"qa_outputs\.bias is \(3,\) in the file, \(2,\) by config\.json",
        ),
        ({**case.weights, "final_logits_bias": np.zeros((1, config.vocab_size))}, r"1 left over: final_logits_bias"),
    )
    for weights, message in refused:
        with pytest.raises(CheckpointError, match=message):
            LEDForQuestionAnswering.from_state_dict(config, weights)
    with pytest.raises(CheckpointError, match=r"2 left over: qa_outputs\.weight \(a head of LEDForQuestionAnswering\)"):
        LEDModel.from_state_dict(config, case.weights)
    headless = LEDForQuestionAnswering(config, LEDModel.from_state_dict(config, without).params)
    with pytest.raises(CheckpointError, match="LEDForQuestionAnswering was made of parameters without its head"):
        headless([[0, 5, 2]])


@pytest.mark.parametrize("draw", [draw_question, draw_classification])
def test_save_and_load_bit_equal(draw, tmp_path):
    model, case = build(draw)
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved", dtype="float64")
    assert again.config.extra["architectures"] == [type(model).__name__]
    assert again.config.id2label == model.config.id2label
    with safe_open(tmp_path / "saved" / "model.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(case.weights)
        assert all(np.array_equal(file.get_tensor(key), case.weights[key]) for key in case.weights)
    first, second = (on_host(m(DOCUMENTS)) for m in (model, again))
    for name in ("logits",) if draw is draw_classification else ("start_logits", "end_logits"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


# ---- what cannot be ----------------------------------------------------------------------------------------------------

DOCUMENTS = [[0, 5, 6, 2], [0, 7, 8, 2]]
REFUSED = {
    "no ids": (draw_question, {}, ["no input_ids", "decoder_input_ids"]),
    "nothing to derive from": (
        draw_question,
        {"inputs_embeds": np.zeros((1, 3, 3))},
        ["no input_ids", "decoder_input_ids"],
    ),
    "a document beyond the decoder": (draw_question, {"input_ids": [[5] * 60]}, ["60 tokens", "max_decoder_position"]),
    "one position": (
        draw_question,
        {"start_positions": [1], "end_positions": [1, 2]},
        ["start_positions", "(1,)", "2 rows"],
    ),
    "before the start": (
        draw_question,
        {"start_positions": [1, 1], "end_positions": [1, -1]},
        ["end_positions[1]", "-1"],
    ),
    "no end": (draw_classification, {"input_ids": [[0, 5, 6, 7]]}, ["0 end tokens", "eos_token_id 2"]),
    "unequal ends": (
        draw_classification,
        {"input_ids": [[0, 5, 2, 2], [0, 5, 5, 2]]},
        ["2, 1 end tokens", "equally many"],
    ),
    "embeddings": (draw_classification, {"inputs_embeds": np.zeros((1, 3, 3))}, ["no inputs_embeds", "</s>"]),
    "another length": (draw_classification, {"decoder_input_ids": [[2, 0]] * 2}, ["(2, 2)", "(2, 4)"]),
    "a label beyond": (draw_classification, {"labels": [0, 9]}, ["labels[1] is 9", "0 ... 2"]),
    "labels too few": (draw_classification, {"labels": [1]}, ["(1,)", "(2,)", "single_label"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_value_and_remedy(name):
    draw, call, words = REFUSED[name]
    model, _ = build(draw)
    own_source = {"no ids", "nothing to derive from", "embeddings"}
    with pytest.raises(InputError) as refusal:
        model(**({} if name in own_source else {"input_ids": DOCUMENTS}) | call)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_multi_label_targets_are_between_0_and_1():
    model, _ = build(
        draw_classification, extra={**draw_classification(0).config.extra, "problem_type": "multi_label_classification"}
    )
    with pytest.raises(InputError, match=r"labels\[1, 2\] is 2\.0; each label is there, 1, or not, 0"):
        model(DOCUMENTS, labels=[[0, 1, 0], [0, 1, 2.0]])


def test_ignored_labels_and_large_logits():
    model, case = build(draw_classification, seed=1)
    weights = {**case.weights, "classification_head.out_proj.bias": np.array([2000.0, -2000.0])}
    model = LEDForSequenceClassification.from_state_dict(case.config, weights, dtype="float64")
    logits = on_host(model(DOCUMENTS)).logits
    config = dataclasses.replace(case.config, extra={**case.config.extra, "problem_type": "multi_label_classification"})
    several = LEDForSequenceClassification.from_state_dict(config, weights, dtype="float64")
    # log(1 + exp(2000)) is 2000, and exp(2000) is too large for a float64.
    expected = (logits[:, 0] - logits[:, 1]).mean() / 2
    assert float(on_host(several(DOCUMENTS, labels=[[0, 1], [0, 1]])).loss) == pytest.approx(expected, abs=1e-9)
    alone = on_host(model(DOCUMENTS, labels=[-100, 1]))
    assert alone.past_key_values is None
    assert float(alone.loss) == pytest.approx(logits[1, 0] - logits[1, 1], abs=1e-9)


def test_the_first_row_of_qa_outputs_is_the_start():
    model, case = build(draw_question)
    out = on_host(model(DOCUMENTS, output_hidden_states=True))
    logits = out.decoder_hidden_states[-1] @ case.weights["qa_outputs.weight"].T + case.weights["qa_outputs.bias"]
    np.testing.assert_allclose(out.start_logits, logits[..., 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out.end_logits, logits[..., 1], rtol=0, atol=1e-12)


def test_position_behind_the_end_is_ignored():
    model, _ = build(draw_question)
    out = on_host(model(DOCUMENTS, start_positions=[1, 4], end_positions=[[2], [99]]))
    terms = [
        math.log(np.exp(logits[0]).sum()) - logits[0][place]
        for logits, place in ((out.start_logits, 1), (out.end_logits, 2))
    ]
    assert float(out.loss) == pytest.approx(sum(terms) / 2, abs=1e-12)
    assert out.past_key_values is None


def test_loss_uses_the_labels_of_the_call():
    model, case = build(draw_classification)
    assert case.config.problem_type is None
    logits = on_host(model(DOCUMENTS)).logits
    several = np.mean(np.log1p(np.exp(logits)) - logits)
    single = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[:, 0])
    assert float(on_host(model(DOCUMENTS, labels=np.ones((2, 3)))).loss) == pytest.approx(several, abs=1e-12)
    assert float(on_host(model(DOCUMENTS, labels=[0, 0])).loss) == pytest.approx(single, abs=1e-12)


# ---- config.json -------------------------------------------------------------------------------------------------------


def test_labels_of_config_json(tmp_path):
    assert LEDConfig().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert LEDConfig.from_dict({"num_labels": 3}).num_labels == 3
    config = LEDConfig.from_dict({"id2label": {"1": "yes", "0": "no"}, "problem_type": "regression"})
    config.save(tmp_path)
    read = LEDConfig.from_pretrained(tmp_path)
    assert (read.id2label, read.problem_type) == ({0: "no", 1: "yes"}, "regression")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"num_labels": 0}, "num_labels is 0"),
        ({"num_labels": 3, "id2label": {"0": "a", "1": "b"}}, "numbers 0, 1, 2, ... (num_labels is 3)"),
        ({"id2label": {"0": "a", "2": "b"}}, "{'0': 'a', '2': 'b'}"),
        ({"id2label": ["a", "b"]}, "['a', 'b']"),
        ({"problem_type": "ranking"}, "'ranking'"),
    ],
)
def test_labels_that_cannot_be(extra, message):
    config = LEDConfig.from_dict(extra)  # a summarizing LED is not asked
    name = "problem_type" if "problem_type" in extra else "num_labels"
    with pytest.raises(ConfigError, match=re.escape(message)):
        getattr(config, name)
