"""LEDModel and LEDForConditionalGeneration: a configuration, weights and a backend held together, and nothing more.

The classes check what they are given (inputs.py), call the pure functions of model/ and generation/, and name the results
as transformers does. They hold no state that a call changes: a model can be shared between threads.

    model = LEDForConditionalGeneration.from_pretrained("allenai/led-large-16384-arxiv")
    ids = model.generate(input_ids, attention_mask=mask, global_attention_mask=global_mask, num_beams=4)
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.conditional_generation import GenerationMixin
from led_ref.classes.encoder import STATES, LEDEncoder, asked_for, those
from led_ref.classes.outputs import LEDEncoderBaseModelOutput, LEDSeq2SeqLMOutput, LEDSeq2SeqModelOutput
from led_ref.classes.pretrained import LEDPreTrainedModel
from led_ref.config import LEDConfig
from led_ref.costs.device_memory import device_errors
from led_ref.errors import InputError
from led_ref.model.decoder import decode, decoder_masks, source_memory
from led_ref.model.heads import IGNORED_LABEL, cross_entropy, lm_logits, shift_tokens_right
from led_ref.model.intermediates import SILENT, Tap, keep
from led_ref.model.kv_cache import FIRST_ROOM, DecoderCache
from led_ref.model.ops import embed_tokens
from led_ref.model.params import LEDParams


class LEDModel(LEDPreTrainedModel):
    """Encoder and decoder without a head: documents and target tokens in, the decoder's states out."""

    @property
    def encoder(self) -> LEDEncoder:
        """The encoder by itself."""
        return LEDEncoder(self.config, self.params, self.backend)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        global_attention_mask: Any = None,
        past_key_values: DecoderCache | None = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        *,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        tap: Tap = SILENT,
    ) -> LEDSeq2SeqModelOutput:
        """Run encoder and decoder once.

        Args:
            input_ids: (B, T) ids of the documents; or `inputs_embeds`, or `encoder_outputs`.
            attention_mask: (B, T), 1 for tokens, 0 for padding; None: all are tokens.
            decoder_input_ids: (N, U) ids of the targets, each row beginning with decoder_start_token_id; N = B, or W * B
                for W rows a document (adjacent). Never derived from input_ids. Or `decoder_inputs_embeds`.
            decoder_attention_mask: (N, U so far), 1 for tokens, 0 for padding; None: all are tokens.
            encoder_outputs: what `model.encoder(...)` returned (or a tuple that begins with the states).
            global_attention_mask: (B, T), 1 for global tokens; None: none.
            past_key_values: the cache that an earlier call returned: the targets given now come after those it covers.
                It holds all that is needed of the document, so that input_ids and encoder_outputs can be left out.
            inputs_embeds: (B, T, D) in place of the documents' embeddings.
            decoder_inputs_embeds: (N, U, D) in place of the targets' embeddings.
            use_cache: whether the cache is returned; None: as config.use_cache says.
            output_attentions: also return all attention probabilities.
            output_hidden_states: also return every layer's states.
            tap: listens to the named intermediates (model/tap.py).

        Raises:
            InputError: for anything that does not fit the model or each other; see inputs.py.
        """
        encoded, mask_BT = self._source(
            input_ids,
            attention_mask,
            global_attention_mask,
            encoder_outputs,
            past_key_values,
            inputs_embeds,
            {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states, "tap": tap},
        )
        use_cache = self.config.use_cache if use_cache is None else use_cache
        kept: dict[str, Array] = {}
        listener = keep(asked_for(output_attentions, output_hidden_states), kept, tap).at("led.decoder")
        embeds_NUD = self._target(decoder_input_ids, decoder_inputs_embeds, listener)
        rows, new, _ = embeds_NUD.shape
        cache = past_key_values or self.source_memory(encoded, rows, listener)
        inputs.check_target_length(cache.length, new, self.config)
        inputs.check_rows(rows, cache, encoded)
        target_mask = None
        if decoder_attention_mask is not None:
            shape = (rows, cache.length + new)
            target_mask = inputs.checked_mask("decoder_attention_mask", decoder_attention_mask, shape)
            listener("attention_mask", target_mask)
        masks = decoder_masks(new, cache, target_mask, mask_BT, self.backend)
        listener("embed_tokens.output", embeds_NUD)
        with device_errors(self.backend):
            last_NUD, cache = decode(embeds_NUD, cache, self.params.decoder, self.config, masks, self.backend, listener)
        return LEDSeq2SeqModelOutput(
            last_hidden_state=last_NUD,
            past_key_values=cache if use_cache else None,
            decoder_hidden_states=those(kept, STATES) if output_hidden_states else None,
            decoder_attentions=those(kept, "self_attn.probs") if output_attentions else None,
            cross_attentions=those(kept, "encoder_attn.probs") if output_attentions else None,
            encoder_last_hidden_state=encoded.last_hidden_state if encoded else None,
            encoder_hidden_states=encoded.hidden_states if encoded else None,
            encoder_attentions=encoded.attentions if encoded else None,
            encoder_global_attentions=encoded.global_attentions if encoded else None,
        )

    __call__ = forward

    def source_memory(
        self,
        encoded: LEDEncoderBaseModelOutput | None,
        rows: int,
        tap: Tap = SILENT,
        *,
        folded: bool = False,
        room: int = FIRST_ROOM,
    ) -> DecoderCache:
        """The cache before the first target token: the document's keys and values, made once, and nothing written.

        Args:
            encoded: what `model.encoder(...)` returned.
            rows: N, how many texts will be written.
            tap: listens at `led.decoder`.
            folded: keep the document's states alone: cross-attention then works without keys and values.
            room: for how many entries, positions of a document's texts together, memory is taken at once.
        """
        if encoded is None:
            raise InputError("There is no document: pass input_ids, inputs_embeds, encoder_outputs or past_key_values.")
        heads = self.config.decoder_attention_heads
        states_BTD = encoded.last_hidden_state
        if isinstance(states_BTD, np.ndarray):  # handed in from the host, whichever machine it was that made them
            states_BTD = self.backend.to_device(states_BTD)
        return source_memory(states_BTD, self.params.decoder, heads, rows, self.backend, tap, folded=folded, room=room)

    def _source(
        self,
        input_ids: Any,
        attention_mask: Any,
        global_attention_mask: Any,
        encoder_outputs: Any,
        past_key_values: DecoderCache | None,
        inputs_embeds: Any,
        options: dict[str, Any],
    ) -> tuple[LEDEncoderBaseModelOutput | None, HostArray | None]:
        """The encoder's output (None: the cache has all that is needed of it) and the checked attention mask."""
        choices = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "encoder_outputs": encoder_outputs}
        if past_key_values is not None and all(value is None for value in choices.values()):
            encoded, shape = None, past_key_values.source_shape
        else:
            given = inputs.exactly_one(choices, "encoder_outputs is what model.encoder(...) returned.")
            if given == "encoder_outputs":
                encoded = inputs.checked_encoder_outputs(encoder_outputs, self.config)
            else:
                encoded = self.encoder(input_ids, attention_mask, global_attention_mask, inputs_embeds, **options)
            batch, length = encoded.last_hidden_state.shape[:2]
            shape = (batch, length)
        if attention_mask is None:
            return encoded, None
        return encoded, inputs.checked_mask("attention_mask", attention_mask, shape)

    def _target(self, decoder_input_ids: Any, decoder_inputs_embeds: Any, tap: Tap) -> Array:
        """The embeddings of the target tokens, (N, U, D)."""
        given = inputs.exactly_one(
            {"decoder_input_ids": decoder_input_ids, "decoder_inputs_embeds": decoder_inputs_embeds},
            "They are never derived from input_ids; each row begins with decoder_start_token_id "
            f"({self.config.decoder_start_token_id}).",
        )
        if given == "decoder_inputs_embeds":
            embeds = inputs.checked_embeds("decoder_inputs_embeds", decoder_inputs_embeds, self.config, self.dtype)
            return self.backend.to_device(embeds)
        ids_NU = inputs.checked_ids("decoder_input_ids", decoder_input_ids, self.config.vocab_size)
        inputs.check_target_length(0, ids_NU.shape[1], self.config)
        tap("input_ids", ids_NU)
        return embed_tokens(ids_NU, self.params.shared, self.backend)


