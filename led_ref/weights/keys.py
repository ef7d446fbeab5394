"""The checkpoint keys: for every tensor of an LED our parameter's field, its key in a file, and its shape.

`.*` stands for two tensors: `.weight` of the given shape, and `.bias` with the length of its first axis. `i` is the number
of a layer. The letters are those of the dimension key in `led_ref/config.py`; here T and U are the rows of the two
position tables, Fe and Fd the feed-forward widths of encoder and decoder. The rows of a head (`HEADS`) are only in the
checkpoints of its class.

    >>> from led_ref.config import LEDConfig
    >>> rows = entries(LEDConfig(encoder_layers=1, decoder_layers=0, d_model=48, encoder_ffn_dim=53))
    >>> [(row.field, row.key, row.shape) for row in rows if ".fc1." in row.key]  # doctest: +NORMALIZE_WHITESPACE
    [('encoder.layers.0.fc1.weight', 'led.encoder.layers.0.fc1.weight', (53, 48)),
     ('encoder.layers.0.fc1.bias', 'led.encoder.layers.0.fc1.bias', (53,))]

This file knows names and shapes only; load.py reads the weights.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from led_backends.contract import Weight
from led_ref.config import LEDConfig
from led_ref.model.params import LEDParams

_TABLE = """
our field                                 checkpoint key                                                      shape
shared                                    led.shared.weight                                                   V D
lm_head                                   lm_head.weight                                                      V D
final_logits_bias                         final_logits_bias                                                   1 V
qa_outputs                                qa_outputs.*                                                        2 D
classification_head.dense                 classification_head.dense.*                                         D D
classification_head.out_proj              classification_head.out_proj.*                                      Y D

encoder.embed_positions                   led.encoder.embed_positions.weight                                  T D
encoder.layernorm_embedding               led.encoder.layernorm_embedding.*                                   D
encoder.layers.i.query                    led.encoder.layers.i.self_attn.longformer_self_attn.query.*         D D
encoder.layers.i.key                      led.encoder.layers.i.self_attn.longformer_self_attn.key.*           D D
encoder.layers.i.value                    led.encoder.layers.i.self_attn.longformer_self_attn.value.*         D D
encoder.layers.i.query_global             led.encoder.layers.i.self_attn.longformer_self_attn.query_global.*  D D
encoder.layers.i.key_global               led.encoder.layers.i.self_attn.longformer_self_attn.key_global.*    D D
encoder.layers.i.value_global             led.encoder.layers.i.self_attn.longformer_self_attn.value_global.*  D D
encoder.layers.i.output                   led.encoder.layers.i.self_attn.output.*                             D D
encoder.layers.i.self_attn_layer_norm     led.encoder.layers.i.self_attn_layer_norm.*                         D
encoder.layers.i.fc1                      led.encoder.layers.i.fc1.*                                          Fe D
encoder.layers.i.fc2                      led.encoder.layers.i.fc2.*                                          D Fe
encoder.layers.i.final_layer_norm         led.encoder.layers.i.final_layer_norm.*                             D

