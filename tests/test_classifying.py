"""led_ref.classify and its command, on a model whose labels follow from its weights."""

import json
import math

import numpy as np
import pytest

import led_ref
from led_ref import Classifier, LEDConfig, LEDForSequenceClassification
from led_ref.errors import CheckpointError, InputError

LABELS = {"0": "packs", "1": "lists", "2": "neither"}


def judge(tokenizer, problem_type=None, labels=LABELS):
    """It looks at the text's last token alone: no layers, and an embedding that tells the end of `tar` from all other tokens.

    At the place of `</s>` the decoder has read the token before it.
    """
    config = LEDConfig(
        vocab_size=6144, d_model=2, encoder_layers=0, decoder_layers=0, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=1, decoder_ffn_dim=1, max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=32, extra={"id2label": labels, "problem_type": problem_type},
    )  # fmt: skip
    shared = np.tile([-1.0, 1.0], (6144, 1))
    shared[tokenizer(" tar", add_special_tokens=False).input_ids[-1]] = [1, -1]
    sides = ("encoder", "decoder")
    weights = {"led.shared.weight": shared}
    weights |= {f"led.{side}.layernorm_embedding.weight": np.ones(2) for side in sides}
    weights |= {f"led.{side}.layernorm_embedding.bias": np.zeros(2) for side in sides}
    weights |= {f"led.{side}.embed_positions.weight": np.zeros((n, 2)) for side, n in zip(sides, (64, 32), strict=True)}
    weights |= {"classification_head.dense.weight": np.eye(2), "classification_head.dense.bias": np.zeros(2)}
    out = np.array([[3.0, 0], [-3, 0], [0, 0]])[: len(labels)]
    weights |= {"classification_head.out_proj.weight": out, "classification_head.out_proj.bias": np.zeros(len(labels))}
    return LEDForSequenceClassification.from_state_dict(config, weights, dtype="float64")


HIGH = 3 * math.tanh(1)  # the logit of "packs" after `tar`; that of "lists" is minus it, and LayerNorm gives 1 and -1


@pytest.mark.parametrize(
    ("problem_type", "expected"),
    [
        (None, np.exp([HIGH, 0, -HIGH]) / np.exp([HIGH, 0, -HIGH]).sum()),
        ("multi_label_classification", 1 / (1 + np.exp([-HIGH, 0, HIGH]))),
        ("regression", [HIGH, 0, -HIGH]),
    ],
)
def test_scores_by_problem_type(bundled, problem_type, expected):
    classifier = Classifier(judge(bundled.tokenizer, problem_type), bundled.tokenizer, "judge")
    found = led_ref.classify("It is tar", classifier)
    assert [label.label for label in found] == ["packs", "neither", "lists"]
    # LayerNorm's epsilon of 1e-5 beside a variance of 1
    np.testing.assert_allclose([label.score for label in found], expected, rtol=0, atol=2e-5)
    assert [label.label for label in classifier.classify("It is tar or ls")] == ["lists", "neither", "packs"]


def test_single_label_sigmoid_probability(bundled):
    (found,) = Classifier(judge(bundled.tokenizer, labels={"0": "packs"}), bundled.tokenizer, "judge").classify(
        "It is tar"
    )
    assert found.score == pytest.approx(1 / (1 + math.exp(-HIGH)), abs=2e-5)


def test_start_token_is_global_by_default(bundled):
    masks = []

    class Watched(LEDForSequenceClassification):
        @property
        def encoder(self):
            def read(ids, mask, global_mask, **given):
                masks.append(global_mask[0])
                return super(Watched, self).encoder(ids, mask, global_mask, **given)

            return read

    model = judge(bundled.tokenizer)
    classifier = Classifier(Watched(model.config, model.params), bundled.tokenizer, "judge")
    classifier.classify("It is tar")
    classifier.classify("It is tar", global_attention=[1, 2])
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[0], [1, 2]]


def test_the_command(bundled, command, tmp_path, monkeypatch):
    folder = tmp_path / "judge"
    judge(bundled.tokenizer).save_pretrained(folder, others=bundled.tokenizer.save_pretrained)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("It is tar")
    (tmp_path / "b.txt").write_text("It is tar. " * 20)
    found = led_ref.classify("It is tar", folder)
    code, out, err = command("classify", "a.txt", "--model", folder)
    assert (code, out.splitlines()) == (0, [f"{label.score:.4f}  {label.label}" for label in found])
    code, out, err = command("classify", "a.txt", "b.txt", "--model", folder, "--json")
    assert code == 1
    assert json.loads(out)["labels"] == [vars(label) for label in found]
    assert "b.txt: The document has" in err
    assert "reads at most 32" in err  # the decoder's positions: fewer than the encoder's
    code, out, err = command("classify", "b.txt", "--model", folder, "--truncate", "--quiet")
    assert (code, len(out.splitlines()), err) == (0, 3, "")
    into = ("classify", "a.txt", "b.txt", "--model", folder, "--truncate", "--json", "--out", "labels", "--quiet")
    for shard in ("1/2", "2/2"):
        assert command(*into, "--shard", shard)[0] == 0
    gathered = [json.loads(line) for line in command("gather", "labels")[1].splitlines()]
    assert [line["file"] for line in gathered] == ["a.txt", "b.txt"]
    assert gathered[0]["labels"] == [vars(label) for label in found]
    code, _, err = command(*into, "--shard", "2/2", "--resume", "--global-attention", "none")
    assert (code, 'global_attention "first"; this run has global_attention "none"' in err) == (1, True)


def test_invalid_arguments_are_refused(bundled):
    classifier = Classifier(judge(bundled.tokenizer), bundled.tokenizer, "judge")
    with pytest.raises(InputError, match="The document is empty"):
        classifier.classify(" ")
    with pytest.raises(
        CheckpointError, match=r"no classification_head.*names LEDForConditionalGeneration.*LEDForSequenceCl"
    ):
        led_ref.classify("a", led_ref.bundled_model())
