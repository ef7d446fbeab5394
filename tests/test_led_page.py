"""docs/led_page.md promises nothing that is not there: names can be imported, headings exist, what is left out says why."""

import dataclasses
import pydoc
import re

import pytest
from led_page import PAGE, names, rows

DOCS = PAGE.parent


def exists(name):
    """Whether a dotted name leads to something; a dataclass's field counts."""
    if pydoc.locate(name) is not None:
        return True
    owner = pydoc.locate(name.rpartition(".")[0])
    fields = dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ()
    return name.rpartition(".")[2] in {field.name for field in fields}


def headings(file):
    """The anchors that MkDocs makes of a page's headings; of a chapter, its Markdown cells are comments."""
    text = file.read_text(encoding="utf-8")
    found = re.findall(r"^(?:# )?#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in found}


@pytest.mark.parametrize(("there", "here"), rows(), ids=lambda cell: cell[:40])
def test_table_rows_name_existing_code(there, here):
    for name in names(here):
        assert not name.startswith("led_ref") or exists(name), name
    links = re.findall(r"\]\(([^)]+)\)", here)
    for link in links:
        page, _, anchor = link.partition("#")
        made_of = {"book": DOCS / "book", "notebooks": DOCS.parent / "notebooks"}.get(page.partition("/")[0])
        file = made_of / f"{page.partition('/')[2][:-3]}.py" if made_of else DOCS / page
        assert file.exists(), link
        assert not anchor or anchor in headings(file), link
    if here.startswith("the same"):
        assert [name for name in names(there) if not exists(f"led_ref.{name}")] == []
    elif here.startswith("not here"):
        assert ":" in here, "no reason"
    else:
        assert links or any(name.startswith("led_ref.") for name in names(here))


def test_the_page_has_its_rows():
    assert len(rows()) > 80
