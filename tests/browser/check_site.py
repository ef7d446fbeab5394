"""Open every page of the built site in a real browser, as a reader does who has no network but this one.

    make docs browser                                                 builds the site, fetches a Chromium, runs this
    python tests/browser/check_site.py [--chromium /usr/bin/chromium] [--shots FOLDER] [PAGE ...]

A server on this machine hands out site/ as it lies there. Each page is opened light and dark, scrolled to its end, so that all
that is loaded late is loaded, and looked at 1280 pixels wide and then 400. Checked: no request to another host, none that
fails, no complaint on the console, every picture loaded, every formula set, and nothing that makes the page wider than the
screen (what is wide scrolls inside itself; code does so on a phone only). Pictures (--shots) are for eyes.
"""

import argparse
import functools
import http.server
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chromium import launch

SITE = Path(__file__).parents[2] / "site"
WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
IN_PAGE = ("data:", "blob:", "about:")  # addresses of what a page holds itself
PATIENCE = 120_000  # milliseconds; for a machine that has other things to do
# What reaches over the right edge of the screen, though no box around it can be scrolled: it widens the page, or is cut off.
TOO_WIDE = """() => {
  const edge = document.documentElement.clientWidth;
  const scrolls = (e) =>
    e && e !== document.body && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const found = [...(document.querySelector('article') || document.body).querySelectorAll('*')]
    // Inside of formulas and drawings much is long and clipped on purpose: a root's line is 400 em.
    .filter((e) => !e.ownerSVGElement && !e.parentElement.closest('.katex'))
    .filter((e) => e.getBoundingClientRect().right > edge + 1 && e.getClientRects().length && !scrolls(e))
    .map((e) => `<${e.tagName.toLowerCase()} class="${e.className}"> reaches ${Math.round(e.getBoundingClientRect().right)}`);
  if (document.documentElement.scrollWidth > edge) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  return found.slice(0, 3);
}"""
# Code that a reader with a wide screen has to push sideways. What is folded away is no part of the page yet.
SCROLLING_CODE = """() => [...document.querySelectorAll('article pre > code')]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 && !e.closest('details:not([open])'))
  .map((e) => `${e.textContent.split('\\n').sort((a, b) => b.length - a.length)[0].trim().slice(0, 60)} ...`)"""
BROKEN_PICTURES = "() => [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src)"
# KaTeX puts what it cannot read into .katex-error; a formula that it never saw has no .katex inside.
UNSET_FORMULAS = """() => [...document.querySelectorAll('.katex-error, .arithmatex')]
  .filter((e) => e.matches('.katex-error') || !e.querySelector('.katex')).map((e) => e.textContent.trim())"""
# Formulas on lines of their own, in the page's coordinates; without those that can be pushed sideways.
FORMULAS = """() => [...document.querySelectorAll('div.arithmatex')]
  .filter((e) => [e, ...e.children].every((box) => box.scrollWidth <= box.clientWidth + 1) && e.getClientRects().length)
  .map((e) => [e.textContent.trim(), e.getBoundingClientRect()])
  .map(([name, r]) => [name, { x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height }])"""
CUT_FRAMES = """() => [...document.querySelectorAll('iframe')].filter((e) => e.getClientRects().length)
  .filter((e) => e.contentDocument.documentElement.scrollHeight > e.clientHeight + 1).map((e) => e.title)"""
# Pictures that have to be pushed sideways, and no word says so; or they fit, and a word says otherwise.
UNTOLD = """() => [...document.querySelectorAll('.picture')]
  .filter((e) => (e.scrollWidth > e.clientWidth + 1) !== getComputedStyle(e, '::before').content.includes('sideways'))
  .map((e) => e.querySelector('svg').getAttribute('aria-label'))"""
