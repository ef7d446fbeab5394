"""The loss of a batch and the gradient of every parameter.

Forward, only the input of each layer is kept (gradient checkpointing). Backward, layer after layer from the last one, each
is computed again from its input, and its gradients are handed on at once, by checkpoint key, to `collect`. With
`keep_activations` each layer's intermediates are held in place of being computed again: the same bits, faster, in more memory.

    accumulate_gradients(model, batch, collect)    collect("led.decoder.layers.5.fc2.bias", array), ...: add them up
    loss_and_gradients(model, batch)               adds them up itself: (loss, LEDParams of gradients)

Documents are computed one at a time, in their order, each without its padding. So a batch has, bit for bit, the sum of the
gradients that its documents have by themselves, and the memory of its longest document. `documents_at_once` computes several
together, which is faster where they are short; sums are then of another order.

The tied embedding table has three uses, and the gradients of all are in one array: of the output projection first, then of
the decoder's look-ups, then of the encoder's.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from led_backends.compact import CompactWeight
from led_backends.contract import Array, Backend, HostArray
from led_ref.classes.pretrained import device_errors
from led_ref.config import LEDConfig
from led_ref.errors import InputError
from led_ref.model.decoder import (
    DecoderLayerForward,
    TeacherForcing,
    decoder_layer_backward,
    teacher_forced_layer,
    teacher_forced_layer_kept,
    teacher_forcing,
)
from led_ref.model.dropout import NO_DROPOUT, Dropout
from led_ref.model.encoder import (
    EncoderLayerForward,
    LayerSeeing,
    encoder_layer_backward,
    encoder_layer_kept,
    encoder_layer_with_dropout,
)
from led_ref.model.masks import EncoderMasks, document_masks, encoder_masks
from led_ref.model.ops import add_positions, add_positions_backward, embed_tokens, embed_tokens_backward
from led_ref.model.params import DecoderParams, EncoderParams, LEDParams
from led_ref.training.batch import Batch, Trainable, checked_batch
from led_ref.training.targets import LossSum, Scale, Words, check_counts
from led_ref.weights.keys import LM_HEAD, SHARED, arrays_by_key, assemble, entries, heads_of

# Without a global token these are not used. So they have no gradient, and an optimizer leaves them as they are: zeros would
# count as a step, in which a weight decays and goes on by its momentum.
GLOBAL_MAPS = ("query_global", "key_global", "value_global")

# Called with the checkpoint key of a parameter and a part of its gradient, which it may keep: parts add up.
Collect = Callable[[str, Array], None]


@dataclass(frozen=True)
class GradientOptions:
    """How the gradients of a batch are computed.

    Args:
        dropout: of this step; its documents are numbered as the batch's.
        label_smoothing: e, in 0 <= e < 1, for words: a share of the loss that is the mean over the whole vocabulary.
        divide_by: by what the sums of losses are divided; None: the number of labels of this batch, so that the loss is their
            mean. For a part of a step give the counts of all its parts (LossSum.counts, added up).
        loss_scale: gradients come out multiplied by it; so small ones do not become 0 in float16 (loss_scale.py).
        documents_at_once: how many documents are computed together.
        keep_activations: hold what each layer computes until its backward pass, in place of computing it again. (Attention
            probabilities are computed again either way.)
        needs: which parameters are trained, by checkpoint key. What lies below all of them is not computed.
    """

    dropout: Dropout = NO_DROPOUT
    label_smoothing: float = 0.0
    divide_by: Sequence[float] | None = None
    loss_scale: float = 1.0
    documents_at_once: int = 1
    keep_activations: bool = False
    needs: Callable[[str], bool] = lambda key: True


def loss_and_gradients(
    model: Trainable, batch: Mapping[str, Any], options: GradientOptions | None = None
) -> tuple[LossSum, LEDParams]:
    """The loss of a batch, and its gradients as a second LEDParams; zeros for what has none.

    Args:
        model: of one of the three classes with a head.
        batch: arguments of its `forward` (batch.py).
        options: dropout, label smoothing and others.

    Example:
        >>> import led_ref
        >>> from led_ref.training import loss_and_gradients
        >>> model = led_ref.load().model
        >>> loss, gradients = loss_and_gradients(model, {"input_ids": [[0, 9, 2]], "labels": [[0, 7, 8, 2]]})
        >>> loss.counts, gradients.decoder.layers[0].fc2.bias.shape
        ((4,), (192,))
    """
    summed: dict[str, Array] = {}

    def add(key: str, gradient: Array) -> None:
        if key in summed:
            summed[key] += gradient
        else:
            summed[key] = gradient

    loss = accumulate_gradients(model, batch, add, options)
    is_tied = model.params.lm_head is model.params.shared
    arrays = {}
    for entry in entries(model.config, heads_of(model.architecture)):
        key = SHARED if is_tied and entry.key == LM_HEAD else entry.key
        if key not in summed:
            summed[key] = model.backend.xp.zeros(entry.shape, dtype=model.dtype)
        arrays[entry.field] = summed[key]
    return loss, assemble(arrays, model.config)


def accumulate_gradients(
    model: Trainable, batch: Mapping[str, Any], collect: Collect, options: GradientOptions | None = None
) -> LossSum:
    """Compute the gradients of a batch and hand them on as they are made.

    Args:
        model: of one of the three classes with a head.
        batch: arguments of its `forward` (batch.py).
        collect: called for every part of a gradient with the checkpoint key and the array, which is no longer used here. A
            parameter has a part for each document, and is to have their sum.
        options: dropout, label smoothing and others.

    Returns:
        The sums of the losses and the numbers of labels.

    Raises:
        InputError: for a batch that does not fit the model, without labels, or a model that cannot be trained.
    """
    options = options or GradientOptions()
    whole = checked_batch(model, batch)
    _check(model, whole, options)
    counts = whole.target.counts
    divide_by = tuple(counts if options.divide_by is None else options.divide_by)
    check_counts(divide_by)
    scale = Scale(tuple(count / options.loss_scale for count in divide_by), options.label_smoothing)
    keys = {entry.field: entry.key for entry in entries(model.config, heads_of(model.architecture))}
    lowest = {
        stack: _lowest_trained(stack, len(getattr(model.params, stack).layers), keys, options.needs)
        for stack in ("encoder", "decoder")
    }
    run = _Run(model.params, model.config, model.backend, options, collect, keys, lowest)
    loss = LossSum((model.backend.xp.zeros((), dtype="float64"),) * len(counts), counts)
    with device_errors(model.backend):
        for documents, dropout in _groups(len(whole), options):
            part = whole.of(documents)
            if part.decoder_ids_BU.shape[1]:  # else no label of it counts
                loss += LossSum(run.backward(part, scale, dropout), (0,) * len(counts))
    return loss


def _groups(count: int, options: GradientOptions) -> Iterator[tuple[slice, Dropout]]:
    """The documents that are computed together, and their dropout."""
    for start in range(0, count, options.documents_at_once):
        documents = slice(start, min(start + options.documents_at_once, count))
        yield documents, options.dropout.of(documents)


def _check(model: Trainable, batch: Batch, options: GradientOptions) -> None:
    if not 0 <= options.label_smoothing < 1:
        raise InputError(f"label_smoothing is {options.label_smoothing!r}; give a number from 0 to below 1.")
    if options.label_smoothing and not isinstance(batch.target, Words):
        raise InputError(f"label_smoothing is for words; {type(model).__name__} has none. Leave it at 0.")
    if options.documents_at_once < 1:
        raise InputError(f"documents_at_once is {options.documents_at_once}; give at least 1.")
    if not (math.isfinite(options.loss_scale) and options.loss_scale > 0):
        raise InputError(f"loss_scale is {options.loss_scale!r}; give a finite number above 0, such as 65536.")
    for key, weight in arrays_by_key(model.params, model.config, heads_of(model.architecture)).items():
        if isinstance(weight, CompactWeight):
            raise InputError(
                f"{key} is kept quantized or in its stored type, and has no gradient. Load the model without quantize and "
                "without keep_stored."
            )


def _lowest_trained(stack: str, layers: int, keys: Mapping[str, str], needs: Callable[[str], bool]) -> int:
    """The lowest layer of a stack with a trained parameter; -1: its embeddings; the number of layers: none."""
    trained = [field for field, key in keys.items() if field.startswith(f"{stack}.") and needs(key)]
    numbers = [int(field.split(".")[2]) for field in trained if ".layers." in field]
    if needs(SHARED) or len(numbers) < len(trained):
        return -1
    return min(numbers, default=layers)


# ---- one group of documents ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What all groups of documents share."""

    params: LEDParams
    config: LEDConfig
    backend: Backend
    options: GradientOptions
    collect: Collect
    keys: Mapping[str, str]  # the checkpoint key of each field of LEDParams, by path
    lowest: Mapping[str, int]  # of "encoder" and "decoder", the lowest layer that is trained (_lowest_trained)

    def backward(self, batch: Batch, scale: Scale, dropout: Dropout) -> tuple[Array, ...]:
        """The sums of the losses of these documents; their gradients go to `collect`."""
        masks = encoder_masks(
            document_masks(batch.attention_mask_BT, batch.global_attention_mask_BT), self.config.radii, self.backend
        )
        x_BTD, encoder_inputs = self._encode(batch, masks, dropout)
        heads, target_length = self.config.decoder_attention_heads, batch.decoder_ids_BU.shape[1]
        given = teacher_forcing(x_BTD, batch.attention_mask_BT, target_length, heads, self.backend)
        x_BUD, decoder_inputs = self._decode(batch, given, dropout)

        head = batch.target.backward(x_BUD, self.params, scale, dropout, self.backend)
        dshared_VD = self._head_gradients(head.gradients)
        dx_BUD, dstates_BTD = self._decoder_backward(head.dx_BUD, decoder_inputs, given, dropout)
        del x_BTD, given  # the encoder's states: nobody reads them any more
        if self.lowest["decoder"] < 0:
            self._embed_backward(dx_BUD, batch.decoder_ids_BU, "decoder", dshared_VD, dropout)
        if dstates_BTD is not None:
            dx_BTD = self._encoder_backward(dstates_BTD, encoder_inputs, masks, dropout)
            if self.lowest["encoder"] < 0:
                self._embed_backward(dx_BTD, batch.ids_BT, "encoder", dshared_VD, dropout)
        if dshared_VD is not None:
            self.collect(SHARED, dshared_VD)
        return head.sums

    # ---- forward: the inputs of the layers that backward comes to are kept, or all that they computed ----

    def _encode(
        self, batch: Batch, masks: Sequence[EncoderMasks], dropout: Dropout
    ) -> tuple[Array, dict[int, Array | EncoderLayerForward]]:
        heads, lowest = self.config.encoder_attention_heads, self.lowest["encoder"]
        inputs: dict[int, Array | EncoderLayerForward] = {}
        x_BTD = self._embed(batch.ids_BT, "encoder", dropout)
        for i, (layer, masks_of_layer) in enumerate(zip(self.params.encoder.layers, masks, strict=True)):
            if dropout.skips("encoder", i):
                continue
            seeing = LayerSeeing(heads, masks_of_layer, dropout.at(f"led.encoder.layers.{i}"))
            if i >= lowest and self.options.keep_activations:
                x_BTD, inputs[i] = encoder_layer_kept(x_BTD, layer, seeing, self.backend)
                continue
            if i >= lowest:
                inputs[i] = x_BTD
            x_BTD = encoder_layer_with_dropout(x_BTD, layer, seeing, self.backend)
        return x_BTD, inputs

    def _decode(
        self, batch: Batch, given: TeacherForcing, dropout: Dropout
    ) -> tuple[Array, dict[int, Array | DecoderLayerForward]]:
        lowest, inputs = self.lowest["decoder"], dict[int, Array | DecoderLayerForward]()
        if self.lowest["encoder"] < len(self.params.encoder.layers):
            lowest = 0  # every layer hands gradients on to the encoder
        x_BUD = self._embed(batch.decoder_ids_BU, "decoder", dropout)
        for i, layer in enumerate(self.params.decoder.layers):
            if dropout.skips("decoder", i):
                continue
            at_layer = dropout.at(f"led.decoder.layers.{i}")
            if i >= lowest and self.options.keep_activations:
                x_BUD, inputs[i] = teacher_forced_layer_kept(x_BUD, layer, given, at_layer, self.backend)
                continue
            if i >= lowest:
                inputs[i] = x_BUD
            x_BUD = teacher_forced_layer(x_BUD, layer, given, at_layer, self.backend)
        return x_BUD, inputs

    def _embed(self, ids_BT: HostArray, stack: str, dropout: Dropout) -> Array:
        side: EncoderParams | DecoderParams = getattr(self.params, stack)
        embeds_BTD = embed_tokens(ids_BT, self.params.shared, self.backend)
        x_BTD = add_positions(embeds_BTD, side.embed_positions, side.layernorm_embedding, self.backend)
        return dropout.hidden(f"led.{stack}.layernorm_embedding").drop(x_BTD, self.backend)

    # ---- backward: the last layer first; an input is freed when its layer is done ----

    def _head_gradients(self, gradients: Mapping[str, Array]) -> Array | None:
        """Hands on the head's gradients. The tied table's is the beginning of the embedding's, (V, D)."""
        dshared_VD = None
        for key, gradient in gradients.items():
            if key == LM_HEAD and self.params.lm_head is self.params.shared:
                dshared_VD = gradient
            elif self.options.needs(key):
                self.collect(key, gradient)
        if not self.options.needs(SHARED):
            return None
        if dshared_VD is None:
            table = self.params.shared
            dshared_VD = self.backend.xp.zeros(table.shape, dtype=table.dtype)
        return dshared_VD

    def _decoder_backward(
        self, dx_BUD: Array, inputs: dict[int, Array | DecoderLayerForward], given: TeacherForcing, dropout: Dropout
    ) -> tuple[Array, Array | None]:
        """The gradients of the embeddings, and of the encoder's states (None: no layer reads them, or none is trained)."""
        dstates_BTD: Array | None = None
        is_read = self.lowest["encoder"] < len(self.params.encoder.layers)
        for i in reversed(list(inputs)):
            layer, at_layer = self.params.decoder.layers[i], dropout.at(f"led.decoder.layers.{i}")
            dx_BUD, dread_BTD, gradients = decoder_layer_backward(
                dx_BUD, inputs.pop(i), layer, given, at_layer, self.backend
            )
            if is_read:
                dstates_BTD = dread_BTD if dstates_BTD is None else dstates_BTD + dread_BTD
            self._hand_on(f"decoder.layers.{i}", gradients)
        return dx_BUD, dstates_BTD

    def _encoder_backward(
        self,
        dx_BTD: Array,
        inputs: dict[int, Array | EncoderLayerForward],
        masks: Sequence[EncoderMasks],
        dropout: Dropout,
    ) -> Array:
        """The gradient of the embeddings, or of the input of the lowest layer that is trained."""
        heads = self.config.encoder_attention_heads
        for i in reversed(list(inputs)):
            seeing = LayerSeeing(heads, masks[i], dropout.at(f"led.encoder.layers.{i}"))
            layer = self.params.encoder.layers[i]
            dx_BTD, gradients = encoder_layer_backward(dx_BTD, inputs.pop(i), layer, seeing, self.backend)
            is_global = any(len(mask.global_positions_G) for mask in masks[i].documents)
            self._hand_on(f"encoder.layers.{i}", gradients, left_out=() if is_global else GLOBAL_MAPS)
        return dx_BTD

    def _embed_backward(
        self, dx_BTD: Array, ids_BT: HostArray, stack: str, dshared_VD: Array | None, dropout: Dropout
    ) -> None:
        """Hands on the gradients of a stack's positions and norm, and adds those of its look-ups to the table's."""
        side: EncoderParams | DecoderParams = getattr(self.params, stack)
        dx_BTD = dropout.hidden(f"led.{stack}.layernorm_embedding").drop(dx_BTD, self.backend)
        embeds_BTD = embed_tokens(ids_BT, self.params.shared, self.backend)
        dx_BTD, dpositions_TD, dnorm = add_positions_backward(
            dx_BTD, embeds_BTD, side.embed_positions, side.layernorm_embedding, self.backend
        )
        self._hand_on(f"{stack}.layernorm_embedding", dnorm)
        if self.options.needs(self.keys[f"{stack}.embed_positions"]):
            dpositions_PD = self.backend.xp.zeros(side.embed_positions.shape, dtype=dx_BTD.dtype)
            dpositions_PD[: len(dpositions_TD)] = dpositions_TD
            self.collect(self.keys[f"{stack}.embed_positions"], dpositions_PD)
        if dshared_VD is not None:
            embed_tokens_backward(dx_BTD, ids_BT, self.config.pad_token_id, dshared_VD, self.backend)

    # ---- of what is trained ----

    def _hand_on(self, path: str, gradients: Any, left_out: Sequence[str] = ()) -> None:
        """Hand on the arrays of a dataclass of gradients that are trained, but for some fields."""
        for field in (field for field in fields(gradients) if field.name not in left_out):
            value = getattr(gradients, field.name)
            if is_dataclass(value):
                self._hand_on(f"{path}.{field.name}", value)
            elif not isinstance(value, str) and self.options.needs(self.keys[f"{path}.{field.name}"]):
                self.collect(self.keys[f"{path}.{field.name}"], value)
