"""Where attention takes from: a value is planted, and watched; heads are exchanged; many rows read one document."""

import functools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_led import CONFIG, draw_weights, small_config

from led_ref.classes.conditional_generation import LEDForConditionalGeneration

# Two orders of summing the same float64 numbers; states are of size 1 to 10.
ROUNDING = 1e-11
# Less than any probability of these weights passes on; more than all rounding.
MOVED = 1e-8
SHOW = {"output_hidden_states": True, "output_attentions": True}
WEIGHTS = draw_weights(CONFIG)
SOME = settings(max_examples=max(1, settings().max_examples // 2))


@functools.cache
def led(window: int | None = None) -> LEDForConditionalGeneration:
    """The small LED in float64; with a window given, one layer of that window."""
    if window is None:
        return LEDForConditionalGeneration.from_state_dict(CONFIG, WEIGHTS, dtype="float64")
    config = small_config(attention_window=window, encoder_layers=1, decoder_layers=1)
    return LEDForConditionalGeneration.from_state_dict(config, draw_weights(config), dtype="float64")


# ---- a planted value ------------------------------------------------------------------------------------------------


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A document of one batch row: its length, window, a kind for each token (0 masked, 1 local, 2 global), a place."""
    length = draw(st.sampled_from([2, 7, 13, 23, 41]))
    kinds = draw(st.lists(st.sampled_from([0, 1, 1, 1, 1, 1, 1, 2]), min_size=length, max_size=length))
    window = draw(st.sampled_from([2, 4, 10, 94]))
    place = draw(st.integers(0, length - 1))
    return {"kinds": np.array(kinds), "window": window, "place": place, "seed": draw(st.integers(0, 2**32))}


@SOME
@given(documents())
def test_encoder_attention_mask_of_band_and_globals(document: dict[str, Any]) -> None:
    """Another embedding at one place changes the rows that see it, and no other: those are stated here in one line."""
    kinds, window, place = document["kinds"], document["window"], document["place"]
    rng = np.random.default_rng(document["seed"])
    embeds = rng.normal(size=(1, len(kinds), CONFIG.d_model))
    planted = embeds.copy()
    planted[0, place] = rng.normal(size=CONFIG.d_model)
    masks = {"attention_mask": (kinds > 0)[None].astype(int), "global_attention_mask": (kinds == 2)[None].astype(int)}
    before, after = (
        led(window).encoder(inputs_embeds=x, **masks).to_numpy().last_hidden_state[0] for x in (embeds, planted)
    )

    far = abs(np.arange(len(kinds)) - place)
    is_near = far <= window // 2
    sees = (kinds > 0) & (kinds[place] > 0) & (is_near | (kinds == 2) | (kinds[place] == 2))
    sees[place] = True  # the residual connection, whatever attention does
    moved = abs(after - before).max(axis=-1)
    assert (moved[sees] > MOVED).all(), (moved, sees)
    assert (moved[~sees] <= ROUNDING).all(), (moved, sees)


@SOME
@given(st.data())
def test_causal_and_padding_mask_of_decoder(data: st.DataObject) -> None:
    source, written = data.draw(st.sampled_from([2, 7, 13])), data.draw(st.sampled_from([1, 2, 5, 11]))
    seen_source = np.array(data.draw(st.lists(st.booleans(), min_size=source, max_size=source)))
    seen_target = np.array(data.draw(st.lists(st.booleans(), min_size=written, max_size=written)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    states, embeds = rng.normal(size=(1, source, CONFIG.d_model)), rng.normal(size=(1, written, CONFIG.d_model))

    def last(states: np.ndarray, embeds: np.ndarray) -> np.ndarray:
        output = led(4).led(
            encoder_outputs=states,
            attention_mask=seen_source[None].astype(int),
            decoder_inputs_embeds=embeds,
            decoder_attention_mask=seen_target[None].astype(int),
        )
        return output.to_numpy().last_hidden_state[0]

    plain = last(states, embeds)
    t, u = int(rng.integers(source)), int(rng.integers(written))
    other = states.copy()
    other[0, t] = rng.normal(size=CONFIG.d_model)
    moved = abs(last(other, embeds) - plain).max(axis=-1)
    assert (moved > MOVED).all() if seen_source[t] else (moved <= ROUNDING).all(), (t, moved)

    other = embeds.copy()
    other[0, u] = rng.normal(size=CONFIG.d_model)
    moved = abs(last(states, other) - plain).max(axis=-1)
    sees = (np.arange(written) > u) & seen_target[u]
    sees[u] = True
    assert (moved[sees] > MOVED).all(), (u, moved)
    assert (moved[~sees] <= ROUNDING).all(), (u, moved)


# ---- heads ----------------------------------------------------------------------------------------------------------


def test_permuted_heads_permute_results_only() -> None:
    """Rows of the projections into heads, and columns of the one out of them, exchanged head by head."""
    shuffled = {}
    orders = {"encoder": [2, 0, 1], "decoder": [3, 1, 4, 0, 2]}
    for key, weight in WEIGHTS.items():
        side = "encoder" if ".encoder.layers" in key else "decoder"
        heads = np.arange(CONFIG.d_model).reshape(len(orders[side]), -1)[orders[side]].reshape(-1)
        if any(part in key for part in (".query", ".key", ".value", ".q_proj", ".k_proj", ".v_proj")):
            weight = weight[heads]
        elif key.endswith(("self_attn.output.weight", "out_proj.weight")):
            weight = weight[:, heads]
        shuffled[key] = weight
    rng = np.random.default_rng(0)
    call = {
        "input_ids": rng.integers(2, CONFIG.vocab_size, (2, 23)),
        "global_attention_mask": np.array([np.arange(23) % 11 == 3, np.arange(23) % 2 == 0]).astype(int),  # 2 and 12
        "decoder_input_ids": rng.integers(0, CONFIG.vocab_size, (2, 5)),
    }
    plain = led()(**call, **SHOW).to_numpy()
    other = LEDForConditionalGeneration.from_state_dict(CONFIG, shuffled, dtype="float64")(**call, **SHOW)
    np.testing.assert_allclose(other.logits, plain.logits, rtol=0, atol=ROUNDING)
    for name in ("encoder_attentions", "encoder_global_attentions", "decoder_attentions", "cross_attentions"):
        order = orders["encoder" if name.startswith("encoder") else "decoder"]
        for a, b in zip(getattr(other, name), getattr(plain, name), strict=True):
            np.testing.assert_allclose(a, b[:, order], rtol=0, atol=ROUNDING, err_msg=name)


# ---- many rows of one document --------------------------------------------------------------------------------------


@functools.cache
def read() -> tuple[Any, np.ndarray]:
    """Two documents of unequal length, read."""
    ids = np.random.default_rng(1).integers(2, CONFIG.vocab_size, (2, 13))
    mask = (np.arange(13) < [[13], [5]]).astype(int)
    return led().encoder(ids, mask, global_attention_mask=np.eye(1, 13, dtype=int).repeat(2, axis=0)), mask


def test_beams_of_one_document_are_independent() -> None:
    """Three rows for each of two documents, five ids in a row: what beams with a prompt give the model."""
    encoded, mask = read()
    ids = np.random.default_rng(2).integers(0, CONFIG.vocab_size, (6, 5))
    together = led()(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=ids, **SHOW)
    for n, row in enumerate(ids):
        own = slice(n // 3, n // 3 + 1)
        alone = led()(
            encoder_outputs=encoded.last_hidden_state[own],
            attention_mask=mask[own],
            decoder_input_ids=row[None],
            **SHOW,
        )
        np.testing.assert_allclose(together.logits[n], alone.logits[0], rtol=0, atol=ROUNDING)
        for a, b in zip(together.cross_attentions, alone.cross_attentions, strict=True):
            np.testing.assert_allclose(a[n], b[0], rtol=0, atol=ROUNDING)


def test_cached_decoding_matches_teacher_forcing() -> None:
    """Beams change places all the time; the text that comes out is read anew, whole, without cache or search."""
    encoded, mask = read()
    for beams, prompt in ((1, [[2]] * 2), (3, [[2]] * 2), (3, [[2, 7, 11], [2, 5, 3]])):
        found = led().generate(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=prompt,
            num_beams=beams,
            num_return_sequences=beams,
            max_length=16,
            eos_token_id=None,
            pad_token_id=None,
            output_scores=True,
            return_dict_in_generate=True,
        )
        output = led()(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=found.sequences)
        logits = output.to_numpy().logits
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        written, first = found.sequences[:, len(prompt[0]) :], len(prompt[0]) - 1
        each = np.take_along_axis(logprobs[:, first:-1], written[:, :, None], axis=2)[:, :, 0]
        if beams == 1:
            assert written.tolist() == logits[:, first:-1].argmax(axis=-1).tolist()
        else:
            # Scores are float32: 15 ids, each rounded to some 1e-6.
            np.testing.assert_allclose(found.sequences_scores, each.mean(axis=1), rtol=0, atol=1e-5)
            assert len({tuple(row) for row in found.sequences}) == 2 * beams
