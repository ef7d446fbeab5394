"""The forms in which the bundled summarizer read documents in training, and how a document gets them."""

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
