r"""Read a text file: plain text, Markdown, gzip, a rendered manual page, standard input.

    read_document("page.txt.gz")        the text of the file
    read_document("-")                  the text of standard input

A file is UTF-8 or it is refused; nothing is guessed. Three things are removed, because they are typography and not text: a
byte order mark, a terminal's overstriking (`N\bN` for a bold N) and its escape sequences (`ESC [1m`). For the same reason a
line ends with a line feed, whatever it ends with in the file: CR LF and a lone CR would be other ids for the same text.

This file unpacks no other format: for a PDF, HTML or a word processor's file, the error names the command that converts it. Of
HTML the text without its tags would still hold menus, scripts and notes, and a summary would be of these as well.
"""

import gzip
import io
import os
import re
import sys
import zlib
from pathlib import Path

from led_ref.errors import InputError, MissingFileError
from led_ref.files.json_file import with_line_feeds

# A gzip file may expand a thousandfold; a document of this size is beyond any LED's 16,384 tokens a hundred times over.
MOST_BYTES = 64 * 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"

# Common formats of documents: the first bytes, the name of the format, the command that converts it to text.
_NOT_TEXT = (
    (b"%PDF", "a PDF", "pdftotext {name} - | led-ref summarize -"),
    (b"PK\x03\x04", "a zip archive (.docx, .odt and .epub are such)", "pandoc -t plain {name} | led-ref summarize -"),
    (b"{\\rtf", "a rich text file", "pandoc -t plain {name} | led-ref summarize -"),
    (b"\xfd7zXZ", "compressed with xz", "xz -dc {name} | led-ref summarize -"),
    (b"BZh", "compressed with bzip2", "bzip2 -dc {name} | led-ref summarize -"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc {name} | led-ref summarize -"),
)

_HTML_NAMES = (".html", ".htm", ".xhtml")

# The documents of a folder, packed or not.
_DOCUMENTS = (".txt", ".md", ".text", ".markdown")

# The suffixes of files of weights.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")

# The first line of a manual page before rendering: a comment or a request of roff.
_ROFF = re.compile(r"""'\\"|\.(?:\\"|(?:TH|Dd|SH|so|de|ig|if|nr|ds)\b)""")

# Colours and bold face (ESC [ ... m), and groff's hyperlinks (ESC ] 8 ; ... ESC \).
_ESCAPES = re.compile("\x1b\\[[0-9;:]*m|\x1b\\]8;[^\x1b\x07]*(?:\x1b\\\\|\x07)")


def read_document(name: str) -> str:
    """The text of a file, or of standard input if the name is "-".

    Args:
        name: a path. A file that begins with gzip's magic number is unpacked, whatever its name.

    Raises:
        MissingFileError: if no such file exists.
        InputError: if it is a folder, empty, not UTF-8, damaged, larger than 64 MiB, or the source of a manual page.
    """
    if name == "-":
        if sys.stdin is None:
            raise InputError("There is no standard input: it is closed. Name a file, or send text through a pipe.")
        return decode_document(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input")
    path = Path(name)
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder. Name the files in it, for example {path}/*.txt.")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise MissingFileError(f"There is no file {path}. Check the name; to read standard input, write -.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}). Check its name and permissions.") from error
    return decode_document(content, str(path))


def documents_of_folder(folder: Path, without: Path | None = None) -> tuple[list[str], list[str]]:
    """The paths of the documents in a folder and the folders in it, by their names, and the names of what else is there.

    Hidden files are neither, and symbolic links to folders are not followed.

    Args:
        folder: to be looked through.
        without: a folder to leave out, such as that of results.

    Raises:
        InputError: if a folder cannot be listed, or there is no document.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be listed ({error.strerror}). Check its permissions.") from error

    documents, others = list[str](), list[str]()
    for place, folders, names in os.walk(folder, onerror=fail):
        below = [Path(place, name) for name in folders if not name.startswith(".")]
        folders[:] = sorted(path.name for path in below if without is None or path.resolve() != without.resolve())
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            is_document = path.name.lower().removesuffix(".gz").endswith(_DOCUMENTS)
            (documents if is_document and path.is_file() else others).append(str(path))
    if not documents:
        raise InputError(
            f"The folder {folder} holds no document: no file whose name ends in {', '.join(_DOCUMENTS)}, with .gz or without. "
            "Name the files, or another folder."
        )
    return sorted(documents), sorted(os.path.relpath(other, folder) for other in others)


def decode_document(content: bytes, name: str) -> str:
    r"""Decode the bytes of a document to text.

    Args:
        content: the bytes of the file; gzip is unpacked.
        name: the document's name in errors.

    Raises:
        InputError: as `read_document`.

    Example:
        >>> decode_document(b"N\bNA\bAM\bME\bE\n", "a page")
        'NAME\n'
    """
    if content.startswith(_GZIP_MAGIC):
        content = _unpack(content, name)
    if b"\0" in content and name.lower().endswith(_WEIGHTS):
        raise InputError(
            f"{name} is not text: that is a model. Give its folder as --model FOLDER, and a document as FILE."
        )
    _refuse_other_formats(content, name)
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{name} is larger than {MOST_BYTES >> 20} MiB. Split it: no LED reads more than some 100 KB of text."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from the byte after a byte order mark, if the file has one.
        start = error.start + len(content) - len(error.object)
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise InputError(
            f"{name} is not UTF-8: byte 0x{content[start]:02x} at position {start}. "
            f"Convert it first, for example: iconv -f {'utf-16' if is_utf16 else 'latin1'} -t utf-8 {name}"
        ) from None
    if _ROFF.match(text):
        raise InputError(
            f"{name} is the source of a manual page (roff). Render it first: man ./page | led-ref summarize -"
        )
    text = _without_overstriking(with_line_feeds(_ESCAPES.sub("", text)))
    if not text.strip():
        blanks = f" but for {len(text)} blanks" if text else ""
        raise InputError(f"{name} is empty{blanks}: there is nothing to read. Give a document with text in it.")
    return text


def _refuse_other_formats(content: bytes, name: str) -> None:
    """Refuse other formats and UTF-16; UTF-16 with a byte order mark is left to the decoder's message."""
    for beginning, what, remedy in _NOT_TEXT:
        if content.startswith(beginning):
            raise InputError(f"{name} is {what}, not text. Convert it first, for example: {remedy.format(name=name)}")
    beginning = content[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_html = beginning.startswith((b"<!doctype html", b"<html")) or (
        beginning.startswith((b"<?xml", b"<!--")) and (b"<html" in beginning or b"<!doctype html" in beginning)
    )
    if is_html or name.lower().removesuffix(".gz").endswith(_HTML_NAMES):
        raise InputError(
            f"{name} is HTML, not text. Convert it first, for example: pandoc -f html -t plain {name} | led-ref summarize -"
        )
    if b"\0" not in content or content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    where = content.index(b"\0")
    # In UTF-16 every other byte of English is a NUL, and no byte between.
    even, odd = content[:4096:2], content[1:4096:2]
    for zeros, others in ((even, odd), (odd, even)):
        if zeros.count(0) > 0.8 * len(zeros) and not others.count(0):
            order = "be" if zeros is even else "le"
            raise InputError(
                f"{name} holds a NUL at position {where}, as UTF-16 does. "
                f"Convert it first: iconv -f utf-16{order} -t utf-8 {name}"
            )
    raise InputError(f"{name} is a binary file, not text (a NUL at position {where}). Give a document: text in UTF-8.")


def _unpack(content: bytes, name: str) -> bytes:
    """Unpack gzip, at most one byte above the limit."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} begins as gzip does, but cannot be unpacked ({error}). Fetch it again.") from None


def _without_overstriking(text: str) -> str:
    """Keep the last of the characters that a terminal prints over each other: a backspace removes the one before it."""
    if "\b" not in text:
        return text
    kept: list[str] = []
    for character in text:
        if character != "\b":
            kept.append(character)
        elif kept and kept[-1] != "\n":
            kept.pop()
    return "".join(kept)
