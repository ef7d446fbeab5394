"""What is kept between the steps of a text, kept in another way or not at all: the same ids, the same scores."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from small_led import CONFIG, draw_weights

from led_ref.classes.conditional_generation import LEDForConditionalGeneration
from led_ref.errors import SettingsError
from led_ref.model.intermediates import Recorder
from led_ref.model.kv_cache import GrowingBuffer

MODEL = LEDForConditionalGeneration.from_state_dict(CONFIG, draw_weights(CONFIG), dtype="float64")
DOCUMENTS: dict[str, Any] = {
    "input_ids": [[0, 5, 6, 7, 11, 2], [0, 8, 2, 1, 1, 1]],
    "attention_mask": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]],
    "global_attention_mask": [[1, 0, 0, 0, 0, 0], [1, 0, 0, -1, -1, -1]],
}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"max_length": 17},
    "a prompt": {"max_length": 11, "decoder_input_ids": [[2, 4, 9], [2, 3, 3]]},
    "beams": {"max_length": 17, "num_beams": 3, "num_return_sequences": 2},
    "beams, folded": {"max_length": 6, "num_beams": 2, "cross_attention": "folded"},
}
WAYS: dict[str, dict[str, Any]] = {"static": {"cache_implementation": "static"}, "none": {"use_cache": False}}


def search(**settings: Any) -> Any:
    """Texts of ids that are all different: drawn weights like to say one id again and again."""
    settings = {"no_repeat_ngram_size": 1, "eos_token_id": None, **settings}
    return MODEL.generate(**DOCUMENTS, return_dict_in_generate=True, output_scores=True, **settings)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SEARCHES)
def test_cache_variants_give_the_same_text(name: str, way: str) -> None:
    kept, other = search(**SEARCHES[name]), search(**SEARCHES[name], **WAYS[way])
    np.testing.assert_array_equal(other.sequences, kept.sequences)
    for a, b in zip(other.scores, kept.scores, strict=True):
        # The search is float32. Recomputed in blocks of other shapes, a float64 logit differs by 1e-13.
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if way == "static" else 1e-5)


@pytest.mark.parametrize("name", SEARCHES)
def test_static_cache_allocated_once_and_filled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, rooms = GrowingBuffer.append, {}

    def append(self: GrowingBuffer, new_BHUK: Any, backend: Any) -> GrowingBuffer:
        after = real(self, new_BHUK, backend)
        assert after.buffer_BHCK is self.buffer_BHCK, "it moved"
        rooms[id(after.buffer_BHCK)] = after
        return after

    monkeypatch.setattr(GrowingBuffer, "append", append)
    search(**SEARCHES[name], **WAYS["static"])
    assert len(rooms) == 2 * CONFIG.decoder_layers
    entries = SEARCHES[name].get("num_beams", 1) * (SEARCHES[name]["max_length"] - 1)
    assert {(store.length, store.buffer_BHCK.shape[2]) for store in rooms.values()} == {(entries, entries)}


def test_no_cache_recomputes_the_prefix() -> None:
    lengths: dict[str, Any] = {}
    tap = Recorder(
        lambda name, ids_NU: lengths.update({name: ids_NU.shape}), lambda name: name.endswith("decoder.input_ids")
    )
    for settings, expected in (({}, [(2, 1)] * 4), (WAYS["none"], [(2, 1), (2, 2), (2, 3), (2, 4)])):
        lengths.clear()
        search(max_length=5, recorder=tap, **settings)
        assert list(lengths.values()) == expected


def test_forward_returns_the_requested_cache() -> None:
    call = {**DOCUMENTS, "decoder_input_ids": [[2, 5], [2, 8]]}
    assert MODEL(**call).past_key_values is not None
    assert MODEL(**call, use_cache=False).past_key_values is None
    assert MODEL(**call, labels=[[5, 2], [8, 2]]).past_key_values is None
    assert MODEL(**call, labels=[[5, 2], [8, 2]], use_cache=True).past_key_values is not None
    without = LEDForConditionalGeneration(
        dataclasses.replace(CONFIG, use_cache=False), MODEL.params, backend=MODEL.backend
    )
    assert without(**call).past_key_values is None
    assert without.led(**call, use_cache=True).past_key_values.length == 2


def test_invalid_or_conflicting_cache_options() -> None:
    with pytest.raises(SettingsError, match=r"'static' \(from the call\), but use_cache is False .*Leave one"):
        search(cache_implementation="static", use_cache=False)
    with pytest.raises(SettingsError, match=r"cache_implementation is 'offloaded' .*'dynamic' or 'static'"):
        search(cache_implementation="offloaded")
