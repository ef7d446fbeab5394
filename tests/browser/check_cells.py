"""Every live cell of every chapter and notebook, run in a real browser: it runs to its end, and gives what was built.

    make docs browser cells      (make browser runs the chapters, make cells the notebooks)
    python tests/browser/check_cells.py [--chromium /usr/bin/chromium] [PAGE ...]

The cells are those of the built pages, run in the same Python that a page starts (docs/live/python.js), with the parts that
the page would fetch; two at a time. Pages that need the same parts share one Python, one after the other, each with variables
of its own: its start takes seconds. How buttons start cells is checked by check_live.py.

A cell's text must be the built one, and it must draw as many pictures. Numbers with a point may differ by 2 units of their last
digit, and those with an exponent, which are rounding errors, by a factor of 16. Of a cell tagged "machine" lines are counted.
"""

import argparse
import re
import sys
import time

from check_site import SITE, served
from chromium import launch

AT_A_TIME = 2
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")

RUN = """async ({ address, pages, atATime }) => {
  const { Python } = await import(`${address}live/python.js`);
  const { partsOf } = await import(`${address}live/cells.js`);

  const read = async (page) => {
    const made = new DOMParser().parseFromString(await (await fetch(address + page)).text(), "text/html");
    const article = made.querySelector("article");
    const cells = [...article.querySelectorAll(".cell")].map((mark) => {
      const between = [];
      for (let next = mark.nextElementSibling; !next.matches(".cell-end"); next = next.nextElementSibling) between.push(next);
      const shown = between.slice(1);
      return {
        code: between[0].querySelector("code").textContent.replace(/\\n$/, ""),
        machine: mark.matches(".machine"),
        built: shown.filter((e) => e.matches(".output")).map((e) => e.textContent).join("\\n"),
        pictures: shown.filter((e) => e.matches(".picture")).length,
      };
    });
    return { page, parts: partsOf(article), cells };
  };

  const found = await Promise.all(pages.map(read));
  // From the end: the last chapters take longest, and should not be what all wait for.
  const queue = found.reverse().sort((one, two) => String(one.parts).localeCompare(String(two.parts)));
  const empty = "[globals().pop(name) for name in [*globals()] if name != '__name__'] and None";
  const work = async () => {
    let python, parts;
    for (let next; (next = queue.shift()); ) {
      if (String(next.parts) !== parts) {
        python?.stop();
        python = new Python();
        await python.load(next.parts);
        parts = String(next.parts);
      }
      await python.call("run_cell", { code: empty, name: "before" }, () => {});
      for (const [n, cell] of next.cells.entries()) {
        const started = performance.now();
        Object.assign(cell, { live: "", drawn: 0 });
        const take = (piece) => (piece.svg ? cell.drawn++ : (cell.live += piece.out ?? ""));
        const { failed } = await python.call("run_cell", { code: cell.code, name: `cell ${n + 1}` }, take);
        Object.assign(cell, { failed, seconds: (performance.now() - started) / 1000 });
      }
      await done(next);
    }
    python?.stop();
  };
  await Promise.all([...Array(atATime)].map(work));
}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pages", nargs="*", help="book/, notebooks/06 or the like: those that begin so; all without any"
    )
    parser.add_argument("--chromium", help="a Chromium of yours, in place of the fetched one")
    options = parser.parse_args()
    made = sorted(page for folder in ("book", "notebooks") for page in (SITE / folder).glob("*/index.html"))
    pages = [f"{page.parent.relative_to(SITE).as_posix()}/" for page in made]
    pages = [page for page in pages if page.startswith(tuple(options.pages) or "")]
    if not pages:
        sys.exit("site/ has no chapters. Build it first: make docs")
    from playwright.sync_api import sync_playwright

    faults, cells, started = [], 0, time.perf_counter()

    def done(page: dict) -> None:
        nonlocal cells
        cells += len(page["cells"])
        found = [f"{page['page']} {fault}" for fault in faults_of(page["cells"])]
        faults.extend(found)
        print(
            f"{page['page']:45} {sum(cell['seconds'] for cell in page['cells']):6.1f} s",
            *found,
            sep="\n    ",
            flush=True,
        )

    with served(SITE) as address, sync_playwright() as play:
        browser = launch(play, options.chromium)
        tab = browser.new_page()
        tab.expose_function("done", done)
        tab.goto(address + pages[0])
        tab.evaluate(RUN, {"address": address, "pages": pages, "atATime": AT_A_TIME})
        browser.close()
    print(f"{cells} cells of {len(pages)} pages ran in {time.perf_counter() - started:.0f} s: {len(faults)} faults")
    return 1 if faults else 0


def faults_of(cells: list[dict]) -> list[str]:
    """What is amiss with the cells of one page."""
    found = []
    for n, cell in enumerate(cells, 1):
        where = f"cell {n} ({cell['code'].splitlines()[0][:60]})"
        if cell["failed"]:
            found.append(f"{where} failed: {cell['failed'].strip().splitlines()[-1]}")
            continue
        if cell["drawn"] != cell["pictures"]:
            found.append(f"{where} drew {cell['drawn']} pictures, and not {cell['pictures']}")
        built, live = (lines_of(cell[which]) for which in ("built", "live"))
        if len(built) != len(live):
            found.append(f"{where} printed {len(live)} lines, and not {len(built)}")
        unlike = [(one, two) for one, two in zip(built, live, strict=False) if not (cell["machine"] or alike(one, two))]
        found += [f"{where} printed\n    {two}\nand not\n    {one}" for one, two in unlike[:1]]
    return found


def lines_of(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def alike(built: str, live: str) -> bool:
    """Whether two lines have the same words, and numbers that agree."""
    numbers = zip(NUMBER.findall(built), NUMBER.findall(live), strict=False)
    return built == live or (words_of(built) == words_of(live) and all(near(*two) for two in numbers))


def words_of(line: str) -> str:
    """The line without its numbers, and without blanks, which make room for them."""
    return "".join(NUMBER.sub("#", line).split())


def near(built: str, live: str) -> bool:
    """Whether two numbers are the same, but for rounding."""
    one, two = (float(number.replace(",", "")) for number in (built, live))
    if "e" in built or "e" in live:
        return one == two or (one * two > 0 and 1 / 16 <= one / two <= 16)
    return (
        one == two
        if "." not in built
        else abs(one - two) < 2.5 * 10.0 ** -len(built.partition(".")[2]) + 1e-6 * abs(one)
    )


if __name__ == "__main__":
    sys.exit(main())