# Drawings whose letters keep their colour when the reader changes light and dark.
UNREADABLE = """async () => {
  const scheme = document.body.dataset.mdColorScheme;
  document.body.dataset.mdColorScheme = scheme === 'slate' ? 'default' : 'slate';
  await new Promise((done) => setTimeout(done));
  const found = [...document.querySelectorAll('.drawing object')]
    .filter((e) => getComputedStyle(e.contentDocument.querySelector('text')).fill !== getComputedStyle(e).color)
    .map((e) => e.data);
  document.body.dataset.mdColorScheme = scheme;
  return found;
}"""
# Of a drawing in steps: which parts a reader sees, and which of those the step should show.
PARTS = """(svg) => [...svg.querySelectorAll('.step')].map((e) => [
  getComputedStyle(e).visibility === 'visible', Number(e.dataset.from), Number(e.dataset.to)])"""
UNCUT = "div.arithmatex { display: flow-root; overflow: visible !important } .katex-display { overflow: visible !important }"
# A browser counts what its fonts may reach, which is a little more than what this formula's letters do.
TOO_LOW = """() => [...document.querySelectorAll('div.arithmatex > .katex-display')]
  .filter((e) => e.scrollHeight > e.clientHeight).map((e) => e.textContent.trim())"""
ALL_LOADED = "() => [...document.images].every((image) => image.complete)"
LATE = "() => document.querySelectorAll('[loading=lazy]').forEach((e) => { e.loading = 'eager'; })"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server that writes no log."""

    def log_message(self, *_):
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder under an address of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="such as book/05_global_attention/index.html; all without any")
    parser.add_argument("--chromium", help="a Chromium of yours, in place of the fetched one")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of all pages")
    options = parser.parse_args()
    pages = options.pages or sorted(str(page.relative_to(SITE)) for page in SITE.rglob("*.html"))
    if not pages:
        sys.exit("site/ has no pages. Build it first: make docs")
    from playwright.sync_api import sync_playwright

    faults, asked = [], 0
    with served(SITE) as address, sync_playwright() as play:
        browser = launch(play, options.chromium)
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900}, color_scheme=scheme)
            for page in pages:
                tab = context.new_page()
                found, requests = visit(tab, address, page)
                for width in WIDTHS:
                    tab.set_viewport_size({"width": width, "height": 900})
                    found += [f"{fault} ({width} pixels)" for fault in look(tab, width)]
                    if scheme == SCHEMES[0]:
                        found += [f"a formula is cut off: {name[:60]} ({width} pixels)" for name in cut_formulas(tab)]
                        found += [f"{fault} ({width} pixels)" for fault in steps(tab)]
                    if options.shots:
                        name = page.removesuffix(".html").replace("/", "_")
                        tab.screenshot(path=options.shots / f"{name}_{width}_{scheme}.png", full_page=True)
                found += [f"asks another host: {url}" for url in requests if not url.startswith((address, *IN_PAGE))]
                faults += [f"{page} ({scheme}): {fault}" for fault in found]
                asked += len(requests)
                tab.close()
            context.close()
        browser.close()
    for fault in dict.fromkeys(faults):
        print(fault, file=sys.stderr)
    seen = f"{len(pages)} pages, {len(WIDTHS)} widths, light and dark, {asked:,} requests"
    print(f"{seen}: {f'{len(faults)} faults' if faults else 'all to this server, and nothing is amiss'}")
    return 1 if faults else 0


def visit(tab, address: str, page: str) -> tuple[list[str], list[str]]:
    """Open one page. Returns what is amiss, and what was asked for; both lists grow as long as the page is open."""
    tab.set_default_timeout(PATIENCE)
    faults, requests = [], []
    tab.on("console", lambda message: faults.append(f"on the console: {message.text}"))
    tab.on("pageerror", lambda error: faults.append(f"on the console: {error}"))
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("requestfailed", lambda request: faults.append(f"{request.url} failed: {request.failure}"))
    tab.on("response", lambda answer: faults.append(f"{answer.url}: {answer.status}") if answer.status >= 400 else None)
    tab.goto(address + page, wait_until="load")
    tab.evaluate(LATE)
    tab.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    tab.wait_for_function(ALL_LOADED)
    for frame in tab.frames:
        frame.wait_for_load_state("load")
    return faults, requests


def cut_formulas(tab) -> list[str]:
    """The formulas that look otherwise when their boxes cut nothing off, and those that do not fit into theirs."""
    formulas = tab.evaluate(FORMULAS)
    pictures = lambda: [tab.screenshot(clip=place, full_page=True) for _, place in formulas]  # noqa: E731
    as_shown = pictures()
    style = tab.add_style_tag(content=UNCUT)
    uncut = pictures()
    style.evaluate("(e) => e.remove()")
    cut = [name for (name, _), shown, whole in zip(formulas, as_shown, uncut, strict=True) if shown != whole]
    return cut + tab.evaluate(TOO_LOW)


def steps(tab) -> list[str]:
    """What is amiss with the drawings in steps: each is played, stopped, and led through all its steps by the keyboard."""
    faults = []
    for n in range(tab.locator("svg[data-steps]").count()):
        svg, bar = tab.locator("svg[data-steps]").nth(n), tab.locator(".steps-bar").nth(n)
        slider, play, count = bar.locator("input"), bar.locator("button"), int(svg.get_attribute("data-steps"))
        at = lambda slider=slider: int(slider.input_value())  # noqa: E731
        name = f"drawing {n + 1}, of {count} steps"
        slider.focus()
        tab.keyboard.press("Home")  # ends what plays by itself
        tab.keyboard.press("End")
        seen = [svg.screenshot()]
        if at() != count:
            faults.append(f"{name}: the key End leads to step {at()}")
        tab.keyboard.press("Home")
        for step in range(1, count + 1):
            if at() != step:
                faults.append(f"{name}: the keys lead to step {at()}, and not to {step}")
                break
            wrong = [part for part in svg.evaluate(PARTS) if part[0] != (part[1] <= step <= part[2])]
            if wrong:
                faults.append(f"{name}: {len(wrong)} parts are wrong at step {step}")
            if step in (1, 2):
                seen.append(svg.screenshot())
            tab.keyboard.press("ArrowRight")
        if len(set(seen)) < min(count, 3):
            faults.append(f"{name}: its steps look alike")
        play.click()
        tab.wait_for_timeout(100)
        if (play.inner_text(), at()) != ("Stop", 1):
            faults.append(f"{name}: Play shows step {at()}, and its button says {play.inner_text()}")
        slider.fill("2")  # as a pointer sets it
        if (play.inner_text(), at()) != ("Play", 2):
            faults.append(f"{name}: moved to step 2, it shows {at()}, and its button says {play.inner_text()}")
        play.click()
        play.click()
        if play.inner_text() != "Play":
            faults.append(f"{name}: it cannot be stopped")
    return faults


def look(tab, width: int) -> list[str]:
    """What is amiss with the page as it is shown now, so wide."""
    tab.wait_for_function(ALL_LOADED)
    faults = [f"{what} is not shown" for what in tab.evaluate(BROKEN_PICTURES)]
    faults += [f"a formula is not set: {what[:60]}" for what in tab.evaluate(UNSET_FORMULAS)]
    faults += [f"wider than the screen: {what}" for what in tab.evaluate(TOO_WIDE)]
    faults += [f"a frame is cut off below: {what}" for what in tab.evaluate(CUT_FRAMES)]
    faults += [f"a drawing is in the other scheme's colour: {what}" for what in tab.evaluate(UNREADABLE)]
    faults += [f"a picture does not say that it scrolls: {what[:60]}" for what in tab.evaluate(UNTOLD)]
    if width == max(WIDTHS):
        faults += [f"code is wider than its column: {what}" for what in tab.evaluate(SCROLLING_CODE)]
    return faults


if __name__ == "__main__":
    sys.exit(main())
