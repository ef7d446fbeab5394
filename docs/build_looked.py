"""The picture of where the bundled model looked while it wrote the demo's abstract. To be committed.

    python docs/build_looked.py        writes docs/assets/looked_light.png and looked_dark.png

Each column is a word of the abstract, each row 16 tokens of the document. The stronger the colour, the more of the
cross-attention of the last decoder layer went there when the word was chosen: the head that gave most, each column divided by
its largest. What the first token gets is left out: heads look at it where they look for nothing. Needs matplotlib.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from book_tools import BAND, bundled
from build_picture import INKS, letters

import led_ref
from led_ref.bundled.forms import as_trained
from led_ref.cli.demo import DOCUMENT

DOCS = Path(__file__).parent
STRETCH = 16  # tokens in a row
LINES = 28  # of letters beside the picture


def main() -> int:
    """Draw both."""
    import matplotlib

    matplotlib.use("agg")
    looked = looks()
    for scheme, ink in INKS.items():
        path = DOCS / "assets" / f"looked_{scheme}.png"
        draw(looked, ink, path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


def looks() -> dict[str, Any]:
    """The words of the abstract, the rows at which sections begin, and the weights of each row and word, from 0 to 1."""
    led = bundled()
    text, _ = as_trained((led_ref.bundled_model() / DOCUMENT).read_text(encoding="utf-8"))
    document = led.prepare(text)
    ids = np.array([document.ids])
    encoded = led.model.encoder(ids, **document.masks())
    mask = document.masks()["attention_mask"]
    written = led.model.generate(encoder_outputs=encoded, attention_mask=mask)
    # Teacher forcing: the same ids again, all at once. Position i has chosen id i + 1.
    out = led.model(
        encoder_outputs=encoded, decoder_input_ids=written[:, :-1], attention_mask=mask, output_attentions=True
    )  # fmt: skip
    weights_TS = np.array(out.cross_attentions[-1][0]).max(axis=0)
    weights_TS[:, 0] = 0
    chosen = np.asarray(written)[0, 1:]
    rows = -(-weights_TS.shape[1] // STRETCH)
    padded = np.zeros((len(chosen), rows * STRETCH))
    padded[:, : weights_TS.shape[1]] = weights_TS
    of_rows = padded.reshape(len(chosen), rows, STRETCH).max(axis=2).T
    words: list[list[int]] = []  # of the positions of its pieces, each word
    for i, piece in enumerate(led.tokenizer.convert_ids_to_tokens(chosen)):
        if chosen[i] in led.tokenizer.all_special_ids:
            continue
        if piece.startswith("Ġ") or not words:
            words.append([])
        words[-1].append(i)
    of_words = np.stack([of_rows[:, word].max(axis=1) for word in words], axis=1)
    offsets, starts = led.tokenizer(text, return_offsets_mapping=True).offset_mapping, {}
    for heading in re.finditer(r"^\d+\. +[A-Z][A-Za-z ]+$", text, re.M):
        position = next(i for i, (start, end) in enumerate(offsets) if start <= heading.start() < end)
        starts[position / STRETCH] = heading[0]
    return {
        "words": [led.tokenizer.decode([int(chosen[i]) for i in word]).strip() for word in words],
        "sections": starts,
        "weights": of_words / np.maximum(of_words.max(axis=0), 1e-9),
    }


def apart(places: dict[float, str], least: float) -> dict[float, str]:
    """Those that lie at least so far below the one before: the others would be written over it.

    Example:
        >>> apart({0: "1. Introduction", 7: "8. Errors", 7.5: "9. Versions", 9: "10. Security"}, 1)
        {0: '1. Introduction', 7: '8. Errors', 9: '10. Security'}
    """
    kept: dict[float, str] = {}
    for place, words in places.items():
        if not kept or place - max(kept) >= least:
            kept[place] = words
    return kept


def draw(looked: dict[str, Any], ink: str, path: Path) -> None:
    """One picture, without a background, its letters in this colour."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb

    weights = looked["weights"]
    picture = np.zeros((*weights.shape, 4))
    picture[..., :3] = to_rgb(BAND)
    picture[..., 3] = weights**0.7
    with plt.rc_context({**letters(ink), "font.size": 8.5}):
        figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
        axes.imshow(picture, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(looked["words"])), looked["words"], rotation=90)
        sections = apart(looked["sections"], len(weights) / LINES)
        axes.set_yticks(list(sections), list(sections.values()))
        axes.tick_params(length=0)
        figure.savefig(path, dpi=130, transparent=True)
        plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
