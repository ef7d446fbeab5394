"""Prompt lookup over the model: a reader for each text (generation/prompt_lookup.py), and what cannot be together with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from led_backends.contract import HostArray
from led_ref.classes.led import LEDModel
from led_ref.errors import SettingsError
from led_ref.generation.prompt_lookup import LookupStep, closeness
from led_ref.generation.settings.settings import GenerationConfig
from led_ref.model.decoder import decode, decoder_masks, lm_logits
from led_ref.model.intermediates import Recorder
from led_ref.model.kv_cache import DecoderCache
from led_ref.model.ops import embed_tokens


@dataclass
class RowReader:
    """Reads ids of one text and forgets them again, for prompt lookup (generation/prompt_lookup.py).

    Args:
        led: the model.
        cache: of the text's document alone.
        attention_mask_1T: the document's padding mask; None: all are tokens.
    """

    led: LEDModel
    cache: DecoderCache
    attention_mask_1T: HostArray | None

    def __call__(self, kept: int, ids: Sequence[int], wanted: int) -> HostArray:
        """Logits (wanted, V) after the last `wanted` of the ids, which stand behind the first `kept` that were read."""
        led, params = self.led, self.led.params
        cache = self.cache.cut(kept)
        masks = decoder_masks(len(ids), cache, None, self.attention_mask_1T, led.backend)
        embeds_1UD = embed_tokens(np.array([ids], np.int64), params.shared, led.backend)
        last_1UD, self.cache = decode(embeds_1UD, cache, params.decoder, led.config, masks, led.backend)
        return led.backend.to_host(lm_logits(last_1UD[:, -wanted:], params, led.backend)[0])


def lookup_step(
    led: LEDModel,
    memory: DecoderCache,
    attention_mask_BT: HostArray | None,
    source_BT: HostArray,
    settings: GenerationConfig,
) -> LookupStep:
    """The step function that reads ahead what each document proposes: each of its texts by itself.

    Args:
        led: the model.
        memory: of the documents, one row each (LEDModel.source_memory).
        attention_mask_BT: the documents' padding mask; None: all are tokens.
        source_BT: the ids that the encoder read.
        settings: resolved settings.
    """
    readers, sources = [], []
    for b, source_T in enumerate(source_BT):
        mask_1T = None if attention_mask_BT is None else attention_mask_BT[b : b + 1]
        document = memory.of_document(b)  # that its texts begin with; the first keeps its buffer, the others get one
        for _ in range(settings.num_return_sequences):
            readers.append(RowReader(led, document, mask_1T))
            sources.append(source_T if mask_1T is None else source_T[mask_1T[0] == 1])
    close = closeness(float(np.finfo(led.dtype).eps))
    return LookupStep(readers, sources, settings.prompt_lookup_num_tokens, settings.max_length, close)


def refuse_beside_lookup(settings: GenerationConfig, source_BT: HostArray | None, recorder: Recorder | None) -> None:
    """Prompt lookup needs the document's ids, and a pass that reads several ids is not one step of what is recorded."""
    stated = f"prompt_lookup_num_tokens is {settings.prompt_lookup_num_tokens}"
    if source_BT is None:
        raise SettingsError(
            f"{stated}, which needs the ids of the source, but the call gives only encoder outputs. Pass input_ids, or "
            "prompt_lookup_num_tokens=0."
        )
    if recorder is not None:
        raise SettingsError(
            f"{stated}, and a recorder is to receive the intermediates of each step, but with lookup a pass of the model "
            "reads several ids. Pass prompt_lookup_num_tokens=0."
        )
