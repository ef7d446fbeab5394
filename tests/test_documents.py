"""From a file to text: what is read, what is taken away, what is refused."""

import gzip
import io
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest

from led_ref.bundled.manual_pages import is_manual_page, manual_page_body
from led_ref.errors import InputError, MissingFileError
from led_ref.pipelines import text_files as documents
from led_ref.pipelines.text_files import decode_document, read_document

# Without the time of day: it would be in these tests' names, and two processes that share the tests would not agree on them.
packed = partial(gzip.compress, mtime=0)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"plain\n", "plain\n"),
        ("Ünïcode \U0001f600\n".encode(), "Ünïcode \U0001f600\n"),
        (b"CR LF\r\nand CR\rand\n\r\n\rLF\n", "CR LF\nand CR\nand\n\n\nLF\n"),
        (packed(b"_\bt_\ba\r\n\b\x1b[1mpacked\r"), "ta\npacked\n"),
        (b"\xef\xbb\xbfa byte order mark", "a byte order mark"),
        (packed(b"packed"), "packed"),
        (packed(b"in ") + packed(b"two members"), "in two members"),
        (b"N\bNA\bAM\bME\bE\n_\bt_\ba_\br", "NAME\ntar"),
        (b"+\bo a bullet, b\bb\bbold", "o a bullet, bold"),
        (b"\bat the start\n\bof a line\nabc\b\b\b\b\bd", "at the start\nof a line\nd"),
        (b"\x1b[1mNAME\x1b[0m \x1b[38;5;24mtar\x1b[m", "NAME tar"),
        (b"\x1b]8;;man:tar(1)\x1b\\tar\x1b]8;;\x1b\\", "tar"),
        (b"# Markdown\n\n.TH in the middle", "# Markdown\n\n.TH in the middle"),
    ],
)
def test_accepted_text_files(tmp_path, content, text):
    path = tmp_path / "document.of-any-name"
    path.write_bytes(content)
    assert read_document(str(path)) == text


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(gzip.compress(b"through a pipe"))))
    assert read_document("-") == "through a pipe"
    with pytest.raises(InputError, match=r"standard input is empty.*Give a document"):
        read_document("-")  # the second time nothing is left
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"no standard input: it is closed.*pipe"):
        read_document("-")


PACKED = packed(b"a document that is long enough to be cut" * 9)


