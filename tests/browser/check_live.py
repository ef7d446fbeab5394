"""led_ref in the reader's browser: the page "Try it" writes what led_ref writes natively, and asks this site alone.

    make docs browser
    python tests/browser/check_live.py [--chromium /usr/bin/chromium]

Checked in Chromium against a static server under a path of its own (`/some/where/`), with every other host blocked: no byte of
the runtime before the reader asks; five texts with the same ids as natively; where the model looked; a text from the address,
a dropped file, an error's words, cancelling, the explorer; a chapter's cells (all of them: check_cells.py); three exercises;
the seconds to load; no network after the first visit; a phone.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from check_site import PATIENCE, SITE, served
from chromium import launch

DOCS = Path(__file__).parents[2] / "docs"
COLD_SECONDS, WARM_SECONDS = 15, 5  # on two idle cores: --timed holds them
MOST_BYTES = 12e6  # of Python, NumPy and led_ref together


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", help="a Chromium of yours, in place of the fetched one")
    parser.add_argument("--timed", action="store_true", help="hold the seconds of loading, too; on an idle machine")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    sizes = {part: sum(one["bytes"] for one in files) for part, files in files_of_the_site().items()}
    assert sizes["python"] < MOST_BYTES, sizes
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        (Path(folder) / "some").mkdir()
        (Path(folder) / "some" / "where").symlink_to(SITE)
        browser = launch(play, options.chromium)
        with served(Path(folder)) as address:
            context = browser.new_context(viewport={"width": 400, "height": 800}, has_touch=True)
            tab = Tab(context, f"{address}some/where/try/")
            before_asking(tab)
            cold = load(tab)
            for text, beams in cases():
                same_ids(tab, text, beams)
            looked(tab)
            refused(tab)
            cancel(tab)
            carried(tab)
            explorer(tab)
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
            kept = (tab.page.wait_for_timeout(1000) or tab.page.evaluate(COMPILED) for _ in range(60))
            assert any(kept), "what Python compiled was not kept"  # it is, two seconds after the last answer
            warm = load(Tab(context, tab.address))
            for page, number in (("02_tokens", 2), ("04_the_sliding_window", 4), ("09_searching_for_words", 9)):
                tab.complaints += exercise(context, f"{address}some/where/book/{page}/", number)
            tab.complaints += cells(context, f"{address}some/where/book/02_tokens/")
        offline(context, tab)
        assert tab.complaints == [], tab.complaints
        browser.close()
    print(f"loads in {cold:.1f} s, and in {warm:.1f} s when the browser has the files; offline it works too")
    assert not options.timed or (cold < COLD_SECONDS and warm < WARM_SECONDS), (cold, warm)
    return 0


class Tab:
    """A page that is open, what it asked for, and what went wrong with it."""

    def __init__(self, context, address: str) -> None:
        self.address, self.complaints, self.asked = address, [], []
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.route("**/*", self._ours_only)
        self.open(address)

    def _ours_only(self, route) -> None:
        host = urllib.parse.urlsplit(route.request.url).hostname
        if host in (None, "127.0.0.1"):
            route.continue_()
        else:
            self.complaints.append(f"asks {route.request.url}")
            route.abort()

    def open(self, address: str) -> None:
        """Open it, and wait until its form is there."""
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_selector("#try textarea")

    def status(self) -> str:
        """The line that says what happens."""
        return self.page.inner_text(".try-status")

    def write(self, text: str, beams: int = 1) -> None:
        """Fill in, and press Write."""
        self.page.fill("#try textarea", text)
        self.page.select_option("#try select", str(beams))
        self.page.click("#try button:text-is('Write')")

    def wait(self, words: str) -> None:
        """Until the status says so; a regular expression."""
        self.page.wait_for_function(
            f"RegExp({json.dumps(words)}).test(document.querySelector('.try-status').textContent)"
        )


def files_of_the_site() -> dict[str, list[dict[str, object]]]:
    return json.loads((SITE / "live" / "made" / "files.json").read_text(encoding="utf-8"))


def cases() -> list[tuple[str, int]]:
    """Five texts; one of them with beams."""
    texts = [example["text"] for example in json.loads((SITE / "built" / "examples.json").read_text(encoding="utf-8"))]
    return [(text, 4 if n == 1 else 1) for n, text in enumerate(texts)]


@functools.cache
def natively():
    """docs/live/reader.py, as it runs here."""
    sys.path.append(str(DOCS / "live"))
    import reader

    return reader


def before_asking(tab: Tab) -> None:
    """The page says what will be fetched, and has fetched nothing of it."""
    made = [url for url in tab.asked if "/live/made/" in url]
    assert made == [f"{tab.address.removesuffix('try/')}live/made/files.json"], made
    for part in ("Python, NumPy and led_ref", "the bundled model", " MB)"):
        assert part in tab.status(), tab.status()


# What Python compiled is kept for the next start: two archives, of more modules than the standard library alone has.
COMPILED = """async () => {
  const cache = await caches.open("led_ref-compiled");
  const kept = await Promise.all((await cache.keys()).map((key) => cache.match(key)));
  return kept.length === 2 && kept.every((answer) => Number(answer.headers.get("X-Modules")) > 200);
}"""


def load(tab: Tab) -> float:
    """Seconds from the click to Python being there and the text being read."""
    started = time.perf_counter()
    tab.write("SYNOPSIS\n       ls [FILE]...\n")
    tab.wait("Reading|Writing|ids written")
    seconds = time.perf_counter() - started
    tab.wait("ids written")
    return seconds


def same_ids(tab: Tab, text: str, beams: int) -> None:
    """What is written there is what is written here."""
    tab.write(text, beams)
    tab.wait("ids written")
    ids = [int(token) for token in tab.page.get_attribute(".try-out", "data-ids").split()]
    here = json.loads(natively().write(lambda _: None, text=text, beams=beams, most=64))
    assert ids == here["ids"], (ids, here)
    assert tab.page.text_content(".try-out") == here["text"]
    print(f"{here['tokens']} tokens, {beams} beams: {len(ids)} ids, the same as natively")


SHADED = """() => [...document.querySelectorAll('.try-read span')].map((e) => [
  e.textContent, parseFloat(e.title || '0') / 100, Number(getComputedStyle(e).backgroundColor.match(/[\\d.]+(?=\\)$)/)[0]),
])"""
PLACE = """(n) => {
  const [pane, token] = [document.querySelector('.try-read'), document.querySelectorAll('.try-read span')[n]]
    .map((e) => e.getBoundingClientRect());
  return token.top >= pane.top && token.bottom <= pane.bottom;
}"""


def looked(tab: Tab) -> None:
    """A written word that is pointed at shades the text by the shares that `generate` returns; so do keys and a finger."""
    text, _ = cases()[0]
    led = natively().bundled()
    document = led.prepare(text)
    found = led.model.generate(
        [document.ids], **document.masks(), num_beams=1, max_new_tokens=64, return_dict_in_generate=True,
        output_attentions=True,
    )  # fmt: skip
    words: list[list] = []  # of each written word the shares of its tokens, a row each
    for token, layers in zip(found.sequences[0][1:].tolist(), found.cross_attentions, strict=True):
        if written := led.tokenizer.decode([token], skip_special_tokens=True):
            if not words or written[0].isspace():
                words.append([])
            words[-1].append(layers[-1][0, :, -1].mean(axis=0))
    tab.write(text)
    tab.wait("ids written")
    buttons = tab.page.locator(".try-out button")
    assert buttons.count() == len(words) > 3

    def shaded(n: int) -> None:
        share_T = sum(words[n]) / len(words[n])
        tokens = tab.page.evaluate(SHADED)
        assert "".join(token for token, _, _ in tokens) == led.tokenizer.decode(document.ids)
        unlike = [abs(share - here) for (_, share, _), here in zip(tokens, share_T, strict=True) if here > 0.0012]
        assert max(unlike) < 0.001, max(unlike)
        strongest = int(share_T.argmax())
        alphas = [alpha for _, _, alpha in tokens]
        assert alphas[strongest] == max(alphas) > 0.7
        assert tab.page.evaluate(PLACE, int(share_T[1:].argmax()) + 1)
        assert f"{share_T[strongest]:.1%}".replace("%", "\xa0%") in tab.page.inner_text(".try-said")

    tab.page.locator(".try-out").scroll_into_view_if_needed()
    buttons.nth(2).hover()
    shaded(2)
    buttons.nth(2).focus()
    tab.page.keyboard.press("ArrowRight")
    shaded(3)
    tab.page.keyboard.press("End")
    shaded(len(words) - 1)
    tab.page.keyboard.press("Shift+Tab")
    tab.page.keyboard.press("Tab")  # back to the word that was left, and to no other
    assert tab.page.evaluate("document.activeElement === document.querySelector('.try-out button:last-of-type')")
    buttons.nth(0).tap()
    shaded(0)
    print(f"{len(words)} written words shade what they were chosen by")


def refused(tab: Tab) -> None:
    """An empty text: led_ref's own words, without Python's traceback."""
    tab.write("")
    tab.page.wait_for_function("!document.querySelector('.try button.md-button--primary').disabled")
    assert "empty" in tab.status()
    assert "Traceback" not in tab.status()


def cancel(tab: Tab) -> None:
    """At any time; then it works again."""
    long = cases()[0][0] * 8
    tab.write(long, 4)
    tab.wait("Reading|Writing")
    tab.page.click("#try button:text-is('Cancel')")
    tab.wait("Cancelled")
    same_ids(tab, *cases()[2])


def carried(tab: Tab) -> None:
    """The address carries the text, and a dropped file is read."""
    text = "DESCRIPTION\n  Ünïcödé & 100 % # safe\n"
    tab.page.fill("#try textarea", text)
    tab.page.click("#try button:text-is('Link to this text')")
    address = tab.page.evaluate("location.href")
    assert "#text=" in address
    tab.page.goto("about:blank")
    tab.page.goto(address)
    tab.page.wait_for_selector("#try textarea")
    assert tab.page.input_value("#try textarea") == text
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.txt"
        file.write_text("from a file", encoding="utf-8")
        tab.page.set_input_files("#try input[type=file]", file)
        tab.page.wait_for_function("document.querySelector('#try textarea').value === 'from a file'")
    tab.page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["dropped"], "page.txt", { type: "text/plain" }));
          document.querySelector("#try textarea").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }"""
    )
    tab.page.wait_for_function("document.querySelector('#try textarea').value === 'dropped'")


