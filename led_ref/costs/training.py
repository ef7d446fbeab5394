"""What a step of training takes, computed from the sizes alone: memory at its peak, and operations.

    training_plan(config, load, "adamw").peak

led-base, a document of 16,384 tokens and a target of 512, and what two optimizers remember:

    >>> from led_ref.costs.operations import LED_BASE
    >>> load = Workload(tokens=16384, new_tokens=512, tiles_at_once=2)
    >>> for optimizer in OPTIMIZERS:
    ...     print(f"{training_plan(LED_BASE, load, optimizer).peak / 1e9:.1f} GB with {optimizer}")
    3.3 GB with adamw
    2.0 GB with adafactor

Counted are weights, gradients, moments, the inputs of all layers, and what the backward pass of one layer holds. Documents are
computed one at a time, layers are computed again, all weights are trained (training/gradients.py). Python and its libraries
are not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from led_ref.config import LEDConfig
from led_ref.costs.operations import Work, Workload, largest_tile, source_work, step_work, total
from led_ref.errors import InputError
from led_ref.model.ops import FEED_FORWARD_ROWS
from led_ref.weights.keys import FINAL_LOGITS_BIAS, LM_HEAD, SHARED, entries

OPTIMIZERS = ("adamw", "adafactor")

# Arrays of all positions (T, D) that the backward pass of a layer holds at its peak, beside its input and the gradient of its
# output:
#   WINDOW_ARRAYS   of the encoder, in its attention: q, k, v, the window's result, its projection, the sum before the
#                   feed-forward; the gradients of the layer's input, of the window's result as it is and by heads, of q, k, v;
#   FED_ARRAYS      of the encoder, in its feed-forward: the first six of these and the gradient of the sum;
#   SOURCE_ARRAYS   of the decoder, over the document: keys and values, their gradients, as they are and by heads, its states';
#   TARGET_ARRAYS   of the decoder, over the target.
# A block of the feed-forward (FEED_FORWARD_ROWS) has HIDDEN_ARRAYS of F numbers a row, three of D; a tile has TILE_ARRAYS of
# scores, and the gradients of one head's keys and values.
# tests/test_planning.py compares these counts with a real step.
WINDOW_ARRAYS, FED_ARRAYS, SOURCE_ARRAYS, TARGET_ARRAYS, HIDDEN_ARRAYS, TILE_ARRAYS = 12, 7, 7, 12, 3, 4

# What keep_activations holds of each encoder layer: arrays of (T, D), and of (T, F); of each decoder layer, over the document;
# and those of them that WINDOW_ARRAYS has, too.
KEPT_ARRAYS, KEPT_HIDDEN, KEPT_SOURCE, KEPT_OF_WINDOW = 8, 2, 2, 6

# A layer's work in a step: forward, forward once more, and twice as much backward. The logits are not computed again.
PASSES = 4


@dataclass(frozen=True)
class TrainingPlan:
    """The memory of a step of training, in bytes.

    Args:
        parts: the terms by name; the gradients are those of all weights.
        peak: the most at one time: a gradient is not there before its layer's backward pass, an input no longer after it.
    """

    parts: Mapping[str, int]
    peak: int


@dataclass(frozen=True)
class Trained:
    """What a training changes, and how it goes back.

    Args:
        shapes: of all trained arrays by checkpoint key, with LoRA those of the thin matrices; None: all weights.
        merged: with LoRA, the shapes of the matrices that exist twice, as they were and as they are.
        documents_at_once: documents that are computed together.
        keep_activations: whether layers are held in place of being computed again.
    """

    shapes: Mapping[str, tuple[int, ...]] | None = None
    merged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    documents_at_once: int = 1
    keep_activations: bool = False


def training_plan(config: LEDConfig, load: Workload, optimizer: str, what: Trained = Trained()) -> TrainingPlan:
    """The memory of a step.

    Args:
        config: sizes.
        load: the longest document, its new tokens being the target's; batch plays no part, documents come one by one.
        optimizer: one of OPTIMIZERS.
        what: is trained, and how.

    Raises:
        InputError: for another optimizer, for no target, for more tokens than the model has positions.
    """
    _check(config, load, optimizer)
    source, target = (
        what.documents_at_once * length * config.d_model * load.item for length in (load.tokens, load.new_tokens)
    )
    shapes = {entry.key: entry.shape for entry in entries(config) if _is_held(entry.key, config)}
    weights = (sum(map(math.prod, shapes.values())) + sum(map(math.prod, what.merged.values()))) * load.item
    changed = {k: s for k, s in shapes.items() if k != FINAL_LOGITS_BIAS} if what.shapes is None else what.shapes
    trained = {key: math.prod(shape) * load.item for key, shape in changed.items()}
    of_encoder, of_decoder = (
        sum(s for key, s in trained.items() if f".{part}.layers." in key) for part in ("encoder", "decoder")
    )
    moments = 2 * sum(trained.values())
    if optimizer == "adafactor":
        moments = sum(sum(s) if len(s) == 2 else s[0] for s in changed.values()) * load.item
    # What the decoder alone learns needs no way back through the encoder.
    goes_through = not all(key.startswith("led.decoder.") for key in what.merged or trained)
    kept = _kept(config, what, source) if goes_through else 0
    window, decoding = _encoder_layer(config, load, source, what), _decoder_layer(config, load, source, target)
    # The gradients of all matrices of a layer, whether they are kept or not.
    one = sum(math.prod(s) for k, s in shapes.items() if k.startswith("led.encoder.layers.0.")) * load.item
    table = trained.get(SHARED, 0)
    moments_of_a_step = [
        table + of_decoder + kept + 2 * source + decoding,  # the decoder's first layer
        sum(trained.values()),  # the optimizer
    ]
    if goes_through:
        moments_of_a_step += [
            table + of_decoder + kept + source + one + window,  # the encoder's last
            table + of_decoder + of_encoder + 2 * source + window + (one if what.merged else 0),  # and its first
        ]
    parts = {
        "weights": weights,
        "gradients": sum(trained.values()),
        f"moments of {optimizer}": moments,
        "inputs of layers": kept + config.decoder_layers * target,
        "backward pass of a layer": max(window, decoding) if goes_through else decoding,
    }
    return TrainingPlan(parts, parts["weights"] + moments + max(moments_of_a_step))


def decoder_work(config: LEDConfig, load: Workload) -> Work:
    """The decoder's forward pass over a document's target, and its keys and values of the document."""
    one = [total(step_work(config, load, load.new_tokens // 2))] * load.new_tokens
    return total([source_work(config, load), *one])


def _is_held(key: str, config: LEDConfig) -> bool:
    return key != LM_HEAD or not config.tie_word_embeddings


def _kept(config: LEDConfig, what: Trained, states: int) -> int:
    """Bytes of the document's arrays that the forward pass leaves for the way back."""
    if not what.keep_activations:
        return config.encoder_layers * states
    hidden = KEPT_HIDDEN * states * config.encoder_ffn_dim // config.d_model
    return config.encoder_layers * (KEPT_ARRAYS * states + hidden) + config.decoder_layers * KEPT_SOURCE * states


