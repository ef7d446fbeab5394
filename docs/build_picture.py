"""The picture at the top of the README and of the site: LED's attention, and what it costs. To be committed.

    python docs/build_picture.py        writes docs/assets/attention_light.png and attention_dark.png

Left: the bundled model reads its own manual page, and each point is a weight of its first encoder layer, of the head that
gives most. Right: docs/data/performance.json. Both are of real runs. Needs matplotlib.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from book_tools import BAND, GLOBAL, WRONG, bundled, manual_page

from led_ref.tools.bench.plot import curves

DOCS = Path(__file__).parent
INKS = {"light": "#1f2328", "dark": "#e6edf3"}  # letters on a light page, and on a dark one
GLOBAL_WIDTH = 14  # the one global token, drawn wider than it is


def main() -> int:
    """Draw both."""
    import matplotlib

    matplotlib.use("agg")
    report = json.loads((DOCS / "data" / "performance.json").read_text(encoding="utf-8"))
    looks = weights()
    for scheme, ink in INKS.items():
        path = DOCS / "assets" / f"attention_{scheme}.png"
        draw(looks, curves(report), ink, path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


def weights() -> dict[str, Any]:
    """How much each token (row) attends to each (column), from 0 to 1; 0 where the mask forbids it."""
    led = bundled()
    ids = led.encode(manual_page())
    first = [1] + [0] * (len(ids) - 1)
    read = led.model.encoder([ids], global_attention_mask=[first], output_attentions=True)
    probs_TZ, row_T = read.attentions[0][0].max(axis=0), read.global_attentions[0][0, :, :, 0].max(axis=0)
    T, R = len(ids), led.model.config.radii[0]
    window_TT = np.zeros((T, T))
    for i in range(1, T):
        near = range(max(1, i - R), min(T, i + R + 1))
        window_TT[i, near] = probs_TZ[i, [1 + R + j - i for j in near]]
    return {"window": window_TT, "column": probs_TZ[:, 0], "row": row_T, "radius": R}


def letters(ink: str) -> dict[str, str]:
    """The settings of matplotlib for letters of this colour."""
    names = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    return {**dict.fromkeys(names, ink), "axes.edgecolor": "#808080"}


def draw(looks: dict[str, Any], lines: dict[str, Any], ink: str, path: Path) -> None:
    """One picture, without a background, its letters in this colour."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgb
    from PIL import Image

    T, G = len(looks["window"]), GLOBAL_WIDTH
    picture = np.zeros((T + G, T + G, 4))
    for cells, strength, color in (
        (np.s_[G:, G:], looks["window"], BAND),
        (np.s_[G:, :G], looks["column"][:, None], GLOBAL),
        (np.s_[:G, G:], looks["row"][None], GLOBAL),
    ):
        picture[cells][..., :3] = to_rgb(color)
        picture[cells][..., 3] = np.where(strength > 0, 0.12 + 0.88 * np.minimum(1, strength / 0.1) ** 0.6, 0)
    with plt.rc_context({**letters(ink), "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.1), layout="constrained", width_ratios=(1, 1.25))
        left.imshow(picture, interpolation="nearest")
        left.set(xticks=[], yticks=[], xlabel="is looked at", ylabel="looks", title=f"{T} tokens: who looks at whom")
        left.spines[:].set_visible(True)
        left.annotate("the neighbours,\nthrough a window", (0.40, 0.60), (0.50, 0.80), xycoords="axes fraction",
                      color=ink, arrowprops={"arrowstyle": "-", "color": "#808080"})  # fmt: skip
        left.annotate("one global token sees all,\nand all see it", (0.012, 0.25), (0.06, 0.08), xycoords="axes fraction",
                      color=ink, arrowprops={"arrowstyle": "-", "color": "#808080"})  # fmt: skip
        for (who, curve), color, raised in zip(lines.items(), (BAND, WRONG, "#808080"), (0, 7, -13), strict=True):
            tokens, seconds = [point[0] for point in curve], [point[1] for point in curve]
            right.plot(tokens, seconds, "--" if "counted" in who else "o-", color=color)
            right.annotate(
                who.replace(", counted", "\n(counted)"), (tokens[-1], seconds[-1]), (8, raised),
                textcoords="offset points", color=ink, va="center",
            )  # fmt: skip
        ticks = [0, 4096, 8192, 16384]
        right.set(xticks=ticks, xticklabels=[f"{tick:,}" for tick in ticks], xlabel="tokens", ylabel="seconds",
                  title="how long reading takes (led-base, two cores)", xlim=(0, 22500), ylim=(0, None))  # fmt: skip
        right.grid(axis="y", color="#80808040")
        figure.savefig(path, dpi=150, transparent=True)
        plt.close(figure)
    # 256 colours are enough, and a third of the bytes.
    Image.open(path).convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
