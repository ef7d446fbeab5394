"""Text that is given out as it is written: the part of `LED` (api.py) that streams."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from led_ref.classes.encoder import Progress
from led_ref.errors import SettingsError
from led_ref.pipelines.batching import Document
from led_ref.pipelines.global_attention import GlobalAttention
from led_ref.tokenizer.pieces import text_pieces

if TYPE_CHECKING:
    from led_ref.api import LED


class StreamsText:
    """The methods of `LED` that give out a text as it is written."""

    def stream(
        self,
        text: str,
        *,
        global_attention: GlobalAttention = "first",
        truncation: bool = False,
        cross_attention: str = "cached",
        progress: Progress | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """Write a text for a document, and give it out as it is written: pieces that together are what `generate` returns.

        No piece ends inside a character. The document is read before this returns; each piece is written when asked for.

        Args:
            text: one document.
            global_attention: see `generate`, as for all the others.
            truncation: see there.
            cross_attention: see there.
            progress: see there.
            settings: see there. Beams decide at their end, so num_beams must be 1 (greedy search), or do_sample=True with it.

        Raises:
            InputError: as `generate`.
            SettingsError: if num_beams or num_return_sequences is above 1; else as `generate`.
        """
        from led_ref.api import check_settings

        led = cast("LED", self)
        check_settings(settings)
        document = led.prepare(text, global_attention=global_attention, truncation=truncation)
        return self.stream_prepared(document, cross_attention=cross_attention, progress=progress, **settings)

    def stream_prepared(self, document: Document, **settings: Any) -> Iterator[str]:
        """As `stream`, of what `prepare` made of a text."""
        led = cast("LED", self)
        found = {name: value for name, value in settings.items() if name not in ("cross_attention", "progress")}
        texts = led.model.effective_settings(**found).num_return_sequences
        if texts > 1:
            raise SettingsError(f"num_return_sequences is {texts}, but one text is streamed at a time. Leave it out.")
        writing = led.model.stream(
            [document.ids],
            attention_mask=[[1] * len(document.ids)],
            global_attention_mask=[document.global_mask],
            tokenizer=led.tokenizer,
            **settings,
        )
        return text_pieces(led.tokenizer, (int(token_id) for (token_id,) in writing))