decoder.embed_positions                   led.decoder.embed_positions.weight                                  U D
decoder.layernorm_embedding               led.decoder.layernorm_embedding.*                                   D
decoder.layers.i.self_attn.q_proj         led.decoder.layers.i.self_attn.q_proj.*                             D D
decoder.layers.i.self_attn.k_proj         led.decoder.layers.i.self_attn.k_proj.*                             D D
decoder.layers.i.self_attn.v_proj         led.decoder.layers.i.self_attn.v_proj.*                             D D
decoder.layers.i.self_attn.out_proj       led.decoder.layers.i.self_attn.out_proj.*                           D D
decoder.layers.i.self_attn_layer_norm     led.decoder.layers.i.self_attn_layer_norm.*                         D
decoder.layers.i.encoder_attn.q_proj      led.decoder.layers.i.encoder_attn.q_proj.*                          D D
decoder.layers.i.encoder_attn.k_proj      led.decoder.layers.i.encoder_attn.k_proj.*                          D D
decoder.layers.i.encoder_attn.v_proj      led.decoder.layers.i.encoder_attn.v_proj.*                          D D
decoder.layers.i.encoder_attn.out_proj    led.decoder.layers.i.encoder_attn.out_proj.*                        D D
decoder.layers.i.encoder_attn_layer_norm  led.decoder.layers.i.encoder_attn_layer_norm.*                      D
decoder.layers.i.fc1                      led.decoder.layers.i.fc1.*                                          Fd D
decoder.layers.i.fc2                      led.decoder.layers.i.fc2.*                                          D Fd
decoder.layers.i.final_layer_norm         led.decoder.layers.i.final_layer_norm.*                             D
"""

# The size of each letter in the table's last column.
_SIZES: Mapping[str, Callable[[LEDConfig], int]] = {
    "1": lambda config: 1,
    "2": lambda config: 2,
    "Y": lambda config: config.num_labels,
    "V": lambda config: config.vocab_size,
    "D": lambda config: config.d_model,
    "T": lambda config: config.max_encoder_position_embeddings,
    "U": lambda config: config.max_decoder_position_embeddings,
    "Fe": lambda config: config.encoder_ffn_dim,
    "Fd": lambda config: config.decoder_ffn_dim,
}

SHARED = "led.shared.weight"
LM_HEAD = "lm_head.weight"
FINAL_LOGITS_BIAS = "final_logits_bias"
# Two more names of the embedding table, without a field; a file from before transformers 5 can hold them.
EMBED_TOKENS = ("led.encoder.embed_tokens.weight", "led.decoder.embed_tokens.weight")
# The four names of the tied (V, D) table. A file needs only one of them.
TIED = (SHARED, *EMBED_TOKENS, LM_HEAD)
POSITION_TABLES = ("led.encoder.embed_positions.weight", "led.decoder.embed_positions.weight")

# The heads: modules that a checkpoint can have beside the LED itself, and the class of each. Other classes have none
# (`heads_of`). lm_head and final_logits_bias of LEDForConditionalGeneration are not among them: LEDModel reads files with
# them, too.
HEADS: Mapping[str, str] = {
    "classification_head": "LEDForSequenceClassification",
    "qa_outputs": "LEDForQuestionAnswering",
}
_NOT_UNDER_LED = (LM_HEAD, FINAL_LOGITS_BIAS)


@dataclass(frozen=True)
class Entry:
    """One tensor: the path of our field in LEDParams, its checkpoint key, and its shape."""

    field: str
    key: str
    shape: tuple[int, ...]


def heads_of(architecture: str) -> tuple[str, ...]:
    """The heads in checkpoints of a class.

    Example:
        >>> heads_of("LEDForQuestionAnswering"), heads_of("LEDModel")
        (('qa_outputs',), ())
    """
    return tuple(head for head, owner in HEADS.items() if owner == architecture)


def heads_in(names: Collection[str]) -> tuple[str, ...]:
    """The heads in a file, by the names of its tensors."""
    first_words = {name.split(".")[0] for name in names}
    return tuple(head for head in HEADS if head in first_words)


def entries(config: LEDConfig, heads: Collection[str] = ()) -> tuple[Entry, ...]:
    """The table for one configuration: an entry for every array of LEDParams, layer after layer.

    Args:
        config: gives the sizes.
        heads: the heads to include.
    """
    layers = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    expanded = []
    for line in _TABLE.strip().splitlines()[1:]:
        if not line:
            continue
        field, key, *letters = line.split()
        head = key.split(".")[0]
        if head in HEADS and head not in heads:
            continue
        shape = tuple(_SIZES[letter](config) for letter in letters)
        numbers = range(layers[field.split(".")[0]]) if ".i." in field else range(1)
        for i in numbers:
            ours, theirs = field.replace(".i.", f".{i}."), key.replace(".i.", f".{i}.").removesuffix(".*")
            if key.endswith(".*"):
                expanded.append(Entry(f"{ours}.weight", f"{theirs}.weight", shape))
                expanded.append(Entry(f"{ours}.bias", f"{theirs}.bias", shape[:1]))
            else:
                expanded.append(Entry(ours, theirs, shape))
    return tuple(expanded)


def checkpoint_entries(config: LEDConfig, heads: Collection[str] = ()) -> tuple[Entry, ...]:
    """Every key that a file of this configuration can hold: `entries` and the two other names of `shared`.

    299 keys for led-base, 587 for led-large. A class with a head has no output projection.
    """
    table = (config.vocab_size, config.d_model)
    found = entries(config, heads) + tuple(Entry("shared", key, table) for key in EMBED_TOKENS)
    return tuple(entry for entry in found if not heads or entry.key not in _NOT_UNDER_LED)


def parameter_count(config: LEDConfig, *, untied_lm_head: bool = False) -> int:
    """The number of trained parameters. A tied table counts once; final_logits_bias is not trained and does not count.

    Example:
        >>> parameter_count(LEDConfig(attention_window=1024))  # led-large
        459801600
    """
    left_out = {FINAL_LOGITS_BIAS} if untied_lm_head else {FINAL_LOGITS_BIAS, LM_HEAD}
    return sum(math.prod(entry.shape) for entry in entries(config) if entry.key not in left_out)


def canonical_key(name: str) -> str:
    """The table's key for a tensor's name in a file of any LED class.

    LEDModel saves names without `led.`; allenai/longformer's files have `model.` instead. A name that is not LED's becomes
    a key outside the table, and is reported as left over.

    Example:
        >>> [canonical_key(name) for name in ("shared.weight", "model.shared.weight", "lm_head.weight")]
        ['led.shared.weight', 'led.shared.weight', 'lm_head.weight']
    """
    if name in _NOT_UNDER_LED or name.split(".")[0] in HEADS or name.startswith("led."):
        return name
    return "led." + name.removeprefix("model.")


def assemble(arrays: Mapping[str, Weight], config: LEDConfig) -> LEDParams:
    """Build LEDParams from arrays by field path: `arrays["encoder.layers.0.fc1.weight"]` becomes that field.

    Args:
        arrays: one array for each field of `entries(config, heads)`; a head without arrays is None.
            `arrays["lm_head"]` may be the very object that `arrays["shared"]` is.
        config: gives the number of layers and their activation function.
    """
    layers = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}

    def build(kind: Any, path: str) -> Any:
        if NoneType in get_args(kind):  # a head
            present = any(field.startswith(path + ".") for field in arrays)
            return build(get_args(kind)[0], path) if present else None
        if is_dataclass(kind):
            hints = get_type_hints(kind)
            prefix = path + "." if path else ""
            return kind(**{f.name: build(hints[f.name], prefix + f.name) for f in fields(kind)})  # type: ignore[operator]
        if path.endswith(".layers"):  # tuple[EncoderLayerParams, ...]: one for each layer
            return tuple(build(get_args(kind)[0], f"{path}.{i}") for i in range(layers[path.split(".")[0]]))
        return config.activation_function if kind is str else arrays[path]

    params: LEDParams = build(LEDParams, "")
    return params


def arrays_by_key(params: LEDParams, config: LEDConfig, heads: Collection[str] = ()) -> dict[str, Weight]:
    """Every array of the parameters by its checkpoint key: the inverse of `assemble`."""

    def at(node: Any, path: str) -> Any:
        for name in path.split("."):
            node = node[int(name)] if name.isdecimal() else getattr(node, name)
        return node

    return {entry.key: at(params, entry.field) for entry in entries(config, heads)}