def _encoder_layer(config: LEDConfig, load: Workload, states: int, what: Trained) -> int:
    queries, reach = largest_tile(config, load)
    width = config.d_model // config.encoder_attention_heads
    tile = TILE_ARRAYS * queries * (reach + load.globals_) + 2 * (load.tokens + reach) * width
    in_window = (
        WINDOW_ARRAYS - KEPT_OF_WINDOW * what.keep_activations
    ) * states + load.tiles_at_once * tile * load.item
    return max(in_window, FED_ARRAYS * states + _block(load.tokens, config.encoder_ffn_dim, config, load))


def _decoder_layer(config: LEDConfig, load: Workload, states: int, target: int) -> int:
    block = _block(load.new_tokens, config.decoder_ffn_dim, config, load)
    return max(SOURCE_ARRAYS * states + TARGET_ARRAYS * target, TARGET_ARRAYS * target + block)


def _block(rows: int, inner: int, config: LEDConfig, load: Workload) -> int:
    return min(rows, FEED_FORWARD_ROWS) * (HIDDEN_ARRAYS * inner + 3 * config.d_model) * load.item


def _check(config: LEDConfig, load: Workload, optimizer: str) -> None:
    if optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer is {optimizer!r}; choose {' or '.join(OPTIMIZERS)}.")
    for name, asked, limit in (
        ("tokens", load.tokens, config.max_encoder_position_embeddings),
        ("new tokens", load.new_tokens, config.max_decoder_position_embeddings),
    ):
        if not 0 < asked <= limit:
            raise InputError(
                f"{asked} {name} cannot be trained on: the model has {limit} positions. Ask for 1 to {limit}."
            )
