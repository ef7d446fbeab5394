"""The sizes of an LED and what its special ids are: config.json as a frozen dataclass. Nothing else reads config.json.

Dimension key, used in the names of arrays throughout this project (`q_BHTK` has batch, heads, source positions, head
dimension; a digit is an axis of just that length):

    B  batch: documents        D  model width (d_model)      R  radius: keys that a query sees on each side
    T  source positions        H  attention heads            Q  queries in a block
    U  target positions, new   K  head dimension, D / H       S  keys in reach: of a block, or target positions so far
    V  vocabulary              F  feed-forward width         G  global tokens
    W  beams of a document     N  rows of the decoder, B W   Z  columns of a tile, G + S;
    P  places: of a prompt,    L  max_length                    of an attention map, G + 2R + 1
       or in a position table  h  a slice of the heads       C  candidates of a search step
    X  what is gathered        Y  labels                     E  slots of the KV buffer that a document's beams share

`attention_window` is the total width 2R of the window, as in transformers and in every checkpoint on the Hub: a query at
position i sees the positions i - R ... i + R, where R = window // 2. (In allenai's original code the number of that name
is R itself; `from_dict` recognises such a file and doubles it.)
"""

import copy
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from led_ref.config_formats import OTHER_KEYS, in_led_form
from led_ref.errors import ConfigError, MissingFileError, printable, quoted, wrong_type
from led_ref.files.hub import named
from led_ref.files.json_file import MAX_DEPTH, is_finite, is_whole, read_json_object, write_text
from led_ref.files.staging import to_write

REGRESSION = "regression"
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL)

# The activation functions of a feed-forward, by transformers' names; a backend has a method of each name.
ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new")

# Larger sizes are damage: led-large has 24 layers. Tables of names are made from the number of layers before any weight is
# read; all other sizes are compared with the weights first.
MAX_LAYERS = 1000
MAX_SIZE = 1 << 40


