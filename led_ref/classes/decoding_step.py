"""One step of autoregressive decoding: the model as the search sees it.

generation/ knows no model and model/ knows no search; all that passes between them is

    logits_NV = step(token_ids_NU, parents_N)

A step embeds the new ids, runs the decoder after the positions of its KV cache, and computes the logits of the last one.
"""

import numpy as np

from led_backends.contract import Array, HostArray
from led_ref.classes.led import LEDModel
from led_ref.model.decoder import decode, decoder_masks
from led_ref.model.heads import lm_logits
from led_ref.model.hooks import recording_decoder
from led_ref.model.intermediates import Recorder, keep
from led_ref.model.kv_cache import DecoderCache
from led_ref.model.ops import embed_tokens


class DecodingStep:
    """A step function for generation/. It holds the one thing that changes from step to step: the KV cache.

    Args:
        led: the model.
        cache: of the documents, before the first target position (LEDModel.source_memory).
        attention_mask_BT: the documents' padding mask; None: all are tokens.
        recorder: receives the intermediates of each call, as step.0, step.1, ...
        use_cache: False: compute all positions of the prefix anew in each step. The ids are the same; only the documents'
            keys and values are kept.
        kept: the ends of the names of the intermediates that `self.calls` keeps of each call.
    """

    def __init__(
        self,
        led: LEDModel,
        cache: DecoderCache,
        attention_mask_BT: HostArray | None,
        recorder: Recorder | None = None,
        *,
        use_cache: bool = True,
        kept: tuple[str, ...] = (),
    ) -> None:
        self.led = led
        self.cache = cache
        self.attention_mask_BT = attention_mask_BT
        self.recorder = recorder
        self.use_cache = use_cache
        self.prefix_NU: HostArray | None = None  # the ids of the prefix, where no cache holds its keys
        self.kept = kept
        self.calls: list[dict[str, Array]] = []

    def __call__(self, token_ids_NU: HostArray, parents_N: HostArray | None) -> HostArray:
        """Logits (N, V) of the next id; row n continues row parents_N[n] of the call before."""
        led, params = self.led, self.led.params
        if parents_N is not None:
            self.cache = self.cache.reorder(parents_N)
        if not self.use_cache:
            if self.prefix_NU is not None:
                token_ids_NU = np.concatenate([self.prefix_NU[parents_N], token_ids_NU], axis=1)
            self.prefix_NU = token_ids_NU
        masks = decoder_masks(token_ids_NU.shape[1], self.cache, None, self.attention_mask_BT, led.backend)
        embeds_NUD = embed_tokens(token_ids_NU, params.shared, led.backend)
        recorder, backend = self._recorder_of_call(), led.backend
        if recorder is not None:
            recorder("led.decoder.input_ids", token_ids_NU)
            recorder("led.decoder.embed_tokens.output", embeds_NUD)
            heads, inner = led.config.decoder_attention_heads, recorder.at("led.decoder")
            backend = recording_decoder(led.backend, params.decoder, heads, inner, (self.cache, masks))
        last_NUD, after = decode(embeds_NUD, self.cache, params.decoder, led.config, masks, backend)
        if self.use_cache:
            self.cache = after
        logits_N1V = lm_logits(last_NUD[:, -1:], params, led.backend)
        if recorder is not None:
            recorder("logits", logits_N1V)
        return led.backend.to_host(logits_N1V[:, 0])

    def _recorder_of_call(self) -> Recorder | None:
        """The recorder of this call: the caller's at step.N, and what keeps the intermediates that are wanted afterwards."""
        if self.recorder is None and not self.kept:
            return None
        self.calls.append({})
        return keep(self.kept, self.calls[-1], self.recorder and self.recorder.at(f"step.{len(self.calls) - 1}"))
