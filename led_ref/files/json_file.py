"""Read JSON that holds one object: config.json, vocab.json, the header of a safetensors file. Errors name file and remedy.

Files are untrusted. A few bytes of JSON can become a Python object of a hundred, so the limits below hold before anything
is parsed or right after it, and every number and text that is handed on is one that the rest of the code can use:

    MAX_BYTES    of a file; the largest of an LED, tokenizer.json, has 3.5 million
    MAX_MARKS    commas, brackets and braces: at most so many values; the tokenizer.json of an LED has 400 thousand
    MAX_DEPTH    of nested lists and objects; a tokenizer.json has 7
    MAX_DIGITS   of a whole number; "no limit" in a tokenizer_config.json is one of 31

Refused besides: Infinity and NaN (JSON has neither), numbers too large for a float, and halves of a surrogate pair, which
no text has and no file can be written with.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsFloat, TypeGuard

from led_ref.errors import ConfigError, LEDError, quoted
from led_ref.files.staging import naming, new_file

MAX_BYTES = 1 << 24
MAX_MARKS = 1_000_000
MAX_DEPTH = 64
MAX_DIGITS = 40

_REMEDY = "Fetch the file again."


def read_json_object(
    path: Path,
    *,
    error_class: type[LEDError] = ConfigError,
    remedy: str = _REMEDY,
    unique_names: bool = False,
    finite: bool = True,
    most_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """The object that a file holds.

    Args:
        path: the file.
        error_class: the class of the errors.
        remedy: the last sentence of each error.
        unique_names: refuse a name that occurs twice in an object; otherwise its last value counts, as in Python's json.
        finite: refuse NaN, Infinity and numbers that are too large for a float; False: the caller checks its numbers, and
            names them better.
        most_bytes: that the file may have.

    Raises:
        LEDError: of `error_class`, if the file cannot be read, exceeds a limit, is not JSON, or holds something other than
            an object.
    """
    text = read_text(path, error_class=error_class, remedy=remedy, most_bytes=most_bytes)
    try:
        values = parse_json(text, parse_object=unique_object if unique_names else None, finite=finite)
    except ValueError as error:
        raise error_class(f"{path} is not JSON ({error}). {remedy}") from error
    if not isinstance(values, dict):
        raise error_class(f"{path} holds a JSON {type(values).__name__}, not an object. {remedy}")
    return values


def parse_json(
    text: str,
    *,
    finite: bool = True,
    parse_object: Callable[[list[tuple[str, Any]]], Any] | None = None,
    parse_number: Callable[[str], Any] | None = None,
) -> Any:
    """The value of a JSON text, within the limits of this file.

    Args:
        text: the JSON.
        finite: as in `read_json_object`.
        parse_object: makes every object from its names and values, such as `unique_object`; None: a dict.
        parse_number: makes every number from its text; None: int and float.

    Raises:
        ValueError: saying in a few words what is wrong.
    """
    marks = sum(map(text.count, ",[{"))
    if marks > MAX_MARKS:
        raise ValueError(f"it has {marks:,} lists and commas; the limit is {MAX_MARKS:,}")
    try:
        values = json.loads(
            text,
            object_pairs_hook=parse_object,
            parse_int=parse_number or _whole_number,
            parse_float=parse_number or (_finite if finite else float),
            parse_constant=parse_number or (_finite if finite else float),
        )
    except RecursionError:
        raise ValueError(f"its lists and objects are nested more than {MAX_DEPTH} deep") from None
    _check_depth(values)
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(values)
    return values


def read_text(
    path: Path, *, error_class: type[LEDError] = ConfigError, remedy: str = _REMEDY, most_bytes: int = MAX_BYTES
) -> str:
    """The text of a UTF-8 file of at most `most_bytes`, its line ends unchanged; errors as in `read_json_object`."""
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise error_class(f"{path} has {path.stat().st_size:,} bytes; the limit is {most_bytes:,}. {remedy}")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise error_class(f"{path} is not UTF-8: byte {error.start} is {found:#04x}. {remedy}") from error
    except OSError as error:
        raise error_class(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error


def with_line_feeds(text: str) -> str:
    r"""The text with a line feed at the end of each line: CR LF (Windows) and a lone CR (old Macs) become one.

    Example:
        >>> with_line_feeds("a\r\nb\rc\n")
        'a\nb\nc\n'
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write_text(path: Path, text: str, place: Path | None = None) -> Path:
    """Write a UTF-8 file whole or not at all, in a folder that is made if needed; `place`, errors as in new_file. Its path."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, place) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return path


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an int, and no bool: in Python True is an int, too."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite float, or an int that fits into one."""
    return (isinstance(value, float) or is_whole(value)) and fits_float(value)


def fits_float(number: SupportsFloat) -> bool:
    """Whether a number, NumPy's too, is finite as a float: a whole number may be too large for one."""
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


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


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it holds the number {quoted(digits, 40)} of {len(digits)} digits; the limit is {MAX_DIGITS}")
    return int(digits)


def _finite(digits: str) -> float:
    """A float; Python's json reads NaN, Infinity and -Infinity as numbers, too."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"it holds {quoted(digits, 40)}, which is no finite number")
    return number


def _check_depth(values: Any) -> None:
    """Walk level by level, so that no depth can exhaust the walk's own stack."""
    level = [values]
    for _ in range(MAX_DEPTH + 1):
        inner = []
        for value in level:
            parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            inner += [part for part in parts if isinstance(part, dict | list)]
        if not inner:
            return
        level = inner
    raise ValueError(f"its lists and objects are nested more than {MAX_DEPTH} deep")


def _check_surrogates(values: Any) -> None:
    r"""Half of a surrogate pair, "\\ud800" alone, is no character."""
    try:
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds {error.object[error.start]!a}, half of a surrogate pair") from None