def explorer(tab: Tab) -> None:
    """The explorer of the reader's own text."""
    tab.page.fill("#try textarea", cases()[2][0])
    tab.page.click("#try button:text-is('Show attention')")
    tab.wait("Below:")
    made = tab.page.wait_for_selector(".try a").get_attribute("href")
    alone = tab.page.context.new_page()
    alone.goto(made)
    assert "your text" in alone.content()
    alone.close()


RUN = """() => [...document.querySelectorAll('.cell')].map((mark) => {
  const texts = { built: '', live: null };
  for (let e = mark.nextElementSibling; e && !e.matches('.cell-end'); e = e.nextElementSibling) {
    if (e.matches('.cell-out')) texts.live = [...e.querySelectorAll('.output')].map((one) => one.textContent).join('');
    else if (e.matches('.output')) texts.built += e.textContent;
  }
  return [texts.built.trim(), texts.live?.trim()];
})"""


def cells(context, address: str) -> list[str]:
    """A chapter's cells: the last one runs those above it first, and each gives what was built. Edit, an error, reset."""
    tab, complaints = context.new_page(), []
    tab.set_default_timeout(PATIENCE)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(address)
    bars = tab.locator(".cell-bar")
    last = bars.nth(bars.count() - 1)
    last.locator("[data-do=run]").click()
    assert "Matplotlib, for the pictures (" in tab.inner_text(".cell-question")
    tab.click(".cell-question button:text-is('Fetch and run')")
    last.locator("[data-do=stop]").wait_for(state="hidden")
    for built, live in tab.evaluate(RUN):
        assert built == live, (built, live)
    assert tab.locator(".cell-out svg").count() == tab.locator("details.code:not(.plain)").count() > 0
    last.locator("[data-do=edit]").click()
    tab.locator(".cell-editor").fill("seven = 7\n1 / (seven - 7)")
    tab.locator(".cell-editor").press("Control+Enter")
    failed = tab.locator(".cell-failed")
    failed.wait_for()
    assert "1 / (seven - 7)" in failed.inner_text()
    assert "ZeroDivisionError" in failed.inner_text()
    assert "reader.py" not in failed.inner_text()
    tab.locator(".cell-editor").fill("from led_backends import numpy_products\nprint(numpy_products.KERNEL)")
    tab.locator(".cell-editor").press("Control+Enter")
    failed.wait_for(state="hidden")
    last.locator("[data-do=stop]").wait_for(state="hidden")
    assert "function" in tab.locator(".cell-out").last.inner_text()  # products do not go through NumPy's plain loops
    last.locator("[data-do=reset]").click()
    assert tab.locator(".cell-editor").count() == 0
    tab.close()
    return complaints


