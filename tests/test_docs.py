"""The documentation keeps its promises: names are documented, links lead somewhere, code runs, tests that it cites exist.

`mkdocs build --strict` in make docs checks the rest: anchors of the built site, pages left out of the navigation.
"""

import ast
import doctest
import json
import pydoc
import re
import runpy
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

import led_ref
import led_ref.config
from led_ref.api import LED
from led_ref.cli.main import build_parser
from led_ref.errors import InputError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
CHAPTERS = sorted((DOCS / "book").glob("[0-9]*.py"))
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(*kinds: str) -> list:
    """The fenced blocks of all pages whose info string is one of these, each under its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match["info"].strip() in kinds:
                line = text.count("\n", 0, match.start()) + 1
                found.append(pytest.param(match["body"], id=f"{relative(page)}:{line}"))
    return found


# ---- names, files and links ----------------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference():
    documented = re.findall(r"^::: (\S+)$", (DOCS / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {f"led_ref.{name}" for name in led_ref.__all__} <= set(documented)
    assert len(documented) == len(set(documented))
    for name in documented:
        assert pydoc.locate(name) is not None, f"docs/reference.md names {name}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_to_files(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    if page.parent == ROOT:  # in a page of the site such an address is one of the site: tests/browser/check_site.py
        targets += re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", prose)
    for target in targets:
        path, _, anchor = target.partition("#")
        if not path or path.startswith(("https://", "http://", "mailto:")):
            continue
        file = (page.parent / path).resolve()
        sources = {DOCS / "notebooks": ROOT / "notebooks", DOCS / "book": DOCS / "book"}
        if file.parent in sources:  # made by docs/build_notebooks.py from the notebook or chapter of that name
            file = sources[file.parent] / f"{file.stem}.py"
        assert file.exists(), f"{relative(page)} links to {target}"
        if anchor and file.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, titles), f"{relative(page)} links to {target}, and there is no such title"


def slug(title: str) -> str:
    """The anchor that MkDocs makes of a title."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


DRAWINGS = sorted((DOCS / "assets").glob("*.svg"))


@pytest.mark.parametrize("drawing", DRAWINGS, ids=relative)
def test_drawings_lead_to_what_they_name(drawing):
    """A box to a chapter that is there, the name of a function to the section that shows its code."""
    in_svg = "{http://www.w3.org/2000/svg}"
    links = list(ElementTree.parse(drawing).iter(f"{in_svg}a"))
    assert len(links) > 10
    for link in links:
        chapter, anchor = re.fullmatch(r"\.\./book/(\w+)/(?:#([\w-]+))?", link.attrib["href"]).groups()
        sections = re.split(
            r"^# #+ ", (DOCS / "book" / f"{chapter}.py").read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        section = {slug(text.splitlines()[0]): text for text in sections[1:]}[anchor] if anchor else ""
        title, names = link.find(f"{in_svg}title").text, [e.text for e in link.iter() if e.get("class") == "code"]
        assert title == f"Chapter {int(chapter[:2])}" or names, title
        for name in names:
            assert f'"{title.removesuffix(".py").replace("/", ".")}:{name}")' in section, f"{chapter} shows no {name}"


def test_pages_find_their_drawings():
    """A chapter is a folder on the site: it looks for them two folders up."""
    found = []
    for page in [DOCS / "index.md", *CHAPTERS]:
        up = DOCS if page.name == "index.md" else page.with_suffix("")
        for target in re.findall(r'<object [^>]*data="([^"]+)"', page.read_text(encoding="utf-8")):
            assert (up / target).resolve() in DRAWINGS, f"{relative(page)} shows {target}"
            found.append(target)
    assert len(found) >= 2 * len(DRAWINGS)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=relative)
