r"""From a file to text: plain text, Markdown, gzip, rendered manual pages, standard input.

    read_document("page.txt.gz")        the text of the file
    read_document("-")                  the text that comes through the pipe
    manual_page_body(text)              a rendered manual page as the bundled model's training pages were

A file is UTF-8 or it is refused; nothing is guessed and nothing is replaced. Three things are taken away, because they are
ink and not text: a byte order mark, a terminal's overstriking (`N\bN` for a bold N) and its escape sequences (`ESC [1m`).

This file unpacks no other format: a PDF or a word processor's file is refused with the command that makes text of it.
"""

import gzip
import io
import re
import sys
import zlib
from pathlib import Path

from led_ref.errors import InputError, MissingFileError

# A gzip file may expand a thousandfold; a document of this size is beyond any LED's 16,384 tokens a hundred times over.
MOST_BYTES = 64 * 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"

# Formats that people have their documents in: how the file begins, what it is, what makes text of it.
_NOT_TEXT = (
    (b"%PDF", "a PDF", "pdftotext {name} - | led-ref summarize -"),
    (b"PK\x03\x04", "a zip archive (.docx, .odt and .epub are such)", "pandoc -t plain {name} | led-ref summarize -"),
    (b"{\\rtf", "a rich text file", "pandoc -t plain {name} | led-ref summarize -"),
    (b"\xfd7zXZ", "compressed with xz", "xz -dc {name} | led-ref summarize -"),
    (b"BZh", "compressed with bzip2", "bzip2 -dc {name} | led-ref summarize -"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc {name} | led-ref summarize -"),
)

# What weights are kept in.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")

# The first line of a manual page that is not rendered: a comment or a request of roff.
_ROFF = re.compile(r"""'\\"|\.(?:\\"|(?:TH|Dd|SH|so|de|ig|if|nr|ds)\b)""")

# The first line of one that is: TAR(1)   GNU TAR Manual   TAR(1)
_TITLE = re.compile(r"\s*(\S+\(\d\w*\))\s+(?:\S.*?\s+)?\1\s*\Z")

# Colours and bold face (ESC [ ... m), and groff's hyperlinks (ESC ] 8 ; ... ESC \).
_ESCAPES = re.compile("\x1b\\[[0-9;:]*m|\x1b\\]8;[^\x1b\x07]*(?:\x1b\\\\|\x07)")


def read_document(name: str) -> str:
    """The text of a file, or of standard input if the name is "-".

    Args:
        name: a path. What begins as gzip does is unpacked, whatever its name.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is a folder, empty, not UTF-8, damaged, larger than 64 MiB, or the source of a manual page.
    """
    if name == "-":
        if sys.stdin is None:
            raise InputError("There is no standard input: it is closed. Name a file, or send text through a pipe.")
        return decode_document(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input")
    path = Path(name)
    if path.is_dir():
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


def decode_document(content: bytes, name: str) -> str:
    r"""The text that the bytes of a document hold.

    Args:
        content: as read; gzip is unpacked.
        name: what to call the document in errors.

    Raises:
        InputError: see `read_document`.

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
        # The codec counts from behind a byte order mark, if there is one.
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
    text = _without_overstriking(_ESCAPES.sub("", text))
    if not text.strip():
        blanks = f" but for {len(text)} blanks" if text else ""
        raise InputError(f"{name} is empty{blanks}: there is nothing to read. Give a document with text in it.")
    return text


def _refuse_other_formats(content: bytes, name: str) -> None:
    """Refuse what is no text, or text in UTF-16; one with a byte order mark is left to the decoder's message."""
    for beginning, what, remedy in _NOT_TEXT:
        if content.startswith(beginning):
            raise InputError(f"{name} is {what}, not text. Convert it first, for example: {remedy.format(name=name)}")
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
    """Unpack gzip, at most a byte more than is allowed."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} begins as gzip does, but cannot be unpacked ({error}). Fetch it again.") from None


def _without_overstriking(text: str) -> str:
    """Leave of the characters that a terminal prints over each other the last: a backspace takes away what is before it."""
    if "\b" not in text:
        return text
    kept: list[str] = []
    for character in text:
        if character != "\b":
            kept.append(character)
        elif kept and kept[-1] != "\n":
            kept.pop()
    return "".join(kept)


def is_manual_page(text: str) -> bool:
    r"""Whether the first line is that of a rendered manual page.

    Example:
        >>> is_manual_page("GZIP(1)      General Commands Manual      GZIP(1)\n\nNAME ..."), is_manual_page("See gzip(1).")
        (True, False)
    """
    return _TITLE.match(text.lstrip().partition("\n")[0]) is not None


def manual_page_body(text: str) -> str:
    r"""A rendered manual page as the bundled model was trained on them: what it is about, without the ink of the page.

    Title, footer and the NAME section go (the model is to write that one); lines that `man` broke at the edge of the
    terminal are joined again; runs of blanks become one, and empty lines go.

    Args:
        text: what `man PAGE` prints through a pipe, of any width. Line breaks that the page's author set are kept, as far
            as they can be told: a line is taken to be broken by `man` if the next one's first word would not have fitted.

    Example:
        >>> page = "LS(1)      LS(1)\n\nNAME\n   ls - list\n\nDESCRIPTION\n   Lists what  a\n   directory holds.\n\nGNU"
        >>> manual_page_body(page)
        'DESCRIPTION\nLists what a directory holds.'
    """
    lines = [line.rstrip() for line in text.expandtabs().strip("\n").split("\n")]
    inner = lines[1:-1]  # without title and footer
    name = next((i for i, line in enumerate(inner) if line.strip() in ("NAME", "Name")), None)
    if name is not None:
        start = next((i for i in range(name + 1, len(inner)) if inner[i]), len(inner))
        end = next((i for i in range(start, len(inner)) if not inner[i]), len(inner))
        inner = inner[:name] + inner[end:]
    width = len(lines[0])  # the title goes from edge to edge
    joined: list[str] = []
    before = ""
    for line in inner:
        if line and before and _goes_on(before, line, width):
            # A hyphen of man's own (U+2010) goes; one that stands in the text stays, and takes no blank.
            start_of_line = joined.pop()
            between = "" if re.search("\u2010$|\\S-$", start_of_line) else " "
            joined.append(start_of_line.removesuffix("\u2010") + between + line.strip())
        elif line:
            joined.append(line)
        before = line
    return "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in joined)


def _goes_on(line: str, following: str, width: int) -> bool:
    """Whether `man` broke a paragraph between two lines: the first is full, the second begins where the text does."""
    margin = len(following) - len(following.lstrip())
    own = len(line) - len(line.lstrip())
    # The text of "-d   Decompress ..." begins behind the tag, and goes on below itself.
    is_below_text = margin == own or (
        own < margin < len(line) and line[margin - 2 : margin].isspace() and line[margin] != " "
    )
    return is_below_text and len(line) + 1 + len(following.split()[0]) > width
