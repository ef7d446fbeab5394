"""What led_ref saves, transformers loads: every class, no key missing or made up, every bit, in one file or in shards."""

import json

import numpy as np
import pytest
from test_load_peer import make_peer

import led_ref

pytestmark = pytest.mark.peer

# 5.23 has no LEDForSequenceClassification; tests/weights/test_save.py reads it back here.
CLASSES = ("LEDForConditionalGeneration", "LEDModel", "LEDForQuestionAnswering")


@pytest.mark.parametrize("size", ["1GB", "20KB"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", CLASSES)
def test_transformers_loads_every_class(tmp_path, name, tied, size):
    import torch
    import transformers

    peer = make_peer(tie_word_embeddings=tied)
    if name == "LEDForQuestionAnswering":
        body, peer = peer.led, transformers.LEDForQuestionAnswering(peer.config)
        peer.led = body
    if not tied:  # led_ref has one table for both embeddings; the output's is its own
        with torch.no_grad():
            for side in (peer.led.encoder, peer.led.decoder):
                side.embed_tokens.weight.copy_(peer.led.shared.weight)
    peer.save_pretrained(tmp_path / "peer")
    model = getattr(led_ref, name).from_pretrained(tmp_path / "peer", backend="numpy")
    model.save_pretrained(tmp_path / "saved", max_shard_size=size)

    again, told = getattr(transformers, name).from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(told.values()), told
    before = (peer if name != "LEDModel" else peer.led).state_dict()
    after = again.state_dict()
    assert after.keys() == before.keys()
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor), key
    their_config, ours = json.loads((tmp_path / "peer/config.json").read_text()), again.config.to_dict()
    assert {key: ours[key] for key in their_config if key != "architectures"} == {
        key: value for key, value in their_config.items() if key != "architectures"
    }


def test_resized_embeddings_against_transformers(tmp_path):
    import torch
    from transformers import LEDForConditionalGeneration

    peer = make_peer()
    peer.save_pretrained(tmp_path / "peer")
    model = led_ref.LEDForConditionalGeneration.from_pretrained(tmp_path / "peer", backend="numpy")
    old = model.config.vocab_size
    torch.manual_seed(0)
    for new in (old + 5, old - 3):
        theirs = LEDForConditionalGeneration.from_pretrained(tmp_path / "peer")
        theirs.resize_token_embeddings(new)
        ours = model.resize_token_embeddings(new)
        assert ours.config.vocab_size == theirs.config.vocab_size
        table, kept = theirs.led.shared.weight.detach().numpy(), min(old, new)
        np.testing.assert_array_equal(ours.params.shared[:kept], table[:kept], strict=True)
        # There, new rows are drawn around the mean, with 1e-9 of the old rows' covariance: a deviation of about 3e-5.
        np.testing.assert_allclose(ours.params.shared[kept:], table[kept:], rtol=0, atol=3e-4)
        np.testing.assert_array_equal(ours.params.final_logits_bias, theirs.final_logits_bias.numpy(), strict=True)
