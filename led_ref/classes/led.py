"""LEDEncoder and LEDModel: the network of one configuration, weights and backend, without a head.

Both validate their inputs (input_checks.py), call the pure functions of model/, and name the results as transformers does.
No call changes them: a model can be shared between threads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from led_backends.contract import Array, Backend, HostArray
from led_ref.classes import input_checks as inputs
from led_ref.classes.outputs import LEDEncoderBaseModelOutput, LEDSeq2SeqModelOutput
from led_ref.classes.pretrained import LEDPreTrainedModel, check_free_memory, device_errors
from led_ref.config import LEDConfig
from led_ref.errors import InputError
from led_ref.model.brief_repr import BriefRepr
from led_ref.model.decoder import decode, decoder_masks, source_memory
from led_ref.model.encoder import encode
from led_ref.model.hooks import recording_decoder, recording_encoder
from led_ref.model.intermediates import Recorder, keep
from led_ref.model.kv_cache import CachePlan, DecoderCache
from led_ref.model.masks import document_masks, encoder_masks
from led_ref.model.ops import embed_tokens
from led_ref.model.params import LEDParams

# Called during a long call with (stage: "read" or "write", steps done, steps in all).
Progress = Callable[[str, int, int], None]

# Which intermediates (model/intermediates.py) are the hidden states and the attention maps of the outputs.
STATES = ("layernorm_embedding.output", "final_layer_norm.output")
PROBABILITIES = (".probs", ".global_probs")


@dataclass(frozen=True, repr=False)
class LEDEncoder(BriefRepr):
    """The encoder by itself: `model.encoder(input_ids, ...)`. `forward` and `generate` take its output."""

    config: LEDConfig
    params: LEDParams
    backend: Backend

    @inputs.check_types
    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        global_attention_mask: Any = None,
        inputs_embeds: Any = None,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        recorder: Recorder | None = None,
        progress: Progress | None = None,
    ) -> LEDEncoderBaseModelOutput:
        """Read documents of up to max_encoder_position_embeddings tokens.

        Args:
            input_ids: (B, T) ids; or else `inputs_embeds`.
            attention_mask: (B, T), the padding mask: 1 for tokens, 0 for padding; None: all are tokens (no id is pad then).
            global_attention_mask: (B, T), 1 for global tokens, which attend to all tokens, and all to them; None: none.
            inputs_embeds: (B, T, D) in place of the ids' embeddings.
            output_attentions: also return each layer's attention maps.
            output_hidden_states: also return the embeddings' and each layer's output.
            recorder: receives the named intermediates (model/intermediates.py).
            progress: called after each layer.

        Raises:
            InputError: for inputs that do not fit the model or each other.
        """
        given = inputs.exactly_one(
            {"input_ids": input_ids, "inputs_embeds": inputs_embeds}, "They are two forms of the same."
        )
        if given == "input_ids":
            ids_BT = inputs.checked_ids("input_ids", input_ids, self.config.vocab_size)
            if attention_mask is None:
                inputs.refuse_unmasked_padding(ids_BT, self.config.pad_token_id)
            shape = ids_BT.shape
        else:
            host_BTD = inputs.checked_embeds("inputs_embeds", inputs_embeds, self.config, self.params.shared.dtype.name)
            shape = host_BTD.shape[:2]
        inputs.check_source_length(shape[1], self.config)
        dtype = self.params.shared.dtype.name
        check_free_memory(self.backend, self.config, tokens=shape[1], batch=shape[0], new_tokens=0, dtype=dtype)
        mask_BT = np.ones(shape, np.int64)
        if attention_mask is not None:
            mask_BT = inputs.checked_mask("attention_mask", attention_mask, shape)
        global_BT = None
        if global_attention_mask is not None:
            global_BT = inputs.checked_mask("global_attention_mask", global_attention_mask, shape, padding=-1)
        masks = encoder_masks(document_masks(mask_BT, global_BT), self.config.radii, self.backend)

        heads, backend, kept = self.config.encoder_attention_heads, self.backend, dict[str, Array]()
        if recorder is not None or output_attentions or output_hidden_states:
            recorder = keep(wanted_outputs(output_attentions, output_hidden_states), kept, recorder).at("led.encoder")
            backend = recording_encoder(backend, self.params.encoder, heads, recorder, masks)
        if given == "input_ids":
            embeds_BTD = embed_tokens(ids_BT, self.params.shared, self.backend)
        else:
            embeds_BTD = self.backend.to_device(host_BTD)
        if recorder is not None:
            recorder("attention_mask", mask_BT)
            if global_BT is not None:
                recorder("global_attention_mask", global_BT)
            if given == "input_ids":
                recorder("input_ids", ids_BT)
            recorder("embed_tokens.output", embeds_BTD)
        of_layer = None if progress is None else lambda done, total: progress("read", done, total)
        with device_errors(self.backend):
            last_BTD = encode(embeds_BTD, self.params.encoder, heads, masks, backend, of_layer)
        return LEDEncoderBaseModelOutput(
            last_hidden_state=last_BTD,
            hidden_states=of_layers(kept, STATES) if output_hidden_states else None,
            attentions=of_layers(kept, ".probs") if output_attentions else None,
            global_attentions=of_layers(kept, ".global_probs") or None,
        )


class LEDModel(LEDPreTrainedModel):
    """Encoder and decoder without a head: documents and target tokens in, the decoder's states out."""

    @property
    def encoder(self) -> LEDEncoder:
        """The encoder by itself."""
        return LEDEncoder(self.config, self.params, self.backend)

    @inputs.check_types
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
        recorder: Recorder | None = None,
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
            recorder: receives the named intermediates (model/intermediates.py).

        Raises:
            InputError: for anything that does not fit the model or each other; see input_checks.py.
        """
        source = (input_ids, attention_mask, global_attention_mask, encoder_outputs, past_key_values, inputs_embeds)
        shown = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        encoded, mask_BT = self._source(*source, {**shown, "recorder": recorder})
        use_cache = self.config.use_cache if use_cache is None else use_cache
        kept: dict[str, Array] = {}
        if recorder is not None or any(shown.values()):
            recorder = keep(wanted_outputs(**shown), kept, recorder).at("led.decoder")
        embeds_NUD = self._target(decoder_input_ids, decoder_inputs_embeds, recorder)
        rows, new, _ = embeds_NUD.shape
        cache = past_key_values or self.source_memory(encoded, CachePlan(rows), recorder)
        inputs.check_target_length(cache.length, new, self.config)
        inputs.check_rows(rows, cache, encoded)
        target_mask = None
        if decoder_attention_mask is not None:
            shape = (rows, cache.length + new)
            target_mask = inputs.checked_mask("decoder_attention_mask", decoder_attention_mask, shape)
        masks = decoder_masks(new, cache, target_mask, mask_BT, self.backend)
        params, heads, backend = self.params.decoder, self.config.decoder_attention_heads, self.backend
        if recorder is not None:
            if target_mask is not None:
                recorder("attention_mask", target_mask)
            recorder("embed_tokens.output", embeds_NUD)
            backend = recording_decoder(backend, params, heads, recorder, (cache, masks))
        with device_errors(self.backend):
            last_NUD, cache = decode(embeds_NUD, cache, params, self.config, masks, backend)
        return LEDSeq2SeqModelOutput(
            last_hidden_state=last_NUD,
            past_key_values=cache if use_cache else None,
            decoder_hidden_states=of_layers(kept, STATES) if output_hidden_states else None,
            decoder_attentions=of_layers(kept, "self_attn.probs") if output_attentions else None,
            cross_attentions=of_layers(kept, "encoder_attn.probs") if output_attentions else None,
            encoder_last_hidden_state=encoded.last_hidden_state if encoded else None,
            encoder_hidden_states=encoded.hidden_states if encoded else None,
            encoder_attentions=encoded.attentions if encoded else None,
            encoder_global_attentions=encoded.global_attentions if encoded else None,
        )

    __call__ = forward

    def source_memory(
        self, encoded: LEDEncoderBaseModelOutput | None, plan: CachePlan, recorder: Recorder | None = None
    ) -> DecoderCache:
        """The KV cache before the first target token: the document's keys and values, computed once.

        Args:
            encoded: the output of `model.encoder(...)`.
            plan: rows, capacity, and whether cross-attention is folded: then the document's states alone are kept.
            recorder: at `led.decoder`.
        """
        if encoded is None:
            raise InputError("There is no document: pass input_ids, inputs_embeds, encoder_outputs or past_key_values.")
        heads, params = self.config.decoder_attention_heads, self.params.decoder
        states_BTD = encoded.last_hidden_state
        if isinstance(states_BTD, np.ndarray):  # from the host, whichever machine computed them
            states_BTD = self.backend.to_device(states_BTD)
        if recorder is None:
            return source_memory(states_BTD, params, heads, plan, self.backend)
        hooked = recording_decoder(self.backend, params, heads, recorder)
        memory = source_memory(states_BTD, params, heads, replace(plan, folded=False), hooked)
        return source_memory(states_BTD, params, heads, plan, self.backend) if plan.folded else memory

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
        is_read = encoder_outputs is not None or past_key_values is not None
        if global_attention_mask is not None and is_read and input_ids is None and inputs_embeds is None:
            raise late_global_mask("encoder_outputs or past_key_values")
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

    def _target(self, decoder_input_ids: Any, decoder_inputs_embeds: Any, recorder: Recorder | None) -> Array:
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
        if recorder is not None:
            recorder("input_ids", ids_NU)
        return embed_tokens(ids_NU, self.params.shared, self.backend)


class LEDWithHead(LEDPreTrainedModel):
    """The base class of the classes with a head: `self.led` is the LEDModel inside, as in the checkpoint's keys."""

    def __init__(
        self, config: LEDConfig, params: LEDParams, *, backend: str | Backend | None = None, **kept: Any
    ) -> None:
        super().__init__(config, params, backend=backend, **kept)
        self.led = LEDModel(config, params, backend=self.backend)

    @property
    def encoder(self) -> LEDEncoder:
        """The encoder by itself."""
        return self.led.encoder


def late_global_mask(beside: str) -> InputError:
    """The error for a global mask beside what the encoder has given already."""
    return InputError(f"global_attention_mask acts in the encoder; with {beside} it would be ignored. Leave it out.")


def wanted_outputs(output_attentions: bool, output_hidden_states: bool) -> tuple[str, ...]:
    """The ends of the names of the intermediates that a call returns."""
    return (PROBABILITIES if output_attentions else ()) + (STATES if output_hidden_states else ())


def of_layers(kept: dict[str, Array], suffixes: str | tuple[str, ...]) -> tuple[Array, ...]:
    """The intermediates whose names end so, layer after layer."""
    return tuple(value for name, value in kept.items() if name.endswith(suffixes))
