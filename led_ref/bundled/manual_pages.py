"""Manual pages in the form that the bundled model was trained on."""

import re

# The first line of a rendered page: TAR(1)   GNU TAR Manual   TAR(1)
_TITLE = re.compile(r"\s*(\S+\(\d\w*\))\s+(?:\S.*?\s+)?\1\s*\Z")


def is_manual_page(text: str) -> bool:
    r"""Whether the first line is that of a rendered manual page.

    Example:
        >>> is_manual_page("GZIP(1)      General Commands Manual      GZIP(1)\n\nNAME ..."), is_manual_page("See gzip(1).")
        (True, False)
    """
    return _TITLE.match(text.lstrip().partition("\n")[0]) is not None


def manual_page_body(text: str) -> str:
    r"""The body of a rendered manual page, in the form of the bundled model's training pages.

    Title, footer and the NAME section are removed (the model is to generate that section); lines that `man` broke at the
    edge of the terminal are joined again; runs of blanks become one blank, and empty lines are removed.

    Args:
        text: the output of `man PAGE | cat`, of any width. Line breaks that the page's author set are kept, as far as they
            can be recognized: `man` broke a line if the first word of the next one would not have fitted.

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
    paragraphs: list[list[str]] = []  # each as the pieces that are to be joined: in time that grows with the page alone
    before = tail = ""
    for line in inner:
        if line and before and _continues(before, line, width):
            # A hyphen that man inserted (U+2010) is removed; the author's own hyphen stays, and no blank follows it.
            between = "" if re.fullmatch("\u2010|.\u2010|\\S-", tail) else " "
            paragraphs[-1][-1] = paragraphs[-1][-1].removesuffix("\u2010")
            paragraphs[-1].append(between + line.strip())
            tail = (tail.removesuffix("\u2010") + paragraphs[-1][-1])[-2:]
        elif line:
            paragraphs.append([line])
            tail = line[-2:]
        before = line
    return "\n".join(re.sub(r"[ \t]+", " ", "".join(pieces)).strip() for pieces in paragraphs)


def _continues(line: str, following: str, width: int) -> bool:
    """Whether `man` broke a paragraph between two lines: the first is full, the second begins where the text does."""
    margin = len(following) - len(following.lstrip())
    own = len(line) - len(line.lstrip())
    # The text of "-d   Decompress ..." begins after the tag, and continues below itself.
    is_below_text = margin == own or (
        own < margin < len(line) and line[margin - 2 : margin].isspace() and line[margin] != " "
    )
    return is_below_text and len(line) + 1 + len(following.split()[0]) > width