def test_every_question_has_an_answer(chapter):
    """`led-ref exercise N` has checks in place of an answer."""
    _, _, rest = chapter.read_text(encoding="utf-8").partition("# ## Exercises\n")
    questions, _, answers = rest.partition("<summary>Answers</summary>")
    asked = re.findall(r"^# (\d+)\. (?!`led-ref exercise )", questions, re.MULTILINE)
    assert asked
    assert re.findall(r"^# \*\*(\d+)\.\*\* \S", answers, re.MULTILINE) == asked


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_named_files_and_tests_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:led_ref|backends|tests|docs|notebooks)/[\w./-]*)(?:::(\w+))?`", text)
    for path, test in named:
        assert (ROOT / path).exists(), f"{relative(page)} names {path}"
        if test:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert test in functions, f"{relative(page)} names {path}::{test}"


def test_the_map_names_what_is_there():
    """Each folder and file of the map of docs/layout.md exists; each folder of led_ref, and each file of model/, is in it."""
    (drawn,) = (block.values[0] for block in blocks("text") if block.values[0].startswith("led_ref/\n"))
    named, folders = set(), []
    for line in drawn.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r"  +", line.strip())[0].split(", "):
            folders[depth:] = [name.rstrip("/")]
            named.add("/".join(folders))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    packages = {relative(path.parent) for path in (ROOT / "led_ref").rglob("__init__.py")}
    grouped = {"led_ref/oracle"}  # in the map by its three parts
    files = {relative(path) for path in (ROOT / "led_ref" / "model").glob("[a-z]*.py")}
    assert sorted((packages - grouped | files) - named) == []


def test_token_walk_names_existing_functions():
    (way,) = (block.values[0] for block in blocks("text") if block.values[0].startswith("ids_BT"))
    files = [*(ROOT / "led_ref" / "model").glob("*.py"), ROOT / "backends" / "led_backends" / "contract.py"]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    functions = re.findall(r"\b[a-z]+(?:_[a-z]+)+\b(?!\.py)", way)
    assert len(functions) > 5
    assert [name for name in functions if f"def {name}(" not in sources] == []


def test_readme_counts():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cases = json.loads((ROOT / "tests" / "vectors" / "v1" / "index.json").read_text(encoding="utf-8"))["cases"]
    chapters, notebooks = (len(list((ROOT / folder).glob("[0-9]*.py"))) for folder in ("docs/book", "notebooks"))
    assert f"{len(cases)} known answers" in readme
    assert f"{chapters} chapters, {notebooks} notebooks" in readme


def test_every_deviation_names_its_test():
    text = (DOCS / "deviations.md").read_text(encoding="utf-8")
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections if "::test_" not in section] == []


def test_the_dimension_key_is_one():
    key = led_ref.config.__doc__.partition("Dimension key")[2].partition("`attention_window`")[0]
    letters = re.findall(r"(?:^| {2})([A-Zh])  (?=\w)", key, re.MULTILINE)
    table = re.findall(r"^\| ([A-Zh]) \|", (DOCS / "layout.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(letters) > 15
    assert sorted(letters) == sorted(table)


def test_the_reading_order_is_one():
    """README and docs/layout.md name the files of led_ref's docstring in its order; each counts where it is named first.

    The two pages may name more files.
    """

    def files(text: str, start: str, end: str) -> list[str]:
        return list(dict.fromkeys(re.findall(r"\w+\.py\b", text.partition(start)[2].partition(end)[0])))

    order = files(led_ref.__doc__, "reading order:", "The model,")
    assert len(order) > 20
    for page, start in ((ROOT / "README.md", "## Where to read"), (DOCS / "layout.md", "|---|---|")):
        named = files(page.read_text(encoding="utf-8"), start, "\n\n[" if page.name == "README.md" else "\n\n")
        assert set(order) <= set(named), f"{page.name} does not name {sorted(set(order) - set(named))}"
        assert [name for name in named if name in order] == order, f"{page.name} names them in another order"


@pytest.mark.parametrize(
    ("page", "of"),
    [
        ("vectors.md", "tests/vectors/README.md"),
        ("bundled_model.md", "led_ref/bundled/MODEL_CARD.md"),
        ("bundled_answerer.md", "led_ref/bundled/answerer/MODEL_CARD.md"),
        ("bundled_classifier.md", "led_ref/bundled/classifier/MODEL_CARD.md"),
    ],
)
def test_pages_that_are_copies(page, of):
    """A code host shows an include as it is written, so a page that lies elsewhere, too, is there twice."""
    assert (DOCS / page).read_bytes() == (ROOT / of).read_bytes(), f"cp {of} docs/{page}"


def test_pages_include_no_file():
    assert [relative(page) for page in PAGES if "--8<--" in page.read_text(encoding="utf-8")] == []


# ---- words ---------------------------------------------------------------------------------------------------------

# Words that were our own for what the field has a name for.
NOT_OURS = r"\b(taps?|tells?|told|telling|hears?|heard|in vain|shuns|see there|planted bugs?|kill matrix)\b"
TEXTS = [
    *PAGES,
    ROOT / "tests" / "vectors" / "README.md",
    *CHAPTERS,
    *sorted((ROOT / "notebooks").glob("[0-9]*.py")),
]


@pytest.mark.parametrize("page", TEXTS, ids=relative)
def test_pages_use_the_words_of_the_field(page):
    text = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    assert re.findall(NOT_OURS, text, re.IGNORECASE) == []


@pytest.mark.parametrize(
    ("term", "places"),
    [
        ("residual", "semantics.md layout.md traces.md book/00_all_of_led.py book/06_a_layer.py"),
        ("KV cache", "semantics.md layout.md deviations.md book/08_decoder_and_cache.py"),
        (
            "attention map",
            "semantics.md layout.md traces.md explorer.md book/00_all_of_led.py book/08_decoder_and_cache.py",
        ),
        ("padding mask", "semantics.md layout.md book/00_all_of_led.py book/08_decoder_and_cache.py"),
        ("causal mask", "semantics.md layout.md book/00_all_of_led.py book/08_decoder_and_cache.py"),
        ("teacher forcing", "semantics.md book/00_all_of_led.py book/08_decoder_and_cache.py"),
        ("autoregressive", "book/00_all_of_led.py book/08_decoder_and_cache.py"),
        ("hypothesis", "semantics.md mutation_testing.md"),
        ("head dimension", "semantics.md layout.md"),
        ("mutation testing", "index.md mutation_testing.md kernel_mutants.md book/12_proving_it.py"),
    ],
)
def test_a_term_is_where_it_belongs(term, places):
    rows = re.findall(r"^\| ([^|]+) \|", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert any(term.lower() in row.lower() for row in rows), f"the glossary has no {term}"
    for place in places.split():
        words = " ".join((DOCS / place).read_text(encoding="utf-8").replace("\n#", "\n").replace("*", "").split())
        assert term.lower() in words.lower(), f"docs/{place} does not say {term}"


def test_a_word_of_the_glossary_has_one_meaning():
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", (DOCS / "glossary.md").read_text("utf-8"), re.MULTILINE)
    terms = [row for row in rows if row not in ("term", "---")]
    assert len(terms) > 50
    assert len(terms) == len(set(terms))


# ---- code ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    """In a folder with nothing in it, each for itself; a block that needs a download is marked ```python {.notest}."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out or "print" not in code