class LEDForConditionalGeneration(GenerationMixin, LEDPreTrainedModel):
    """LED with its language-model head: the class that writes.

    `self.led` is the LEDModel inside, as in the checkpoint's keys.
    """

    architecture = "LEDForConditionalGeneration"

    def __init__(
        self,
        config: LEDConfig,
        params: LEDParams,
        *,
        backend: str | Backend | None = None,
        generation_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, params, backend=backend, generation_config=generation_config)
        self.led = LEDModel(config, params, backend=self.backend)

    @property
    def encoder(self) -> LEDEncoder:
        """The encoder by itself."""
        return self.led.encoder

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        global_attention_mask: Any = None,
        past_key_values: DecoderCache | None = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        labels: Any = None,
        *,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        tap: Tap = SILENT,
    ) -> LEDSeq2SeqLMOutput:
        """Run encoder, decoder and head once; the arguments are LEDModel.forward's, and one more.

        Args:
            input_ids: see LEDModel.forward, as for all that is not named here.
            attention_mask: see there.
            decoder_input_ids: see there; with labels it may be left out: `[start] + labels[:-1]` is used then.
            decoder_attention_mask: see there.
            encoder_outputs: see there.
            global_attention_mask: see there.
            past_key_values: see there.
            inputs_embeds: see there.
            decoder_inputs_embeds: see there.
            labels: (N, U) ids that should be written, -100 where it does not matter; the loss is returned then.
            use_cache: see there; None with labels is False: nobody goes on from texts that are known.
            output_attentions: see there.
            output_hidden_states: see there.
            tap: see there.

        Raises:
            InputError: for anything that does not fit the model or each other.
        """
        labels_NU = None
        if labels is not None:
            use_cache = bool(use_cache)
            labels_NU = inputs.checked_ids("labels", labels, self.config.vocab_size, also_allowed=IGNORED_LABEL)
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels_NU)
        out = self.led(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            global_attention_mask,
            past_key_values,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            tap=tap,
        )
        logits_NUV = lm_logits(out.last_hidden_state, self.params, self.backend)
        tap("logits", logits_NUV)
        loss = None
        if labels_NU is not None:
            inputs.check_labels_shape(labels_NU, logits_NUV.shape[:2])
            loss = cross_entropy(logits_NUV, labels_NU, self.backend)
            tap("loss", loss)
        rest = {f.name: getattr(out, f.name) for f in fields(out) if f.name != "last_hidden_state"}
        return LEDSeq2SeqLMOutput(loss=loss, logits=logits_NUV, **rest)

    __call__ = forward

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> HostArray:
        """`[decoder_start_token_id] + labels[:-1]`, with -100 become pad: what the decoder reads to be taught the labels."""
        labels_NU = inputs.checked_ids("labels", labels, self.config.vocab_size, also_allowed=IGNORED_LABEL)
        pad = self.config.pad_token_id
        if pad is None:
            raise InputError(
                "config.json names no pad_token_id, so labels of -100 have no input id; pass decoder_input_ids."
            )
        return shift_tokens_right(labels_NU, self.config.decoder_start_token_id, pad)
