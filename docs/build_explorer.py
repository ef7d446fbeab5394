"""Make the attention explorer that docs/explorer.md shows: docs/built/explorer.html. Part of `make docs`.

    python docs/build_explorer.py

The document is a long manual page of led-ref, put together on the spot from the help of its commands and written as
`man` would print it, so that the bundled model reads a page that it has never seen. Nothing of what is made is committed.
"""

import argparse
import sys
import time
from pathlib import Path

import led_ref
from led_ref.cli.main import build_parser
from led_ref.pipelines.loading import global_mask
from led_ref.tools.explorer.page import page
from led_ref.tools.explorer.record import record

PAGE = Path(__file__).parent / "built" / "explorer.html"


def main() -> int:
    """Build the page, and say how large it is."""
    started = time.perf_counter()
    led = led_ref.load()
    ids = led.encode(manual(), truncation=True)  # as many tokens as the model reads
    made = page(record(led, ids, global_mask("first", len(ids)), title="led-ref's manual, all commands"))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(made, encoding="utf-8")
    seconds = time.perf_counter() - started
    print(f"docs/built/{PAGE.name}: {len(ids):,} tokens, {len(made.encode()) / 1e6:.1f} MB, made in {seconds:.1f} s")
    return 0


def manual() -> str:
    """One manual page: the bundled page's own text, then the help of each command under its name."""
    parser = build_parser()
    parts = [(led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8").strip()]
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        lines = (" ".join(line.split()) for line in command.format_help().splitlines())
        parts.append("\n".join([f"led-ref {name}".upper(), *(line for line in lines if line)]))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