@pytest.mark.parametrize("code", blocks("pycon"))
def test_pycon_blocks_output(code):
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(doctest.DocTestParser().get_doctest(code, {}, "block", None, 0))
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("code", blocks("python {.notest}"))
def test_unrun_blocks_are_valid_python(code):
    compile(code, "block", "exec")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_known_fence_languages(page):
    """Another word after the language, and MkDocs takes the fence for text, and all behind it for code."""
    for line in page.read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"```(\w+( \{[. \w-]+\})?)?|(?!```).*", line), line


def test_command_lines_are_understood():
    commands = 0
    for block in blocks("sh", "bash", "console"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            for part in line.split("|"):
                words = shlex.split(part, comments=True)
                words = words[words.index("$") + 1 :] if "$" in words else words
                if words and words[0].split("/")[-1] == "led-ref":
                    assert build_parser().parse_args(words[1:]).run, line  # it would exit on a wrong option
                    commands += 1
    assert commands >= 10


# ---- deviations that no other test holds ---------------------------------------------------------------------------


def test_global_mask_with_encoder_outputs():
    model = led_ref.load().model
    read = model.encoder([[0, 5, 6, 2]])
    with pytest.raises(InputError, match=r"global_attention_mask.*encoder_outputs"):
        model.generate(encoder_outputs=read, global_attention_mask=[[1, 0, 0, 0]], max_new_tokens=2)
    cache = model(encoder_outputs=read, decoder_input_ids=[[2]], use_cache=True).past_key_values
    for given in ({"encoder_outputs": read}, {"past_key_values": cache}):
        with pytest.raises(InputError, match=r"global_attention_mask.*ignored"):
            model(**given, global_attention_mask=[[1, 0, 0, 0]], decoder_input_ids=[[2]])


def test_text_gets_one_global_token_by_default():
    led, seen = led_ref.load(), []

    class Watched(led_ref.LEDForConditionalGeneration):
        def generate(self, *arguments, **settings):
            seen.append(settings["global_attention_mask"])
            return super().generate(*arguments, **settings)

    watched = LED(Watched(led.model.config, led.model.params), led.tokenizer, led.name)
    assert watched.generate("Pack files.", max_new_tokens=3) == watched.generate(
        "Pack files.", global_attention=[0], max_new_tokens=3
    )
    watched.generate("Pack files.", global_attention="none", max_new_tokens=3)
    first, same, none = ([sum(row), row[0]] for (row,) in seen)
    assert (first, same, none) == ([1, 1], [1, 1], [0, 0])


# ---- figures come from files that a run wrote ---------------------------------------------------------------------


def test_worst_differences_from_transformers():
    report = json.loads((DOCS / "data" / "worst_differences.json").read_text(encoding="utf-8"))
    worst = {line: row["difference"] for line, row in report["rows"].items()}
    page, readme = (path.read_text(encoding="utf-8") for path in (DOCS / "accuracy.md", ROOT / "README.md"))
    shown = re.findall(r"^\| [a-z, /]+ \| ([\d.e/ -]+) \|$", page, re.MULTILINE)
    kinds = ("encoder hidden states", "decoder hidden states", "logits", "loss")
    pairs = (("encoder attentions", "global attentions"), ("decoder attentions", "cross attentions"))
    expected = {f"{worst[f'model float64, {kind}']:.1e}" for kind in kinds}
    expected |= {" / ".join(f"{worst[f'model float64, {kind}']:.1e}" for kind in pair) for pair in pairs}
    assert {figure.replace("e-0", "e-") for figure in expected} == set(shown)
    largest = {
        start: max(d for line, d in worst.items() if line.startswith(start))
        for start in ("model float64", "model, softmax lifted")
    }
    for text in (page, readme):
        assert f"{largest['model float64']:.1e}".replace("e-0", "e-") in text
        assert f"{largest['model, softmax lifted']:.1e}" in text
    assert report["date"] in page


def test_accuracy_tables():
    report = json.loads((DOCS / "data" / "error_by_layer.json").read_text(encoding="utf-8"))
    columns = ("transformers float32", "led_ref float32", "led_ref float64")
    rows = [
        f"| {row['place']} | " + " | ".join(f"{row[who]['rms']:.1e} ({row[who]['max']:.1e})" for who in columns) + " |"
        for row in report["rows"]
    ]
    page = (DOCS / "accuracy.md").read_text(encoding="utf-8").splitlines()
    assert [
        line for line in page if line.startswith(("| encoder ", "| decoder ", "| logits |")) and "(" in line
    ] == rows
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in readme if line.startswith(("| encoder ", "| decoder ", "| logits |"))]
    assert len(shown) == 4
    assert set(shown) <= set(rows)
    for row in report["rows"]:  # what the page says of them
        assert row["led_ref float32"]["rms"] <= row["transformers float32"]["rms"]
    less = sum(row["led_ref float32"]["max"] < row["transformers float32"]["max"] for row in report["rows"])
    assert f"at {less} of {len(report['rows'])} places" in " ".join((DOCS / "accuracy.md").read_text("utf-8").split())


def test_precision_tables():
    measure = runpy.run_path(str(DOCS / "measure_precision.py"))
    report = json.loads(measure["DATA"].read_text(encoding="utf-8"))
    page = (DOCS / "precision.md").read_text(encoding="utf-8")
    for table in measure["tables"](report):
        assert "\n\n" + "\n".join(table) + "\n\n" in page
    assert report["date"] in page
    assert report["machine"]["processor"] in page
    assert list(report["rows"]) == list(measure["KINDS"])
    for kind, most in (("float16", 0.5), ("bfloat16", 0.5), ("int8", 0.30), ("nf4", 0.20), ("nf4-double", 0.20)):
        assert report["rows"][kind]["of_float32"] <= most


@pytest.mark.parametrize("page", [*CHAPTERS, *sorted((ROOT / "notebooks").glob("[0-9]*.py"))], ids=relative)
def test_pictures_have_the_colours_of_book_tools(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"#[0-9a-fA-F]{6}\b|cmap(?:\"?: |=)\"\w+\"", text) == []
