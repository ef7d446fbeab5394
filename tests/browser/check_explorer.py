"""Drive the explorer's page in a real browser: what it shows on the screen is what the model computed.

    make browser                                                      fetches a Chromium, and runs this
    python tests/browser/check_explorer.py [--chromium /usr/bin/chromium] [--shots FOLDER] [--tokens 16000]

Checked: clicks, hovering, keys, switching heads,
layers, global tokens and the window; scores, weights, costs and the search against a trace, and a changed pattern against
the model run with that pattern; no console error, no request, nothing wider than a phone. Pictures are for eyes.
"""

import argparse
import dataclasses
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from chromium import launch

import led_ref
from led_ref.model.masks import document_masks, window_blocks
from led_ref.oracle.definition.model import who_sees_whom
from led_ref.pipelines.loading import global_mask
from led_ref.tools.explorer.page import page
from led_ref.tools.explorer.record import record

ATTENTION = "led.encoder.layers.{}.self_attn.longformer_self_attn.{}"
DIGITS = 6e-4  # four digits are shown, and a float32 stands behind them


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", help="a Chromium of yours, in place of the fetched one")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--tokens", type=int, default=0, help="also open a page of so many tokens")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    led = led_ref.load()
    text = (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")
    ids = led.encode(text)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = launch(play, options.chromium)
        tab, complaints = open_page(browser, led, ids, Path(folder) / "page.html", 1280)
        check_cells(tab, led, ids)
        check_pattern(tab, led, ids)
        check_keys_and_pointer(tab)
        check_search(tab, led, ids)
        if options.tokens:
            led = longer(led, options.tokens)
            many = led.encode(text * (options.tokens // len(ids) + 1), truncation=True)
            file = Path(folder) / "long.html"
            long, more = open_page(browser, led, many, file, 1280)
            assert file.stat().st_size < 8e6, file.stat().st_size
            check_far_away(long, led, many)
            complaints += more
            print(f"{len(many):,} tokens: {file.stat().st_size / 1e6:.2f} MB, opens and works")
        for width in (1280, 400):
            for scheme in ("light", "dark"):
                narrow = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                narrow.goto((Path(folder) / "page.html").as_uri())
                assert narrow.evaluate("document.documentElement.scrollWidth") <= width
                if options.shots:
                    narrow.screenshot(path=options.shots / f"explorer_{width}_{scheme}.png", full_page=True)
        assert complaints == [], complaints
        browser.close()
    print("the explorer shows what was computed")
    return 0


def longer(led, positions):
    """The model with so many positions in its encoder, repeated."""
    config = dataclasses.replace(led.model.config, max_encoder_position_embeddings=positions)
    encoder = led.model.params.encoder
    repeated = np.resize(encoder.embed_positions, (positions, config.d_model))
    params = dataclasses.replace(led.model.params, encoder=dataclasses.replace(encoder, embed_positions=repeated))
    return led_ref.LED(led_ref.LEDForConditionalGeneration(config, params), led.tokenizer, led.name)


def open_page(browser, led, ids, file, width):
    file.write_text(page(record(led, ids, global_mask("first", len(ids)), title="a page")), encoding="utf-8")
    tab, complaints = browser.new_page(viewport={"width": width, "height": 1000}), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    tab.goto(file.as_uri())
    return tab, complaints


def traced(led, ids, globals_, only, **settings):
    mask = global_mask(globals_, len(ids))
    return led_ref.trace(
        led.model.generate, [ids], attention_mask=[[1] * len(ids)], global_attention_mask=[mask], only=only, **settings
    )


def near(shown, computed):
    assert abs(float(shown) - float(computed)) <= DIGITS * abs(float(computed)) + 1e-12, (shown, computed)


def terms(tab):
    """The arithmetic on the screen, by term."""
    return {e.get_attribute("data-term"): e.inner_text() for e in tab.query_selector_all("#arithmetic dd")}


def pick(tab, layer, head, i, j):
    """Choose layer, head and cell as a reader does: by buttons, and by clicks in the text and on the cells."""
    tab.click(f"#layers button[data-value='{layer}']")
    tab.click(f"#heads button[data-value='{head}']")
    tab.evaluate("([i, j]) => choose(i, j)", [i, j])
    tab.mouse.move(2, 2)


def check_cells(tab, led, ids):
    """Scores and weights of window, column and row, in every layer and head."""
    told = traced(
        led,
        ids,
        "first",
        ["*self_attn.scores", "*self_attn.probs", "*.global_scores", "*.global_probs"],
        max_new_tokens=2,
    )
    for layer in range(3):
        scores, probs, row_scores, rows = (
            told[ATTENTION.format(layer, role)][0] for role in ("scores", "probs", "global_scores", "global_probs")
        )
        for head in range(6):
            for i, j in ((300, 300), (300, 331), (600, 560), (64, 1), (500, 0), (0, 0), (0, 600)):
                pick(tab, layer, head, i, j)
                shown = terms(tab)
                way = (head, j, 0) if i == 0 else (head, i, 0 if j == 0 else 1 + 64 + j - i)
                score, prob = (row_scores[way], rows[way]) if i == 0 else (scores[way], probs[way])
                result = float(shown["weight"].split("=")[1])
                if abs(score) > 1e-3:
                    near(next(text for term, text in shown.items() if term.startswith("÷")).split("=")[1], score)
                near(result, prob)
                near(
                    tab.query_selector_all("#everywhere tr")[head + 1].query_selector_all("td")[layer + 1].inner_text(),
                    prob,
                )
                assert f"a weight of {shown['weight'].split('= ')[1]} in head {head + 1}" in tab.inner_text("#told")
    print("cells: scores and weights on the screen are the trace's")


def check_pattern(tab, led, ids):
    """Another window and other global tokens: pattern, cost and first layer are those of the model run so."""
    for radius, globals_ in ((64, [0]), (17, [0]), (17, []), (64, []), (100, [])):
        tab.click("#reset:enabled") if tab.is_enabled("#reset") else None
        if not globals_:
            tab.evaluate("choose(0, 0)")
            tab.click("#toggle-global")
        tab.fill("#radius", str(radius))
        kinds = np.ones(len(ids), int)
        kinds[globals_] = 2
        assert int(tab.get_attribute("#cost", "data-seen")) == who_sees_whom(kinds_T=kinds, radius=radius).sum()
        (mask,) = document_masks(np.ones((1, len(ids)), int), (kinds == 2).astype(int)[None])
        tiles = window_blocks(mask, radius, led.model.backend)
        computed = sum((b.stop - b.start) * (len(globals_) + b.high - b.low) for b in tiles) + len(globals_) * len(ids)
        assert int(tab.get_attribute("#cost", "data-computed")) == computed
        config = dataclasses.replace(led.model.config, attention_window=2 * radius)
        model = led_ref.LEDForConditionalGeneration(config, led.model.params)
        run = dataclasses.replace(led, model=model)
        probs = traced(run, ids, globals_, ["*self_attn.probs"], layer=0, max_new_tokens=2)[
            ATTENTION.format(0, "probs")
        ][0]
        for head, i, j in ((0, 300, 300), (3, 300, 310), (1, 5, 9), (2, 40, 40 + radius)):
            pick(tab, 0, head, i, j)
            near(terms(tab)["weight"].split("=")[1], probs[head, i, len(globals_) + radius + j - i])
        tab.evaluate("choose(300, 600)")
        assert "not seen" in tab.inner_text("#arithmetic")
    tab.click("#reset")
    print("pattern: cost and weights under another window and no global token are the model's own")


def check_keys_and_pointer(tab):
    """Every way of moving moves."""
    place = lambda: tab.evaluate("[state.i, state.j, state.layer, state.head, state.globals.size]")  # noqa: E731
    pick(tab, 0, 1, 300, 300)
    for canvas, step in (("#cells", 1), ("#block", 4)):
        tab.focus(canvas)
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("ArrowRight")
        assert place()[:2] == [300 + step, 300 + step], place()
        tab.keyboard.press("ArrowUp")
        tab.keyboard.press("ArrowLeft")
    tab.focus("#document")
    tab.keyboard.press("ArrowDown")
    assert place()[:2] == [428, 428]
    tab.keyboard.press("End")
    assert place()[0] == tab.evaluate("T - 1")
    tab.keyboard.press("Home")
    assert place()[:2] == [0, 0]
    tab.focus("#text")
    tab.keyboard.press("ArrowRight")
    assert place()[:2] == [1, 1]
    before = place()
    for key in ("h", "l", "g"):
        tab.keyboard.press(key)
    assert place()[2:] == [1 - before[2], before[3] + 1, before[4] + 1]
    tab.keyboard.press("r")
    assert place()[4] == 1
    tab.click("#text span[data-t='20']")
    assert place()[:2] == [20, 20]
    box = tab.locator("#document").bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert abs(place()[0] - tab.evaluate("T") / 2) < 25
    for canvas in ("#block", "#cells"):
        box = tab.locator(canvas).bounding_box()
        chosen, words = place(), tab.inner_text("#arithmetic")
        tab.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 0.8 * box["height"])
        assert tab.inner_text("#arithmetic") != words
        assert place() == chosen
        tab.mouse.down()
        tab.mouse.up()
        assert place() != chosen
        assert tab.get_attribute(canvas, "aria-label")
    first = tab.evaluate("document.documentElement.dataset.theme || ''")
    tab.click("#theme")
    assert tab.evaluate("document.documentElement.dataset.theme") != first
    tab.click("#theme")
    print("keys, clicks, hovering: all ways of moving move")


def check_search(tab, led, ids):
    """Every step's table against what the search told."""
    told = traced(led, ids, "first", "beam.*", num_beams=4)
    count = sum(name.endswith("candidates.tokens") for name in told)
    for number in range(count):
        assert tab.inner_text("#step-value") == f"{number + 1} of {count}"
        rows = [
            [cell.inner_text() for cell in row.query_selector_all("td")]
            for row in tab.query_selector_all("#candidates tbody tr")
        ]
        sums = told[f"beam.step.{number}.candidates.scores"][0]
        assert len(rows) == len(sums)
        for rank, row in enumerate(rows):
            beam, token = (told[f"beam.step.{number}.candidates.{what}"][0, rank] for what in ("beams", "tokens"))
            near(row[3].split(" ")[0], told[f"beam.step.{number}.logprobs"][beam, token])
            if row[4] != "none":
                near(row[4], sums[rank])
            assert row[5]
        finished = told[f"beam.step.{number}.finished.scores"][0][told[f"beam.step.{number}.finished.is_finished"][0]]
        values = re.findall(r"-?\d+\.\d+(?:e-\d+)?$", tab.inner_text("#finished"), re.MULTILINE)
        for shown, value in zip(values, finished, strict=True):
            near(shown, value)
        if number % 2:
            tab.click("#step-on") if number + 1 < count else None
        elif number + 1 < count:
            tab.focus("#tree")
            tab.keyboard.press("ArrowRight")
    tab.click("#step-back")
    assert tab.inner_text("#step-value") == f"{count - 1} of {count}"
    assert tab.locator("#tree g.best").count() > 2
    print(f"search: {count} steps, every sum on the screen is the trace's")


def check_far_away(tab, led, ids):
    """Outside the region the weights are the rounded ones, and it is said. Of so long a page the layers 1 and 3 are kept."""
    i = len(ids) - 400
    told = traced(led, ids, "first", ["*self_attn.probs"], layer=2, max_new_tokens=2)[ATTENTION.format(2, "probs")][0]
    for head in range(6):
        column = int(told[head, i, 1:].argmax())
        pick(tab, 1, head, i, i - 64 + column)
        found = re.search(r"a weight of (\S+) in head", tab.inner_text("#told"))
        near(found[1], told[head, i, 1 + column])
        assert "rounded" in tab.inner_text("#arithmetic")


if __name__ == "__main__":
    sys.exit(main())
