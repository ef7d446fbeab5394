r"""From a file to text: plain text, Markdown, gzip, rendered manual pages, standard input.

A file is UTF-8 or it is refused; nothing is guessed and nothing is replaced. Two things are taken away, because they are
ink and not text: a byte order mark, and a terminal's overstriking (`N\bN` for a bold N) in rendered manual pages.
"""

import gzip
import re
import sys
import zlib
from pathlib import Path

from led_ref.errors import InputError, MissingFileError

# A gzip file may expand a thousandfold; a document of this size is beyond any LED's 16,384 tokens a hundred times over.
MOST_BYTES = 64 * 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"


def read_document(name: str) -> str:
    """The text of a file, or of standard input if the name is "-".

    Args:
        name: a path. What begins as gzip does is unpacked, whatever its name.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is a folder, empty, not UTF-8, damaged, larger than 64 MiB, or the source of a manual page.
    """
    if name == "-":
        return decode_document(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input")
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{path} is a folder. Name the files in it, for example {path}/*.txt.")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise MissingFileError(f"There is no file {path}. Check the name; to read standard input, write -.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    return decode_document(content, str(path))


def decode_document(content: bytes, name: str) -> str:
    r"""The text that the bytes of a document hold.

    Args:
        content: as read; gzip is unpacked.
        name: what to call the document in errors.

    Example:
        >>> decode_document(b"N\bNA\bAM\bME\bE\n", "a page")
        'NAME\n'
    """
    if content.startswith(_GZIP_MAGIC):
        content = _unpack(content, name)
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{name} is larger than {MOST_BYTES >> 20} MiB. Split it: no LED reads more than some 100 KB of text."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not UTF-8: byte 0x{content[error.start]:02x} at position {error.start}. "
            f"Convert it first, for example: iconv -f latin1 -t utf-8 {name}"
        ) from None
    if text.startswith(('.\\"', "'\\\"", ".TH ", ".Dd ")):
        raise InputError(
            f"{name} is the source of a manual page (roff). Render it first: man ./page | led-ref summarize -"
        )
    text = _without_overstriking(text)
    if not text.strip():
        raise InputError(f"{name} is empty: there is nothing to read. Give a file with text in it.")
    return text


def _unpack(content: bytes, name: str) -> bytes:
    """Unpack gzip, at most a byte more than is allowed."""
    import io

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} begins as gzip does, but cannot be unpacked ({error}). Fetch it again.") from None


def _without_overstriking(text: str) -> str:
    """Drop what a terminal would print over: a character and the backspace behind it, as long as there are any."""
    while "\b" in text:
        shorter = re.sub("[^\b\n]\b", "", text)
        text = shorter if shorter != text else text.replace("\b", "")
    return text