def exercise(context, address: str, number: int) -> list[str]:
    """The file that is handed out fails, and the solved one passes, by the same checks as natively."""
    from led_ref.tools.exercises import handout

    tab, complaints = context.new_page(), []
    tab.set_default_timeout(PATIENCE)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(address)
    tab.locator("li").filter(has_text=f"led-ref exercise {number} ").or_(
        tab.locator("li").filter(has_text=f"led-ref exercise {number}:")
    ).locator(".exercise-button").first.click()
    tab.click(".exercise button:text-is('Fetch and begin')")
    editor, status = tab.locator(".exercise .cell-editor"), tab.locator(".exercise .cell-status")
    one = handout.exercise(number)
    tab.wait_for_function("document.querySelector('.exercise .cell-editor').value !== ''")
    assert editor.input_value() == handout.handout(one.solved)
    tab.click(".exercise button:text-is('Check')")
    status.filter(has_text="to go").wait_for()
    assert tab.locator(".exercise-results li").count() >= 1
    editor.fill(one.solved)
    tab.click(".exercise button:text-is('Check')")
    status.filter(has_text="Solved.").wait_for()
    tab.close()
    return complaints


def offline(context, tab: Tab) -> None:
    """The server is gone, and the page and all that it needs are in the browser."""
    again = context.new_page()
    again.set_default_timeout(PATIENCE)
    again.goto(tab.address)
    again.wait_for_selector("#try textarea")
    again.fill("#try textarea", cases()[2][0])
    again.click("#try button:text-is('Write')")
    again.wait_for_function("document.querySelector('.try-status').textContent.includes('ids written')")
    again.close()


if __name__ == "__main__":
    sys.exit(main())
