"""LED itself, as pure functions `(arrays, params, config, backend) -> arrays`, over frozen dataclasses of weights."""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref.model.kv_cache import DecoderCache

__all__ = ["DecoderCache"]

__getattr__, __dir__ = hand_on(__name__, {"kv_cache": ("DecoderCache",)})
