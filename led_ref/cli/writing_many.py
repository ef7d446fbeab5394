"""`led-ref summarize *.txt --out DIR`: each document's text into a file of its own, in a run that may be cut off at any time.

What a document gets is written as soon as it is there (result_folder.py). A run that is repeated with --resume cuts the
documents into the same batches as the first, leaves out those that are done, and so ends with the same files to the byte.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from led_ref.api import LED, bundled_model
from led_ref.cli.progress import ProgressBars, count_documents, say
from led_ref.cli.result_folder import check_folder, model_digest, open_folder, result_names, write_whole
from led_ref.errors import LEDError
from led_ref.pipelines.batching import BATCH_MEMORY, Document, write_each
from led_ref.weights.hub import resolve

BATCH_SIZE = 4

# (model, file, document, what was written, settings in effect) -> all that is told about it.
Describe = Callable[..., dict[str, Any]]


class ResultsOf:
    """The results of one command line: their names, known before anything is read.

    Args:
        options: the command line.
        files: the documents.

    Raises:
        LEDError: if two would have one name, or the folder may not be written to (result_folder.py).
    """

    def __init__(self, options: argparse.Namespace, files: Sequence[str], *, kind: str) -> None:
        self.folder = Path(options.out)
        ending = f"{kind}.json" if options.json else f"{kind}.txt"
        self.names = dict(zip(files, result_names(files, ending), strict=True))
        check_folder(self.folder, list(self.names.values()), resume=options.resume)


def write_into_folder(
    led: LED,
    documents: Sequence[tuple[str, str, Document]],
    results: ResultsOf,
    options: argparse.Namespace,
    settings: dict[str, Any],
    describe: Describe,
    lines: Callable[[dict[str, Any]], Sequence[str]],
    complain: Callable[[str, LEDError], None],
) -> int:
    """Write what is not there yet.

    Args:
        led: the model.
        documents: name, text and ids of each that could be read.
        results: where they go.
        options: the command line.
        settings: of generate.
        describe: makes of what was written all that is known about it.
        lines: makes of that the lines of a text file.
        complain: says why a document failed.

    Returns:
        How many documents failed.

    Raises:
        InputError: if the folder's results were made in another way.
    """
    folder, names = results.folder, [results.names[file] for file, _, _ in documents]
    run = _run(led, options, settings)
    done = open_folder(folder, run, {name: text for name, (_, text, _) in zip(names, documents, strict=True)})
    if done and not options.quiet:
        say(f"{len(done)} of {len(documents)} are in {folder} already")
    failed = 0
    shows_bars = not options.quiet and sys.stderr.isatty()
    size = BATCH_SIZE if options.batch_size is None else options.batch_size
    memory = BATCH_MEMORY if options.batch_memory is None else options.batch_memory * 10**6
    with (
        count_documents(len(documents), len(done), enabled=shows_bars) as count,
        ProgressBars("now", enabled=shows_bars, position=1) as progress,
    ):
        for i, written in write_each(
            led.model, [document for _, _, document in documents], settings, batch_size=size, batch_memory=memory,
            cross_attention=options.cross_attention, progress=progress, tokenizer=led.tokenizer,
            skip={i for i, name in enumerate(names) if name in done},
        ):  # fmt: skip
            file, _, document = documents[i]
            if isinstance(written, LEDError):
                complain(file, written)
                failed += 1
                continue
            found = describe(led, file, document, written, run["settings"])
            text = json.dumps(found, ensure_ascii=False) if options.json else "\n".join(lines(found))
            write_whole(folder / names[i], text + "\n")
            count()
            print(folder / names[i], flush=True)
    return failed


def _run(led: LED, options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """All that decides what a text comes out as, and as what it is written."""
    from led_ref import __version__

    folder = bundled_model() if options.model is None else resolve(options.model, revision=options.revision)
    return {
        "led_ref": __version__,
        "model": led.name,
        "sha256 of the model": model_digest(folder),
        "dtype": led.model.dtype,
        "settings": led.model.effective_settings(**settings).to_dict(),
        "global_attention": options.global_attention,
        "truncate": options.truncate,
    }
