"""The notebooks' prose keeps its promises. That their code runs is shown by executing them: make check, make docs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
EACH = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def prose(notebook: Path) -> str:
    """The text of its Markdown cells, without their code."""
    cells = re.split(r"^# %% *(.*)$", notebook.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = [text for kind, text in zip(cells[1::2], cells[2::2], strict=True) if kind.startswith("[markdown]")]
    lines = [line.removeprefix("#").removeprefix(" ") for text in texts for line in text.splitlines()]
    return re.sub(r"^```.*?^```$", "", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)


def test_navigation_order():
    named = re.findall(r": notebooks/(\w+)\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert named == [path.stem for path in NOTEBOOKS]
    assert [int(name[:2]) for name in named] == list(range(1, len(named) + 1))


@EACH
def test_title_image_text_and_exercise(notebook):
    text = prose(notebook)
    assert text.lstrip().startswith("# ")
    assert "## To try" in text
    assert re.search(r'^# %% alt=".{40,}"( tags=\[.*\])?$', notebook.read_text(encoding="utf-8"), re.MULTILINE)


@EACH
def test_names_and_links_exist(notebook):
    text = prose(notebook)
    for path in re.findall(r"`((?:led_ref|backends|tests|docs|notebooks)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{notebook.name} names {path}"
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        if target.startswith("https://"):
            continue
        page = (ROOT / "docs" / "notebooks" / target).resolve()  # as seen from where its page will be
        source = ROOT / "notebooks" / f"{page.stem}.py" if page.parent.name == "notebooks" else page
        assert source.exists(), f"{notebook.name} links to {target}"
