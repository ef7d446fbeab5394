"""Text in, text out: load a model, summarize, answer, classify, in batches."""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref.pipelines.loading import Document, TextPipeline
    from led_ref.pipelines.summarization import TextOptions

__all__ = ["Document", "TextOptions", "TextPipeline"]

__getattr__, __dir__ = hand_on(__name__, {"loading": ("Document", "TextPipeline"), "summarization": ("TextOptions",)})