@dataclass(frozen=True)
class LEDConfig:
    """What config.json says of an LED. The names and defaults are those of transformers' LEDConfig.

    `init_std` and the rates of dropout and layerdrop are for training only: kept, not used.

    Args:
        vocab_size: V.
        max_encoder_position_embeddings: most source positions.
        max_decoder_position_embeddings: most target positions.
        encoder_layers: number of encoder layers.
        encoder_ffn_dim: F of the encoder.
        encoder_attention_heads: H of the encoder.
        decoder_layers: number of decoder layers.
        decoder_ffn_dim: F of the decoder.
        decoder_attention_heads: H of the decoder.
        use_cache: whether generation keeps the keys and values of what is written already.
        is_encoder_decoder: always True for LED.
        activation_function: of every feed-forward, one of `ACTIVATIONS`.
        d_model: D.
        decoder_start_token_id: the id with which every target begins.
        pad_token_id: the id that fills up a batch.
        bos_token_id: `<s>`.
        eos_token_id: `</s>`, or several ids that all end a text.
        attention_window: total window width 2R, even: one number, or one per encoder layer.
        tie_word_embeddings: whether the output projection is the embedding table.
        extra: every other key of config.json, kept and written back; a copy of what is given.

    Raises:
        ConfigError: for values that cannot be, naming the field.

    Example:
        >>> config = LEDConfig(attention_window=1024, encoder_layers=2)
        >>> config.windows, config.radii
        ((1024, 1024), (512, 512))
    """

    vocab_size: int = 50265
    max_encoder_position_embeddings: int = 16384
    max_decoder_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    use_cache: bool = True
    is_encoder_decoder: bool = True
    activation_function: str = "gelu"
    d_model: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    decoder_start_token_id: int = 2
    classifier_dropout: float = 0.0
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | tuple[int, ...] | None = 2
    attention_window: int | tuple[int, ...] = 512
    tie_word_embeddings: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be, by name."""
        for name in ("attention_window", "eos_token_id"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "extra", _checked_extra(self))
        _check_numbers(self)
        _check_windows(self)
        _check_special_ids(self)
        if not isinstance(self.activation_function, str) or self.activation_function not in ACTIVATIONS:
            raise ConfigError(
                f"activation_function is {quoted(self.activation_function)}; an LED has one of {', '.join(ACTIVATIONS)} "
                "('gelu' is the one with erf, 'gelu_new' the one with tanh). Name one of them, or use another checkpoint."
            )
        if self.is_encoder_decoder is not True:
            raise ConfigError(f"is_encoder_decoder is {quoted(self.is_encoder_decoder)}; an LED is one: set it true.")

    # ---- what follows from the fields -------------------------------------------------------------------------------

    @property
    def windows(self) -> tuple[int, ...]:
        """The total window width 2R of each encoder layer."""
        if isinstance(self.attention_window, int):
            return (self.attention_window,) * self.encoder_layers
        return tuple(self.attention_window)

    @property
    def radii(self) -> tuple[int, ...]:
        """R of each encoder layer: how many keys a query sees on each side of itself."""
        return tuple(window // 2 for window in self.windows)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All ids that end a text, as a tuple."""
        if self.eos_token_id is None:
            return ()
        return (self.eos_token_id,) if isinstance(self.eos_token_id, int) else tuple(self.eos_token_id)

    # ---- the labels of a classification: checked when a head asks for them, since a summarizing LED has none ----

    @property
    def id2label(self) -> dict[int, str]:
        """The name of each label by its number.

        Raises:
            ConfigError: if the numbers are not 0, 1, 2, ... or `num_labels` says that there are more or fewer.
        """
        count, given = self.num_labels, self.extra.get("id2label")
        if given is None:
            return {label: f"LABEL_{label}" for label in range(count)}  # as in transformers
        names = {str(label): name for label, name in given.items()}
        if not all(isinstance(names.get(str(label)), str) for label in range(count)):
            raise ConfigError(
                f"id2label is {quoted(given)}; it must be an object with a name for each of the numbers from 0 to {count - 1}."
            )
        return {label: names[str(label)] for label in range(count)}

    @property
    def num_labels(self) -> int:
        """How many labels there are; 2 unless config.json says otherwise. Takes no memory, however many it says.

        Raises:
            ConfigError: if it is no number, or not the number of names in `id2label`.
        """
        count, given = self.extra.get("num_labels"), self.extra.get("id2label")
        if count is not None and (not is_whole(count) or not 1 <= count <= MAX_SIZE):
            raise ConfigError(f"num_labels is {quoted(count)}; it must be a whole number of at least 1.")
        if given is None:
            return count or 2
        numbers = {str(label) for label in given} if isinstance(given, Mapping) else set()
        if (
            not numbers
            or numbers != {str(label) for label in range(len(numbers))}
            or len(numbers) != (count or len(numbers))
        ):
            raise ConfigError(
                f"id2label is {quoted(given)}; it must be an object with a name for each of the numbers 0, 1, 2, ..."
                f"{'' if count is None else f' (num_labels is {count})'}."
            )
        return len(numbers)

    @property
    def problem_type(self) -> str | None:
        """Which loss labels are compared with, one of `PROBLEM_TYPES`; None: it follows from the labels.

        Raises:
            ConfigError: for another one.
        """
        found = self.extra.get("problem_type")
        if found is not None and not (isinstance(found, str) and found in PROBLEM_TYPES):
            raise ConfigError(f"problem_type is {quoted(found)}; it is null or one of {', '.join(PROBLEM_TYPES)}.")
        return found

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that config.json names; () where it names none, or holds no list there."""
        found = self.extra.get("architectures")
        return tuple(map(str, found)) if isinstance(found, list | tuple) else ()

    # ---- in and out -------------------------------------------------------------------------------------------------

    def settings_of_task(self, task: str) -> dict[str, Any]:
        """What config.json has for a task of transformers' pipeline, in task_specific_params; {} for nothing."""
        tasks = self.extra.get("task_specific_params")
        found = tasks.get(task) if isinstance(tasks, dict) else None
        return dict(found) if isinstance(found, dict) else {}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LEDConfig":
        """The configuration that a config.json's content describes.

        Args:
            values: the parsed JSON object. Keys that LEDConfig has no field for are kept in `extra`.

        Raises:
            ConfigError: if `model_type` names another model, a value cannot be, or a key and its second name in
                transformers (d_model is hidden_size) disagree.
        """
        if not isinstance(values, Mapping):
            raise wrong_type("values", values, "a dict: the content of config.json")
        if OTHER_KEYS & values.keys():
            values = in_led_form(values)
        model_type = values.get("model_type", "led")
        if model_type != "led":
            raise ConfigError(
                f"model_type is {quoted(model_type)}; led_ref runs 'led' only. Name a folder or Hub model that holds an LED, "
                "for example allenai/led-base-16384."
                + (" `led-ref convert --from-bart` makes an LED of a BART." if model_type == "bart" else "")
            )
        known = {f.name for f in fields(cls)} - {"extra"}
        extra = {key: value for key, value in values.items() if key not in known and key != "model_type"}
        return cls(**{key: value for key, value in values.items() if key in known}, extra=extra)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, revision: str | None = None) -> "LEDConfig":
        """Read config.json of a folder (or the file itself, if that is named), or of a model on the Hub.

        Args:
            folder: a path, or `organisation/model` on the Hub; weights are not downloaded.
            revision: branch, tag or commit on the Hub.

        Raises:
            MissingFileError: if there is no config.json.
            ConfigError: if it is not a JSON object, or describes no possible LED.
        """
        path = config_file(folder, revision)
        values = read_json_object(path, finite=False)  # the checks below name the key
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """All fields and extra keys as one JSON-ready dictionary; `LEDConfig.from_dict(c.to_dict()) == c`."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
        return {"model_type": "led", **values, **copy.deepcopy(dict(self.extra))}

    def save(self, folder: str | Path) -> Path:
        """Write config.json into a folder, which is made if needed. Returns the file's path.

        Raises:
            ConfigError: if `extra` holds what JSON has no form for; nothing is written then.
            InputError: for a name that cannot be; WriteError: if the disk does not take the file.
        """
        path = to_write("folder", folder) / "config.json"
        try:
            text = json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ConfigError(f"extra cannot be written as JSON ({error}). Keep plain JSON values in it.") from error
        return write_text(path, text)

    def save_pretrained(self, save_directory: str | Path) -> Path:
        """`save`, by transformers' name."""
        return self.save(save_directory)


