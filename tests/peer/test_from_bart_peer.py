"""A BART of transformers becomes an LED that transformers and led_ref load, and on short documents it is that BART."""

import numpy as np
import pytest

import led_ref
from led_ref.weights.from_bart import convert_bart

pytestmark = pytest.mark.peer

POSITIONS, LONG, WINDOW = 512, 1200, 1022  # 1,200 is no multiple of 512; from any of 512 tokens 511 reach all others
# float64 throughout; what is left is the order of summation, in two layers on each side.
TOLERANCE = 1e-11
# led_ref's float64 against transformers' LED, whose encoder's softmax is float32 whatever the dtype (docs/deviations.md).
SOFTMAX_IN_FLOAT32 = 5e-6


@pytest.fixture(scope="module", params=["tied", "untied"])
def bart(request):
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(11)
    sizes = {"encoder_attention_heads": 5, "decoder_attention_heads": 2, "encoder_ffn_dim": 29, "decoder_ffn_dim": 31}
    config = BartConfig(
        vocab_size=97,
        d_model=30,
        encoder_layers=2,
        decoder_layers=3,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=request.param == "tied",
        **sizes,
    )
    model = BartForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            norm = "norm" in name and name.endswith("weight")
            tensor.copy_(
                norm + (0.2 if norm or tensor.ndim == 1 else tensor.shape[-1] ** -0.5) * torch.randn(tensor.shape)
            )
        if request.param == "untied":  # led_ref has one table for both embeddings; only the output may be another
            model.model.encoder.embed_tokens.weight.copy_(model.model.shared.weight)
            model.model.decoder.embed_tokens.weight.copy_(model.model.shared.weight)
    return model


@pytest.fixture(scope="module")
def led_folder(bart, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bart")
    bart.save_pretrained(folder / "bart", max_shard_size="20KB")  # in several files, as large ones are
    convert_bart(folder / "bart", folder / "led", max_positions=LONG, attention_window=WINDOW)
    return folder / "led"


def batch(length):
    rng = np.random.default_rng(length)
    ids, mask = rng.integers(3, 97, (2, length)), np.ones((2, length), np.int64)
    ids[1, length // 2 :], mask[1, length // 2 :] = 1, 0
    return ids, mask, np.concatenate([np.full((2, 1), 2), rng.integers(3, 97, (2, 6))], axis=1)


def logits_of(peer, **call):
    import torch

    with torch.inference_mode():
        return peer(**{name: torch.from_numpy(array) for name, array in call.items()}).logits.numpy()


@pytest.mark.parametrize("length", [7, POSITIONS])
def test_short_inputs_match_bart(bart, led_folder, worst, length):
    ids, mask, target = batch(length)
    led = led_ref.LEDForConditionalGeneration.from_pretrained(led_folder, dtype="float64", backend="numpy")
    ours = led(ids, mask, target).logits
    theirs = logits_of(bart, input_ids=ids, attention_mask=mask, decoder_input_ids=target)
    assert np.abs(theirs).max() > 1  # the two models say something
    worst.compare("LED made of a BART: logits of that BART", ours, theirs, TOLERANCE)


def test_transformers_matches_on_longer_inputs(led_folder, worst):
    from transformers import LEDForConditionalGeneration

    peer, told = LEDForConditionalGeneration.from_pretrained(led_folder, dtype="float64", output_loading_info=True)
    assert not any(told.values()), told
    assert peer.config.attention_window == [WINDOW] * 2
    assert (peer.config.max_encoder_position_embeddings, peer.config.max_decoder_position_embeddings) == (
        LONG,
        POSITIONS,
    )
    ids, mask, target = batch(1021)  # transformers pads to 1022
    global_mask = np.zeros_like(ids)
    global_mask[:, [0, 5]] = 1
    call = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": target, "global_attention_mask": global_mask}
    ours = led_ref.LEDForConditionalGeneration.from_pretrained(led_folder, dtype="float64", backend="numpy")(
        **call
    ).logits
    theirs = logits_of(peer.eval(), **call)
    worst.compare("LED made of a BART: logits of transformers' LED", ours, theirs, SOFTMAX_IN_FLOAT32)
