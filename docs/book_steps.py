"""Drawings that are built up step by step. A page gives them a slider and a button (docs/assets/pages.js).

    drawing = Steps(360, 100, count=3)
    drawing.box(0, 0, 20, 20, BAND, at=2)       from step 2 on
    drawing.text(40, 14, "cat", at=(1, 1))      in step 1 alone
    drawing.show()

Sizes are pixels of a phone, where 360 fit beside each other; a wide screen shows the drawing larger. Where there are no scripts
the last step is shown.
"""

import html

INK = "currentColor"


class Steps:
    """An SVG whose parts appear, and vanish, at steps 1 to count."""

    def __init__(self, width: int, height: int, *, count: int) -> None:
        self.width, self.height, self.count = width, height, count
        self._parts: list[str] = []

    def box(self, x, y, width, height, color=INK, *, opacity=1.0, line=None, at=None) -> None:
        """A rectangle; with `line` its outline alone, of that width."""
        paint = f'fill="{color}"' if line is None else f'fill="none" stroke="{color}" stroke-width="{line}"'
        self._add(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" {paint}', opacity, at)

    def line(self, x, y, to_x, to_y, color=INK, *, width=1.0, opacity=1.0, at=None) -> None:
        """A straight line."""
        way = f'x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}"'
        self._add(f'<line {way} stroke="{color}" stroke-width="{width}"', opacity, at)

    def text(
        self, x, y, words, *, size=11, anchor="middle", color=INK, turn=0, bold=False, halo=False, at=None
    ) -> None:
        """Words; y is their base line, turn is in degrees. A halo of the page's colour keeps lines away from them."""
        turned = f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
        heavy = ' font-weight="bold"' if bold else ""
        around = ' style="paint-order: stroke; stroke: var(--md-default-bg-color); stroke-width: 3px"' if halo else ""
        style = f'font-size="{size}" text-anchor="{anchor}" fill="{color}"{turned}{heavy}{around}'
        self._add(f'<text x="{x:g}" y="{y:g}" {style}', 1, at, inside=html.escape(str(words)))

    def show(self) -> None:
        """Show it below the cell."""
        from IPython.display import SVG, display

        display(SVG(self.svg()))

    def svg(self) -> str:
        """The drawing as a text."""
        box = f'viewBox="0 0 {self.width} {self.height}" width="{self.width * 72 / 88:.1f}pt"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} data-steps="{self.count}" font-family="sans-serif">'
        return "\n".join([head, *self._parts, "</svg>"])

    def _add(self, start: str, opacity: float, at: int | tuple[int, int] | None, inside: str = "") -> None:
        name, when = start[1:].split(" ", 1)[0], ""
        if at is not None:
            first, last = at if isinstance(at, tuple) else (at, self.count)
            when = f' class="step" data-from="{first}" data-to="{last}"'
            if last < self.count:
                when += ' visibility="hidden"'
        faint = "" if opacity == 1 else f' opacity="{opacity:.2f}"'
        self._parts.append(f"{start}{faint}{when}>{inside}</{name}>")
