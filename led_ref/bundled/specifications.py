"""Internet specifications (RFCs) in the form that the bundled summarizer was trained on."""

import re

# The line under a page: "Schulzrinne, et al.         Standards Track                     [Page 2]"
_FOOTER = re.compile(r"\S.*\[Page \w+\]\s*\Z|\[Page \w+\].*", re.IGNORECASE)
# The line over a page: "RFC 3550                          RTP                          July 2003"
_PAGE_HEADER = re.compile(r"(RFC|Internet-Draft)\b.* \d{4}\s*\Z", re.IGNORECASE)
_RFC_LINE = re.compile(
    r"Network Working Group|.*\bRequest for Comments: *\d|Category: *(Informational|Experimental|Standards Track)\b",
    re.IGNORECASE,
)
# "3.1.  Header fields ....... 12": an entry of a table of contents
_ENTRY = re.compile(r"(\.\s?){4,}\s*\d*\s*\Z|\S\s{3,}\d{1,3}\s*\Z")
_LONGEST_HEADING = 70
_CENTERED = 12  # blanks in front of a centered line
_LEFT_OUT = re.compile(
    r"(\d+\.?\s+)?(abstract|status of this (memo|document)|copyright notice|copyright|table of contents|contents)[.:]?\Z",
    re.IGNORECASE,
)
_HEADER_LINES = 40
_DRAWN = re.compile(r"[+|\\/_=-]{3,}|\S {3,}\S")
_LEAST_FULL = 45  # a line of prose that goes on in the next one is longer


def is_specification(text: str) -> bool:
    r"""Whether a text begins as an RFC does.

    Example:
        >>> is_specification("Network Working Group      J. Postel\nRequest for Comments: 768"), is_specification("GZIP(1)")
        (True, False)
    """
    first = [line.strip() for line in text.lstrip("\ufeff\n\f ").split("\n")[:_HEADER_LINES]]
    return any(_RFC_LINE.match(line) for line in first)


def specification_body(text: str) -> str:
    r"""The body of a specification, in the form of the training documents.

    Page breaks are removed, and with them each page's first and last line. The sections Abstract, Status of This Memo,
    Copyright Notice and Table of Contents are left out: the model is to generate the first, and the others say nothing of the
    subject. The lines of a paragraph are joined; runs of blanks become one blank, and empty lines are removed.

    Args:
        text: an RFC as it is published, or a text with such sections.

    Example:
        >>> head = "RFC 1       May 2003\n\n     Echo\n\nAbstract\n\n   It echoes.\n\n"
        >>> rfc = head + "1.  Use\n\n   Send a\n   word.\n\nEnd [Page 1]\n"
        >>> specification_body(rfc)
        'RFC 1 May 2003\nEcho\n1. Use\nSend a\nword.'
    """
    kept: list[str] = []
    skipped: str | None = None  # the heading of a section that is left out
    for block in _blocks(_without_page_breaks(text)):
        if len(block) == 1 and _LEFT_OUT.match(block[0].strip()):
            skipped = block[0]
        elif skipped is not None and _ends_section(block, skipped):
            skipped = None
        if skipped is None and not all(_ENTRY.search(line) for line in block):
            kept += [_joined(block)] if _is_prose(block) else block
    lines = (re.sub(r"\s+", " ", line).strip() for line in kept)
    return "\n".join(line for line in lines if re.search(r"\w", line))  # a rule that is drawn has no letter


def _without_page_breaks(text: str) -> list[str]:
    """The lines, without the first and last line of each page, and without a gap where a page cut a paragraph."""
    lines: list[str] = []
    for number, page in enumerate(text.lstrip("\ufeff").expandtabs().replace("\r\n", "\n").split("\f")):
        rows = [line.rstrip() for line in page.strip("\n").split("\n")]
        if rows and _FOOTER.match(rows[-1].strip()):
            rows.pop()
        if number and rows and _PAGE_HEADER.match(rows[0].strip()):
            rows.pop(0)
        page_text = "\n".join(row for row in rows if not _FOOTER.fullmatch(row.strip()))
        rows = page_text.strip("\n").split("\n")
        is_cut = (
            bool(lines) and bool(rows[0]) and _indent(lines[-1]) == _indent(rows[0]) and _is_open(lines[-1], rows[0])
        )
        lines += rows if is_cut else ["", *rows]
    return lines


def _is_open(line: str, following: str) -> bool:
    """Whether a paragraph that a page break cut goes on."""
    return len(line) > _LEAST_FULL and line[-1] not in ".:;!?" and following.strip()[:1].islower()


def _blocks(lines: list[str]) -> list[list[str]]:
    """Runs of lines between empty ones."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def _ends_section(block: list[str], heading: str) -> bool:
    """Whether a block begins the section after that of a heading: a numbered line, or one as far left, or centered, too."""
    if re.match(r"\d+(\.\d+)*\.?\s+[A-Z]", block[0]) and not _ENTRY.search(block[0]):
        return True
    is_beside = _indent(block[0]) <= _indent(heading) or min(_indent(block[0]), _indent(heading)) > _CENTERED
    return len(block) == 1 and len(block[0].strip()) <= _LONGEST_HEADING and is_beside


def _joined(block: list[str]) -> str:
    """The lines of a paragraph as one; a hyphen at the end of a line is part of its word."""
    return re.sub(r"(?<=\w-) (?=\w)", "", " ".join(line.strip() for line in block))


def _is_prose(block: list[str]) -> bool:
    """Whether the lines are one paragraph: full up to the last, all but the first equally indented, nothing drawn."""
    rest = {_indent(line) for line in block[1:]}
    full = all(len(line) > _LEAST_FULL for line in block[:-1])
    bare = [line.strip() for line in block]
    drawn = any(_DRAWN.search(line) for line in (re.sub(r"^\S{1,4}  +|(?<=[.:?!])  +", " ", line) for line in bare))
    return len(block) > 1 and len(rest) == 1 and full and not drawn


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
