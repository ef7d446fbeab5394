r"""A BART becomes an LED, as Ai2 made theirs before they trained it: nothing is drawn at random, so it can read at once.

    convert_bart("bart-base", "my-led", max_positions=16384, attention_window=1024)

LED is BART with another attention in the encoder (paper, section 7; allenai/longformer, convert_bart_to_
longformerencoderdecoder.py). Where the two have the same thing, it is taken over; what BART lacks is copied from what is
nearest:

    encoder's attention     the local projections are BART's own; the global ones begin as copies of them
    encoder's positions     BART's 1,024 again and again, 16 times for 16,384: neighbours keep their distance, which is what
                            BART's heads have learnt to look at. Only where a copy ends does the distance jump
    decoder's positions     BART's own, as many as it has
    both tables             without BART's first two rows, which stand for padding and which no position uses

So on a document that BART could read, with a window that reaches over all of it and no global token, the LED computes what
the BART did. Three positions tiled to seven, BART's two extra rows in front:

    >>> import numpy as np
    >>> tiled_positions(StoredTensor("F32", np.array([[8], [9], [0], [1], [2]], np.float32)), 7).data.ravel().tolist()
    [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0]

An LED made so has not been trained to look far. It is where fine-tuning on long documents begins.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.config import LEDConfig, config_file
from led_ref.config_formats import BART_RELEASED
from led_ref.errors import ConfigError, InputError
from led_ref.json_file import read_json_object
from led_ref.weights.convert import ConversionReport, write_converted
from led_ref.weights.find_files import TOKENIZER_FILES, Notice, read_tensors
from led_ref.weights.keys import FINAL_LOGITS_BIAS, HEADS, LM_HEAD, POSITION_TABLES, TIED, checkpoint_entries
from led_ref.weights.load import complain
from led_ref.weights.stored_tensor import StoredTensor
from led_ref.weights.write_folder import check_destination

# LED's module <- BART's, both under `encoder.layers.i.self_attn.`. All other names are the same behind `led.` and `model.`.
_TABLE = """
longformer_self_attn.query          q_proj
longformer_self_attn.key            k_proj
longformer_self_attn.value          v_proj
longformer_self_attn.query_global   q_proj
longformer_self_attn.key_global     k_proj
longformer_self_attn.value_global   v_proj
output                              out_proj
"""
_MODULES = dict(line.split() for line in _TABLE.strip().splitlines())
_ENCODER_ATTENTION = re.compile(r"(model\.encoder\.layers\.\d+\.self_attn)\.(.+)\.(weight|bias)")

BART_POSITIONS = 1024  # where config.json does not say it
EXTRA_ROWS = 2  # of BART's position tables
# Written by the program that BART was trained with; a number of a version, no weight.
_NO_WEIGHTS = {"model.encoder.version", "model.decoder.version"}
TOKENIZER_CONFIG = "tokenizer_config.json"


def bart_key(key: str) -> str:
    """BART's name for the tensor that an LED's begins with.

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
    """Write the LED that a folder's BART becomes: weights, config.json, and the tokenizer with its new length.

    Args:
        source_folder: config.json and weights of a BART, in any format of folder.py.
        destination_folder: made if it is not there.
        max_positions: most source tokens of the LED; at least as many as BART reads. If it is not a multiple of that, the
            last copy of the positions is cut.
        attention_window: the total width 2R of the window, even: for all layers, or one number for each.
        dtype: "float32", "float16" or "bfloat16"; None: each tensor keeps its own.
        quantize: round the matrices, as in `convert`.
        overwrite: whether weights that are already in the destination may be replaced.
        notice: is told in a sentence what a person may want to know.

    Returns:
        What was read and written. `parameters` counts the LED's, copies included.

    Raises:
        MissingFileError: if the source lacks a file, or the destination's parent folder is not there.
        ConfigError: if config.json is not that of a BART, or of one that is built in a way LED is not.
        CheckpointError: if the weights are not exactly those of that BART.
        InputError: if the destination has weights already, or `max_positions` or `dtype` cannot be.
    """
    source, destination = Path(source_folder), Path(destination_folder).resolve()
    check_destination(destination, overwrite=overwrite)
    path = config_file(source)
    config = led_config(read_json_object(path), str(path), max_positions, attention_window)
    tensors = led_tensors(read_tensors(source, notice=notice), config)
    head = next((HEADS[name] for key in tensors if (name := key.split(".")[0]) in HEADS), None)
    architecture = head or "LEDForConditionalGeneration"

    def lengthen(new: Path) -> None:
        _set_tokenizer_length(new, max_positions)

    return write_converted(
        source,
        tensors,
        config,
        destination,
        dtype=dtype,
        quantize=quantize,
        architecture=architecture,
        others=lengthen,
    )


