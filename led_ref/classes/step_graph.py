"""A decoding step captured as a graph, for backends that have graphs: made, compared, replayed, and given up if it differs.

Nobody has to trust a graph. The first step after each capture is computed both ways: as it always is, and by the graph. If
capturing fails, or if logits differ by more than rounding explains, the search goes on as it always does, and says so once.
"""

from collections.abc import Callable

import numpy as np

from led_backends.contract import Array, CaptureError, HostArray
from led_backends.notices import warn
from led_ref.classes.led import LEDModel
from led_ref.generation.prompt_lookup import closeness
from led_ref.model.decoder import decode, decoder_masks, lm_logits, padding_mask
from led_ref.model.kv_cache import DecoderCache
from led_ref.model.ops import embed_tokens
from led_ref.model.static_step import StaticStep, static_step

# The slots of a document that the first graph has: 64 steps of 4 beams. Then they double, with a capture each time.
FIRST_SLOTS = 256


class StepGraph:
    """The steps of one search after its first call.

    Args:
        led: the model, on a backend with graphs.
        attention_mask_BT: the documents' padding mask; None: all are tokens.
    """

    def __init__(self, led: LEDModel, attention_mask_BT: HostArray | None) -> None:
        self.led = led
        self.mask_BT = attention_mask_BT
        self.captures = 0
        self._captured: tuple[StaticStep, Callable[[], Array]] | None = None
        self._given_up = False

    def __call__(self, token_ids_NU: HostArray, cache: DecoderCache) -> tuple[HostArray, DecoderCache]:
        """Logits (N, V) of the next id, and the cache after it."""
        if self._given_up or token_ids_NU.shape[1] > 1:
            return self._as_always(token_ids_NU, cache)
        if self._captured is not None and self._captured[0].has_room(cache):
            return self._replayed(token_ids_NU, cache)
        self._captured = None  # its memory is free before more is taken, but for the cache
        expected_NV, after = self._as_always(token_ids_NU, cache)
        try:
            self._capture(token_ids_NU, cache)
            found_NV, after_graph = self._replayed(token_ids_NU, cache)
        except CaptureError as error:
            return self._give_up(str(error), expected_NV, after)
        difference, close = _difference(found_NV, expected_NV), closeness(float(np.finfo(self.led.dtype).eps))
        if not difference <= close:  # NaN is no small difference
            return self._give_up(
                f"logits differ by {difference:.1e} of the largest; rounding explains {close:.1e}", expected_NV, after
            )
        return expected_NV, after_graph

    def _capture(self, token_ids_N1: HostArray, cache: DecoderCache) -> None:
        led, slots = self.led, max(FIRST_SLOTS, cache.layers[0].self_k.buffer_BHCK.shape[2])
        while slots < cache.used + cache.slots_BWS.shape[1]:
            slots *= 2
        source_B1T = padding_mask(self.mask_BT, led.backend)
        step = static_step(cache, slots, led.params, led.config, source_B1T, led.backend)
        step.fill(token_ids_N1, cache)  # it is computed once before it is captured
        self._captured = step, led.backend.captured(step)
        self.captures += 1

    def _replayed(self, token_ids_N1: HostArray, cache: DecoderCache) -> tuple[HostArray, DecoderCache]:
        assert self._captured is not None
        step, replay = self._captured
        step.fill(token_ids_N1, cache)
        return self.led.backend.to_host(replay()), step.cache_after(cache)

    def _as_always(self, token_ids_NU: HostArray, cache: DecoderCache) -> tuple[HostArray, DecoderCache]:
        """The step as DecodingStep computes it."""
        led = self.led
        masks = decoder_masks(token_ids_NU.shape[1], cache, None, self.mask_BT, led.backend)
        embeds_NUD = embed_tokens(token_ids_NU, led.params.shared, led.backend)
        last_NUD, after = decode(embeds_NUD, cache, led.params.decoder, led.config, masks, led.backend)
        return led.backend.to_host(lm_logits(last_NUD[:, -1:], led.params, led.backend)[:, 0]), after

    def _give_up(self, reason: str, logits_NV: HostArray, after: DecoderCache) -> tuple[HostArray, DecoderCache]:
        self._captured, self._given_up = None, True
        warn(
            f"This text is written without a CUDA graph, more slowly: {reason}. Its ids are those that they are without "
            "graphs=True, which spares this attempt."
        )
        return logits_NV, after


def _difference(found_NV: HostArray, expected_NV: HostArray) -> float:
    """The largest difference of two logits, over the largest logit; NaN if one of them is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        off_NV = np.abs(found_NV.astype(np.float64) - expected_NV)
        return float(off_NV.max() / np.abs(expected_NV).max())
