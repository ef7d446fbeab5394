"""The exceptions of led_ref. Every message gives the found value and the remedy.

Each class is also a subclass of a built-in exception, so that `except ValueError` catches it, too.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

MAX_MESSAGE = 4000  # characters; the longest useful messages list some fifty settings or tensors
_LONG_WORD = re.compile(r"\S{500,}")


class LEDError(Exception):
    """The base class of all errors of led_ref. A message of more than `MAX_MESSAGE` characters is cut, as is an endless word.

    Where several documents were given and some failed, `texts` has the result of each of the others, and None for these.
    """

    texts: Sequence[Any] | None = None

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(_readable(part) if isinstance(part, str) else part for part in arguments))


class ConfigError(LEDError, ValueError):
    """An invalid configuration: an odd window, heads that do not divide d_model, a config.json of another model."""


class CheckpointError(LEDError, ValueError):
    """A weight file that is damaged, hostile, incomplete, or of another shape than the configuration's."""


class MissingFileError(LEDError, FileNotFoundError):
    """A file, folder or Hub name that does not exist. The message names the files to add and their folder."""


class InputError(LEDError, ValueError):
    """An invalid argument: ids out of range, masks of another shape, a document that is too long."""


class SettingsError(InputError):
    """A generation setting that does not exist (the nearest known one is named) or that contradicts another."""


class ArgumentTypeError(SettingsError, TypeError):
    """An argument or setting of a type that it does not take. The message names it, the found value, and what it takes."""


class BackendError(LEDError, RuntimeError):
    """A backend that does not exist or cannot run here."""


class WriteError(LEDError, OSError):
    """A file that the system does not take: a full disk, a folder without permission, a name that is too long."""

    @classmethod
    def of(cls, path: object, error: OSError) -> "WriteError":
        """The error of the system while `path` was written, with its number (`errno`)."""
        found = f"{quoted(str(path), 120)[1:-1]} cannot be written ({reason_of(error)})"
        made = cls(f"{found}. See to its name, its permissions and the disk's space.")
        made.errno, made.strerror = error.errno, error.strerror
        return made

    def __str__(self) -> str:
        """The message; OSError's own would be the number and the system's words alone."""
        return str(self.args[0])


def reason_of(error: Exception) -> str:
    """What an error says: of one of the system its words alone, without number and file."""
    return getattr(error, "strerror", None) or str(error)


def printable(name: str) -> str:
    r"""A file's name as a text that UTF-8 can hold: bytes that are no UTF-8 (Python reads them as surrogates) become escapes.

    Example:
        >>> printable("paper\udcff.txt")
        'paper\\udcff.txt'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def wrong_type(name: str, value: object, takes: str) -> ArgumentTypeError:
    """The error for an argument of a wrong type: `takes` says in words what it takes."""
    kind = type(value).__name__
    return ArgumentTypeError(
        f"{name} is {quoted(value)}, {'an' if kind[:1] in 'aeiouAEIOU' else 'a'} {kind}; it takes {takes}."
    )


def wrong_call(name: str, known: Iterable[str], given: Iterable[str], error: Exception) -> ArgumentTypeError:
    """The error for arguments that a function does not have: `known` are those that it has, `given` those given by name."""
    known = [one for one in known if one != "self"]
    for wrong in given:
        if wrong not in known and (near := nearest(wrong, known)):
            # Python's own words may be on the argument that is missing because it was misspelt.
            return ArgumentTypeError(f"{name} has no argument {wrong!r}. Did you mean {near!r}?")
    return ArgumentTypeError(f"{name}: {error}. It takes {', '.join(known)}.")


def items_of(name: str, value: Any, takes: str) -> list[Any]:
    """The items of an argument that has an order: no text, bytes, set or mapping.

    Raises:
        ArgumentTypeError: naming the argument, its value and what it takes.
    """
    if isinstance(value, str | bytes | bytearray | Set | Mapping):
        raise wrong_type(name, value, takes)
    try:
        return list(value)
    except Exception as error:  # of what cannot be iterated, or whatever another library's iterator raises
        raise wrong_type(name, value, takes) from error


def quoted(value: object, most: int = 200) -> str:
    """A value for a message: its repr, cut in the middle where it is longer than `most` characters."""
    if isinstance(value, str) and len(value) > 2 * MAX_MESSAGE:  # do not copy a value of many megabytes for its ends
        return f"{value[: most // 2]!r} ... {value[-most // 4 :]!r} ({len(value):,} characters)"
    try:
        text = repr(value)
    except Exception as error:  # a foreign __repr__ must not hide the message that it is for
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return _cut(text, most)


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """The known name that a misspelt one most likely means: the most similar, else the only one that begins so; or None.

    `-` and `_` are the same here, and so are capitals and small letters.

    Example:
        >>> nearest("--max_new_tokens", ["--max-length", "--max-new-tokens"]), nearest("verbose", ["revision"])
        ('--max-new-tokens', None)
    """
    of = {_plain(one): one for one in reversed([*known])}
    near = difflib.get_close_matches(_plain(name), of, n=1, cutoff=cutoff)
    if not near and len(_plain(name)) > 2:
        near = [one for one in of if one.startswith(_plain(name))]
    return of[near[0]] if len(near) == 1 else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").strip("_")


def _readable(message: str) -> str:
    """A message that a value of many characters does not fill."""
    return _LONG_WORD.sub(lambda word: _cut(word[0], 160), _cut(message, MAX_MESSAGE))


def _cut(text: str, most: int) -> str:
    """A text, or its beginning and its end if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} ... {text[-most // 4 :]} ({len(text):,} characters)"