def led_config(
    values: Mapping[str, Any], place: str, max_positions: int, attention_window: int | Sequence[int]
) -> LEDConfig:
    """The configuration of the LED that a BART becomes.

    Args:
        values: what BART's config.json says.
        place: the file, to name it in errors.
        max_positions: of the encoder.
        attention_window: the total width, for all layers or for each.

    Raises:
        ConfigError: if it is not a BART's that can become an LED, or the window cannot be.
        InputError: if `max_positions` is less than BART has.
    """
    values = dict(values)
    model_type = values.pop("model_type", None)
    if model_type != "bart":
        raise ConfigError(
            f"{place}: model_type is {model_type!r}, and only a 'bart' becomes an LED. "
            + ("It is one already: convert it without from_bart." if model_type == "led" else "Name a BART's folder.")
        )
    for name, released in BART_RELEASED.items():
        if (found := values.pop(name, released[0])) not in released:
            raise ConfigError(
                f"{place}: {name} is {found!r}; LED's layers are those of a BART with {released[0]!r}, and would compute "
                "something else with these weights. Name a BART that was built so, such as facebook/bart-base."
            )
    own = values.pop("max_position_embeddings", BART_POSITIONS)
    if not isinstance(max_positions, int) or not isinstance(own, int) or max_positions < own:
        raise InputError(
            f"max_positions is {max_positions!r}; this BART reads {own} tokens, and its LED at least as many."
        )
    values.pop("extra_pos_embeddings", None)  # the two rows, which LED does not have
    window = attention_window if isinstance(attention_window, int) else list(attention_window)
    sizes = {"max_encoder_position_embeddings": max_positions, "max_decoder_position_embeddings": own}
    try:
        config = LEDConfig.from_dict(
            {**values, **sizes, "attention_window": window}
        )  # its other defaults are BART's, too
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    return replace(config, attention_window=config.windows)  # one for each layer, as in Ai2's files


def led_tensors(tensors: Mapping[str, StoredTensor], config: LEDConfig) -> dict[str, StoredTensor]:
    """An LED's tensors from a BART's, every one of which must be used.

    Args:
        tensors: by their names in BART's file, with or without `model.`.
        config: of the LED (`led_config`).

    Raises:
        CheckpointError: listing all that is missing, left over or of another shape.
    """
    given = {_bart_name(name): tensor for name, tensor in tensors.items()}
    found = {name: tensor for name, tensor in given.items() if name.split(".")[0] in HEADS}  # the same in both
    # How many rows BART's position tables have in the file, whatever they become.
    rows = config.max_decoder_position_embeddings + EXTRA_ROWS
    may_be_absent = {FINAL_LOGITS_BIAS, *TIED}  # one name of the embedding is enough; load.py sees to that
    missing, misshapen = [], []
    for entry in checkpoint_entries(config):
        name, shape = bart_key(entry.key), entry.shape
        if name not in given:
            missing += [] if entry.key in may_be_absent else [name]
            continue
        found[entry.key] = given[name]
        if entry.key in POSITION_TABLES:
            shape = (rows, *shape[1:])
            found[entry.key] = tiled_positions(given[name], entry.shape[0])
        if given[name].shape != shape:
            misshapen.append(f"{name} is {given[name].shape} in the file, {shape} by config.json")
    used = {bart_key(key) for key in found} | _NO_WEIGHTS
    complain({
        "missing": list(dict.fromkeys(missing)),
        "left over": [name for name in given if name not in used],
        "of another shape": list(dict.fromkeys(misshapen)),
    })  # fmt: skip
    return found


def tiled_positions(table: StoredTensor, rows: int) -> StoredTensor:
    """BART's position table without its two extra rows, again and again until there are `rows` of them."""
    own = table.data[EXTRA_ROWS:]
    return StoredTensor(table.dtype, own[np.arange(rows) % len(own)])


def _bart_name(name: str) -> str:
    """A tensor's name with `model.` before it, which a file of BartModel leaves out."""
    if name in (LM_HEAD, FINAL_LOGITS_BIAS) or name.split(".")[0] in HEADS:
        return name
    return "model." + name.removeprefix("model.")


def _set_tokenizer_length(folder: Path, length: int) -> None:
    """Let truncation=True cut to what the LED reads, and no longer to what BART did. Nothing, if there is no tokenizer."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return
    path = folder / TOKENIZER_CONFIG
    values = read_json_object(path) if path.is_file() else {}
    values["model_max_length"] = length
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
