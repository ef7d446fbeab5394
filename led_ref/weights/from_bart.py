r"""Convert a BART to an LED, as Ai2 did before they trained it. No weight is random.

    convert_bart("bart-base", "my-led", max_positions=16384, attention_window=1024)

LED is BART with another attention in the encoder (paper, section 7; allenai/longformer, convert_bart_to_
longformerencoderdecoder.py). The LED takes all weights that the two have in common; the others are copies:

    encoder's attention     the local projections are BART's; the global projections begin as copies of them
    encoder's positions     BART's 1,024 positions repeated, 16 times for 16,384: neighbours keep their distance, which
                            BART's heads have learnt. Only at the end of a copy the distance jumps
    decoder's positions     BART's
    both position tables    without BART's first two rows, which are for padding and which no position uses

So on a document of BART's length, with a window over all of it and no global token, the LED computes the same as the BART.
Three positions tiled to seven, after BART's two extra rows:

    >>> import numpy as np
    >>> tiled_positions(StoredTensor("F32", np.array([[8], [9], [0], [1], [2]], np.float32)), 7).data.ravel().tolist()
    [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0]

Such an LED has not been trained on long documents. Fine-tuning on them begins with it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.config import LEDConfig, config_file
from led_ref.config_formats import BART_RELEASED
from led_ref.errors import ConfigError, InputError, quoted
from led_ref.files.json_file import is_whole, read_json_object, write_text
from led_ref.files.staging import to_write
from led_ref.weights.convert import ConversionReport, owned_files, write_converted
from led_ref.weights.find_files import TOKENIZER_FILES, Notice, read_tensors
from led_ref.weights.keys import (
    FINAL_LOGITS_BIAS,
    HEADS,
    LM_HEAD,
    POSITION_TABLES,
    TIED,
    canonical_key,
    checkpoint_entries,
    heads_in,
)
from led_ref.weights.load import check_layers, complain
from led_ref.weights.save import check_destination
from led_ref.weights.stored_tensor import StoredTensor

# LED's module <- BART's, both under `encoder.layers.i.self_attn.`. All other names are the same after `led.` and `model.`.
_MODULES = {
    "longformer_self_attn.query": "q_proj",
    "longformer_self_attn.key": "k_proj",
    "longformer_self_attn.value": "v_proj",
    "longformer_self_attn.query_global": "q_proj",
    "longformer_self_attn.key_global": "k_proj",
    "longformer_self_attn.value_global": "v_proj",
    "output": "out_proj",
}
_ENCODER_ATTENTION = re.compile(r"(model\.encoder\.layers\.\d+\.self_attn)\.(.+)\.(weight|bias)")

BART_POSITIONS = 1024  # the default of config.json
EXTRA_ROWS = 2  # of BART's position tables
# Of BART's training program, fairseq: version numbers, which are no weights, and its name of the output projection.
_NO_WEIGHTS = {"model.encoder.version", "model.decoder.version"}
_OUTPUT_PROJECTION = "model.decoder.output_projection.weight"


def bart_key(key: str) -> str:
    """BART's name for the source of an LED's tensor.

    Example:
        >>> bart_key("led.encoder.layers.3.self_attn.longformer_self_attn.key_global.bias")
        'model.encoder.layers.3.self_attn.k_proj.bias'
        >>> bart_key("led.decoder.layers.3.self_attn.k_proj.bias"), bart_key("lm_head.weight")
        ('model.decoder.layers.3.self_attn.k_proj.bias', 'lm_head.weight')
    """
    key = re.sub(r"^led\.", "model.", key)
    found = _ENCODER_ATTENTION.fullmatch(key)
    return f"{found[1]}.{_MODULES[found[2]]}.{found[3]}" if found else key


def convert_bart(
    source_folder: str | Path,
    destination_folder: str | Path,
    *,
    max_positions: int = 16384,
    attention_window: int | Sequence[int] = 1024,
    dtype: str | None = None,
    quantize: str | None = None,
    overwrite: bool = False,
    notice: Notice | None = None,
) -> ConversionReport:
    """Convert a folder's BART to an LED: weights, config.json, and the tokenizer with its new length.

    Arguments and errors as in `convert`, and:

    Args:
        source_folder: config.json and weights of a BART, in any format of find_files.py.
        max_positions: the LED's maximum source length, at least BART's. If it is no multiple of BART's, the last copy of
            the positions is cut.
        attention_window: the total width 2R of the window, even: for all layers, or one number for each.

    Returns:
        The files and sizes. `parameters` counts the LED's, copies included.

    Raises:
        ConfigError: if config.json is not a BART's, or of a variant that LED does not have.
        CheckpointError: if the weights are not exactly those of this BART.
        InputError: if `max_positions` is too small.
    """
    path = config_file(source_folder)
    source, destination = Path(source_folder), to_write("destination_folder", destination_folder).resolve()
    check_destination(destination, overwrite=overwrite, owned=owned_files(source, destination))
    config = led_config(read_json_object(path), str(path), max_positions, attention_window)
    tensors = led_tensors(read_tensors(source, notice=notice), config)
    heads = [HEADS[head] for head in heads_in(tensors)]
    return write_converted(
        source,
        tensors,
        config,
        destination,
        dtype=dtype,
        quantize=quantize,
        overwrite=overwrite,
        architecture=heads[0] if heads else "LEDForConditionalGeneration",
        others=partial(_set_tokenizer_length, length=max_positions),
    )


def led_config(
    values: Mapping[str, Any], place: str, max_positions: int, attention_window: int | Sequence[int]
) -> LEDConfig:
    """The LED's configuration from BART's config.json (`place` is its path, for errors); arguments as in `convert_bart`.

    Raises:
        ConfigError: if it is not a BART's that LED's layers can compute, or the window is invalid.
        InputError: if `max_positions` is smaller than BART's.
    """
    values = dict(values)
    model_type = values.pop("model_type", None)
    if model_type != "bart":
        raise ConfigError(
            f"{place}: model_type is {quoted(model_type)}, and only a 'bart' becomes an LED. "
            + ("It is one already: convert it without from_bart." if model_type == "led" else "Name a BART's folder.")
        )
    for name, released in BART_RELEASED.items():
        if (found := values.pop(name, released[0])) not in released:
            raise ConfigError(
                f"{place}: {name} is {quoted(found)}; LED's layers are those of a BART with {released[0]!r}, and would not "
                "compute the same with these weights. Name a BART of this variant, such as facebook/bart-base."
            )
    own = values.pop("max_position_embeddings", BART_POSITIONS)
    if not is_whole(own) or own < 1:
        raise ConfigError(
            f"{place}: max_position_embeddings is {quoted(own)}; it must be a whole number of at least 1."
        )
    if not is_whole(max_positions) or max_positions < own:
        raise InputError(
            f"max_positions is {quoted(max_positions)}; this BART reads {own} tokens, its LED at least as many."
        )
    values.pop("extra_pos_embeddings", None)  # the two extra rows
    window = attention_window if isinstance(attention_window, int) else list(attention_window)
    sizes = {"max_encoder_position_embeddings": max_positions, "max_decoder_position_embeddings": own}
    try:
        config = LEDConfig.from_dict({**values, **sizes, "attention_window": window})  # the other defaults are BART's
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    return replace(config, attention_window=config.windows)  # one for each layer, as in Ai2's files


def led_tensors(tensors: Mapping[str, StoredTensor], config: LEDConfig) -> dict[str, StoredTensor]:
    """An LED's tensors from a BART's; every tensor must be used.

    Args:
        tensors: by their names in BART's file, with or without `model.`.
        config: the LED's (`led_config`).

    Raises:
        CheckpointError: listing every tensor that is missing, left over or of another shape.
    """
    check_layers(tensors, config)
    given = {re.sub(r"^led\.", "model.", canonical_key(name)): tensor for name, tensor in tensors.items()}
    if _OUTPUT_PROJECTION in given:
        given.setdefault(LM_HEAD, given.pop(_OUTPUT_PROJECTION))
    found = {name: tensor for name, tensor in given.items() if name.split(".")[0] in HEADS}  # the same in both
    # The number of rows of BART's position tables in the file.
    rows = config.max_decoder_position_embeddings + EXTRA_ROWS
    may_be_absent = {FINAL_LOGITS_BIAS, *TIED}  # a file needs one name of the embedding; load.py checks it
    missing, misshapen = [], []
    for entry in checkpoint_entries(config):
        name, shape = bart_key(entry.key), entry.shape
        if name not in given:
            missing += [] if entry.key in may_be_absent else [name]
            continue
        found[entry.key] = given[name]
        is_positions = entry.key in POSITION_TABLES
        shape = (rows, *shape[1:]) if is_positions else shape
        if given[name].shape != shape:
            misshapen.append(f"{name} is {given[name].shape} in the file, {shape} by config.json")
        elif is_positions:
            found[entry.key] = tiled_positions(given[name], entry.shape[0])
    used = {bart_key(key) for key in found} | _NO_WEIGHTS
    complain({
        "missing": list(dict.fromkeys(missing)),
        "left over": [name for name in given if name not in used],
        "of another shape": list(dict.fromkeys(misshapen)),
    })  # fmt: skip
    return found


def tiled_positions(table: StoredTensor, rows: int) -> StoredTensor:
    """BART's position table without its two extra rows, repeated to `rows` rows."""
    own = table.data[EXTRA_ROWS:]
    return StoredTensor(table.dtype, own[np.arange(rows) % len(own)])


def _set_tokenizer_length(folder: Path, length: int) -> None:
    """Set the tokenizer's length, to which truncation=True cuts, to the LED's; if the folder has a tokenizer."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return
    path = folder / "tokenizer_config.json"
    values = read_json_object(path) if path.is_file() else {}
    values["model_max_length"] = length
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