def config_file(folder: str | Path, revision: str | None = None) -> Path:
    """The config.json of a folder or of a model on the Hub, or the file itself, if that is named.

    Raises:
        MissingFileError: if there is none.
    """
    if not isinstance(folder, str | os.PathLike):
        raise wrong_type("folder", folder, "a text or a path")
    path = Path(folder) if revision is None and os.path.exists(folder) else named(folder, (), revision)
    path = path if os.path.isfile(path) else path / "config.json"
    if not os.path.isfile(path):
        raise MissingFileError(
            f"There is no file {printable(str(path))}. A model's folder holds config.json beside its weights; "
            "copy the checkpoint's config.json there, or name another folder."
        )
    return path


def _checked_extra(config: LEDConfig) -> dict[str, Any]:
    """A copy of `extra`, which holds other keys than the fields, and no number that JSON does not have."""
    if not isinstance(config.extra, Mapping):
        raise wrong_type("extra", config.extra, "a dict of further keys of config.json")
    extra = dict(config.extra)
    double = sorted(extra.keys() & {"model_type", *(f.name for f in fields(config))})
    if double:
        raise ConfigError(f"extra holds {double[0]!r}, which LEDConfig has a field for. Set the field.")
    for key, number in _floats(extra):
        if not math.isfinite(number):
            raise ConfigError(f"{key} is {number}, a number that JSON does not have. Write null, or leave {key} out.")
    return copy.deepcopy(extra)


def _floats(values: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """Every float within nested lists and dictionaries, with the way to it; ConfigError if they are nested without end."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"extra holds lists and objects nested more than {MAX_DEPTH} deep. Leave {path[:40]} out.")
    if isinstance(values, float):
        yield path, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _floats(value, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(values, list | tuple):
        for i, value in enumerate(values):
            yield from _floats(value, f"{path}[{i}]", depth + 1)


def _check_numbers(config: LEDConfig) -> None:
    """Sizes are whole numbers of at least 1 (layers: 0), switches are booleans, and the heads share d_model evenly.

    A switch must be a boolean because the text "false" would count as true; the training settings must be numbers
    because transformers refuses a config.json in which they are not.
    """
    for f in fields(config):
        value = getattr(config, f.name)
        least, most = (0, MAX_LAYERS) if f.name.endswith("_layers") else (1, MAX_SIZE)
        if f.type is int and not f.name.endswith("_id") and not (is_whole(value) and least <= value <= most):
            wanted = f"at most {most:,}" if is_whole(value) and value > most else f"at least {least}"
            raise ConfigError(f"{f.name} is {quoted(value)}; it must be a whole number of {wanted}.")
        if f.type is bool and not isinstance(value, bool):
            raise ConfigError(f"{f.name} is {quoted(value)}; it must be true or false.")
        if f.type is float and not is_finite(value):
            raise ConfigError(f"{f.name} is {quoted(value)}; it must be a finite number, such as {f.default}.")
        if f.type is float and (value < 0 or (f.name != "init_std" and value > 1)):
            wanted = "of at least 0" if f.name == "init_std" else "from 0 to 1"
            raise ConfigError(f"{f.name} is {quoted(value)}; it must be a number {wanted}.")
    for name in ("encoder_attention_heads", "decoder_attention_heads"):
        heads = getattr(config, name)
        if config.d_model % heads:
            raise ConfigError(
                f"d_model {config.d_model} cannot be divided among {name} {heads}. Choose a divisor of it."
            )


def _check_windows(config: LEDConfig) -> None:
    """One even window, or one even window for each encoder layer."""
    given = config.attention_window
    if isinstance(given, tuple) and len(given) != config.encoder_layers:
        raise ConfigError(
            f"attention_window has {len(given)} entries. Give one, or one for each layer ({config.encoder_layers})."
        )
    for window in given if isinstance(given, tuple) else (given,):
        if not is_whole(window) or not 2 <= window <= MAX_SIZE or window % 2:
            raise ConfigError(
                f"attention_window holds {quoted(window)}; each window is the total width 2R and so an even number of at least "
                "2. (Is it a radius? Double it.)"
            )


def _check_special_ids(config: LEDConfig) -> None:
    """Special ids are whole numbers within the vocabulary."""
    for name in ("decoder_start_token_id", "pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(config, name)
        several = name == "eos_token_id" and isinstance(value, tuple)
        for token in value if several else (value,):
            if token is None and name != "decoder_start_token_id" and not several:
                continue
            if not is_whole(token) or not 0 <= token < config.vocab_size:
                raise ConfigError(
                    f"{name} is {quoted(value)}; ids lie in 0 ... {config.vocab_size - 1} (vocab_size - 1)."
                )
