"""The encoder by itself, behind its checks: documents in, states out. What the classes of led.py read with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from led_backends.contract import Array, Backend
from led_ref.classes import input_checks as inputs
from led_ref.classes.outputs import LEDEncoderBaseModelOutput
from led_ref.config import LEDConfig
from led_ref.costs.device_memory import check_free_memory, device_errors
from led_ref.costs.operations import Workload
from led_ref.model.encoder import encode
from led_ref.model.intermediates import SILENT, Tap, keep
from led_ref.model.ops import embed_tokens
from led_ref.model.params import LEDParams

# Told how far a long call is: (what is done: "read" or "write", steps done, steps in all).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LEDEncoder:
    """The encoder by itself: `model.encoder(input_ids, ...)`. Its output can be handed to `forward` and `generate`."""

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
        tap: Tap = SILENT,
        progress: Progress | None = None,
    ) -> LEDEncoderBaseModelOutput:
        """Read documents of up to max_encoder_position_embeddings tokens.

        Args:
            input_ids: (B, T) ids; or else `inputs_embeds`.
            attention_mask: (B, T), 1 for tokens, 0 for padding; None: all are tokens (ids must hold no pad id then).
            global_attention_mask: (B, T), 1 for tokens that see all and are seen by all; None: none.
            inputs_embeds: (B, T, D) in place of the ids' embeddings.
            output_attentions: also return each layer's probabilities.
            output_hidden_states: also return the embeddings and each layer's output.
            tap: listens to the named intermediates (model/tap.py).
            progress: told after each layer.

        Raises:
            InputError: for anything that does not fit the model or each other.
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
        kept: dict[str, Array] = {}
        listener = keep(asked_for(output_attentions, output_hidden_states), kept, tap).at("led.encoder")
        listener("attention_mask", mask_BT)
        if global_BT is not None:
            listener("global_attention_mask", global_BT)
        if given == "input_ids":
            listener("input_ids", ids_BT)
            embeds_BTD = embed_tokens(ids_BT, self.params.shared, self.backend)
        else:
            embeds_BTD = self.backend.to_device(host_BTD)
        listener("embed_tokens.output", embeds_BTD)
        with device_errors(self.backend):
            last_BTD = encode(
                embeds_BTD,
                self.params.encoder,
                self.config,
                mask_BT,
                global_BT,
                self.backend,
                tap=listener,
                progress=None if progress is None else lambda done, total: progress("read", done, total),
            )
        return LEDEncoderBaseModelOutput(
            last_hidden_state=last_BTD,
            hidden_states=those(kept, STATES) if output_hidden_states else None,
            attentions=those(kept, ".probs") if output_attentions else None,
            global_attentions=those(kept, ".global_probs") or None,
        )


# Which intermediates (model/tap.py) are the hidden states and the attentions of the outputs.
STATES = ("layernorm_embedding.output", "final_layer_norm.output")
PROBABILITIES = (".probs", ".global_probs")


def asked_for(output_attentions: bool, output_hidden_states: bool) -> tuple[str, ...]:
    """The ends of the names to keep."""
    return (PROBABILITIES if output_attentions else ()) + (STATES if output_hidden_states else ())


def those(kept: dict[str, Array], suffixes: str | tuple[str, ...]) -> tuple[Array, ...]:
    """What was kept under names that end so, layer after layer."""
    return tuple(value for name, value in kept.items() if name.endswith(suffixes))
