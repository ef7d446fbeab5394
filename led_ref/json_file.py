"""Read a JSON file that holds one object: config.json, vocab.json, the index of shards. Errors name the file and the remedy."""

import json
from pathlib import Path
from typing import Any, TypeGuard

from led_ref.errors import ConfigError, LEDError

_REMEDY = "Fetch the file again."


def read_json_object(
    path: Path, *, error_class: type[LEDError] = ConfigError, remedy: str = _REMEDY, unique_names: bool = False
) -> dict[str, Any]:
    """The object that a file holds.

    Args:
        path: the file.
        error_class: the class of the errors.
        remedy: the last sentence of each error.
        unique_names: refuse a name that occurs twice in an object; otherwise its last value counts, as in Python's json.

    Raises:
        LEDError: of `error_class`, if the file cannot be read, is not JSON, or holds something other than an object.
    """
    text = read_text(path, error_class=error_class, remedy=remedy)
    try:
        values = json.loads(text, object_pairs_hook=unique_object if unique_names else None)
    except (
        ValueError,
        RecursionError,
    ) as error:  # not JSON, a repeated name, a number of 5,000 digits, endless nesting
        raise error_class(f"{path} is not JSON ({error}). {remedy}") from error
    if not isinstance(values, dict):
        raise error_class(f"{path} holds a JSON {type(values).__name__}, not an object. {remedy}")
    return values


def read_text(path: Path, *, error_class: type[LEDError] = ConfigError, remedy: str = _REMEDY) -> str:
    """The text of a UTF-8 file, its line ends unchanged; errors as in `read_json_object`."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise error_class(f"{path} is not UTF-8: byte {error.start} is {found:#04x}. {remedy}") from error
    except OSError as error:
        raise error_class(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file whole or not at all, in a folder that is made if needed. Returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an int, and no bool: in Python True is an int, too."""
    return isinstance(value, int) and not isinstance(value, bool)


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of json that refuses repeated names; without it, json keeps the last value.

    Raises:
        ValueError: naming the first name that occurs twice, cut to 200 characters.
    """
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"it holds the name {name[:200]!r} twice")
        values[name] = value
    return values