@pytest.mark.parametrize(
    ("content", "found", "remedy"),
    [
        (b"", "is empty:", "Give a document"),
        (b" \n\t", "is empty but for 3 blanks", "Give a document"),
        (b"_\b", "is empty:", "Give a document"),
        (b"caf\xe9", "byte 0xe9 at position 3", "iconv -f latin1"),
        (b"\xef\xbb\xbfcaf\xe9", "byte 0xe9 at position 6", "iconv -f latin1"),
        (b"lone \xed\xa0\x80 surrogate", "byte 0xed at position 5", "iconv"),
        ("text".encode("utf-16"), "byte 0xff at position 0", "iconv -f utf-16"),
        ("text".encode("utf-16-le"), "a NUL at position 1", "iconv -f utf-16le"),
        ("text".encode("utf-16-be"), "a NUL at position 0", "iconv -f utf-16be"),
        (b"\x7fELF\x02\x01\x01\0\0\0\xff\xfe", "a binary file, not text (a NUL at position 7)", "Give a document"),
        (PACKED[:-9], "cannot be unpacked", "Fetch it again"),
        (PACKED[:-6] + b"......", "cannot be unpacked (CRC", "Fetch it again"),
        (b"\x1f\x8bnot gzip after all", "cannot be unpacked", "Fetch it again"),
        (b'.\\" a comment\n.TH TAR 1', "the source of a manual page", "man ./page | led-ref summarize -"),
        (b"'\\\" t\n.TH TAR 1", "the source of a manual page", "man ./page"),
        (packed(b".Dd March 1\n.Dt TAR 1"), "the source of a manual page", "man ./page"),
        (b".so man1/tar.1\n", "the source of a manual page", "man ./page"),
        (b"%PDF-1.7 \xff", "is a PDF", "pdftotext"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<p>a", "is HTML, not text", "pandoc -f html -t plain"),
        (b"<HTML lang=en>", "is HTML", "pandoc"),
        (b"<!-- a note --><html>", "is HTML", "pandoc"),
        (b"<?xml version='1.0'?><html>", "is HTML", "pandoc"),
        (b"PK\x03\x04\x14", "a zip archive", "pandoc -t plain"),
        (b"\xfd7zXZ\x00\x00", "compressed with xz", "xz -dc"),
    ],
)
def test_refused_text_files(tmp_path, content, found, remedy):
    path = tmp_path / "document"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_document(str(path))
    for part in (str(path), found, remedy):
        assert part in str(refused.value)


def test_html_is_refused_by_name(tmp_path):
    for name in ("page.html", "page.HTM.gz"):
        (tmp_path / name).write_bytes(b"<p>no head</p>")
        with pytest.raises(InputError, match=f"{name} is HTML, not text"):
            read_document(str(tmp_path / name))
    (tmp_path / "tags.md").write_bytes(b"In HTML, <html> is the first tag. <!-- -->")
    assert read_document(str(tmp_path / "tags.md")).startswith("In HTML")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_are_no_document(tmp_path, monkeypatch, name):
    monkeypatch.setattr(documents, "MOST_BYTES", 99)  # weights are large, and are called weights nonetheless
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(InputError, match=r"that is a model\. Give its folder as --model FOLDER"):
        read_document(str(tmp_path / name))


def test_missing_or_special_files(tmp_path):
    with pytest.raises(MissingFileError, match=r"no file .*nowhere.*write -"):
        read_document(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"is a folder.*\*\.txt"):
        read_document(str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be read .*Check its name"):
        read_document("a\0b")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match=r"cannot be read \(Not a directory\)"):
        read_document(str(tmp_path / "file" / "below"))


def test_too_large_also_when_unpacked(monkeypatch):
    monkeypatch.setattr(documents, "MOST_BYTES", 1 << 20)
    assert len(decode_document(gzip.compress(b"a" * (1 << 20)), "exactly")) == 1 << 20
    for content in (b"a" * ((1 << 20) + 1), gzip.compress(b"a" * (1 << 27))):
        with pytest.raises(InputError, match=r"it is larger than 1 MiB.*Split it"):
            decode_document(content, "it")


def test_backspaces_take_linear_time():
    started = time.process_time()
    assert decode_document(b"a" * 200_000 + b"\b" * 199_999, "many") == "a"
    assert time.process_time() - started < 5  # taken away pair by pair it is a matter of minutes


def test_page_whose_lines_are_one_paragraph_takes_its_length():
    """A title narrower than the text makes each line go on with the one before: 100,000 of them, in one pass."""
    started = time.process_time()
    body = manual_page_body("X(1)\n" + "half\u2010\nhalf-\nword\n" * 33_333 + "end")
    assert body == " ".join(["halfhalf-word"] * 33_333)
    assert time.process_time() - started < 5  # joined to a text that grows, it took minutes


# ---- manual pages -------------------------------------------------------------------------------------------------------

# As man renders it for a terminal of 48 columns: adjusted lines, a hyphen of its own, a tag with a hanging text.
PAGE = """\
PACK(1)          General Commands         PACK(1)

NAME
       pack, unpack - make files small; a long
       line goes on here

SYNOPSIS
       pack [-d] FILE
       unpack FILE

DESCRIPTION
       The  pack  command  reduces  the size of
       files. Most are made a lot smaller by re\u2010
       writing them in well-
       known codes, and some are not.

       -d     Do the  opposite,  which  needs a
              packed file.
       -k, --keep
              Keep the file.

GNU                  March 2024           PACK(1)
"""


def test_the_body_of_a_manual_page():
    assert is_manual_page(PAGE)
    assert manual_page_body(PAGE).split("\n") == [
        "SYNOPSIS",
        "pack [-d] FILE",
        "unpack FILE",
        "DESCRIPTION",
        "The pack command reduces the size of files. Most are made a lot smaller by rewriting them in well-",
        "known codes, and some are not.",
        "-d Do the opposite, which needs a packed file.",
        "-k, --keep",
        "Keep the file.",
    ]
    for text in ("", "pack(1)", "see PACK(1) and UNPACK(1)", "PACK(1)\n", "# PACK(1) PACK(1) and more"):
        assert not is_manual_page(text)
        manual_page_body(text)
    assert is_manual_page("\n\nPACK(3pm)     PACK(3pm)\n")


if shutil.which("man"):

    def test_page_text_is_width_invariant(tmp_path):
        """What man breaks, at any width, is joined again."""
        words = "The command reads a document and writes what it is about in one line for the person. " * 4
        source = f".TH PACK 1\n.SH NAME\npack \\- make files small\n.SH DESCRIPTION\n{words}\n.TP\n.B \\-d\n{words}\n"
        (tmp_path / "pack.1").write_text(source)
        for width in ("60", "80", "131"):
            environment = {**os.environ, "MANWIDTH": width, "LC_ALL": "C.UTF-8"}
            done = subprocess.run(
                ["man", tmp_path / "pack.1"], capture_output=True, env=environment, stdin=subprocess.DEVNULL, check=True
            )
            text = decode_document(done.stdout, "pack.1")
            assert is_manual_page(text)
            assert manual_page_body(text) == f"DESCRIPTION\n{words.strip()}\n-d {words.strip()}"
