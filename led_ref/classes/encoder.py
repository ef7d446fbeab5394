"""LEDEncoder: input validation, then the encoder (model/encoder.py). Documents in, states out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from led_backends.contract import Array, Backend
from led_ref.classes import input_checks as inputs
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.config import LEDConfig
from led_ref.costs.memory import check_free_memory, device_errors
from led_ref.costs.operations import Workload
from led_ref.model.encoder import encode
from led_ref.model.hooks import recording_encoder
from led_ref.model.intermediates import Recorder, keep
from led_ref.model.masks import document_masks, encoder_masks
from led_ref.model.ops import embed_tokens
from led_ref.model.params import LEDParams

# Called during a long call with (stage: "read" or "write", steps done, steps in all).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LEDEncoder:
    """The encoder by itself: `model.encoder(input_ids, ...)`. `forward` and `generate` take its output."""

    config: LEDConfig
    params: LEDParams
    backend: Backend

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
        load = Workload(tokens=shape[1], batch=shape[0], new_tokens=0, dtype=self.params.shared.dtype.name)
        check_free_memory(self.backend, self.config, load)
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


# Which intermediates (model/intermediates.py) are the hidden states and the attention maps of the outputs.
STATES = ("layernorm_embedding.output", "final_layer_norm.output")
PROBABILITIES = (".probs", ".global_probs")


def wanted_outputs(output_attentions: bool, output_hidden_states: bool) -> tuple[str, ...]:
    """The ends of the names of the intermediates that a call returns."""
    return (PROBABILITIES if output_attentions else ()) + (STATES if output_hidden_states else ())


def of_layers(kept: dict[str, Array], suffixes: str | tuple[str, ...]) -> tuple[Array, ...]:
    """The intermediates whose names end so, layer after layer."""
    return tuple(value for name, value in kept.items() if name.endswith(suffixes))
