"""The forms in which the bundled models read documents in training, and how a document gets them."""

import re

from led_ref.bundled.manual_pages import is_manual_page, manual_page_body
from led_ref.bundled.specifications import is_specification, specification_body

PAGE = "a manual page: read without footer and NAME, its lines joined, as in training"
SPECIFICATION = "a specification: read without abstract, contents and page breaks, its lines joined, as in training"


def as_trained(text: str) -> tuple[str, str | None]:
    r"""A document as the model read such documents, and a sentence on it; any other text as it is, and None.

    Example:
        >>> page = "LS(1)      LS(1)\n\nNAME\n   ls - list\n\nDESCRIPTION\n   Lists what  a\n   directory holds.\n\nGNU"
        >>> as_trained(page)[0]
        'LS(1) LS(1)\nDESCRIPTION\nLists what a directory holds.'
        >>> as_trained("A letter.")
        ('A letter.', None)
    """
    if is_manual_page(text):
        title = re.sub(r"\s+", " ", text.lstrip().partition("\n")[0]).strip()
        body = manual_page_body(text)
        return (f"{title}\n{body}", PAGE) if body else (text, None)
    if is_specification(text):
        body = specification_body(text)
        return (body, SPECIFICATION) if body else (text, None)
    return text, None


def place_in_original(read: str, start: int, end: int, original: str) -> tuple[int, int] | None:
    r"""Where `read[start:end]` stands in the document that `as_trained` made `read` of; None if it is not found there.

    It is looked for with the words around it, since it may stand there several times; with fewer of them where that fails,
    as at a page break.

    Example:
        >>> original = "LS(1)     LS(1)\n\nDESCRIPTION\n   -a     Show  all\n          files.\n\n   -d     Show  all\n"
        >>> read = "LS(1) LS(1)\nDESCRIPTION\n-a Show all files.\n-d Show all"
        >>> place = place_in_original(read, read.rindex("Show"), len(read), original)
        >>> original[slice(*place)], original[:place[0]].count("\n")
        ('Show  all', 6)
    """

    def pattern(text: str) -> str:
        return r"\s+".join(map(re.escape, re.split(r"\s+", text)))

    for words in (8, 4, 2, 1, 0):
        before = re.search(rf"(\S*\s+){{0,{words}}}\S*\Z", read[max(0, start - 1000) : start])
        after = re.match(rf"\S*(\s+\S*){{0,{words}}}", read[end : end + 1000])
        around = (before[0] if before and words else "", after[0] if after and words else "")
        found = re.search(f"{pattern(around[0])}({pattern(read[start:end])}){pattern(around[1])}", original)
        if found:
            return found.span(1)
    return None
